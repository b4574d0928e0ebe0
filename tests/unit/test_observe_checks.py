"""What load balancers are told: never that something holds which is not known to."""

from __future__ import annotations

from typing import Any

import pytest

from colod.failover.effects import State
from colod.observe.checks import CHECKS, FRESH_S, WITNESS_AWAY, Asked, judge, verdict_json
from colod.v1 import admin_pb2, types_pb2

Status = admin_pb2.ProtectionStatus


def primary(state: str = "PROTECTED", **fields: Any) -> Status:
    """Return what alpha says of the guest g, which runs there."""
    usual: dict[str, Any] = {
        "guest": "g",
        "role": types_pb2.ROLE_PRIMARY,
        "peer": "beta",
        "owner": "alpha",
        "guest_domain": "running",
        "witness": "answers",
        "decided_age_s": 0.5,
    }
    return Status(state=state, **usual | fields)


def secondary(state: str = "PROTECTED", **fields: Any) -> Status:
    """Return what alpha says of the guest g, whose replica it holds."""
    progress = fields.pop("progress", types_pb2.Progress(acked_epoch=9, lag_s=0.25))
    usual: dict[str, Any] = {
        "role": types_pb2.ROLE_SECONDARY,
        "owner": "beta",
        "guest_domain": "replica, paused",
        "replica": types_pb2.REPLICA_STATE_FOLLOWING,
        "promotable": True,
        "progress": progress,
    }
    return primary(state, **usual | fields)


def why(check: str, status: Status, lag_s: float | None = None) -> str:
    """Return why a check does not hold of the guest."""
    reply = admin_pb2.StatusReply(host="alpha", protections=[status])
    return judge(check, reply, Asked("alpha", "g", lag_s)).why


@pytest.mark.parametrize("check", CHECKS)
def test_no_check_holds_before_the_daemon_has_looked(check: str) -> None:
    status = secondary() if check == "secondary" else primary()
    assert why(check, status, 60) == ""
    status.ClearField("decided_age_s")
    assert "has not looked" in why(check, status, 60)


@pytest.mark.parametrize("check", CHECKS)
def test_no_check_holds_on_old_facts(check: str) -> None:
    status = secondary() if check == "secondary" else primary()
    status.decided_age_s = FRESH_S
    assert why(check, status, 60) == ""
    status.decided_age_s = FRESH_S + 1
    assert "16 s old, want at most 15 s" in why(check, status, 60)


@pytest.mark.parametrize("state", State)
def test_only_protected_is_protected(state: State) -> None:
    assert (why("protected", primary(state)) == "") == (state is State.PROTECTED)


def test_nothing_is_protected_where_no_guest_is() -> None:
    reply = admin_pb2.StatusReply(host="alpha")
    assert judge("protected", reply, Asked("alpha")).why == "alpha protects no guest"
    for check in ("readyz", "health"):
        assert judge(check, reply, Asked("alpha")).holds


def test_one_guest_that_is_not_protected_is_enough() -> None:
    alone = primary("ALONE", guest="db", cause="beta is lost")
    reply = admin_pb2.StatusReply(host="alpha", protections=[primary(), alone])
    verdict = judge("protected", reply, Asked("alpha"))
    assert verdict.why == "db: is ALONE: beta is lost"
    assert [bool(each) for _, each in verdict.guests] == [False, True]
    assert judge("protected", reply, Asked("alpha", "g")).holds


SETTLED = {
    *(State.STOPPED, State.ALONE, State.PAIRING, State.SYNCING, State.REPLICATING),
    *(State.PROTECTED, State.SWITCHOVER, State.SUSPENDED),
}


@pytest.mark.parametrize("state", State)
def test_the_primary_is_the_owner_while_no_ownership_is_being_settled(state: State) -> None:
    assert (why("primary", primary(state)) == "") == (state in SETTLED)
    assert (why("health", primary(state)) == "") == (state in SETTLED)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (primary(owner="beta"), "beta owns it"),
        (primary(owner=""), "nobody knows who owns it"),
        (primary(guest_domain="paused"), "the guest here is paused"),
        (primary(guest_domain="absent"), "the guest here is absent"),
        (primary("ALONE", guest_domain="suspended"), "the guest here is suspended"),
        (secondary(), "beta is its primary"),
    ],
)
def test_a_host_that_does_not_own_and_run_it_is_not_the_primary(status: Status, words: str) -> None:
    assert words in why("primary", status)


def test_a_checkpoint_does_not_make_a_primary_flap() -> None:
    assert why("primary", primary(guest_domain="suspended")) == ""


@pytest.mark.parametrize(
    ("status", "lag_s", "words"),
    [
        (secondary(), None, ""),
        (secondary(), 0.25, ""),
        (secondary(), 0.2, "0.25 s old, want at most 0.2 s"),
        (secondary(progress=types_pb2.Progress(lag_s=-1)), 60, "nobody knows how old"),
        (secondary(progress=None), 60, "nobody knows how old"),
        (secondary(progress=None), 0, "nobody knows how old"),
        (secondary(promotable=False), 60, "(following) may not be promoted"),
        (secondary("DEGRADED", cause="the link is down"), 60, ""),
        (primary(), 60, "this host is its primary"),
    ],
)
def test_a_secondary_has_a_promotable_replica_that_is_not_too_old(
    status: Status, lag_s: float | None, words: str
) -> None:
    found = why("secondary", status, lag_s)
    assert words in found
    assert bool(found) == bool(words)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"witness": WITNESS_AWAY}, "the witness does not answer"),
        ({"advice": "xl unpause it"}, "waits for a person: xl unpause it"),
        (
            {"standstill_s": 7.0, "standstill_cause": "xl stands still"},
            "has stood still for 7.0 s: xl stands still",
        ),
    ],
)
def test_what_hinders_a_takeover_or_wants_a_person_is_no_health(
    fields: dict[str, Any], words: str
) -> None:
    assert words in why("health", primary(**fields))


def test_an_answer_says_what_it_looked_at() -> None:
    reply = admin_pb2.StatusReply(
        host="alpha", simulated=True, protections=[secondary(), primary(guest="db")]
    )
    verdict = judge("secondary", reply, Asked("alpha", "g", 0.125))
    assert verdict_json(verdict, reply) == {
        "host": "alpha",
        "simulated": True,
        "check": "secondary",
        "holds": False,
        "why": "g: the replica here is 0.25 s old, want at most 0.125 s",
        "guests": [
            {
                "guest": "g",
                "role": "secondary",
                "state": "PROTECTED",
                "lag_s": 0.25,
                "decided_age_s": 0.5,
                "holds": False,
                "why": "the replica here is 0.25 s old, want at most 0.125 s",
            }
        ],
    }
