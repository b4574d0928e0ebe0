"""What either side's gRPC brings beside a message: versions, and errors in trailing metadata."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

import grpc

from colod.errors import (
    ColodError,
    NotAllowedNow,
    PreflightRefused,
    ToolstackError,
    VersionMismatch,
)
from colod.rpc import status, versions
from colod.v1 import peer_pb2
from tests.fuzz.target import MIB, Reader, Target, demand, gist, same

_CODES = sorted({cls.code for cls in status._BY_CODE.values()} | {"", "internal", "no.such"})


def _run_error(reader: Reader) -> Hashable:
    """Whatever the other side sent becomes an error that can be shown, and sent on."""
    code = _CODES[reader.byte() % len(_CODES)]
    advice, details = reader.take(reader.byte()), reader.rest()
    trailers = ((status.CODE_KEY, code), (status.ADVICE_KEY, advice), (status.DETAILS_KEY, details))
    error = status.error_from("message", trailers)
    if error is None:
        return code, None
    demand(isinstance(status.status_of(error), grpc.StatusCode), f"no status of {error!r}")
    demand(not isinstance(error, status.DEFECTS), f"a defect came over the wire: {error!r}")
    again = status.error_from(status.text_of(error), status.trailers_of(error))
    same("an error sent on", type(again), type(error))
    return code, bool(error.advice)


def _run_version(reader: Reader) -> Hashable:
    name = versions.METADATA_KEY if reader.flag() else "other"
    raw = reader.rest()
    value: str | bytes = raw if len(raw) & 1 else raw.decode("latin-1")
    try:
        versions.check_version([(name, value)], (1, 1), required=True)
    except VersionMismatch as error:
        return gist(error)
    text = value if isinstance(value, str) else value.decode()
    same("a version that was let in", int(text), 1)
    return "let in"


def _run_greeting(reader: Reader) -> Hashable:
    request = peer_pb2.GreetRequest(
        version_min=reader.number(4), version_max=reader.number(4), software=str(reader.rest())
    )
    try:
        reply = versions.answer_greet(request)
    except VersionMismatch as error:
        return gist(error)
    demand(request.version_min <= reply.version <= request.version_max, "a version not offered")
    return "greeted"


_RUNS = (_run_error, _run_version, _run_greeting)


def _run(octets: bytes) -> Hashable:
    reader = Reader(octets)
    which = reader.byte() % len(_RUNS)
    return which, _RUNS[which](reader)


def _seeds() -> Iterable[bytes]:
    errors: list[ColodError] = [
        ToolstackError(("xl", "pause", "g1"), 1, "no such domain"),
        PreflightRefused(["no room"]),
        NotAllowedNow("ALONE", "not now", advice="wait"),
    ]
    for error in errors:
        details = dict(status.trailers_of(error)).get(status.DETAILS_KEY, b"{}")
        assert isinstance(details, bytes)
        yield bytes((0, _CODES.index(error.code), 2)) + b"ok" + details
    yield b"\x01\x011"
    yield b"\x01\x0101"
    yield b"\x02" + b"\1\0\0\0\1\0\0\0" + b"colod"


TRAILERS = Target(run=_run, seeds=_seeds, held_bytes=lambda size: MIB + 256 * size)
