"""Processes that must not be mistaken: found in /proc, held by pidfd, killed, seen to be gone."""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from colod.errors import ToolstackError
from colod.pidfd import open_pidfd
from colod.threads import Threads
from colod.toolstack.port import ProcessRef

SAVE_HELPER = "libxl-save-helper"
"""The process of libxl that reads or writes a guest's memory; it outlives its xl."""

_WAITERS: Final = Threads("wait-gone", 32)
"""A process that does not end keeps one for as long as it is waited for, up to 20 s."""

_PROC = Path("/proc")
_ENDED = frozenset({"Z", "X"})


@dataclass(frozen=True, slots=True)
class Process:
    """A living process.

    Attributes:
        ref: Which one.
        parent_pid: Its parent's number; 1 (or a subreaper's) once that has died.
        argv: Its command line.
    """

    ref: ProcessRef
    parent_pid: int
    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SaveHelper:
    """A libxl-save-helper at work on a domain.

    Attributes:
        process: The helper itself.
        domid: The domain it saves or restores.
        restores: True for the receiving side's.
    """

    process: Process
    domid: int
    restores: bool


def start_ticks(pid: int) -> int | None:
    """Return when the process started, in clock ticks since boot; None if there is none.

    A zombie counts as none: its memory and descriptors are gone.
    """
    stat = _stat(pid)
    return None if stat is None else stat[1]


def process_ref(pid: int) -> ProcessRef | None:
    """Return the reference of the process that has this number now."""
    ticks = start_ticks(pid)
    return None if ticks is None else ProcessRef(pid=pid, start_ticks=ticks)


@contextlib.contextmanager
def held(ref: ProcessRef) -> Iterator[int | None]:
    """Hold the process by a pidfd while the block runs; None if it is gone.

    The pidfd pins whoever has the number now; only after that its start time tells who it is.
    """
    try:
        pidfd = open_pidfd(ref.pid)
    except (ProcessLookupError, ValueError, OverflowError):
        yield None
        return
    try:
        yield pidfd if start_ticks(ref.pid) == ref.start_ticks else None
    finally:
        os.close(pidfd)


def kill(ref: ProcessRef, signal_number: signal.Signals = signal.SIGKILL) -> bool:
    """Signal the process; False if it was gone already.

    Raises:
        ToolstackError: If this daemon may not.
    """
    with held(ref) as pidfd:
        if pidfd is None:
            return False
        try:
            signal.pidfd_send_signal(pidfd, signal_number)
        except ProcessLookupError:
            return False
        except PermissionError as error:
            argv = ("kill", f"-{signal_number.name}", str(ref.pid))
            raise ToolstackError(argv, 1, str(error)) from error
    return True


async def wait_gone(ref: ProcessRef, timeout_s: float) -> bool:
    """Wait until the process has ended (it may still be a zombie); False if it did not in time."""
    return await _WAITERS.run(_wait_gone, ref, timeout_s)


def _wait_gone(ref: ProcessRef, timeout_s: float) -> bool:
    with held(ref) as pidfd:
        if pidfd is None:
            return True
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(math.ceil(timeout_s * 1000)))


def processes() -> Sequence[Process]:
    """Return all living processes of this user's and root's; one that ends may be missing.

    Anybody can give a process the command line of an xl; only these can be one of ours.
    """
    found = (_process(int(entry.name)) for entry in _PROC.iterdir() if _is_trusted(entry))
    return [process for process in found if process is not None]


def _is_trusted(entry: Path) -> bool:
    """Whether all its user ids are root's or ours.

    The owner of its directory in /proc does not tell: that is the effective one only, which is
    root's for a set-uid program of anybody. Spec: proc_pid(5), proc_pid_status(5) "Uid".
    """
    if not entry.name.isdecimal():
        return False
    try:
        status = (entry / "status").read_bytes()
    except OSError:
        return False
    # By newlines alone, which the kernel escapes in the name; text has more ends of lines than
    # that, and anybody may put one into the name of a process.
    lines = [line for line in status.split(b"\n") if line.startswith(b"Uid:\t")]
    uids = {int(each) for line in lines for each in line.split()[1:]}
    return len(lines) == 1 and uids <= {0, os.geteuid()}


def save_helpers(among: Sequence[Process]) -> Sequence[SaveHelper]:
    """Return the save helpers of `among`."""
    found = (_save_helper(process) for process in among)
    return [helper for helper in found if helper is not None]


def _save_helper(process: Process) -> SaveHelper | None:
    """Recognise `libxl-save-helper --restore-domain|--save-domain FD FD DOMID ...`.

    Spec: Xen tools/libs/light/libxl_save_callout.c, "Both save and restore share four parameters".
    """
    names = [Path(word).name for word in process.argv]
    if SAVE_HELPER not in names:
        return None
    mode, *numbers = [*process.argv[names.index(SAVE_HELPER) + 1 :], ""]
    if mode not in {"--restore-domain", "--save-domain"} or not numbers[2:3]:
        return None
    domid = numbers[2]
    if not domid.isdecimal():
        return None
    return SaveHelper(process, int(domid), mode == "--restore-domain")


def _process(pid: int) -> Process | None:
    stat = _stat(pid)
    if stat is None:
        return None
    try:
        words = (_PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return None
    argv = tuple(word.decode("utf-8", "backslashreplace") for word in words[:-1])
    return Process(ProcessRef(pid=pid, start_ticks=stat[1]), stat[0], argv)


def _stat(pid: int) -> tuple[int, int] | None:
    """Return parent and start time of a process that has not ended. Spec: proc(5), stat."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    # The second field, the name, may hold blanks and brackets of its own.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in _ENDED else (int(fields[1]), int(fields[19]))


def environment_value(pid: int, name: str) -> str | None:
    """Return a variable of the environment that the process was started with."""
    try:
        words = (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return None
    prefix = f"{name}=".encode()
    values = (word.removeprefix(prefix) for word in words if word.startswith(prefix))
    return next((value.decode("utf-8", "backslashreplace") for value in values), None)
