"""Page deltas in a session: what it may use for them, what both sides agreed on, and the stores.

Nothing heavy is imported before both sides have agreed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from colod.errors import VersionMismatch
from colod.stream.delta.terms import CODEC_NAMES, MIN_PAGES, Terms, choose, is_within

if TYPE_CHECKING:
    from colod.stream.delta.decoder import Decoder
    from colod.stream.delta.encoder import Encoder
    from colod.stream.delta.store import PageStore

OFF: Final = "off"
PAGE_BYTES: Final = 4096
PFN_LIMIT: Final = 1 << 26
"""Pages of guests up to 256 GiB; the index takes memory only where PFNs are in use."""

STORE_BYTES: Final = (MIN_PAGES * PAGE_BYTES, 1 << 44)
DEFAULT_STORE_BYTES: Final = 256 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaSpec:
    """What a session may use for page deltas.

    Attributes:
        codec: `off` for no deltas at all; `zstd-1`, or `none` to leave what changed unpacked.
        store_bytes: Most that the page store takes, and on the other side too: a guest whose
            pages do not fit gains less.
        store_file: A file for it, on a disk, which is made and removed; "" for memory.
    """

    codec: str = OFF
    store_bytes: int = DEFAULT_STORE_BYTES
    store_file: str = ""

    @property
    def terms(self) -> Terms | None:
        """How this side would have deltas, None if not at all."""
        if self.codec == OFF:
            return None
        pages = self.store_bytes // PAGE_BYTES
        return Terms(codec=self.codec, max_pages=pages, pfn_limit=PFN_LIMIT)


def parse_deltas(given: Any) -> DeltaSpec:
    """Return the specification that a JSON value holds.

    Raises:
        ValueError: With the first thing that is wrong with it.
    """
    if not isinstance(given, dict):
        raise ValueError(f"{given!r} is no table")
    if unknown := given.keys() - {"codec", "store_bytes", "store_file"}:
        raise ValueError(f"unknown {', '.join(sorted(unknown))}")
    spec = DeltaSpec(**given)
    if spec.codec not in (OFF, *CODEC_NAMES):
        raise ValueError(f"codec {spec.codec!r} is none of {', '.join((OFF, *CODEC_NAMES))}")
    low, high = STORE_BYTES
    if type(spec.store_bytes) is not int or not low <= spec.store_bytes <= high:
        raise ValueError(f"store_bytes {spec.store_bytes!r} is not within {low} to {high}")
    if not isinstance(spec.store_file, str):
        raise ValueError(f"store_file {spec.store_file!r} is no path")
    return spec


def offer(spec: DeltaSpec) -> tuple[str, ...]:
    """Return what a sender's hello says of deltas."""
    return (str(spec.terms),) if spec.terms else ()


def answer(spec: DeltaSpec, offered: tuple[str, ...]) -> tuple[str, ...]:
    """Return what the receiver's welcome says of deltas."""
    chosen = choose(offered, spec.terms) if spec.terms else None
    return (str(chosen),) if chosen else ()


def agreed(offered: tuple[str, ...], answered: tuple[str, ...]) -> Terms | None:
    """Return the terms that both sides keep, None for a stream without deltas.

    Raises:
        VersionMismatch: If the answer goes beyond what was offered.
    """
    chosen = next(filter(None, map(Terms.parse, answered)), None)
    wanted = next(filter(None, map(Terms.parse, offered)), None)
    if chosen is not None and (wanted is None or not is_within(chosen, wanted)):
        raise VersionMismatch(f"deltas as {chosen} were not offered")
    return chosen


def warm_up(spec: DeltaSpec) -> None:
    """Import what deltas need, before the other side waits for it; takes a while."""
    if spec.codec != OFF:
        import colod.stream.delta.decoder
        import colod.stream.delta.encoder  # noqa: F401


def make_encoder(spec: DeltaSpec, terms: Terms) -> Encoder:
    """Return the sender's half; takes a while.

    Raises:
        OSError: If there is no room for the page store.
    """
    from colod.stream.delta.encoder import Encoder

    return Encoder(_store(spec, terms), codec=terms.codec)


def make_decoder(spec: DeltaSpec, terms: Terms) -> Decoder:
    """Return the receiver's half; takes a while.

    Raises:
        OSError: If there is no room for the page store.
    """
    from colod.stream.delta.decoder import Decoder

    return Decoder(_store(spec, terms), codec=terms.codec)


def _store(spec: DeltaSpec, terms: Terms) -> PageStore:
    from colod.stream.delta.store import PageStore, mapped_pages, memory_pages

    if not spec.store_file:
        return PageStore(memory_pages(terms.max_pages), pfn_limit=terms.pfn_limit)
    number = _room_on_disk(Path(spec.store_file), terms.max_pages * PAGE_BYTES)
    try:
        return PageStore(mapped_pages(number, terms.max_pages), pfn_limit=terms.pfn_limit)
    finally:
        os.close(number)  # the mapping keeps the file


def _room_on_disk(path: Path, octets: int) -> int:
    """Return an open file of `octets` bytes that nobody else sees, and that ends with us."""
    number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        path.unlink()
        os.posix_fallocate(number, 0, octets)
    except BaseException:
        os.close(number)
        raise
    return number
