"""Mutants that nothing kills, and why that is right."""

from __future__ import annotations

# Conditions that the rows before already ensure. They stay: a row should be true by itself.
_IMPLIED = {
    "deleted: without 'is_unprotected'": "`ended`, `ended_elsewhere` and `older` come first",
    "create: without 'not is_unprotected'": "`erase` takes such a primary first",
    "hand_over_to_xl: without 'xl_lives'": "`await_rename` takes a replica without an xl first",
    "pair: without 'goes_well'": "`release_given_up` and `release_broken` come first",
    "pair: without 'has_pairing'": "no session can be seen without the pairing that names it",
    "quiesce: without 'goes_well'": "`hold` takes a guest that runs in a broken pair",
    "take_back: without 'has_lost'": "a secondary's `force` writes the same record",
    "give_switchover_up: after give_away": "what fits both, `resume_from_switchover` takes first",
    "note_started_again: without 'owns_alone'": "`hold` and `activate` take any other that runs",
    "forget_pairing: without 'not copy_is_here'": "the rows before it take any copy",
}

# Neighbours whose order does not matter, because both lead to the same end.
_INDIFFERENT = {
    "leave_pair: after resume_from_switchover": "it runs a moment sooner, then leaves the pair",
    "release_given_up: after release_unwanted": "both release; only the reason noted differs",
    "leave_pairing: after resume": "neither needs the other's work, and both are done",
    "note_running: after open_gate": "neither needs the other's work, and both are done",
    "open_gate: after note_started_again": "neither needs the other's work, and both are done",
    "keep_orphan: after sync": "a session whose xl is gone is a broken one in a moment",
    "erase: after forget_stranger": "what is noted on the way is erased with the rest",
    "become_primary: after let_run": "a secondary that owns alone was seen running: not paused",
}

# Neighbours that never fit the same facts: their conditions contradict each other.
_APART = {
    "ask: after ended": "the reading is stale, or the witness was read",
    "foreign: after older": "no record is known yet, or one is",
    "ended_elsewhere: after foreign": "there is no record, or a foreign one",
    "await_primary: after await_word": "a drained host's replica is sound only once that is lost",
    "note_replica: after give_instead": "a secondary owns no pair that it could leave",
    "forget_stranger: after note_held": "colod's pause is noted, or not",
    "note_held: after hold": "the guest is paused, or not",
    "learn: after release_deleted": "the witness holds a record, or none",
    "release_deleted: without 'is_unprotected'": "`ended_elsewhere` and `older` come first",
    "release_deleted: without 'record_is_known'": "`erase` comes first for a primary",
    "deleted: after create": "a record is known, or not",
    "await_creation: after host_was_restarted": "a record is not known, or it is",
    "give_away: after quiesce": "the guest is paused, or not",
    "go_on: after note_going_on": "the guest is paused, or not",
    "note_going_on: after replicate": "the guest is held, or not",
    "hold_without_witness: after hand_back": "the record is PAIRED, or ALONE",
    "fence: after await_fence": "fencing was not tried, or it was",
    "await_takeover: after never_run_stranger": "xl has not given the copy its name, or it has",
    "resume_own: after activate": "the guest is suspended, or it runs",
    "unactivated_without_witness: after release_receiver": "not activated, or it is",
    "release_broken: after release_orphan": "the session is there, or not",
    "release_orphan: after release_given_up": "the session is not there, or it is",
    "release_unwanted: after leave_pairing": "the session is there, or not",
    "note_started_again: after clear_ended": "the guest runs, or has ended",
    "clear_ended: after start_again": "its domain is there, or not",
    "await_start: after guest_is_down": "its domain is there, paused, or it is down",
    "resume: after note_running": "the guest is suspended, or not",
    "stay_suspended: after pair": "`release_unwanted` has taken any session that is not wanted",
    "alone: after take_back": "this host owns the guest, or the other one does",
    "put_aside: after lost_without_witness": "the witness was read, or not",
    "stranger: after take_over": "a replica whose name is taken counts as lost",
    "force: after follow": "`take_over` takes a promised replica first where force is given",
    "replica_lost: after discard": "a promised replica is never void",
    "leave_stranger: after forget_pairing": "there is a copy, or none",
    "forget_pairing: after keep_orphan": "there is no copy, or an orphan",
    "activate: after forget_replica": "the guest runs, or is down",
    "hold: after hold_stranger": "ownership is not settled, or this host owns alone",
}

SURVIVORS: dict[str, str] = _IMPLIED | _INDIFFERENT | _APART
