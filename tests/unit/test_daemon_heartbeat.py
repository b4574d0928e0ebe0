"""The heartbeats' threads, whose end would make a living peer look dead."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import cast

from colod.daemon.contact import Heartbeat
from colod.daemon.limits import Limits
from colod.rpc.peer_client import PeerClient
from colod.v1 import peer_pb2
from tests.pair import until


class _DefectiveOnce:
    """A client whose first beat meets a defect of ours."""

    def __init__(self) -> None:
        self.beats = 0

    def beat(self, request: peer_pb2.BeatRequest, *, timeout_s: float) -> peer_pb2.BeatReply:
        self.beats += 1
        if self.beats == 1:
            raise RecursionError("too deep")
        return peer_pb2.BeatReply()

    def close(self) -> None:
        """Nothing to close."""


def test_a_defect_in_one_beat_does_not_end_the_next_ones() -> None:
    heard = threading.Event()
    heartbeat = Heartbeat(
        {"a": cast("PeerClient", _DefectiveOnce())},
        limits=cast("Limits", SimpleNamespace(beat_interval_s=0.05)),
        own_views=lambda: (),
        on_news=heard.set,
    )
    heartbeat.start()
    try:
        assert heard.wait(30.0)
        assert heartbeat.networks[0].error == ""
    finally:
        heartbeat.stop()


class _Answering:
    """A client whose peer says what the test tells it, when it is told."""

    def __init__(self) -> None:
        self.may_answer = threading.Event()
        self.is_asked = threading.Event()
        self.generation = 0

    def beat(self, request: peer_pb2.BeatRequest, *, timeout_s: float) -> peer_pb2.BeatReply:
        view = peer_pb2.ProtectionView(guest="g1", generation=self.generation)
        self.is_asked.set()
        self.may_answer.wait(30.0)
        return peer_pb2.BeatReply(protections=[view])

    def close(self) -> None:
        self.may_answer.set()


def _heartbeat(interval_s: float, **clients: _Answering) -> Heartbeat:
    return Heartbeat(
        cast("dict[str, PeerClient]", clients),
        limits=cast("Limits", SimpleNamespace(beat_interval_s=interval_s)),
        own_views=lambda: (),
        on_news=lambda: None,
    )


def _generation(heartbeat: Heartbeat) -> int:
    said = heartbeat.answer("g1", asked_after=float("-inf"))
    return -1 if said is None else said.generation


def test_a_network_that_hangs_delays_no_other() -> None:
    hanging, well = _Answering(), _Answering()
    well.may_answer.set()
    heartbeat = _heartbeat(0.05, hanging=hanging, well=well)
    heartbeat.start()
    try:
        until(lambda: heartbeat.networks[1].heard_at is not None, "the other network is heard")
        assert heartbeat.networks[0].heard_at is None
        assert heartbeat.networks[0].error
        assert _generation(heartbeat) == 0
    finally:
        heartbeat.stop()


def test_an_answer_that_comes_late_does_not_undo_what_was_said_since() -> None:
    slow, quick = _Answering(), _Answering()
    slow.generation, quick.generation = 1, 2
    heartbeat = _heartbeat(3600.0, slow=slow)
    later = _heartbeat(3600.0, quick=quick)
    quick.may_answer.set()
    heartbeat.start()
    try:
        assert slow.is_asked.wait(30.0)
        (network,) = later.networks
        heartbeat._beat(network, 1, time.monotonic())
        assert _generation(heartbeat) == 2
        slow.may_answer.set()
        until(lambda: heartbeat.networks[0].heard_at is not None, "the slow one is heard")
        until(lambda: not heartbeat.networks[0].error, "its answer is taken")
        assert _generation(heartbeat) == 2
    finally:
        heartbeat.stop()
