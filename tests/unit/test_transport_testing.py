"""The conformance suite finds every transport that breaks a promise, and says which."""

import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from colod.transport.testing import CHECKS, Nonconformity, Subject, run_all, run_check, why_not
from tests.unit import broken_transports as broken
from tests.unit.broken_transports import SoundTransport, over_tcp, over_unix
from tests.unit.transport_subjects import tcp_subject

Make = Callable[[Path], SoundTransport]


def with_connection(kind: type[broken.Sound]) -> Make:
    return lambda directory: over_unix(directory, connection=kind)


def with_listener(kind: type[broken.SoundListener]) -> Make:
    return lambda directory: over_unix(directory, listener=kind)


def with_transport(kind: type[SoundTransport]) -> Make:
    return lambda directory: over_unix(directory, transport=kind)


def waiting_for_a_word(directory: Path) -> SoundTransport:
    return over_unix(directory, transport=broken.WaitsForAWord, listener=broken.ListensForAWord)


def claiming_to_protect(_: Path) -> SoundTransport:
    return over_tcp(broken.ClaimsToProtect)


# Each check, a transport that only it need find, and words of what it says.
MUTANTS: dict[str, tuple[Make, str]] = {
    "bytes_arrive_in_order_both_ways_at_once": (
        with_connection(broken.LosesAByte),
        "bytes were lost",
    ),
    "parts_written_together_keep_their_order": (
        with_connection(broken.TurnsPartsRound),
        "bytes were lost, doubled, changed or moved",
    ),
    "what_was_written_arrives_without_a_further_write": (
        with_connection(broken.FillsBlocks),
        "not within",
    ),
    "an_empty_write_is_no_end": (with_connection(broken.EndsAtNothing), "after an empty write"),
    "a_reader_may_take_a_byte_at_a_time": (
        with_connection(broken.LosesWhatIsLeftOver),
        "read alone",
    ),
    "a_written_part_may_be_reused_at_once": (
        with_connection(broken.SendsLater),
        "a buffer that is used again: byte",
    ),
    "a_writer_waits_for_its_reader": (with_connection(broken.HoldsAnything), "may be held"),
    "a_direction_that_waits_does_not_hold_the_other_up": (
        with_connection(broken.TakesTurns),
        "while the other direction is stuck",
    ),
    "a_slow_reader_gets_every_byte": (with_connection(broken.DropsForTheSlow), "a slow reader"),
    "an_end_is_read_after_every_byte": (
        with_connection(broken.LosesWhatItHeldAtClose),
        "bytes before a close",
    ),
    "a_finished_direction_ends_and_the_other_goes_on": (
        with_connection(broken.FinishesBothWays),
        "finish",
    ),
    "nothing_can_be_written_after_finish": (
        with_connection(broken.TakesBytesAfterFinish),
        "returned None where PeerUnreachable is promised",
    ),
    "closing_wakes_who_waits_on_this_side": (
        with_connection(broken.LetsWaitersWait),
        "a read that waited when its side closed: not within",
    ),
    "a_closed_connection_stays_closed": (
        with_connection(broken.EndsWhereItIsClosed),
        "read after close: returned 0",
    ),
    "writing_to_a_closed_side_fails": (
        with_connection(broken.TakesBytesAfterFinish),
        "bytes were taken",
    ),
    "closing_in_the_middle_of_a_write_gives_a_beginning": (
        with_connection(broken.PadsTheEnd),
        "not its beginning",
    ),
    "a_cancelled_write_closes_its_connection": (
        with_connection(broken.WritesOnWhenCancelled),
        "write after a cancelled write",
    ),
    "a_cancelled_read_loses_nothing": (
        with_connection(broken.ReadsOnWhenCancelled),
        "bytes after a cancelled read",
    ),
    "a_cancelled_accept_loses_nobody": (
        with_listener(broken.AcceptsOnWhenCancelled),
        "connect after accepts that were cancelled",
    ),
    "a_cancelled_connect_leaves_nothing": (
        with_transport(broken.ConnectsOnWhenCancelled),
        "are left",
    ),
    "a_connection_is_closed_by_cancelling_what_holds_it": (
        with_connection(broken.TakesCancellationForAnEnd),
        "has to end by CancelledError",
    ),
    "each_end_has_an_address_for_messages": (
        with_connection(broken.HasNoAddress),
        "connection.peer_address: ''",
    ),
    "nobody_there_is_unreachable": (
        with_transport(broken.RaisesWhatTheKernelSays),
        "ConnectionRefusedError",
    ),
    "no_address_is_unreachable": (with_transport(broken.TakesAnyAddress), "ValueError"),
    "connections_come_one_after_the_other": (
        with_connection(broken.LeavesAFile),
        r"40 descriptors and no tasks are left",
    ),
    "connections_at_the_same_time_are_not_crossed": (
        with_listener(broken.CrossesWires),
        "of six",
    ),
    "listeners_have_addresses_of_their_own": (
        with_listener(broken.HasTheAddressOfAll),
        "two listeners have one address",
    ),
    "connections_outlive_their_listener": (
        with_listener(broken.TakesItsConnectionsAlong),
        "after the listener was closed",
    ),
    "closing_a_listener_wakes_accept": (
        with_listener(broken.LetsAcceptWait),
        "an accept that waited when its listener closed: not within",
    ),
    "closing_a_listener_ends_who_was_not_accepted": (
        with_listener(broken.GoesOnListening),
        "read to the end: not within",
    ),
    "closing_a_listener_at_any_moment_leaves_nothing": (
        with_listener(broken.KeepsWhoCameLate),
        "are left",
    ),
    "a_reset_is_an_error_and_never_an_end": (
        with_connection(broken.TakesABreakForAnEnd),
        "read after a reset: returned 0",
    ),
    "a_stalled_link_loses_nothing_and_holds_no_close_up": (
        with_connection(broken.LosesPatience),
        "PeerUnreachable",
    ),
    "a_cancelled_connect_to_silence_leaves_nothing": (
        with_transport(broken.ConnectsOnWhenCancelled),
        "are left",
    ),
    "connecting_to_silence_ends_in_time": (
        with_transport(broken.KnowsNoTime),
        r"connect with timeout_s=0\.5: goes on after",
    ),
    "connecting_to_a_mute_listener_ends_in_time": (
        waiting_for_a_word,
        r"connect with timeout_s=0\.5: goes on after",
    ),
    "a_cut_is_told_from_an_end": (claiming_to_protect, "read after the link was cut: returned 0"),
    "a_changed_byte_breaks_the_connection": (
        claiming_to_protect,
        "read bytes that were changed: returned 1",
    ),
    "a_stranger_holds_nobody_up": (waiting_for_a_word, "connect beside a stranger silent"),
    "a_stranger_is_not_accepted": (claiming_to_protect, "a stranger silent: accepted"),
}


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Callable[[Make], Subject]]:
    transports: list[SoundTransport] = []

    def make(kind: Make) -> Subject:
        transports.append(kind(tmp_path))
        return transports[-1].subject()

    yield make
    for transport in transports:
        await transport.litter.clear()


@pytest.mark.parametrize("check", MUTANTS)
async def test_a_broken_transport_is_found(
    check: str, opened: Callable[[Make], Subject], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    make, words = MUTANTS[check]
    with pytest.raises(Nonconformity, match=words) as caught:
        await run_check(opened(make), check)
    assert str(caught.value).startswith(f"{check}: ")


@pytest.mark.parametrize("check", [name for name in CHECKS if not why_not(tcp_subject(), name)])
async def test_a_sound_transport_in_the_same_clothes_passes(
    check: str, opened: Callable[[Make], Subject]
) -> None:
    await run_check(replace(opened(over_unix), patience_s=10.0, quiet_s=0.2), check)


def test_every_check_is_shown_to_find_something() -> None:
    assert MUTANTS.keys() == CHECKS.keys()


def test_every_check_says_what_it_checks() -> None:
    assert [name for name, check in CHECKS.items() if not check.__doc__] == []


async def test_a_whole_run_names_what_failed_and_what_was_not_run(
    opened: Callable[[Make], Subject],
) -> None:
    whole = opened(with_connection(broken.HasNoAddress))
    bare = Subject(sender=whole.sender, receiver=whole.receiver, quiet_s=0.05)
    verdicts = dict(await run_all(bare))
    assert verdicts.keys() == CHECKS.keys()
    assert "peer_address" in verdicts.pop("each_end_has_an_address_for_messages")
    spoken = {verdict for verdict in verdicts.values() if verdict}
    assert spoken == {
        "not run: no relay is given for this transport",
        "not run: no strangers are given for this transport",
        "not run: this transport does not claim to prove the peer",
    }
    with pytest.raises(ValueError, match="no relay"):
        await run_check(bare, "a_reset_is_an_error_and_never_an_end")
