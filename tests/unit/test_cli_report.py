"""What `colodctl` says of a protection."""

from __future__ import annotations

from typing import Any

import pytest

from colod.cli.report import link_text, shown_state
from colod.v1 import admin_pb2, types_pb2


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


@pytest.mark.parametrize(
    ("link", "shown"),
    [
        ({}, ""),
        ({"dscp": 0}, ""),
        (
            {"dscp": 18, "rate_bytes_per_s": 100_000_000, "rate_by": "kernel"},
            "dscp 18, at most 800 Mbit/s, by the kernel",
        ),
        ({"may_resume": True, "path": "primary"}, "over the primary path"),
        (
            {"may_resume": True, "path": "backup", "resumed": 1, "broken_by": "it was reset"},
            "over the backup path, mended once, last break: it was reset",
        ),
        (
            {"may_resume": True, "broken_s": 1.5, "resumed": 2, "broken_by": "cut"},
            "broken for 1.5 s, being mended, mended 2 times, last break: cut",
        ),
    ],
)
def test_a_link_says_what_holds_for_it_and_nothing_where_nothing_is_special(
    link: dict[str, Any], shown: str
) -> None:
    assert link_text(types_pb2.SessionLink(**link)) == shown
