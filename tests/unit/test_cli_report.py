"""What `colodctl` says of a protection."""

from __future__ import annotations

import pytest

from colod.cli.report import shown_state
from colod.v1 import admin_pb2


@pytest.mark.parametrize(
    ("age_s", "shown"),
    [
        (0.4, "PROTECTED"),
        (15.0, "PROTECTED"),
        (42.0, "PROTECTED, as of 42.0 s ago"),
    ],
)
def test_a_state_that_was_decided_too_long_ago_says_so(age_s: float, shown: str) -> None:
    status = admin_pb2.ProtectionStatus(guest="web", state="PROTECTED", decided_age_s=age_s)
    assert shown_state(status) == shown


def test_a_state_without_an_age_is_an_older_daemons() -> None:
    assert shown_state(admin_pb2.ProtectionStatus(guest="web", state="ALONE")) == "ALONE"
