"""What is done for as long as a link lives, and how it is told that it does not any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from colod.errors import PeerUnreachable
from colod.session.ending import Ending
from colod.session.link import PATH_SILENCE, Link, OnFrame, cancel
from colod.session.report import Report
from colod.session.spec import SessionSpec

# After a write failed: time in which its reason, sent by the other side before, may be read.
_REASON_S = 1.0


async def live(
    link: Link,
    spec: SessionSpec,
    report: Report,
    *,
    on_frame: OnFrame,
    is_daemon_up: Callable[[], bool],
    others: Sequence[Coroutine[Any, Any, None]] = (),
) -> Ending:
    """Keep the link alive and return how it ended.

    Args:
        link: To a peer that has proved who it is.
        spec: The session's.
        report: Where the peer's word on its daemon is noted.
        on_frame: Takes each frame that is not about the connection.
        is_daemon_up: Whether this side's daemon is there.
        others: What else is done for as long as the link lives; it may end the link by raising.
    """
    link.expect_turns(spec.silence_s)
    work = (
        link.listen(report, on_frame),
        _lenient(link.beat(spec.ping_interval_s, is_daemon_up)),
        link.watch(spec.silence_s),
        *(_lenient(other) for other in others),
    )
    if link.resuming is not None:
        work = (*work, link.patrol(spec.silence_s * PATH_SILENCE))
    tasks = [asyncio.create_task(part) for part in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        ending = _ending_of(next(task for task in tasks if task in done))
        if ending.is_unheard:
            # A write to a dead link stands still, while the other host may be taking the guest
            # over: whoever has to know of this end must not wait for the end of a frame.
            cancel(tasks)
        return ending
    finally:
        await link.stop(tasks)


async def _lenient(work: Coroutine[Any, Any, None]) -> None:
    """Let a failed write wait for the reader, which may find out why."""
    try:
        await work
    except PeerUnreachable:
        await asyncio.sleep(_REASON_S)
        raise


def _ending_of(task: asyncio.Task[None]) -> Ending:
    error = task.exception()
    if isinstance(error, Ending):
        return error
    if isinstance(error, PeerUnreachable):
        return Ending.peer_lost("peer.unreachable", str(error))
    assert error is not None, "work for a link only ends by raising"
    raise error
