"""The process `colod`: reads its configuration, adopts what is there, serves, and decides."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

# gRPC's fork handlers would stall every subprocess; colod's children only ever exec.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import structlog

from colod import __version__
from colod.config import DEFAULT_PATH, Config, exposed_files, load_config
from colod.daemon.admin_service import AdminService
from colod.daemon.audit import AuditLog
from colod.daemon.carrier import CarrierWatch
from colod.daemon.compose import compose
from colod.daemon.drill_live import LiveDrills
from colod.daemon.drill_log import DrillLog
from colod.daemon.drill_secondary import SecondaryDrills
from colod.daemon.drills import Drills
from colod.daemon.host import Host
from colod.daemon.image_schedule import ImageSchedule
from colod.daemon.limits import Limits
from colod.daemon.notify import notify, watchdog_interval_s
from colod.daemon.parts import Parts
from colod.daemon.peer_service import PeerService
from colod.daemon.reload import differences, merged, needs_restart
from colod.daemon.rescue import free_all
from colod.daemon.selffence import SelfFence
from colod.daemon.statelock import StateLock
from colod.daemon.status import history_of
from colod.errors import ColodError, ConfigError, NetworkError, StateHeld
from colod.model import HostName
from colod.observe import logs
from colod.observe.app import Sources
from colod.observe.http import HttpServer
from colod.observe.logs import Event
from colod.rpc import pki
from colod.rpc.admin_group import GROUP
from colod.rpc.admin_server import start_admin_server
from colod.rpc.peer_server import PeerServer, start_peer_server
from colod.rpc.remote_server import RemoteServer, start_remote_server
from colod.rpc.tls import TlsIdentity, load_identity
from colod.v1 import admin_pb2

_Reply = TypeVar("_Reply")

_log = structlog.get_logger()

_FIRST_LOOK_S = 10.0
BEGINNING_S = 60
"""Longest time from the first line of `Daemon.run` to READY, in whole seconds; asked of systemd."""

_ANSWER_S = 5.0
_ANNOUNCED_S = 20.0
EXIT_FAILED = 1
EXIT_HELD = 75
"""sysexits.h EX_TEMPFAIL: another process decides on this host."""
EXIT_CONFIG = 78
"""sysexits.h EX_CONFIG: another start would end the same way, so systemd does not try."""
EXIT_TOLD = 143
"""128 + SIGTERM: a rescue was told to stop while something was left. Its unit takes that for its
good end, as where the daemon is started again."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the daemon until it is told to stop, or the rescue; return the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        config = load_config(arguments.config)
    except ColodError as error:
        print(f"colod: {error} ({error.code})", file=sys.stderr)
        return EXIT_CONFIG
    logs.configure(config.log.level, config.log.format)
    structlog.contextvars.bind_contextvars(host=config.host.name)
    daemon = Daemon(config, arguments.config)
    try:
        # Before all else: not even the watchdog of another process may be touched.
        daemon.lock = StateLock(config.host.state_directory)
        return asyncio.run(
            daemon.rescue(arguments.limit) if arguments.command == "rescue" else daemon.run()
        )
    except ColodError as error:
        _log.critical(Event.DAEMON_FAILED, code=error.code, error=str(error), advice=error.advice)
        if isinstance(error, StateHeld):
            return EXIT_HELD
        return EXIT_CONFIG if daemon.is_misconfigured else EXIT_FAILED
    except Exception as error:
        _log.critical(
            Event.DAEMON_FAILED,
            error=f"a defect of colod: {type(error).__name__}: {error}",
            advice="report it with this log; guests go on as they are",
            exc_info=True,
        )
        return EXIT_FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="colod", description="Keep Xen guests alive.")
    parser.add_argument("--version", action="version", version=f"colod {__version__}")
    parser.add_argument("--config", type=Path, default=DEFAULT_PATH, help="configuration file")
    parser.add_argument(
        "command",
        nargs="?",
        choices=("run", "rescue"),
        default="run",
        help="run: the daemon. rescue: decide in its place until no guest here is in a pair or "
        "waits for anything, and end; 0: so it is, 1: something is left, and is named in the log, "
        "75: another process decides here, 78: the configuration is invalid, 143: told to stop "
        "before",
    )
    parser.add_argument(
        "--limit", type=float, metavar="S", help="longest rescue, in seconds (default: none)"
    )
    return parser


class Daemon:
    """One host's daemon.

    Attributes:
        is_misconfigured: Whether the configuration kept it from beginning: another start would end
            the same way. A key that is being replaced, or a group that is not known yet, may do.
        lock: Keeps every other process from deciding here; it is kept until the process ends.
    """

    def __init__(self, config: Config, path: Path = DEFAULT_PATH) -> None:
        """Keep the configuration, and where it is read again; nothing is touched before `run`."""
        self._config = config
        self._path = path
        self._host: Host | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._http: HttpServer | None = None
        self.is_misconfigured = False
        self.lock: StateLock | None = None
        self._is_rescue = False
        self._carriers = CarrierWatch(self._poke_from_thread)

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT; sessions and guests go on as they are.

        Raises:
            ColodError: If it cannot begin, or a defect was found: the process must end then.
        """
        # What follows is bounded by itself; on a starved dom0 the imports before it took the time.
        notify(f"EXTEND_TIMEOUT_USEC={BEGINNING_S * 1_000_000}")
        # First of all: what the last daemon left armed goes on meanwhile.
        self_fence = SelfFence(self._config)
        await self_fence.resume()
        parts = self._begin(self._identity())
        facts = await parts.toolstack.host_facts()
        self._host = host = Host(parts, self_fence)
        host.exposed = lambda: exposed_files(self._config)
        drill_log = DrillLog(self._config.host.state_directory)
        drills = Drills(host, drill_log)
        rebuilds = SecondaryDrills(host, drill_log)
        failovers = LiveDrills(host, drill_log)
        schedule = ImageSchedule(host)
        host.adopt_all()
        parts.heartbeat.start()
        self._carriers.start()
        self_fence.start(parts, host.all_services, on_defect=self._defect)
        peer_server = self._serve_peer(host)
        try:
            await host.look_around(timeout_s=_FIRST_LOOK_S)
            drills.begin()
            rebuilds.begin()
            failovers.begin()
            schedule.start()
            admin = AdminService(
                host, drills, rebuilds, failovers, schedule, simulated=facts.simulated
            )
            self._serve_http(host, admin)
            await self._serve_operators(host, admin, simulated=facts.simulated)
        finally:
            notify("STOPPING=1")
            # First: clearing a drill away may take all the time that systemd gives.
            await self_fence.stop(is_asked=self._stop.is_set() and not host.defect.done())
            await failovers.stop()
            await rebuilds.stop()
            await schedule.stop()
            await drills.stop()
            if self._http is not None:
                await asyncio.to_thread(self._http.stop)
            await asyncio.to_thread(peer_server.stop)
            await self._close(host)
        _log.info(Event.DAEMON_STOPPED)
        return 0

    async def _serve_operators(self, host: Host, admin: AdminService, *, simulated: bool) -> None:
        audit = AuditLog(self._config.host.state_directory)
        server = await start_admin_server(
            admin,
            self._config.admin_socket,
            group=self._config.admin.group,
            on_defect=self._defect,
            audit=audit,
        )
        if server.trouble:
            advice = "make the group, or name another in admin.group; then restart colod"
            address = str(server.path)
            _log.error(Event.LISTEN_FAILED, address=address, error=server.trouble, advice=advice)
            host.unheard[GROUP] = f"{server.trouble}; only root may use {server.path}"
        remote = await self._serve_remote_operators(host, admin, audit)
        _log.info(Event.DAEMON_STARTED, version=__version__, simulated=simulated)
        notify("READY=1", f"STATUS={len(host.services)} protections")
        try:
            await self._serve(host)
        finally:
            if remote is not None:
                await remote.stop()
            await server.stop()
            await asyncio.to_thread(audit.close)

    async def _serve_remote_operators(
        self, host: Host, admin: AdminService, audit: AuditLog
    ) -> RemoteServer | None:
        """Serve them, where the configuration wants it; an address that is taken stops nothing."""
        listen = self._config.admin.listen
        if not listen:
            return None
        try:
            return await start_remote_server(
                admin, listen, host.parts.identity, on_defect=self._defect, audit=audit
            )
        except NetworkError as error:
            advice = "restart colod once the address is there and free"
            _log.error(Event.LISTEN_FAILED, address=listen, error=str(error), advice=advice)
            host.unheard["admin.listen"] = str(error)
            return None

    async def rescue(self, limit_s: float | None = None) -> int:
        """Decide until nothing hangs on it; see `colod.daemon.rescue`.

        Args:
            limit_s: Longest rescue; None for as long as it takes.

        Returns:
            The exit status.

        Raises:
            ColodError: If it cannot begin.
        """
        self._is_rescue = True
        self_fence = SelfFence(self._config)
        await self_fence.resume()
        try:
            return await self._settle(self_fence, limit_s)
        finally:
            # Whatever came of it: nobody feeds it after this.
            await self_fence.stop(is_asked=True)

    async def _settle(self, self_fence: SelfFence, limit_s: float | None) -> int:
        parts = self._begin(self._identity_for_rescue())
        parts.limits.become(self._limits())
        self._host = host = Host(parts, self_fence, joins_pairings=False)
        unreadable = host.adopt_readable()
        parts.heartbeat.start()
        self._carriers.start()
        self_fence.start(parts, host.all_services, on_defect=self._defect)
        peer_server: PeerServer | None = None
        with suppress(NetworkError):  # the port may be what keeps the daemon from starting
            peer_server = self._serve_peer(host)
        notify("READY=1")
        try:
            left = await self._settled(host, limit_s)
        finally:
            notify("STOPPING=1")
            if peer_server is not None:
                await asyncio.to_thread(peer_server.stop)
            await self._close(host)
        return self._finished(None if left is None else [*unreadable, *left], len(host.services))

    def _finished(self, left: Sequence[str] | None, protections: int) -> int:
        """Log how the rescue ended and return its exit status."""
        _log.log(
            logging.INFO if left == [] else logging.WARNING,
            Event.RESCUE_FINISHED,
            left=["told to stop while something was left"] if left is None else left,
            protections=protections,
        )
        if left is None:
            return EXIT_TOLD
        return EXIT_FAILED if left else 0

    async def _settled(self, host: Host, limit_s: float | None) -> Sequence[str] | None:
        """Decide until nothing hangs on it; return what does at the limit, None if told to stop.

        Its announcements are waited for: nobody makes them up for it.

        Raises:
            Exception: A defect of ours, on which the process has to end.
        """
        work = asyncio.ensure_future(free_all(host, limit_s=limit_s, on_change=_stays_for))
        serving = asyncio.ensure_future(self._serve(host))
        try:
            await asyncio.wait((work, serving), return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                serving.result()
                return None
            await host.until_announced(timeout_s=_ANNOUNCED_S)
            return work.result()
        finally:
            for task in (work, serving):
                task.cancel()
            await asyncio.gather(work, serving, return_exceptions=True)

    def _identity(self) -> TlsIdentity:
        """Return what this host proves itself with.

        Raises:
            ConfigError: If it cannot be used.
        """
        tls = self._config.tls
        identity = load_identity(tls.ca, tls.certificate, tls.key, host=self._config.host.name)
        for problem in identity.date_problems(datetime.now(UTC)):
            _log.error(Event.CERTIFICATE_REFUSED, error=problem)
        return identity

    def _identity_for_rescue(self) -> TlsIdentity:
        """Return the same, or one that no host believes: it must do without the peer then."""
        try:
            return self._identity()
        except ConfigError as error:
            _log.error(Event.CERTIFICATE_REFUSED, error=str(error), advice=error.advice)
            return pki.unknown_identity(HostName(self._config.host.name))

    def _limits(self) -> Limits:
        """Return the limits of the configuration in force; a rescue begins no pairing."""
        limits = Limits.of(self._config)
        if self._is_rescue:
            limits.resync_automatic = False
        return limits

    def _begin(self, identity: TlsIdentity) -> Parts:
        self._loop = loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        try:
            return compose(
                self._config,
                identity,
                own_views=lambda: self._host.peer_views() if self._host else [],
                on_news=self._poke_from_thread,
                is_rescue=self._is_rescue,
                carriers=self._carriers,
            )
        except ConfigError:
            self.is_misconfigured = True
            raise

    def _serve_peer(self, host: Host) -> PeerServer:
        assert self._loop is not None
        server = start_peer_server(
            PeerService(host, self._loop),
            self._config.peer.listen,
            host.parts.identity,
            self._config.peer.name,
            on_defect=self._defect_in_thread,
            more=self._config.peer.more_listen,
        )
        for address in server.unheard:
            advice = "restart colod once the address is there"
            _log.error(Event.LISTEN_FAILED, address=address, advice=advice)
            host.unheard[f"peer.more_listen {address}"] = "nothing could listen there"
        return server

    def _serve_http(self, host: Host, admin: AdminService) -> None:
        """Serve HTTP, where the configuration wants it; a port that is taken stops nothing."""
        if not self._config.observe.listen:
            return

        async def status() -> admin_pb2.StatusReply:
            return admin.status()

        async def drills(guest: str, limit: int) -> admin_pb2.DrillsReply:
            return admin.past_drills(guest, limit)

        try:
            self._http = HttpServer(
                self._config.observe.listen,
                Sources(
                    lambda: self._ask_loop(status()),
                    lambda guest, limit: history_of(host.parts.history.of(guest, limit)),
                    lambda guest, limit: self._ask_loop(drills(guest, limit)),
                ),
                host.parts.identity.server_context,
            )
        except NetworkError as error:
            _log.error(Event.HTTP_FAILED, error=str(error))
            host.unheard["observe.listen"] = str(error)

    def _ask_loop(self, question: Coroutine[Any, Any, _Reply]) -> _Reply:
        """Have a question answered in the daemon's loop, from another thread.

        Raises:
            TimeoutError: If the loop is stuck.
        """
        assert self._loop is not None
        future = asyncio.run_coroutine_threadsafe(question, self._loop)
        try:
            return future.result(_ANSWER_S)
        except TimeoutError:
            future.cancel()  # a loop that is stuck must not find all of them waiting
            raise

    def _reload(self) -> None:
        """Bring into force what may change while the daemon runs, and name what may not."""
        notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            fresh = load_config(self._path)
        except ColodError as error:
            _log.error(Event.CONFIG_REFUSED, error=str(error), kept="the one in force")
        else:
            self._take_over(fresh)
        notify("READY=1")

    def _take_over(self, fresh: Config) -> None:
        changed = differences(self._config, fresh)
        refused = needs_restart(changed)
        self._config = merged(self._config, fresh)
        logs.configure(self._config.log.level, self._config.log.format)
        if self._host is not None:
            self._host.parts.limits.become(self._limits())
            self._host.poke_all()
        _log.info(Event.CONFIG_RELOADED, changed=[path for path in changed if path not in refused])
        if refused:
            _log.error(Event.CONFIG_REFUSED, needs_restart=refused)

    async def _serve(self, host: Host) -> None:
        watchdog = asyncio.create_task(_feed_watchdog())
        host.defect.add_done_callback(lambda _: self._stop.set())
        try:
            await self._stop.wait()
        finally:
            watchdog.cancel()
        if host.defect.done():
            host.defect.result()

    async def _close(self, host: Host) -> None:
        parts = host.parts
        await asyncio.to_thread(parts.heartbeat.stop)
        await asyncio.to_thread(self._carriers.stop)
        await host.stop()
        parts.peer_client.close()
        await parts.witness.close()
        await parts.fencer.close()

    def _poke_from_thread(self) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._poke_all)

    def _defect_in_thread(self, error: BaseException) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._defect, error)

    def _poke_all(self) -> None:
        if self._host is not None:
            self._host.poke_all()

    def _defect(self, error: BaseException) -> None:
        if self._host is not None and not self._host.defect.done():
            self._host.defect.set_exception(error)


def _stays_for(guests: Sequence[str]) -> None:
    """Say, where systemd shows it, for which guests the rescue stays."""
    notify(f"STATUS=decides for {', '.join(guests) or 'no guest any more'}")


async def _feed_watchdog() -> None:
    """Tell systemd that the loop runs, at half of the time it allows."""
    interval_s = watchdog_interval_s()
    while interval_s is not None:
        notify("WATCHDOG=1")
        await asyncio.sleep(interval_s)


if __name__ == "__main__":
    sys.exit(main())
