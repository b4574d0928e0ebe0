"""The peer's requests to the daemon, without the wire: any message, and any bytes in it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Hashable, Iterable
from functools import cache
from types import SimpleNamespace
from typing import Any, cast

from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from colod.daemon.host import Host
from colod.daemon.pairing import Listening
from colod.daemon.peer_service import PeerService
from colod.errors import ColodError, NotFound
from colod.failover import record as records
from colod.model import GuestName, HostName, parse_guest_name
from colod.rpc import status
from colod.v1 import peer_pb2
from colod.witness.manual import ManualWitness
from tests.fuzz.target import MIB, Reader, Target, demand, gist
from tests.fuzz.targets.folder import make_folder
from tests.unit.test_daemon_peer_service import CONTEXT, GOOD, QuietHost

CALLS = peer_pb2.DESCRIPTOR.services_by_name["Peer"].methods


class QuietPeer(QuietHost):
    """A host whose witness is the two hosts themselves, and that checks what reaches it."""

    def __init__(self) -> None:
        """Keep the witness's copies in memory."""
        super().__init__()
        directory = make_folder()
        self.parts = SimpleNamespace(
            **vars(self.parts)
            | {"witness": ManualWitness(directory, host=HostName("beta")), "witness_kind": "manual"}
        )

    def record_offered(self, guest: str) -> None:
        """Take note."""
        parse_guest_name(guest)

    def find(self, guest: str) -> None:
        """Protect nothing."""
        raise NotFound(f"{parse_guest_name(guest)} is not protected here")

    async def receive(self, request: peer_pb2.PrepareReceiveRequest) -> Listening:
        """Start nothing."""
        parse_guest_name(request.guest)
        return Listening("127.0.0.1:1")


@cache
def quiet_loop() -> asyncio.AbstractEventLoop:
    """Return the loop of a daemon that ends with the process."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return loop


@cache
def service() -> PeerService:
    """Return the service of a quiet host."""
    return PeerService(cast("Host", QuietPeer()), quiet_loop())


def call(name: str, request: Message) -> Hashable:
    """Make one call as the server does; return what became of it."""
    try:
        reply = getattr(service(), name)(request, CONTEXT)
    except ColodError as error:
        demand(not isinstance(error, status.DEFECTS), f"the daemon would end: {error!r}")
        sum(len(key) + len(value) for key, value in status.trailers_of(error))
        return gist(error)
    reply.SerializeToString()
    return type(reply).__name__


def _run(octets: bytes) -> Hashable:
    reader = Reader(octets)
    method = CALLS[reader.byte() % len(CALLS)]
    raw = reader.rest()
    try:
        request = GetMessageClass(method.input_type).FromString(raw)
    except DecodeError:
        return method.name, "no message"
    return method.name, call(method.name, request)


def some_requests() -> Iterable[tuple[str, Message]]:
    """Yield a sound request of each kind."""
    config = {
        "c_info": {"type": "hvm", "name": "g1"},
        "b_info": {"max_memkb": 65536},
        "disks": [{"pdev_path": "/x", "vdev": "xvda"}],
        "nics": [{"bridge": "xenbr0"}],
    }
    paired = records.create(HostName("alpha"), HostName("beta"), attempt="a")
    yield "Greet", peer_pb2.GreetRequest(version_min=1, version_max=1, software="x")
    yield "Beat", peer_pb2.BeatRequest(sequence=3)
    yield (
        "Preflight",
        peer_pb2.PeerPreflightRequest(
            guest="g1",
            disks="none",
            domain_config=json.dumps(config).encode(),
            xen_version="4.17",
            memory_bytes=1 << 26,
            cpu_features=["0x1", "x"],
        ),
    )
    yield "PrepareReceive", peer_pb2.PrepareReceiveRequest(**cast("Any", GOOD))
    yield "Forget", peer_pb2.ForgetRequest(guest="g1", generation=1)
    offered = peer_pb2.OfferRecordRequest(
        guest=GuestName("g1"), content=records.encode(paired), revision=1
    )
    yield "OfferRecord", offered
    yield "SetAutomation", peer_pb2.PeerSetAutomationRequest(paused=True, operator="a", reason="b")
    yield "GiveBack", peer_pb2.GiveBackRequest(guest="g1", generation=1, dry_run=True)


def _seeds() -> Iterable[bytes]:
    numbers = {method.name: number for number, method in enumerate(CALLS)}
    for name, request in some_requests():
        yield bytes((numbers[name],)) + request.SerializeToString()


PEER = Target(run=_run, seeds=_seeds, held_bytes=lambda size: 4 * MIB + 512 * size)
