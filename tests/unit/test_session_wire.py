"""What is sent together, and what waits for nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from colod.session.deltas import DeltaSpec, agreed, make_encoder, offer
from colod.session.link import Link
from colod.session.sending import Sending
from colod.session.staging import Data
from colod.session.wire import DeltaWire, PlainWire, Wire
from colod.stream.frames import Buffer, FrameDecoder, FrameType, encode_header
from tests.unit.session_samples import remus_stream

Kinds = list[FrameType]


class Calls:
    """A link that keeps which frames each call brought."""

    def __init__(self) -> None:
        self.made: list[Kinds] = []
        self._decoder = FrameDecoder()

    def header(self, kind: FrameType, epoch: int, payload_bytes: int) -> bytes:
        return encode_header(kind, generation=1, epoch=epoch, payload_bytes=payload_bytes)

    async def send_all(self, parts: Sequence[Buffer]) -> None:
        frames = self._decoder.feed(b"".join(parts))
        self.made.append([each.type for each in frames])


@pytest.fixture(params=["plain", "deltas"])
def wire(request: pytest.FixtureRequest) -> tuple[Wire, Calls, Sending, FrameType]:
    """Return each way to send, whose link it has, what it digests, and what it sends."""
    calls, sending = Calls(), Sending()
    link = cast("Link", cast("Any", calls))
    if request.param == "plain":
        return PlainWire(link, sending), calls, sending, FrameType.DATA
    spec = DeltaSpec(codec="zstd-1", store_bytes=1 << 20)
    terms = agreed(offer(spec), offer(spec))
    assert terms is not None
    return DeltaWire(link, sending, make_encoder(spec, terms)), calls, sending, FrameType.DELTA


async def relay(wire: Wire, sending: Sending, data: bytes) -> None:
    """Send a stream, as `Intake.transmit` does while there is more."""
    for piece in list(sending.feed(memoryview(data), 0.0)):
        if isinstance(piece, Data):
            await wire.send(piece.epoch, piece.payload)
        else:
            await wire.seal(piece.epoch)


async def test_short_epochs_go_out_together(
    wire: tuple[Wire, Calls, Sending, FrameType],
) -> None:
    way, calls, sending, kind = wire
    await relay(way, sending, remus_stream(5).data)
    assert calls.made == []
    await way.flush()
    assert calls.made == [[kind, FrameType.SEAL] * 5]
    await way.flush()
    assert len(calls.made) == 1


async def test_no_seal_waits_for_a_long_payload_behind_it(
    wire: tuple[Wire, Calls, Sending, FrameType],
) -> None:
    """Encoding one takes a while, and may leave next to nothing to be sent."""
    way, calls, sending, _ = wire
    sample = remus_stream(2)
    whole = len(sample.data)
    long = sample.pages(64).data[whole:]
    await relay(way, sending, sample.data[:whole])
    assert calls.made == []
    await way.send(3, memoryview(long))
    assert calls.made[0][-1] is FrameType.SEAL
    assert calls.made[0].count(FrameType.SEAL) == 2


async def test_not_too_much_waits_for_more(
    wire: tuple[Wire, Calls, Sending, FrameType],
) -> None:
    way, calls, sending, _ = wire
    await relay(way, sending, remus_stream(200).data)
    assert max(map(len, calls.made)) <= 64
    assert sum(map(len, calls.made)) >= 200 * 2 - 64
