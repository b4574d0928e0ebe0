"""Whatever comes in the place of a handshake: an error that says so, and nobody is let in."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colod.errors import PeerError, PeerUnreachable
from colod.transport.sockets import SocketConnection
from colod.transport.tlsconnection import TlsConnection, make_context
from tests.unit.transport_subjects import ALPHA, BETA, credentials, make_pki

LIMIT_S = 20.0
WHOLE = 1 << 20
HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"  # as every client begins. RFC 8446, 4.1.2


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pki(tmp_path_factory.mktemp("pki"), ALPHA, BETA)


def connection(sock: socket.socket, directory: Path, *, is_listener: bool) -> TlsConnection:
    own, other = (BETA, ALPHA) if is_listener else (ALPHA, BETA)
    context = make_context(credentials(directory, own, other), is_listener=is_listener)
    return TlsConnection(SocketConnection(sock, "test"), context, is_listener=is_listener)


@given(words=st.binary(max_size=600), begins_well=st.booleans(), is_listener=st.booleans())
@settings(max_examples=80)
def test_no_bytes_of_a_stranger_get_past_the_handshake(
    certificates: Path, words: bytes, begins_well: bool, is_listener: bool
) -> None:
    async def run() -> None:
        near, far = socket.socketpair()
        with far:
            far.sendall((HELLO if begins_well else b"") + words)
            far.shutdown(socket.SHUT_WR)
            tls = connection(near, certificates, is_listener=is_listener)
            with pytest.raises(PeerError):
                await asyncio.wait_for(tls.prove(ALPHA if is_listener else BETA), LIMIT_S)
            await tls.close()

    asyncio.run(run())


@given(there=st.integers(0, 2500), back=st.integers(0, 2500))
@settings(max_examples=60)
def test_a_handshake_that_is_cut_anywhere_lets_nobody_in(
    certificates: Path, there: int, back: int
) -> None:
    asyncio.run(meet(certificates, there, back))


def test_a_handshake_that_is_not_cut_lets_both_in(certificates: Path) -> None:
    is_caller_in, is_listener_in = asyncio.run(meet(certificates, WHOLE, WHOLE))
    assert is_caller_in
    assert is_listener_in


@given(size=st.integers(0, 60_000), cut=st.integers(0, 70_000), read=st.integers(1, 20_000))
@settings(max_examples=60)
def test_a_stream_that_is_cut_anywhere_is_a_beginning_and_an_error(
    certificates: Path, size: int, cut: int, read: int
) -> None:
    wanted = hashlib.shake_128(b"stream").digest(size)

    async def run() -> None:
        async with wired(certificates) as (caller, listener, wires):
            assert all(await asyncio.gather(proves(caller, BETA), proves(listener, ALPHA)))
            wires[0].left = cut
            await caller.write(wanted)
            await caller.close()
            got, is_ended = await read_all(listener, read)
            assert wanted.startswith(got)
            assert is_ended == (got == wanted and not wires[0].has_cut)

    asyncio.run(run())


async def read_all(connection: TlsConnection, size: int) -> tuple[bytes, bool]:
    """Return what comes, and whether it ended as the other side meant it to."""
    got, buffer = bytearray(), memoryview(bytearray(size))
    try:
        while count := await asyncio.wait_for(connection.read_into(buffer), LIMIT_S):
            got += buffer[:count]
    except PeerUnreachable:
        return bytes(got), False
    return bytes(got), True


async def meet(directory: Path, there: int, back: int) -> tuple[bool, bool]:
    """Shake hands over a wire that passes so many bytes each way.

    Returns:
        Whether the caller and the listener took the other for proved; neither did if bytes for it
        were lost.
    """
    async with wired(directory) as (caller, listener, wires), asyncio.timeout(LIMIT_S):
        wires[0].left, wires[1].left = there, back
        is_caller_in, is_listener_in = await asyncio.gather(
            proves(caller, BETA), proves(listener, ALPHA)
        )
        assert not (is_caller_in and wires[1].has_cut)
        assert not (is_listener_in and wires[0].has_cut)
        return is_caller_in, is_listener_in


@contextlib.asynccontextmanager
async def wired(
    directory: Path,
) -> AsyncIterator[tuple[TlsConnection, TlsConnection, tuple[Wire, Wire]]]:
    """Give a caller, a listener, and what lies between them there and back."""
    (ours, near), (far, theirs) = socket.socketpair(), socket.socketpair()
    for sock in (near, far):
        sock.setblocking(False)
    ends = (
        connection(ours, directory, is_listener=False),
        connection(theirs, directory, is_listener=True),
    )
    wires = Wire(near, far), Wire(far, near)
    passing = [asyncio.create_task(wire.run()) for wire in wires]
    try:
        yield *ends, wires
    finally:
        for end in ends:
            await end.close()
        for task in passing:
            task.cancel()
        await asyncio.gather(*passing, return_exceptions=True)
        near.close()
        far.close()


async def proves(connection: TlsConnection, peer: str) -> bool:
    try:
        await connection.prove(peer)
    except PeerError:
        await connection.abandon()
        return False
    return True


class Wire:
    """One direction between the two; it ends after so many bytes that are `left`."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.left = WHOLE
        self.has_cut = False
        self._source, self._sink = source, sink

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while got := await loop.sock_recv(self._source, 4096):
                self.has_cut = self.has_cut or len(got) > self.left
                await loop.sock_sendall(self._sink, got[: self.left])
                self.left -= min(len(got), self.left)
                if self.has_cut:
                    break
            self._sink.shutdown(socket.SHUT_WR)
            while await loop.sock_recv(self._source, 4096):
                """What comes after the cut is lost."""
