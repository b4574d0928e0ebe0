"""Strangers at the door: who they are, and checks of what they may not do. These need some."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Final

from colod.transport.testing.bench import Bench, Nonconformity, Stranger, pattern
from colod.transport.testing.relay import Dial

_WORDS: Final[Mapping[str, bytes]] = {
    "silent": b"",
    "talking nonsense": pattern(4096, "nonsense"),
    "of the web": b"GET / HTTP/1.1\r\nHost: alpha\r\n\r\n",
    # A handshake record of 512 bytes whose last 506 never come. Spec: RFC 8446, 5.1.
    "stopping in its first record": b"\x16\x03\x01\x02\x00\x01",
}


def strangers_over(dial: Dial) -> Mapping[str, Stranger]:
    """Return strangers that come by `dial`: silent, talking nonsense, leaving in the middle."""
    staying = {name: partial(_stay, dial, words) for name, words in _WORDS.items()}
    leaving = {f"{name}, leaving": partial(_leave, dial, words) for name, words in _WORDS.items()}
    return {**staying, **leaving}


@contextlib.asynccontextmanager
async def _stay(dial: Dial, words: bytes, address: str) -> AsyncIterator[None]:
    sock = await _speak(dial, words, address)
    try:
        yield
    finally:
        sock.close()


@contextlib.asynccontextmanager
async def _leave(dial: Dial, words: bytes, address: str) -> AsyncIterator[None]:
    (await _speak(dial, words, address)).close()
    yield


async def _speak(dial: Dial, words: bytes, address: str) -> socket.socket:
    sock = await dial(address)
    try:
        with contextlib.suppress(OSError):  # sent away already
            await asyncio.get_running_loop().sock_sendall(sock, words)
    except BaseException:
        sock.close()
        raise
    return sock


async def a_stranger_holds_nobody_up(bench: Bench) -> None:
    """The peer gets in beside a stranger and after one."""
    listener = await bench.listen()
    bench.serve(listener)
    for number, (name, knock) in enumerate(bench.subject.strangers.items()):
        async with knock(listener.address):
            what = f"connect beside a stranger {name}"
            await bench.meet(listener.address, number, what)


async def a_stranger_is_not_accepted(bench: Bench) -> None:
    """Where the transport proves who the peer is, nobody else gets as far as the session."""
    listener = await bench.listen()
    accepting = bench.start(bench.accept(listener))
    for name, knock in bench.subject.strangers.items():
        async with knock(listener.address):
            if not await bench.waits(accepting):
                raise Nonconformity(f"a stranger {name}: accepted, {accepting!r}")
    ours = await bench.connect(listener.address)
    theirs = await bench.within(accepting, "accept the peer after strangers")
    await bench.within(ours.write(b"me"), "write")
    await bench.expect(theirs, b"me", "the peer after strangers")
