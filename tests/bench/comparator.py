"""The comparator beside QEMU's colo-compare: the same frames by the same kind of sockets.

Both run as one process with one thread that compares; the client writes a batch of the primary's
frames, then the secondary's, and reads until all of the primary's have come out.
"""

from __future__ import annotations

import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from colod.output.compare.segment import ACK, SYN
from tests.bench.bed import own_cpu_s
from tests.bench.compare_server import LENGTH, NAMES
from tests.bench.table import Figure, Row, Section
from tests.integration.compare_qemu import QemuCompare, connected
from tests.unit.compare_samples import tcp, udp

_SEGMENT_BYTES = 1448
_ODD_BYTES = 1000
_OFFLOADED_BYTES = 60_000
"""What a guest sends at once that leaves the cutting to its interface (TSO), nearly."""
_FRAMES = 4096
_BATCHES = (1, 16, 128)
"""Larger ones than a socket's buffer holds could block both ends in writing."""
_PINGS = 500
_FLOWS = 16_384
_FLOW_BATCH = 128
_LIMIT_S = 60.0
_OCTETS = bytes(range(256)) * 236
Batch = tuple[list[bytes], list[bytes]]


def measure(rounds: int) -> Section:
    """Run all rounds, each with both, in turn."""
    runs: dict[str, list[dict[str, float]]] = {"ours": [], "qemu": []}
    makers: dict[str, Maker] = {"ours": _ours, "qemu": _qemu}
    for number in range(rounds):
        for name in sorted(makers, reverse=number % 2 == 1):
            runs[name].append(_round(makers[name]))
    rows = [
        Row(
            what,
            Figure([each[what] for each in runs["ours"]], unit),
            Figure([each[what] for each in runs["qemu"]], unit),
            "QEMU",
        )
        for what, unit in _UNITS.items()
    ]
    about = (
        f"Debian's QEMU, no guest. Packets are the primary's, each with an equal one of the "
        f"secondary; TCP payloads of {_SEGMENT_BYTES} bytes. Processor time is that of all threads "
        f"of the comparator's process, its sockets included. Latency: from writing one packet of "
        f"either side to reading it. Memory: what {_FLOWS} connections with one compared packet "
        f"each add to the process."
    )
    return Section("Comparator", about, rows)


_UNITS = {
    **{f"TCP, same cut, batches of {size}": "packets/CPU s" for size in _BATCHES},
    f"TCP, secondary cut in {_ODD_BYTES} bytes": "packets/CPU s",
    "TCP, payload": "MB/CPU s",
    f"TCP, payload, segments of {_OFFLOADED_BYTES} bytes": "MB/CPU s",
    "UDP, 64 bytes": "packets/CPU s",
    "latency added to a packet": "µs",
    f"memory at {_FLOWS} connections": "MB",
}


class Subject:
    """A comparator in a process of its own, by its sockets."""

    def __init__(self, pid: int, sockets: dict[str, socket.socket]) -> None:
        """Take a process that has accepted all of them."""
        self._pid = pid
        self._sockets = sockets
        for each in sockets.values():
            each.settimeout(_LIMIT_S)

    def play(self, batches: Sequence[Batch]) -> float:
        """Play batches, and return how many seconds of processor time that took the process."""
        wire = [(_wire(ours), _wire(theirs)) for ours, theirs in batches]
        begin = own_cpu_s(self._pid)
        for ours, theirs in wire:
            self._exchange(ours, theirs)
        return own_cpu_s(self._pid) - begin

    def ping(self, batch: Batch) -> float:
        """Play a batch, and return how many seconds passed until all of it was back."""
        ours, theirs = map(_wire, batch)
        begin = time.perf_counter()
        self._exchange(ours, theirs)
        return time.perf_counter() - begin

    def memory_mb(self) -> float:
        """Return the process's resident memory."""
        status = Path(f"/proc/{self._pid}/status").read_text()
        (line,) = [each for each in status.splitlines() if each.startswith("VmRSS")]
        return int(line.split()[1]) * 1024 / 1e6

    def _exchange(self, ours: bytes, theirs: bytes) -> None:
        self._sockets["primary"].sendall(ours)
        self._sockets["secondary"].sendall(theirs)
        size = len(ours)
        while size > 0:
            got = len(self._sockets["out"].recv(size))
            assert got, "the comparator ended"
            size -= got


Maker = Callable[[], AbstractContextManager[Subject]]


def _round(make: Maker) -> dict[str, float]:
    found: dict[str, float] = {}
    for size in _BATCHES:
        took = _timed(make, _stream(size, _SEGMENT_BYTES, _SEGMENT_BYTES))
        found[f"TCP, same cut, batches of {size}"] = _FRAMES / took
    found["TCP, payload"] = (
        found[f"TCP, same cut, batches of {_BATCHES[-1]}"] * _SEGMENT_BYTES / 1e6
    )
    took = _timed(make, _stream(_BATCHES[-1], _SEGMENT_BYTES, _ODD_BYTES))
    found[f"TCP, secondary cut in {_ODD_BYTES} bytes"] = _FRAMES / took
    took = _timed(make, _stream(1, _OFFLOADED_BYTES, _OFFLOADED_BYTES))
    found[f"TCP, payload, segments of {_OFFLOADED_BYTES} bytes"] = (
        _FRAMES / took * _OFFLOADED_BYTES / 1e6
    )
    found["UDP, 64 bytes"] = _FRAMES / _timed(make, _datagrams(_BATCHES[-1]))
    with make() as subject:
        pings = [
            subject.ping(batch) for batch in _stream(1, _SEGMENT_BYTES, _SEGMENT_BYTES)[:_PINGS]
        ]
        found["latency added to a packet"] = statistics.median(pings) * 1e6
    with make() as subject:
        before = subject.memory_mb()
        subject.play(_connections())
        found[f"memory at {_FLOWS} connections"] = subject.memory_mb() - before
    return found


def _timed(make: Maker, batches: Sequence[Batch]) -> float:
    with make() as subject:
        return subject.play(batches)


@contextmanager
def _ours() -> Iterator[Subject]:
    with tempfile.TemporaryDirectory(prefix="colod-") as directory:
        command = [sys.executable, "-m", "tests.bench.compare_server", directory, str(_FLOWS)]
        process = subprocess.Popen(command)
        try:
            streams = {name: connected(Path(directory) / f"{name}.sock", process) for name in NAMES}
            yield Subject(process.pid, {name: each.socket for name, each in streams.items()})
            for each in streams.values():
                each.close()
        finally:
            process.kill()
            process.wait()


@contextmanager
def _qemu() -> Iterator[Subject]:
    with (
        tempfile.TemporaryDirectory(prefix="colod-") as directory,
        QemuCompare(Path(directory)) as qemu,
    ):
        yield Subject(qemu.pid, {name: qemu.stream(name).socket for name in NAMES})


def _wire(frames: Sequence[bytes]) -> bytes:
    return b"".join(LENGTH.pack(len(each)) + each for each in frames)


def _cut(begin: int, end: int, size: int) -> list[bytes]:
    """Return a part of a stream in segments of a size."""
    return [
        tcp(_OCTETS[at % 256 : at % 256 + min(size, end - at)], seq=1001 + at)
        for at in range(begin, end, size)
    ]


def _stream(batch: int, ours_bytes: int, theirs_bytes: int) -> list[Batch]:
    """Return a connection's packets, as many as in all runs."""
    syn = tcp(flags=SYN | ACK, seq=1000)
    batches: list[Batch] = [([syn], [syn])]
    size = batch * ours_bytes
    for begin in range(0, _FRAMES * ours_bytes, size):
        ends = (begin, begin + size)
        batches.append((_cut(*ends, ours_bytes), _cut(*ends, theirs_bytes)))
    return batches


def _datagrams(batch: int) -> list[Batch]:
    frames = [udp(number.to_bytes(64, "big")) for number in range(_FRAMES)]
    parts = [frames[at : at + batch] for at in range(0, _FRAMES, batch)]
    return [(part, part) for part in parts]


def _connections() -> list[Batch]:
    frames = [tcp(bytes(64), ports=(80, 1024 + number)) for number in range(_FLOWS)]
    parts = [frames[at : at + _FLOW_BATCH] for at in range(0, _FLOWS, _FLOW_BATCH)]
    return [(part, part) for part in parts]
