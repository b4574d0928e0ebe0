"""Heartbeats with the other host, in threads of their own: a slow xl or disk cannot stall them.

There is one thread for each network between the hosts, so that one that is dead delays no other.
What the peer says is the same over all of them; the answer that was asked for last is kept.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import structlog

from colod.daemon.limits import Limits
from colod.errors import ColodError
from colod.failover.detector import SESSION, Detector, Sign
from colod.failover.view import Contact
from colod.observe.logs import Event
from colod.rpc.peer_client import PeerClient
from colod.v1 import peer_pb2

_log = structlog.get_logger()

_BEATS_UNTIL_SILENT: Final = 3
_TIMEOUT_BEATS: Final = 2
_TIMEOUT_MIN_S: Final = 0.5
_JOIN_S: Final = 5.0

Views = Sequence[peer_pb2.ProtectionView]


class Carriers(Protocol):
    """Knows which links are down."""

    def lost_at(self, address: str) -> float | None:
        """Return since when nothing can go to `address` for want of a link, None if it can."""


class Network:
    """One way to the peer's daemon.

    Attributes:
        name: The address that is asked there.
        client: Asks it.
        error: Why the last beat failed, "" when it did not.
        heard_at: Monotonic time of the last answer, None before the first.
    """

    def __init__(self, name: str, client: PeerClient) -> None:
        """Nothing was sent yet."""
        self.name = name
        self.client = client
        self.error = "no heartbeat was sent yet"
        self.heard_at: float | None = None


class Heartbeat:
    """Sends this host's view of its protections over every network and keeps the peer's answer.

    Attributes:
        networks: The networks, in the order of the configuration.
        peer_paused: Whether the peer said last that its automation is paused; None: not known.
    """

    def __init__(
        self,
        clients: Mapping[str, PeerClient],
        *,
        limits: Limits,
        own_views: Callable[[], Views],
        on_news: Callable[[], None],
    ) -> None:
        """Prepare; `own_views` and `on_news` are called in the heartbeats' threads.

        Args:
            clients: One for each address of the peer's daemon.
            limits: Time between two beats.
            own_views: What is said to the peer.
            on_news: Told that the peer said something new.
        """
        self.networks = tuple(Network(name, client) for name, client in clients.items())
        self.peer_paused: bool | None = None
        self._limits = limits
        self._own_views = own_views
        self._on_news = on_news
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._theirs: dict[str, tuple[float, peer_pb2.ProtectionView]] | None = None
        self._asked_at = float("-inf")
        self._threads = [
            threading.Thread(
                target=self._run, args=(network,), name=f"heartbeat {network.name}", daemon=True
            )
            for network in self.networks
        ]

    def start(self) -> None:
        """Begin to beat."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the threads; bounded by the time limit of one beat."""
        self._stop.set()
        for network in self.networks:
            network.client.close()
        deadline = time.monotonic() + _JOIN_S
        for thread in self._threads:
            thread.join(timeout=max(0.0, deadline - time.monotonic()))

    @property
    def heard_at(self) -> float | None:
        """Monotonic time of the last answer over any network, None before the first."""
        times = (network.heard_at for network in self.networks)
        return max((at for at in times if at is not None), default=None)

    def answer(self, guest: str, *, asked_after: float) -> peer_pb2.ProtectionView | None:
        """Return what the peer said of `guest` when asked after the instant `asked_after`.

        A view without a pairing stands for a peer that does not know the guest. None: not asked
        since.
        """
        with self._lock:
            if self._theirs is None or self._asked_at <= asked_after:
                return None
            known = self._theirs.get(guest)
            return known[1] if known else peer_pb2.ProtectionView(guest=guest)

    def _run(self, network: Network) -> None:
        sequence = 0
        while not self._stop.is_set():
            sequence += 1
            began = time.monotonic()
            try:
                self._beat(network, sequence, began)
            except Exception as error:
                # A defect of ours. Without this thread the peer would be taken for dead.
                network.error = f"{type(error).__name__}: {error}"
                _log.exception(Event.PEER_UNREACHED)
            rest_s = self._limits.beat_interval_s - (time.monotonic() - began)
            self._stop.wait(max(0.0, rest_s))

    def _beat(self, network: Network, sequence: int, asked_at: float) -> None:
        request = peer_pb2.BeatRequest(sequence=sequence, protections=self._own_views())
        timeout_s = max(_TIMEOUT_MIN_S, self._limits.beat_interval_s * _TIMEOUT_BEATS)
        try:
            reply = network.client.beat(request, timeout_s=timeout_s)
        except ColodError as error:
            network.error = str(error)
            return
        network.error, network.heard_at = "", time.monotonic()
        has_said = reply.HasField("automation_paused")
        theirs = {view.guest: (asked_at, view) for view in reply.protections}
        with self._lock:
            if asked_at < self._asked_at:
                return  # a slower network's answer must not undo what was said since
            is_news = self._theirs is None or _views_of(theirs) != _views_of(self._theirs)
            self._theirs, self._asked_at = theirs, asked_at
            self.peer_paused = reply.automation_paused if has_said else None
        if is_news:
            self._on_news()


def _views_of(answers: dict[str, tuple[float, peer_pb2.ProtectionView]]) -> object:
    """Return what matters for decisions; epochs change all the time."""
    return {
        guest: (view.generation, view.pairing, view.replica, view.role)
        for guest, (_, view) in answers.items()
    }


class PeerContact:
    """Contact with the peer for one guest: the daemons' heartbeats and the sessions' pings."""

    def __init__(self, heartbeat: Heartbeat, carriers: Carriers, limits: Limits) -> None:
        """Begin to watch; the peer is given its whole time from now on."""
        self._heartbeat = heartbeat
        self._carriers = carriers
        self._limits = limits
        self._session_address = ""
        self._has_session = False
        self._detector = self._fresh()

    def _terms(self) -> tuple[float, float, float]:
        limits = self._limits
        return limits.beat_interval_s, limits.suspect_after_s, limits.carrier_grace_s

    def _fresh(self) -> Detector:
        self._used = interval_s, suspect_after_s, carrier_grace_s = self._terms()
        return Detector(
            silent_after_s=interval_s * _BEATS_UNTIL_SILENT,
            suspect_after_s=suspect_after_s,
            carrier_grace_s=carrier_grace_s,
            now=time.monotonic(),
        )

    def look(
        self, session_heard_at: float | None, session_address: str = "", *, is_peer: bool = True
    ) -> Contact:
        """Return how the protection's other host stands now.

        Args:
            session_heard_at: When its session was last heard.
            session_address: Where its session is, "" if that is not known now.
            is_peer: Whether it is the configured peer, whose heartbeats these are.
        """
        if self._used != self._terms():
            self._detector = self._fresh()  # the configuration was read again
        for network in self._heartbeat.networks if is_peer else ():
            self._note(network.name, network.heard_at, network.name)
        self._session_address = session_address or self._session_address
        self._has_session = session_heard_at is not None
        if session_heard_at is not None:
            self._note(SESSION, session_heard_at, self._session_address)
        elif self._session_address:
            self._note(SESSION, None, self._session_address)
        return self._detector.contact(time.monotonic())

    def _note(self, signal: str, heard_at: float | None, address: str) -> None:
        self._detector.expect(signal)
        if heard_at is not None:
            self._detector.heard(signal, heard_at)
        self._detector.carrier(signal, self._carriers.lost_at(address) if address else None)

    def signs(self) -> Sequence[Sign]:
        """Return how each signal stood at the last look, aged up to now.

        A session that has ended is silent by its nature, and left out.
        """
        signs = self._detector.signs(time.monotonic())
        return [each for each in signs if self._has_session or each.name != SESSION]

    def next_change_s(self) -> float | None:
        """Return in how many seconds that changes if nothing is heard; None if it will not."""
        now = time.monotonic()
        deadline = self._detector.next_deadline(now)
        return None if deadline is None else deadline - now
