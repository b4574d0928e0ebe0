"""Records of drills and marks of those under way, on disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from colod.daemon.drill_log import (
    ABORTED,
    FAILED,
    ISOLATED,
    LIVE,
    NOT_CHECKED,
    PASSED,
    SECONDARY,
    Drill,
    DrillLog,
    Mark,
)

DRILL = Drill(id="1", unix_s=100.0, host="beta", guest="web", verdict=PASSED, rto_s=7.0)
MARK = Mark(drill=DRILL, domain="web--drill", image="/images/.drill", files=("/images/c",))


def test_a_drill_is_read_back_by_the_next_daemon(tmp_path: Path) -> None:
    log = DrillLog(tmp_path)
    other = replace(DRILL, id="2", guest="db")
    log.add(DRILL)
    log.add(other)
    for each in (log, DrillLog(tmp_path)):
        assert list(each.of("", 0)) == [DRILL, other]
        assert list(each.of("web", 5)) == [DRILL]
        assert list(each.of("", 1)) == [other]


def test_a_line_that_cannot_be_read_costs_itself_only(tmp_path: Path) -> None:
    DrillLog(tmp_path).add(DRILL)
    with (tmp_path / "drills.jsonl").open("a") as file:
        file.write('{"id": 1, "unix_s": "x", "host": null, "guest": "web", "verdict": "passed"}\n')
        file.write('{"id": "half')
    assert list(DrillLog(tmp_path).of("", 0)) == [DRILL]
    assert DrillLog(tmp_path).last_success("web") == 107.0


@pytest.mark.parametrize("verdict", [FAILED, NOT_CHECKED, ABORTED])
def test_only_a_drill_that_passed_counts_as_one(tmp_path: Path, verdict: str) -> None:
    log = DrillLog(tmp_path)
    log.add(replace(DRILL, verdict=verdict))
    assert log.last_success("web") is None
    log.add(DRILL)
    log.add(replace(DRILL, unix_s=200.0, verdict=verdict))
    assert log.last_success("web") == 107.0
    assert log.last_success("db") is None


@pytest.mark.parametrize(
    ("kind", "has_run"), [(ISOLATED, True), (LIVE, True), (SECONDARY, False), ("newer", False)]
)
def test_only_a_drill_that_ran_a_copy_shows_that_one_runs(
    tmp_path: Path, kind: str, *, has_run: bool
) -> None:
    log = DrillLog(tmp_path)
    log.add(replace(DRILL, kind=kind))
    assert (log.last_success("web") is not None) == has_run


def test_a_guest_has_one_mark_of_whatever_kind(tmp_path: Path) -> None:
    log = DrillLog(tmp_path)
    assert log.marked("web") == ""
    log.begin(replace(MARK, drill=replace(DRILL, kind=LIVE)))
    assert (log.marked("web"), log.marked("db")) == (LIVE, "")
    assert (len(log.left(LIVE)), len(log.left())) == (1, 0)


def test_the_file_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "drills.jsonl"
    DrillLog(tmp_path).add(DRILL)
    path.write_text(path.read_text() * 3000)
    log = DrillLog(tmp_path)
    kept = len(log.of("", 0))
    for number in range(kept + 1):
        log.add(replace(DRILL, id=f"new-{number}"))
    assert len(path.read_text().splitlines()) <= 2 * kept
    found = DrillLog(tmp_path).of("", 0)
    assert len(found) == kept
    assert found[-1].id == f"new-{kept}"


def test_a_drill_that_was_not_cleared_away_is_found_again(tmp_path: Path) -> None:
    log = DrillLog(tmp_path)
    assert log.left() == []
    log.begin(MARK)
    (left,) = DrillLog(tmp_path).left()
    assert (left.drill, left.domain, left.image) == (DRILL, "web--drill", "/images/.drill")
    assert list(left.files) == ["/images/c"]
    log.cleared("web")
    assert DrillLog(tmp_path).left() == []


def test_a_full_disk_is_told_before_anything_is_made(tmp_path: Path) -> None:
    (tmp_path / "drills").write_text("not a directory")
    with pytest.raises(OSError, match="drills"):
        DrillLog(tmp_path).begin(MARK)
