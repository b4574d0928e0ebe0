"""The ownership record: every legal change, and that nothing else is one."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from colod.errors import IllegalTransition, WitnessError
from colod.failover.record import (
    MAX_REASON_CHARS,
    MAX_RECORD_BYTES,
    OwnershipRecord,
    RecordState,
    activate,
    check_transition,
    create,
    decode,
    encode,
    force,
    go_alone,
    hand_back,
    hand_over,
    pair,
    take_over,
)
from colod.model import Epoch, Generation, HostName, PairingId

A = HostName("alpha")
B = HostName("beta")
C = HostName("gamma")
P = PairingId("a" * 32)
Q = PairingId("b" * 32)

ALONE = create(A, B, attempt="1")
PAIRED = pair(ALONE, P, Epoch(2), attempt="2")
TAKEN = take_over(PAIRED, P, attempt="3")
FORCED = force(PAIRED, B, attempt="3", reason="seen dead")
STATES = {"absent": None, "alone": ALONE, "paired": PAIRED, "taken": TAKEN, "forced": FORCED}

# What each host may make of each state; everything else is refused.
LEGAL: dict[str, dict[HostName, set[str]]] = {
    # Where nothing is known of the guest, a host can only be asked whether it names itself.
    "absent": {host: {"create", "force"} for host in (A, B, C)},
    "alone": {A: {"delete", "pair", "force"}, B: {"force"}, C: set()},
    "paired": {A: {"go_alone", "hand_over", "force"}, B: {"take_over", "force"}, C: set()},
    # TAKEN and FORCED are owned by B, which has not activated its copy yet.
    "taken": {A: {"force"}, B: {"delete", "activate", "hand_back", "force"}, C: set()},
    "forced": {A: {"force"}, B: {"delete", "activate", "hand_back", "force"}, C: set()},
}


def _alone(old: OwnershipRecord, owner: HostName, *, activated: bool) -> OwnershipRecord:
    return OwnershipRecord(
        owner=owner,
        peer=old.peer if owner == old.owner else old.owner,
        state=RecordState.ALONE,
        generation=Generation(old.generation + 1),
        attempt="new",
        activated=activated,
    )


def _change(name: str, state: str, by: HostName) -> OwnershipRecord | None:
    """Return the record that the change `name` by `by` would write, made without asking rules."""
    old = STATES[state] or replace(ALONE, generation=Generation(7))
    other = old.peer if by == old.owner else old.owner
    made: dict[str, OwnershipRecord | None] = {
        "create": create(by, B if by == A else A, attempt="new"),
        "delete": None,
        "pair": replace(
            _alone(old, old.owner, activated=True),
            state=RecordState.PAIRED,
            pairing=Q,
            promotable_from=Epoch(2),
        ),
        "go_alone": _alone(old, old.owner, activated=True),
        "take_over": _alone(old, old.peer, activated=False),
        "hand_over": replace(_alone(old, old.peer, activated=False), given=True),
        "hand_back": replace(_alone(old, old.peer, activated=False), given=True),
        "activate": replace(old, activated=True, attempt="new"),
        "force": replace(
            _alone(old, by, activated=False), peer=other if by != C else A, forced="because"
        ),
    }
    return made[name]


CHANGES = tuple(
    "create delete pair go_alone take_over hand_over hand_back activate force".split()  # noqa: SIM905
)
# Changes that write the same record are legal together.
_SAME = {"hand_over": "gift", "hand_back": "gift"}


@pytest.mark.parametrize(("state", "by", "change"), list(product(STATES, (A, B, C), CHANGES)))
def test_a_host_makes_the_changes_of_the_table_and_no_other(
    state: str, by: HostName, change: str
) -> None:
    if state == "absent" and change == "activate":
        pytest.skip("writes the record of another change")
    legal = {_SAME.get(one, one) for one in LEGAL[state][by]}
    new = _change(change, state, by)
    if _SAME.get(change, change) in legal:
        check_transition(STATES[state], new, by=by)
    else:
        with pytest.raises(IllegalTransition):
            check_transition(STATES[state], new, by=by)


@pytest.mark.parametrize(
    ("old", "new", "by"),
    [
        (None, create(A, B, attempt="x"), A),
        (ALONE, pair(ALONE, P, Epoch(2), attempt="x"), A),
        (PAIRED, go_alone(PAIRED, attempt="x"), A),
        (PAIRED, hand_over(PAIRED, attempt="x"), A),
        (PAIRED, take_over(PAIRED, P, attempt="x"), B),
        (TAKEN, activate(TAKEN, attempt="x"), B),
        (TAKEN, hand_back(TAKEN, attempt="x"), B),
        (FORCED, activate(FORCED, attempt="x"), B),
        (FORCED, hand_back(FORCED, attempt="x"), B),
        (ALONE, force(ALONE, B, attempt="x", reason="r"), B),
        (PAIRED, force(PAIRED, A, attempt="x", reason="r"), A),
        (ALONE, None, A),
        (TAKEN, None, B),
    ],
)
def test_what_the_functions_make_is_legal(
    old: OwnershipRecord | None, new: OwnershipRecord | None, by: HostName
) -> None:
    check_transition(old, new, by=by)
    assert new is None or decode(encode(new)) == new


@pytest.mark.parametrize(
    "wrong",
    [
        {"generation": Generation(2)},
        {"generation": Generation(4)},
        {"owner": C},
        {"peer": C},
        {"state": RecordState.PAIRED},
        {"pairing": P},
        {"promotable_from": Epoch(2)},
        {"activated": True},
        {"attempt": ""},
        {"attempt": "x" * 65},
        {"owner": A, "peer": B},
    ],
)
def test_a_takeover_with_any_other_field_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(IllegalTransition):
        check_transition(PAIRED, replace(TAKEN, **wrong), by=B)  # type: ignore[arg-type]


def test_every_change_of_owner_or_pairing_adds_one_to_the_generation() -> None:
    for old, new in (
        (ALONE, PAIRED),
        (PAIRED, go_alone(PAIRED, attempt="x")),
        (PAIRED, TAKEN),
        (PAIRED, hand_over(PAIRED, attempt="x")),
        (TAKEN, hand_back(TAKEN, attempt="x")),
        (ALONE, force(ALONE, B, attempt="x", reason="r")),
    ):
        assert new.generation == old.generation + 1
    assert activate(TAKEN, attempt="x").generation == TAKEN.generation


def test_a_replica_of_another_pairing_may_not_take_over() -> None:
    with pytest.raises(IllegalTransition, match=Q):
        take_over(PAIRED, Q, attempt="x")
    with pytest.raises(IllegalTransition):
        take_over(ALONE, P, attempt="x")


def test_the_others_alone_is_never_taken_without_an_operators_reason() -> None:
    taken = replace(TAKEN, generation=Generation(2))
    with pytest.raises(IllegalTransition):
        check_transition(ALONE, taken, by=B)
    check_transition(ALONE, replace(taken, forced="the rack burnt"), by=B)


def test_a_copy_that_does_not_run_yet_cannot_be_paired() -> None:
    with pytest.raises(IllegalTransition):
        check_transition(TAKEN, pair(TAKEN, P, Epoch(2), attempt="x"), by=B)
    active = activate(TAKEN, attempt="x")
    check_transition(active, pair(active, P, Epoch(2), attempt="y"), by=B)


def test_a_pairing_is_replaced_by_another_only_through_alone() -> None:
    with pytest.raises(IllegalTransition):
        check_transition(PAIRED, pair(PAIRED, Q, Epoch(2), attempt="x"), by=A)


def test_a_pairing_that_is_promotable_from_no_epoch_is_refused() -> None:
    with pytest.raises(IllegalTransition):
        check_transition(ALONE, pair(ALONE, P, Epoch(0), attempt="x"), by=A)


def test_a_host_is_never_its_own_peer() -> None:
    with pytest.raises(IllegalTransition):
        check_transition(None, create(A, A, attempt="x"), by=A)


def test_nothing_is_not_replaced_by_nothing() -> None:
    with pytest.raises(IllegalTransition):
        check_transition(None, None, by=A)


def test_a_record_created_again_goes_on_counting_where_the_deleted_one_ended() -> None:
    again = create(A, B, attempt="x", after=Generation(7))
    assert again.generation == 8
    check_transition(None, again, by=A, after=Generation(7))
    for other in (Generation(0), Generation(6), Generation(8)):
        with pytest.raises(IllegalTransition):
            check_transition(None, again, by=A, after=other)


def test_an_operators_word_exceeds_what_the_journal_knows_of_a_restored_witness() -> None:
    forced = force(PAIRED, A, attempt="x", reason="restored", above=Generation(40))
    assert forced.generation == 41
    check_transition(PAIRED, forced, by=A)
    check_transition(None, forced, by=A, after=Generation(3))
    with pytest.raises(IllegalTransition):
        check_transition(forced, replace(forced, attempt="y"), by=A)
    with pytest.raises(IllegalTransition):
        check_transition(None, forced, by=A, after=Generation(41))


def test_an_operator_decides_only_for_the_host_that_was_asked() -> None:
    with pytest.raises(IllegalTransition):
        check_transition(PAIRED, force(PAIRED, A, attempt="x", reason="r"), by=B)


@pytest.mark.parametrize("reason", ["", "  ", "x" * (MAX_REASON_CHARS + 1)])
def test_a_reason_that_says_nothing_or_too_much_is_refused(reason: str) -> None:
    with pytest.raises(ValueError, match="want 1 to"):
        force(PAIRED, A, attempt="x", reason=reason)
    with pytest.raises(ValueError, match="neither"):
        force(PAIRED, C, attempt="x", reason="r")


def test_the_longest_record_can_be_read_back() -> None:
    reason = "\U0001f525" * MAX_REASON_CHARS
    long = force(
        replace(PAIRED, owner=HostName("a" * 63), peer=HostName("b" * 63)),
        HostName("a" * 63),
        attempt="x" * 64,
        reason=reason,
        above=Generation(2**62 - 2),
    )
    assert len(encode(long)) < MAX_RECORD_BYTES
    assert decode(encode(long)) == long


def test_a_generation_that_cannot_be_read_back_is_refused() -> None:
    forced = force(PAIRED, A, attempt="x", reason="r", above=Generation(2**63 - 1))
    with pytest.raises(IllegalTransition, match="generation"):
        check_transition(PAIRED, forced, by=A)


GOOD = encode(PAIRED).decode()


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "null",
        "[]",
        "{}",
        GOOD + " ",
        GOOD.replace('"format": 1', '"format": 2'),
        GOOD.replace('"format": 1', '"format": 1.0'),
        GOOD.replace('"format": 1', '"format": true'),
        GOOD.replace('"generation": 2', '"generation": 0'),
        GOOD.replace('"generation": 2', '"generation": -1'),
        GOOD.replace('"generation": 2', '"generation": 2.0'),
        GOOD.replace('"generation": 2', '"generation": true'),
        GOOD.replace('"generation": 2', f'"generation": {2**63}'),
        GOOD.replace('"generation": 2', f'"generation": {2**62}'),
        GOOD.replace('"attempt": "2"', '"attempt": "\\ud800"'),
        GOOD.replace('"generation": 2', '"generation": 1' + "0" * 5000),
        GOOD.replace('"generation": 2', '"generation": NaN'),
        GOOD.replace('"paired"', '"alone"'),
        GOOD.replace('"paired"', '"dead"'),
        GOOD.replace('"beta"', '"alpha"'),
        GOOD.replace('"beta"', '"be ta"'),
        GOOD.replace('"beta"', '""'),
        GOOD.replace('"beta"', "7"),
        GOOD.replace(P, "short"),
        GOOD.replace('"activated": true', '"activated": false'),
        GOOD.replace('"activated": true', '"activated": 1'),
        GOOD.replace('"promotable_from": 2', '"promotable_from": 0'),
        GOOD.replace('"attempt": "2"', '"attempt": ""'),
        GOOD.replace('"forced": ""', '"forced": "why"'),
        GOOD.replace('"peer"', '"pear"'),
        GOOD.replace("{", '{"owner": "gamma", ', 1),
        "[" * 8000,
        "\x00" * 100,
        " " * (MAX_RECORD_BYTES + 1),
    ],
)
def test_what_is_not_exactly_a_record_is_an_error(raw: str) -> None:
    assert raw != GOOD
    with pytest.raises(WitnessError):
        decode(raw.encode())


def test_another_encoding_of_the_same_record_is_an_error() -> None:
    with pytest.raises(WitnessError):
        decode(GOOD.encode("utf-16"))


def test_only_a_gift_is_stored_as_one() -> None:
    assert b"given" not in encode(TAKEN)
    gift = hand_over(PAIRED, attempt="x")
    assert decode(encode(gift)) == gift
    assert gift.given
    assert not decode(encode(TAKEN)).given
    with pytest.raises(WitnessError):
        decode(encode(gift).replace(b'"given": true', b'"given": false'))
    with pytest.raises(WitnessError, match="gift"):
        decode(encode(replace(PAIRED, given=True)))


def test_a_peer_cannot_call_its_own_takeover_a_gift() -> None:
    """Nobody would be fenced then."""
    with pytest.raises(IllegalTransition):
        check_transition(PAIRED, hand_over(PAIRED, attempt="x"), by=B)
