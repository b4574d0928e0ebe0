"""The simulated Xen in COLO, without colod: both copies, both directions, and libxl's bugs."""

import contextlib
import json
import os
import select
import shlex
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from colod.simxen.colo import segments
from colod.simxen.colo.framing import Unwrapper
from colod.stream.events import (
    CheckpointStateSeen,
    Direction,
    DirtyPfnsSeen,
    EpochSealed,
    Event,
)
from colod.stream.libxl import ControlId
from colod.stream.parser import StreamParser
from tests.integration.simxen_hosts import SIMXL, SimHost, free_port, until
from tests.wires import Caller, Wire

NOTIFY_WORDS = (b"COLO_USERSPACE_PROXY_INIT", b"COLO_CHECKPOINT")


def _word(text: bytes) -> bytes:
    return len(text).to_bytes(4, "big") + text


class PassingProxy(threading.Thread):
    """Stands where a proxy stands, lets all out, and keeps what each copy said."""

    def __init__(self, base: Path) -> None:
        super().__init__(daemon=True)
        self.notify_path = base / "notify.sock"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self.notify_path))
        self._listener.listen()
        self._woken, self._wake = os.pipe()
        self.checkpoints = 0
        self.said: dict[str, list[bytes]] = {"primary": [], "secondary": []}
        self._sockets: dict[str, socket.socket] = {}
        self._frames = {"primary": Unwrapper(), "secondary": Unwrapper()}

    def attach(self, host: SimHost, name: str, *sockets: str) -> None:
        """Connect to filters of a domain."""
        directory = json.loads(host.xl("sim", "colo", name, "show").stdout)["directory"]
        for each in sockets:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.connect(f"{directory}/colo-{each}.sock")
            self._sockets[each] = connection
        os.write(self._wake, b"+")

    def ask(self) -> None:
        """Ask libxl for a checkpoint, and wait until it says that it has made one."""
        wanted = self.checkpoints + 1
        self._sockets["notify"].sendall(_word(b"DO_CHECKPOINT"))
        until(lambda: self.checkpoints >= wanted, "a checkpoint")

    def ask_in_vain(self) -> None:
        """Ask libxl for a checkpoint that cannot be made."""
        self._sockets["notify"].sendall(_word(b"DO_CHECKPOINT"))

    def close(self) -> None:
        """End it."""
        os.write(self._wake, b"x")
        self.join()
        for each in (self._listener, *self._sockets.values()):
            each.close()
        os.close(self._woken)
        os.close(self._wake)

    def run(self) -> None:
        """Pass on until the end."""
        while True:
            names = {each: name for name, each in self._sockets.items()}
            sources: list[int | socket.socket] = [self._woken, self._listener, *names]
            ready, _, _ = select.select(sources, [], [])
            if self._woken in ready and os.read(self._woken, 1) == b"x":
                return
            if self._listener in ready:
                self._sockets["notify"] = self._listener.accept()[0]
            for each in ready:
                if isinstance(each, socket.socket) and each in names:
                    self._take(names[each], each)

    def _take(self, name: str, source: socket.socket) -> None:
        octets = b""
        with contextlib.suppress(OSError):
            octets = source.recv(1 << 16)
        if not octets:
            self._sockets.pop(name).close()
        elif name == "notify":
            if octets == _word(NOTIFY_WORDS[0]):
                source.sendall(_word(b"COLO_COMPARE_GET_XEN_INIT"))
            elif octets == _word(NOTIFY_WORDS[1]):
                self.checkpoints += 1
        elif name in self.said:
            self.said[name] += self._frames[name].feed(octets)
            if name == "primary":
                self._sockets["out"].sendall(octets)
        elif name == "mirror" and "mirrored" in self._sockets:
            with contextlib.suppress(OSError):
                self._sockets["mirrored"].sendall(octets)


class Bench:
    """Two hosts, a switch, and `g1` on its way between them."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.alpha, self.beta = SimHost(base / "alpha"), SimHost(base / "beta")
        for host in (self.alpha, self.beta):
            host.root.mkdir()
        self.wire = Wire(base, free_port())
        self.alpha.create(type="hvm", sim_wire=str(self.wire.socket))
        until(lambda: (self.alpha.guest("g1") or {}).get("has_run"), "it runs")
        self.proxy = PassingProxy(base)
        self.proxy.start()
        self.alpha.xl("sim", "colo", "g1", "compare", str(self.proxy.notify_path))
        self.proxy.attach(self.alpha, "g1", "primary", "out", "mirror")
        self.caller = Caller(self.wire.port)

    def replicate(self) -> None:
        """Begin COLO, and wait until the copy runs."""
        receive = f"env COLOD_SIMXEN_DIR={self.beta.root} {SIMXL} migrate-receive --colo -e"
        taps = [shlex.quote(str(self.base / name)) for name in ("forward", "back")]
        command = f"tee {taps[0]} | {receive} | tee {taps[1]}"
        log = (self.base / "remus.log").open("wb")
        argv = ("remus", "-c", "-p", "-s", "", "g1", command)
        self.xl = self.alpha.start(*argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        log.close()
        until(lambda: self.proxy.checkpoints == 1, "the first checkpoint")
        until(self.copy_runs, "the copy runs")
        self.proxy.attach(self.beta, "g1--incoming", "secondary", "mirrored")

    def copy_runs(self) -> bool:
        return bool((self.beta.guest("g1--incoming") or {}).get("running"))

    def counters(self) -> tuple[int, int]:
        """Return the primary's and the secondary's."""
        infos = (self.alpha.guest("g1"), self.beta.guest("g1--incoming"))
        assert infos[0] is not None
        assert infos[1] is not None
        return infos[0]["counter"], infos[1]["counter"]

    def are_equal(self) -> bool:
        primary, secondary = self.counters()
        return primary == secondary

    def events(self, name: str, direction: Direction) -> list[Event]:
        """Return what went by in one direction, xl's own beginning included."""
        parser = StreamParser(direction=direction)
        return list(parser.feed((self.base / name).read_bytes()))

    def close(self) -> None:
        self.caller.close()
        for host in (self.alpha, self.beta):
            host.xl("sim", "stop-host", check=False)
        if hasattr(self, "xl"):
            self.xl.wait(30)
        self.proxy.close()
        self.wire.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    with tempfile.TemporaryDirectory(prefix="colo-") as directory:
        made = Bench(Path(directory))
        try:
            yield made
        finally:
            made.close()


def payloads(frames: list[bytes]) -> list[bytes]:
    """Return the answers among frames, those that were sent again, too."""
    found = [segments.decode(frame) for frame in frames]
    return [each.payload for each in found if each is not None and each.payload]


def test_two_running_copies_answer_the_same_requests_alike(bench: Bench) -> None:
    bench.replicate()
    answers = [bench.caller.ask() for _ in range(20)]
    assert [each["counter"] for each in answers] == list(range(1, 21))
    until(lambda: len(set(payloads(bench.proxy.said["secondary"]))) >= 20, "the copy has answered")
    ours, theirs = (payloads(bench.proxy.said[side]) for side in ("primary", "secondary"))
    assert len(set(ours)) == 20
    assert set(ours) == set(theirs)
    assert bench.wire.speakers() == [str(bench.alpha.root)]


def test_a_copy_that_diverged_gets_the_primarys_state_by_a_checkpoint(bench: Bench) -> None:
    bench.replicate()
    bench.caller.ask()
    until(bench.are_equal, "both have answered")
    bench.beta.xl("sim", "colo", "g1--incoming", "diverge")
    assert not bench.are_equal()
    bench.proxy.ask()
    until(bench.are_equal, "the checkpoint made them equal")
    assert bench.caller.ask()["counter"] == 2
    until(bench.are_equal, "they answer alike again")


def test_both_directions_of_the_stream_are_those_of_libxl_in_colo(bench: Bench) -> None:
    bench.replicate()
    bench.caller.ask()
    bench.beta.xl("sim", "colo", "g1--incoming", "diverge")
    bench.proxy.ask()
    bench.proxy.ask()
    until(lambda: bench.proxy.checkpoints >= 3, "three checkpoints")
    forward = bench.events("forward", Direction.FORWARD)
    back = bench.events("back", Direction.BACK)
    sealed = [each.epoch for each in forward if isinstance(each, EpochSealed)]
    assert sealed[:3] == [1, 2, 3]
    news = [each.control_id for each in forward if isinstance(each, CheckpointStateSeen)]
    assert set(news) == {ControlId.CHECKPOINT_NEW}
    states = [each.control_id for each in back if isinstance(each, CheckpointStateSeen)]
    assert states[:5] == [
        ControlId.CHECKPOINT_SVM_READY,
        ControlId.CHECKPOINT_SVM_RESUMED,
        ControlId.CHECKPOINT_SVM_SUSPENDED,
        ControlId.CHECKPOINT_SVM_READY,
        ControlId.CHECKPOINT_SVM_RESUMED,
    ]
    dirty = [each.pfns for each in back if isinstance(each, DirtyPfnsSeen)]
    assert any(dirty), "the copy has changed pages of its own"


def test_stock_xl_leaves_the_primary_suspended_when_the_secondary_is_lost(bench: Bench) -> None:
    bench.replicate()
    bench.beta.xl("sim", "kill-host")
    bench.proxy.ask_in_vain()
    assert bench.xl.wait(30) == -signal.SIGABRT
    assert (bench.alpha.guest("g1") or {})["shutdown"] == 2
    assert "Assertion `rc' failed" in (bench.base / "remus.log").read_text()


def test_a_mended_xl_resumes_the_primary_when_the_secondary_is_lost(bench: Bench) -> None:
    (bench.alpha.root / "xl.conf").write_text('sim_colo_fixed="suspended"\n')
    bench.replicate()
    bench.beta.xl("sim", "kill-host")
    bench.proxy.ask_in_vain()
    assert bench.xl.wait(30) == 1
    until(lambda: (bench.alpha.guest("g1") or {}).get("running"), "it runs on")


def test_stock_xl_leaves_a_survivor_with_its_filters_and_the_wrong_name(bench: Bench) -> None:
    bench.replicate()
    before = bench.caller.ask()
    until(bench.are_equal, "both have answered")
    bench.alpha.xl("sim", "kill-host")
    until(lambda: "xl migrate-receive" not in bench.beta.roles(), "xl has crashed")
    assert bench.copy_runs()
    shown = json.loads(bench.beta.xl("sim", "colo", "g1--incoming", "show").stdout)
    assert (shown["filters"], shown["on_wire"]) == ("secondary", False)
    assert bench.wire.speakers() == [str(bench.alpha.root)]
    bench.beta.xl("sim", "colo", "g1--incoming", "pass")
    after = bench.caller.ask()
    assert after["boot_id"] == before["boot_id"]
    assert after["counter"] == before["counter"] + 1
    assert bench.wire.speakers() == [str(bench.alpha.root), str(bench.beta.root)]


def test_a_mended_xl_names_the_survivor_and_takes_its_filters_away(bench: Bench) -> None:
    (bench.beta.root / "xl.conf").write_text('sim_colo_fixed="incoming, filters"\n')
    bench.replicate()
    bench.caller.ask()
    until(bench.are_equal, "both have answered")
    bench.alpha.xl("sim", "kill-host")
    assert bench.caller.ask()["counter"] == 2, "a connection made before both ran goes on"
    assert bench.beta.guest("g1") is not None


def test_a_libxl_without_colo_says_so(bench: Bench) -> None:
    (bench.alpha.root / "xl.conf").write_text('sim_colo="off"\n')
    done = bench.alpha.xl("remus", "-c", "-p", "-s", "", "g1", "exec true", check=False)
    assert done.returncode == 1
    assert "COLO is not supported" in done.stderr
    assert bench.alpha.xl("sim", "colo", check=False).returncode == 1


def test_colo_excludes_the_options_of_remus(bench: Bench) -> None:
    done = bench.alpha.xl("remus", "-c", "-n", "-s", "", "g1", "exec true", check=False)
    assert done.returncode == 1
    assert "mutually exclusive" in done.stderr
