"""Operators' requests to the daemon, without the wire: any message, to a host that has no guest."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterable
from functools import cache
from types import SimpleNamespace
from typing import Any, cast

from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from colod.daemon.admin_service import AdminService
from colod.daemon.drill_live import LiveDrills
from colod.daemon.drill_log import DrillLog
from colod.daemon.drill_secondary import SecondaryDrills
from colod.daemon.drills import Drills
from colod.daemon.history import History
from colod.daemon.host import Host
from colod.daemon.image_schedule import ImageSchedule
from colod.errors import ColodError, NotFound, PeerUnreachable, PreflightRefused
from colod.model import GuestName, HostName, parse_guest_name, parse_host_name
from colod.rpc import status
from colod.v1 import admin_pb2
from tests.fuzz.target import MIB, Finding, Reader, Target, demand, gist
from tests.fuzz.targets.folder import make_folder
from tests.fuzz.targets.loop import finish
from tests.unit.test_daemon_peer_service import Toolstack

_LEFT_OUT = frozenset({"Doctor", "WatchStatus", "Status"})
"""They look at a whole host, which there is none of here, and take nothing but a guest's name."""
_CALLS = [
    call
    for call in admin_pb2.DESCRIPTOR.services_by_name["Admin"].methods
    if call.name not in _LEFT_OUT
]
_CALL_S = 10.0


class _NoDomains:
    async def by_name(self, *, since: float = 0.0) -> dict[str, object]:
        return {}


class _NoPeer:
    def set_automation(self, *_: object, **__: object) -> None:
        raise PeerUnreachable("nobody is there")


class _EmptyHost:
    """Protects nothing; what it is asked to begin has to have been checked."""

    def __init__(self) -> None:
        folder = make_folder()
        self.folder = folder
        self.services: dict[GuestName, object] = {}
        self.parts = SimpleNamespace(
            host=HostName("alpha"),
            peer=HostName("beta"),
            history=History(folder / "history.jsonl"),
            toolstack=Toolstack(),
            domains=_NoDomains(),
            peer_client=_NoPeer(),
            limits=SimpleNamespace(image_directory=None, image_interval_s=0.0),
            quarantine=SimpleNamespace(entry=lambda domain, domid: None),
        )

    def find(self, guest: str) -> object:
        raise NotFound(f"{guest[:64]} is not protected here")

    async def protect(
        self,
        guest: str,
        to: str,
        disks: object,
        interval_ms: int,
        *,
        mode: object,
        dry_run: bool,
    ) -> list[str]:
        parse_guest_name(guest)
        parse_host_name(to)
        raise PreflightRefused(["there is no such guest"])

    async def resume(self, guest: str) -> None:
        self.find(guest)

    async def drain(self) -> list[str]:
        return []

    async def set_automation(self, *, paused: bool, operator: str, reason: str) -> None:
        demand(not paused or bool(reason.strip()), "automation is paused and nobody says why")


@cache
def _service() -> AdminService:
    host = _EmptyHost()
    it, log = cast("Host", host), DrillLog(host.folder)
    kinds = (Drills(it, log), SecondaryDrills(it, log), LiveDrills(it, log), ImageSchedule(it))
    return AdminService(it, *kinds, simulated=True)


async def _answer(name: str, streams: bool, request: Message) -> int:
    """Return how many replies came."""
    made: Any = getattr(_service(), name)(request, None)
    if not streams:
        (await made).SerializeToString()
        return 1
    count = 0
    async for reply in made:
        reply.SerializeToString()
        count += 1
    return count


async def _in_time(name: str, streams: bool, request: Message) -> Hashable:
    try:
        async with asyncio.timeout(_CALL_S):
            return await _answer(name, streams, request)
    except TimeoutError:
        raise Finding(f"{name} is still at work after {_CALL_S:g} s") from None
    except ColodError as error:
        demand(not isinstance(error, status.DEFECTS), f"the daemon would end: {error!r}")
        status.trailers_of(error)
        return gist(error)


def _run(octets: bytes) -> Hashable:
    reader = Reader(octets)
    call = _CALLS[reader.byte() % len(_CALLS)]
    try:
        request = GetMessageClass(call.input_type).FromString(reader.rest())
    except DecodeError:
        return call.name, "no message"
    return call.name, finish(_in_time(call.name, call.server_streaming, request))


def _seeds() -> Iterable[bytes]:
    words = {"guest": "web", "reason": "why", "operator": "ann", "to": "beta", "disks": "none"}
    for number, call in enumerate(_CALLS):
        kind = GetMessageClass(call.input_type)
        known = {field.name for field in call.input_type.fields if field.message_type is None}
        given: Any = {name: value for name, value in words.items() if name in known}
        yield bytes((number,)) + kind(**given).SerializeToString()


ADMIN = Target(run=_run, seeds=_seeds, held_bytes=lambda size: 4 * MIB + 512 * size)
