"""What a session says of itself to the daemon."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import fields

from colod import __version__
from colod.measures import Measures
from colod.session.ending import Ending, State, weight
from colod.session.progress import Progress
from colod.session.protocol import CONTROL_VERSION
from colod.session.quiesce import Quiesce
from colod.session.spec import SessionSpec
from colod.v1 import session_pb2, types_pb2

_ERROR_CHARS = 2000
# Not asdict(), which copies all values deeply: a status is made for each epoch.
_PROGRESS = tuple(field.name for field in fields(Progress))


class Report:
    """The session's present standing; each change is passed on to whoever listens."""

    def __init__(self, spec: SessionSpec, changed: Callable[[], None]) -> None:
        """Stand at the beginning.

        Args:
            spec: The session's.
            changed: Called after each change that the daemon should know of at once.
        """
        self._spec = spec
        self._changed = changed
        self._state = State.CONNECTING
        self._error_code = ""
        self._error = ""
        self._toolstack_pid = 0
        self._listen_addresses: Sequence[str] = ()
        self._second_pause = False
        self._handed_over = False
        self._held_domid = 0
        self._peer_connected = False
        self.peer_daemon_up = False
        self.capabilities: tuple[str, ...] = ()
        self.peer_address = ""

    @property
    def state(self) -> State:
        """What the session is doing."""
        return self._state

    @property
    def toolstack_pid(self) -> int:
        """xl's process, 0 when there is none."""
        return self._toolstack_pid

    @property
    def second_pause(self) -> bool:
        """Whether our own pause reference on the incoming copy is in place."""
        return self._second_pause

    @property
    def handed_over(self) -> bool:
        """Whether xl has let the copy go."""
        return self._handed_over

    def advance(self, state: State) -> None:
        """Go on to `state`, unless replication is over."""
        if not weight(self._state) and state is not self._state:
            self._state = state
            self._changed()

    def end(self, ending: Ending) -> bool:
        """Note how replication ended; tell whether that is worse than what was known."""
        if weight(ending.state) <= weight(self._state):
            return False
        self._state = ending.state
        self._error_code, self._error = ending.code, str(ending)[:_ERROR_CHARS]
        self._changed()
        return True

    def finish(self) -> None:
        """Note that the session is about to exit; what went wrong stays to be seen."""
        self._state = State.FINISHED
        self._changed()

    def set_toolstack(self, pid: int) -> None:
        """Note xl's process, 0 when it is gone."""
        self._toolstack_pid = pid
        self._changed()

    def set_listen_addresses(self, addresses: Sequence[str]) -> None:
        """Note where the sender is to connect, on each path."""
        self._listen_addresses = tuple(addresses)
        self._changed()

    def set_second_pause(self) -> None:
        """Note that our own pause reference is in place."""
        self._second_pause = True
        self._changed()

    def set_held_domid(self, domid: int) -> None:
        """Note which domain of the guest's name was paused because it was rebooted."""
        self._held_domid = domid
        self._changed()

    def set_handed_over(self) -> None:
        """Note that xl has let the copy go and ended as it should."""
        self._handed_over = True
        self._toolstack_pid = 0  # in one status: without xl, and not handed over, means lost
        self._changed()

    def set_peer_connected(self, connected: bool) -> None:
        """Note whether the other session is connected and known."""
        self._peer_connected = connected
        self.peer_daemon_up = self.peer_daemon_up and connected
        self._changed()

    def set_peer_daemon_up(self, is_up: bool) -> None:
        """Note what the other session says of its daemon."""
        if is_up != self.peer_daemon_up:
            self.peer_daemon_up = is_up
            self._changed()

    def status(
        self,
        progress: Progress,
        gate: types_pb2.Gate | None = None,
        measures: Measures | None = None,
        quiesce: Quiesce | None = None,
    ) -> session_pb2.SessionStatus:
        """Return the message for the daemon, but for what only its connection knows."""
        spec = self._spec
        role = types_pb2.ROLE_PRIMARY if spec.is_sender else types_pb2.ROLE_SECONDARY
        return session_pb2.SessionStatus(
            version_min=CONTROL_VERSION,
            version_max=CONTROL_VERSION,
            role=role,
            guest=spec.guest,
            pairing=spec.pairing,
            generation=spec.generation,
            state=types_pb2.SessionState.ValueType(self._state),
            error_code=self._error_code,
            error=self._error,
            pid=os.getpid(),
            toolstack_pid=self._toolstack_pid,
            listen_address="".join(self._listen_addresses[:1]),
            backup_address="".join(self._listen_addresses[1:2]),
            second_pause=self._second_pause,
            handed_over=self._handed_over,
            peer_daemon_up=self.peer_daemon_up,
            peer_connected=self._peer_connected,
            progress=types_pb2.Progress(**{name: getattr(progress, name) for name in _PROGRESS}),
            software=__version__,
            gate=gate,
            capabilities=self.capabilities,
            measures=_counted(measures) if measures else None,
            quiesce_attempt=quiesce.attempt if quiesce else "",
            kept_epoch=quiesce.kept_epoch if quiesce else 0,
            final_epoch=quiesce.final_epoch if quiesce else 0,
            peer_address=self.peer_address,
            held_domid=self._held_domid,
        )


def _counted(measures: Measures) -> dict[str, types_pb2.Histogram]:
    return {
        str(name): types_pb2.Histogram(counts=histogram.counts, total=histogram.total)
        for name, histogram in measures.histograms().items()
    }
