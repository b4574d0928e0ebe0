"""The history is bounded, whatever is in its file, and losing it stops nothing."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from colod.daemon import history as module
from colod.daemon.history import Change, History

WRONG = (
    b'{"unix_s": "x", "host": "a", "guest": "web", "from_state": "", "to_state": "", '
    b'"cause": "", "generation": 1, "epoch": 1}\n'
)
CHANGE = Change(
    unix_s=1.0,
    host="alpha",
    guest="web",
    from_state="ALONE",
    to_state="PAIRING",
    cause="",
    generation=1,
    epoch=0,
)


def test_a_file_that_has_grown_is_cut_at_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    first = History(path)
    for number in range(3):
        assert first.add(replace(CHANGE, epoch=number))
    line = path.read_text().splitlines()[-1] + "\n"
    path.write_text(line * (module._MOST + 1))
    History(path)
    assert len(path.read_text().splitlines()) == module._KEPT
    again = History(path)
    assert len(again.of("web", 0)) == module._KEPT
    assert again.last_state("web") == "PAIRING"


def test_a_file_that_grows_is_bounded_while_the_daemon_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_KEPT", 10)
    path = tmp_path / "history.jsonl"
    history = History(path)
    for number in range(95):
        assert history.add(replace(CHANGE, epoch=number))
        written = [line for each in tmp_path.iterdir() for line in each.read_text().splitlines()]
        assert min(10, number + 1) <= len(written) <= 20
    assert [each.epoch for each in History(path).of("web", 0)] == list(range(85, 95))


def test_lines_that_cannot_be_read_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    History(path).add(CHANGE)
    with path.open("ab") as file:
        file.write(b"{\n\xff\n[]\n" + b"[" * 100_000 + b'\n{"guest": 1}\n' + WRONG)
    assert list(History(path).of("", 0)) == [CHANGE]


def test_it_may_be_read_while_it_grows(tmp_path: Path) -> None:
    history = History(tmp_path / "history.jsonl")
    writer = threading.Thread(target=lambda: [history.add(CHANGE) for _ in range(500)])
    writer.start()
    while writer.is_alive():
        history.of("web", 10)
    writer.join()
    assert len(history.of("web", 0)) == 500
