"""What an ended session left of a gate, and what only looks like it."""

from __future__ import annotations

from colod.output.kinds import GateSpec, Kind, label_of, without_strangers
from colod.output.plug import Found

SPEC = GateSpec(kind=Kind.PLUG, interfaces=("vif1.0", "vif1.1", "vif1.2"))


def _found(interface: str, label: str) -> Found:
    return Found(ifb="colod1.0", interface=interface, label=label, is_held=True)


def test_an_interface_that_another_guest_has_by_now_is_left_alone() -> None:
    """After a reboot domain ids begin anew, and that guest may be protected."""
    found = [
        _found("vif1.0", label_of("web2", "b" * 32)),
        _found("vif1.1", label_of("web", "c" * 32)),
        _found("vif1.2", ""),
    ]
    assert without_strangers(SPEC, "web", found).interfaces == ("vif1.1", "vif1.2")


def test_one_that_the_kernel_does_not_know_is_kept() -> None:
    assert without_strangers(SPEC, "web", []) == SPEC
