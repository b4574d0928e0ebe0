"""Chunks: an end is believed only where it is marked, and nobody makes this side hold much."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colod.errors import PeerRefused, PeerUnreachable
from colod.transport.chunked import CHUNK_MAX_BYTES, PREFACE, ChunkedConnection
from colod.transport.sockets import SocketConnection

LIMIT_S = 20.0


@contextlib.asynccontextmanager
async def facing() -> AsyncIterator[tuple[ChunkedConnection, socket.socket]]:
    """Give a connection, and the bare socket at its other end."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    connection = ChunkedConnection(SocketConnection(ours, "there"))
    try:
        yield connection, theirs
    finally:
        await connection.close()
        theirs.close()


async def read_all(connection: ChunkedConnection, size: int = 7) -> tuple[bytes, bool]:
    """Return what comes, and whether it ended as the other side meant it to."""
    got, buffer = bytearray(), memoryview(bytearray(size))
    try:
        while count := await asyncio.wait_for(connection.read_into(buffer), LIMIT_S):
            got += buffer[:count]
    except PeerUnreachable:
        return bytes(got), False
    return bytes(got), True


def encoded(*chunks: bytes) -> bytes:
    return b"".join(len(chunk).to_bytes(4) + chunk for chunk in (*chunks, b""))


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=40), max_size=5),
    cut=st.integers(0, 250),
    read=st.integers(1, 50),
)
@settings(max_examples=60)
def test_a_stream_that_is_cut_anywhere_is_a_beginning_and_an_error(
    chunks: list[bytes], cut: int, read: int
) -> None:
    whole = encoded(*chunks)

    async def run() -> None:
        async with facing() as (connection, theirs):
            theirs.sendall(whole[:cut])
            theirs.shutdown(socket.SHUT_WR)
            got, is_ended = await read_all(connection, read)
            assert b"".join(chunks).startswith(got)
            assert is_ended == (cut >= len(whole))
            assert not is_ended or got == b"".join(chunks)

    asyncio.run(run())


async def test_what_is_written_is_in_chunks_of_bounded_size_and_its_end_is_marked() -> None:
    async with facing() as (connection, theirs):
        content = bytes(range(256)) * (CHUNK_MAX_BYTES // 256) + b"rest"

        async def write() -> None:
            await connection.write(content[:10], memoryview(content)[10:])
            await connection.close()

        writing = asyncio.create_task(write())
        got = bytearray()
        while part := await asyncio.get_running_loop().sock_recv(theirs, 1 << 16):
            got += part
        await writing
        assert got == encoded(content[:CHUNK_MAX_BYTES], b"rest")


async def test_a_chunk_that_is_too_long_breaks_the_connection() -> None:
    async with facing() as (connection, theirs):
        theirs.sendall((CHUNK_MAX_BYTES + 1).to_bytes(4) + b"x")
        with pytest.raises(PeerUnreachable, match="at most 1048576"):
            await connection.read_into(memoryview(bytearray(1)))
        with pytest.raises(PeerUnreachable):
            await connection.write(b"x")


@pytest.mark.parametrize("said", [b"SSH-2.0-OpenSSH\r\n", PREFACE[:-1] + b"x", b"\x00"])
async def test_who_says_something_else_is_refused_at_its_first_wrong_byte(said: bytes) -> None:
    for greet in (ChunkedConnection.hail, ChunkedConnection.answer):
        async with facing() as (connection, theirs):
            theirs.sendall(said)
            with pytest.raises(PeerRefused, match="no session of colod"):
                await asyncio.wait_for(greet(connection), LIMIT_S)


async def test_a_caller_who_leaves_in_its_preface_is_unreachable() -> None:
    async with facing() as (connection, theirs):
        theirs.sendall(PREFACE[:3])
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(PeerUnreachable, match="without a mark"):
            await asyncio.wait_for(connection.answer(), LIMIT_S)
