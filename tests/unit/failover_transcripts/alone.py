"""An owner alone."""

from __future__ import annotations

from dataclasses import replace

from colod.failover.effects import Do, State, Swap
from colod.failover.view import Contact, Copy, Link, Replica, Wanted
from tests.unit.failover_transcripts.situation import (
    AWAY,
    BETA,
    BROKEN,
    FOLLOWS,
    IN_PAIR,
    LATER,
    MINE,
    PAUSED,
    SUSPENDED,
    THEIRS,
    Transcript,
    notes_of,
    primary,
    secondary,
)

MINE_NOW = replace(THEIRS, owner=BETA)

ALONE = (
    Transcript(
        "a new owner lets its receiver go",
        secondary(MINE_NOW, IN_PAIR, guest=Copy.RUNNING, **BROKEN),
        "release_receiver",
        State.PROMOTING,
        Do.RELEASE_SESSION,
    ),
    Transcript(
        "then it is the primary, and nothing of the promotion is remembered",
        secondary(
            MINE_NOW,
            MINE
            | {
                "held": True,
                "started": True,
                "force_reason": "x",
                "boot": "",
                "wanted": Wanted.UNPROTECTED,
            },
            guest=Copy.RUNNING,
        ),
        "become_primary",
        State.ALONE,
        notes=notes_of(
            "role",
            "pairing",
            "held",
            "started",
            "may_hand_back",
            "force_reason",
            "boot",
            "wanted",
            "reason",
        ),
    ),
    Transcript(
        "an owner alone lets its held guest run before its xl is let go",
        primary(LATER, IN_PAIR | {"held": True}, **(BROKEN | PAUSED)),
        "let_run",
        State.ALONE,
        Do.RUN_GUEST,
    ),
    Transcript(
        "a guest that a person paused stays paused",
        primary(LATER, **PAUSED),
        "alone",
        State.ALONE,
        asks_person=True,
    ),
    Transcript(
        "an owner alone lets a broken session go, and says why",
        primary(LATER, IN_PAIR, **BROKEN),
        "release_broken",
        State.ALONE,
        Do.RELEASE_SESSION,
        notes_of("reason"),
    ),
    Transcript(
        "and an xl without a session",
        primary(LATER, IN_PAIR, xl_alive=True),
        "release_orphan",
        State.ALONE,
        Do.RELEASE_SESSION,
    ),
    Transcript(
        "and a session whose replica was given up",
        primary(LATER, IN_PAIR, **FOLLOWS, peer_replica=Replica.LOST),
        "release_given_up",
        State.ALONE,
        Do.RELEASE_SESSION,
        notes_of("reason"),
    ),
    Transcript(
        "but not one that only begins: what is said of its replica may be older than it",
        primary(LATER, IN_PAIR, link=Link.STARTING, xl_alive=True, peer_replica=Replica.LOST),
        "pairing",
        State.PAIRING,
    ),
    Transcript(
        "and a session that nobody wants",
        primary(LATER, IN_PAIR | SUSPENDED, **FOLLOWS),
        "release_unwanted",
        State.ALONE,
        Do.RELEASE_SESSION,
    ),
    Transcript(
        "and one on a host that is drained",
        primary(LATER, IN_PAIR, **FOLLOWS, draining=True),
        "release_unwanted",
        State.ALONE,
        Do.RELEASE_SESSION,
    ),
    Transcript(
        "a pairing without a session is left",
        primary(LATER, IN_PAIR),
        "leave_pairing",
        None,
        notes=notes_of("pairing"),
    ),
    Transcript(
        "a guest left suspended is resumed once nothing of the session is left",
        primary(LATER, guest=Copy.SUSPENDED),
        "resume",
        State.ALONE,
        Do.RESUME_GUEST,
    ),
    Transcript(
        "a guest that is suspended for its checkpoint is left alone",
        primary(
            LATER,
            IN_PAIR,
            **(FOLLOWS | {"link": Link.SYNCING, "acked_epoch": 0}),
            guest=Copy.SUSPENDED,
        ),
        "pairing",
        State.SYNCING,
    ),
    Transcript(
        "that it runs again is noted",
        primary(LATER, {"held": True}),
        "note_running",
        None,
        notes=notes_of("held"),
    ),
    Transcript(
        "and that it was begun",
        primary(LATER, {"started": True, "may_hand_back": True}),
        "note_running",
        None,
        notes=notes_of("started", "may_hand_back"),
    ),
    Transcript(
        "a paused guest is not noted as running",
        primary(LATER, {"started": True}, **PAUSED),
        "alone",
        State.ALONE,
        asks_person=True,
    ),
    Transcript(
        "an owner alone opens the gate",
        primary(LATER, gated=True, gate_closed=True),
        "open_gate",
        State.ALONE,
        Do.OPEN_GATE,
    ),
    Transcript(
        "not while it pairs",
        primary(LATER, IN_PAIR, **(FOLLOWS | {"acked_epoch": 1}), gated=True, gate_closed=True),
        "pairing",
        State.SYNCING,
    ),
    Transcript(
        "a guest that is down is shown so, with the way to start it",
        primary(LATER, guest=Copy.DOWN),
        "guest_is_down",
        State.GUEST_SHUTDOWN,
        asks_person=True,
    ),
    Transcript(
        "not while its session is still there",
        primary(LATER, IN_PAIR, **(FOLLOWS | {"acked_epoch": 1}), guest=Copy.DOWN),
        "pairing",
        State.SYNCING,
    ),
    Transcript(
        "a suspended protection stays so",
        primary(LATER, SUSPENDED),
        "stay_suspended",
        State.SUSPENDED,
    ),
    Transcript(
        "a drained host begins nothing",
        primary(LATER, draining=True, resync_due=True),
        "stay_suspended",
        State.SUSPENDED,
        asks_person=True,
    ),
    Transcript(
        "an acknowledged promotable epoch makes a pair",
        primary(LATER, IN_PAIR, **FOLLOWS),
        "pair",
        State.SYNCING,
        Swap,
    ),
    Transcript(
        "not before it",
        primary(LATER, IN_PAIR, **(FOLLOWS | {"acked_epoch": 1})),
        "pairing",
        State.SYNCING,
    ),
    Transcript(
        "not without the witness, which is waited for",
        primary(LATER, IN_PAIR, **FOLLOWS, **AWAY),
        "pairing",
        State.SYNCING,
        asks_person=True,
    ),
    Transcript(
        "sessions that have not met are pairing",
        primary(LATER, IN_PAIR, link=Link.STARTING, xl_alive=True),
        "pairing",
        State.PAIRING,
    ),
    Transcript(
        "a new pairing begins when it is due, and is noted first",
        primary(LATER, {"boot": "earlier"}, resync_due=True),
        "start_pairing",
        State.PAIRING,
        Do.START_PAIRING,
        notes_of("pairing", "pairing_generation", "boot"),
    ),
    Transcript("not before it is due", primary(LATER), "alone", State.ALONE),
    Transcript(
        "not while the other host is silent",
        primary(LATER, resync_due=True, contact=Contact.SILENT),
        "alone",
        State.ALONE,
    ),
    Transcript(
        "not with a guest that a person paused",
        primary(LATER, resync_due=True, **PAUSED),
        "alone",
        State.ALONE,
        asks_person=True,
    ),
    Transcript(
        "not without the witness", primary(LATER, resync_due=True, **AWAY), "alone", State.ALONE
    ),
)
