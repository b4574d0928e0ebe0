"""Two sides agree on the highest version that both speak, or say clearly that there is none."""

import pytest

from colod.errors import VersionMismatch
from colod.rpc import versions
from colod.v1 import peer_pb2


@pytest.mark.parametrize(
    ("theirs", "ours", "agreed"),
    [((1, 1), (1, 1), 1), ((1, 3), (2, 5), 3), ((2, 9), (1, 4), 4), ((3, 3), (1, 5), 3)],
)
def test_the_highest_common_version_is_agreed_on(
    theirs: tuple[int, int], ours: tuple[int, int], agreed: int
) -> None:
    assert versions.agree(theirs, ours, who="b") == agreed


@pytest.mark.parametrize("theirs", [(3, 4), (0, 0), (9, 1)])
def test_no_common_version_is_an_error_that_names_both_ranges(theirs: tuple[int, int]) -> None:
    with pytest.raises(VersionMismatch, match=f"{theirs[0]} to {theirs[1]}, this host 1 to 2"):
        versions.agree(theirs, (1, 2), who="b")


def test_a_greeting_is_answered_with_the_agreed_version() -> None:
    reply = versions.answer_greet(versions.greet_request())
    assert reply.version == versions.PEER_VERSION_MAX
    assert reply.software == versions.SOFTWARE


def test_a_greeting_from_the_future_is_refused() -> None:
    with pytest.raises(VersionMismatch, match="colod 9"):
        versions.answer_greet(
            peer_pb2.GreetRequest(version_min=90, version_max=99, software="colod 9")
        )


@pytest.mark.parametrize("claim", ["2", "", "1x", "-1", "0000000012", "9" * 5000, b"\xff"])
def test_a_call_of_another_version_is_refused(claim: str | bytes) -> None:
    with pytest.raises(VersionMismatch):
        versions.check_version(((versions.METADATA_KEY, claim),), (1, 1), required=False)


def test_a_call_without_a_version_is_refused_where_one_must_be_agreed_first() -> None:
    versions.check_version((), (1, 1), required=False)
    with pytest.raises(VersionMismatch, match="greet first"):
        versions.check_version((), (1, 1), required=True)
