"""colod.session.session: whatever goes wrong, the session lives until it is released."""

import asyncio
import logging
from pathlib import Path

import pytest

from colod.errors import NetworkError, SessionError
from colod.session.ending import Ending, State
from colod.session.progress import Progress
from colod.session.protocol import MessageDecoder, encode_message
from colod.session.session import Session
from colod.session.spec import SessionSpec
from colod.v1.session_pb2 import SessionCommand, SessionStatus

SPEC = SessionSpec(
    role="send",
    guest="g1",
    pairing="0" * 32,
    generation=4,
    host="alpha",
    peer="beta",
    secret=b"s" * 32,
    transport_kind="tcp",
)


class Failing(Session):
    """A session whose work ends in a given way."""

    def __init__(self, directory: Path, error: Exception) -> None:
        super().__init__(SPEC, directory)
        self.error = error

    async def work(self) -> None:
        raise self.error

    def progress(self, now: float) -> Progress:
        return Progress()


class Observer:
    """A daemon within the test's own loop."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._decoder = MessageDecoder(SessionStatus)
        self._messages: list[SessionStatus] = []

    async def until(self, state: State) -> SessionStatus:
        async with asyncio.timeout(30):
            while True:
                while not self._messages:
                    data = await self._reader.read(65536)
                    assert data, "the session went away"
                    self._messages += self._decoder.feed(data)
                status = self._messages.pop(0)
                if int(status.state) == state:
                    return status

    async def release(self) -> None:
        release = SessionCommand.Release(reason="test")
        command = SessionCommand(id=1, generation=4, release=release)
        self._writer.write(encode_message(command))
        await self.until(State.FINISHED)

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


async def observe(directory: Path) -> Observer:
    return Observer(*await asyncio.open_unix_connection(directory / "control.sock"))


@pytest.fixture
def short_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory whose path leaves room for a socket's name."""
    return tmp_path_factory.mktemp("s")


@pytest.mark.parametrize(
    ("error", "state", "code"),
    [
        (RuntimeError("a defect"), State.FAILED, "defect.session"),
        (AssertionError("another"), State.FAILED, "defect.session"),
        (NetworkError("no such interface"), State.FAILED, "network.failed"),
        (Ending.peer_lost("peer.silent", "nothing heard"), State.PEER_LOST, "peer.silent"),
    ],
)
async def test_a_session_outlives_whatever_ends_its_work(
    short_directory: Path, error: Exception, state: State, code: str
) -> None:
    logging.getLogger("colod.session.session").setLevel(logging.CRITICAL)
    running = asyncio.create_task(Failing(short_directory, error).run())
    while not (short_directory / "control.sock").exists():  # noqa: ASYNC110
        await asyncio.sleep(0)
    observer = await observe(short_directory)
    status = await observer.until(state)
    assert status.error_code == code
    assert str(error) in status.error
    assert not running.done()
    await observer.release()
    await running
    await observer.close()


async def test_a_worse_end_replaces_one_that_is_less_so(tmp_path: Path) -> None:
    session = Failing(tmp_path, RuntimeError())
    session.ended(Ending.peer_lost("peer.silent", "1"))
    session.ended(Ending.toolstack_lost("2"))
    session.ended(Ending.peer_lost("peer.unreachable", "3"))
    assert (session.report.state, session.progress(0).acked_epoch) == (State.TOOLSTACK_LOST, 0)
    session.ended(Ending.failed("session.digest", "4"))
    session.ended(Ending.toolstack_lost("5"))
    assert session.report.state is State.FAILED
    session.report.advance(State.REPLICATING)
    assert session.report.state is State.FAILED


async def test_a_session_that_cannot_be_reached_does_not_begin(tmp_path: Path) -> None:
    directory = tmp_path / ("x" * 120)
    directory.mkdir()
    with pytest.raises(SessionError, match="control socket"):
        await Failing(directory, RuntimeError("never raised")).run()
