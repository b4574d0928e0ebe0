"""Errors survive the wire with their class, code, advice and details; hostile ones do no harm."""

import json

import grpc
import pytest

from colod import errors
from colod.errors import ColodError
from colod.rpc import status

EXAMPLES: list[ColodError] = [
    errors.ConfigError(["a: b", "c: d"]),
    errors.StreamTruncated("short", offset=7),
    errors.PeerUnreachable("no answer"),
    errors.PeerRefused("no"),
    errors.VersionMismatch("1 and 2", advice="upgrade"),
    errors.WitnessUnreachable("no answer"),
    errors.OwnershipLost("newer generation"),
    errors.FenceUnconfirmed("no proof"),
    errors.ToolstackError(["xl", "list"], 1, "boom"),
    errors.DomainNotFound(["xl", "list", "web"], 1),
    errors.PreflightRefused(["passthrough", "no bridge"]),
    errors.NotAllowedNow("SYNCING", "not promotable", advice="wait"),
    errors.NotFound("web"),
    errors.NotPermitted("ann is a viewer", advice="ask an admin"),
    errors.JournalError("disk full"),
    errors.OutcomeUnknown("?"),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_arrives_as_what_it_was(error: ColodError) -> None:
    arrived = status.error_from(status.text_of(error), status.trailers_of(error))
    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    assert vars(arrived) == vars(error)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.PeerRefused(""), grpc.StatusCode.PERMISSION_DENIED),
        (errors.DomainNotFound(["xl"], 1), grpc.StatusCode.NOT_FOUND),
        (errors.StreamTruncated("", offset=0), grpc.StatusCode.DATA_LOSS),
        (errors.ToolstackError(["xl"], 1), grpc.StatusCode.INTERNAL),
        (errors.NotAllowedNow("x", "y"), grpc.StatusCode.FAILED_PRECONDITION),
    ],
)
def test_a_class_without_a_status_of_its_own_has_its_bases(
    error: ColodError, code: grpc.StatusCode
) -> None:
    assert status.status_of(error) is code


@pytest.mark.parametrize("code", ["defect.invariant", "defect.illegal_transition"])
def test_no_peer_can_make_us_believe_in_a_defect_of_our_own(code: str) -> None:
    assert status.error_from("boo", ((status.CODE_KEY, code),)) is None


@pytest.mark.parametrize("trailers", [(), (("colod-code", "later.invention"),)])
def test_an_unknown_code_is_no_error_of_ours(trailers: status.Trailers) -> None:
    assert status.error_from("boo", trailers) is None


@pytest.mark.parametrize(
    "details",
    [
        b"\xff",
        b"[1]",
        json.dumps({"state": {"a": 1}, "args": ["x"], "code": "x", "__class__": "y"}).encode(),
        b"[" * 8000,
    ],
)
def test_details_of_another_form_leave_an_error_that_can_be_used(details: bytes) -> None:
    trailers = (
        (status.CODE_KEY, "state.not_allowed"),
        (status.DETAILS_KEY, details),
        (status.ADVICE_KEY, b"\xff"),
    )
    error = status.error_from("no", trailers)
    assert isinstance(error, errors.NotAllowedNow)
    assert isinstance(error.state, str)
    assert set(vars(error)) == {"state", "advice"}


def test_a_flood_of_reasons_fits_into_metadata() -> None:
    error = errors.PreflightRefused([f"reason {number}: {'x' * 100}" for number in range(1000)])
    size = sum(len(key) + len(value) for key, value in status.trailers_of(error))
    assert size + len(status.text_of(error).encode()) < 16384
    arrived = status.error_from(status.text_of(error), status.trailers_of(error))
    assert isinstance(arrived, errors.PreflightRefused)
    assert str(arrived).startswith("reason 0: ")


def test_every_error_of_the_tree_has_a_code_of_its_own() -> None:
    classes = [
        cls
        for cls in vars(errors).values()
        if isinstance(cls, type) and issubclass(cls, ColodError)
    ]
    assert len({cls.code for cls in classes}) == len(classes)
