"""TCP: a segment of the primary leaves when the secondary has said all that it says."""

from __future__ import annotations

import pytest

from colod.output.compare.comparator import Comparator
from colod.output.compare.limits import Limits
from colod.output.compare.segment import ACK, FIN, RST, SYN
from tests.unit.compare_samples import (
    ISN,
    MSS,
    SACK_PERMITTED,
    TCP,
    V4,
    V6,
    WINDOW_SCALE_7,
    Ip,
    Pair,
    asked,
    dropped,
    is_checked,
    released,
    segment,
    tcp,
    time_stamps,
)

FIRST = ISN + 1


def test_equal_segments_release_the_primarys_and_drop_the_secondarys() -> None:
    pair = Pair()
    ours, theirs = tcp(b"hello", ip=Ip(identification=7)), tcp(b"hello", ip=Ip(ttl=9))
    assert pair.primary(ours) == ()
    decisions = pair.secondary(theirs)
    assert released(decisions) == [ours]
    assert dropped(decisions) == [theirs]
    assert pair.comparator.held_frames == 0
    assert pair.comparator.next_deadline() is None


def test_a_secondary_that_is_first_waits_for_the_primary() -> None:
    pair = Pair()
    ours, theirs = tcp(b"hello"), tcp(b"hello")
    assert pair.secondary(theirs) == ()
    assert pair.comparator.held_frames == 1
    decisions = pair.primary(ours)
    assert released(decisions) == [ours]
    assert dropped(decisions) == [theirs]


def test_a_stream_is_compared_however_it_is_cut() -> None:
    pair = Pair()
    ours = [tcp(b"abcdef"), tcp(b"ghij", seq=FIRST + 6)]
    pair.primary(*ours)
    assert released(pair.secondary(tcp(b"abcd"))) == []
    assert released(pair.secondary(tcp(b"efghi", seq=FIRST + 4))) == ours[:1]
    assert released(pair.secondary(tcp(b"j", seq=FIRST + 9))) == ours[1:]


def test_bytes_that_come_out_of_order_are_put_in_order() -> None:
    pair = Pair()
    ours = tcp(b"abcdef")
    pair.primary(ours)
    assert released(pair.secondary(tcp(b"ef", seq=FIRST + 4), tcp(b"ab"))) == []
    assert released(pair.secondary(tcp(b"bcde", seq=FIRST + 1))) == [ours]


def test_a_differing_byte_is_a_divergence_at_once() -> None:
    pair = Pair()
    pair.primary(tcp(b"hello"))
    decisions = pair.secondary(tcp(b"hallo"))
    assert asked(decisions) == ["payload"]
    assert released(decisions) == []
    assert released(pair.secondary(tcp(b"hello"))) == [], "a diverged connection stays shut"


def test_another_connection_goes_on_after_a_divergence() -> None:
    pair = Pair()
    pair.primary(tcp(b"hello"))
    pair.secondary(tcp(b"hallo"))
    other = tcp(b"other", ports=(80, 40_001))
    pair.primary(other)
    assert released(pair.secondary(other)) == [other]


def test_a_retransmission_of_compared_bytes_leaves_at_once() -> None:
    pair = Pair()
    pair.primary(tcp(b"hello"))
    pair.secondary(tcp(b"hello"))
    again = tcp(b"llo", seq=FIRST + 2)
    assert released(pair.primary(again)) == [again]


def test_a_retransmission_with_other_bytes_is_a_divergence() -> None:
    pair = Pair()
    pair.primary(tcp(b"hello"))
    pair.secondary(tcp(b"hello"))
    assert asked(pair.primary(tcp(b"hallo"))) == ["payload"]


def test_a_retransmission_from_before_the_history_needs_the_secondarys() -> None:
    pair = Pair(Comparator(Limits(flow_history_bytes=4)))
    for at in range(0, 20, 4):
        pair.primary(tcp(b"abcd", seq=FIRST + at))
        pair.secondary(tcp(b"abcd", seq=FIRST + at))
    again = tcp(b"abcd")
    assert released(pair.primary(again)) == []
    assert released(pair.secondary(tcp(b"abcd"))) == [again]


def test_sequence_numbers_wrap() -> None:
    pair = Pair()
    near = (1 << 32) - 3
    ours = [tcp(b"abcdef", seq=near), tcp(b"gh", seq=near + 6)]
    pair.primary(*ours)
    assert released(pair.secondary(tcp(b"abcdefgh", seq=near))) == ours


# -- acknowledgements


def test_an_acknowledgement_waits_until_the_secondary_has_received_as_much() -> None:
    pair = Pair()
    ours = tcp(ack=6_000)
    pair.primary(ours)
    assert released(pair.secondary(tcp(ack=5_999))) == []
    assert released(pair.secondary(tcp(ack=6_000))) == [ours]


def test_an_acknowledgement_on_compared_bytes_waits_too() -> None:
    pair = Pair()
    ours = tcp(b"hello", ack=6_000)
    pair.primary(ours)
    assert released(pair.secondary(tcp(b"hello", ack=5_000))) == []
    assert released(pair.secondary(tcp(ack=6_000, seq=FIRST + 5))) == [ours]


def test_an_acknowledgement_below_the_secondarys_leaves_at_once() -> None:
    pair = Pair()
    assert dropped(pair.secondary(tcp(ack=7_000))) == [tcp(ack=7_000)]
    assert released(pair.primary(tcp(ack=6_000))) == [tcp(ack=6_000)]


def test_acknowledgements_wrap() -> None:
    pair = Pair()
    pair.secondary(tcp(ack=(1 << 32) - 10))
    assert released(pair.primary(tcp(ack=5))) == []
    assert released(pair.secondary(tcp(ack=5))) == [tcp(ack=5)]


def test_an_acknowledgement_held_too_long_names_its_rule() -> None:
    pair = Pair()
    pair.primary(tcp(ack=6_000))
    pair.secondary(tcp(ack=5_000))
    assert asked(pair.wait()) == ["ack_window"]


def test_pure_acknowledgements_do_not_wait_for_the_stream() -> None:
    pair = Pair()
    pair.primary(tcp(b"hello", ack=5_000))
    pair.primary(tcp(ack=6_000, seq=FIRST + 5))
    assert released(pair.secondary(tcp(ack=6_000))) == [tcp(ack=6_000, seq=FIRST + 5)]


# -- windows


def test_a_window_larger_than_the_secondarys_is_clamped_to_it() -> None:
    pair = Pair()
    for side in (pair.primary, pair.secondary):
        side(tcp(flags=SYN | ACK, seq=ISN, window=100))
    pair.secondary(tcp(b"hello", ack=5_000, window=300))
    (sent,) = released(pair.primary(tcp(b"hello", ack=4_990, window=500)))
    assert sent == tcp(b"hello", ack=4_990, window=310), "with a right checksum"


def test_a_duplicate_acknowledgement_is_clamped_and_leaves() -> None:
    """Without the third one a client would not send again what was lost, but wait a second."""
    pair = Pair()
    pair.secondary(tcp(window=300))
    clamped = tcp(window=300)
    assert [released(pair.primary(tcp(window=500))) for _ in range(3)] == [[clamped]] * 3


def test_a_window_update_without_room_at_the_secondary_is_no_duplicate_acknowledgement() -> None:
    pair = Pair()
    pair.secondary(tcp(window=300))
    pair.primary(tcp(window=300))
    assert released(pair.primary(tcp(window=500))) == []
    assert released(pair.secondary(tcp(window=400))) == [tcp(window=400)]


def test_a_window_that_a_held_segment_will_tell_is_not_told_clamped_before_it() -> None:
    pair = Pair()
    for side in (pair.primary, pair.secondary):
        side(tcp(flags=SYN | ACK, seq=ISN, options=WINDOW_SCALE_7))
    ours = [tcp(b"hello"), tcp(seq=FIRST + 5)]
    assert released(pair.primary(*ours)) == []
    assert released(pair.secondary(tcp(b"hello"))) == ours


def test_an_acknowledgement_that_was_overtaken_leaves_whatever_its_window() -> None:
    """Its client ignores it; only one that repeats the newest can pass for a duplicate."""
    pair = Pair()
    old, new = tcp(ack=5_001, window=499), tcp(b"x", ack=5_002, window=498)
    pair.primary(old, new)
    decisions = pair.secondary(tcp(b"x", ack=5_000, window=500), tcp(ack=5_040, window=460))
    assert len(released(decisions)) == 2


def test_windows_are_scaled_as_the_handshake_said() -> None:
    pair = Pair()
    syn_ack = tcp(flags=SYN | ACK, seq=ISN, options=MSS + WINDOW_SCALE_7, window=60_000)
    pair.primary(syn_ack)
    assert released(pair.secondary(syn_ack)) == [syn_ack]
    pair.secondary(tcp(b"hello", ack=5_256, window=600))
    (sent,) = released(pair.primary(tcp(b"hello", ack=5_000, window=700)))
    assert sent == tcp(b"hello", ack=5_000, window=602), "256 bytes are two units of 2**7"


def test_of_an_unknown_scale_the_worst_is_assumed() -> None:
    pair = Pair()
    pair.secondary(tcp(b"hello", ack=5_256, window=600))
    (sent,) = released(pair.primary(tcp(b"hello", ack=5_000, window=700)))
    assert sent == tcp(b"hello", ack=5_000, window=600)


# -- SYN


def test_initial_sequence_numbers_and_time_stamps_need_not_agree() -> None:
    pair = Pair()
    options = MSS + SACK_PERMITTED + WINDOW_SCALE_7
    ours = tcp(flags=SYN, seq=ISN, options=options + time_stamps(1))
    theirs = tcp(flags=SYN, seq=99_999, options=time_stamps(2) + options)
    pair.primary(ours)
    assert released(pair.secondary(theirs)) == [ours]


@pytest.mark.parametrize(
    "options",
    [
        MSS + SACK_PERMITTED,
        MSS + b"\3\3\6\1",
        b"\2\4\5\xb5" + WINDOW_SCALE_7,
        MSS + WINDOW_SCALE_7 + time_stamps(1),
        b"",
    ],
)
def test_terms_of_a_handshake_must_agree(options: bytes) -> None:
    pair = Pair()
    pair.primary(tcp(flags=SYN, seq=ISN, options=MSS + WINDOW_SCALE_7))
    assert asked(pair.secondary(tcp(flags=SYN, seq=5, options=options))) == ["syn_options"]


def test_a_new_connection_between_the_same_ends_proves_nothing_by_the_old_one() -> None:
    pair = Pair()
    for side in (pair.primary, pair.secondary):
        side(tcp(flags=SYN, seq=ISN), tcp(b"hello", ack=9_000))
    new = [tcp(flags=SYN, seq=FIRST - 1 + 3), tcp(b"llo!", seq=FIRST + 3, ack=8_000)]
    assert released(pair.primary(*new)) == []
    assert released(pair.secondary(tcp(flags=SYN, seq=70))) == new[:1]
    assert released(pair.secondary(tcp(b"llo!", seq=FIRST + 3, ack=8_000))) == new[1:]


# -- FIN and RST


def test_fins_at_the_same_place_leave() -> None:
    pair = Pair()
    ours = tcp(b"hello", flags=ACK | FIN)
    pair.primary(ours)
    assert released(pair.secondary(tcp(b"hello"))) == []
    assert released(pair.secondary(tcp(seq=FIRST + 5, flags=ACK | FIN))) == [ours]


def test_acknowledgements_behind_a_fin_are_no_bytes_beyond_it() -> None:
    pair = Pair()
    ours = [tcp(b"hello", flags=ACK | FIN), tcp(seq=FIRST + 6, ack=5_001)]
    pair.primary(*ours)
    decisions = pair.secondary(*ours)
    assert released(decisions) == ours
    assert asked(decisions) == []


def test_fins_at_different_places_are_a_divergence() -> None:
    pair = Pair()
    pair.primary(tcp(b"hello", flags=ACK | FIN))
    assert asked(pair.secondary(tcp(b"hell", flags=ACK | FIN))) == ["fin_rst"]


def test_bytes_beyond_the_others_fin_are_a_divergence() -> None:
    pair = Pair()
    pair.secondary(tcp(b"hello", flags=ACK | FIN))
    assert asked(pair.primary(tcp(b"hello!"))) == ["fin_rst"]


def test_a_fin_of_the_secondary_alone_is_overdue_in_time() -> None:
    pair = Pair()
    pair.primary(tcp(b"hello"))
    assert released(pair.secondary(tcp(b"hello", flags=ACK | FIN))) == [tcp(b"hello")]
    assert asked(pair.wait()) == ["fin_rst"]


def test_rsts_at_the_same_place_leave_after_what_came_before() -> None:
    pair = Pair()
    ours = [tcp(b"hello"), tcp(seq=FIRST + 5, flags=RST)]
    pair.primary(*ours)
    assert released(pair.secondary(tcp(b"hello"), tcp(seq=FIRST + 5, flags=RST))) == ours


def test_rsts_at_different_places_are_a_divergence() -> None:
    pair = Pair()
    pair.primary(tcp(flags=RST))
    assert asked(pair.secondary(tcp(flags=RST, seq=FIRST + 1))) == ["fin_rst"]


def test_nothing_leaves_once_the_secondary_alone_has_reset() -> None:
    pair = Pair()
    pair.secondary(tcp(b"hello"), tcp(seq=FIRST + 5, flags=RST))
    assert released(pair.primary(tcp(b"hello"))) == []
    assert asked(pair.wait()) == ["fin_rst"]


def test_a_refusal_is_told_by_what_it_acknowledges() -> None:
    pair = Pair()
    ours = tcp(seq=0, ack=77, flags=RST | ACK)
    pair.primary(ours)
    assert asked(pair.secondary(tcp(seq=0, ack=78, flags=RST | ACK))) == ["fin_rst"]
    pair = Pair()
    pair.primary(ours)
    assert released(pair.secondary(tcp(seq=0, ack=77, flags=RST | ACK))) == [ours]


def test_the_text_of_a_rst_is_none_of_the_stream() -> None:
    pair = Pair()
    ours = tcp(b"go away", flags=RST)
    pair.primary(ours)
    assert released(pair.secondary(tcp(b"go where", flags=RST))) == []
    assert released(pair.secondary(ours)) == [ours]
    assert released(pair.primary(tcp(b"go away"))) == []


# -- checkpoints


def test_a_checkpoint_releases_what_is_held_and_voids_the_secondarys() -> None:
    pair = Pair()
    pair.primary(tcp(b"hello"))
    theirs = tcp(b"other", ports=(80, 40_001))
    pair.secondary(theirs, tcp(b"hallo"))
    decisions = pair.checkpoint()
    assert released(decisions) == [tcp(b"hello")]
    assert dropped(decisions) == [theirs]
    assert pair.comparator.held_frames == 0


def test_after_a_checkpoint_the_secondary_has_sent_what_the_primary_sent() -> None:
    pair = Pair()
    pair.primary(tcp(b"hello", ack=6_000))
    pair.checkpoint()
    again = tcp(b"hello", ack=6_000)
    assert released(pair.primary(again)) == [again]


def test_after_a_checkpoint_the_secondarys_greater_acknowledgement_is_void() -> None:
    pair = Pair()
    pair.primary(tcp(ack=6_000))
    pair.secondary(tcp(ack=9_000))
    pair.checkpoint()
    assert released(pair.primary(tcp(ack=9_000))) == []


def test_after_a_checkpoint_the_secondarys_greater_window_is_void() -> None:
    pair = Pair()
    pair.primary(tcp(window=400))
    pair.secondary(tcp(window=900))
    pair.checkpoint()
    assert released(pair.primary(tcp(window=900))) == []


def test_after_a_checkpoint_bytes_that_only_the_secondary_sent_prove_nothing() -> None:
    pair = Pair()
    pair.primary(tcp(b"hello"))
    pair.secondary(tcp(b"hello, world"))
    pair.checkpoint()
    assert released(pair.primary(tcp(b", world", seq=FIRST + 5))) == []


def test_after_a_divergence_and_a_checkpoint_the_primarys_bytes_stand() -> None:
    pair = Pair()
    pair.primary(tcp(b"hello"))
    pair.secondary(tcp(b"hallo"))
    pair.checkpoint()
    assert released(pair.primary(tcp(b"hello"))) == [tcp(b"hello")]
    assert asked(pair.primary(tcp(b"hallo"))) == ["payload"]


def test_a_handshake_that_diverged_goes_on_after_a_checkpoint() -> None:
    pair = Pair()
    pair.primary(tcp(flags=SYN | ACK, seq=ISN, options=WINDOW_SCALE_7))
    pair.secondary(tcp(flags=SYN | ACK, seq=ISN))
    pair.checkpoint()
    ours = tcp(b"hello", window=9)
    pair.primary(ours)
    assert released(pair.secondary(tcp(b"hello", window=9))) == [ours]


# -- what else there is


@pytest.mark.parametrize("ip", [V4, V6, Ip(vlan=(7,)), Ip(vlan=(7, 9)), Ip(pad=True)])
def test_families_tags_and_padding_make_no_difference(ip: Ip) -> None:
    pair = Pair()
    ours = [tcp(ip=ip), tcp(b"hello", ip=ip)]
    pair.primary(*ours)
    assert released(pair.secondary(*ours)) == ours


def test_a_priority_tag_is_no_vlan() -> None:
    pair = Pair()
    pair.primary(tcp(b"hello", ip=Ip(vlan=(0x2000,))))
    assert len(released(pair.secondary(tcp(b"hello")))) == 1


def test_vlans_do_not_prove_each_other() -> None:
    pair = Pair()
    pair.primary(tcp(b"hello", ip=Ip(vlan=(7,))))
    assert released(pair.secondary(tcp(b"hello", ip=Ip(vlan=(8,))))) == []


def test_fragments_are_compared_as_what_they_are_pieces_of() -> None:
    pair = Pair()
    body = segment(bytes(range(100)))
    ours = V4.fragments(TCP, body, 40)
    assert len(ours) == 3
    pair.primary(*reversed(ours))
    assert released(pair.secondary(tcp(bytes(range(100))))) == ours[::-1]


def test_the_window_of_a_fragmented_segment_is_not_clamped_but_waits() -> None:
    pair = Pair()
    ours = V4.fragments(TCP, segment(bytes(100), window=500), 40)
    pair.primary(*ours)
    assert released(pair.secondary(tcp(bytes(100), window=400))) == []
    assert released(pair.secondary(tcp(window=500))) == ours


def test_samples_have_right_checksums() -> None:
    assert is_checked(V4, TCP, segment(b"hello", options=MSS))
    assert is_checked(V6, TCP, segment(b"odd", ip=V6))
