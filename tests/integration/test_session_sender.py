"""The real sender process, between an xl and a receiver that the test plays."""

import asyncio
import fcntl
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from colod.session.admission import Admission
from colod.session.link import Link
from colod.session.spec import read_spec
from colod.stream.frames import Frame, FrameType
from colod.transport.sockets import SocketListener
from colod.transport.tcp import TcpTransport
from tests.integration.session_pair import SESSION, Daemon, State, make_spec
from tests.integration.simxen_hosts import LIMIT_S
from tests.unit.session_samples import epochs_of, remus_stream
from tests.unit.stream_samples import Sample

SAMPLE = remus_stream(3)


class Sending:
    """A sender process whose parent, the test, is its xl."""

    def __init__(self, base: Path, **changes: Any) -> None:
        self.directory = base / "send"
        self.spec_path = make_spec(self.directory, "send", **changes)
        command = [SESSION, "send", "--spec", str(self.spec_path)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        self.daemon = Daemon(self.directory)

    def write(self, data: bytes) -> None:
        """Be xl, and write some of the stream."""
        assert self.process.stdin is not None
        rest = memoryview(data)
        while rest:
            rest = rest[self.process.stdin.write(rest) :]

    def end_stream(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def returned(self, size: int) -> bytes:
        assert self.process.stdout is not None
        return self.process.stdout.read(size)

    def end(self) -> None:
        self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        self.process.wait(LIMIT_S)
        self.daemon.close()


class Receiver:
    """The receiver, played by the test."""

    def __init__(self, listener: SocketListener) -> None:
        self.listener = listener
        self.link: Link | None = None

    async def admit(self, sending: Sending, **changes: Any) -> Link:
        """Let the sender in."""
        spec = read_spec(sending.spec_path)
        mine = replace(spec, role="receive", host=spec.peer, peer=spec.host, **changes)
        async with asyncio.timeout(LIMIT_S):
            self.link = await Admission(mine, [self.listener]).sender()
        return self.link


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    found = Receiver(await TcpTransport().listen())
    yield found
    await found.listener.close()
    if found.link is not None:
        await found.link.close()


Start = Callable[..., Sending]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Sending] = []

    def begin(**changes: Any) -> Sending:
        started.append(Sending(tmp_path, **changes))
        return started[-1]

    yield begin
    for sending in started:
        sending.end()


async def heard(link: Link, *kinds: FrameType) -> Frame:
    """Return the next frame of some kinds, past the others."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            frame = await link.receive()
            if frame.type in kinds:
                return frame


async def received(link: Link, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += (await heard(link, FrameType.DATA)).payload
    return data


async def beat(link: Link) -> None:
    """Give signs of life in the background of a test."""
    await link.beat(0.2, lambda: True)


async def test_the_stream_goes_out_epoch_by_epoch_and_acks_come_back(
    start: Start, receiver: Receiver
) -> None:
    sending = start(address=receiver.listener.address)
    link = await receiver.admit(sending)
    await asyncio.to_thread(sending.write, SAMPLE.data)
    for number, epoch in enumerate(epochs_of(SAMPLE), 1):
        assert await received(link, len(epoch)) == epoch
        assert (await heard(link, FrameType.SEAL)).epoch == number
        await link.send(FrameType.ACK, epoch=number)
        status = await asyncio.to_thread(sending.daemon.wait_acked, number)
        assert status.state == State.SESSION_STATE_REPLICATING


async def test_the_return_channel_reaches_xl(start: Start, receiver: Receiver) -> None:
    sending = start(address=receiver.listener.address)
    link = await receiver.admit(sending)
    await link.send(FrameType.RETURN, b"xl migration receiver ready")
    assert await asyncio.to_thread(sending.returned, 27) == b"xl migration receiver ready"


async def test_the_pipe_to_xl_is_widened(start: Start, receiver: Receiver) -> None:
    sending = start(address=receiver.listener.address)
    await receiver.admit(sending)
    assert sending.process.stdin is not None
    pipe = sending.process.stdin.fileno()
    assert fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ) >= 1 << 20


async def test_an_xl_that_stopped_to_listen_does_not_matter(
    start: Start, receiver: Receiver
) -> None:
    sending = start(address=receiver.listener.address)
    assert sending.process.stdout is not None
    sending.process.stdout.close()
    link = await receiver.admit(sending)
    for _ in range(3):
        await link.send(FrameType.RETURN, b"x")
    await asyncio.to_thread(sending.write, SAMPLE.data[: SAMPLE.seals[0]])
    assert (await heard(link, FrameType.SEAL)).epoch == 1


async def test_a_lost_receiver_leaves_xl_blocked_until_the_daemon_releases_it(
    start: Start, receiver: Receiver
) -> None:
    sending = start(address=receiver.listener.address)
    link = await receiver.admit(sending)
    await link.close()
    status = await asyncio.to_thread(sending.daemon.wait_state, State.SESSION_STATE_PEER_LOST)
    assert status.error_code == "peer.unreachable"
    writing = asyncio.create_task(asyncio.to_thread(sending.write, bytes(8 << 20)))
    done, _ = await asyncio.wait([writing], timeout=0.3)
    assert not done, "somebody reads what nobody will get"
    assert sending.process.poll() is None
    await asyncio.to_thread(sending.daemon.release)
    assert await asyncio.to_thread(sending.process.wait, LIMIT_S) == 0
    with pytest.raises(BrokenPipeError):
        await writing


async def test_a_silent_receiver_is_lost(start: Start, receiver: Receiver) -> None:
    sending = start(address=receiver.listener.address, silence_s=0.5)
    await receiver.admit(sending)
    status = await asyncio.to_thread(sending.daemon.wait_state, State.SESSION_STATE_PEER_LOST)
    assert status.error_code == "peer.silent"


async def test_signs_of_life_are_enough_to_be_alive(start: Start, receiver: Receiver) -> None:
    sending = start(address=receiver.listener.address, silence_s=2.0)
    link = await receiver.admit(sending)
    living = asyncio.create_task(beat(link))
    done, _ = await asyncio.wait([living], timeout=4.0)
    assert not done
    assert sending.daemon.newest().state == State.SESSION_STATE_SYNCING
    living.cancel()
    await asyncio.gather(living, return_exceptions=True)


async def test_a_receiver_that_lives_and_acknowledges_nothing_is_given_up(
    start: Start, receiver: Receiver
) -> None:
    sending = start(address=receiver.listener.address, silence_s=30.0, ack_timeout_s=1.0)
    link = await receiver.admit(sending)
    living = asyncio.create_task(beat(link))
    sample = remus_stream(2)
    await asyncio.to_thread(sending.write, sample.data)
    for number, epoch in enumerate(epochs_of(sample), 1):
        assert await received(link, len(epoch)) == epoch
        assert (await heard(link, FrameType.SEAL)).epoch == number
    await link.send(FrameType.ACK, epoch=1)
    status = await asyncio.to_thread(sending.daemon.wait_state, State.SESSION_STATE_PEER_LOST)
    assert status.error_code == "peer.stalled"
    assert "has not acknowledged epoch 2 within 1 s" in status.error
    await asyncio.gather(living, return_exceptions=True)


async def test_the_end_of_the_stream_is_not_taken_for_a_dead_host(
    start: Start, receiver: Receiver
) -> None:
    sending = start(address=receiver.listener.address)
    link = await receiver.admit(sending)
    await asyncio.to_thread(sending.write, SAMPLE.data[:-10])
    sending.end_stream()
    close = await heard(link, FrameType.CLOSE)
    assert close.payload.startswith(b"toolstack_lost: ")
    await link.send(FrameType.ACK, epoch=2)
    await link.close()
    status = await asyncio.to_thread(sending.daemon.wait_state, State.SESSION_STATE_TOOLSTACK_LOST)
    assert status.error_code == "toolstack.lost"
    status = await asyncio.to_thread(sending.daemon.wait_acked, 2)
    assert sending.process.poll() is None


@pytest.mark.parametrize(
    ("garbage", "code"),
    [
        (b"\xff" * 64, "stream.record_too_long"),
        (b"\x77\0\0\0\x08\0\0\0", "stream.unknown_record"),
    ],
    ids=["too long", "unknown"],
)
async def test_garbage_of_xl_is_held_and_named(
    start: Start, receiver: Receiver, garbage: bytes, code: str
) -> None:
    sending = start(address=receiver.listener.address)
    link = await receiver.admit(sending)
    await asyncio.to_thread(sending.write, SAMPLE.data[: SAMPLE.seals[0]] + garbage)
    assert (await heard(link, FrameType.SEAL)).epoch == 1
    last = await heard(link, FrameType.ABORT, FrameType.DATA)
    assert last.type is FrameType.ABORT
    assert last.payload.startswith(b"stream: ")
    status = await asyncio.to_thread(sending.daemon.wait_state, State.SESSION_STATE_FAILED)
    assert status.error_code == code
    assert f"at byte {SAMPLE.seals[0]}" in status.error
    assert sending.process.poll() is None


async def test_a_replica_that_is_lost_is_reported_as_such(start: Start, receiver: Receiver) -> None:
    sending = start(address=receiver.listener.address)
    link = await receiver.admit(sending)
    await link.say_goodbye(FrameType.ABORT, "replica_lost", "xl ended with status -9")
    status = await asyncio.to_thread(sending.daemon.wait_state, State.SESSION_STATE_FAILED)
    assert (status.error_code, status.error) == ("peer.replica_lost", "xl ended with status -9")


@pytest.mark.parametrize("epoch", [0, 2])
async def test_an_ack_that_cannot_be_is_no_ack(
    start: Start, receiver: Receiver, epoch: int
) -> None:
    sending = start(address=receiver.listener.address)
    link = await receiver.admit(sending)
    await asyncio.to_thread(sending.write, SAMPLE.data[: SAMPLE.seals[0]])
    await heard(link, FrameType.SEAL)
    await link.send(FrameType.ACK, epoch=epoch)
    status = await asyncio.to_thread(sending.daemon.wait_state, State.SESSION_STATE_FAILED)
    assert status.error_code == "session.protocol"
    assert status.progress.acked_epoch == 0


async def test_a_receiver_that_knows_no_secret_gets_nothing_of_the_guest(
    start: Start, receiver: Receiver
) -> None:
    sending = start(address=receiver.listener.address)
    admitting = asyncio.create_task(receiver.admit(sending, secret=b"x" * 32))
    status = await asyncio.to_thread(sending.daemon.wait_state, State.SESSION_STATE_FAILED)
    assert status.error_code == "peer.refused"
    assert not status.peer_connected
    admitting.cancel()
    await asyncio.gather(admitting, return_exceptions=True)
    assert sending.process.poll() is None


async def test_nobody_at_the_address_is_reported_and_released_without_harm(start: Start) -> None:
    listener = await TcpTransport().listen()
    await listener.close()
    sending = start(address=listener.address, connect_timeout_s=0.5)
    status = await asyncio.to_thread(sending.daemon.wait_state, State.SESSION_STATE_PEER_LOST)
    assert status.error_code == "peer.unreachable"
    sending.daemon.release()
    assert sending.process.wait(LIMIT_S) == 0


async def test_a_sender_that_still_connects_can_be_released(start: Start) -> None:
    listener = await TcpTransport().listen()
    await listener.close()
    sending = start(address=listener.address, connect_timeout_s=600)
    assert sending.daemon.newest().state == State.SESSION_STATE_CONNECTING
    sending.daemon.release()
    assert sending.process.wait(LIMIT_S) == 0


async def test_a_slow_receiver_slows_xl_and_not_the_memory(
    start: Start, receiver: Receiver
) -> None:
    sending = start(address=receiver.listener.address)
    link = await receiver.admit(sending)
    living = asyncio.create_task(beat(link))
    sample = Sample().headers()
    for _ in range(100):
        sample.pages(256)
    writing = asyncio.create_task(asyncio.to_thread(sending.write, sample.data))
    done, _ = await asyncio.wait([writing], timeout=1.0)
    assert not done, "100 MiB were taken though nobody reads them"
    assert _peak_memory_bytes(sending.process.pid) < 100 << 20
    living.cancel()
    await asyncio.gather(living, return_exceptions=True)
    sending.process.kill()
    with pytest.raises(BrokenPipeError):
        await writing


async def test_the_guests_pause_does_not_wait_for_the_link(
    start: Start, receiver: Receiver
) -> None:
    sending = start(address=receiver.listener.address, staging_bytes=64 << 20)
    link = await receiver.admit(sending)
    living = asyncio.create_task(beat(link))
    sample = remus_stream(1)
    for _ in range(40):
        sample.pages(256)
    sample.state().seal()
    await asyncio.to_thread(sending.write, sample.data)  # nobody takes it from the link
    status = await asyncio.to_thread(
        sending.daemon.wait, lambda s: s.progress.sealed_epoch == 2, "libxc has gone on"
    )
    assert status.progress.acked_epoch == 0
    assert status.progress.staged_bytes > 20 << 20
    assert status.progress.stalled_s == 0
    for number, epoch in enumerate(epochs_of(sample), 1):
        assert await received(link, len(epoch)) == epoch
        assert (await heard(link, FrameType.SEAL)).epoch == number
        await link.send(FrameType.ACK, epoch=number)
    status = await asyncio.to_thread(sending.daemon.wait_acked, 2)
    assert status.progress.epoch_wire_bytes > status.progress.epoch_bytes > 40 << 20
    living.cancel()
    await asyncio.gather(living, return_exceptions=True)


async def test_a_checkpoint_that_is_longer_than_the_memory_waits_and_says_so(
    start: Start, receiver: Receiver
) -> None:
    sending = start(address=receiver.listener.address, staging_bytes=1 << 20)
    link = await receiver.admit(sending)
    living = asyncio.create_task(beat(link))
    sample = remus_stream(1)
    for _ in range(40):
        sample.pages(256)
    sample.state().seal()
    writing = asyncio.create_task(asyncio.to_thread(sending.write, sample.data))
    status = await asyncio.to_thread(
        sending.daemon.wait, lambda s: s.progress.stalled_s > 0, "it says that it is full"
    )
    assert status.progress.staged_bytes == status.progress.staging_bytes == 1 << 20
    assert not writing.done()
    for number, epoch in enumerate(epochs_of(sample), 1):
        assert await received(link, len(epoch)) == epoch
        assert (await heard(link, FrameType.SEAL)).epoch == number
    await writing
    status = await asyncio.to_thread(sending.daemon.newest)
    assert status.progress.staged_peak_bytes == 1 << 20
    living.cancel()
    await asyncio.gather(living, return_exceptions=True)


async def test_an_ack_of_an_epoch_that_still_waits_in_memory_is_no_ack(
    start: Start, receiver: Receiver
) -> None:
    sending = start(address=receiver.listener.address, staging_bytes=64 << 20)
    link = await receiver.admit(sending)
    sample = remus_stream(1)
    for _ in range(40):
        sample.pages(256)
    sample.state().seal()
    await asyncio.to_thread(sending.write, sample.data)
    await asyncio.to_thread(
        sending.daemon.wait, lambda s: s.progress.sealed_epoch == 2, "it is whole on this side"
    )
    await link.send(FrameType.ACK, epoch=2)
    status = await asyncio.to_thread(sending.daemon.wait_state, State.SESSION_STATE_FAILED)
    assert status.error_code == "session.protocol"
    assert status.progress.acked_epoch == 0


def _peak_memory_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    peak = next(line for line in lines if line.startswith("VmHWM:"))
    return int(peak.split()[1]) * 1024


def test_the_session_says_which_process_it_is(start: Start) -> None:
    sending = start(address="127.0.0.1:1")
    pid, ticks = (sending.directory / "pid").read_text().split()
    assert int(pid) == sending.process.pid == sending.daemon.newest().pid
    stat = Path(f"/proc/{pid}/stat").read_text()
    assert stat.rpartition(")")[2].split()[19] == ticks


def test_a_session_starts_without_what_it_does_not_need() -> None:
    code = (
        "import sys, colod.session.main, colod.transport.tls, colod.transport.unix,"
        "colod.transport.ssh;"
        "heavy = {'grpc', 'click', 'pydantic', 'structlog', 'rich', 'numpy', 'pyroute2'};"
        "print(*heavy & set(sys.modules))"
    )
    python = Path(SESSION).with_name("python")
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
