"""A receiver's accounting before a sender that has proved itself, and does what it likes."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from colod.session.digests import DIGESTS, make_digest, sealed
from colod.session.ending import Ending
from colod.session.receiving import PART_COST_BYTES, STREAMED_AHEAD_BYTES, Handing, Receiving
from colod.stream.frames import MAX_DATA_BYTES, SEAL_BODY
from colod.stream.libxc import DomainType
from colod.stream.record import ByteOrder
from tests.fuzz.target import MIB, Reader, Target, demand, gist, same
from tests.fuzz.targets.stream import compact

_STAGING_BYTES = 1 << 15
_SEAL = 0xFF
"""The length byte that stands for a seal."""


class _Xl:
    """Takes what it is given when the input says so, and is promised whole epochs."""

    def __init__(self, receiving: Receiving) -> None:
        self._receiving = receiving
        self._queue: list[Handing] = []
        self.stream = bytearray()
        self.epochs: list[int] = []

    def give(self, handings: Iterable[Handing]) -> None:
        self._queue += handings
        held = self._receiving.staged_bytes
        most = _STAGING_BYTES + STREAMED_AHEAD_BYTES + 2 * (MAX_DATA_BYTES + PART_COST_BYTES)
        demand(held <= most, f"{held} bytes are staged, {_STAGING_BYTES} are allowed")

    def take(self) -> None:
        for handing in self._queue:
            for part in handing.parts:
                self.stream += part
            if handing.epoch:
                self.epochs.append(handing.epoch)
            self._receiving.handed(handing, 0.0)
        self._queue.clear()


def _run(octets: bytes) -> Hashable:
    """Read frames: a length, and so many bytes of DATA, or a seal, right or not."""
    reader = Reader(octets)
    receiving = Receiving(_STAGING_BYTES)
    xl = _Xl(receiving)
    sent, epoch, begin, whole = bytearray(), 1, 0, 0
    outcome = ""
    try:
        while not reader.is_empty:
            size = reader.byte()
            if size == _SEAL:
                how = reader.byte()
                digest = make_digest(DIGESTS[0])
                digest.update(bytes(sent[begin:]))
                length = len(sent) - begin + (how & 1)
                xl.give(
                    receiving.seal(epoch + (how >> 1 & 1), SEAL_BODY.pack(length, sealed(digest)))
                )
                demand(not how & 3, "a wrong seal was taken for right")
                epoch, begin, whole = epoch + 1, len(sent), epoch
            else:
                payload = bytearray(reader.take(size * 16 + 1))
                sent += payload
                xl.give(receiving.data(epoch, payload, 0.0))
            if receiving.has_room and size & 1:
                xl.take()
    except Ending as error:
        outcome = gist(error)
    xl.take()
    same("what xl has, and what was sent", bytes(xl.stream), bytes(sent[: len(xl.stream)]))
    same("the epochs that xl has", xl.epochs, list(range(1, len(xl.epochs) + 1)))
    demand(len(xl.epochs) <= whole, "an epoch without its seal was acknowledged")
    if whole > 1:
        demand(len(xl.stream) <= begin, "bytes of an epoch that is not sealed were handed over")
    return len(xl.epochs), outcome


def _seeds() -> Iterable[bytes]:
    for domain in DomainType:
        streams = [compact(ByteOrder.LITTLE, 3, domain, epochs=count) for count in (1, 2)]
        epochs = [streams[0], streams[1][len(streams[0]) :]]
        for how in (0, 1, 2):
            made = bytearray()
            for each in epochs:
                for at in range(0, len(each), 161):
                    part = each[at : at + 161]
                    rest = (len(part) - 1) // 16
                    made += bytes((rest,)) + part[: rest * 16 + 1]
                    for octet in part[rest * 16 + 1 :]:
                        made += bytes((0, octet))
                made += bytes((_SEAL, how))
            yield bytes(made)


RECEIVING = Target(
    run=_run, seeds=_seeds, held_bytes=lambda size: 2 * MIB + _STAGING_BYTES + 512 * size
)
