"""`colod-session send|receive --spec PATH`: the data path of one guest on one host.

Exit status: 0 after the daemon's Release, 2 if the specification cannot be used, 1 if the session
could not begin for another reason. In the last two cases nothing was touched.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from colod import plugins
from colod.errors import ColodError, ConfigError, SessionError
from colod.session.process import start_ticks
from colod.session.protocol import LOG_FILE, PID_FILE
from colod.session.receiver import Receiver
from colod.session.sender import Sender
from colod.session.session import Session
from colod.session.spec import SessionSpec, read_spec

_log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one session; the program's entry point."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # Not SIG_IGN: xl would inherit that.
        signal.signal(number, lambda *_: None)
    arguments = _parse(argv)
    directory = arguments.spec.absolute().parent
    try:
        spec = read_spec(arguments.spec)
        _check_role(spec, arguments.role)
        transport = plugins.load("colod.transports", spec.transport_kind)
        kind = _kind_of(spec)
        paths = [
            transport.from_options(options, spec.credentials)
            for options in (spec.transport_options, spec.backup_options)
            if options is not None
        ]
        session = kind(spec, directory, *paths)
        _open_log(directory, spec)
        lock = _claim(directory)
        return _run(session, lock)
    except ColodError as error:
        print(f"colod-session: {error.code}: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1


def _kind_of(spec: SessionSpec) -> type[Sender | Receiver]:
    if spec.colo is None:
        return Sender if spec.is_sender else Receiver
    # Only there: the comparator is not small.
    from colod.session.colo.receiver import ColoReceiver
    from colod.session.colo.sender import ColoSender

    return ColoSender if spec.is_sender else ColoReceiver


def _run(session: Session, lock: int) -> int:
    _log.info("session.started pid=%d role=%s", os.getpid(), session.spec.role)
    try:
        asyncio.run(session.run())
    finally:
        os.close(lock)
    _log.info("session.finished")
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="colod-session", description=__doc__)
    parser.add_argument("role", choices=("send", "receive"))
    parser.add_argument("--spec", type=Path, required=True, metavar="PATH")
    return parser.parse_args(argv)


def _check_role(spec: SessionSpec, role: str) -> None:
    if spec.role != role:
        raise ConfigError([f"role: {spec.role!r}, but the command says {role!r}"])


def _open_log(directory: Path, spec: SessionSpec) -> None:
    """Send our own words, and those of every process that we start, to the session's log."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    number = os.open(directory / LOG_FILE, flags, 0o600)
    os.dup2(number, 2)
    os.close(number)
    logging.raiseExceptions = False  # a full disk must not stop the session
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format=f"%(asctime)s %(levelname)s %(message)s guest={spec.guest} "
        f"pairing={spec.pairing[:8]} generation={spec.generation}",
    )


def _claim(directory: Path) -> int:
    """Make this the directory's only session and leave word of its process.

    Raises:
        SessionError: If another session lives here.
    """
    lock = os.open(directory / PID_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise SessionError(f"{directory}: another session lives here") from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()} {start_ticks(os.getpid())}\n".encode(), 0)
    return lock


if __name__ == "__main__":
    sys.exit(main())
