"""`colodctl events` against a daemon's double over the real socket."""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from colod import errors
from colod.cli.eventlog import Event, EventLog
from colod.rpc.admin_client import AdminClient
from colod.v1 import admin_pb2
from tests.integration.admin_double import FakeDaemon, report, serving
from tests.integration.test_cli_daemon import Run, colodctl, daemon

__all__ = ["colodctl", "daemon"]

BEGAN = 1_700_000_000


def change(number: int, **fields: Any) -> admin_pb2.HistoryEntry:
    """Return a change of state, `number` seconds after all began."""
    terms: dict[str, Any] = {
        "unix_s": BEGAN + number,
        "host": "host-a",
        "guest": "web",
        "from_state": "PAIRING",
        "to_state": "SYNCING",
        "generation": number,
    }
    return admin_pb2.HistoryEntry(**terms | fields)


DRILL = admin_pb2.DrillRecord(
    id="d1",
    unix_s=BEGAN + 1.5,
    host="host-a",
    guest="web",
    kind="isolated",
    epoch=41,
    verdict="failed",
    detail="the check ended with 3",
    rpo_s=0.25,
    rto_s=-1,
    image_s=-1,
    restore_s=-1,
    start_s=-1,
    check_s=-1,
)


@pytest.fixture
def eventful(daemon: FakeDaemon) -> FakeDaemon:
    """A daemon with something of each kind."""
    daemon.entries = [
        change(1, from_state=""),
        change(2, guest="db", cause="xl said:\n  no\n", epoch=12),
    ]
    daemon.drills = [DRILL]
    daemon.reports[0].automation.CopyFrom(
        admin_pb2.Automation(
            paused=True, operator="ann", reason="new switch", since_unix_s=BEGAN + 1.75
        )
    )
    return daemon


def test_events_are_one_line_each_and_the_oldest_is_first(
    eventful: FakeDaemon, colodctl: Run
) -> None:
    ran = colodctl("events")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.splitlines() == [
        "2023-11-14T22:13:21Z  web on host-a: SYNCING (generation 1)",
        "2023-11-14T22:13:21Z  drill: web on host-a: isolated, epoch 41: FAILED: the check ended "
        "with 3",
        "2023-11-14T22:13:21Z  automation on host-a: paused by ann: new switch",
        "2023-11-14T22:13:22Z  db on host-a: PAIRING -> SYNCING (generation 2, epoch 12): xl said: "
        "no",
    ]


def test_events_of_one_guest_are_its_own_and_those_of_the_host(
    eventful: FakeDaemon, colodctl: Run
) -> None:
    assert [line.split()[1] for line in colodctl("events", "db").out.splitlines()] == [
        "automation",
        "db",
    ]


def test_the_json_of_events_is_the_documented_one(eventful: FakeDaemon, colodctl: Run) -> None:
    lines = [json.loads(line) for line in colodctl("events", "--json").out.splitlines()]
    nothing = dict.fromkeys(("change", "drill", "automation", "daemon_reachable"))
    head = {"schema_version": 1, "host": "host-a"}
    first, drill, automation, last = lines
    assert first == {
        **head,
        **nothing,
        "unix_s": BEGAN + 1,
        "guest": "web",
        "change": {
            "unix_s": BEGAN + 1,
            "host": "host-a",
            "guest": "web",
            "from_state": None,
            "to_state": "SYNCING",
            "cause": "",
            "generation": 1,
            "epoch": None,
        },
    }
    assert (drill["unix_s"], drill["drill"]["verdict"]) == (BEGAN + 1.5, "failed")
    assert drill["drill"]["rto_s"] is None
    assert (automation["guest"], automation["automation"]["operator"]) == (None, "ann")
    assert last["change"]["cause"] == "xl said:\n  no\n"


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ((), range(50, 150)),
        (("--limit", "3"), range(147, 150)),
        (("--limit", "0"), range(0)),
        (("--limit", "140"), range(10, 150)),
        (("--since", "2023-11-14T22:13:20Z"), range(150)),
        (("--since", "2023-11-14T22:15:47"), range(147, 150)),
        (("--since", "2023-11-14T23:15:47+01:00", "--limit", "2"), range(148, 150)),
        (("--since", "7d"), range(0)),
    ],
)
def test_how_much_of_the_past_is_shown(
    daemon: FakeDaemon, colodctl: Run, words: tuple[str, ...], shown: range
) -> None:
    daemon.entries = [change(number) for number in range(150)]
    lines = colodctl("events", "--json", *words).out.splitlines()
    assert [json.loads(line)["change"]["generation"] for line in lines] == [*shown]


def test_a_time_ago_is_counted_from_now(daemon: FakeDaemon, colodctl: Run) -> None:
    daemon.entries = [change(0, unix_s=time.time() - ago_s) for ago_s in (7300, 7000, 1)]
    assert len(colodctl("events", "--since", "2h").out.splitlines()) == 2
    assert len(colodctl("events", "--since", "1.5m").out.splitlines()) == 1


@pytest.mark.parametrize("when", ["yesterday", "2", "2 h", "-2h", "2023-13-01"])
def test_a_time_that_is_none_is_refused_before_anything_is_asked(
    daemon: FakeDaemon, colodctl: Run, when: str
) -> None:
    ran = colodctl("events", "--since", when)
    assert ran.status == 2
    assert "want 90s, 10m, 2h, 7d or " in ran.err
    assert daemon.requests == []


def test_nothing_recorded_is_said_and_is_no_line_of_json(daemon: FakeDaemon, colodctl: Run) -> None:
    assert colodctl("events").out == "no event is recorded\n"
    assert colodctl("events", "--json").out == ""


def test_following_begins_with_a_daemon_that_answers(colodctl: Run) -> None:
    ran = colodctl("events", "--follow")
    assert ran.status == 3
    assert "hint: is colod running?" in ran.err


def test_a_refusal_ends_the_following(daemon: FakeDaemon, colodctl: Run) -> None:
    daemon.error = errors.VersionMismatch("1 and 2")
    assert colodctl("events", "--follow").status == 8


class Followed:
    """A log that is followed through the deaths of its daemon."""

    def __init__(self, directory: Path) -> None:
        """Follow the daemon whose socket is in `directory`; it need not be there yet."""
        self.socket = directory / "admin.sock"
        self.log = EventLog()
        self._events = self.log.follow(partial(AdminClient, self.socket), retry_s=0.01)

    def begin(self) -> list[Event]:
        """Return the past."""
        with AdminClient(self.socket) as client:
            return list(self.log.past(client, since_unix_s=None, limit=None))

    def next(self, count: int = 1) -> list[object]:
        """Return what the next events tell: a generation, a verdict, or a word."""
        return [_told(next(self._events)) for _ in range(count)]


def _told(event: Event) -> object:
    if event.change:
        return event.change.generation
    if event.drill:
        return event.drill.id
    if event.automation:
        return "paused" if event.automation.paused else "goes on"
    return "back" if event.reachable else "lost"


@pytest.fixture
def followed(tmp_path: Path) -> Followed:
    return Followed(tmp_path)


def hanging(*entries: admin_pb2.HistoryEntry) -> FakeDaemon:
    """Return a daemon with a history, which reports once and then goes on living."""
    double = FakeDaemon()
    double.entries = [*entries]
    double.hang_after_reports = True
    return double


def test_following_loses_and_repeats_nothing_over_restarts_of_the_daemon(
    followed: Followed,
) -> None:
    with serving(hanging(change(1), change(2)), followed.socket):
        assert len(followed.begin()) == 2
    assert followed.next() == ["lost"]
    with serving(hanging(*map(change, range(1, 4))), followed.socket):
        assert followed.next(2) == ["back", 3]
    assert followed.next() == ["lost"]
    double = hanging(*map(change, range(1, 5)))
    double.drills = [DRILL]
    with serving(double, followed.socket):
        assert followed.next(3) == ["back", "d1", 4]


def test_what_comes_between_the_past_and_the_first_look_is_not_lost(followed: Followed) -> None:
    double = hanging(change(1))
    with serving(double, followed.socket):
        followed.begin()
        double.entries += [change(2)]
        assert followed.next() == [2]


def test_more_than_the_daemon_is_asked_for_at_first_is_not_lost(followed: Followed) -> None:
    double = hanging(change(0))
    with serving(double, followed.socket):
        followed.begin()
        double.entries += [change(number) for number in range(1, 1500)]
        assert followed.next(1499) == [*range(1, 1500)]


def test_a_history_that_lost_its_end_is_followed_from_there(followed: Followed) -> None:
    """Where the disk was full, a daemon that is restarted knows less than it had told."""
    with serving(hanging(change(1), change(2), change(3)), followed.socket):
        followed.begin()
    assert followed.next() == ["lost"]
    with serving(hanging(change(1), change(4)), followed.socket):
        assert followed.next(2) == ["back", 4]


def test_a_clock_that_is_set_back_hides_nothing(followed: Followed) -> None:
    double = hanging(change(9))
    with serving(double, followed.socket):
        followed.begin()
        double.entries += [change(2), change(1)]
        assert followed.next(2) == [2, 1]


class _Failing(FakeDaemon):
    """Goes away between two answers, once."""

    has_failed = False

    async def Drills(self, request: Any, context: Any) -> admin_pb2.DrillsReply:  # noqa: N802
        if self.drills and not self.has_failed:
            self.has_failed = True
            raise errors.OutcomeUnknown("gone")
        return await super().Drills(request, context)


def test_a_daemon_that_goes_away_between_two_answers_loses_nothing(followed: Followed) -> None:
    double = _Failing()
    double.hang_after_reports = True
    with serving(double, followed.socket):
        followed.begin()
        double.entries = [change(7)]
        double.drills = [DRILL]
        assert followed.next(2) == ["lost", "back"]
        assert sorted(map(str, followed.next(2))) == ["7", "d1"]


def test_the_begin_and_the_end_of_a_pause_are_told_once(followed: Followed) -> None:
    calm, paused = report(), report()
    paused.automation.CopyFrom(admin_pb2.Automation(paused=True, since_unix_s=BEGAN))
    double = FakeDaemon()
    double.reports = [calm, paused, paused, calm, calm]
    with serving(double, followed.socket):
        assert followed.begin() == []
        assert followed.next(3) == ["paused", "goes on", "lost"]
