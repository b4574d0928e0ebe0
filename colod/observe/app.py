"""The paths that the daemon answers over HTTP (docs/http.md): read-only, and nothing waits long.

200 says that what the path asks for is so, 503 that it is not, or that nobody can tell.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import CollectorRegistry, make_wsgi_app

from colod.errors import ColodError, NotFound
from colod.model import parse_guest_name
from colod.observe import page
from colod.observe.checks import CHECKS, Asked, judge, verdict_json
from colod.observe.documents import drills_json, history_json, status_json
from colod.observe.metrics import StatusCollector
from colod.observe.schema import versioned
from colod.v1 import admin_pb2

METHODS: Final = ("GET", "HEAD", "OPTIONS")
SHARED_S: Final = 0.25
"""For how long a status is given to whoever asks; so no crowd of clients keeps the loop busy."""

WAIT_S: Final = 5.0
HISTORY_LIMIT: Final = 100
HISTORY_LIMIT_MAX: Final = 1000
_MAX_PARAMETERS: Final = 8
_LAG: Final = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6})?")
_NUMBER: Final = re.compile(r"[0-9]{1,4}")

StatusSource = Callable[[], admin_pb2.StatusReply]
"""Gives the status; called in the server's threads. Raises TimeoutError if the loop is stuck."""

HistorySource = Callable[[str, int], admin_pb2.HistoryReply]
"""Gives the newest changes of state, at most so many, of a guest (of all when ""); as above, but
never late."""

DrillSource = Callable[[str, int], admin_pb2.DrillsReply]
"""Gives the newest drills of this host, as above. Raises TimeoutError if the loop is stuck."""


class Sources(NamedTuple):
    """Where everything that is answered comes from."""

    status: StatusSource
    history: HistorySource
    drills: DrillSource


_Query = Mapping[str, str]


class BadParameter(ColodError):
    """What a client asked for cannot be understood."""

    code = "http.bad_parameter"


class DaemonStuck(ColodError):
    """The daemon's loop gave no answer in time."""

    code = "daemon.stuck"


class Answer(NamedTuple):
    """One response."""

    status: HTTPStatus
    headers: tuple[tuple[str, str], ...]
    body: bytes


class App:
    """The WSGI application."""

    def __init__(self, sources: Sources) -> None:
        """Answer from `sources`."""
        self._status = Shared(sources.status)
        self._history = sources.history
        self._drills = sources.drills
        self._looking = threading.Lock()
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Undescribed(self._status))
        self._metrics: Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]] = make_wsgi_app(
            registry
        )

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        """Answer one request; HEAD and OPTIONS get the status and no body."""
        method = environ["REQUEST_METHOD"]
        answer = (
            self._answer(environ) if method in METHODS else _text(HTTPStatus.METHOD_NOT_ALLOWED)
        )
        body = b"" if method == "OPTIONS" else answer.body
        headers = [*answer.headers, ("Content-Length", str(len(body)))]
        if method == "OPTIONS" or answer.status is HTTPStatus.METHOD_NOT_ALLOWED:
            headers.append(("Allow", ", ".join(METHODS)))
        start(f"{answer.status.value} {answer.status.phrase}", headers)
        return [] if method == "HEAD" else [body]

    def _answer(self, environ: WSGIEnvironment) -> Answer:
        path = str(environ.get("PATH_INFO", ""))
        if path == "/":
            return Answer(HTTPStatus.OK, page.headers(), page.page())
        if path == "/livez":
            return self._livez()
        if path == "/metrics":
            return self._scrape(environ)
        name, query = path.removeprefix("/"), str(environ.get("QUERY_STRING", ""))
        try:
            return self._document(name, query)
        except BadParameter as error:
            return _error(HTTPStatus.BAD_REQUEST, error)
        except NotFound as error:
            return _error(HTTPStatus.NOT_FOUND, error)
        except TimeoutError:
            stuck = DaemonStuck("the daemon gives no answer; replication goes on by itself")
            return _error(HTTPStatus.SERVICE_UNAVAILABLE, stuck)

    def _document(self, name: str, query: str) -> Answer:
        if name in CHECKS:
            return self._check(name, query)
        if name == "status":
            return self._whole_status(_parameters(query, {"guest"}))
        if name == "history":
            return self._changes(_parameters(query, {"guest", "limit"}))
        if name == "drills":
            return self._past_drills(_parameters(query, {"guest", "limit"}))
        return _text(HTTPStatus.NOT_FOUND)

    def _livez(self) -> Answer:
        try:
            self._status()  # the loop must answer
        except TimeoutError:
            return _text(HTTPStatus.SERVICE_UNAVAILABLE)
        return _text(HTTPStatus.OK)

    def _scrape(self, environ: WSGIEnvironment) -> Answer:
        headers: list[tuple[str, str]] = []

        def start(status: str, fields: list[tuple[str, str]], *_: Any) -> Callable[[bytes], object]:
            headers.extend(fields)
            return len  # nobody writes by the way that WSGI had before bodies were returned

        try:
            body = b"".join(self._metrics({**environ, "REQUEST_METHOD": "GET"}, start))
        except TimeoutError:
            return _text(HTTPStatus.SERVICE_UNAVAILABLE)
        return Answer(HTTPStatus.OK, tuple(headers), body)

    def _check(self, name: str, query: str) -> Answer:
        check = CHECKS[name]
        given = _parameters(query, check.parameters)
        if check.needs_guest and "guest" not in given:
            raise BadParameter(f"want /{name}?guest=GUEST")
        lag_s = _lag(given["lag"]) if "lag" in given else None
        reply = self._status()
        asked = Asked(reply.host, _known_guest(given, reply), lag_s)
        verdict = judge(name, reply, asked)
        status = HTTPStatus.OK if verdict.holds else HTTPStatus.SERVICE_UNAVAILABLE
        return _json(status, verdict_json(verdict, reply))

    def _whole_status(self, given: _Query) -> Answer:
        reply = self._status()
        guest = _known_guest(given, reply)
        chosen = [each for each in reply.protections if guest in ("", each.guest)]
        of_guest = admin_pb2.StatusReply()
        of_guest.CopyFrom(reply)
        del of_guest.protections[:]
        of_guest.protections.extend(chosen)
        return _json(HTTPStatus.OK, status_json(of_guest))

    def _changes(self, given: _Query) -> Answer:
        limit = _limit(given.get("limit", str(HISTORY_LIMIT)))
        guest = _guest(given)
        with self._looking:  # it takes the processor for a while: one at a time
            reply = self._history(guest, limit)
        if guest and not reply.entries:  # the protection may have ended: its history stays
            _known_guest(given, self._status())
        return _json(HTTPStatus.OK, history_json(reply))

    def _past_drills(self, given: _Query) -> Answer:
        limit, guest = _limit(given.get("limit", str(HISTORY_LIMIT))), _guest(given)
        with self._looking:
            reply = self._drills(guest, limit)
        if guest and not reply.drills:
            _known_guest(given, self._status())
        return _json(HTTPStatus.OK, drills_json(reply))


class Shared:
    """A status that all threads share; while one of them asks for it, the others wait."""

    def __init__(self, take: StatusSource, now: Callable[[], float] = time.monotonic) -> None:
        """Take the status from `take`, at most every `SHARED_S` seconds of `now`."""
        self._take = take
        self._now = now
        self._lock = threading.Lock()
        self._reply: admin_pb2.StatusReply | None = None
        self._taken_at = 0.0

    def __call__(self) -> admin_pb2.StatusReply:
        """Return the status; nobody may change it.

        Raises:
            TimeoutError: If the loop is stuck.
        """
        if not self._lock.acquire(timeout=WAIT_S):
            raise TimeoutError
        try:
            now = self._now()
            if self._reply is None or now - self._taken_at > SHARED_S:
                self._reply, self._taken_at = self._take(), now
            return self._reply
        finally:
            self._lock.release()


class _Undescribed(StatusCollector):
    """Is not asked for a status before the first scrape."""

    def describe(self) -> Iterable[Any]:
        return []


def _parameters(query: str, known: Iterable[str]) -> _Query:
    """Return the parameters of a request.

    Raises:
        BadParameter: If they cannot be read, or one is not known: passed over, a slip of the pen
            would have another question answered than was asked.
    """
    if not query:
        return {}
    try:
        pairs = parse_qsl(
            query,
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=_MAX_PARAMETERS,
        )
    except ValueError as error:
        raise BadParameter(f"the parameters cannot be read: {error}") from error
    given = dict(pairs)
    if len(given) < len(pairs):
        raise BadParameter("a parameter is given twice")
    if unknown := sorted(given.keys() - set(known)):
        allowed = ", ".join(sorted(known)) or "none"
        raise BadParameter(f"no such parameter: {', '.join(unknown)} (there: {allowed})")
    return given


def _guest(given: _Query) -> str:
    if "guest" not in given:
        return ""
    try:
        return parse_guest_name(given["guest"])
    except ValueError as error:
        raise BadParameter(str(error)) from error


def _known_guest(given: _Query, reply: admin_pb2.StatusReply) -> str:
    """Return the guest that was asked for, "" for all.

    Raises:
        BadParameter: If that is no guest's name.
        NotFound: If it is not protected here.
    """
    guest = _guest(given)
    if guest and all(each.guest != guest for each in reply.protections):
        raise NotFound(f"{guest} is not protected on {reply.host}")
    return guest


def _lag(text: str) -> float:
    if not _LAG.fullmatch(text):
        raise BadParameter(f"lag {text!r}: want seconds, from 0 to 999999, as 2.5")
    return float(text)


def _limit(text: str) -> int:
    if not _NUMBER.fullmatch(text) or not 0 < int(text) <= HISTORY_LIMIT_MAX:
        raise BadParameter(f"limit {text!r}: want 1 to {HISTORY_LIMIT_MAX}")
    return int(text)


def _text(status: HTTPStatus) -> Answer:
    headers = (("Content-Type", "text/plain; charset=utf-8"),)
    return Answer(status, headers, f"{status.phrase}\n".encode())


def _json(status: HTTPStatus, content: Mapping[str, Any]) -> Answer:
    headers = (("Content-Type", "application/json"), ("Cache-Control", "no-store"))
    return Answer(status, headers, f"{json.dumps(versioned(content))}\n".encode())


def _error(status: HTTPStatus, error: ColodError) -> Answer:
    return _json(status, {"error": {"code": error.code, "message": str(error)}})
