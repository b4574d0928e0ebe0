"""Two sessions' data paths over a network in memory: all that is real, but for xl and its pipes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any, cast

from colod.session.admission import Admission
from colod.session.agreement import RESUME
from colod.session.deltas import DeltaSpec, agreed, make_encoder, offer
from colod.session.ending import Ending
from colod.session.link import Link
from colod.session.living import live
from colod.session.mending import Caller, Route, mend
from colod.session.receiving import Handing, Receiving
from colod.session.report import Report
from colod.session.resuming import Resuming
from colod.session.sending import Sending
from colod.session.spec import SessionSpec
from colod.session.staging import Data
from colod.session.unfolding import Unfolding, unfolding
from colod.session.wire import DeltaWire, PlainWire, Wire
from colod.stream.frames import Frame, FrameType
from tests.unit.memory_network import Network
from tests.unit.session_samples import contents

LIMIT_S = 120.0
RESUME_BYTES = 2 << 20
DELTAS = DeltaSpec(codec="zstd-1", store_bytes=1 << 20)


def spec(role: str, **changed: Any) -> SessionSpec:
    """Return the specification of one side."""
    hosts = ("host-a", "host-b")
    host, peer = hosts if role == "send" else hosts[::-1]
    values: dict[str, Any] = {
        "role": role,
        "guest": "g",
        "pairing": "a" * 32,
        "generation": 7,
        "host": host,
        "peer": peer,
        "secret": b"s" * 32,
        "transport_kind": "memory",
        "resume_bytes": RESUME_BYTES,
        "ping_interval_s": 0.02,
        "silence_s": 60.0,
    }
    return SessionSpec(**values | changed)


class Pair:
    """A sender and a receiver that are linked.

    Attributes:
        handed: What xl was given, in order.
        acked: The epochs of which the sender heard an acknowledgement, in order.
        endings: How each side's link ended, while that is known.
    """

    def __init__(
        self,
        network: Network,
        *,
        paths: int = 1,
        sender: Mapping[str, Any] = MappingProxyType({}),
        receiver: Mapping[str, Any] = MappingProxyType({}),
        **changed: Any,
    ) -> None:
        self.network = network
        self.send_spec = spec("send", **{**changed, **sender})
        self.receive_spec = spec("receive", **{**changed, **receiver})
        routes = [Route(network.path(index), f"memory-{index}") for index in range(paths)]  # type: ignore[arg-type]
        self.caller = Caller(self.send_spec, routes)
        self.admission = Admission(self.receive_spec, [network.listen(i) for i in range(paths)])
        self.sending, self.receiving = Sending(), Receiving(64 << 20)
        self.handed = bytearray()
        self.acked: list[int] = []
        self.endings: dict[str, Ending] = {}
        self.sender: Link | None = None
        self.receiver: Link | None = None
        self._unfolding: Unfolding | None = None
        self._tasks: list[asyncio.Task[Any]] = []
        self._news = asyncio.Event()

    @property
    def resuming(self) -> Resuming:
        """The sender's connection over one connection after the other."""
        assert self.sender is not None
        assert self.sender.resuming is not None
        return self.sender.resuming

    async def meet(self) -> None:
        """Link the two."""
        admitting = asyncio.create_task(self.admission.sender())
        self.sender, path = await self._first()
        self.receiver = await admitting
        for link, way in ((self.sender, path), (self.receiver, self.admission.path)):
            if RESUME in link.capabilities:
                self._outlive(link, way)

    async def _first(self) -> tuple[Link, int]:
        while True:
            try:
                return await self.caller.first(LIMIT_S)
            except Exception:
                await asyncio.sleep(0)

    def _outlive(self, link: Link, path: int) -> None:
        resuming = link.mend_by(RESUME_BYTES, path=path, changed=self._news.set)
        self._tasks.append(asyncio.create_task(resuming.pump()))

    def begin(self, stream: bytes, chunk_bytes: int = 9000, *, back_s: float = 3600.0) -> None:
        """Have `stream` sent and taken."""
        assert self.sender is not None
        assert self.receiver is not None
        mending = [mend(self.sender, self.caller, back_s=back_s)] if self.sender.resuming else []
        readmitting = [self.admission.readmit(self.receiver)] if self.receiver.resuming else []
        for name, work in (
            ("sender", self._live("send", [self._relay(stream, chunk_bytes), *mending])),
            ("receiver", self._live("receive", readmitting)),
        ):
            task = asyncio.create_task(work, name=name)
            task.add_done_callback(self._ended)
            self._tasks.append(task)

    def send(self, stream: bytes, chunk_bytes: int = 9000) -> None:
        """Have more of the stream sent, behind what `begin` was given."""
        self._tasks.append(asyncio.create_task(self._relay(stream, chunk_bytes)))

    def _ended(self, task: asyncio.Task[Ending]) -> None:
        if not task.cancelled():
            self.endings[task.get_name()] = task.result()
        self._news.set()

    async def _live(self, role: str, others: list[Any]) -> Ending:
        is_sender = role == "send"
        link = self.sender if is_sender else self.receiver
        own = self.send_spec if is_sender else self.receive_spec
        assert link is not None
        return await live(
            link,
            own,
            Report(own, lambda: None),
            on_frame=self._on_answer if is_sender else self._on_frame,
            is_daemon_up=lambda: True,
            others=others,
        )

    async def close(self) -> None:
        """End both."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for link in (self.sender, self.receiver):
            if link is not None:
                await link.close()

    async def until(self, epoch: int) -> None:
        """Wait until the sender has heard the ACK of `epoch`; fail where one side ends."""
        await self.until_so(lambda: epoch in self.acked)

    async def until_so(self, fits: Callable[[], bool]) -> None:
        """Wait until something is so; fail where one side ends."""
        async with asyncio.timeout(LIMIT_S):
            while not fits():
                assert not self.endings, {name: str(each) for name, each in self.endings.items()}
                await self._look_again()

    async def until_ended(self, *sides: str) -> None:
        """Wait until these sides have ended, or both."""
        async with asyncio.timeout(LIMIT_S):
            while not self.endings.keys() >= set(sides or ("sender", "receiver")):
                await self._look_again()

    async def _look_again(self) -> None:
        self._news.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await self._news.wait()

    # -- the sender

    async def _relay(self, stream: bytes, chunk_bytes: int) -> None:
        assert self.sender is not None
        terms = agreed(offer(self.send_spec.deltas), self.sender.capabilities)
        wire: Wire = PlainWire(self.sender, self.sending)
        if terms is not None:
            encoder = make_encoder(self.send_spec.deltas, terms)
            wire = DeltaWire(self.sender, self.sending, encoder)
        for begin in range(0, len(stream), chunk_bytes):
            chunk = memoryview(stream)[begin : begin + chunk_bytes]
            for piece in list(self.sending.feed(chunk, time.monotonic())):
                if isinstance(piece, Data):
                    await wire.send(piece.epoch, piece.payload)
                else:
                    await wire.seal(piece.epoch)
            await wire.flush()
        await asyncio.Event().wait()

    async def _on_answer(self, frame: Frame) -> None:
        assert frame.type is FrameType.ACK
        self.sending.acknowledged(frame.epoch, time.monotonic())  # fails at one that comes twice
        self.acked.append(frame.epoch)
        self._news.set()

    # -- the receiver

    async def _on_frame(self, frame: Frame) -> None:
        now = time.monotonic()
        if frame.type is FrameType.SEAL:
            if self._unfolding is not None:
                self._unfolding.seal()
            await self._hand(self.receiving.seal(frame.epoch, frame.payload))
        elif frame.type is FrameType.DELTA:
            assert self.receiver is not None
            if self._unfolding is None:
                capabilities = self.receiver.capabilities
                self._unfolding = await unfolding(self.receive_spec.deltas, capabilities)
            assert self._unfolding is not None
            async for part in self._unfolding.parts(frame.payload):
                await self._hand(self.receiving.data(frame.epoch, part, now))
        else:
            assert frame.type is FrameType.DATA
            await self._hand(self.receiving.data(frame.epoch, frame.payload, now))

    async def _hand(self, handings: tuple[Handing, ...]) -> None:
        assert self.receiver is not None
        for handing in handings:
            self.handed += contents(handing)
            self.receiving.handed(handing, time.monotonic())
            if handing.epoch:
                await self.receiver.send(FrameType.ACK, epoch=handing.epoch)


@asynccontextmanager
async def linked(budgets: Iterable[tuple[int, int]] = (), **changed: Any) -> AsyncIterator[Pair]:
    """Yield a pair that is linked, over connections that last as long as `budgets` say."""
    pair = Pair(cast("Any", Network(iter(budgets))), **changed)
    try:
        async with asyncio.timeout(LIMIT_S):
            await pair.meet()
        yield pair
    finally:
        await pair.close()
