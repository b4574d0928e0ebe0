"""How replication comes to an end in a session, and what the peer is told of it."""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Final, Self

from colod.errors import ColodError

_SAID_CODE: Final = re.compile(r"[a-z][a-z_]{0,31}")
_SAID_CHARS: Final = 500
_UNHEARD: Final = ("peer.silent", "peer.unreachable")


class State(IntEnum):
    """What a session is doing; the numbers are those of SessionState in types.proto."""

    CONNECTING = 1
    SYNCING = 2
    REPLICATING = 3
    PEER_LOST = 4
    TOOLSTACK_LOST = 5
    FINISHED = 6
    FAILED = 7


_WEIGHT: Final = {
    State.PEER_LOST: 1,
    State.TOOLSTACK_LOST: 2,
    State.FAILED: 3,
    State.FINISHED: 4,
}


def weight(state: State) -> int:
    """Return how bad a state is; a state is only replaced by a worse one, 0 is none yet."""
    return _WEIGHT.get(state, 0)


class Ending(Exception):
    """Replication is over; nothing is let go until the daemon has said so.

    Attributes:
        state: What the session becomes.
        code: Stable code for the daemon.
    """

    def __init__(self, state: State, code: str, message: str) -> None:
        """Keep state and code beside the message."""
        super().__init__(message)
        self.state = state
        self.code = code

    @property
    def is_unheard(self) -> bool:
        """Whether the link carries nothing any more: neither a last word nor its answer."""
        return self.code in _UNHEARD

    @classmethod
    def peer_lost(cls, code: str, message: str) -> Self:
        """The other session is gone, silent, or said goodbye."""
        return cls(State.PEER_LOST, code, message)

    @classmethod
    def toolstack_lost(cls, message: str) -> Self:
        """xl on this host is gone."""
        return cls(State.TOOLSTACK_LOST, "toolstack.lost", message)

    @classmethod
    def failed(cls, code: str, message: str) -> Self:
        """A rule was broken, by the stream or by a session."""
        return cls(State.FAILED, code, message)

    @classmethod
    def from_error(cls, error: ColodError) -> Self:
        """Fail with an error's own code."""
        return cls(State.FAILED, error.code, str(error))

    @property
    def abort_code(self) -> str:
        """What an ABORT calls it: `session.digest` is `digest`, `stream.invalid` is `stream`."""
        family, _, detail = self.code.partition(".")
        return detail if family == "session" else family


def say(code: str, reason: str) -> bytes:
    """Return the payload of a CLOSE or ABORT."""
    return f"{code}: {reason}"[:_SAID_CHARS].encode(errors="replace")


def said(payload: bytes | bytearray) -> tuple[str, str]:
    """Return code and reason of what `say` made; a code that is none becomes `unknown`."""
    code, _, reason = bytes(payload).decode(errors="replace").partition(": ")
    printable = "".join(char if char.isprintable() else "?" for char in reason)
    return (code if _SAID_CODE.fullmatch(code) else "unknown"), printable[:_SAID_CHARS]
