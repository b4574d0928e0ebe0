"""A probe measures from its last answer before to the first one after, and never too short."""

from __future__ import annotations

import queue
import subprocess
import time
from pathlib import Path

import pytest

from colod.cli.probe import Probe, Probed

WAIT_S = 30.0


def asked(probe: Probe) -> Probed:
    """Ask once, and return what was told."""
    told: queue.Queue[Probed] = queue.Queue()
    probe.ask(told.put)
    return told.get(timeout=WAIT_S)


def test_it_tells_the_longest_time_without_an_answer(tmp_path: Path) -> None:
    answers = tmp_path / "answers"
    answers.touch()
    with Probe(f'test -e {answers} -a "$COLOD_GUEST" = web', "web", silence_s=WAIT_S) as probe:
        assert asked(probe).status == 0
        began = time.monotonic()
        answers.unlink()
        time.sleep(0.5)
        answers.touch()
        first = asked(probe)
        took_s = time.monotonic() - began
        again = asked(probe)
    assert (first.status, first.said) == (0, "")
    assert 0.5 <= first.outage_s <= took_s + WAIT_S
    assert again.outage_s < first.outage_s  # of what came after the last question only


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        ("exit 7", 7, "ended with 7"),
        ("sleep 99", 1, "took more than 0.3 s"),
        ("kill -9 $$", -9, "-9"),
    ],
)
def test_a_guest_that_does_not_answer_is_told_of_in_time(
    command: str, status: int, said: str
) -> None:
    with Probe(command, "web", silence_s=0.2, limit_s=0.3) as probe:
        told = asked(probe)
    assert told.status == status
    assert said in told.said


def test_a_run_that_had_begun_before_the_question_is_no_answer(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    with Probe(f"test -e {begun} && exit 3; touch {begun}; sleep 0.5", "web", silence_s=1) as probe:
        while not begun.exists():
            time.sleep(0.01)
        assert asked(probe).status == 3


def test_it_ends_with_the_block_and_leaves_nothing_running(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    with Probe(f"echo $$ >{pid}.new; mv {pid}.new {pid}; sleep 99", "web"):
        while not pid.exists():
            time.sleep(0.01)
        number = pid.read_text().strip()
    deadline = time.monotonic() + WAIT_S
    while Path(f"/proc/{number}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not Path(f"/proc/{number}").exists()


def test_one_that_cannot_be_run_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with Probe("true", "web", silence_s=0.1) as probe:
        assert asked(probe).status == 126
