"""colod.session.protocol."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colod.errors import SessionError
from colod.session.protocol import MAX_MESSAGE_BYTES, MessageDecoder, encode_message
from colod.v1.session_pb2 import SessionCommand


def command(number: int) -> SessionCommand:
    return SessionCommand(id=number, generation=3, hand_over=SessionCommand.HandOver())


@given(st.integers(1, 60))
def test_any_split_gives_the_same_messages(step: int) -> None:
    sent = [command(number) for number in (1, 2**40, 3)]
    data = b"".join(map(encode_message, sent))
    decoder = MessageDecoder(SessionCommand)
    got = [m for at in range(0, len(data), step) for m in decoder.feed(data[at : at + step])]
    assert got == sent


def test_a_message_that_is_too_long_is_refused_before_it_comes() -> None:
    with pytest.raises(SessionError, match="limit"):
        list(MessageDecoder(SessionCommand).feed((MAX_MESSAGE_BYTES + 1).to_bytes(4, "big")))


def test_bytes_that_are_no_message_are_refused() -> None:
    with pytest.raises(SessionError):
        list(MessageDecoder(SessionCommand).feed(b"\0\0\0\x04\xff\xff\xff\xff"))


@given(st.binary(max_size=300))
def test_any_bytes_are_messages_or_refused(data: bytes) -> None:
    with contextlib.suppress(SessionError):
        list(MessageDecoder(SessionCommand).feed(data))
