"""What the tests of the sessions' pure cores share."""

import itertools

import xxhash

from colod.session.receiving import Handing, Receiving
from colod.session.sending import Seal, Sending
from colod.session.staging import Data
from colod.stream.frames import SEAL_BODY
from tests.unit.stream_samples import Sample, remus_stream

Piece = Data | Seal


def send(sending: Sending, stream: bytes, chunk_bytes: int = 1 << 20) -> list[Piece]:
    """Return the pieces that a stream becomes, with payloads of their own."""
    found: list[Piece] = []
    for begin in range(0, len(stream), chunk_bytes):
        chunk = memoryview(stream)[begin : begin + chunk_bytes]
        for piece in sending.feed(chunk, now=float(begin)):
            if isinstance(piece, Data):
                sending.digest(piece.payload)
                found.append(piece)
            else:
                found.append(sending.seal(piece.epoch))
    return found


def sent(stream: bytes, chunk_bytes: int = 1 << 20) -> list[Piece]:
    """Return the pieces that a whole stream becomes."""
    return send(Sending(), stream, chunk_bytes)


def receive(receiving: Receiving, piece: Piece, now: float = 0.0) -> tuple[Handing, ...]:
    """Give one piece to the receiver's core."""
    if isinstance(piece, Data):
        return receiving.data(piece.epoch, bytearray(piece.payload), now)
    return receiving.seal(piece.epoch, piece.body)


def contents(handing: Handing) -> bytes:
    """Return the bytes that xl is given."""
    return b"".join(bytes(part) for part in handing.parts)


def seal_of(epoch: int, data: bytes) -> Seal:
    """Return the right seal of an epoch."""
    return Seal(epoch, SEAL_BODY.pack(len(data), xxhash.xxh3_128_digest(data)))


def epochs_of(sample: Sample) -> list[bytes]:
    """Return the bytes of each whole epoch of a stream."""
    places = [0, *sample.seals]
    return [sample.data[a:b] for a, b in itertools.pairwise(places)]


__all__ = ["contents", "epochs_of", "receive", "remus_stream", "seal_of", "send", "sent"]
