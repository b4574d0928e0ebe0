"""Begin a pairing: check both hosts, have the peer listen, start `xl remus` with our sender."""

from __future__ import annotations

import json
import secrets
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import structlog

from colod.daemon import colo
from colod.daemon.image_disk import on_image_disk
from colod.daemon.parts import Parts
from colod.daemon.peer_calls import PEER_CALLS
from colod.daemon.sessions import SessionHandle, last_words, log_path, write_spec
from colod.errors import CheckpointError, DomainNotFound, PeerError, PreflightRefused, SessionError
from colod.failover.view import Journal
from colod.model import INCOMING_SUFFIX, Disks, GuestName, Mode, Protection
from colod.observe.logs import Event
from colod.session.protocol import SPEC_FILE
from colod.toolstack import inventory, preflight
from colod.v1 import peer_pb2

_log = structlog.get_logger()

START_S = 60.0
"""Time for a session to come up: on a busy dom0 Python and xl need tens of seconds."""
PEER_START_S = START_S + 30.0
"""Time for the peer to clear an older replica away and to have its receiver come up."""
SECRET_BYTES = 32


class Listening(NamedTuple):
    """Where a receiver waits for its sender.

    Attributes:
        address: On the first path.
        backup: On the second one, "" where it has none.
    """

    address: str
    backup: str = ""


class Pairing:
    """Starts senders and receivers, and asks the peer's daemon for its part."""

    def __init__(self, parts: Parts) -> None:
        """Work with `parts`."""
        self._parts = parts

    async def check(self, guest: GuestName, disks: Disks, mode: Mode = Mode.REMUS) -> Sequence[str]:
        """Check that this guest can be replicated to the peer; return warnings.

        Raises:
            PreflightRefused: With every reason of both hosts.
            PeerError: If the peer cannot be asked.
            ToolstackError: If xl cannot.
        """
        parts, toolstack = self._parts, self._parts.toolstack
        domain = await toolstack.find(guest)
        if domain is None:
            raise DomainNotFound(("xl", "list", guest), 1, f"no domain {guest} on this host")
        config = await toolstack.domain_config(guest)
        facts = await toolstack.host_facts()
        vifs = await toolstack.vifs(domain.domid)
        reasons = [
            *preflight.local_refusals(
                config=config,
                facts=facts,
                vifs=vifs,
                disks=disks,
                has_fencing=parts.has_fencing,
            )
        ]
        if mode is Mode.COLO:
            reasons += await colo.local_refusals(
                parts, config=config, facts=facts, vifs=vifs, disks=disks
            )
        request = preflight_request(
            guest, disks, config, facts.xen_version, domain.memory_bytes, facts.cpu_features
        )
        request.mode = mode
        answer = await PEER_CALLS.run(parts.peer_client.preflight, request)
        reasons += answer.refusals
        if reasons:
            raise PreflightRefused(reasons)
        needs = preflight.needs_of(config)
        stock = await inventory.take_stock(needs, simulated=facts.simulated)
        return preflight.warnings(config=config, facts=facts, inventory=stock)

    async def start(self, journal: Journal, session: SessionHandle | None) -> None:
        """Begin the journal's pairing, as its primary; return once the sender runs.

        Raises:
            ColodError: If any part refuses or fails; what was begun is released by decision.
        """
        assert session is not None
        assert journal.pairing is not None
        terms = journal.protection
        await self.check(terms.guest, terms.disks, terms.mode)
        secret = secrets.token_bytes(SECRET_BYTES)
        request = peer_pb2.PrepareReceiveRequest(
            guest=terms.guest,
            pairing=journal.pairing,
            generation=journal.pairing_generation,
            disks=terms.disks,
            mode=terms.mode,
            interval_ms=terms.interval_ms,
            transport=self._parts.transport_kind,
            secret=secret,
        )
        reply = await PEER_CALLS.run(
            self._parts.peer_client.prepare_receive, request, timeout_s=PEER_START_S
        )
        gate = {"gate": json.loads(journal.gate)} if journal.gate else {}
        write_spec(
            session.directory,
            self._spec(journal, "send", secret)
            | self._watched(terms.guest)
            | {"address": reply.address, "backup_address": reply.backup_address}
            | gate
            | (colo.sender_spec(self._parts, terms) if colo.is_colo(terms) else {}),
        )
        await self._launch(self._replicate_argv(terms, session), session)
        _log.info(Event.PAIRING_STARTED, protection=terms.guest, pairing=journal.pairing)

    def _replicate_argv(self, terms: Protection, session: SessionHandle) -> Sequence[str]:
        command = f"exec {shlex.join(self._session_argv('send', session))}"
        if colo.is_colo(terms):
            return colo.sender_argv(self._parts, terms.guest, command)
        return self._parts.toolstack.remus_argv(
            terms.guest, interval_ms=terms.interval_ms, command=command
        )

    async def receive(self, journal: Journal, session: SessionHandle, secret: bytes) -> Listening:
        """Start the receiver of the journal's pairing; return where it listens.

        Raises:
            ColodError: If it does not come up.
        """
        toolstack = self._parts.toolstack
        incoming = journal.protection.guest + INCOMING_SUFFIX
        spec = self._spec(journal, "receive", secret) | {
            "receive_argv": list(toolstack.receive_argv()),
            **self._watched(incoming),
            **await self._image(),
        }
        if colo.is_colo(journal.protection):
            spec |= colo.receiver_spec(self._parts, journal.protection.guest)
        write_spec(session.directory, spec)
        await self._launch(self._session_argv("receive", session), session)
        await session.until(
            lambda: session.has_ended or bool(_listening(session).address), timeout_s=START_S
        )
        if not (found := _listening(session)).address:
            raise _not_started(session)
        return found

    def _watched(self, name: str) -> dict[str, Any]:
        """Return how a session sees and pauses the domain that it watches."""
        toolstack = self._parts.toolstack
        return {
            "pause_argv": list(toolstack.pause_argv(name)),
            "exists_argv": list(toolstack.exists_argv(name)),
        }

    async def _image(self) -> dict[str, Any]:
        """Return what the receiver may keep of its replica on disk."""
        limits = self._parts.limits
        if limits.image_directory is None:
            return {}
        try:
            await on_image_disk(
                limits.image_directory.mkdir, mode=0o700, parents=True, exist_ok=True
            )
        except (OSError, CheckpointError) as error:
            # The session says it again, where an image is asked for.
            _log.warning(Event.IMAGE_REFUSED, error=str(error))
        directory = str(limits.image_directory)
        return {"image": {"directory": directory, "max_bytes": limits.image_bytes}}

    async def forget(self, guest: GuestName, journal: Journal) -> None:
        """Tell the peer that the protection ended; what it misses, the witness tells it later."""
        request = peer_pb2.ForgetRequest(guest=guest, generation=journal.generation)
        try:
            await PEER_CALLS.run(self._parts.peer_client.forget, request)
        except PeerError as error:
            _log.warning(Event.PEER_UNREACHED, protection=guest, error=str(error))

    def _session_argv(self, verb: str, session: SessionHandle) -> list[str]:
        return [
            *self._parts.session_command,
            verb,
            "--spec",
            str(session.directory / SPEC_FILE),
        ]

    def _spec(self, journal: Journal, role: str, secret: bytes) -> dict[str, Any]:
        parts, limits = self._parts, self._parts.limits
        files = parts.credentials
        return {
            "role": role,
            "guest": journal.protection.guest,
            "pairing": journal.pairing,
            "generation": journal.pairing_generation,
            "host": parts.host,
            "peer": parts.peer,
            "secret": secret.hex(),
            "transport": {
                "kind": parts.transport_kind,
                "options": dict(parts.transport_options),
                "backup": None if parts.backup_options is None else dict(parts.backup_options),
            },
            "tls": {
                "ca": str(files.ca),
                "certificate": str(files.certificate),
                "key": str(files.key),
            },
            "ping_interval_s": limits.ping_interval_s,
            "silence_s": limits.session_silence_s,
            "staging_bytes": limits.staging_bytes,
            "ack_timeout_s": limits.ack_timeout_s,
            "resume_bytes": limits.resume_bytes,
            "rate_bytes_per_s": limits.rate_bytes_per_s,
            "deltas": {"codec": limits.delta_codec, "store_bytes": limits.delta_store_bytes},
        }

    async def _launch(self, argv: Sequence[str], session: SessionHandle) -> None:
        await self._parts.launcher.launch(
            argv,
            unit=f"colod-session-{session.directory.name}",
            log=log_path(session.directory),
            env=self._parts.session_env,
        )
        await session.until(lambda: session.has_ended or session.is_connected, timeout_s=START_S)
        if session.has_ended or not session.is_connected:
            raise _not_started(session)


def _listening(session: SessionHandle) -> Listening:
    status = session.status
    return Listening(status.listen_address, status.backup_address) if status else Listening("")


def _not_started(session: SessionHandle) -> SessionError:
    words = last_words(session.directory)
    return SessionError(f"session {session.directory.name} did not start: {words or 'no word'}")


def preflight_request(
    guest: GuestName,
    disks: Disks,
    config: Mapping[str, Any],
    xen_version: str,
    memory_bytes: int,
    cpu_features: Sequence[str],
) -> peer_pb2.PeerPreflightRequest:
    """Return the question whether the peer could take the guest."""
    return peer_pb2.PeerPreflightRequest(
        guest=guest,
        disks=disks,
        domain_config=json.dumps(dict(config)).encode(),
        xen_version=xen_version,
        memory_bytes=memory_bytes,
        cpu_features=list(cpu_features),
    )
