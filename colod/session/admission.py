"""The receiver's door: of all who connect, the one right sender is let in.

Where both sides mend their link the door stays: the same sender, proved anew, may bring another
connection, over any path. It takes the place of the one before, for the sender knows sooner than
the receiver when that is dead; a connection that is not newer, as a second one, is sent away.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Sequence
from typing import Any

from colod.errors import ColodError, NetworkError, PeerRefused, PeerUnreachable, StreamError
from colod.session.agreement import RESUME, Standing
from colod.session.handshake import NONCE_BYTES, accept_hello, check_hello
from colod.session.link import Link
from colod.session.spec import SessionSpec
from colod.stream.frames import Challenge, FrameType, Hello, decode_message, encode_message
from colod.transport.base import Connection, Listener
from colod.transport.crowd import Crowd, Grumble

GREETING_S = 5.0
"""Time for a connection to prove that it is the right one."""

_log = logging.getLogger(__name__)


class Admission:
    """Lets exactly one sender in, and then only that one again."""

    def __init__(self, spec: SessionSpec, listeners: Sequence[Listener]) -> None:
        """Prepare to accept on `listeners`, one for each path.

        They are closed once the sender is in, or, where links are mended, with `readmit`.
        """
        self._spec = spec
        self._listeners = tuple(listeners)
        self._grumble = Grumble(_log)
        self._crowd = Crowd(self._grumble)
        self._is_taken = False
        self._admitted: asyncio.Queue[Link] = asyncio.Queue()
        self._link: Link | None = None
        self.path = 0

    async def sender(self) -> Link:
        """Return the link to the right sender, however many wrong ones come before it.

        `path` tells over which path it came. Where it says that it mends its link, `readmit` is
        next.

        Raises:
            NetworkError: If every listener is broken.
        """
        accepting = asyncio.create_task(self._accept_all())
        admitting = asyncio.create_task(self._admitted.get())
        tasks = {accepting, admitting}
        may_return = False
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if not admitting.done():
                accepting.result()
            link = await admitting
            may_return = RESUME in link.capabilities
            return link
        finally:
            await self._end(*tasks)
            if not may_return:
                await self._close()

    async def readmit(self, link: Link) -> None:
        """Let the sender of `link` bring other connections for as long as this runs.

        Never returns; whatever happens to the listeners, the link goes on with what it has.
        """
        self._link = link
        try:
            with contextlib.suppress(NetworkError):
                await self._accept_all()
            await asyncio.Event().wait()
        finally:
            await self._end()
            await self._close()

    async def _accept_all(self) -> None:
        """Meet whoever comes over any path.

        Raises:
            NetworkError: Once no listener is left.
        """
        tasks = [
            asyncio.create_task(self._accept(listener, path))
            for path, listener in enumerate(self._listeners)
        ]
        try:
            for task in tasks:
                with contextlib.suppress(NetworkError):
                    await task
            await tasks[-1]
        finally:
            await self._end(*tasks)

    async def _accept(self, listener: Listener, path: int) -> None:
        while True:
            try:
                connection = await listener.accept()
            except NetworkError as error:
                _log.warning("listener.broken path=%d error=%r", path, str(error))
                raise
            self._crowd.meet(connection, self._meet(connection, path))
            await asyncio.sleep(0)  # callers that never cease must not starve the rest

    async def _end(self, *tasks: asyncio.Task[Any]) -> None:
        """End `tasks`, and whoever has not proved anything yet."""
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._crowd.disperse()

    async def _close(self) -> None:
        for listener in self._listeners:
            await listener.close()

    async def _meet(self, connection: Connection, path: int) -> None:
        link = Link(connection, self._spec.generation)
        is_in = False
        try:
            async with asyncio.timeout(GREETING_S):
                await self._greet(link, path)
            is_in = True
        except (PeerUnreachable, TimeoutError) as error:
            self._sent_away(logging.INFO, "sender.gone", link, error)
        except ColodError as error:
            self._sent_away(logging.WARNING, "sender.refused", link, error)
            await link.say_goodbye(FrameType.ABORT, "refused", str(error))
        finally:
            if not is_in:
                await link.close()

    def _sent_away(self, level: int, event: str, link: Link, error: Exception) -> None:
        self._grumble.log(level, f"{event} address=%s reason=%r", link.peer_address, str(error))

    async def _greet(self, link: Link, path: int) -> None:
        challenge = Challenge(nonce=secrets.token_hex(NONCE_BYTES))
        await link.send(FrameType.CHALLENGE, encode_message(challenge))
        frame = await link.receive()
        if frame.type is not FrameType.HELLO:
            raise StreamError(f"{frame.type.name} instead of HELLO", offset=0)
        hello = decode_message(Hello, frame.payload)
        if (theirs := Standing.of(hello.capabilities)) is not None:
            await self._take_over(link, path, challenge, hello, theirs)
        else:
            await self._let_in(link, path, challenge, hello)

    async def _let_in(self, link: Link, path: int, challenge: Challenge, hello: Hello) -> None:
        welcome = accept_hello(self._spec, challenge, hello)
        self._crowd.trust()
        if self._is_taken:
            raise PeerRefused("this pairing has its sender already")
        self._is_taken = True
        try:
            await link.send(FrameType.WELCOME, encode_message(welcome))
        except BaseException:
            self._is_taken = False
            raise
        link.trust(welcome)
        self.path = path
        self._admitted.put_nowait(link)

    async def _take_over(
        self, link: Link, path: int, challenge: Challenge, hello: Hello, theirs: Standing
    ) -> None:
        """Have the sender's new connection take the place of its last one."""
        check_hello(self._spec, challenge, hello)
        self._crowd.trust()
        known = self._link
        if known is None or (resuming := known.resuming) is None:
            raise PeerRefused("there is no link here that could be mended")
        resuming.check(theirs.number, theirs.received)
        resuming.claim(theirs.number)  # before anything is waited for: of two, one is overtaken
        received = await resuming.settle("the sender has made another connection")
        ours = Standing(theirs.number, received)
        welcome = accept_hello(self._spec, challenge, hello, ours)
        await link.send(FrameType.WELCOME, encode_message(welcome))
        known.take_over(link, number=theirs.number, position=theirs.received, path=path)
