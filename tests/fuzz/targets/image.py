"""The image of a replica: kept of any stream, and written out whole or not at all."""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterable
from functools import cache
from pathlib import Path

from colod.errors import CheckpointError, StreamError
from colod.session.imagefile import ImageFile
from colod.stream import writer
from colod.stream.events import StreamEnded
from colod.stream.image.keeper import ImageKeeper
from colod.stream.image.pages import PAGE_BYTES, PFN_LIMIT
from colod.stream.libxc import DomainType
from colod.stream.parser import StreamParser
from colod.stream.record import ByteOrder
from tests.fuzz.target import MIB, Reader, Target, demand, gist, pieces
from tests.fuzz.targets.folder import make_folder
from tests.fuzz.targets.stream import compact, ending

_MAX_PAGES = 8


class _Pages:
    """A file of pages, in memory."""

    def __init__(self) -> None:
        self._pages: dict[int, bytes] = {}

    def write(self, pfn: int, contents: memoryview) -> None:
        demand(len(contents) % PAGE_BYTES == 0, "a part of a page is kept")
        for number in range(len(contents) // PAGE_BYTES):
            begin = number * PAGE_BYTES
            self._pages[pfn + number] = bytes(contents[begin : begin + PAGE_BYTES])

    def read(self, pfn: int, count: int) -> bytes:
        return b"".join(self._pages[pfn + number] for number in range(count))


def _fed(stream: bytes, step: int) -> tuple[ImageKeeper, str]:
    keeper = ImageKeeper(_Pages(), max_pages=_MAX_PAGES)
    try:
        for piece in pieces(stream, step):
            keeper.feed(piece)
    except (StreamError, CheckpointError) as error:
        return keeper, gist(error)
    demand(keeper.pages <= _MAX_PAGES, f"{keeper.pages} pages are kept")
    return keeper, ""


def _sound(stream: bytes) -> bytes:
    """Return what of a stream the parser finds no fault with, as a receiver's keeper gets it."""
    parser = StreamParser()
    try:
        parser.feed(stream)
        if parser.error is not None:
            return stream[: parser.error.offset]
    except StreamError as error:
        return stream[: error.offset]
    return stream[: parser.record_offset]


def _exported(keeper: ImageKeeper, config: bytes) -> bytes:
    image = bytearray()
    export = keeper.export(image.extend, config=config)
    steps = 0
    while export.step():
        steps += 1
        demand(steps < 1000, "an export that does not end")
    keeper.end_export()
    demand(export.is_done and export.error is None, f"not done: {export.error}")
    return bytes(image)


def _demand_complete(image: bytes) -> None:
    parser = StreamParser()
    events = parser.feed(image)
    parser.finish()
    demand(isinstance(events[-1], StreamEnded), "an image that does not end")


def _run_image(octets: bytes) -> Hashable:
    reader = Reader(octets)
    flags, step = reader.byte(), reader.byte()
    stream = reader.rest()
    if flags & 1:  # not as a receiver does it: what no parser has seen must be refused too
        return _fed(stream, step)[1]
    keeper, error = _fed(_sound(stream), step)
    if error or not keeper.is_whole:
        return error, keeper.epoch
    _demand_complete(_exported(keeper, b'{"a":1}' if flags & 2 else b""))
    return "exported", min(keeper.epoch, 3), keeper.pages


@cache
def _folder() -> Path:
    return make_folder()


def _run_file(octets: bytes) -> Hashable:
    """Any bytes as the configuration that an image is to have, and any keeper."""
    reader = Reader(octets)
    flags = reader.byte()
    config, path = _folder() / "config", _folder() / "image"
    config.write_bytes(reader.rest())
    path.unlink(missing_ok=True)
    whole = compact(ByteOrder.LITTLE, 3, DomainType.X86_HVM, epochs=flags & 1)
    keeper, _ = _fed(whole, 0)
    if flags & 2:
        path.write_bytes(b"in the way")
    file = ImageFile("i", path, config if flags & 4 else None)
    file.begin(keeper, 0.5)
    turns = 0
    while file.is_being_written:
        file.step(keeper)
        turns += 1
        demand(turns < 1000, "an image that is never finished")
    while not file.is_over:  # a thread brings it to the disk
        time.sleep(0.0002)
    told = file.told()
    demand(bool(told.error) == (flags & 3 != 1), f"flags {flags}: {told}")
    return flags & 7, bool(told.error)


def _image_seeds() -> Iterable[bytes]:
    for domain in DomainType:
        for version in (2, 3):
            for flags in range(4):
                yield bytes((flags, 0)) + compact(ByteOrder.LITTLE, version, domain)
    page = writer.page_data([5, 6], [bytes(PAGE_BYTES), b"x" * PAGE_BYTES])
    head = compact(ByteOrder.LITTLE, 3, DomainType.X86_PV, epochs=1)
    yield b"\0\x07" + head + page + writer.checkpoint() + writer.checkpoint_end()
    yield b"\0\x07" + head + page + ending()


def _file_seeds() -> Iterable[bytes]:
    yield from (bytes((flags,)) + b'{"c_info":{}}' for flags in range(8))


def _held(size: int) -> int:
    """A byte for each PFN up to the highest, twice while that grows, and copies for an export."""
    return 4 * PFN_LIMIT + 2 * MIB + 64 * size


IMAGE = Target(run=_run_image, seeds=_image_seeds, held_bytes=_held, max_bytes=1 << 14)
FILE = Target(run=_run_file, seeds=_file_seeds, held_bytes=None)
