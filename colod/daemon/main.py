"""The process `colod`: reads its configuration, adopts what is there, serves, and decides."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

# gRPC's fork handlers would stall every subprocess; colod's children only ever exec.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import structlog

from colod import __version__
from colod.config import DEFAULT_PATH, Config, load_config
from colod.daemon.admin_service import AdminService
from colod.daemon.compose import compose
from colod.daemon.host import Host
from colod.daemon.notify import notify, watchdog_interval_s
from colod.daemon.parts import Parts
from colod.daemon.peer_service import PeerService
from colod.errors import ColodError
from colod.observe import logs
from colod.rpc.admin_server import start_admin_server
from colod.rpc.peer_server import start_peer_server
from colod.rpc.tls import load_identity

_log = structlog.get_logger()

EXIT_CONFIG = 78
"""sysexits.h EX_CONFIG: another start would end the same way, so systemd does not try."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the daemon until it is told to stop; return its exit status."""
    arguments = _parser().parse_args(argv)
    try:
        config = load_config(arguments.config)
    except ColodError as error:
        print(f"colod: {error} ({error.code})", file=sys.stderr)
        return EXIT_CONFIG
    logs.configure(config.log.level, config.log.format)
    structlog.contextvars.bind_contextvars(host=config.host.name)
    try:
        return asyncio.run(Daemon(config).run())
    except ColodError as error:
        _log.critical("daemon.failed", code=error.code, error=str(error), advice=error.advice)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="colod", description="Keep Xen guests alive.")
    parser.add_argument("--version", action="version", version=f"colod {__version__}")
    parser.add_argument("--config", type=Path, default=DEFAULT_PATH, help="configuration file")
    return parser


class Daemon:
    """One host's daemon."""

    def __init__(self, config: Config) -> None:
        """Keep the configuration; nothing is touched before `run`."""
        self._config = config
        self._host: Host | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT; sessions and guests go on as they are.

        Raises:
            ColodError: If it cannot begin, or a defect was found: the process must end then.
        """
        self._loop = loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        tls = self._config.tls
        identity = load_identity(tls.ca, tls.certificate, tls.key, host=self._config.host.name)
        parts = compose(
            self._config,
            identity,
            own_views=lambda: self._host.peer_views() if self._host else [],
            on_news=self._poke_from_thread,
        )
        facts = await parts.toolstack.host_facts()
        self._host = host = Host(parts)
        host.adopt_all()
        peer_server = start_peer_server(
            PeerService(host, loop),
            self._config.peer.listen,
            identity,
            self._config.peer.name,
            on_defect=self._defect_in_thread,
        )
        parts.heartbeat.start()
        admin = await start_admin_server(
            AdminService(host, simulated=facts.simulated),
            self._config.admin_socket,
            group=self._config.admin.group,
            on_defect=self._defect,
        )
        _log.info("daemon.started", version=__version__, simulated=facts.simulated)
        notify("READY=1", f"STATUS={len(host.services)} protections")
        try:
            await self._serve(host)
        finally:
            notify("STOPPING=1")
            await admin.stop()
            await asyncio.to_thread(peer_server.stop)
            await asyncio.to_thread(parts.heartbeat.stop)
            await host.stop()
            await self._close(parts)
        return 0

    async def _serve(self, host: Host) -> None:
        watchdog = asyncio.create_task(_feed_watchdog())
        host.defect.add_done_callback(lambda _: self._stop.set())
        await self._stop.wait()
        watchdog.cancel()
        if host.defect.done():
            host.defect.result()

    async def _close(self, parts: Parts) -> None:
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


async def _feed_watchdog() -> None:
    """Tell systemd that the loop runs, at half of the time it allows."""
    interval_s = watchdog_interval_s()
    while interval_s is not None:
        notify("WATCHDOG=1")
        await asyncio.sleep(interval_s)


if __name__ == "__main__":
    sys.exit(main())
