"""An owner alone: it clears away what is left of the last pairing, then begins the next."""

from __future__ import annotations

from colod.failover import record as records
from colod.failover.effects import Do, State
from colod.failover.record import OwnershipRecord
from colod.failover.rules import facts as f
from colod.failover.rules.causes import PAIRING_ON, why
from colod.failover.rules.table import Not, Rule, Then, act, any_of, known, note, show, swap
from colod.failover.view import Copy, Ended, View, Wanted
from colod.model import Role


def _paired(view: View) -> OwnershipRecord:
    pairing = view.journal.pairing
    assert pairing is not None
    return records.pair(known(view), pairing, view.promotable_from, attempt=view.new_id)


def _no_record(_: View) -> None:
    """Delete the record."""


def _is_paused(view: View) -> bool:
    return view.guest is Copy.PAUSED


def _why_alone(view: View) -> str:
    if _is_paused(view):
        return "the guest is paused, not by colod"
    if not view.peer_is_configured:
        return f"the other host of this protection, {view.journal.peer}, is not the configured peer"
    return view.journal.reason


def _way_out(view: View) -> str:
    if _is_paused(view):
        return "xl unpause it"
    if not view.peer_is_configured:
        guest = view.journal.protection.guest
        return f"colodctl unprotect {guest}, then colodctl protect {guest} --to the new peer"
    if view.automation_paused and view.wants_pairing:
        guest = view.journal.protection.guest
        return f"automation is paused: colodctl unpause, or for this guest: colodctl resume {guest}"
    return ""


def _why_down(view: View) -> str:
    """Say what is done about a guest that has ended, or why nothing is.

    The xl that `xl create` leaves to handle a guest's end takes the first checkpoint's suspension
    for one, and exits: from then on it is colod that follows the guest's configuration.
    """
    if f.is_restarting(view):
        return view.end_trouble or "it rebooted, and is started again"
    return view.end_trouble or view.journal.reason


def _start_again(view: View) -> str:
    if view.guest is Copy.DOWN and view.ended is Ended.SOON:
        return "nothing yet: what its configuration says is done in a few seconds"
    start = "start it with xl create; it is paired again"
    if f.is_restarting(view):
        return f"it is tried again every 30 s, unless colod is paused (colodctl pause); or {start}"
    is_there = view.guest is Copy.DOWN
    return f"xl destroy {view.journal.protection.guest}, then {start}" if is_there else start


def _restarting_since(view: View) -> float:
    if view.ended is not Ended.RESTART:
        return 0.0
    return view.journal.restarting_since if f.is_restarting(view) else view.uptime_s


def _restart_uuid(view: View) -> str:
    if view.ended is not Ended.RESTART:
        return ""
    return view.end_uuid or view.journal.restart_uuid


def _look_at_start(view: View) -> str:
    guest = view.journal.protection.guest
    return f"if no xl create of it runs any more: xl destroy {guest}, then xl create"


_ALONE = show(State.ALONE, _why_alone, _way_out)

_BECOME_PRIMARY = Then(
    state=State.ALONE,
    journal={
        "role": Role.PRIMARY,
        "pairing": None,
        "replica_domid": 0,
        "held": False,
        "started": False,
        "may_hand_back": False,
        "force_reason": "",
        "boot": lambda v: v.boot,
        "wanted": Wanted.PROTECTED,
        "reason": lambda v: f"took over from {v.journal.peer}",
    },
)

OWNER_ALONE = (
    Rule(
        "release_receiver",
        (f.owns_alone, f.is_secondary, f.session_is_here),
        act(State.PROMOTING, Do.RELEASE_SESSION),
    ),
    Rule("become_primary", (f.owns_alone, f.is_secondary), _BECOME_PRIMARY),
    # Before its xl is let go: xl may wait for a suspension that a paused guest cannot do.
    Rule(
        "let_run",
        (f.owns_alone, f.guest_is_paused, f.is_held),
        act(State.ALONE, Do.RUN_GUEST),
    ),
    Rule(
        "release_broken",
        (f.owns_alone, f.session_is_broken),
        act(State.ALONE, Do.RELEASE_SESSION, reason=lambda v: v.link_error or v.journal.reason),
    ),
    Rule(
        "release_orphan",
        (f.owns_alone, Not(f.session_is_here), f.xl_lives),
        act(State.ALONE, Do.RELEASE_SESSION),
    ),
    # Before PAIRED only this host has a say; without it the guest would wait, its gate closed.
    Rule(
        "release_given_up",
        (f.owns_alone, f.session_follows, f.replica_is_given_up),
        act(State.ALONE, Do.RELEASE_SESSION, reason=why),
    ),
    Rule(
        "release_unwanted",
        (f.owns_alone, f.session_is_here, Not(f.wants_pairing)),
        act(State.ALONE, Do.RELEASE_SESSION),
    ),
    Rule(
        "leave_pairing",
        (f.owns_alone, Not(f.session_is_here), f.has_pairing),
        note(None, pairing=None),
    ),
    Rule(
        "resume",
        (f.owns_alone, f.guest_is_suspended, Not(f.is_left_over)),
        act(State.ALONE, Do.RESUME_GUEST),
    ),
    Rule(
        "note_running",
        (f.owns_alone, f.guest_may_be_gone, any_of(f.is_held, f.has_started)),
        note(None, held=False, started=False, may_hand_back=False),
    ),
    Rule(
        "open_gate",
        (f.owns_alone, f.gate_is_closed, Not(f.session_is_here)),
        act(State.ALONE, Do.OPEN_GATE),
    ),
    Rule(
        "note_started_again",
        (f.owns_alone, f.restart_is_noted, f.guest_runs),
        note(None, restarting_since=0.0, restart_uuid=""),
    ),
    Rule(
        "clear_ended",
        (f.owns_alone, f.end_is_to_be_cleared, Not(f.session_is_here)),
        act(
            State.GUEST_SHUTDOWN,
            Do.CLEAR_ENDED,
            lambda v: v.end_trouble,
            restarting_since=_restarting_since,
            restart_uuid=_restart_uuid,
            boot=lambda v: v.boot,
        ),
    ),
    Rule(
        "start_again",
        (f.owns_alone, f.is_restarting, f.guest_is_gone, f.start_is_due, Not(f.session_is_here)),
        act(State.GUEST_SHUTDOWN, Do.START_GUEST, "it rebooted, and is started again"),
    ),
    # Not before what a reboot needs is done: nobody else would start the guest again.
    Rule(
        "delete",
        (f.owns_alone, f.is_unprotected, Not(f.end_is_followed), f.witness_was_read),
        swap(State.STOPPED, _no_record),
    ),
    # Its domain is there, paused, from the beginning of the start; what it lacks nobody may run.
    Rule(
        "await_start",
        (f.owns_alone, f.restart_is_noted, f.guest_is_paused, Not(f.session_is_here)),
        show(State.GUEST_SHUTDOWN, _why_down, _look_at_start),
    ),
    Rule(
        "guest_is_down",
        (f.owns_alone, f.guest_is_down, Not(f.session_is_here)),
        show(
            State.GUEST_SHUTDOWN,
            _why_down,
            _start_again,
        ),
    ),
    Rule(
        "stay_suspended",
        (f.owns_alone, Not(f.wants_pairing)),
        show(
            State.SUSPENDED,
            lambda v: "this host was drained" if v.draining else "by the operator",
            lambda v: "systemctl restart colod, to pair again" if v.draining else "",
        ),
    ),
    Rule(
        "pair",
        (
            f.owns_alone,
            f.promotable_epoch_is_acked,
            f.goes_well,
            f.has_pairing,
            f.witness_was_read,
        ),
        swap(State.SYNCING, _paired),
    ),
    Rule("pairing", (f.owns_alone, f.session_is_healthy), PAIRING_ON),
    Rule(
        "start_pairing",
        (f.owns_alone, f.resync_is_due, f.peer_is_up, f.guest_runs, f.witness_was_read),
        act(
            State.PAIRING,
            Do.START_PAIRING,
            pairing=lambda v: v.new_id,
            pairing_generation=lambda v: known(v).generation,
            boot=lambda v: v.boot,
        ),
    ),
    Rule("alone", (f.owns_alone,), _ALONE),
)
