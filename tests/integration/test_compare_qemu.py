"""The same traces through QEMU's colo-compare and this comparator: what differs has a reason."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from colod.output.compare.decisions import Side
from tests.integration.compare_cases import CASES, DISAGREED, Case, Outcome, Verdict
from tests.integration.compare_qemu import QemuCompare, require_qemu
from tests.property.compare_traces import Facts, but_window, facts_of, hostile_traces
from tests.property.test_compare_tcp import equal_copies
from tests.unit.compare_samples import Pair, asked, icmp, released, udp

DOCUMENT = Path(__file__).parents[2] / "docs" / "colo.md"
Trace = list[tuple[Side, bytes]]
_ports = itertools.count(1024)


@pytest.fixture(scope="module")
def qemu() -> Iterator[QemuCompare]:
    """Start QEMU's comparator; each trace has ends of its own, so that all can use one."""
    require_qemu()
    # Not tmp_path: the paths of unix sockets end at 107 bytes.
    directory = Path(tempfile.mkdtemp(prefix="colod-"))
    try:
        with QemuCompare(directory) as compare:
            yield compare
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def play_qemu(qemu: QemuCompare, trace: Iterable[tuple[Side, bytes]]) -> tuple[list[bytes], bool]:
    """Return what QEMU releases of a trace, and whether it asks for a checkpoint."""
    qemu.checkpoint()
    qemu.requests()
    sent = [each for side, frame in trace for each in qemu.step(side, frame)]
    return sent, qemu.requests() > 0


def play_ours(trace: Iterable[tuple[Side, bytes]]) -> tuple[list[bytes], bool]:
    """Return the same of this comparator."""
    pair = Pair()
    take = {Side.PRIMARY: pair.primary, Side.SECONDARY: pair.secondary}
    decisions = tuple(each for side, frame in trace for each in take[side](frame))
    return released(decisions), bool(asked(decisions))


def outcome(case: Case, sent: list[bytes], asks: bool) -> Outcome:
    """Return which of the primary's frames were released; clamping a window changes nothing."""
    left = Counter(map(but_window, sent))
    numbers = []
    for number, frame in enumerate(case.primary):
        if left[but_window(frame)]:
            left[but_window(frame)] -= 1
            numbers.append(number)
    assert not +left, "something was released that the primary had not sent"
    return Outcome(tuple(numbers), asks)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_ours_does_what_the_table_says(case: Case) -> None:
    assert outcome(case, *play_ours(case.trace())) == case.ours


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_qemu_does_what_the_table_says(case: Case) -> None:
    require_qemu()
    with (
        tempfile.TemporaryDirectory(prefix="colod-") as directory,
        QemuCompare(Path(directory)) as fresh,
    ):
        assert outcome(case, *play_qemu(fresh, case.trace())) == case.qemu


def test_the_table_names_every_disagreement() -> None:
    document = DOCUMENT.read_text()
    assert [case.row() for case in DISAGREED if case.row() not in document] == []
    assert all(case.ours == case.qemu for case in CASES if case.verdict is Verdict.AGREE)
    assert all(case.ours != case.qemu for case in DISAGREED)


def moved(trace: Trace, port: int) -> Trace:
    """Return the trace with other ports of the client: checksums are not looked at."""
    return [
        (side, frame[:36] + (port + frame[37] % 4).to_bytes(2, "big") + frame[38:])
        for side, frame in trace
    ]


_slow = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@_slow
@given(trace=equal_copies())
def test_whatever_qemu_releases_of_equal_copies_ours_does_too(
    qemu: QemuCompare, trace: Trace
) -> None:
    """Of equal copies ours releases everything and never asks, as the property tests say."""
    trace = moved(trace, next(_ports) * 4)
    ours, ours_asks = play_ours(trace)
    theirs, _ = play_qemu(qemu, trace)
    assert not ours_asks
    assert not Counter(map(but_window, theirs)) - Counter(map(but_window, ours))


@_slow
@given(trace=hostile_traces)
def test_ours_holds_more_than_qemu_only_for_a_fact_that_is_lacking(
    qemu: QemuCompare, trace: list[tuple[Side, bytes] | None]
) -> None:
    """Or once it has asked for a checkpoint, or to keep a RST in its place in the stream."""
    played = moved([event for event in trace if event is not None], next(_ports) * 4)
    qemu.checkpoint()
    theirs = Facts()
    proved: Counter[bytes] = Counter()
    for side, frame in played:
        if side is Side.SECONDARY:
            theirs.note(facts_of(frame))
        sent = qemu.step(side, frame)
        proved.update(but_window(each) for each in sent if not theirs.lacks(facts_of(each)))
    ours, ours_asks = play_ours(played)
    more = proved - Counter(map(but_window, ours))
    has_reset = any(facts_of(frame).resets for _, frame in played)
    assert not more or ours_asks or has_reset


_packets = st.lists(st.tuples(st.sampled_from(["udp", "icmp"]), st.integers(0, 2)), max_size=6)


@_slow
@given(ours=_packets, theirs=_packets, order=st.randoms(use_true_random=False))
def test_of_other_packets_ours_releases_all_that_qemu_does(
    qemu: QemuCompare, ours: list[tuple[str, int]], theirs: list[tuple[str, int]], order: Random
) -> None:
    port = next(_ports)

    def packet(kind: str, number: int) -> bytes:
        if kind == "udp":
            return udp(bytes([number]), ports=(53, port))
        return icmp(0, port.to_bytes(2, "big") + bytes([0, number]))

    trace = [(Side.PRIMARY, packet(*each)) for each in ours]
    trace += [(Side.SECONDARY, packet(*each)) for each in theirs]
    order.shuffle(trace)
    sent, _ = play_qemu(qemu, trace)
    assert not Counter(sent) - Counter(play_ours(trace)[0])
