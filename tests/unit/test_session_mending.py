"""Who may mend a link and who may not, over which path, and when it is over after all."""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import Any

import pytest

from colod.errors import PeerError, PeerRefused, PeerUnreachable, StreamError
from colod.session.agreement import Standing
from colod.session.handshake import NONCE_BYTES, make_hello
from colod.session.link import Link
from colod.session.mending import Caller, hear_challenge
from colod.session.resuming import RESERVE_BYTES, Resuming
from colod.session.spec import SessionSpec
from colod.stream.frames import Challenge, FrameType, encode_message
from tests.unit.memory_network import MemoryConnection, MemoryListener
from tests.unit.mended_pair import LIMIT_S, RESUME_BYTES, Pair, linked, spec
from tests.unit.session_samples import remus_stream

EPOCHS = 3
SAMPLE = remus_stream(EPOCHS)
STREAM = SAMPLE.data[: SAMPLE.seals[EPOCHS - 1]]
FIRST, REST = STREAM[: SAMPLE.seals[0]], STREAM[SAMPLE.seals[0] :]


async def knock(
    pair: Pair, own: SessionSpec, standing: Standing | None, challenge: Challenge | None = None
) -> str:
    """Come as a sender with a connection of its own; return why it is sent away."""
    link = Link(pair.network.call(0), own.generation)
    async with asyncio.timeout(LIMIT_S):
        heard = await hear_challenge(link)
        hello = make_hello(own, challenge or heard, secrets.token_hex(NONCE_BYTES), standing)
        await link.send(FrameType.HELLO, encode_message(hello))
        frame = await link.receive()
    await link.close()
    assert frame.type is FrameType.ABORT, frame
    return bytes(frame.payload).decode()


async def challenge_all(listener: MemoryListener) -> None:
    """Say to whoever comes what a receiver says first, and nothing after it."""
    links: list[Link] = []
    while True:
        links.append(Link(await listener.accept(), 7))
        await links[-1].send(FrameType.CHALLENGE, encode_message(Challenge(nonce="0" * 64)))


async def goes_on(pair: Pair, made: int) -> None:
    """Check that the link that stands was not touched."""
    await pair.until(EPOCHS)
    assert bytes(pair.handed) == STREAM
    assert pair.sender is not None
    assert pair.sender.resuming is not None
    assert pair.sender.resuming.resumed == made


@pytest.mark.parametrize(
    ("changed", "standing", "words"),
    [
        ({}, None, "this pairing has its sender already"),
        ({"secret": b"x" * 32}, Standing(1, 0), "does not know this pairing's secret"),
        ({"pairing": "b" * 32}, Standing(1, 0), "the sender has pairing"),
        ({"guest": "other"}, Standing(1, 0), "the sender has guest"),
        ({"host": "host-c"}, Standing(1, 0), "the sender has sender"),
        ({}, Standing(1, 1 << 40), "the other side has 1099511627776 bytes"),
    ],
)
async def test_who_may_not_mend_the_link_is_sent_away_and_the_link_goes_on(
    changed: dict[str, object], standing: Standing | None, words: str
) -> None:
    async with linked() as pair:
        pair.begin(FIRST + REST)
        await pair.until(1)
        assert words in await knock(pair, spec("send", **changed), standing)
        await goes_on(pair, 0)


async def test_another_generation_is_sent_away_and_the_link_goes_on() -> None:
    async with linked() as pair:
        pair.begin(STREAM)
        link = Link(pair.network.call(0), 8)
        with pytest.raises((PeerUnreachable, StreamError)):
            await hear_challenge(link)
        await link.close()
        await goes_on(pair, 0)


async def test_a_hello_that_was_recorded_is_of_no_use() -> None:
    async with linked() as pair:
        pair.begin(STREAM)
        recorded = Challenge(nonce="0" * 64)
        said = await knock(pair, pair.send_spec, Standing(1, 0), recorded)
        assert "does not know this pairing's secret" in said
        await goes_on(pair, 0)


async def test_a_connection_that_is_not_newer_than_the_present_one_is_sent_away() -> None:
    async with linked() as pair:
        pair.begin(STREAM)
        pair.network.made[0].cut()
        assert pair.receiver is not None
        resuming = pair.receiver.resuming
        assert resuming is not None
        await pair.until_so(lambda: resuming.resumed == 1)
        said = await knock(pair, pair.send_spec, Standing(1, 0))
        assert "connection 1 is not newer than 1" in said
        await goes_on(pair, 1)


async def test_nobody_mends_what_is_not_to_be_mended() -> None:
    async with linked(resume_bytes=0) as pair:
        assert pair.sender is not None
        assert pair.sender.resuming is None
        with pytest.raises(PeerUnreachable):
            pair.network.call(0)
        pair.begin(FIRST)
        await pair.until(1)
        pair.network.made[0].cut()
        await pair.until_ended()
        assert {each.code for each in pair.endings.values()} == {"peer.unreachable"}


@pytest.mark.parametrize("side", ["sender", "receiver"])
async def test_where_one_side_does_not_mend_the_link_ends_at_its_first_break(side: str) -> None:
    off = {"resume_bytes": 0}
    changed: dict[str, Any] = {side: off}
    async with linked(**changed) as pair:
        assert pair.sender is not None
        assert pair.receiver is not None
        assert pair.sender.resuming is pair.receiver.resuming is None
        assert not pair.sender.status().may_resume
        pair.begin(FIRST)
        await pair.until(1)
        pair.network.made[0].cut()
        await pair.until_ended()


async def test_a_link_whose_paths_are_all_gone_is_not_waited_for_and_says_why_it_broke() -> None:
    async with linked(silence_s=1.0) as pair:
        pair.begin(FIRST)
        await pair.until(1)
        pair.network.is_down = {0}
        pair.network.made[0].cut()
        await pair.until_ended()
        for ending in pair.endings.values():
            assert ending.code == "peer.unreachable"
            assert "no other connection to memory-0 was made in time: " in str(ending)
            assert "broke" in str(ending)


async def test_a_path_that_falls_silent_is_left_for_the_other_one() -> None:
    async with linked(paths=2, silence_s=6.0) as pair:
        pair.begin(FIRST)
        await pair.until(1)
        resuming = pair.resuming
        assert resuming.path == 0
        pair.network.is_down = {0}
        pair.network.made[0].stall()
        await pair.until_so(lambda: resuming.resumed > 0)
        assert resuming.path == 1
        assert pair.sender is not None
        status = pair.sender.status()
        assert (status.may_resume, status.path, status.resumed) == (True, "backup", 1)
        assert not status.HasField("broken_s")
        assert pair.receiver is not None
        # Whoever looks first closes it, and the other one only sees that.
        seen = (status.broken_by, pair.receiver.status().broken_by)
        assert any("nothing heard for 3 s" in each for each in seen), seen


async def test_the_link_goes_back_to_the_first_path_once_that_is_there_again() -> None:
    async with linked(paths=2) as pair:
        pair.network.is_down = {0}
        pair.network.made[0].cut()
        pair.begin(FIRST, back_s=0.05)
        await pair.until(1)
        resuming = pair.resuming
        assert resuming.path == 1
        pair.network.is_down = set()
        await pair.until_so(lambda: resuming.path == 0)
        assert resuming.resumed == 2


async def test_a_path_that_lets_greetings_through_and_nothing_else_is_left_for_the_other() -> None:
    async with linked(paths=2, silence_s=4.0) as pair:
        pair.begin(FIRST)
        await pair.until(1)
        resuming = pair.resuming
        await pair.until_so(lambda: resuming.has_carried)
        pair.network.is_narrow = {0}
        pair.network.made[0].cut()
        pair.send(REST)
        await pair.until_so(lambda: resuming.path == 1)
        await pair.until(EPOCHS)
        assert bytes(pair.handed) == STREAM
        # Signs of life may pass once more, before there is anything long to send.
        assert pair.network.called.count(0) in {2, 3}


async def test_one_path_that_lets_greetings_through_and_nothing_else_is_no_link() -> None:
    async with linked(silence_s=2.0) as pair:
        pair.begin(STREAM)
        pair.network.is_narrow = {0}
        pair.network.made[0].cut()
        await pair.until_ended()
        assert pair.endings["receiver"].code == "peer.silent"


async def test_a_stranger_on_the_first_path_does_not_end_a_link_on_the_other_one() -> None:
    async with linked(paths=2, silence_s=6.0) as pair:
        pair.network.is_down = {0}
        pair.network.made[0].cut()
        pair.begin(FIRST + REST, back_s=0.1)
        await pair.until(1)
        resuming = pair.resuming
        stranger = asyncio.create_task(challenge_all(pair.network.listen(0)))  # has the address now
        pair.network.is_down = set()
        await pair.until_so(lambda: resuming.resumed == 2)
        assert resuming.path == 1
        await pair.until(EPOCHS)
        assert bytes(pair.handed) == STREAM
        stranger.cancel()


async def test_a_doubted_path_is_taken_where_the_other_one_is_dead() -> None:
    async with linked(paths=2, silence_s=6.0) as pair:
        pair.begin(STREAM)
        pair.caller.judge(1, has_carried=False)
        pair.network.lag_s = {1: 0.7}  # there is no time to call it late
        pair.network.is_silent = {0}
        pair.network.made[0].cut()
        resuming = pair.resuming
        await pair.until_so(lambda: resuming.path == 1)
        await pair.until(EPOCHS)
        assert bytes(pair.handed) == STREAM


async def test_a_greeting_may_take_its_time_where_the_other_path_is_dead() -> None:
    async with linked(paths=2, silence_s=6.0) as pair:
        pair.begin(STREAM)
        pair.network.lag_s = {1: 0.6}  # three words of a greeting: more than a sixth of six seconds
        pair.network.is_silent = {0}
        pair.network.made[0].cut()
        resuming = pair.resuming
        await pair.until_so(lambda: resuming.path == 1)
        assert pair.network.called == [0, 1]
        await pair.until(EPOCHS)


async def test_a_link_is_mended_while_the_first_path_is_called_in_vain() -> None:
    async with linked(paths=2, silence_s=6.0) as pair:
        pair.network.is_silent = {0}
        pair.network.made[0].cut()
        pair.begin(STREAM, back_s=0.05)
        resuming = pair.resuming
        await pair.until_so(lambda: resuming.path == 1)
        await asyncio.sleep(0.5)  # now it waits for the first one
        pair.network.made[-1].cut()
        await pair.until_so(lambda: resuming.resumed == 2)
        await pair.until(EPOCHS)
        assert bytes(pair.handed) == STREAM


async def test_strangers_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with linked() as pair:
        pair.begin(STREAM)
        for _ in range(200):
            await pair.network.call(0).close()
            await asyncio.sleep(0.001)
        await goes_on(pair, 0)
    said = [record.getMessage() for record in caplog.records]
    assert 10 <= sum("sender.gone" in each for each in said) <= 12


async def test_what_is_kept_while_there_is_no_link_is_bounded() -> None:
    epochs = 400
    long = remus_stream(epochs).data
    assert len(long) > RESUME_BYTES * 1.2
    async with linked() as pair:
        pair.network.is_down = {0}
        pair.network.made[0].cut()
        pair.begin(long, 1 << 20)
        assert pair.sender is not None
        link, resuming = pair.sender, pair.sender.resuming
        assert resuming is not None
        await pair.until_so(lambda: resuming.kept_bytes > RESUME_BYTES // 2)
        await asyncio.sleep(0.2)
        assert resuming.kept_bytes <= RESUME_BYTES
        assert link.status().HasField("broken_s")
        assert link.status().path == ""
        pair.network.is_down = set()
        await pair.until(epochs)
        assert bytes(pair.handed) == long


async def test_the_last_word_is_not_kept_for_another_connection() -> None:
    async with linked() as pair:
        pair.begin(FIRST)
        await pair.until(1)
        assert pair.sender is not None
        pair.network.is_down = {0}
        pair.network.made[0].cut()
        resuming = pair.sender.resuming
        assert resuming is not None
        await pair.until_so(lambda: not resuming.is_attached)
        began = time.monotonic()
        await pair.sender.say_goodbye(FrameType.CLOSE, "released", "by a test")
        assert time.monotonic() - began < 1.5
        with pytest.raises(PeerUnreachable):
            await pair.sender.receive()


async def test_the_last_word_is_heard_and_ends_the_link() -> None:
    async with linked() as pair:
        pair.begin(FIRST)
        await pair.until(1)
        assert pair.sender is not None
        await pair.sender.say_goodbye(FrameType.CLOSE, "released", "by a test")
        await pair.until_ended()
        assert pair.endings["receiver"].code == "peer.released"


async def test_word_of_bytes_that_were_never_sent_is_a_broken_rule() -> None:
    async with linked() as pair:
        pair.begin(FIRST)
        await pair.until(1)
        assert pair.receiver is not None
        await pair.receiver.send(FrameType.RECEIVED, epoch=1 << 50)
        await pair.until_ended("sender")  # the other side hears nothing of why, and waits its grace
        assert pair.endings["sender"].code == "session.protocol"


async def test_a_write_that_is_cancelled_for_want_of_room_was_not_begun() -> None:
    connection = pair_end()
    resuming = Resuming(connection, RESUME_BYTES)
    await resuming.write(bytes(RESUME_BYTES - RESERVE_BYTES - 10))
    writing = asyncio.create_task(resuming.write(bytes(5000), bytes(5000)))
    await asyncio.sleep(0.01)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    assert resuming.kept_bytes == RESUME_BYTES - RESERVE_BYTES - 10
    await resuming.write(bytes(37))  # a sign of life has room all the same
    await resuming.close()


def pair_end() -> MemoryConnection:
    """Return one end of a connection that nobody reads."""
    from tests.unit.memory_network import ENDLESS, _Direction

    return MemoryConnection("memory", _Direction(ENDLESS), _Direction(ENDLESS))


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("resume-1",),
        ("resume-1:0:5",),
        ("resume-1:1",),
        ("resume-1:1:-5",),
        ("resume-2:1:5",),
        ("resume-1:1:" + "9" * 30,),
        ("resume-1:1:5:6",),
        ("delta-1:none:64:64",),
        ("resume-1:١:5",),
    ],
)
def test_what_is_no_word_of_a_later_connection_is_passed_over(words: tuple[str, ...]) -> None:
    assert Standing.of(words) is None


def test_the_word_of_a_later_connection_is_read_as_it_was_written() -> None:
    assert Standing.of(("other", str(Standing(3, 1 << 40)))) == Standing(3, 1 << 40)


async def test_a_refusal_is_told_before_a_path_that_does_not_answer() -> None:
    class Refusing:
        async def connect(self, address: str, *, timeout_s: float) -> MemoryConnection:
            raise PeerRefused("is gamma, not beta")

    async with linked(paths=2) as pair:
        pair.network.is_down = {0, 1}
        routes = list(pair.caller.routes)
        with pytest.raises(PeerUnreachable, match=r"path 0; .*path 1"):
            await Caller(pair.send_spec, routes).first(1.0)
        object.__setattr__(routes[1], "transport", Refusing())
        with pytest.raises(PeerError, match="gamma"):
            await Caller(pair.send_spec, routes).first(1.0)
