"""What a gate asks of the kernel, or of the simulated Xen: one plug for each interface of a guest.

All calls block and come one at a time, in the order that the gate decided. An error says that
nobody knows what the call has done, but for `NotClosed` with `undone`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from colod.errors import NetworkError


class NotClosed(NetworkError):
    """The gate could not be closed.

    Attributes:
        undone: Whether the network was verified to be as it was before.
    """

    code = "gate.not_closed"

    def __init__(self, message: str, *, undone: bool) -> None:
        """Keep whether everything is as before."""
        super().__init__(message)
        self.undone = undone


@dataclass(frozen=True, slots=True)
class Survey:
    """What the plugs of a guest hold, all together.

    Attributes:
        packets: Held at the moment.
        octets: Their bytes.
        dropped: Packets that full plugs have dropped since they were made.
        appeared: Interfaces of the guest that no plug covers.
        vanished: Covered interfaces that are no more.
        added: Interfaces that the guest did not have when its plugs were made.
    """

    packets: int = 0
    octets: int = 0
    dropped: int = 0
    appeared: frozenset[str] = frozenset()
    vanished: frozenset[str] = frozenset()
    added: frozenset[str] = frozenset()


class Plugs(Protocol):
    """The plugs of all interfaces of one guest."""

    def prepare(self) -> None:
        """Make ready whatever may be made before the output is touched, so that `close` is quick.

        Raises:
            NetworkError: If that cannot be done; nothing is held then.
        """

    def close(self) -> None:
        """Redirect every interface into a fresh plug, which holds from the start.

        Raises:
            NotClosed: If any could not be, with what became of the others.
        """

    def cover(self, interface: str) -> None:
        """Give one more interface a fresh plug, closed if the others are.

        Raises:
            NetworkError: If it is not covered.
        """

    def set_barrier(self) -> None:
        """TCQ_PLUG_BUFFER on every plug.

        Raises:
            NetworkError: If it was not set, or not on all.
        """

    def release_one(self) -> None:
        """TCQ_PLUG_RELEASE_ONE on every plug.

        Raises:
            NetworkError: If it was not done, or not on all.
        """

    def open(self) -> None:
        """Let everything out, and leave the guest's network as it was before `prepare`.

        Whatever is left of plugs of an earlier process goes too; nothing to open is no error.

        Raises:
            NetworkError: If something is left.
        """

    def discard(self) -> None:
        """Drop what is held, and keep the guest mute: it is gone, or must never be heard again.

        Raises:
            NetworkError: If something is left.
        """

    def survey(self) -> Survey:
        """Return what is held.

        Raises:
            NetworkError: If that cannot be read.
        """
