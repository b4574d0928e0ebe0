"""The heartbeat's thread, whose end would make a living peer look dead."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import cast

from colod.daemon.contact import Heartbeat
from colod.daemon.limits import Limits
from colod.rpc.peer_client import PeerClient
from colod.v1 import peer_pb2


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
        cast("PeerClient", _DefectiveOnce()),
        limits=cast("Limits", SimpleNamespace(beat_interval_s=0.05)),
        own_views=lambda: (),
        on_news=heard.set,
    )
    heartbeat.start()
    try:
        assert heard.wait(30.0)
        assert heartbeat.error == ""
    finally:
        heartbeat.stop()
