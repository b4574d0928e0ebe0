"""What happens at each of the comparator's bounds."""

from __future__ import annotations

import pytest

from colod.output.compare.comparator import Comparator
from colod.output.compare.limits import Limits
from colod.output.compare.segment import SYN
from tests.unit.compare_samples import Pair, asked, dropped, lost, released, tcp, udp


def packets(count: int, first: int = 0) -> list[bytes]:
    """Return datagrams that differ."""
    return [udp(n.to_bytes(4, "big")) for n in range(first, first + count)]


def test_half_of_the_frames_asks_for_a_checkpoint() -> None:
    pair = Pair(Comparator(Limits(held_frames=10)))
    assert asked(pair.primary(*packets(5))) == []
    assert asked(pair.primary(*packets(1, 5))) == ["space"]
    assert asked(pair.primary(*packets(1, 6))) == [], "one request at a time"
    assert pair.comparator.requests == {"space": 1}


def test_at_the_bound_the_primarys_frames_are_lost_and_nothing_is_released() -> None:
    pair = Pair(Comparator(Limits(held_frames=10)))
    ours = packets(10)
    pair.primary(*ours)
    more = udp(b"more")
    assert lost(pair.primary(more)) == [more]
    assert released(pair.secondary(*ours)) == [], "no comparing before the checkpoint"
    assert released(pair.checkpoint()) == ours
    pair.primary(more)
    assert released(pair.secondary(more)) == [more]


def test_at_the_bound_the_secondarys_frames_make_room() -> None:
    pair = Pair(Comparator(Limits(held_frames=10)))
    theirs = packets(10)
    pair.secondary(*theirs)
    ours = udp(b"ours")
    decisions = pair.primary(ours)
    assert dropped(decisions) == theirs
    assert lost(decisions) == []
    assert released(pair.checkpoint()) == [ours]


def test_bytes_are_bounded() -> None:
    limits = Limits(held_bytes=100_000)
    pair = Pair(Comparator(limits))
    reasons = []
    for n in range(100):
        reasons += asked(pair.secondary(tcp(bytes(1000), seq=n * 1000)))
        assert pair.comparator.held_bytes <= limits.held_bytes
    assert reasons == ["space"]


def test_connections_silent_longest_are_forgotten_for_new_ones() -> None:
    pair = Pair(Comparator(Limits(flows=2)))
    for port in range(3):
        pair.secondary(tcp(b"hello", ports=(80, port)))
        assert len(released(pair.primary(tcp(b"hello", ports=(80, port))))) == 1
    assert pair.comparator.connections == 2
    assert released(pair.primary(tcp(b"hello", ports=(80, 0)))) == [], "its history is gone"


def test_without_room_for_a_connection_its_frames_wait_for_a_checkpoint() -> None:
    pair = Pair(Comparator(Limits(flows=2)))
    ours = [tcp(b"hello", ports=(80, port)) for port in range(3)]
    assert asked(pair.primary(*ours)) == ["space"]
    assert released(pair.secondary(ours[2])) == []
    assert released(pair.checkpoint()) == ours


def test_history_is_bounded_over_all_connections() -> None:
    pair = Pair(Comparator(Limits(history_bytes=3000)))
    for port in range(10):
        pair.secondary(tcp(bytes(1000), ports=(80, port)))
        pair.primary(tcp(bytes(1000), ports=(80, port)))
        assert pair.comparator.held_bytes <= 3000
    assert pair.comparator.connections == 3


def test_connections_between_the_same_ends_leave_nothing_behind() -> None:
    pair = Pair()
    for number in range(10):
        for side in (pair.primary, pair.secondary):
            side(tcp(flags=SYN, seq=number * 5000), tcp(bytes(1000), seq=number * 5000 + 1))
    assert pair.comparator.held_bytes == 1000
    assert pair.comparator.connections == 1


def test_gaps_in_the_secondarys_stream_are_bounded() -> None:
    pair = Pair(Comparator(Limits(flow_gaps=2)))
    pair.secondary(*(tcp(b"x", seq=1000 + 10 * n) for n in range(4)))
    assert released(pair.primary(tcp(b"x", seq=1000))) == []
    assert len(released(pair.primary(tcp(b"x", seq=1030)))) == 1


def test_an_owner_alone_gets_all_that_is_held() -> None:
    pair = Pair()
    ours = [udp(b"x"), tcp(b"hello")]
    pair.primary(*ours)
    pair.secondary(udp(b"y"))
    decisions = pair.comparator.owner_alone()
    assert released(decisions) == ours
    assert dropped(decisions) == [udp(b"y")]
    assert pair.comparator.connections == pair.comparator.held_bytes == 0


def test_the_oldest_frame_sets_the_deadline() -> None:
    pair = Pair()
    pair.primary(udp(b"x"))
    pair.now += 0.1
    pair.primary(udp(b"y"))
    assert pair.comparator.next_deadline() == pytest.approx(100.2)
    pair.secondary(udp(b"x"))
    assert pair.comparator.next_deadline() == pytest.approx(100.3)
    assert pair.comparator.on_deadline(100.25) == ()


@pytest.mark.parametrize("field", ["timeout_s", "held_frames", "flows"])
def test_a_bound_that_holds_nothing_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field} 0: want more than 0"):
        Limits(**{field: 0})
