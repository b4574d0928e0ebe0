"""Traces of two copies of a guest, and an independent judge of what may leave.

The judge knows nothing of the comparator's books: it keeps the plain facts, which side has said
what since the last checkpoint, and finds the first released frame that says more than the
secondary has.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import strategies as st

from colod.output.compare.comparator import Comparator
from colod.output.compare.decisions import Decisions, Side
from colod.output.compare.packet import parse_ethernet, parse_ip
from colod.output.compare.segment import (
    ACK,
    FIN,
    MAX_WINDOW_SHIFT,
    RST,
    SYN,
    Segment,
    Terms,
    parse_segment,
    terms_of,
)
from colod.output.compare.sequence import MODULUS
from tests.unit.compare_samples import WINDOW_SCALE_7, released, tcp

Event = tuple[Side, bytes] | None
"""A frame of one side, or a checkpoint."""

_FLAGS = [ACK] * 6 + [ACK | FIN, RST]
_SYNS = [SYN, SYN | ACK]
_OPTIONS = [b"", WINDOW_SCALE_7, WINDOW_SCALE_7]


Key = tuple[bytes, int]
"""Ports, and which of the connections between them."""

ANY_SHIFT: tuple[int, ...] = tuple(range(MAX_WINDOW_SHIFT + 1))


@dataclass
class Facts:
    """What one side, or one frame, has said of connections."""

    octets: set[tuple[Key, int, int]] = field(default_factory=set)
    fins: set[tuple[Key, int]] = field(default_factory=set)
    resets: set[tuple[Key, int]] = field(default_factory=set)
    terms: dict[Key, Terms] = field(default_factory=dict)
    acks: dict[Key, int] = field(default_factory=dict)
    windows: dict[Key, set[tuple[int, int, bool]]] = field(default_factory=dict)

    def note(self, said: Facts) -> None:
        """Add what a frame, or another side, says."""
        self.octets |= said.octets
        self.fins |= said.fins
        self.resets |= said.resets
        self.terms |= said.terms
        for key, ack in said.acks.items():
            self.acks[key] = max(ack, self.acks.get(key, 0))
            self.windows.setdefault(key, set()).update(said.windows[key])

    def edge(self, key: Key, shift: int) -> int:
        """Return the right edge of the window if it is scaled so; that of a SYN never is."""
        windows = self.windows.get(key, set())
        return max((a + (w << (0 if is_syn else shift)) for a, w, is_syn in windows), default=-1)

    def lacks(self, said: Facts, shifts: Sequence[int] = (0,)) -> list[str]:
        """Return in which respects a frame says more than this side did."""
        is_more = {
            "octets": not said.octets <= self.octets,
            "fin": not said.fins <= self.fins,
            "reset": not said.resets <= self.resets,
            "terms": any(self.terms.get(key) != terms for key, terms in said.terms.items()),
            "ack": any(ack > self.acks.get(key, -1) for key, ack in said.acks.items()),
            "window": any(
                said.edge(key, shift) > self.edge(key, shift)
                for key in said.windows
                for shift in shifts
            ),
        }
        return [what for what, is_so in is_more.items() if is_so]


def parsed(frame: bytes) -> Segment:
    """Return the TCP segment in a frame."""
    ethernet = parse_ethernet(frame)
    assert ethernet is not None
    packet = parse_ip(frame, ethernet)
    assert packet is not None
    segment = parse_segment(packet.body)
    assert segment is not None
    return segment


def facts_of(frame: bytes, number: int = 0) -> Facts:
    """Return what one frame says, of the connection with that number."""
    segment = parsed(frame)
    said = Facts()
    key, flags = (segment.ports, number), segment.flags
    if flags & RST:
        said.resets.add((key, segment.seq))
        return said
    if flags & SYN:
        said.terms[key] = terms_of(segment)
    for at, octet in enumerate(segment.payload):
        said.octets.add((key, (segment.seq + at) % MODULUS, octet))
    if flags & FIN:
        said.fins.add((key, (segment.seq + len(segment.payload)) % MODULUS))
    if flags & ACK:
        # Turned by half a circle, so that none of these traces crosses the wrap.
        said.acks[key] = (segment.ack + MODULUS // 2) % MODULUS
        said.windows[key] = {(said.acks[key], segment.window, bool(flags & SYN))}
    return said


class Numbering:
    """Which connection between the same ends a side is at: a SYN with a new number begins one."""

    def __init__(self) -> None:
        """Begin with the first one everywhere."""
        self._at: dict[tuple[Side, bytes], int] = {}
        self._isns: dict[tuple[Side, Key], int] = {}
        self._spoken: set[tuple[Side, Key]] = set()

    def number(self, side: Side, frame: bytes) -> int:
        """Return the number of the connection that a frame belongs to."""
        segment = parsed(frame)
        place = (side, segment.ports)
        key = (segment.ports, self._at.get(place, 0))
        if segment.flags & SYN:
            known = {self._isns.get((each, key)) for each in (side, Side.PRIMARY)}
            if (side, key) in self._spoken and segment.seq not in known:
                self._at[place] = key[1] + 1
                key = (segment.ports, key[1] + 1)
            self._isns[side, key] = segment.seq
        self._spoken.add((side, key))
        return key[1]

    def checkpoint(self) -> None:
        """Make the secondary equal to the primary."""
        ours = [(ports, at) for (side, ports), at in self._at.items() if side is Side.PRIMARY]
        self._at = {(side, ports): at for side in Side for ports, at in ours}
        isns = [(key, isn) for (side, key), isn in self._isns.items() if side is Side.PRIMARY]
        self._isns = {(side, key): isn for side in Side for key, isn in isns}
        spoken = [key for side, key in self._spoken if side is Side.PRIMARY]
        self._spoken = {(side, key) for side in Side for key in spoken}


def violation(trace: Sequence[Event]) -> list[str]:
    """Play a trace, and return what the first frame that must not leave says too much."""
    comparator = Comparator()
    numbering = Numbering()
    ours, theirs = Facts(), Facts()
    held: dict[bytes, list[int]] = {}
    for event in trace:
        if event is None:
            comparator.checkpoint_committed()
            numbering.checkpoint()
            held.clear()
            theirs = Facts()
            theirs.note(ours)
            continue
        side, frame = event
        number = numbering.number(side, frame)
        (ours if side is Side.PRIMARY else theirs).note(facts_of(frame, number))
        if side is Side.PRIMARY:
            held.setdefault(but_window(frame), []).append(number)
        take = comparator.primary if side is Side.PRIMARY else comparator.secondary
        for each in released(take(frame, 0.0)):
            lacking = [_lacking(each, n, ours, theirs) for n in held[but_window(each)]]
            if all(lacking):
                return lacking[0]
            held[but_window(each)].pop(lacking.index([]))
    return []


def _lacking(frame: bytes, number: int, ours: Facts, theirs: Facts) -> list[str]:
    """Return what a frame of the primary says too much."""
    said = facts_of(frame, number)
    key = (parsed(frame).ports, number)
    terms = ours.terms.get(key)
    shifts = ANY_SHIFT
    if terms is not None:
        # A SYN offers a scale that the other end may refuse; a SYN-ACK agrees to one.
        shifts = (terms.window_shift,) if terms.flags & ACK else (0, terms.window_shift)
    is_reset_alone = key in {k for k, _ in theirs.resets - ours.resets} and not said.resets
    return theirs.lacks(said, shifts) or (["reset"] if is_reset_alone else [])


def but_window(sent: bytes) -> bytes:
    """Return a frame without what clamping changes: window and checksum."""
    return sent[:48] + sent[52:]


_PAYLOADS = [b"", b"", b"a", b"b", b"ab", b"ba", b"abab"]
_PORTS = [1, 1, 1, 2]


def syn_of(seq: int, ack: int, flags: int, options: bytes, port: int) -> bytes:
    """Return a SYN; its few numbers make it collide with others and with segments."""
    return tcp(
        seq=1000 + seq, ack=5000 + ack, flags=flags, options=options, window=13, ports=(80, port)
    )


def segment_of(payload: bytes, seq: int, ack: int, flags: int, window: int, port: int) -> bytes:
    """Return a segment; the values are small, so that much of a trace collides."""
    return tcp(
        b"" if flags & RST else payload,
        seq=1000 + seq,
        ack=5000 + ack,
        flags=flags,
        window=10 + window,
        ports=(80, port),
    )


_segments = st.builds(
    segment_of,
    st.sampled_from(_PAYLOADS),
    st.integers(0, 8),
    st.integers(0, 3),
    st.sampled_from(_FLAGS),
    st.integers(0, 3),
    st.sampled_from(_PORTS),
)
_event = st.tuples(st.sampled_from(Side), _segments)
hostile_traces: st.SearchStrategy[list[Event]] = st.lists(
    st.one_of(_event, _event, _event, st.none()), max_size=20
)


def random_trace(seed: int) -> list[Event]:
    """Return a trace of the same kind, much faster than hypothesis makes one."""
    chance = random.Random(seed)
    span = chance.choice([1, 3, 8])
    syns = chance.choice([0, 0, 0.2])

    def event() -> Event:
        if chance.random() < 0.15:
            return None
        if chance.random() < syns:
            frame = syn_of(
                chance.randint(0, span),
                chance.randint(0, span // 2),
                chance.choice(_SYNS),
                chance.choice(_OPTIONS),
                chance.choice(_PORTS),
            )
            return chance.choice(list(Side)), frame
        frame = segment_of(
            chance.choice(_PAYLOADS),
            chance.randint(0, span),
            chance.randint(0, span // 2),
            chance.choice(_FLAGS),
            chance.randint(0, span // 2),
            chance.choice(_PORTS),
        )
        return chance.choice(list(Side)), frame

    return [event() for _ in range(chance.randint(1, 20))]


@dataclass(frozen=True)
class Piece:
    """One segment of a copy's stream, and what it acknowledges."""

    begin: int
    end: int
    ack: int


@st.composite
def pieces(draw: st.DrawFn, size: int, last_ack: int) -> list[Piece]:
    """Return all of a stream of `size` bytes in any cut, order and repetition."""
    cuts = draw(st.lists(st.integers(1, max(1, size - 1)), max_size=6))
    bounds = sorted({0, size, *cuts})
    cut = list(itertools.pairwise(bounds))
    again = draw(st.lists(st.tuples(st.integers(0, size), st.integers(0, size)), max_size=3))
    spans = draw(st.permutations(cut + [(min(s), max(s)) for s in again]))
    acks = draw(st.lists(st.integers(0, last_ack), min_size=len(spans), max_size=len(spans)))
    return [Piece(a, b, ack) for (a, b), ack in zip(spans, sorted(acks), strict=True)]


def play(comparator: Comparator, trace: Sequence[tuple[Side, bytes]]) -> list[Decisions]:
    """Feed a trace without checkpoints."""
    return [
        (comparator.primary if side is Side.PRIMARY else comparator.secondary)(frame, 0.0)
        for side, frame in trace
    ]
