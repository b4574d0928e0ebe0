"""A guest's plugs are set up wholly or not at all, and opened whatever state they were left in."""

from __future__ import annotations

import struct
from collections.abc import Collection
from dataclasses import dataclass, field

import pytest
from pyroute2.netlink.rtnl.tcmsg import sched_plug

from colod.errors import NetworkError
from colod.output.naming import ifb_of
from colod.output.plug import Found, PlugAction, Queue
from colod.output.plugs import KernelPlugs, found_in_kernel
from colod.output.port import NotClosed

LIMIT = 1 << 20
VIFS = ("vif3.0", "vif3.1")


@pytest.mark.parametrize(("action", "code"), list(zip(PlugAction, range(4), strict=True)))
def test_every_action_is_encoded_as_the_kernel_numbers_it(action: PlugAction, code: int) -> None:
    given = sched_plug.get_parameters({"action": action.value, "limit": 7})
    message = sched_plug.options()
    message["action"], message["limit"] = given["action"], given["limit"]
    message.encode()
    assert bytes(message.data)[4:] == struct.pack("=iI", code, 7)


def test_the_trap_is_real_and_a_misspelt_action_means_buffer() -> None:
    assert sched_plug.get_parameters({"action": "RELEASE_ONE"})["action"] == 0


@dataclass
class FakeKernel:
    """Devices as names; the `fails_at`th change of anything fails.

    Attributes:
        queues: Each interface with an ifb, and what was asked of its plug since it was made.
        ingress: Interfaces with an ingress qdisc, and whether that is somebody else's.
        redirected: Interfaces that are turned into their ifb.
    """

    present: set[str] = field(default_factory=lambda: {*VIFS, "eth0"})
    queues: dict[str, list[PlugAction]] = field(default_factory=dict)
    ingress: dict[str, bool] = field(default_factory=dict)
    redirected: set[str] = field(default_factory=set)
    fails_at: int = 0
    fails_from: int = 0
    changes: int = 0

    def _change(self) -> None:
        self.changes += 1
        if self.changes == self.fails_at or 0 < self.fails_from <= self.changes:
            raise NetworkError("the kernel said no")

    def close(self) -> None:
        pass

    def interfaces(self, known: Collection[str]) -> frozenset[str]:
        return frozenset(each for each in self.present if each in known or each.startswith("vif3."))

    def add_queue(self, interface: str, label: str, limit_bytes: int) -> None:
        del label, limit_bytes
        self._change()
        if interface in self.queues:
            raise NetworkError("it is there already")
        self.queues[interface] = []

    def remove_queue(self, interface: str) -> None:
        self._change()
        self.queues.pop(interface, None)

    def has_queue(self, interface: str) -> bool:
        return interface in self.queues

    def add_ingress(self, interface: str) -> None:
        self._change()
        if interface in self.ingress:
            raise NetworkError("it is there already")
        self.ingress[interface] = False

    def remove_ingress(self, interface: str) -> None:
        self._change()
        if self.ingress.get(interface) is False:
            del self.ingress[interface]
            self.redirected.discard(interface)

    def redirect(self, interface: str) -> None:
        self._change()
        assert interface in self.ingress
        self.redirected.add(interface)

    def change(self, interface: str, action: PlugAction) -> None:
        self._change()
        self.queues[interface].append(action)

    def is_held(self, interface: str) -> bool:
        return interface in self.redirected and interface in self.queues

    def queue(self, interface: str) -> Queue:
        asked = self.queues[interface]
        return Queue(held_packets=len(asked), held_bytes=100, dropped_packets=1)

    def is_drained(self, interface: str) -> bool:
        return PlugAction.RELEASE_INDEFINITE in self.queues[interface]

    def found(self) -> tuple[Found, ...]:
        return tuple(Found(ifb_of(each), each, "", self.is_held(each)) for each in self.queues)


def plugs(kernel: FakeKernel) -> KernelPlugs:
    return KernelPlugs(VIFS, LIMIT, "guest=web", lambda: kernel)


def closed(kernel: FakeKernel) -> KernelPlugs:
    made = plugs(kernel)
    made.prepare()
    made.close()
    return made


def is_untouched(kernel: FakeKernel) -> bool:
    return not kernel.queues and not kernel.ingress and not kernel.redirected


def test_preparing_touches_no_output() -> None:
    kernel = FakeKernel()
    plugs(kernel).prepare()
    assert set(kernel.queues) == set(VIFS)
    assert not kernel.redirected


def test_closing_holds_every_interface_in_a_plug_of_which_nothing_was_asked() -> None:
    kernel = FakeKernel()
    closed(kernel)
    assert kernel.redirected == set(VIFS)
    assert all(asked == [] for asked in kernel.queues.values())


def test_barriers_and_releases_reach_every_plug_in_order() -> None:
    kernel = FakeKernel()
    made = closed(kernel)
    made.set_barrier()
    made.release_one()
    for asked in kernel.queues.values():
        assert asked == [PlugAction.BUFFER, PlugAction.RELEASE_ONE]


def test_opening_leaves_nothing_and_may_be_repeated() -> None:
    kernel = FakeKernel()
    made = closed(kernel)
    made.open()
    assert is_untouched(kernel)
    made.open()
    assert is_untouched(kernel)


# Two for each interface that is there, before their plugs are made: see `prepare`.
@pytest.mark.parametrize("fails_at", range(1, 7))
def test_a_preparation_that_fails_half_way_leaves_the_network_as_it_was(fails_at: int) -> None:
    kernel = FakeKernel(fails_at=fails_at)
    with pytest.raises(NetworkError, match="said no"):
        plugs(kernel).prepare()
    assert is_untouched(kernel)


@pytest.mark.parametrize("which", [1, 2])
def test_a_closing_that_fails_half_way_is_undone_with_fresh_plugs(which: int) -> None:
    kernel = FakeKernel()
    made = plugs(kernel)
    made.prepare()
    kernel.fails_at = kernel.changes + which
    with pytest.raises(NotClosed) as caught:
        made.close()
    assert caught.value.undone
    assert not kernel.redirected
    assert all(asked == [] for asked in kernel.queues.values()), "an opened plug is not used again"
    made.close()
    assert kernel.redirected == set(VIFS)


def test_a_closing_that_cannot_be_undone_says_so() -> None:
    kernel = FakeKernel()
    made = plugs(kernel)
    made.prepare()
    kernel.fails_from = kernel.changes + 2
    with pytest.raises(NotClosed) as caught:
        made.close()
    assert not caught.value.undone


def test_closing_without_plugs_is_no_success() -> None:
    with pytest.raises(NotClosed) as caught:
        plugs(FakeKernel()).close()
    assert caught.value.undone


@pytest.mark.parametrize("fails_at", range(1, 9))
def test_an_opening_that_fails_half_way_can_be_finished(fails_at: int) -> None:
    kernel = FakeKernel()
    made = closed(kernel)
    kernel.fails_at = kernel.changes + fails_at
    try:
        made.open()
    except NetworkError:
        made.open()
    assert is_untouched(kernel)


def test_what_a_crash_left_closed_stays_closed_until_another_process_opens_it() -> None:
    kernel = FakeKernel()
    closed(kernel)
    assert [each.is_held for each in found_in_kernel(lambda: kernel)] == [True, True]
    plugs(kernel).open()
    assert is_untouched(kernel)


def test_a_new_pairing_begins_with_fresh_plugs_whatever_was_left() -> None:
    kernel = FakeKernel()
    closed(kernel).set_barrier()
    plugs(kernel).prepare()
    assert all(asked == [] for asked in kernel.queues.values())
    assert not kernel.redirected


def test_a_redirect_to_nowhere_is_removed_by_opening() -> None:
    kernel = FakeKernel()
    made = closed(kernel)
    kernel.queues.clear()
    made.open()
    assert is_untouched(kernel)


def test_an_ingress_qdisc_of_somebody_else_is_refused_and_kept() -> None:
    kernel = FakeKernel(ingress={"vif3.1": True})
    with pytest.raises(NetworkError):
        plugs(kernel).prepare()
    assert kernel.ingress == {"vif3.1": True}
    assert not kernel.queues


def test_discarding_drops_what_is_held_and_keeps_the_guest_mute() -> None:
    kernel = FakeKernel()
    closed(kernel).discard()
    assert not kernel.queues
    assert kernel.redirected == set(VIFS)


def test_an_interface_that_comes_later_is_seen_and_covered() -> None:
    kernel = FakeKernel()
    made = closed(kernel)
    kernel.present.add("vif3.2")
    assert made.survey().appeared == {"vif3.2"}
    made.cover("vif3.2")
    assert "vif3.2" in kernel.redirected
    assert made.survey().appeared == frozenset()
    made.set_barrier()
    assert kernel.queues["vif3.2"] == [PlugAction.BUFFER]
    made.open()
    assert is_untouched(kernel)


def test_an_interface_that_is_covered_before_the_gate_closes_flows_until_then() -> None:
    kernel = FakeKernel()
    made = plugs(kernel)
    made.prepare()
    kernel.present.add("vif3.2")
    made.cover("vif3.2")
    assert not kernel.redirected
    made.close()
    assert "vif3.2" in kernel.redirected


def test_a_redirect_that_somebody_removed_is_seen_and_set_again() -> None:
    kernel = FakeKernel()
    made = closed(kernel)
    kernel.redirected.remove("vif3.1")
    assert made.survey().appeared == {"vif3.1"}
    made.cover("vif3.1")
    assert made.survey().appeared == frozenset()


def test_a_survey_adds_up_all_plugs() -> None:
    kernel = FakeKernel()
    made = closed(kernel)
    made.set_barrier()
    kernel.present.remove("vif3.0")
    survey = made.survey()
    assert (survey.packets, survey.octets, survey.dropped) == (2, 200, 2)
    assert survey.vanished == {"vif3.0"}


def test_a_plug_that_was_emptied_from_outside_is_never_released() -> None:
    kernel = FakeKernel()
    made = closed(kernel)
    made.set_barrier()
    made.survey()
    kernel.queues["vif3.1"].clear()
    made.survey()
    for call in (made.release_one, made.set_barrier):
        with pytest.raises(NetworkError, match=r"vif3\.1 was emptied"):
            call()
    made.open()
    assert is_untouched(kernel)
    made.prepare()
    made.close()
    made.set_barrier()
