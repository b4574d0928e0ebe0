"""One direction of one TCP connection, as both copies send it.

A segment of the primary is released only when each thing that it tells the client is known from the
secondary, too:

* every byte of its payload, at its position: compared as a stream, however it is cut into segments;
* its acknowledgement: the secondary must have acknowledged as much;
* its window: the secondary must have room up to the same edge, or else the window is clamped;
* its FIN, its RST, the terms of its SYN.

Anything else stays held until a checkpoint. Bytes that differ at the same position, ends at
different places and different terms are a divergence: then nothing of the connection is released.

The secondary's segments come with sequence numbers that are shifted to the primary's (see
`rewriter`), but for SYNs, whose numbers say nothing here.

Spec: RFC 9293 (TCP), RFC 7323 (window scale). The data that a SACK option reports may be dropped
again by its receiver (RFC 2018 section 8), so SACK promises nothing and is not compared.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from colod.output.compare import checksums
from colod.output.compare.decisions import Reason, Side
from colod.output.compare.entry import Entry
from colod.output.compare.half import (
    Half,
    ends_differ,
    reset_identity,
    resets_differ,
    terms_differ,
)
from colod.output.compare.limits import Limits
from colod.output.compare.runs import CONFLICT, Runs
from colod.output.compare.segment import (
    ACK,
    CHECKSUM_AT,
    FIN,
    MAX_WINDOW_SHIFT,
    RST,
    SYN,
    WINDOW_AT,
    Segment,
    terms_of,
)
from colod.output.compare.sequence import unwrap

_UNKNOWN_SHIFTS = (0, MAX_WINDOW_SHIFT)
"""Of a connection whose SYN was not seen: these are the ends of what is possible."""


class Held:
    """A segment of the primary.

    Attributes:
        entry: What to settle.
        segment: The segment.
        at: Position of its payload.
        ack: Position of its acknowledgement, None without one.
        proved: How many bytes of the payload the secondary is known to have sent.
        header_at: Where the TCP header begins in the frame, 0 if no one frame holds the segment.
    """

    __slots__ = ("ack", "at", "entry", "header_at", "proved", "segment")

    def __init__(self, entry: Entry, segment: Segment, at: int, header_at: int) -> None:
        """Begin with nothing proved."""
        self.entry = entry
        self.segment = segment
        self.at = at
        self.ack: int | None = None
        self.proved = 0
        self.header_at = header_at


class Told(NamedTuple):
    """What the client was told of the other direction.

    Attributes:
        ack: The highest acknowledgement that was released.
        edge: The highest right edge of a window, for the flow's last window shift.
        unclamped: The same as the primary said it.
    """

    ack: int
    edge: int
    unclamped: int


class TcpFlow:
    """What both copies have sent to one end of one connection.

    `primary` and `secondary` take segments and return the entries that are settled by them;
    afterwards `diverged` tells whether a checkpoint is due at once.
    """

    __slots__ = (
        "_acks",
        "_ahead",
        "_limits",
        "_near",
        "_near_ack",
        "_ours",
        "_runs",
        "_shifts",
        "_stream",
        "_theirs",
        "_told",
        "diverged",
    )

    def __init__(self, limits: Limits) -> None:
        """Begin with nothing known, as at a SYN or in the middle of a connection."""
        self.diverged: Reason | None = None
        self._limits = limits
        self._ours = Half()
        self._theirs = Half()
        self._shifts: tuple[int, ...] = _UNKNOWN_SHIFTS
        self._near: int | None = None
        self._near_ack: int | None = None
        self._runs = Runs()
        # Lists and not deques: of thousands of connections few have anything that waits, and an
        # empty deque takes ten times the room.
        self._stream: list[Held] = []
        self._acks: list[Held] = []
        self._ahead: list[tuple[Entry, Segment, int]] = []
        self._told: Told | None = None

    # -- what can be seen

    @property
    def stored_bytes(self) -> int:
        """How many compared bytes are kept."""
        return self._runs.size

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits, so that forgetting the flow loses only history."""
        return not (self._stream or self._acks or self._ahead or self.diverged)

    def is_new(self, side: Side, segment: Segment) -> bool:
        """Whether a SYN of that side begins another connection than this one."""
        half = self._ours if side is Side.PRIMARY else self._theirs
        has_spoken = half.is_begun or half.isn is not None
        return has_spoken and segment.seq not in (half.isn, self._ours.isn)

    # -- segments

    def primary(self, segment: Segment, entry: Entry, header_at: int) -> list[Entry]:
        """Take a segment of the primary.

        Args:
            segment: As it came.
            entry: To be settled when it may leave; its frame is replaced if its window is clamped.
            header_at: Where its TCP header begins in the entry's only frame, 0 if fragmented.
        """
        held = Held(entry, segment, self._position(segment, self._ours), header_at)
        if segment.flags & ACK:
            held.ack = self._ack_position(segment, self._ours)
        self._note(self._ours, segment, held.at, held.ack)
        settled = [] if self.diverged else self._caught_up()
        if segment.flags & RST:
            # It ends the stream, so it leaves after what came before it, and lets that leave.
            self._hold(held, self._stream)
            return settled + self._released()
        if self._may_leave(held):
            self._let_go(held)
            settled.append(entry)
        else:
            self._hold(held, self._acks if segment.is_pure_ack else self._stream)
        return settled

    def secondary(self, segment: Segment, entry: Entry) -> list[Entry]:
        """Take a segment of the secondary."""
        at = self._position(segment, self._theirs)
        ack = self._ack_position(segment, self._theirs) if segment.flags & ACK else None
        self._note(self._theirs, segment, at, ack)
        if not segment.flags & SYN and not self._runs.add(at, segment.payload):
            self._diverge(Reason.PAYLOAD)
        settled = self._released()
        self._trim()
        if self.diverged:
            return [*settled, *self._void(), entry]
        if self._is_ahead(segment, at):
            entry.overdue = Reason.FIN_RST if segment.flags & (FIN | RST) else Reason.TIMEOUT
            self._ahead.append((entry, segment, at))
        else:
            settled.append(entry)
        return settled

    def checkpointed(self) -> None:
        """Take note that the secondary has the primary's state, and that all entries are settled.

        What the primary has said so far is thereby true of the secondary. What the secondary alone
        has said is void: above all its acknowledgements, which may be ahead.
        """
        ours = self._ours
        self._runs.keep_shared()
        for held in self._stream:
            if not held.segment.flags & (SYN | RST):
                self._keep(held.at, held.segment.payload)
        self._theirs.copy_from(ours)
        self._stream.clear()
        self._acks.clear()
        self._ahead.clear()
        self.diverged = None
        if ours.ack is not None and ours.edges is not None:
            self._told = Told(ours.ack, ours.edges[-1], ours.edges[-1])
        self._trim()

    def _keep(self, at: int, payload: bytes) -> None:
        """Take bytes of the primary for the secondary's; they win over what contradicts them."""
        if not self._runs.add(at, payload):
            self._runs.clear()
            self._runs.add(at, payload)
        self._runs.share(at, at + len(payload))

    # -- the rules; each says whether the secondary has said the same

    def _may_leave(self, held: Held) -> bool:
        """Whether all that a segment of the primary tells is known from the secondary, too."""
        if self.diverged:
            return False
        if held.segment.flags & RST:
            return reset_identity(held.segment) in self._theirs.resets
        if self._is_reset_by_secondary():
            return False
        return (
            self._has_terms(held)
            and self._has_payload(held)
            and self._has_fin(held)
            and self._has_acknowledged(held)
            and self._has_window(held)
        )

    def _is_reset_by_secondary(self) -> bool:
        """Whether the secondary reset what the primary did not: nothing it said before counts."""
        return bool(self._theirs.resets) and not self._theirs.resets <= self._ours.resets

    def _has_terms(self, held: Held) -> bool:
        return not held.segment.flags & SYN or self._theirs.terms == terms_of(held.segment)

    def _has_payload(self, held: Held) -> bool:
        payload = held.segment.payload
        if held.proved == len(payload) or held.segment.flags & SYN:
            return True
        rest = payload[held.proved :] if held.proved else payload
        count = self._runs.match(held.at + held.proved, rest)
        if count == CONFLICT:
            self._diverge(Reason.PAYLOAD)
            return False
        held.proved += count
        if held.proved < len(payload):
            return False
        self._runs.share(held.at, held.at + len(payload))
        return True

    def _has_fin(self, held: Held) -> bool:
        is_fin = held.segment.flags & FIN
        return not is_fin or self._theirs.fin == held.at + len(held.segment.payload)

    def _has_acknowledged(self, held: Held) -> bool:
        """Keep the client from ever hearing that something arrived which the secondary lacks."""
        if held.ack is None:
            return True
        return self._theirs.ack is not None and held.ack <= self._theirs.ack

    def _has_window(self, held: Held) -> bool:
        """Whether the secondary has the room, or the window can be clamped to what it has.

        A mere window update must tell something new even then: clamped to what was told before it
        would be a duplicate acknowledgement, which clients take for a loss (RFC 5681 section 2).
        """
        if held.ack is None:
            return True
        segment = held.segment
        window = self._room(segment, held.ack)
        if window == segment.window:
            return True
        if not held.header_at:
            return False
        told = self._told
        if told is None or not segment.is_pure_ack or held.ack != told.ack:
            return True
        is_update = self._edges(segment, held.ack, segment.window)[-1] > told.unclamped
        return not is_update or self._edges(segment, held.ack, window)[-1] > told.edge

    def _judge(self, flags: int) -> None:
        """Look for ends and terms on which the two cannot agree any more."""
        ours, theirs = self._ours, self._theirs
        if flags & SYN and terms_differ(ours, theirs):
            self._diverge(Reason.SYN_OPTIONS)
        if (ours.fin is not None or theirs.fin is not None) and ends_differ(ours, theirs):
            self._diverge(Reason.FIN_RST)
        if flags & RST and resets_differ(ours, theirs):
            self._diverge(Reason.FIN_RST)

    def _diverge(self, reason: Reason) -> None:
        self.diverged = self.diverged or reason

    # -- positions

    def _position(self, segment: Segment, half: Half) -> int:
        """Return where a segment's payload stands.

        The primary's numbers lead, so that a secondary gone astray cannot move them.
        """
        near = segment.seq if self._near is None else self._near
        at = unwrap(segment.seq, near)
        if half is self._ours or (self._near is None and not segment.flags & SYN):
            self._near = at
        return at + 1 if segment.flags & SYN else at

    def _ack_position(self, segment: Segment, half: Half) -> int:
        near = segment.ack if self._near_ack is None else self._near_ack
        ack = unwrap(segment.ack, near)
        if half is self._ours or self._near_ack is None:
            self._near_ack = ack
        return ack

    def _edges(self, segment: Segment, ack: int, window: int) -> list[int]:
        """Return the window's right edge for each possible shift; that of a SYN is never scaled.

        Spec: RFC 7323 section 2.2.
        """
        if segment.flags & SYN:
            return [ack + window] * len(self._shifts)
        return [ack + (window << shift) for shift in self._shifts]

    def _room(self, segment: Segment, ack: int) -> int:
        """Return the largest window, not above the segment's, for which the secondary has room."""
        edges = self._theirs.edges
        assert edges is not None, "the ack rule comes first"
        if segment.flags & SYN:
            return min(segment.window, *(edge - ack for edge in edges))
        room = segment.window
        for shift, edge in zip(self._shifts, edges, strict=True):
            room = min(room, (edge - ack) >> shift)
        return room

    # -- keeping books

    def _note(self, half: Half, segment: Segment, at: int, ack: int | None) -> None:
        """Remember what a segment says; a RST promises nothing but the end."""
        flags = segment.flags
        if flags & RST:
            self._note_reset(half, segment)
        else:
            if flags & SYN:
                half.isn, half.terms = segment.seq, terms_of(segment)
                if half is self._ours and half.terms.window_shifts != self._shifts:
                    self._scale(half.terms.window_shifts)
            else:
                half.is_begun = True
            # Where the secondary's SYN stands is not known: its numbers are not shifted.
            is_placed = half is self._ours or not flags & SYN
            if is_placed and (segment.payload or flags & FIN):
                half.note_end(at + len(segment.payload), is_fin=bool(flags & FIN))
            if ack is not None:
                edges = self._edges(segment, ack, segment.window)
                half.note_ack(ack, edges, is_each_possible=self._shifts is not _UNKNOWN_SHIFTS)
        self._judge(flags)

    def _scale(self, shifts: tuple[int, ...]) -> None:
        """Take the window shifts that the primary's SYN says.

        A window that came before, but with a SYN, was counted by others and says nothing any more.
        """
        self._shifts = shifts
        for half in (self._ours, self._theirs):
            if half.edges is not None and not half.is_begun:
                half.edges = half.edges[:1] * len(shifts)
            else:
                half.ack = half.edges = None

    def _note_reset(self, half: Half, segment: Segment) -> None:
        half.is_begun = True
        if len(half.resets) >= self._limits.flow_resets:
            self._ours.resets = self._theirs.resets = frozenset()
        half.resets |= {reset_identity(segment)}

    def _hold(self, held: Held, queue: list[Held]) -> None:
        held.entry.overdue = self._overdue(held)
        queue.append(held)

    def _let_go(self, held: Held) -> None:
        """Clamp the window of a segment of the primary that leaves, if need be."""
        segment = held.segment
        if held.ack is None or segment.flags & RST:
            return
        window = self._room(segment, held.ack)
        if window != segment.window:
            held.entry.frames = (_with_window(held.entry.frames[0], held.header_at, window),)
        edge = self._edges(segment, held.ack, window)[-1]
        unclamped = self._edges(segment, held.ack, segment.window)[-1]
        told = self._told or Told(held.ack, edge, unclamped)
        self._told = Told(
            max(told.ack, held.ack), max(told.edge, edge), max(told.unclamped, unclamped)
        )

    def _released(self) -> list[Entry]:
        """Return what of the primary may leave now.

        The stream's segments leave in order, so one that may not leave stops those behind it; pure
        acknowledgements do not wait for the stream.
        """
        settled = []
        while self._stream and self._may_leave(self._stream[0]):
            held = self._stream.pop(0)
            self._let_go(held)
            settled.append(held.entry)
        if self._stream:
            self._stream[0].entry.overdue = self._overdue(self._stream[0])
        kept = []
        while self._acks and self._has_acknowledged(self._acks[0]):
            held = self._acks.pop(0)
            if self._may_leave(held):
                self._let_go(held)
                settled.append(held.entry)
            else:
                kept.append(held)
        self._acks[:0] = kept
        return settled

    def _is_ahead(self, segment: Segment, at: int) -> bool:
        """Whether a segment of the secondary says what the primary has not said yet."""
        flags, ours = segment.flags, self._ours
        if flags & RST:
            return reset_identity(segment) not in ours.resets
        if flags & SYN:
            return ours.terms is None
        if flags & FIN and ours.fin is None:
            return True
        end = at + len(segment.payload)
        return bool(segment.payload) and (ours.end is None or end > ours.end)

    def _caught_up(self) -> list[Entry]:
        """Return the secondary's entries that the primary has caught up with."""
        settled = []
        while self._ahead and not self._is_ahead(*self._ahead[0][1:]):
            settled.append(self._ahead.pop(0)[0])
        return settled

    def _void(self) -> list[Entry]:
        """Return all that waits of the secondary: after a divergence it proves nothing."""
        entries = [entry for entry, _, _ in self._ahead]
        self._ahead.clear()
        return entries

    def _overdue(self, held: Held) -> Reason:
        """Return why a checkpoint will be due if this segment of the primary waits too long."""
        if held.segment.flags & RST or self._is_reset_by_secondary():
            return Reason.FIN_RST
        if held.proved < len(held.segment.payload) or not self._has_terms(held):
            return Reason.TIMEOUT
        return Reason.ACK_WINDOW if self._has_fin(held) else Reason.FIN_RST

    def _trim(self) -> None:
        """Keep no more history than is allowed, but all that the primary has still to say."""
        if self._ours.end is not None and self._runs.size > self._limits.flow_history_bytes:
            wanted = min(self._ours.end, self._stream[0].at if self._stream else self._ours.end)
            self._runs.trim(wanted - self._limits.flow_history_bytes)
        while len(self._runs) > self._limits.flow_gaps:
            self._runs.forget_lowest()


def _with_window(frame: bytes, at: int, window: int) -> bytes:
    """Return the frame with another window in the TCP header that begins at `at`."""
    octets = bytearray(frame)
    checksums.replace(octets, at + WINDOW_AT, struct.pack(">H", window), at, at + CHECKSUM_AT)
    return bytes(octets)
