"""Answer the peer's daemon. Methods run in gRPC's threads; heartbeats wait for nothing."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
from collections.abc import Coroutine
from typing import Any, TypeVar

import grpc
import structlog

from colod.daemon import colo
from colod.daemon.host import Host
from colod.daemon.switching import give_back
from colod.errors import PeerRefused, PreflightRefused, WitnessError
from colod.failover.record import MAX_REASON_CHARS
from colod.model import Disks, GuestName, Mode, parse_guest_name, parse_pairing_id
from colod.observe.logs import Event
from colod.rpc import versions
from colod.toolstack import inventory, preflight
from colod.v1 import peer_pb2, peer_pb2_grpc
from colod.witness.content import unpack
from colod.witness.manual import ManualWitness

_T = TypeVar("_T")

_log = structlog.get_logger()

_CALL_S = 85.0
_MARGIN_S = 2.0  # on the way back: what arrives after its deadline, the peer never hears
_MOST_INTERVAL_MS = 60_000
_LEAST_INTERVAL_MS = 20
_SECRET_BYTES = 16


class PeerService(peer_pb2_grpc.PeerServicer):
    """The Peer service of one host."""

    def __init__(self, host: Host, loop: asyncio.AbstractEventLoop) -> None:
        """Serve `host`, which lives in `loop`."""
        self._host = host
        self._loop = loop

    def Greet(
        self, request: peer_pb2.GreetRequest, context: grpc.ServicerContext
    ) -> peer_pb2.GreetReply:
        """Agree on a version."""
        return versions.answer_greet(request)

    def Beat(
        self, request: peer_pb2.BeatRequest, context: grpc.ServicerContext
    ) -> peer_pb2.BeatReply:
        """Answer with this host's view of its protections."""
        return peer_pb2.BeatReply(
            sequence=request.sequence,
            protections=self._host.peer_views(),
            automation_paused=self._host.parts.automation.is_paused,
        )

    def Preflight(
        self, request: peer_pb2.PeerPreflightRequest, context: grpc.ServicerContext
    ) -> peer_pb2.PeerPreflightReply:
        """Say why this host could not take the guest."""
        return self._in_loop(self._preflight(request), context)

    def PrepareReceive(
        self, request: peer_pb2.PrepareReceiveRequest, context: grpc.ServicerContext
    ) -> peer_pb2.PrepareReceiveReply:
        """Start a receiver."""
        _check(request, self._host.parts.transport_kind)
        found = self._in_loop(self._host.receive(request), context)
        return peer_pb2.PrepareReceiveReply(address=found.address, backup_address=found.backup)

    def Forget(
        self, request: peer_pb2.ForgetRequest, context: grpc.ServicerContext
    ) -> peer_pb2.ForgetReply:
        """Drop the replica of a guest whose protection ended."""
        self._in_loop(self._host.forget(_guest(request.guest)), context)
        return peer_pb2.ForgetReply()

    def OfferRecord(
        self, request: peer_pb2.OfferRecordRequest, context: grpc.ServicerContext
    ) -> peer_pb2.OfferRecordReply:
        """Hold a copy of a record, where the witness is the two hosts themselves."""
        accepted = self._in_loop(self._accept(request), context)
        return peer_pb2.OfferRecordReply(accepted=accepted)

    def SetAutomation(
        self, request: peer_pb2.PeerSetAutomationRequest, context: grpc.ServicerContext
    ) -> peer_pb2.PeerSetAutomationReply:
        """Pause automation here, too, or let this host act by itself again."""
        if max(len(request.operator), len(request.reason)) > MAX_REASON_CHARS:
            raise PeerRefused(f"reason or operator of more than {MAX_REASON_CHARS} characters")
        work = self._host.set_automation(
            paused=request.paused, operator=request.operator, reason=request.reason
        )
        self._in_loop(work, context)
        return peer_pb2.PeerSetAutomationReply()

    def GiveBack(
        self, request: peer_pb2.GiveBackRequest, context: grpc.ServicerContext
    ) -> peer_pb2.GiveBackReply:
        """Give a guest to the peer, where a drill of its own has brought it here."""
        if len(request.operator) > MAX_REASON_CHARS:
            raise PeerRefused(f"operator of more than {MAX_REASON_CHARS} characters")
        self._in_loop(self._give_back(request), context)
        return peer_pb2.GiveBackReply()

    async def _give_back(self, request: peer_pb2.GiveBackRequest) -> None:
        guest = _guest(request.guest)
        if not request.dry_run:
            _log.info(
                Event.ADMIN_CALLED,
                call="give-back",
                protection=guest,
                host=self._host.parts.peer,
                operator=request.operator,
            )
        await give_back(self._host, request)

    async def _accept(self, request: peer_pb2.OfferRecordRequest) -> bool:
        parts = self._host.parts
        if not isinstance(parts.witness, ManualWitness):
            raise PeerRefused(f"the witness of {parts.host} is of kind {parts.witness_kind}")
        guest = _guest(request.guest)
        try:
            offered = unpack(request.content, request.revision)
        except WitnessError as error:
            raise PeerRefused(f"offered record of {guest}: {error}") from error
        is_accepted = await parts.witness.accept(guest, offered, sender=parts.peer)
        self._host.record_offered(guest)
        return is_accepted

    def _in_loop(self, work: Coroutine[Any, Any, _T], context: grpc.ServicerContext) -> _T:
        limit_s = _limit_s(context)
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop).result(limit_s)
        except concurrent.futures.TimeoutError as error:
            # It goes on: cut off half-way it might leave a receiver that nobody knows of.
            raise PeerRefused(
                f"{self._host.parts.host} is still at work after {limit_s:.0f} s",
                advice="its log tells at what; the request is made again by itself",
            ) from error

    async def _preflight(
        self, request: peer_pb2.PeerPreflightRequest
    ) -> peer_pb2.PeerPreflightReply:
        parts = self._host.parts
        try:
            config = json.loads(request.domain_config)
        except (ValueError, RecursionError) as error:
            raise PeerRefused(f"the guest's configuration is no JSON: {error}") from error
        if not isinstance(config, dict):
            raise PeerRefused("the guest's configuration is no JSON object")
        facts = await parts.toolstack.host_facts()
        stock = await inventory.take_stock(preflight.needs_of(config), simulated=facts.simulated)
        domains = await parts.domains.by_name()
        refusals = preflight.peer_refusals(
            config=config,
            facts=facts,
            inventory=stock,
            domain_names=self._names_in_the_way(request.guest, list(domains)),
            xen_version=request.xen_version,
            memory_bytes=request.memory_bytes,
            cpu_features=request.cpu_features,
            staging_bytes=parts.limits.staging_bytes,
        )
        if request.mode == Mode.COLO:
            refusals = [*refusals, *await colo.host_refusals(parts, facts)]
        return peer_pb2.PeerPreflightReply(refusals=refusals)

    def _names_in_the_way(self, guest: str, names: list[str]) -> list[str]:
        """Return the domains here, less the replica that the new pairing will replace."""
        service = self._host.services.get(_guest(guest))
        if service is None or service.journal.pairing is None:
            return names
        return [name for name in names if not name.startswith(guest)]


def _limit_s(context: grpc.ServicerContext) -> float:
    """Return how long work may take for the peer to hear its outcome, in seconds."""
    remaining_s = context.time_remaining()
    return _CALL_S if remaining_s is None else max(0.0, min(_CALL_S, remaining_s - _MARGIN_S))


def _guest(text: str) -> GuestName:
    """Return the guest's name that the peer sent.

    Raises:
        PeerRefused: If it is none.
    """
    try:
        return parse_guest_name(text)
    except ValueError as error:
        raise PeerRefused(str(error)) from error


def _check(request: peer_pb2.PrepareReceiveRequest, transport_kind: str) -> None:
    """Check what the peer sent before anything is done with it.

    Raises:
        PeerRefused: With every problem.
    """
    problems: list[str] = []
    for parse, value in (
        (parse_guest_name, request.guest),
        (parse_pairing_id, request.pairing),
        (Disks, request.disks),
        (Mode, request.mode),
    ):
        try:
            parse(value)
        except ValueError as error:
            problems.append(str(error))
    if not _LEAST_INTERVAL_MS <= request.interval_ms <= _MOST_INTERVAL_MS:
        problems.append(f"interval_ms {request.interval_ms} is out of range")
    if len(request.secret) < _SECRET_BYTES:
        problems.append(f"secret of {len(request.secret)} bytes")
    if request.transport != transport_kind:
        theirs, ours = request.transport[:32], transport_kind
        problems.append(f"transport.kind is {theirs!r} there and {ours!r} here: have one on both")
    if problems:
        raise PreflightRefused(problems)
