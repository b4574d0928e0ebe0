"""The status page in a real browser: headless Chromium, at the width of a telephone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from colod.observe.app import Sources
from colod.observe.http import HttpServer
from colod.v1 import admin_pb2, types_pb2

CHROMIUM = shutil.which("chromium") or ""
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="needs Debian's chromium")
LIMIT_S = 120
HOSTILE = "<img src=x onerror=alert(1)><b>web</b>"


def status(*protections: admin_pb2.ProtectionStatus, paused: bool = False) -> Sources:
    """Return sources that always say the same."""
    reply = admin_pb2.StatusReply(host="host-a", simulated=True, protections=protections)
    if paused:
        reply.automation.paused = True
        reply.automation.operator, reply.automation.reason = "ann", HOSTILE
    change = admin_pb2.HistoryEntry(
        unix_s=1_790_000_000, host="host-a", guest="web", to_state="PROTECTED", cause=HOSTILE
    )
    drill = admin_pb2.DrillRecord(
        unix_s=1_790_000_000, host="host-b", guest="web", kind="isolated", verdict="passed"
    )
    return Sources(
        lambda: reply,
        lambda guest, limit: admin_pb2.HistoryReply(entries=[change]),
        lambda guest, limit: admin_pb2.DrillsReply(drills=[drill]),
    )


def protection(state: str, **fields: object) -> admin_pb2.ProtectionStatus:
    """Return a protection as its primary sees it."""
    found = admin_pb2.ProtectionStatus(
        guest="web", peer="host-b", role=types_pb2.ROLE_PRIMARY, state=state, decided_age_s=0.5
    )
    for name, value in fields.items():
        setattr(found, name, value)
    return found


@pytest.fixture
def serve() -> Iterator[Callable[[Sources], HttpServer]]:
    """Serve pages on loopback."""
    servers: list[HttpServer] = []

    def begin(sources: Sources) -> HttpServer:
        servers.append(HttpServer("127.0.0.1:0", sources, lambda: None))  # type: ignore[arg-type,return-value]
        return servers[-1]

    yield begin
    for each in servers:
        each.stop()


def browse(server: HttpServer, folder: Path, *options: str) -> str:
    """Open the page, let its scripts run for some seconds, and return what it has become."""
    argv = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",  # the tests run as root, and the page is ours
        "--disable-gpu",
        "--disable-dev-shm-usage",
        f"--user-data-dir={folder / 'profile'}",
        "--window-size=390,1400",
        "--virtual-time-budget=5000",
        "--enable-logging=stderr",
        *options,
        "http://{}:{}/".format(*server.address),
    ]
    environment = {**os.environ, "HOME": str(folder)}
    done = subprocess.run(
        argv, check=False, capture_output=True, text=True, timeout=LIMIT_S, env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:]
    complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert complaints == []
    return done.stdout


def text_of(page: str) -> str:
    """Return what is to be read on a page, without its script."""
    body = re.sub(r"<(script|style|noscript)\b.*?</\1>", "", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body))


def test_it_shows_what_the_daemon_says_and_runs_nothing_of_it(
    serve: Callable[[Sources], HttpServer], tmp_path: Path
) -> None:
    guest = protection("PROTECTED", cause=HOSTILE, output_held=True, witness="read")
    page = browse(serve(status(guest, paused=True)), tmp_path, "--dump-dom")
    text = text_of(page)
    for words in (
        *("colod on host-a", "simulated Xen", "web", "PROTECTED", "Automation is paused by ann"),
        *("to host-b", "lag unknown", "isolated", "passed"),
    ):
        assert words in text, words
    assert "&lt;img src=x" in page
    assert "<img" not in page
    assert 'class="state good"' in page
    assert "<svg" in page


@pytest.mark.parametrize(
    ("state", "rank"), [("MANUAL_HOLD", "bad"), ("ALONE", "warn"), ("SYNCING", "")]
)
def test_a_state_is_told_by_more_than_its_name(
    serve: Callable[[Sources], HttpServer], tmp_path: Path, state: str, rank: str
) -> None:
    guest = protection(state, advice="colodctl failover web")
    page = browse(serve(status(guest)), tmp_path, "--dump-dom")
    assert re.search(rf'class="state {rank}">{state}<', page)
    assert "→ colodctl failover web" in text_of(page)


def test_the_lag_is_drawn_where_it_is_known(
    serve: Callable[[Sources], HttpServer], tmp_path: Path
) -> None:
    guest = protection("PROTECTED")
    guest.progress.lag_s = 0.25
    page = browse(serve(status(guest)), tmp_path, "--dump-dom")
    assert "lag 250 ms" in text_of(page)
    assert re.search(r'<polyline points="0.00,4.00 [^"]+"', page)
    assert 'aria-label="lag, at most 250 ms' in page


def test_a_daemon_that_gives_no_answer_is_said_to_give_none(
    serve: Callable[[Sources], HttpServer], tmp_path: Path
) -> None:
    def stuck(*_: object) -> admin_pb2.StatusReply:
        raise TimeoutError

    server = serve(Sources(stuck, stuck, stuck))  # type: ignore[arg-type]
    text = text_of(browse(server, tmp_path, "--dump-dom"))
    assert "The daemon gives no answer" in text
    assert "no answer yet" in text


def test_it_can_be_read_on_a_telephone(
    serve: Callable[[Sources], HttpServer], tmp_path: Path
) -> None:
    """A picture that is not blank, for people to look at: it is kept where COLOD_PICTURES says."""
    guests = [
        protection("PROTECTED", output_held=True),
        protection("MANUAL_HOLD", cause="the witness gives no answer", advice="see to the witness"),
    ]
    guests[1].guest = "a-guest-with-quite-a-long-name-that-must-be-wrapped"
    folder = Path(os.environ.get("COLOD_PICTURES", tmp_path))
    picture = folder / "status-page.png"
    began = time.time()
    browse(serve(status(*guests)), tmp_path, f"--screenshot={picture}")
    assert picture.stat().st_mtime >= began - 1
    assert picture.stat().st_size > 10_000
