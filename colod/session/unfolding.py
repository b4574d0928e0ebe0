"""The receiver's half of page deltas: DELTA frames in, libxl's stream out, in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from colod.errors import StreamError
from colod.session.deltas import DeltaSpec, agreed, make_decoder
from colod.session.ending import Ending
from colod.stream.frames import MAX_DATA_BYTES, Buffer

if TYPE_CHECKING:
    from colod.stream.delta.decoder import Decoder


class Unfolding:
    """Gives back the stream that the sender made deltas of."""

    def __init__(self, decoder: Decoder) -> None:
        """Stand at the stream's beginning."""
        self._decoder = decoder
        self._worker = ThreadPoolExecutor(1, "deltas")

    async def parts(self, payload: Buffer) -> AsyncIterator[memoryview]:
        """Yield what a DELTA frame stands for, in parts of at most MAX_DATA_BYTES.

        Few bytes can stand for very many: wait for room between two parts. Up to 16 MiB, one
        block, are in memory beyond what was yielded.

        Raises:
            Ending: If the payload is no delta of pages that this side has.
        """
        loop = asyncio.get_running_loop()
        blocks = self._decoder.feed(payload)
        while True:
            try:
                block = await loop.run_in_executor(self._worker, _next, blocks)
            except StreamError as error:
                raise Ending.from_error(error) from error
            if block is None:
                return
            for begin in range(0, len(block), MAX_DATA_BYTES):
                yield block[begin : begin + MAX_DATA_BYTES]

    def seal(self) -> None:
        """Note the end of an epoch.

        Raises:
            Ending: If it came inside a block.
        """
        try:
            self._decoder.seal()
        except StreamError as error:
            raise Ending.from_error(error) from error


async def unfolding(spec: DeltaSpec, capabilities: tuple[str, ...]) -> Unfolding | None:
    """Return what undoes the deltas that were agreed on, None if there are none.

    Raises:
        Ending: If there is no room for the page store.
    """
    terms = agreed(capabilities, capabilities)
    if terms is None:
        return None
    try:
        return Unfolding(await asyncio.to_thread(make_decoder, spec, terms))
    except (OSError, MemoryError) as error:
        raise Ending.failed("session.memory", f"no page store: {error}") from error


def _next(blocks: Iterator[memoryview]) -> memoryview | None:
    return next(blocks, None)
