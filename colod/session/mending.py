"""The sender's side of paths: whom to call where, and another connection when one breaks.

The receiver has one address on each path. All are called, the first one a moment sooner; whoever
answers first is the link. A break is no loss of the peer: for half of `silence_s`, as
`colod.session.link` counts, another connection is tried.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from colod.errors import PeerError, PeerRefused, PeerUnreachable, StreamError
from colod.session.agreement import Standing
from colod.session.ending import said
from colod.session.handshake import NONCE_BYTES, check_welcome, make_hello
from colod.session.link import Link
from colod.session.resuming import Resuming
from colod.session.spec import SessionSpec
from colod.stream.frames import (
    Challenge,
    Frame,
    FrameType,
    Welcome,
    decode_message,
    encode_message,
)
from colod.transport.base import Transport

FIRST_BACK_S: Final = 10.0
"""How often the first path is tried while another one carries the link."""

FIRST_BACK_MAX_S: Final = 600.0
"""The same at most: it doubles each time that the first path has not lasted for LASTING_S."""

LASTING_S: Final = 60.0

_HEAD_START_S: Final = 0.1
_BETWEEN_ATTEMPTS_S: Final = 0.1
_GREETING_PART: Final = 1 / 3
"""Part of `silence_s` in which whoever has answered has to prove itself."""

_GOING_BACK_PART: Final = 1 / 6
"""The same where there was a connection: the rest is for the path that it went over."""

_DOUBTED_PART: Final = 1 / 4
_DOUBTED_MAX_S: Final = 2.0
"""Part of `silence_s`, and most, that the answer of a doubted path waits for that of another one;
the receiver gives a caller five seconds in all."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Route:
    """One way to the receiver.

    Attributes:
        transport: What goes over it.
        address: Where the receiver listens there.
    """

    transport: Transport
    address: str


@dataclass(frozen=True, slots=True)
class Answer:
    """Somebody who has answered, and has proved nothing yet.

    Attributes:
        link: To it.
        challenge: What it said.
        path: Index of the path on which it was called.
    """

    link: Link
    challenge: Challenge
    path: int


class Caller:
    """Makes connections to the receiver, and greets it."""

    def __init__(self, spec: SessionSpec, routes: Sequence[Route]) -> None:
        """Prepare to call over `routes`, the preferred one first."""
        self._spec = spec
        self._doubted: set[int] = set()
        self.routes = tuple(routes)

    def judge(self, path: int, *, has_carried: bool) -> None:
        """Doubt a path whose connection has carried nothing, and no longer one whose has.

        To be greeted is easy: a stranger can do it, and a path on which no long packet arrives.
        """
        (self._doubted.discard if has_carried else self._doubted.add)(path)

    def forget(self) -> None:
        """Doubt no path any more."""
        self._doubted.clear()

    async def first(self, timeout_s: float) -> tuple[Link, int]:
        """Return the first link to the right receiver, and the index of its path.

        Raises:
            PeerError: If nobody answers, or somebody who is not the receiver.
            StreamError: If what answers is no session.
            TimeoutError: If it does not greet in time.
        """
        answer = await self._answer(range(len(self.routes)), timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                answer.link.agree(await self._greet(answer, None))
        except BaseException:
            await answer.link.close()
            raise
        return answer.link, answer.path

    async def again(self, link: Link, indices: Sequence[int]) -> None:
        """Have another connection take over for `link`, over one of the paths `indices`.

        What there still is of a connection serves until somebody has answered.

        Raises:
            As `first` does.
        """
        resuming = link.resuming
        assert resuming is not None
        answer = await self._answer(indices, self._spec.silence_s)
        try:
            part = _GOING_BACK_PART if resuming.is_attached else _GREETING_PART
            async with asyncio.timeout(self._spec.silence_s * part):
                number = resuming.number + 1
                resuming.claim(number)
                ours = Standing(number, await resuming.settle("another connection takes over"))
                welcome = await self._greet(answer, ours)
            theirs = Standing.of(welcome.capabilities)
            if theirs is None or theirs.number != number:
                raise StreamError(f"{link.peer_address} does not say what it has", offset=0)
            position = theirs.received
            link.take_over(answer.link, number=number, position=position, path=answer.path)
        except BaseException:
            self.judge(answer.path, has_carried=False)
            await answer.link.close()
            raise

    async def _greet(self, answer: Answer, ours: Standing | None) -> Welcome:
        nonce = secrets.token_hex(NONCE_BYTES)
        hello = make_hello(self._spec, answer.challenge, nonce, ours)
        await answer.link.send(FrameType.HELLO, encode_message(hello))
        frame = await _expect(answer.link, FrameType.WELCOME)
        welcome = decode_message(Welcome, frame.payload)
        check_welcome(self._spec, answer.challenge, hello, welcome)
        return welcome

    async def _answer(self, indices: Sequence[int], timeout_s: float) -> Answer:
        """Call over the paths `indices`; return what answers first.

        To be let in is no answer: a path on which nothing arrives can have that, too. The answer of
        one that is doubted counts once no other one can be expected.

        Raises:
            PeerError: If nothing does: why, of each path; a refusal where there is one.
            StreamError: If what answers is no session.
        """
        paths = sorted(indices, key=self._doubted.__contains__)
        tasks = [
            asyncio.create_task(self._call(path, timeout_s, _HEAD_START_S * order))
            for order, path in enumerate(paths)
        ]
        trusted = {
            task for task, path in zip(tasks, paths, strict=True) if path not in self._doubted
        }
        hold_s = min(_DOUBTED_MAX_S, self._spec.silence_s * _DOUBTED_PART)
        held_until = time.monotonic() + hold_s
        chosen: asyncio.Task[Answer] | None = None
        pending = set(tasks)
        try:
            while True:
                rest_s = held_until - time.monotonic() if pending & trusted else 0.0
                eligible = trusted if rest_s > 0 else tasks
                chosen = next(
                    (each for each in tasks if each in eligible and _has_answer(each)), None
                )
                if chosen is not None or not pending:
                    break
                _, pending = await asyncio.wait(
                    pending,
                    timeout=rest_s if rest_s > 0 else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
            if chosen is None:
                raise _failure([task.exception() for task in tasks])
            return chosen.result()
        finally:
            await _hang_up([task for task in tasks if task is not chosen])

    async def _call(self, path: int, timeout_s: float, delay_s: float) -> Answer:
        if delay_s:
            await asyncio.sleep(delay_s)
        route = self.routes[path]
        connection = await route.transport.connect(route.address, timeout_s=timeout_s)
        link = Link(connection, self._spec.generation, self._spec.rate_bytes_per_s)
        try:
            async with asyncio.timeout(timeout_s):
                return Answer(link, await hear_challenge(link), path)
        except TimeoutError as error:
            await link.close()
            message = f"{link.peer_address} does not greet within {timeout_s:g} s"
            raise PeerUnreachable(message) from error
        except BaseException:
            await link.close()
            raise


async def mend(link: Link, caller: Caller, *, back_s: float = FIRST_BACK_S) -> None:
    """Make another connection whenever there is none, and go back to the first path; never returns.

    Args:
        link: Which outlives breaks.
        caller: Makes the connections.
        back_s: How often the first path is tried while another one carries the link.

    Raises:
        PeerUnreachable: Once no other connection may take over.
    """
    resuming = link.resuming
    assert resuming is not None
    everywhere, wait_s = range(len(caller.routes)), back_s
    judged_at: float | None = None
    while True:
        if not await _broken_within(resuming, wait_s if resuming.path else None):
            if await _go_back(link, caller, resuming):
                wait_s = _longer(wait_s)
            continue
        if (broken_at := resuming.broken_at) is not None and broken_at != judged_at:
            judged_at = broken_at  # once for each break, however many attempts it takes
            has_lasted = broken_at - resuming.attached_at >= LASTING_S
            if has_lasted:
                caller.forget()
            caller.judge(resuming.path, has_carried=resuming.has_carried)
            if resuming.path == 0:
                wait_s = back_s if has_lasted else _longer(wait_s)
        await _try(link, caller, everywhere)


async def _go_back(link: Link, caller: Caller, resuming: Resuming) -> bool:
    """Try the first path, but no longer than another one carries the link.

    Returns:
        Whether it has cost the other path's connection for nothing.
    """
    number = resuming.number
    trying = asyncio.create_task(_try(link, caller, range(1)))
    breaking = asyncio.create_task(resuming.until_broken())
    try:
        await asyncio.wait({trying, breaking}, return_when=asyncio.FIRST_COMPLETED)
        if trying.done() or resuming.number > number:  # it was the attempt that broke it
            await trying
    finally:
        for task in (trying, breaking):
            task.cancel()
        await asyncio.gather(trying, breaking, return_exceptions=True)
    return resuming.number > number and not resuming.is_attached


def _longer(wait_s: float) -> float:
    return min(FIRST_BACK_MAX_S, wait_s * 2)


async def _try(link: Link, caller: Caller, indices: Sequence[int]) -> None:
    """Make one attempt; what fails is logged, and tried again by the caller."""
    try:
        await caller.again(link, indices)
    except (PeerError, StreamError, TimeoutError) as error:
        # Also a refusal: on another path somebody else may listen by now.
        _log.info("link.not_mended error=%r", str(error) or "no greeting in time")
        await asyncio.sleep(_BETWEEN_ATTEMPTS_S)


async def _broken_within(resuming: Resuming, limit_s: float | None) -> bool:
    """Wait for a break, for `limit_s` seconds where that is given; return whether there is one."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            await resuming.until_broken()
    return not resuming.is_attached


def _has_answer(task: asyncio.Task[Answer]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


def _failure(errors: Sequence[BaseException | None]) -> BaseException:
    """Return the one error to raise for all of `errors`."""
    for error in errors:
        if not isinstance(error, PeerUnreachable):
            assert error is not None
            return error
    if len(errors) == 1:
        return errors[0] or AssertionError("no error")
    return PeerUnreachable("; ".join(str(error) for error in errors))


async def _hang_up(tasks: Sequence[asyncio.Task[Answer]]) -> None:
    """End `tasks`, and the connections of those that have one all the same."""
    for task in tasks:
        task.cancel()
    for made in await asyncio.gather(*tasks, return_exceptions=True):
        if not isinstance(made, BaseException):
            await made.link.close()


async def hear_challenge(link: Link) -> Challenge:
    """Return what a receiver says first.

    Raises:
        PeerError: If it sends this side away.
        StreamError: If it says something else.
    """
    return decode_message(Challenge, (await _expect(link, FrameType.CHALLENGE)).payload)


async def _expect(link: Link, kind: FrameType) -> Frame:
    frame = await link.receive()
    if frame.type is FrameType.ABORT:
        code, reason = said(frame.payload)
        raise PeerRefused(f"{link.peer_address} refused: {code}: {reason}")
    if frame.type is not kind:
        raise StreamError(f"{frame.type.name} instead of {kind.name}", offset=0)
    return frame
