"""The output gate between real sessions: a client behind the simulated Xen's emulated plug.

The same trial runs with the gate and without: without it the client must see what a failover loses.
"""

import contextlib
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from colod.output.kinds import GateSpec, Kind, open_left
from colod.v1 import types_pb2
from tests.integration.session_pair import Pair, State
from tests.integration.simxen_hosts import LIMIT_S, free_port, until

HOLDING = types_pb2.GATE_PHASE_HOLDING


class Client:
    """Asks the guest for its counter again and again, and notes every answer."""

    def __init__(self, port: int) -> None:
        self.seen: list[int] = []
        self._ended = threading.Event()
        self._socket = socket.create_connection(("127.0.0.1", port), LIMIT_S)
        self._threads = [threading.Thread(target=each) for each in (self._ask, self._listen)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        with contextlib.suppress(OSError):
            while not self._ended.wait(0.01):
                self._socket.sendall(b"get\n")

    def _listen(self) -> None:
        with contextlib.suppress(OSError), self._socket.makefile() as lines:
            for line in lines:
                self.seen.append(json.loads(line)["counter"])

    def wait_news(self) -> None:
        """Wait for one more answer."""
        count = len(self.seen)
        until(lambda: len(self.seen) > count, "the client hears from the guest")

    def end(self) -> None:
        """Ask no more; what was sent before is noted."""
        self._ended.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(LIMIT_S)
        self._socket.close()


class Trial:
    """A pair whose guest has a client."""

    def __init__(
        self, base: Path, *, is_gated: bool, interval_ms: int = 50, **changes: Any
    ) -> None:
        self.port = free_port()
        self.pair = Pair(base, port=self.port, **changes)
        guest = self.pair.primary.guest("g1")
        assert guest is not None
        self.gate: dict[str, Any] = {
            "kind": "simulated",
            "interfaces": [f"vif{guest['domid']}.0"],
            "limit_bytes": 1 << 20,
            "argv": ["env", f"COLOD_SIMXEN_DIR={self.pair.primary.root}", self.pair.simxl],
        }
        if is_gated:
            self.pair.changes["gate"] = self.gate
        self.pair.start_sender(interval_ms)
        self.client = Client(self.port)

    def protected(self) -> types_pb2.Gate:
        """Wait until the gate holds what it should."""
        status = self.pair.sending.wait(lambda s: s.gate.is_protected, "the guest is protected")
        assert status.gate.phase == HOLDING
        return status.gate

    def freeze_receiver(self) -> None:
        """Let the secondary acknowledge nothing more."""
        os.kill(self.pair.receiver.pid, signal.SIGSTOP)

    def fail_over(self) -> int:
        """Cut the primary's power; return the counter that the secondary's copy has."""
        self.pair.primary.xl("sim", "kill-host")
        self.client.end()
        os.kill(self.pair.receiver.pid, signal.SIGCONT)
        self.pair.receiving.wait_state(State.SESSION_STATE_PEER_LOST)
        self.pair.receiving.hand_over()
        self.pair.receiving.wait(lambda s: s.handed_over, "xl lets the copy go")
        copy = self.pair.secondary.guest("g1")
        assert copy is not None
        return int(copy["counter"])

    def end(self) -> None:
        """Kill what is left."""
        self.client.end()
        self.pair.end()
        print(self.pair.logs())


@pytest.fixture
def trials(tmp_path: Path) -> Iterator[list[Trial]]:
    found: list[Trial] = []
    yield found
    for trial in found:
        trial.end()


def begin(trials: list[Trial], base: Path, **options: Any) -> Trial:
    trials.append(Trial(base, **options))
    return trials[-1]


def test_a_client_never_sees_what_a_failover_loses(trials: list[Trial], tmp_path: Path) -> None:
    trial = begin(trials, tmp_path, is_gated=True)
    trial.protected()
    trial.client.wait_news()
    trial.pair.sending.wait_acked(trial.pair.sending.newest().progress.acked_epoch + 3)
    trial.freeze_receiver()
    until(lambda: trial.pair.sending.next().gate.held_packets > 5, "output is being held")
    assert trial.fail_over() >= max(trial.client.seen)


def test_a_failover_after_deltas_has_all_that_the_client_saw(
    trials: list[Trial], tmp_path: Path
) -> None:
    deltas = {"codec": "zstd-1", "store_bytes": 4 << 20}
    trial = begin(trials, tmp_path, is_gated=True, deltas=deltas)
    trial.protected()
    trial.client.wait_news()
    acked = trial.pair.sending.newest().progress.acked_epoch
    status = trial.pair.sending.wait_acked(acked + 3)
    assert status.capabilities[0].startswith("delta-1:zstd-1:")
    assert status.progress.epoch_wire_bytes < status.progress.epoch_bytes
    assert trial.fail_over() >= max(trial.client.seen)
    trial.pair.secondary.xl("unpause", "g1")
    answer = until(trial.pair.secondary.observe, "the copy runs")
    assert answer["intact"], "its memory is of one moment"


def test_without_a_gate_the_same_client_sees_what_a_failover_loses(
    trials: list[Trial], tmp_path: Path
) -> None:
    trial = begin(trials, tmp_path, is_gated=False, interval_ms=1000)
    trial.pair.sending.wait_acked(2)
    trial.freeze_receiver()
    for _ in range(10):
        trial.client.wait_news()
    assert trial.fail_over() < max(trial.client.seen)


def test_output_leaves_when_its_epoch_is_acknowledged_and_not_before(
    trials: list[Trial], tmp_path: Path
) -> None:
    trial = begin(trials, tmp_path, is_gated=True)
    trial.protected()
    trial.freeze_receiver()
    until(lambda: trial.pair.sending.next().gate.held_packets > 5, "output is being held")
    trial.pair.sending.wait(lambda s: s.gate.skipped["unacknowledged"], "no ack is under way")
    heard = len(trial.client.seen)
    before = trial.pair.sending.newest().gate
    until(lambda: trial.pair.sending.next().gate.held_packets > before.held_packets + 5, "more")
    assert len(trial.client.seen) == heard, "an answer came without an acknowledgement"
    os.kill(trial.pair.receiver.pid, signal.SIGCONT)
    trial.client.wait_news()
    later = trial.pair.sending.wait(
        lambda s: s.gate.released_epoch > before.released_epoch, "output is released"
    )
    assert later.gate.hold_s > 0


def test_a_checkpoint_that_comes_before_the_last_ack_skips_its_barrier(
    trials: list[Trial], tmp_path: Path
) -> None:
    trial = begin(trials, tmp_path, is_gated=True)
    trial.protected()
    trial.freeze_receiver()
    trial.pair.sending.wait(lambda s: s.gate.skipped["unacknowledged"], "a barrier is skipped")
    os.kill(trial.pair.receiver.pid, signal.SIGCONT)
    trial.client.wait_news()
    assert trial.pair.sending.newest().gate.is_protected


def test_the_gate_that_a_dead_sender_left_is_closed_until_it_is_opened(
    trials: list[Trial], tmp_path: Path
) -> None:
    trial = begin(trials, tmp_path, is_gated=True)
    trial.protected()
    os.kill(trial.pair.sending.newest().pid, signal.SIGKILL)
    until(trial.pair.primary.runs, "xl resumes the guest")
    vif = trial.gate["interfaces"][0]

    def held() -> int:
        shown = trial.pair.primary.xl("sim", "plug", vif, "show").stdout
        return int(json.loads(shown)["queued_packets"])

    until(lambda: held() > 5, "output is being held")
    spec = GateSpec(
        kind=Kind.SIMULATED,
        interfaces=(vif,),
        argv=tuple(trial.gate["argv"]),
    )
    open_left(spec, "web")
    trial.client.wait_news()
    open_left(spec, "web")


def test_a_guest_without_a_gate_is_never_called_protected(
    trials: list[Trial], tmp_path: Path
) -> None:
    trial = begin(trials, tmp_path, is_gated=False)
    assert not trial.pair.sending.wait_acked(4).HasField("gate")
