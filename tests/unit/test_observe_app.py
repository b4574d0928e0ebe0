"""What is answered over HTTP, without a socket: statuses, bodies, parameters, methods."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colod.observe.app import METHODS, SHARED_S, App, Shared, Sources
from colod.observe.checks import CHECKS
from colod.observe.documents import status_json
from colod.observe.schema import versioned
from colod.v1 import admin_pb2, types_pb2

DOCUMENT = Path(__file__).parents[2] / "docs" / "http.md"

STATUS = admin_pb2.StatusReply(
    automation=admin_pb2.Automation(paused=True, operator="ann", peer_paused=True),
    self_fence=admin_pb2.SelfFence(kind="watchdog", device="/dev/watchdog"),
    host="alpha",
    protections=[
        admin_pb2.ProtectionStatus(
            guest="web",
            role=types_pb2.ROLE_PRIMARY,
            peer="beta",
            owner="alpha",
            state="PROTECTED",
            guest_domain="running",
            decided_age_s=0.1,
        ),
        admin_pb2.ProtectionStatus(
            guest="db",
            role=types_pb2.ROLE_SECONDARY,
            peer="beta",
            owner="beta",
            state="REPLICATING",
            replica=types_pb2.REPLICA_STATE_FOLLOWING,
            promotable=True,
            decided_age_s=0.1,
            progress=types_pb2.Progress(lag_s=1.5),
        ),
    ],
)
ENTRIES = [
    admin_pb2.HistoryEntry(unix_s=1.5, host="alpha", guest="web", to_state="ALONE", generation=4),
    admin_pb2.HistoryEntry(unix_s=2.5, host="alpha", guest="old", to_state="STOPPED"),
]


def history(guest: str, limit: int) -> admin_pb2.HistoryReply:
    found = [each for each in ENTRIES if guest in ("", each.guest)]
    return admin_pb2.HistoryReply(entries=found[-limit:])


def drills(guest: str, limit: int) -> admin_pb2.DrillsReply:
    found = [admin_pb2.DrillRecord(guest=each, kind="isolated", verdict="passed") for each in "ab"]
    chosen = [each for each in found if guest in ("", each.guest)]
    return admin_pb2.DrillsReply(drills=chosen[-limit:])


SOURCES = Sources(lambda: STATUS, history, drills)


class Said(NamedTuple):
    """One answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(target: str, method: str = "GET", app: App | None = None) -> Said:
    """Ask as a WSGI server would; both sides are checked against the standard (PEP 3333)."""
    path, _, query = target.partition("?")
    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    environ |= {"REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": query}
    started: list[tuple[int, dict[str, str]]] = []

    def start(status: str, headers: list[tuple[str, str]], _: Any = None) -> Callable[..., Any]:
        started.append((int(status[:3]), dict(headers)))
        return lambda data: None

    answer = validator(app or App(SOURCES))(environ, start)
    try:
        body = b"".join(answer)
    finally:
        answer.close()  # type: ignore[attr-defined]
    return Said(*started[0], body)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/livez", 200),
        ("/readyz", 200),
        ("/health", 200),
        ("/health?guest=web", 200),
        ("/protected", 503),
        ("/protected?guest=web", 200),
        ("/protected?guest=db", 503),
        ("/primary?guest=web", 200),
        ("/primary?guest=db", 503),
        ("/secondary?guest=db", 200),
        ("/secondary?guest=db&lag=1.5", 200),
        ("/secondary?lag=1.4&guest=db", 503),
        ("/secondary?guest=web", 503),
        ("/status", 200),
        ("/history", 200),
        ("/drills", 200),
        ("/drills?guest=a&limit=1", 200),
        ("/", 200),
        ("/metrics", 200),
    ],
)
@pytest.mark.parametrize("method", METHODS)
def test_a_status_says_whether_it_holds_whatever_the_method(
    target: str, expected: int, method: str
) -> None:
    said = ask(target, method)
    assert said.status == expected
    assert (said.body == b"") == (method != "GET")
    assert ("Allow" in said.headers) == (method == "OPTIONS")


def test_head_has_the_length_that_get_would_have() -> None:
    assert int(ask("/status", "HEAD").headers["Content-Length"]) == len(ask("/status").body)


def test_an_answer_names_what_does_not_hold() -> None:
    said = ask("/secondary?guest=db&lag=1")
    assert said.headers["Content-Type"] == "application/json"
    assert said.json["why"] == "db: the replica here is 1.50 s old, want at most 1 s"
    assert [each["guest"] for each in said.json["guests"]] == ["db"]
    assert next(iter(said.json)) == "schema_version"


def test_status_is_the_document_of_colodctl() -> None:
    assert ask("/status").json == versioned(status_json(STATUS))
    (only,) = ask("/status?guest=db").json["protections"]
    assert only["guest"] == "db"


def test_history_outlives_a_protection() -> None:
    assert [each["guest"] for each in ask("/history").json["entries"]] == ["web", "old"]
    assert [each["to_state"] for each in ask("/history?guest=old").json["entries"]] == ["STOPPED"]
    assert ask("/history?limit=1").json["entries"][0]["guest"] == "old"
    assert ask("/history?guest=db").json["entries"] == []
    assert ask("/history?guest=never").status == 404


@pytest.mark.parametrize("path", ["/health", "/protected", "/primary", "/secondary", "/status"])
def test_a_guest_that_is_not_protected_here_is_not_found(path: str) -> None:
    said = ask(f"{path}?guest=mail")
    assert said.status == 404
    error = {"code": "not_found", "message": "mail is not protected on alpha"}
    assert said.json == {"schema_version": 1, "error": error}


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("/primary", "want /primary?guest=GUEST"),
        ("/secondary?lag=1", "want /secondary?guest=GUEST"),
        ("/primary?guest=", "guest name ''"),
        ("/primary?guest=../../etc/passwd", "guest name"),
        ("/primary?guest=web%00", "guest name"),
        ("/primary?guest=%ff", "cannot be read"),
        ("/primary?guest=web&guest=db", "given twice"),
        ("/primary?gest=web", "no such parameter: gest (there: guest)"),
        ("/protected?lag=1", "no such parameter: lag (there: guest)"),
        ("/readyz?guest=web", "no such parameter: guest (there: none)"),
        ("/status?&", "cannot be read"),
        ("/status?" + "&".join(f"a{n}=1" for n in range(9)), "cannot be read"),
        *(
            (f"/secondary?guest=db&lag={lag}", "want seconds")
            for lag in ("", "-1", "nan", "inf", "1e3", "1_0", "%2B1", "1.", "٣", "9" * 7)
        ),
        *((f"/history?limit={limit}", "want 1 to 1000") for limit in ("0", "-1", "1001", "x")),
    ],
)
def test_what_cannot_be_understood_is_refused_in_words(target: str, words: str) -> None:
    said = ask(target)
    assert said.status == 400
    assert said.json["error"]["code"] == "http.bad_parameter"
    assert words in said.json["error"]["message"]


@pytest.mark.parametrize(
    "target", ["/nowhere", "/status/", "/page.html", "//status", "/PRIMARY", "status"]
)
def test_other_paths_are_not_found(target: str) -> None:
    assert ask(target if target.startswith("/") else f"/x{target}").status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("path", ["/status", "/metrics", "/livez", "/nowhere"])
def test_nothing_can_be_changed(method: str, path: str) -> None:
    said = ask(path, method)
    assert said.status == 405
    assert said.headers["Allow"] == "GET, HEAD, OPTIONS"


def test_the_document_names_every_path_with_its_parameters() -> None:
    rows = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("| `/")]
    named = {row.split("`")[1] for row in rows}
    assert named == {
        *("/livez", "/readyz", "/metrics", "/status[?guest=G]", "/history[?guest=G][&limit=N]"),
        *("/health[?guest=G]", "/protected[?guest=G]", "/primary?guest=G"),
        *("/secondary?guest=G[&lag=S]", "/", "/drills[?guest=G][&limit=N]"),
    }
    assert {each.strip("/[").split("?")[0].rstrip("[") for each in named} >= CHECKS.keys()


PATHS = st.one_of(st.sampled_from(["/", *(f"/{each}" for each in CHECKS)]), st.text())


@settings(max_examples=60)
@given(PATHS, st.text(alphabet=st.characters(max_codepoint=255)))
def test_no_request_makes_it_fail(path: str, query: str) -> None:
    path = "/" + path.encode().decode("latin-1").removeprefix("/")
    assert ask(path + "?" + query).status in (200, 400, 404, 503)


@pytest.mark.parametrize(
    "target",
    ["/livez", "/metrics", "/readyz", "/status", "/history", "/drills", "/primary?guest=web"],
)
def test_a_loop_that_is_stuck_answers_nothing_as_if_it_were_so(target: str) -> None:
    def stuck(*_: Any) -> Any:
        raise TimeoutError

    assert ask(target, app=App(Sources(stuck, stuck, stuck))).status == 503


def test_a_crowd_costs_the_loop_one_answer() -> None:
    now, taken = [100.0], []

    def take() -> admin_pb2.StatusReply:
        taken.append(now[0])
        return STATUS

    shared = Shared(take, lambda: now[0])
    for _ in range(100):
        shared()
    now[0] += SHARED_S / 2
    shared()
    assert taken == [100.0]
    now[0] += SHARED_S
    shared()
    assert len(taken) == 2


def test_a_status_is_not_kept_for_a_loop_that_has_got_stuck() -> None:
    now, answers = [100.0], [STATUS]

    def take() -> admin_pb2.StatusReply:
        if not answers:
            raise TimeoutError
        return answers.pop()

    shared = Shared(take, lambda: now[0])
    shared()
    now[0] += 2 * SHARED_S
    for _ in range(2):
        with pytest.raises(TimeoutError):
            shared()


def test_drills_are_those_that_the_command_shows() -> None:
    shown = ask("/drills?guest=b").json
    assert [(each["guest"], each["verdict"]) for each in shown["drills"]] == [("b", "passed")]
    assert shown["schema_version"] == 1


@pytest.mark.parametrize(("query", "status"), [("guest=none", 404), ("limit=0", 400), ("x=1", 400)])
def test_drills_that_cannot_be_asked_for(query: str, status: int) -> None:
    assert ask(f"/drills?{query}").status == status


def test_the_page_runs_and_loads_nothing_but_what_is_in_it() -> None:
    said = ask("/")
    policy = said.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    for tag in ("script", "style"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", said.body.decode(), re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert not re.search(rb"""(src|href)=["']?(https?:)?//""", said.body)
    # What a browser would run beside the one script, or what would make markup of a text.
    assert not re.search(
        rb"\son[a-z]+=|innerHTML|outerHTML|insertAdjacent|document\.write", said.body
    )
