"""See to it that an interrupt ends the process, also where a library gets stuck over it.

Python raises KeyboardInterrupt wherever the main thread happens to be. Inside gRPC that can be
between a lock and what it guards; then closing the channel waits for ever, and no further interrupt
gets through to it. Elsewhere a library makes an error of its own of it.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType
from typing import Final

from colod.cli.exits import Exit

INTERRUPTED: Final = "colodctl: interrupted; what the daemon was asked goes on"
GRACE_S: Final = 2.0
_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_interrupted = threading.Event()


def was_interrupted() -> bool:
    """Tell whether one of those signals came: whatever failed after it, failed for it."""
    return _interrupted.is_set()


def end_after_interrupt(grace_s: float = GRACE_S) -> None:
    """End the process `grace_s` seconds after a signal to end, unless it has ended by then.

    SIGTERM and SIGHUP are taken as SIGINT is: a process that they end at once leaves behind what it
    has started, as the check of a drill.

    Call it once, in the main thread, before anything else. A shell that starts colodctl in the
    background has it ignore SIGINT (POSIX.1-2017, XCU 2.11), nohup SIGHUP: then so it stays.
    """
    taken = [each for each in _ENDING if signal.getsignal(each) is not signal.SIG_IGN]
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for each in taken:
        signal.signal(each, _interrupt)
    threading.Thread(target=_watch, args=(reader, grace_s), daemon=True).start()


def _interrupt(number: int, frame: FrameType | None) -> None:
    _interrupted.set()
    signal.default_int_handler(number, frame)


def _watch(reader: int, grace_s: float) -> None:
    while not set(os.read(reader, 64)) & set(_ENDING):
        pass
    time.sleep(grace_s)
    os.write(2, f"{INTERRUPTED}\n".encode())
    os._exit(Exit.INTERRUPTED)
