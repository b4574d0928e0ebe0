"""Whatever comes in: nothing is raised, nothing grows beyond its bound, every frame is settled."""

from __future__ import annotations

import random
import struct
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from colod.output.compare.comparator import Comparator
from colod.output.compare.decisions import Decisions, Drop, Lose, Release, Side
from colod.output.compare.limits import Limits
from colod.output.compare.rewriter import Rewriter
from colod.output.compare.segment import ACK, RST, SYN
from tests.unit.compare_samples import (
    MSS,
    TCP,
    UDP,
    V4,
    V6,
    WINDOW_SCALE_7,
    Ip,
    icmp,
    released,
    segment,
    tcp,
    udp,
)

_LIMITS = Limits(
    held_frames=8,
    held_bytes=40_000,
    flows=3,
    flow_history_bytes=600,
    history_bytes=1_000,
    flow_gaps=2,
    flow_resets=2,
    datagrams=2,
)

_samples = st.sampled_from(
    [
        udp(b"answer"),
        udp(b"answer", ip=V6),
        icmp(3, bytes(4) + V4.reversed().frame(TCP, segment())[14:]),
        icmp(2, bytes(4) + V6.reversed().frame(TCP, segment(ip=V6))[14:], ip=V6),
        tcp(b"hello", ip=Ip(vlan=(7, 8))),
        tcp(flags=SYN, options=MSS + WINDOW_SCALE_7),
        tcp(b"six", ip=V6),
        V6.frame(0, struct.pack(">BB6x", TCP, 0) + segment(b"behind an option", ip=V6)),
        *V4.fragments(UDP, bytes(100), 40),
        *V6.fragments(UDP, bytes(100), 40),
    ]
)
_segments = st.builds(
    lambda size, seq, ack, flags, port: tcp(
        bytes(size), seq=seq, ack=ack, flags=flags, ports=(80, port)
    ),
    st.integers(0, 300),
    st.integers(0, (1 << 32) - 1) | st.integers(0, 2_000),
    st.integers(0, (1 << 32) - 1) | st.integers(0, 10),
    st.sampled_from([ACK, ACK, RST, SYN, SYN | ACK, 0, 0xFF]),
    st.integers(0, 5),
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Return a frame with some bytes changed, or cut off."""
    frame = bytearray(draw(_samples | _segments))
    for at, value in draw(st.lists(st.tuples(st.integers(0, 70), st.integers(0, 255)), max_size=3)):
        frame[at % len(frame)] = value
    return bytes(frame[: draw(st.integers(0, len(frame)))])


hostile = st.one_of(_samples, _segments, damaged(), st.binary(max_size=80))
_events = st.lists(st.one_of(st.tuples(st.sampled_from(Side), hostile), st.none()), max_size=40)


@settings(max_examples=300)
@given(_events)
def test_bounds_hold_and_every_frame_is_settled_once(
    events: list[tuple[Side, bytes] | None],
) -> None:
    comparator = Comparator(_LIMITS)
    waiting: Counter[tuple[Side, int]] = Counter()
    for now, event in enumerate([*events, None]):
        decisions: Decisions = comparator.on_deadline(float(now))
        if event is None:
            decisions += comparator.checkpoint_committed()
        else:
            side, frame = event
            waiting[side, len(frame)] += 1
            take = comparator.primary if side is Side.PRIMARY else comparator.secondary
            decisions += take(frame, float(now))
        for each in decisions:
            match each:
                case Release(frame) | Lose(frame):
                    waiting[Side.PRIMARY, len(frame)] -= 1
                case Drop(frame):
                    waiting[Side.SECONDARY, len(frame)] -= 1
        assert min(waiting.values(), default=0) >= 0
        assert comparator.held_frames <= _LIMITS.held_frames
        assert comparator.held_bytes <= _LIMITS.held_bytes
        assert comparator.connections <= _LIMITS.flows
    assert not +waiting
    assert comparator.held_frames == 0


@given(st.lists(st.tuples(st.booleans(), hostile), max_size=30), st.booleans())
def test_the_rewriter_passes_on_whatever_it_does_not_know(
    frames: list[tuple[bool, bytes]], is_alone: bool
) -> None:
    rewriter = Rewriter(3)
    if is_alone:
        rewriter.failed_over()
    for is_outbound, frame in frames:
        rewritten = rewriter.outbound(frame) if is_outbound else rewriter.inbound(frame)
        assert len(rewritten) == len(frame)
        assert len(rewriter) <= 3


_packets = st.lists(
    st.sampled_from([udp(b"a"), udp(b"b"), udp(b"a", ports=(53, 9)), b"lldp", icmp(0, b"\0\0\0\1")])
)


@given(_packets, _packets, st.randoms(use_true_random=False))
def test_as_many_packets_leave_as_the_secondary_sent(
    ours: list[bytes], theirs: list[bytes], chance: random.Random
) -> None:
    trace = [(Side.PRIMARY, each) for each in ours] + [(Side.SECONDARY, each) for each in theirs]
    chance.shuffle(trace)
    comparator = Comparator()
    gone: Counter[bytes] = Counter()
    for side, frame in trace:
        take = comparator.primary if side is Side.PRIMARY else comparator.secondary
        gone.update(released(take(frame, 0.0)))
    assert gone == Counter(ours) & Counter(theirs)
