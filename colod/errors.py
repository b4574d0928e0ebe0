"""The error tree of colod: every failure an operator or a peer can cause has a stable code.

A message says what failed, the value, the limit and where. Errors that mean a defect of colod
itself (`IllegalTransition`, `InvariantBroken`) are never caught: the daemon holds output and exits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class ColodError(Exception):
    """Base of all errors that colod raises on purpose.

    Attributes:
        code: Stable dotted identifier, part of the interface (`ownership.lost`).
    """

    code: ClassVar[str] = "internal"

    def __init__(self, message: str, *, advice: str = "") -> None:
        """Keep the message and, where there is one, the operator's next step."""
        super().__init__(message)
        self.advice = advice


class ConfigError(ColodError):
    """The configuration cannot be used; all its problems are named at once."""

    code = "config.invalid"

    def __init__(self, problems: Sequence[str]) -> None:
        """Join `problems`, each one `path: what is wrong`."""
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems), advice="run: colodctl config check")


class StreamError(ColodError):
    """Bytes that are not the stream they should be.

    Attributes:
        offset: Position, in bytes from the stream's beginning, of what could not be read.
    """

    code = "stream.invalid"

    def __init__(self, message: str, *, offset: int) -> None:
        """Name the offset in the message too."""
        super().__init__(f"{message} (at byte {offset})")
        self.offset = offset


class StreamTruncated(StreamError):
    """The stream ended inside a record that begins at `offset`."""

    code = "stream.truncated"


class UnknownMandatoryRecord(StreamError):
    """A record that the specification forbids to skip, of a type that is not known."""

    code = "stream.unknown_record"


class RecordTooLong(StreamError):
    """A length field above the bound for its record."""

    code = "stream.record_too_long"


class PeerError(ColodError):
    """The other host."""

    code = "peer.error"


class PeerUnreachable(PeerError):
    """No answer; nothing is known of whether a request was carried out."""

    code = "peer.unreachable"


class PeerRefused(PeerError):
    """The other host answered and said no."""

    code = "peer.refused"


class VersionMismatch(PeerError):
    """Both sides speak, but share no protocol version."""

    code = "peer.version_mismatch"


class WitnessError(ColodError):
    """The holder of the ownership records."""

    code = "witness.error"


class WitnessUnreachable(WitnessError):
    """No answer from the witness: ownership is unknown, never assumed."""

    code = "witness.unreachable"


class OwnershipLost(WitnessError):
    """The record names another owner or a newer generation."""

    code = "ownership.lost"


class FenceError(ColodError):
    """Fencing of the other host."""

    code = "fence.error"


class FenceFailed(FenceError):
    """The agent answered that the host was not fenced."""

    code = "fence.failed"


class FenceUnconfirmed(FenceError):
    """No proof either way; never taken for success."""

    code = "fence.unconfirmed"


class SelfFenceError(ColodError):
    """This host's watchdog cannot be used as it is configured; nothing is reset by that."""

    code = "selffence.failed"


class ToolstackError(ColodError):
    """A command of the Xen toolstack failed or did not answer in time.

    Attributes:
        argv: The command as it was run.
        status: Its exit status, a negative signal number, or None after a time-out.
        stderr_tail: The end of what it wrote on standard error.
    """

    code = "toolstack.failed"

    def __init__(self, argv: Sequence[str], status: int | None, stderr_tail: str = "") -> None:
        """Compose the message from the command, its end and its last words."""
        self.argv = tuple(argv)
        self.status = status
        self.stderr_tail = stderr_tail.strip()
        end = "timed out" if status is None else f"exited with {status}"
        tail = f": {self.stderr_tail}" if self.stderr_tail else ""
        super().__init__(f"{' '.join(argv)} {end}{tail}")


class DomainNotFound(ToolstackError):
    """Xen has no domain of that name."""

    code = "toolstack.domain_not_found"


class GuestRenamed(ColodError):
    """A guest that is replicated from this host has got another name behind colod's back."""

    code = "guest.renamed"

    def __init__(self, guest: str, name: str) -> None:
        """Say how it is called now, and how it gets its name back."""
        super().__init__(
            f"{guest} is called {name} now, and nothing is decided for it: xl rename {name} {guest}"
        )


class NetworkError(ColodError):
    """The host's network could not be set up or read."""

    code = "network.failed"


class PreflightRefused(ColodError):
    """The guest cannot be protected as asked; every reason is named at once."""

    code = "preflight.refused"

    def __init__(self, reasons: Sequence[str]) -> None:
        """Join `reasons`, each a whole sentence with its remedy."""
        self.reasons = tuple(reasons)
        super().__init__("; ".join(self.reasons), advice="run: colodctl doctor")


class NotAllowedNow(ColodError):
    """The request is legal, but not in the protection's present state."""

    code = "state.not_allowed"

    def __init__(self, state: str, message: str, *, advice: str = "") -> None:
        """Keep the state that forbids it."""
        shown = f" (state {state})"
        # A refusal that passes another's words on already says it.
        super().__init__(message.removesuffix(shown) + shown, advice=advice)
        self.state = state


class NotFound(ColodError):
    """No such protection, host or checkpoint."""

    code = "not_found"


class SessionError(ColodError):
    """A replication session could not be started, reached or understood."""

    code = "session.failed"


class CheckpointError(ColodError):
    """No image of a replica can be kept, or written."""

    code = "checkpoint.failed"


class JournalError(ColodError):
    """The journal cannot be written or read: nothing irrevocable may happen without it."""

    code = "journal.failed"


class StateHeld(ColodError):
    """Another process decides on this host; the message names it."""

    code = "state.held"


class NotPermitted(ColodError):
    """Who asks has not proven a role that may do that; nothing was done."""

    code = "operator.not_permitted"


class DaemonUnreachable(ColodError):
    """The daemon does not answer, here or at the address given; nothing was asked of it."""

    code = "daemon.unreachable"


class OutcomeUnknown(ColodError):
    """A request was sent and no answer came: it may have been, or may still be, carried out."""

    code = "outcome.unknown"


class IllegalTransition(ColodError):
    """A change of an ownership record that the rules do not have. A defect of colod."""

    code = "defect.illegal_transition"


class InvariantBroken(ColodError):
    """A promise would have been broken. A defect of colod."""

    code = "defect.invariant"
