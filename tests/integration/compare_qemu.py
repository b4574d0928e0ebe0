"""QEMU's own colo-compare, without a guest: frames go in by sockets, what it releases comes out.

QEMU reads each socket in order but not the two in the order in which they were written, and it says
nothing of a frame that it holds. So each step is followed by a mark: a datagram of a flow of its
own, first as the secondary's, then as the primary's. When it comes out, all that was written before
it has been dealt with.
"""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from colod.output.compare.decisions import Side
from tests.unit.compare_samples import Ip, ethernet, udp

PROGRAM = "qemu-system-x86_64"
_LIMIT_S = 30.0
_PAUSE_S = 0.02
_NEVER_MS = 3_600_000
_LENGTH = struct.Struct(">I")
_MARKS = (9, 9)
_SOCKETS = ("primary", "secondary", "out", "notify")


def require_qemu() -> None:
    """Skip visibly where there is no QEMU with colo-compare; CI never skips."""
    reason = _missing()
    if reason and os.environ.get("CI") != "true":
        pytest.skip(reason)
    assert not reason, reason


def _missing() -> str:
    if shutil.which(PROGRAM) is None:
        return f"not found: {PROGRAM} (Debian: qemu-system-x86)"
    listed = subprocess.run(
        [PROGRAM, "-object", "help"], capture_output=True, text=True, timeout=_LIMIT_S, check=False
    )
    has_compare = "colo-compare" in listed.stdout + listed.stderr
    return "" if has_compare else f"{PROGRAM} was built without colo-compare"


class QemuCompare:
    """One QEMU with one colo-compare; a context manager that ends it.

    Its time limit is set so that it never comes: what it decides at once is what is compared.
    """

    def __init__(self, directory: Path) -> None:
        """Say where its sockets are to be: their paths are limited to 107 bytes."""
        self._directory = directory
        self._marks = 0
        self._streams: dict[str, Stream] = {}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> QemuCompare:
        """Start it, and wait until it listens."""
        devices = [
            argument
            for name in _SOCKETS
            for argument in (
                "-chardev",
                f"socket,id={name},path={self._path(name)},server=on,wait=off",
            )
        ]
        compare = (
            "colo-compare,id=compare,primary_in=primary,secondary_in=secondary,outdev=out,"
            f"notify_dev=notify,iothread=io,compare_timeout={_NEVER_MS},"
            f"expired_scan_cycle={_NEVER_MS},max_queue_size=1000000"
        )
        machine = ["-M", "none", "-nodefaults", "-nographic", "-display", "none", "-S"]
        objects = ["-object", "iothread,id=io", *devices, "-object", compare]
        self._process = subprocess.Popen(
            [PROGRAM, *machine, "-monitor", "none", "-serial", "none", *objects],
            stdin=subprocess.DEVNULL,
        )
        try:
            self._streams = {name: connected(self._path(name), self._process) for name in _SOCKETS}
            self._await_reader()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        for stream in self._streams.values():
            stream.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def stream(self, name: str) -> Stream:
        """Return one of its sockets: primary, secondary, out or notify."""
        return self._streams[name]

    def step(self, side: Side, *frames: bytes) -> list[bytes]:
        """Give it frames of one side, and return what it released until they were dealt with."""
        self._streams[side.value].send(frames)
        return self.settle()

    def settle(self) -> list[bytes]:
        """Wait until all that was written is dealt with; return what was released meanwhile."""
        self._marks += 1
        mark = udp(_LENGTH.pack(self._marks), ports=_MARKS, ip=Ip(source="192.0.2.250"))
        self._streams["secondary"].send([mark])
        self._streams["primary"].send([mark])
        released = []
        while (frame := self._streams["out"].receive()) != mark:
            released.append(frame)
        return released

    def requests(self) -> int:
        """Return how often it has asked for a checkpoint since this was asked last."""
        count = 0
        while (message := self._streams["notify"].poll()) is not None:
            assert message == b"DO_CHECKPOINT"
            count += 1
        return count

    def checkpoint(self) -> list[bytes]:
        """Tell it that a checkpoint was made; return what that released.

        The notice comes by a socket of its own, so its effect is waited for: a frame that only a
        checkpoint releases.
        """
        self._marks += 1
        probe = udp(_LENGTH.pack(self._marks), ports=(7, 7), ip=Ip(source="192.0.2.251"))
        released = self.step(Side.PRIMARY, probe)
        self._streams["notify"].send([b"COLO_CHECKPOINT"])
        while (frame := self._streams["out"].receive()) != probe:
            released.append(frame)
        return released + self.settle()

    def _await_reader(self) -> None:
        """Wait until it has taken up all connections: until then it loses what it releases.

        It sends on at once what is not IPv4.
        """
        end = time.monotonic() + _LIMIT_S
        self._streams["notify"].send([b"COLO_USERSPACE_PROXY_INIT"])
        assert self._streams["notify"].receive() == b"COLO_COMPARE_GET_XEN_INIT"
        while True:
            self._streams["primary"].send([ethernet(b"probe", 0x88B5)])
            time.sleep(_PAUSE_S)
            if self._streams["out"].poll() is not None:
                break
            assert time.monotonic() < end, "QEMU does not release"
        self.settle()

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}.sock"


def connected(path: Path, process: subprocess.Popen[bytes]) -> Stream:
    """Connect to a socket of a process as soon as that listens."""
    end = time.monotonic() + _LIMIT_S
    while True:
        assert process.poll() is None, "the comparator ended"
        try:
            return Stream(path)
        except OSError:
            assert time.monotonic() < end, f"nobody listens at {path}"
            time.sleep(_PAUSE_S)


class Stream:
    """A socket with messages, each preceded by its length."""

    def __init__(self, path: Path) -> None:
        """Connect."""
        self.socket = socket.socket(socket.AF_UNIX)
        self._buffer = bytearray()
        try:
            self.socket.connect(str(path))
        except OSError:
            self.socket.close()
            raise

    def close(self) -> None:
        """End the connection."""
        self.socket.close()

    def send(self, messages: Sequence[bytes]) -> None:
        """Send messages in one go."""
        self.socket.settimeout(_LIMIT_S)
        self.socket.sendall(b"".join(_LENGTH.pack(len(each)) + each for each in messages))

    def receive(self) -> bytes:
        """Return the next message, and wait for it."""
        self.socket.settimeout(_LIMIT_S)
        while (message := self._first()) is None:
            self._read()
        return message

    def poll(self) -> bytes | None:
        """Return the next message if one is there."""
        self.socket.settimeout(0)
        while (message := self._first()) is None:
            try:
                self._read()
            except BlockingIOError:
                return None
        return message

    def _read(self) -> None:
        more = self.socket.recv(1 << 18)
        assert more, "QEMU closed a socket"
        self._buffer += more

    def _first(self) -> bytes | None:
        if len(self._buffer) < _LENGTH.size:
            return None
        (size,) = _LENGTH.unpack_from(self._buffer)
        if len(self._buffer) < _LENGTH.size + size:
            return None
        message = bytes(self._buffer[_LENGTH.size : _LENGTH.size + size])
        del self._buffer[: _LENGTH.size + size]
        return message
