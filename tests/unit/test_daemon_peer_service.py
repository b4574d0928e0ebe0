"""What the peer sends is checked before it is used: nonsense never ends the daemon."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colod.daemon import peer_service
from colod.daemon.host import Host
from colod.daemon.pairing import Listening
from colod.daemon.peer_service import PeerService
from colod.errors import ColodError, PeerRefused, PreflightRefused
from colod.model import HostName
from colod.toolstack.port import HostFacts
from colod.v1 import peer_pb2


class Call:
    """A call whose caller waits for `remaining_s` more."""

    def __init__(self, remaining_s: float | None) -> None:
        self._remaining_s = remaining_s

    def time_remaining(self) -> float | None:
        return self._remaining_s


CONTEXT = cast("grpc.ServicerContext", Call(None))
GOOD = {
    "guest": "g1",
    "pairing": "0" * 32,
    "generation": 1,
    "disks": "none",
    "mode": "remus",
    "interval_ms": 200,
    "transport": "tcp",
    "secret": b"0" * 32,
}


class Toolstack:
    async def host_facts(self) -> HostFacts:
        return HostFacts(
            xen_version="4.17",
            free_memory_bytes=1 << 33,
            machine="x86_64",
            autoballoon=False,
            simulated=True,
            cpu_features=(),
        )


class Domains:
    async def by_name(self) -> dict[str, object]:
        return {}


class QuietHost:
    """A host that protects nothing and counts what reaches it."""

    def __init__(self) -> None:
        self.services: dict[str, object] = {}
        self.reached: list[str] = []
        self.parts = SimpleNamespace(
            host=HostName("beta"),
            peer=HostName("alpha"),
            toolstack=Toolstack(),
            domains=Domains(),
            witness=object(),
            automation=SimpleNamespace(is_paused=False),
            witness_kind="etcd",
            transport_kind="tcp",
            limits=SimpleNamespace(staging_bytes=1 << 20),
        )

    async def receive(self, request: peer_pb2.PrepareReceiveRequest) -> Listening:
        self.reached.append("receive")
        return Listening("127.0.0.1:1", "127.0.0.2:2")

    async def forget(self, guest: str) -> None:
        self.reached.append("forget")

    async def set_automation(self, *, paused: bool, operator: str, reason: str) -> None:
        self.reached.append(f"{paused} {operator} {reason}")

    def check_joins_pairings(self) -> None:
        self.reached.append("joins")

    def find(self, guest: str) -> None:
        self.reached.append(f"find {guest}")

    def peer_views(self) -> list[peer_pb2.ProtectionView]:
        return []


@contextmanager
def loop_in_thread() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[PeerService, QuietHost]]:
    host = QuietHost()
    with loop_in_thread() as loop:
        yield PeerService(cast("Host", host), loop), host


Served = tuple[PeerService, QuietHost]


def test_a_sound_request_is_passed_on(served: Served) -> None:
    service, host = served
    host.reached.clear()
    reply = service.PrepareReceive(peer_pb2.PrepareReceiveRequest(**cast("Any", GOOD)), CONTEXT)
    assert (reply.address, reply.backup_address) == ("127.0.0.1:1", "127.0.0.2:2")
    assert host.reached == ["receive"]


def test_the_peer_pauses_automation_here_too_with_words_that_can_be_kept(served: Served) -> None:
    service, host = served
    host.reached.clear()
    request = peer_pb2.PeerSetAutomationRequest(paused=True, operator="ann", reason="new switch")
    service.SetAutomation(request, CONTEXT)
    assert host.reached == ["True ann new switch"]
    for field in ("operator", "reason"):
        long = peer_pb2.PeerSetAutomationRequest(paused=True, **cast("Any", {field: "x" * 1001}))
        with pytest.raises(PeerRefused):
            service.SetAutomation(long, CONTEXT)
    assert len(host.reached) == 1


def test_a_guest_is_asked_back_by_its_name_and_by_somebody(served: Served) -> None:
    service, host = served
    host.reached.clear()
    service.GiveBack(peer_pb2.GiveBackRequest(guest="g1", dry_run=True), CONTEXT)
    assert host.reached == ["joins", "find g1"]
    for nonsense in ({"guest": "../x"}, {"guest": "g1", "operator": "x" * 1001}):
        with pytest.raises(PeerRefused):
            service.GiveBack(peer_pb2.GiveBackRequest(**cast("Any", nonsense)), CONTEXT)
    assert len(host.reached) == 2


@pytest.mark.parametrize(("limit_s", "waits_s"), [(0.05, None), (85.0, 2.05), (85.0, 1.0)])
def test_a_slow_request_ends_with_a_reason_while_the_peer_still_waits_for_it(
    limit_s: float, waits_s: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = asyncio.Event()

    class SlowHost(QuietHost):
        async def receive(self, request: peer_pb2.PrepareReceiveRequest) -> Listening:
            await done.wait()
            return await super().receive(request)

    monkeypatch.setattr(peer_service, "_CALL_S", limit_s)
    context = cast("grpc.ServicerContext", Call(waits_s))
    with loop_in_thread() as loop:
        service = PeerService(cast("Host", SlowHost()), loop)
        with pytest.raises(PeerRefused, match="beta is still at work after"):
            service.PrepareReceive(peer_pb2.PrepareReceiveRequest(**cast("Any", GOOD)), context)
        loop.call_soon_threadsafe(done.set)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("guest", ""),
        ("guest", "../../etc/passwd"),
        ("guest", "g1--incoming"),
        ("guest", "a" * 300),
        ("pairing", "short"),
        ("pairing", "../" * 11),
        ("disks", "maybe"),
        ("mode", ""),
        ("interval_ms", 0),
        ("interval_ms", 4_000_000_000),
        ("secret", b""),
        ("transport", ""),
        ("transport", "tls"),
    ],
)
def test_a_request_with_nonsense_reaches_nobody(served: Served, field: str, value: object) -> None:
    service, host = served
    host.reached.clear()
    request = peer_pb2.PrepareReceiveRequest(**cast("Any", GOOD | {field: value}))
    with pytest.raises(PreflightRefused):
        service.PrepareReceive(request, CONTEXT)
    assert not host.reached


def test_every_problem_of_a_request_is_named(served: Served) -> None:
    with pytest.raises(PreflightRefused) as refused:
        served[0].PrepareReceive(peer_pb2.PrepareReceiveRequest(), CONTEXT)
    assert len(refused.value.reasons) >= 5


@given(
    request=st.builds(
        peer_pb2.PrepareReceiveRequest,
        guest=st.text(),
        pairing=st.text(),
        generation=st.integers(0, 2**64 - 1),
        disks=st.text(),
        mode=st.text(),
        interval_ms=st.integers(0, 2**32 - 1),
        transport=st.text(),
        secret=st.binary(max_size=64),
    )
)
def test_no_request_raises_anything_but_a_refusal(
    served: Served, request: peer_pb2.PrepareReceiveRequest
) -> None:
    with pytest.raises(ColodError):
        served[0].PrepareReceive(request, CONTEXT)


@pytest.mark.parametrize("guest", ["", "../x", "a b", "\0"])
def test_a_name_that_is_none_is_refused_everywhere(served: Served, guest: str) -> None:
    service, host = served
    host.reached.clear()
    with pytest.raises(PeerRefused):
        service.Forget(peer_pb2.ForgetRequest(guest=guest), CONTEXT)
    config = json.dumps({"c_info": {}, "b_info": {}}).encode()
    with pytest.raises(PeerRefused):
        service.Preflight(peer_pb2.PeerPreflightRequest(guest=guest, domain_config=config), CONTEXT)
    assert not host.reached


@pytest.mark.parametrize("config", [b"", b"no json", b"[]", b"\xff\xfe", b'"text"', b"[" * 100_000])
def test_a_configuration_that_is_no_object_is_refused(served: Served, config: bytes) -> None:
    request = peer_pb2.PeerPreflightRequest(guest="g1", domain_config=config)
    with pytest.raises(PeerRefused):
        served[0].Preflight(request, CONTEXT)


@given(
    config=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["c_info", "b_info", "disks", "nics", "kernel", "type", "pci"])
                | st.text(),
                inner,
            )
        ),
    )
)
def test_a_configuration_of_any_shape_is_refused_or_judged(served: Served, config: object) -> None:
    request = peer_pb2.PeerPreflightRequest(guest="g1", domain_config=json.dumps(config).encode())
    with suppress(ColodError):
        served[0].Preflight(request, CONTEXT)


@given(content=st.binary(max_size=200), revision=st.integers(0, 2**64 - 1))
def test_a_record_is_not_taken_where_the_witness_is_another(
    served: Served, content: bytes, revision: int
) -> None:
    request = peer_pb2.OfferRecordRequest(guest="g1", content=content, revision=revision)
    with pytest.raises(PeerRefused, match="etcd"):
        served[0].OfferRecord(request, CONTEXT)


@given(
    views=st.lists(
        st.builds(
            peer_pb2.ProtectionView,
            guest=st.text(),
            generation=st.integers(0, 2**64 - 1),
            pairing=st.text(),
            state=st.text(),
            role=st.integers(0, 100),
            replica=st.integers(0, 100),
        ),
        max_size=5,
    )
)
def test_a_heartbeat_is_answered_whatever_it_says(
    served: Served, views: list[peer_pb2.ProtectionView]
) -> None:
    reply = served[0].Beat(peer_pb2.BeatRequest(sequence=7, protections=views), CONTEXT)
    assert reply.sequence == 7
