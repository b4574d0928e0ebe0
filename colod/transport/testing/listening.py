"""Checks of listening and connecting: who is reached, in what time, and who is not."""

from __future__ import annotations

import asyncio

from colod.errors import NetworkError, PeerError, PeerUnreachable
from colod.transport.base import Connection
from colod.transport.testing.bench import Bench, Nonconformity

_NO_ADDRESSES = ("", " ", "nobody", "\x00", "a\x00b", "[", "x" * 5000, "/does/not/exist:1:2")
_SLACK_S = 1.0  # a busy machine's own time beyond the one that was given
_SHORT_S = 0.5


async def each_end_has_an_address_for_messages(bench: Bench) -> None:
    """Logs name the other side."""
    listener = await bench.listen()
    bench.serve(listener)
    connection = await bench.connect(listener.address)
    for what, address in (
        ("listener.address", listener.address),
        ("connection.peer_address", connection.peer_address),
    ):
        if not address or not address.isprintable():
            raise Nonconformity(f"{what}: {address!r}, want printable text")


async def nobody_there_is_unreachable(bench: Bench) -> None:
    """An address where nobody listens any more."""
    listener = await bench.listen()
    address = listener.address
    await bench.within(listener.close(), "close a listener")
    connecting = bench.subject.sender.connect(address, timeout_s=bench.subject.patience_s / 2)
    await bench.fails(connecting, PeerUnreachable, "connect where nobody listens")


async def no_address_is_unreachable(bench: Bench) -> None:
    """What the peer's daemon gave may be anything."""
    for address in _NO_ADDRESSES:
        connecting = bench.subject.sender.connect(address, timeout_s=_SHORT_S)
        await bench.fails(connecting, PeerUnreachable, f"connect to {address[:20]!r}")


async def connecting_to_silence_ends_in_time(bench: Bench) -> None:
    """Where not even a kernel answers; this needs a relay."""
    listener = await bench.listen()
    relay = await bench.relay(listener.address)
    await relay.deafen()
    await _ends_in_time(bench, relay.address, must_fail=True)


async def connecting_to_a_mute_listener_ends_in_time(bench: Bench) -> None:
    """Where somebody takes the connection and says nothing; this needs a relay."""
    listener = await bench.listen()
    relay = await bench.relay(listener.address)
    await listener.close()
    relay.mute()
    await _ends_in_time(bench, relay.address, must_fail=bench.subject.proves_peer)


async def _ends_in_time(bench: Bench, address: str, *, must_fail: bool) -> None:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    connecting = bench.start(bench.subject.sender.connect(address, timeout_s=_SHORT_S))
    await asyncio.wait([connecting], timeout=_SHORT_S + _SLACK_S + bench.subject.quiet_s)
    if not connecting.done():
        took_s = loop.time() - begun
        raise Nonconformity(f"connect with timeout_s={_SHORT_S}: goes on after {took_s:.1f} s")
    if connecting.exception() is None:
        await connecting.result().close()
        if must_fail:
            raise Nonconformity("connect to somebody who is silent: returned a connection")
        return
    await bench.fails(connecting, PeerUnreachable, "connect to somebody who is silent")


async def connections_come_one_after_the_other(bench: Bench) -> None:
    """Each is the listener's next one, and the last leaves as little as the first."""
    listener = await bench.listen()
    bench.serve(listener)
    for number in range(bench.subject.rounds):
        await bench.meet(listener.address, number, f"connection {number} in turn")


async def connections_at_the_same_time_are_not_crossed(bench: Bench) -> None:
    """Each pair of ends is one connection."""
    listener = await bench.listen()
    bench.serve(listener)
    meetings = [
        bench.start(bench.meet(listener.address, number, f"connection {number} of six"))
        for number in range(6)
    ]
    for meeting in meetings:
        await bench.within(meeting, "six connections at the same time")


async def listeners_have_addresses_of_their_own(bench: Bench) -> None:
    """Sessions of several guests listen at the same time."""
    first, second = await bench.listen(), await bench.listen()
    if first.address == second.address:
        raise Nonconformity(f"two listeners have one address, {first.address}")
    accepting = bench.start(first.accept())
    bench.serve(second)
    await bench.meet(second.address, 2, "connect to the second of two listeners")
    if accepting.done():
        raise Nonconformity("connect to the second of two listeners: the first one accepted")


async def connections_outlive_their_listener(bench: Bench) -> None:
    """The receiver stops to listen once its sender is in."""
    listener = await bench.listen()
    accepting = bench.start(bench.accept(listener))
    ours = await bench.connect(listener.address)
    theirs = await bench.within(accepting, "accept")
    await bench.within(listener.close(), "close a listener")
    await bench.within(ours.write(b"on"), "write after the listener was closed")
    await bench.expect(theirs, b"on", "after the listener was closed")


async def closing_a_listener_wakes_accept(bench: Bench) -> None:
    """An accept that waits, and each later one, says that there is no listener."""
    listener = await bench.listen()
    accepting = bench.start(listener.accept())
    if not await bench.waits(accepting):
        raise Nonconformity(f"accept with nobody there: {accepting!r}, where it has to wait")
    await bench.within(listener.close(), "close a listener while accept waits")
    await bench.fails(accepting, NetworkError, "an accept that waited when its listener closed")
    await bench.fails(listener.accept(), NetworkError, "accept after its listener was closed")
    await bench.within(listener.close(), "close a listener again")


async def closing_a_listener_at_any_moment_leaves_nothing(bench: Bench) -> None:
    """Also where somebody is on the way, and was accepted by nobody."""
    subject = bench.subject
    for number in range(subject.rounds):
        listener = await bench.listen()
        accepting = bench.start(listener.accept())
        connecting = bench.start(
            subject.sender.connect(listener.address, timeout_s=subject.patience_s / 2)
        )
        await asyncio.sleep(0.0005 * (number // 2))
        if number % 2:
            accepting.cancel()
        if number % 4 == 1:
            await bench.waits(connecting)
        await bench.within(listener.close(), "close a listener to which somebody connects")
        for task in (accepting, connecting):
            await _end(bench, task)


async def _end(bench: Bench, task: asyncio.Task[Connection]) -> None:
    """Wait for `task`, and for the end of the connection that it gives, if it does."""
    try:
        connection = await bench.outcome(task, "accept and connect when the listener is closed")
    except (NetworkError, PeerError, asyncio.CancelledError):
        return
    await connection.close()


async def closing_a_listener_ends_who_was_not_accepted(bench: Bench) -> None:
    """A sender that came too late learns so."""
    listener = await bench.listen()
    connecting = bench.start(
        bench.subject.sender.connect(listener.address, timeout_s=bench.subject.patience_s / 2)
    )
    await bench.waits(connecting)
    await bench.within(listener.close(), "close a listener to which somebody connects")
    try:
        connection = await bench.outcome(connecting, "connect to a listener that is closed")
    except PeerError:
        return
    try:
        got, _ = await bench.read_rest(connection)
    finally:
        await connection.close()
    if got:
        raise Nonconformity(f"a connection that nobody accepted: {len(got)} bytes came")
