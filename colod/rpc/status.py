"""Errors on the wire: one table between `ColodError` and gRPC's status codes, and the way back.

The status code is for tools that know only gRPC. colod's own clients read the error's stable code
from the trailing metadata `colod-code`, its advice from `colod-advice-bin` and what else it holds
from `colod-details-bin`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import grpc

from colod import errors
from colod.errors import ColodError

CODE_KEY: Final = "colod-code"
ADVICE_KEY: Final = "colod-advice-bin"
DETAILS_KEY: Final = "colod-details-bin"

_TEXT_MAX_CHARS = 4096
_DETAILS_MAX_BYTES = 8192

STATUS: Final[Mapping[type[ColodError], grpc.StatusCode]] = {
    errors.ColodError: grpc.StatusCode.INTERNAL,
    errors.ConfigError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.StreamError: grpc.StatusCode.DATA_LOSS,
    errors.PeerError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.PeerUnreachable: grpc.StatusCode.UNAVAILABLE,
    errors.PeerRefused: grpc.StatusCode.PERMISSION_DENIED,
    errors.VersionMismatch: grpc.StatusCode.UNIMPLEMENTED,
    errors.WitnessError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.WitnessUnreachable: grpc.StatusCode.UNAVAILABLE,
    errors.OwnershipLost: grpc.StatusCode.ABORTED,
    errors.FenceError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.FenceUnconfirmed: grpc.StatusCode.UNKNOWN,
    errors.DomainNotFound: grpc.StatusCode.NOT_FOUND,
    errors.PreflightRefused: grpc.StatusCode.FAILED_PRECONDITION,
    errors.NotAllowedNow: grpc.StatusCode.FAILED_PRECONDITION,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.NotPermitted: grpc.StatusCode.PERMISSION_DENIED,
    errors.OutcomeUnknown: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.DaemonUnreachable: grpc.StatusCode.UNAVAILABLE,
}
"""A class that is not here has the status of its closest base."""

DEFECTS: Final = (errors.IllegalTransition, errors.InvariantBroken)
"""Never sent and never taken from the wire: they end the process in which they happen."""

# What an error holds beside message and advice, with the value for a sender that left it out.
_DETAILS: Final[Mapping[type[ColodError], Mapping[str, object]]] = {
    errors.ConfigError: {"problems": ()},
    errors.StreamError: {"offset": 0},
    errors.ToolstackError: {"argv": (), "status": None, "stderr_tail": ""},
    errors.PreflightRefused: {"reasons": ()},
    errors.NotAllowedNow: {"state": "unknown"},
}

Trailers = Iterable[tuple[str, str | bytes]]


def status_of(error: ColodError) -> grpc.StatusCode:
    """Return the status code for `error`."""
    return next(STATUS[cls] for cls in type(error).__mro__ if cls in STATUS)


def trailers_of(error: ColodError) -> tuple[tuple[str, str | bytes], ...]:
    """Return the trailing metadata that carries `error`."""
    kept = {name: getattr(error, name) for name in _details_of(type(error))}
    details = json.dumps(kept).encode()
    trailers: list[tuple[str, str | bytes]] = [(CODE_KEY, error.code)]
    if error.advice:
        trailers.append((ADVICE_KEY, error.advice[:_TEXT_MAX_CHARS].encode()))
    if kept and len(details) <= _DETAILS_MAX_BYTES:
        trailers.append((DETAILS_KEY, details))
    return tuple(trailers)


def text_of(error: ColodError) -> str:
    """Return the error's message, cut to what metadata can carry."""
    text = str(error)
    return text if len(text) <= _TEXT_MAX_CHARS else f"{text[: _TEXT_MAX_CHARS - 1]}…"


def error_from(message: str, trailers: Trailers) -> ColodError | None:
    """Make the error that the other side sent, or None if it sent none that is known here."""
    fields = dict(trailers)
    code = fields.get(CODE_KEY)
    cls = _BY_CODE.get(code) if isinstance(code, str) else None
    if cls is None:
        return None
    error = cls.__new__(cls)
    ColodError.__init__(error, message, advice=_text(fields.get(ADVICE_KEY)))
    vars(error).update(_read_details(cls, fields.get(DETAILS_KEY)))
    return error


def _details_of(cls: type[ColodError]) -> Mapping[str, object]:
    return next((_DETAILS[base] for base in cls.__mro__ if base in _DETAILS), {})


def _read_details(cls: type[ColodError], raw: str | bytes | None) -> dict[str, object]:
    """Return the attributes that `cls` has, of their type, whatever the other side sent."""
    try:
        sent = json.loads(raw or b"{}")
    except (ValueError, RecursionError):  # the latter for thousands of open brackets
        sent = {}
    found: dict[str, object] = {}
    for name, default in _details_of(cls).items():
        value = sent.get(name, default) if isinstance(sent, dict) else default
        if isinstance(default, tuple):
            value = tuple(map(str, value)) if isinstance(value, list) else default
        elif isinstance(default, str):
            value = str(value)
        elif not isinstance(value, int):
            value = default
        found[name] = value
    return found


def _text(raw: str | bytes | None) -> str:
    return raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw or ""


def _with_subclasses(cls: type[ColodError]) -> Iterator[type[ColodError]]:
    yield cls
    for child in cls.__subclasses__():
        yield from _with_subclasses(child)


_BY_CODE: Final = {
    cls.code: cls for cls in _with_subclasses(ColodError) if not issubclass(cls, DEFECTS)
}
