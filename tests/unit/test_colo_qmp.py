"""The QMP client against a device model that says what it should not."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from colod.output.colo.qmp import (
    MAX_LINE_BYTES,
    QmpError,
    QmpRefused,
    connected,
    remove_filters,
)

GREETING = b'{"QMP": {"version": {}, "capabilities": []}}\r\n'
Answer = Callable[[dict[str, object]], bytes]


@contextlib.asynccontextmanager
async def device_model(greeting: bytes, answer: Answer) -> AsyncIterator[Path]:
    """Serve a socket that greets and answers each request by `answer`; nothing ends it."""

    served: list[asyncio.Event] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(done := asyncio.Event())
        try:
            writer.write(greeting)
            while line := await reader.readline():
                octets = answer(json.loads(line))
                if not octets:
                    break
                writer.write(octets)
        except OSError:
            pass
        finally:
            writer.transport.abort()
            done.set()

    with tempfile.TemporaryDirectory(prefix="colod-") as directory:
        path = Path(directory) / "qmp"
        server = await asyncio.start_unix_server(serve, path)
        async with server:
            yield path
            for each in served:
                await each.wait()


def returned(value: object) -> Answer:
    """Return answers that all return the same."""
    return lambda request: json.dumps({"return": value, "id": request["id"]}).encode() + b"\n"


class Objects:
    """A device model with objects, some of which cannot be taken away."""

    def __init__(self, names: set[str], fixed: frozenset[str] = frozenset()) -> None:
        self.names = names
        self.fixed = fixed

    def __call__(self, request: dict[str, object]) -> bytes:
        arguments = request["arguments"]
        assert isinstance(arguments, dict)
        answer: dict[str, object] = {"return": {}}
        if request["execute"] == "qom-list":
            listed = [{"name": each, "type": "child<filter-redirector>"} for each in self.names]
            answer = {"return": [{"name": "type", "type": "string"}, *listed]}
        elif request["execute"] == "object-del":
            name = arguments["id"]
            if name in self.fixed or name not in self.names:
                answer = {"error": {"class": "GenericError", "desc": f"{name}: in use"}}
            self.names -= {name} - self.fixed
        event = b'{"event": "NIC_RX_FILTER_CHANGED", "timestamp": {}}\r\n'
        return event + json.dumps({**answer, "id": request["id"]}).encode() + b"\r\n"


async def test_redirectors_are_taken_away_and_others_stay() -> None:
    objects = Objects({"rs1", "rs2", "rs3"})
    async with device_model(GREETING, objects) as path:
        assert await remove_filters(path, ["rs1", "rs2"]) == ("rs1", "rs2")
        assert objects.names == {"rs3"}
        assert await remove_filters(path, ["rs1", "rs2"]) == (), "again, and nothing is wrong"


async def test_a_filter_that_stays_is_an_error_that_names_it() -> None:
    objects = Objects({"rs1", "rs2"}, frozenset({"rs1"}))
    async with device_model(GREETING, objects) as path:
        with pytest.raises(QmpError, match=r"not removed: rs1 \(object-del: GenericError: rs1"):
            await remove_filters(path, ["rs1", "rs2"])
    assert objects.names == {"rs1"}, "the others are gone all the same"


async def test_an_error_is_told_as_the_device_model_tells_it() -> None:
    refusal = {"error": {"class": "CommandNotFound", "desc": "no such command"}}
    answers = iter([returned({})])

    def answer(request: dict[str, object]) -> bytes:
        return next(answers, lambda _: json.dumps(refusal).encode() + b"\n")(request)

    async with device_model(GREETING, answer) as path, connected(path) as qmp:
        with pytest.raises(QmpRefused, match="dance: CommandNotFound: no such command") as caught:
            await qmp.execute("dance")
        assert caught.value.kind == "CommandNotFound"


@pytest.mark.parametrize(
    ("greeting", "answer", "says"),
    [
        (b"SSH-2.0-OpenSSH\r\n", returned({}), "no JSON"),
        (b"[1]\n", returned({}), "no JSON object"),
        (b"{}\n", returned({}), "not a QMP socket"),
        (b"[" * 100_000 + b"\n", returned({}), "no JSON"),
        (b"x" * (2 * MAX_LINE_BYTES), returned({}), "without an end of line"),
        (GREETING, lambda _: b"", "closed the connection"),
        (GREETING, lambda _: b'{"return": {}, "id": 77}\n', "answer to something else"),
        (GREETING, lambda _: b'{"id": 1}\n', "without return or error"),
        (GREETING, lambda _: b'{"error": 3}\n', "without return or error"),
        (GREETING, returned({}), "no list of objects"),
        (GREETING, returned([1]), "no list of objects"),
    ],
)
async def test_whatever_is_no_qmp_is_an_error(greeting: bytes, answer: Answer, says: str) -> None:
    async with device_model(greeting, answer) as path:
        with pytest.raises(QmpError, match=says):
            await remove_filters(path, ["rs1"])


@pytest.mark.parametrize("is_chatty", [False, True])
async def test_a_device_model_that_hangs_is_given_up(is_chatty: bool) -> None:
    def answer(request: dict[str, object]) -> bytes:
        return b'{"event": "RESET"}\n' * is_chatty + b" "

    async with device_model(GREETING, answer) as path:
        with pytest.raises(QmpError, match=r"no answer in 0\.05 s"):
            await remove_filters(path, ["rs1"], timeout_s=0.05)


async def test_nobody_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(QmpError, match="absent"):
        await remove_filters(tmp_path / "absent", ["rs1"])
