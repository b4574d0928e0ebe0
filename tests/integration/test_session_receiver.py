"""The real receiver process, between a made-up xl and a sender played by the test."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from colod.errors import PeerUnreachable
from colod.session.deltas import DeltaSpec, agreed, make_encoder
from colod.session.handshake import check_welcome, make_hello
from colod.session.link import Link
from colod.session.spec import SessionSpec, read_spec
from colod.session.staging import Data
from colod.stream.frames import (
    Challenge,
    Frame,
    FrameType,
    Welcome,
    decode_message,
    encode_header,
    encode_message,
)
from colod.transport.tcp import TcpTransport
from tests.integration.session_pair import SESSION, Daemon, State, make_spec
from tests.integration.simxen_hosts import LIMIT_S, until
from tests.unit.session_samples import Piece, epochs_of, remus_stream, seal_of, sent
from tests.unit.stream_samples import Sample

BANNER = b"banner\n"
SILENT = (FrameType.PING, FrameType.PONG)


DELTAS = DeltaSpec(codec="zstd-1", store_bytes=4 << 20)


class Receiving:
    """A receiver process whose xl writes what it gets into a file."""

    def __init__(self, base: Path, **changes: Any) -> None:
        self.directory, self.got = base / "receive", base / "got"
        script = f"printf banner\\\\n; exec cat >{self.got}"
        commands = {
            "receive_argv": ["sh", "-c", script],
            "exists_argv": ["true"],
            "pause_argv": ["sh", "-c", f"echo paused >>{base / 'pauses'}"],
        }
        self.pauses = base / "pauses"
        self.spec_path = make_spec(self.directory, "receive", **(commands | changes))
        command = [SESSION, "receive", "--spec", str(self.spec_path)]
        self.process = subprocess.Popen(command)
        self.daemon = Daemon(self.directory)

    @property
    def sender_spec(self) -> SessionSpec:
        """What the right sender knows."""
        spec = read_spec(self.spec_path)
        return replace(spec, role="send", host=spec.peer, peer=spec.host)

    def address(self) -> str:
        return until(lambda: self.daemon.newest().listen_address, "it listens")

    def has_got(self, data: bytes) -> bool:
        return self.got.exists() and self.got.read_bytes() == data

    def log(self) -> str:
        return (self.directory / "log").read_text()

    def end(self) -> None:
        with contextlib.suppress(AssertionError, OSError, EOFError):
            os.killpg(self.daemon.newest().toolstack_pid or 2**22, signal.SIGKILL)
        self.process.kill()
        self.process.wait(LIMIT_S)
        self.daemon.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    started: list[Receiving] = []

    def begin(**changes: Any) -> Receiving:
        started.append(Receiving(tmp_path, **changes))
        return started[-1]

    yield begin
    for receiving in started:
        receiving.end()


async def connect(receiving: Receiving, spec: SessionSpec | None = None) -> Link:
    """Come to the door, and open a link without saying anything."""
    spec = spec or receiving.sender_spec
    connection = await TcpTransport().connect(receiving.address(), timeout_s=LIMIT_S)
    return Link(connection, spec.generation)


async def enter(receiving: Receiving) -> Link:
    """Be the right sender, and be let in."""
    spec = receiving.sender_spec
    link = await connect(receiving)
    challenge = decode_message(Challenge, (await link.receive()).payload)
    hello = make_hello(spec, challenge, "00" * 32)
    await link.send(FrameType.HELLO, encode_message(hello))
    welcome = decode_message(Welcome, (await link.receive()).payload)
    check_welcome(spec, challenge, hello, welcome)
    link.capabilities = welcome.capabilities
    return link


def blocks_of(link: Link, *epochs: bytes) -> Iterator[list[bytes]]:
    """Yield each epoch as the blocks that the two sides agreed on."""
    terms = agreed(link.capabilities, link.capabilities)
    assert terms is not None
    encoder = make_encoder(DELTAS, terms)
    for epoch in epochs:
        yield [*encoder.feed(epoch), *encoder.seal()]


async def put(link: Link, *pieces: Piece) -> None:
    for piece in pieces:
        if isinstance(piece, Data):
            await link.send(FrameType.DATA, piece.payload, epoch=piece.epoch)
        else:
            await link.send(FrameType.SEAL, piece.body, epoch=piece.epoch)


async def heard(link: Link, kind: FrameType) -> Frame:
    """Return the next frame of a kind, past the signs of life and the return channel."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            frame = await link.receive()
            if frame.type is kind:
                return frame
            assert frame.type in (*SILENT, FrameType.RETURN), frame


async def acked(link: Link, epoch: int) -> None:
    assert (await heard(link, FrameType.ACK)).epoch == epoch


async def test_an_epoch_is_acknowledged_once_xl_has_all_of_it(start: Any) -> None:
    receiving = start()
    sample = remus_stream(2)
    link = await enter(receiving)
    assert (await heard(link, FrameType.RETURN)).payload == BANNER
    await put(link, *sent(sample.data, 700))
    await acked(link, 1)
    await acked(link, 2)
    until(lambda: receiving.has_got(sample.data), "xl has the stream")
    assert receiving.pauses.read_text() == "paused\n", "one reference, no more"
    status = receiving.daemon.wait_acked(2)
    assert status.state == State.SESSION_STATE_REPLICATING
    assert status.second_pause
    await link.close()


async def test_each_of_many_short_epochs_is_acknowledged_in_its_turn(start: Any) -> None:
    receiving = start()
    sample = remus_stream(40)
    link = await enter(receiving)
    await put(link, *sent(sample.data))
    for epoch in range(1, 41):
        await acked(link, epoch)
    until(lambda: receiving.has_got(sample.data), "xl has the stream")
    receiving.daemon.wait_acked(40)
    await link.close()


async def test_no_acknowledgement_waits_for_a_long_epoch_behind_it(start: Any) -> None:
    """Whatever comes together: what xl has is safe, whether or not it takes the rest."""
    sample = remus_stream(2).pages(1024).state().seal()
    reading = f"head -c {sample.seals[1]} >/dev/null; exec sleep 1000"
    receiving = start(receive_argv=["sh", "-c", reading])
    link = await enter(receiving)
    pieces = sent(sample.data)
    first_seal = next(n for n, each in enumerate(pieces) if not isinstance(each, Data))
    await put(link, *pieces[: first_seal + 1])
    await acked(link, 1)
    await put(link, *pieces[first_seal + 1 :])
    await acked(link, 2)
    assert receiving.daemon.newest().progress.acked_epoch <= 2
    await link.close()


async def test_a_lost_sender_leaves_xl_waiting_with_whole_epochs_only(start: Any) -> None:
    receiving = start()
    sample = remus_stream(3)
    link = await enter(receiving)
    *pieces, _seal = sent(sample.data)
    await put(link, *pieces)
    await acked(link, 1)
    await acked(link, 2)
    await link.close()
    status = receiving.daemon.wait_state(State.SESSION_STATE_PEER_LOST)
    assert status.error_code == "peer.unreachable"
    assert status.toolstack_pid
    assert receiving.has_got(sample.data[: sample.seals[1]])
    assert receiving.daemon.hand_over().command_error == ""
    done = receiving.daemon.wait(lambda s: s.handed_over, "xl has ended")
    assert done.toolstack_pid == 0
    assert receiving.has_got(sample.data[: sample.seals[1]])
    receiving.daemon.release()
    assert receiving.process.wait(LIMIT_S) == 0
    assert not (receiving.directory / "control.sock").exists()


async def test_a_copy_that_xl_cannot_take_over_is_not_called_handed_over(start: Any) -> None:
    receiving = start(receive_argv=["sh", "-c", "cat >/dev/null; exit 3"])
    link = await enter(receiving)
    await put(link, *sent(remus_stream(1).data))
    await acked(link, 1)
    receiving.daemon.hand_over()
    status = receiving.daemon.wait_state(State.SESSION_STATE_TOOLSTACK_LOST)
    assert "status 3" in status.error
    assert not status.handed_over
    await link.close()


async def test_without_a_second_pause_the_first_checkpoint_is_never_given_to_xl(start: Any) -> None:
    receiving = start(pause_argv=["false"], pause_timeout_s=0.5)
    sample = remus_stream(1)
    link = await enter(receiving)
    await put(link, *sent(sample.data))
    said = await heard(link, FrameType.ABORT)
    assert said.payload.startswith(b"pause: ")
    status = receiving.daemon.wait_state(State.SESSION_STATE_FAILED)
    assert status.error_code == "session.pause"
    assert not status.second_pause
    assert receiving.has_got(sample.data[: sample.resumes[0] - 8])
    assert receiving.daemon.hand_over().command_error
    await link.close()


async def test_a_pause_with_an_unknown_outcome_is_not_tried_again(start: Any) -> None:
    receiving = start(pause_argv=["sh", "-c", "kill -9 $$"])
    link = await enter(receiving)
    await put(link, *sent(remus_stream(1).data))
    status = receiving.daemon.wait_state(State.SESSION_STATE_FAILED)
    assert (status.error_code, status.second_pause) == ("session.pause", False)
    await link.close()


PAUSES_ONCE_IT_CAN = """\
if test -e {there}; then echo paused >>{pauses}; else
    echo 'libxl: error: libxl_domain.c:602: Domain 9:Pausing domain: No such process' >&2
fi"""


async def test_a_pause_that_failed_with_status_0_is_tried_again(start: Any, tmp_path: Path) -> None:
    """xl exits with 0 even when libxl could not pause the domain."""
    there, pauses = tmp_path / "there", tmp_path / "pauses-taken"
    script = PAUSES_ONCE_IT_CAN.format(there=there, pauses=pauses)
    receiving = start(pause_argv=["sh", "-c", script])
    link = await enter(receiving)
    await put(link, *sent(remus_stream(1).data))
    await asyncio.sleep(1)
    assert not receiving.daemon.newest().second_pause
    there.touch()
    await acked(link, 1)
    assert receiving.daemon.newest().second_pause
    assert pauses.read_text() == "paused\n"
    await link.close()


async def test_a_pause_with_another_complaint_is_not_taken_for_one(start: Any) -> None:
    complaint = "echo 'libxl: error: cannot take the lock' >&2"
    receiving = start(pause_argv=["sh", "-c", complaint])
    link = await enter(receiving)
    await put(link, *sent(remus_stream(1).data))
    status = receiving.daemon.wait_state(State.SESSION_STATE_FAILED)
    assert (status.error_code, status.second_pause) == ("session.pause", False)
    assert "cannot take the lock" in status.error
    await link.close()


async def test_a_copy_that_does_not_exist_yet_is_awaited(start: Any, tmp_path: Path) -> None:
    there = tmp_path / "there"
    receiving = start(exists_argv=["test", "-e", str(there)])
    link = await enter(receiving)
    await put(link, *sent(remus_stream(1).data))
    assert not receiving.daemon.newest().second_pause
    there.touch()
    await acked(link, 1)
    assert receiving.daemon.newest().second_pause
    await link.close()


async def test_an_epoch_longer_than_the_staging_memory_is_refused_by_name(start: Any) -> None:
    receiving = start(staging_bytes=1 << 20)
    sample = remus_stream(1).pages(300).state().seal()
    link = await enter(receiving)
    with contextlib.suppress(PeerUnreachable):
        await put(link, *sent(sample.data))
    assert (await heard(link, FrameType.ACK)).epoch == 1
    assert (await heard(link, FrameType.ABORT)).payload.startswith(b"staging: ")
    status = receiving.daemon.wait_state(State.SESSION_STATE_FAILED)
    assert status.error_code == "session.staging"
    assert status.progress.acked_epoch == 1
    assert receiving.daemon.hand_over().command_error == "", "epoch 1 is still good"
    receiving.daemon.wait(lambda s: s.handed_over, "xl has ended")
    assert receiving.has_got(sample.data[: sample.seals[0]])
    await link.close()


async def test_deltas_become_the_stream_that_xl_should_get(start: Any) -> None:
    receiving = start(deltas=asdict(DELTAS))
    sample = remus_stream(2).pages(300).state().seal()
    link = await enter(receiving)
    for number, (epoch, blocks) in enumerate(
        zip(epochs_of(sample), blocks_of(link, *epochs_of(sample)), strict=True), 1
    ):
        for block in blocks:
            await link.send(FrameType.DELTA, block, epoch=number)
        await put(link, seal_of(number, epoch))
        await acked(link, number)
    until(lambda: receiving.has_got(sample.data), "xl has the stream")
    await link.close()


async def test_deltas_that_give_something_else_are_kept_from_xl(start: Any) -> None:
    receiving = start(deltas=asdict(DELTAS))
    sample = remus_stream(2)
    first, second = epochs_of(sample)
    link = await enter(receiving)
    blocks = list(blocks_of(link, first, second))
    await link.send(FrameType.DELTA, b"".join(blocks[0]), epoch=1)
    await put(link, seal_of(1, first))
    await acked(link, 1)
    await link.send(FrameType.DELTA, b"".join(blocks[1]), epoch=2)
    await put(link, seal_of(2, first))
    assert (await heard(link, FrameType.ABORT)).payload.startswith(b"digest: ")
    assert receiving.has_got(first)
    await link.close()


@pytest.mark.parametrize("is_agreed", [True, False], ids=["too late", "not agreed"])
async def test_deltas_out_of_place_end_replication(start: Any, is_agreed: bool) -> None:
    receiving = start(**({"deltas": asdict(DELTAS)} if is_agreed else {}))
    sample = remus_stream(1)
    link = await enter(receiving)
    if is_agreed:
        await put(link, *sent(sample.data))
        await acked(link, 1)
    await link.send(FrameType.DELTA, b"anything", epoch=2 if is_agreed else 1)
    assert (await heard(link, FrameType.ABORT)).payload.startswith(b"protocol: ")
    await link.close()


async def test_garbage_instead_of_deltas_ends_replication(start: Any) -> None:
    receiving = start(deltas=asdict(DELTAS))
    link = await enter(receiving)
    await link.send(FrameType.DELTA, b"\xff" * 100, epoch=1)
    assert (await heard(link, FrameType.ABORT)).payload.startswith(b"stream: ")
    await link.close()


async def test_few_bytes_that_stand_for_too_many_are_refused_in_time(start: Any) -> None:
    receiving = start(deltas=asdict(DELTAS), staging_bytes=1 << 20)
    sample = remus_stream(1)
    for _ in range(40):
        sample.pages(256)
    sample.state().seal()
    link = await enter(receiving)
    epochs = epochs_of(sample)
    blocks = list(blocks_of(link, *epochs))
    assert sum(map(len, blocks[1])) < len(epochs[1]) / 20
    await link.send(FrameType.DELTA, b"".join(blocks[0]), epoch=1)
    await put(link, seal_of(1, epochs[0]))
    await acked(link, 1)
    with contextlib.suppress(PeerUnreachable):
        for block in blocks[1]:
            await link.send(FrameType.DELTA, block, epoch=2)
    assert (await heard(link, FrameType.ABORT)).payload.startswith(b"staging: ")
    await link.close()


async def test_a_wrong_digest_is_refused_and_its_epoch_kept_from_xl(start: Any) -> None:
    receiving = start()
    sample = remus_stream(2)
    data, seal, damaged, _ = sent(sample.data)
    link = await enter(receiving)
    await put(link, data, seal)
    await acked(link, 1)
    await put(link, damaged, seal_of(2, b"something else"))
    assert (await heard(link, FrameType.ABORT)).payload.startswith(b"digest: ")
    assert receiving.daemon.wait_state(State.SESSION_STATE_FAILED).error_code == "session.digest"
    assert receiving.has_got(sample.data[: sample.seals[0]])
    await link.close()


async def test_a_slow_xl_slows_the_sender_and_not_the_memory(start: Any) -> None:
    receiving = start(receive_argv=["sleep", "1000"], silence_s=1.0)
    sample = Sample().headers()
    for _ in range(60):
        sample.pages(256)
    link = await enter(receiving)
    sending = asyncio.create_task(put(link, *sent(sample.data)))
    done, _ = await asyncio.wait([sending], timeout=2.5)
    assert not done, "60 MiB were taken without anybody reading them"
    status = receiving.daemon.newest()
    assert status.state == State.SESSION_STATE_SYNCING, "a sender that is not read is not silent"
    assert status.progress.stream_bytes < 20 << 20
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    await link.close()


@pytest.mark.parametrize(
    "changes",
    [
        {"secret": b"x" * 32},
        {"guest": "g2"},
        {"pairing": "f" * 32},
        {"host": "gamma"},
        {"peer": "gamma"},
    ],
)
async def test_a_wrong_sender_is_sent_away_and_the_right_one_let_in(
    start: Any, changes: dict[str, Any]
) -> None:
    receiving = start()
    wrong = replace(receiving.sender_spec, **changes)
    link = await connect(receiving, wrong)
    challenge = decode_message(Challenge, (await link.receive()).payload)
    await link.send(FrameType.HELLO, encode_message(make_hello(wrong, challenge, "00" * 32)))
    assert (await heard(link, FrameType.ABORT)).payload.startswith(b"refused: ")
    await link.close()
    right = await enter(receiving)
    assert "sender.refused" in receiving.log()
    await right.close()


async def test_an_older_generation_is_sent_away(start: Any) -> None:
    receiving = start()
    wrong = replace(receiving.sender_spec, generation=3)
    link = await connect(receiving)
    challenge = decode_message(Challenge, (await link.receive()).payload)
    await link.send(FrameType.HELLO, encode_message(make_hello(wrong, challenge, "00" * 32)))
    await heard(link, FrameType.ABORT)
    await link.close()
    await (await enter(receiving)).close()


@pytest.mark.parametrize(
    "words",
    [
        b"",
        b"GET / HTTP/1.0\r\n\r\n",
        bytes(100_000),
        encode_header(FrameType.DATA, generation=4, epoch=1, payload_bytes=1 << 20),
        encode_header(FrameType.HELLO, generation=4, epoch=0, payload_bytes=16 << 10),
    ],
    ids=["silent", "http", "zeros", "data", "half a hello"],
)
async def test_strangers_cannot_keep_the_sender_out(start: Any, words: bytes) -> None:
    receiving = start()
    receiving.address()
    strangers = []
    for _ in range(5):
        connection = await TcpTransport().connect(receiving.address(), timeout_s=LIMIT_S)
        with contextlib.suppress(PeerUnreachable):
            await connection.write(words)
        strangers.append(connection)
    link = await enter(receiving)
    await put(link, *sent(remus_stream(1).data))
    await acked(link, 1)
    for stranger in strangers:
        await stranger.close()
    await link.close()


async def test_only_one_sender_is_let_in(start: Any) -> None:
    receiving = start()
    link = await enter(receiving)
    with pytest.raises(PeerUnreachable):
        await enter(receiving)
    await link.close()


async def test_frames_of_another_generation_end_the_pairing(start: Any) -> None:
    receiving = start()
    link = await enter(receiving)
    link._generation = 3
    await put(link, *sent(remus_stream(1).data))
    status = receiving.daemon.wait_state(State.SESSION_STATE_FAILED)
    assert status.error_code == "session.protocol"
    await link.close()


async def test_an_xl_that_cannot_be_started_is_reported(start: Any) -> None:
    receiving = start(receive_argv=["/nonexistent/xl", "migrate-receive", "-r"])
    status = receiving.daemon.wait_state(State.SESSION_STATE_FAILED)
    assert status.error_code == "toolstack.failed"
    receiving.daemon.release()
    assert receiving.process.wait(LIMIT_S) == 0


async def test_a_session_that_nobody_can_find_ends_once_xl_is_gone(start: Any) -> None:
    receiving = start()
    shutil.rmtree(receiving.directory)
    receiving.daemon.newest()
    os.kill(receiving.daemon.newest().toolstack_pid, signal.SIGKILL)
    assert receiving.process.wait(LIMIT_S) == 0


async def test_a_session_without_its_directory_goes_on_while_xl_lives(start: Any) -> None:
    receiving = start()
    link = await enter(receiving)
    shutil.rmtree(receiving.directory)
    await put(link, *sent(remus_stream(2).data))
    await acked(link, 1)
    await acked(link, 2)
    assert receiving.process.poll() is None
    await link.close()


@pytest.mark.parametrize("words", [b"\xff" * 9, b"\0\0\0\x02\xff\xff", b"\0\1\0\1", b"GET / HTTP"])
def test_hostile_words_on_the_control_socket_end_only_their_own_connection(
    start: Any, words: bytes
) -> None:
    receiving = start()
    hostile = Daemon(receiving.directory)
    hostile._socket.sendall(words)
    with pytest.raises(AssertionError, match="EOFError"):
        hostile.wait(lambda _: False, "it is cut off")
    hostile.close()
    assert receiving.daemon.newest().guest == "g1"


def test_a_command_that_is_none_is_refused(start: Any) -> None:
    receiving = start()
    assert receiving.daemon.command().command_error == "unknown command"


def test_a_daemon_that_does_not_read_is_cut_off_and_others_are_served(start: Any) -> None:
    receiving = start()
    deaf = Daemon(receiving.directory)
    for _ in range(3000):
        receiving.daemon.newest()
    assert receiving.daemon.newest().guest == "g1"
    deaf.close()


@pytest.mark.parametrize("text", ["", "{}", '{"version": 1, "role": "send"}'])
def test_a_specification_that_cannot_be_used_is_refused_with_status_2(
    tmp_path: Path, text: str
) -> None:
    path = tmp_path / "spec.json"
    path.write_text(text)
    command = [SESSION, "receive", "--spec", str(path)]
    done = subprocess.run(command, capture_output=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 2
    assert b"config.invalid" in done.stderr
