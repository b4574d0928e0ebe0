"""Parsers with one fault each, to see that the harness finds it."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Final

from colod.errors import StreamError
from colod.stream.frames import FrameDecoder
from tests.fuzz.target import Target, demand, gist, same
from tests.fuzz.targets.frames import repaired, some_frames

_LIMIT: Final = 64


def _frames(octets: bytes, decoder: FrameDecoder) -> Hashable:
    try:
        return len(list(decoder.feed(repaired(octets))))
    except StreamError as error:
        return gist(error)


class _ForgetfulDecoder(FrameDecoder):
    """Does not look at the length before it makes room for it."""

    def _check_length(self, kind: object, length: int) -> None:
        pass


class _CarelessDecoder(FrameDecoder):
    """Lets whatever goes wrong with a number get out."""

    def _check_length(self, kind: object, length: int) -> None:
        if length > _LIMIT:
            raise ValueError(f"{length} bytes")


def _too_much(octets: bytes) -> Hashable:
    return _frames(octets, _ForgetfulDecoder())


def _undocumented(octets: bytes) -> Hashable:
    return _frames(octets, _CarelessDecoder())


def _endless(octets: bytes) -> Hashable:
    """Reads pairs of a length and bytes, and does not move on at a length of zero."""
    at = 0
    while at < len(octets):
        at += octets[at]
    return at


def _ambiguous(octets: bytes) -> Hashable:
    """Reads a number in decimal digits, of which it would write one form only."""
    if not octets.isdigit() or len(octets) > 9:
        return "refused"
    same("a number written anew", str(int(octets)).encode(), octets)
    return "taken"


def _split(octets: bytes) -> Hashable:
    """Finds a mark only where it comes in one piece."""
    whole = octets.count(b"ab")
    halves = octets[: len(octets) // 2].count(b"ab") + octets[len(octets) // 2 :].count(b"ab")
    demand(whole == halves, "two splits")
    return whole


def _frame_seeds() -> Iterable[bytes]:
    return some_frames()


BROKEN: Final[dict[str, tuple[Target, str]]] = {
    "memory": (Target(run=_too_much, seeds=_frame_seeds), "bytes of memory"),
    "another exception": (Target(run=_undocumented, seeds=_frame_seeds), "ValueError"),
    "a hang": (Target(run=_endless, seeds=lambda: [b"\1\1\1\2"], cpu_s=0.5), "a hang"),
    "another form": (Target(run=_ambiguous, seeds=lambda: [b"10", b"255"]), "written anew"),
    "a split": (Target(run=_split, seeds=lambda: [b"ab--ab", b"xxxx"]), "two splits"),
}
"""By its fault: a target, and what the finding has to say."""
