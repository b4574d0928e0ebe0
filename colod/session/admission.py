"""The receiver's door: of all who connect, the one right sender is let in."""

from __future__ import annotations

import asyncio
import logging
import secrets

from colod.errors import ColodError, PeerRefused, PeerUnreachable, StreamError
from colod.session.handshake import NONCE_BYTES, accept_hello
from colod.session.link import Link
from colod.session.spec import SessionSpec
from colod.stream.frames import Challenge, FrameType, Hello, decode_message, encode_message
from colod.transport.base import Connection, Listener

MAX_STRANGERS = 8
"""Connections that may be unauthenticated at a time; more wait in the kernel's queue."""

GREETING_S = 5.0
"""Time for a connection to prove that it is the right one."""

_log = logging.getLogger(__name__)


class Admission:
    """Lets exactly one sender in."""

    def __init__(self, spec: SessionSpec, listener: Listener) -> None:
        """Prepare to accept on `listener`, which is closed once the sender is in."""
        self._spec = spec
        self._listener = listener
        self._slots = asyncio.Semaphore(MAX_STRANGERS)
        self._is_taken = False
        self._admitted: asyncio.Queue[Link] = asyncio.Queue()
        self._greeting: set[asyncio.Task[None]] = set()

    async def sender(self) -> Link:
        """Return the link to the right sender, however many wrong ones come before it.

        Raises:
            NetworkError: If the listener is broken.
        """
        accepting = asyncio.create_task(self._accept())
        admitting = asyncio.create_task(self._admitted.get())
        tasks = {accepting, admitting}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if not admitting.done():
                accepting.result()
            return await admitting
        finally:
            for task in (*tasks, *self._greeting):
                task.cancel()
            await asyncio.gather(*tasks, *self._greeting, return_exceptions=True)
            await self._listener.close()

    async def _accept(self) -> None:
        while True:
            await self._slots.acquire()
            connection = await self._listener.accept()
            task = asyncio.create_task(self._meet(connection))
            self._greeting.add(task)
            task.add_done_callback(self._leave)

    def _leave(self, task: asyncio.Task[None]) -> None:
        self._greeting.discard(task)
        self._slots.release()

    async def _meet(self, connection: Connection) -> None:
        link = Link(connection, self._spec.generation)
        is_in = False
        try:
            async with asyncio.timeout(GREETING_S):
                await self._greet(link)
            is_in = True
        except (PeerUnreachable, TimeoutError) as error:
            _log.info("sender.gone address=%s reason=%r", link.peer_address, str(error))
        except ColodError as error:
            _log.warning("sender.refused address=%s reason=%r", link.peer_address, str(error))
            await link.say_goodbye(FrameType.ABORT, "refused", str(error))
        finally:
            if not is_in:
                await link.close()

    async def _greet(self, link: Link) -> None:
        challenge = Challenge(nonce=secrets.token_hex(NONCE_BYTES))
        await link.send(FrameType.CHALLENGE, encode_message(challenge))
        frame = await link.receive()
        if frame.type is not FrameType.HELLO:
            raise StreamError(f"{frame.type.name} instead of HELLO", offset=0)
        hello = decode_message(Hello, frame.payload)
        welcome = accept_hello(self._spec, challenge, hello)
        if self._is_taken:
            raise PeerRefused("this pairing has its sender already")
        self._is_taken = True
        try:
            await link.send(FrameType.WELCOME, encode_message(welcome))
        except BaseException:
            self._is_taken = False
            raise
        link.trust(welcome)
        self._admitted.put_nowait(link)
