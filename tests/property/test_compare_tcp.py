"""TCP: whatever the two copies do to the same bytes they leave; nothing else ever does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colod.output.compare.comparator import Comparator
from colod.output.compare.decisions import Side
from colod.output.compare.half import Half
from colod.output.compare.runs import Runs
from colod.output.compare.segment import ACK, FIN, Terms
from colod.output.compare.tcpflow import TcpFlow
from tests.property.compare_traces import (
    Event,
    Piece,
    but_window,
    hostile_traces,
    pieces,
    play,
    random_trace,
    violation,
)
from tests.unit.compare_samples import asked, dropped, released, tcp

_BASES = st.sampled_from([1_000, (1 << 32) - 8])
_LAST_ACK = 40
_WINDOW = 500
_SEEDS = range(3_000)


def frame(base: int, stream: bytes, piece: Piece, *, has_fin: bool = False) -> bytes:
    """Return the segment that carries a piece of a stream."""
    is_last = has_fin and piece.end == len(stream)
    return tcp(
        stream[piece.begin : piece.end],
        seq=base + piece.begin,
        ack=base + piece.ack,
        flags=ACK | FIN if is_last else ACK,
        window=_WINDOW - piece.ack,
    )


@st.composite
def equal_copies(draw: st.DrawFn) -> list[tuple[Side, bytes]]:
    """Return the same stream sent by both, each in its own way."""
    stream = draw(st.binary(min_size=1, max_size=40))
    base = draw(_BASES)
    has_fin = draw(st.booleans())
    trace = []
    for side in Side:
        mine = draw(pieces(len(stream), _LAST_ACK))
        last = Piece(len(stream), len(stream), _LAST_ACK)
        sent = [frame(base, stream, each, has_fin=has_fin) for each in mine]
        trace.append([(side, each) for each in [*sent, frame(base, stream, last)]])
    order = draw(st.permutations([0] * len(trace[0]) + [1] * len(trace[1])))
    return [trace[which].pop(0) for which in order]


@given(equal_copies())
def test_the_same_stream_leaves_however_it_is_cut_repeated_and_ordered(
    trace: list[tuple[Side, bytes]],
) -> None:
    comparator = Comparator()
    decisions = [each for batch in play(comparator, trace) for each in batch]
    assert asked(tuple(decisions)) == []
    for side, done in ((Side.PRIMARY, released), (Side.SECONDARY, dropped)):
        fed = [each for whose, each in trace if whose is side]
        assert sorted(map(but_window, done(tuple(decisions)))) == sorted(map(but_window, fed))
    assert comparator.held_frames == 0
    assert comparator.next_deadline() is None


@given(equal_copies(), st.data())
def test_a_changed_byte_never_leaves_and_is_reported(
    trace: list[tuple[Side, bytes]], data: st.DataObject
) -> None:
    header = 54
    with_payload = [n for n, (_, each) in enumerate(trace) if len(each) > header]
    which = data.draw(st.sampled_from(with_payload))
    side, original = trace[which]
    at = data.draw(st.integers(header, len(original) - 1))
    changed = bytearray(original)
    changed[at] ^= 1 << data.draw(st.integers(0, 7))
    broken = [*trace[:which], (side, bytes(changed)), *trace[which + 1 :]]
    comparator = Comparator()
    decisions = [each for batch in play(comparator, broken) for each in batch]
    assert not violation(broken)
    if side is Side.PRIMARY:
        assert bytes(changed) not in released(tuple(decisions))
    deadline = comparator.next_deadline()
    if deadline is not None:
        decisions += comparator.on_deadline(deadline)
    assert len(asked(tuple(decisions))) == 1


@settings(max_examples=400)
@given(hostile_traces)
def test_no_frame_says_more_than_the_secondary_has_said(trace: list[Event]) -> None:
    assert violation(trace) == []


@settings(max_examples=200)
@given(hostile_traces)
def test_every_frame_is_settled_once(trace: list[Event]) -> None:
    comparator = Comparator()
    fed: dict[Side, int] = dict.fromkeys(Side, 0)
    gone: dict[Side, int] = dict.fromkeys(Side, 0)
    for event in [*trace, None]:
        if event is None:
            decisions = comparator.checkpoint_committed()
        else:
            fed[event[0]] += 1
            (decisions,) = play(comparator, [event])
        gone[Side.PRIMARY] += len(released(decisions))
        gone[Side.SECONDARY] += len(dropped(decisions))
        assert sum(fed.values()) - sum(gone.values()) == comparator.held_frames
    assert gone == fed


def _is_true(*_: object) -> bool:
    return True


def _keeps_greater_acknowledgements(self: Half, other: Half) -> None:
    """Copy all but what the other copy acknowledged: the secondary's may be greater."""
    kept = (self.ack, self.edges)
    _copy_from(self, other)
    if None not in kept:
        self.ack, self.edges = kept


def _keeps_what_only_the_secondary_sent(self: Runs) -> None:
    """Forget nothing."""


_copy_from = Half.copy_from
Mutant = tuple[type, str, Callable[..., object] | property]
MUTANTS: dict[str, Mutant] = {
    "ack": (TcpFlow, "_has_acknowledged", lambda flow, held: flow._theirs.ack is not None),
    "payload": (TcpFlow, "_has_payload", _is_true),
    "fin": (TcpFlow, "_has_fin", _is_true),
    "window": (TcpFlow, "_room", lambda _, segment, ack: segment.window),
    "terms": (TcpFlow, "_has_terms", _is_true),
    "another connection": (TcpFlow, "is_new", lambda *_: False),
    "scale": (Terms, "window_shifts", property(lambda _: (0,))),
    "reset": (TcpFlow, "_is_reset_by_secondary", lambda _: False),
    "ack after a checkpoint": (Half, "copy_from", _keeps_greater_acknowledgements),
    "bytes after a checkpoint": (Runs, "keep_shared", _keeps_what_only_the_secondary_sent),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_comparator_without_a_rule_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The safety property above is no property that anything would have."""
    owner, attribute, damage = MUTANTS[name]
    assert hasattr(owner, attribute)
    monkeypatch.setattr(owner, attribute, damage)
    assert any(violation(random_trace(seed)) for seed in _SEEDS), f"not missed: the {name} rule"


def test_the_whole_comparator_holds_where_those_without_a_rule_fail() -> None:
    assert not [seed for seed in _SEEDS if violation(random_trace(seed))]
