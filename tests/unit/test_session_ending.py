"""colod.session.ending."""

import pytest

from colod.session.ending import Ending, State, said, say
from colod.v1 import types_pb2


def test_the_states_have_the_numbers_of_the_protocol() -> None:
    theirs = {
        name.removeprefix("SESSION_STATE_"): number
        for name, number in types_pb2.SessionState.items()
    }
    assert {state.name: state.value for state in State} | {"UNSPECIFIED": 0} == theirs


def test_what_is_said_is_heard() -> None:
    assert said(say("toolstack_lost", "xl: has ended")) == ("toolstack_lost", "xl: has ended")


@pytest.mark.parametrize("payload", [b"", b"\xff\xfe", b"Not a code: x", b"../x: y", b"x" * 9999])
def test_a_hostile_goodbye_cannot_make_up_a_code(payload: bytes) -> None:
    assert said(payload)[0] == "unknown"


def test_a_hostile_reason_cannot_write_lines_into_the_log() -> None:
    assert said(b"digest: a\nb\x1b[0m") == ("digest", "a?b?[0m")


def test_a_long_reason_is_cut() -> None:
    assert len(say("digest", "x" * 100_000)) <= 500


@pytest.mark.parametrize(
    ("code", "abort"),
    [("session.digest", "digest"), ("stream.truncated", "stream"), ("defect.session", "defect")],
)
def test_the_peer_is_told_the_part_of_a_code_that_concerns_it(code: str, abort: str) -> None:
    assert Ending.failed(code, "").abort_code == abort
