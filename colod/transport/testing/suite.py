"""The list of all checks, and how one is run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from colod.transport.testing import cancelling, endings, listening, strangers, streams
from colod.transport.testing.bench import Bench, Nonconformity, Subject

Check = Callable[[Bench], Awaitable[None]]

_OF_ALL: Final[tuple[Check, ...]] = (
    streams.bytes_arrive_in_order_both_ways_at_once,
    streams.parts_written_together_keep_their_order,
    streams.what_was_written_arrives_without_a_further_write,
    streams.an_empty_write_is_no_end,
    streams.a_reader_may_take_a_byte_at_a_time,
    streams.a_written_part_may_be_reused_at_once,
    streams.a_writer_waits_for_its_reader,
    streams.a_direction_that_waits_does_not_hold_the_other_up,
    streams.a_slow_reader_gets_every_byte,
    endings.an_end_is_read_after_every_byte,
    endings.a_finished_direction_ends_and_the_other_goes_on,
    endings.nothing_can_be_written_after_finish,
    endings.closing_wakes_who_waits_on_this_side,
    endings.a_closed_connection_stays_closed,
    endings.writing_to_a_closed_side_fails,
    endings.closing_in_the_middle_of_a_write_gives_a_beginning,
    cancelling.a_cancelled_write_closes_its_connection,
    cancelling.a_cancelled_read_loses_nothing,
    cancelling.a_cancelled_accept_loses_nobody,
    cancelling.a_cancelled_connect_leaves_nothing,
    cancelling.a_connection_is_closed_by_cancelling_what_holds_it,
    listening.each_end_has_an_address_for_messages,
    listening.nobody_there_is_unreachable,
    listening.no_address_is_unreachable,
    listening.connections_come_one_after_the_other,
    listening.connections_at_the_same_time_are_not_crossed,
    listening.listeners_have_addresses_of_their_own,
    listening.connections_outlive_their_listener,
    listening.closing_a_listener_wakes_accept,
    listening.closing_a_listener_ends_who_was_not_accepted,
    listening.closing_a_listener_at_any_moment_leaves_nothing,
)
_WITH_RELAY: Final[tuple[Check, ...]] = (
    endings.a_reset_is_an_error_and_never_an_end,
    endings.a_stalled_link_loses_nothing_and_holds_no_close_up,
    cancelling.a_cancelled_connect_to_silence_leaves_nothing,
    listening.connecting_to_silence_ends_in_time,
    listening.connecting_to_a_mute_listener_ends_in_time,
)
_OF_PROTECTED_WITH_RELAY: Final[tuple[Check, ...]] = (
    endings.a_cut_is_told_from_an_end,
    endings.a_changed_byte_breaks_the_connection,
)
_WITH_STRANGERS: Final[tuple[Check, ...]] = (strangers.a_stranger_holds_nobody_up,)
_OF_PROTECTED_WITH_STRANGERS: Final[tuple[Check, ...]] = (strangers.a_stranger_is_not_accepted,)

CHECKS: Final[Mapping[str, Check]] = {
    check.__name__: check
    for check in (
        *_OF_ALL,
        *_WITH_RELAY,
        *_OF_PROTECTED_WITH_RELAY,
        *_WITH_STRANGERS,
        *_OF_PROTECTED_WITH_STRANGERS,
    )
}
"""Every check by its name."""


def why_not(subject: Subject, name: str) -> str:
    """Return why the check `name` says nothing of `subject`, or nothing if it does."""
    check = CHECKS[name]
    if check in _OF_PROTECTED_WITH_RELAY + _OF_PROTECTED_WITH_STRANGERS and not subject.proves_peer:
        return "this transport does not claim to prove the peer"
    if check in _WITH_RELAY + _OF_PROTECTED_WITH_RELAY and subject.relay is None:
        return "no relay is given for this transport"
    if check in _WITH_STRANGERS + _OF_PROTECTED_WITH_STRANGERS and not subject.strangers:
        return "no strangers are given for this transport"
    return ""


async def run_check(subject: Subject, name: str) -> None:
    """Run one check, in the running event loop; other tasks of that should be still.

    Raises:
        Nonconformity: If the transport does not pass it, or leaves something open.
        ValueError: If it does not apply.
    """
    if reason := why_not(subject, name):
        raise ValueError(f"{name}: {reason}")
    bench = Bench(subject)
    before = bench.leavings()
    try:
        try:
            await CHECKS[name](bench)
        finally:
            await bench.close()
        await bench.nothing_left(before, "after everything was closed")
    except Nonconformity as error:
        raise Nonconformity(f"{name}: {error}") from error
    except Exception as error:
        raise Nonconformity(f"{name}: {error!r}, where no error is promised") from error


async def run_all(subject: Subject) -> Mapping[str, str]:
    """Run all checks; return for each why it failed or was not run, or nothing if it passed."""
    verdicts = {}
    for name in CHECKS:
        if reason := why_not(subject, name):
            verdicts[name] = f"not run: {reason}"
            continue
        try:
            await run_check(subject, name)
            verdicts[name] = ""
        except Nonconformity as error:
            verdicts[name] = str(error)
    return verdicts
