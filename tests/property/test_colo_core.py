"""The COLO proxy among three sockets that deliver when they like: nothing leaves unproved.

A small world knows what the two copies have really sent, and with which state. Each of the three
sockets keeps its own order and none keeps that of the others; only the primary's sockets, which
are of this host, keep causes before their effects.
"""

from __future__ import annotations

import struct
from collections import Counter, deque
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colod.output.colo.core import Phase, ProxyCore, ProxyOptions
from colod.output.colo.framing import Mark
from tests.unit.compare_samples import Ip, udp

Cut = Literal["mark", "fence", "none"]
Step = tuple[Literal["primary", "secondary", "checkpoint", "read_p", "read_s", "read_n"], int]

_steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["primary", "secondary"]), st.integers(0, 2)),
        st.tuples(st.sampled_from(["read_p", "read_s", "read_n"]), st.integers(1, 4)),
        st.tuples(st.just("checkpoint"), st.just(0)),
    ),
    max_size=60,
)


class World:
    """Two copies, their sockets and a proxy; `broken` names frames that left without leave."""

    def __init__(self, options: ProxyOptions, cut: Cut, *, looks_for_the_word: bool = True) -> None:
        self.core = ProxyCore(options)
        self.broken: list[int] = []
        self.sent: list[int] = []
        self.epoch = 0
        self.made_in: list[tuple[int, int]] = []
        self.said: Counter[tuple[int, int]] = Counter()
        self.cut = cut
        self.looks_for_the_word = looks_for_the_word
        self.to_primary: deque[bytes] = deque()
        self.to_secondary: deque[bytes | Mark] = deque()
        self.to_notify: deque[None] = deque()
        self.core.secondary_connected()
        self.core.begin()

    def primary(self, what: int) -> None:
        """Let the primary send a datagram; its identification tells it from its equals."""
        number = len(self.made_in)
        self.made_in.append((self.epoch, what))
        self.to_primary.append(udp(bytes([what]), ip=Ip(identification=number)))

    def secondary(self, what: int) -> None:
        """Let the secondary send one; it runs from the first checkpoint on."""
        if self.epoch:
            self.said[self.epoch, what] += 1
            self.to_secondary.append(udp(bytes([what])))

    def checkpoint(self) -> None:
        """Suspend both, make them equal, tell the proxy, and let them run on."""
        if self.cut == "fence":
            self.read_s(len(self.to_secondary))
            self.read_p(len(self.to_primary))
            self.core.fence()
        self.epoch += 1
        if self.cut == "mark":
            self.to_secondary.append(Mark(self.epoch))
        self.to_notify.append(None)
        if self.cut == "fence":
            # Another one is made only when libxl has gone on, and its word is read by then.
            self.read_n(1)

    def read_p(self, count: int) -> None:
        """Let the proxy read from the primary, and look for libxl's word before it goes on."""
        frames = [self.to_primary.popleft() for _ in range(min(count, len(self.to_primary)))]
        if self.looks_for_the_word:
            self.read_n(len(self.to_notify))
        self._judge(self.core.primary(frames, 0.0).send)

    def read_s(self, count: int) -> None:
        """Let the proxy read from the secondary."""
        items = [self.to_secondary.popleft() for _ in range(min(count, len(self.to_secondary)))]
        self._judge(self.core.secondary(items, 0.0).send)

    def read_n(self, count: int) -> None:
        """Let the proxy read libxl's words."""
        for _ in range(min(count, len(self.to_notify))):
            self.to_notify.popleft()
            self._judge(self.core.checkpoint_committed(0.0).send)

    def play(self, steps: list[Step]) -> list[int]:
        for name, argument in steps:
            if name == "checkpoint":
                self.checkpoint()
            else:
                getattr(self, name)(argument)
        return self.broken

    def _judge(self, frames: object) -> None:
        """Find what left though no checkpoint has it and the secondary has not said it."""
        assert isinstance(frames, tuple)
        for frame in frames:
            (number,) = struct.unpack_from(">H", frame, 18)
            self.sent.append(number)
            epoch, what = self.made_in[number]
            if epoch in (0, *range(self.epoch)):
                continue
            if self.said[epoch, what]:
                self.said[epoch, what] -= 1
            else:
                self.broken.append(number)


MARKED, PLAIN = ProxyOptions(has_marks=True), ProxyOptions()
ASSUMED = ProxyOptions(are_cuts_assumed=True)


@settings(max_examples=300)
@given(steps=_steps, cut=st.sampled_from(["mark", "fence", "none"]))
def test_nothing_leaves_that_a_failover_would_lose(steps: list[Step], cut: Cut) -> None:
    world = World(MARKED if cut == "mark" else PLAIN, cut)
    assert world.play(steps) == []
    assert len(set(world.sent)) == len(world.sent), "each frame leaves once"


@settings(max_examples=100)
@given(steps=_steps, cut=st.sampled_from(["mark", "fence"]))
def test_what_both_have_said_leaves_when_all_is_read(steps: list[Step], cut: Cut) -> None:
    """The cut costs nothing: no frame of a proved time is dropped."""
    world = World(MARKED if cut == "mark" else PLAIN, cut)
    world.play(steps)
    for _ in range(2):
        world.read_p(99)
        world.read_s(99)
    if world.core.phase is not Phase.COMPARING:
        return
    said: Counter[int] = Counter()
    for (epoch, what), count in world.said.items():
        if epoch == world.epoch:
            said[what] += count
    waiting = Counter(
        what
        for number, (epoch, what) in enumerate(world.made_in)
        if epoch == world.epoch and number not in world.sent
    )
    late = any(
        epoch < world.epoch and number not in world.sent
        for number, (epoch, _) in enumerate(world.made_in)
    )
    assert late or not waiting & said


def steps_of(*names: str) -> list[Step]:
    """Return steps about one and the same datagram."""
    counts = {"checkpoint": 0, "primary": 0, "secondary": 0}
    return [(name, counts.get(name, 9)) for name in names]  # type: ignore[misc]


OLD_WORDS = steps_of(
    "checkpoint", "read_n", "secondary", "checkpoint", "read_n", "primary", "read_p", "read_s"
)
"""The secondary says something, forgets it with a checkpoint, and then the proxy hears of it."""

NEW_FRAME = steps_of("checkpoint", "read_n", "checkpoint", "primary", "read_p", "read_n")
"""The primary runs on and sends, and the proxy reads that before libxl's word."""


@pytest.mark.parametrize(
    ("world", "steps"),
    [
        pytest.param(World(ASSUMED, "none"), OLD_WORDS, id="cuts are assumed"),
        pytest.param(World(PLAIN, "none", looks_for_the_word=False), NEW_FRAME, id="does not look"),
    ],
)
def test_proxies_without_a_rule_are_caught(world: World, steps: list[Step]) -> None:
    assert world.play(steps) != []


def test_the_same_orders_are_harmless_with_the_rules() -> None:
    for cut in ("mark", "none"):
        assert World(MARKED if cut == "mark" else PLAIN, cut).play(OLD_WORDS) == []
        assert World(MARKED if cut == "mark" else PLAIN, cut).play(NEW_FRAME) == []
