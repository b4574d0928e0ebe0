"""Heartbeats with the other host, in a thread of their own: a slow xl or disk cannot stall them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from colod.daemon.limits import Limits
from colod.errors import ColodError
from colod.failover.detector import Detector
from colod.failover.view import Contact
from colod.observe.logs import Event
from colod.rpc.peer_client import PeerClient
from colod.v1 import peer_pb2

_log = structlog.get_logger()

_BEATS_UNTIL_SILENT: Final = 3
_TIMEOUT_BEATS: Final = 2
_TIMEOUT_MIN_S: Final = 0.5

Views = Sequence[peer_pb2.ProtectionView]


class Heartbeat:
    """Sends this host's view of its protections and keeps the peer's answer.

    Attributes:
        error: Why the last beat failed, "" when it did not.
        peer_paused: Whether the peer said last that its automation is paused; None: not known.
    """

    def __init__(
        self,
        client: PeerClient,
        *,
        limits: Limits,
        own_views: Callable[[], Views],
        on_news: Callable[[], None],
    ) -> None:
        """Prepare; `own_views` and `on_news` are called in the heartbeat's thread."""
        self.error = "no heartbeat was sent yet"
        self.peer_paused: bool | None = None
        self._client = client
        self._limits = limits
        self._own_views = own_views
        self._on_news = on_news
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._heard_at: float | None = None
        self._theirs: dict[str, tuple[float, peer_pb2.ProtectionView]] = {}
        self._asked_at = 0.0
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; bounded by the time limit of one beat."""
        self._stop.set()
        self._client.close()
        self._thread.join(timeout=5.0)

    @property
    def heard_at(self) -> float | None:
        """Monotonic time of the peer's last answer."""
        with self._lock:
            return self._heard_at

    def answer(self, guest: str, *, asked_after: float) -> peer_pb2.ProtectionView | None:
        """Return what the peer said of `guest` when asked after the instant `asked_after`.

        A view without a pairing stands for a peer that does not know the guest. None: not asked
        since.
        """
        with self._lock:
            if self._heard_at is None or self._asked_at <= asked_after:
                return None
            known = self._theirs.get(guest)
            return known[1] if known else peer_pb2.ProtectionView(guest=guest)

    def _run(self) -> None:
        sequence = 0
        while not self._stop.is_set():
            sequence += 1
            began = time.monotonic()
            try:
                self._beat(sequence, began)
            except Exception as error:
                # A defect of ours. Without this thread the peer would be taken for dead.
                self.error = f"{type(error).__name__}: {error}"
                _log.exception(Event.PEER_UNREACHED)
            rest_s = self._limits.beat_interval_s - (time.monotonic() - began)
            self._stop.wait(max(0.0, rest_s))

    def _beat(self, sequence: int, asked_at: float) -> None:
        request = peer_pb2.BeatRequest(sequence=sequence, protections=self._own_views())
        timeout_s = max(_TIMEOUT_MIN_S, self._limits.beat_interval_s * _TIMEOUT_BEATS)
        try:
            reply = self._client.beat(request, timeout_s=timeout_s)
        except ColodError as error:
            self.error = str(error)
            return
        self.error = ""
        has_said = reply.HasField("automation_paused")
        self.peer_paused = reply.automation_paused if has_said else None
        theirs = {view.guest: (asked_at, view) for view in reply.protections}
        with self._lock:
            is_news = _views_of(theirs) != _views_of(self._theirs) or self._heard_at is None
            self._theirs, self._asked_at, self._heard_at = theirs, asked_at, time.monotonic()
        if is_news:
            self._on_news()


def _views_of(answers: dict[str, tuple[float, peer_pb2.ProtectionView]]) -> object:
    """Return what matters for decisions; epochs change all the time."""
    return {
        guest: (view.generation, view.pairing, view.replica, view.role)
        for guest, (_, view) in answers.items()
    }


class PeerContact:
    """Contact with the peer for one guest: the daemon's heartbeat and the session's pings."""

    def __init__(self, heartbeat: Heartbeat, limits: Limits) -> None:
        """Begin to watch; the peer is given its whole time from now on."""
        self._heartbeat = heartbeat
        self._limits = limits
        self._detector = self._fresh()

    def _fresh(self) -> Detector:
        self._used = (self._limits.beat_interval_s, self._limits.suspect_after_s)
        interval_s, suspect_after_s = self._used
        return Detector(
            silent_after_s=interval_s * _BEATS_UNTIL_SILENT,
            suspect_after_s=suspect_after_s,
            now=time.monotonic(),
        )

    def look(self, session_heard_at: float | None, *, is_peer: bool = True) -> Contact:
        """Return how the protection's other host stands now.

        Args:
            session_heard_at: When its session was last heard.
            is_peer: Whether it is the configured peer, whose heartbeats these are.
        """
        if self._used != (self._limits.beat_interval_s, self._limits.suspect_after_s):
            self._detector = self._fresh()  # the configuration was read again
        if is_peer and (heard_at := self._heartbeat.heard_at) is not None:
            self._detector.control_heard(heard_at)
        if session_heard_at is not None:
            self._detector.data_heard(session_heard_at)
        return self._detector.contact(time.monotonic())

    def next_change_s(self) -> float | None:
        """Return in how many seconds that changes if nothing is heard; None if it will not."""
        now = time.monotonic()
        deadline = self._detector.next_deadline(now)
        return None if deadline is None else deadline - now
