"""Whom the relay is measured beside: socat, ssh, and a plain splice into a socket."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.bed import cpu_s, write_all
from tests.integration.simxen_hosts import until

SSHD = "/usr/sbin/sshd"
CIPHER = "aes128-gcm@openssh.com"
BLOCK = "65536"
SPLICE = """
import os, socket, sys
link = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
while os.splice(0, link.fileno(), 1 << 20):
    pass
link.shutdown(socket.SHUT_WR)
link.recv(1)
"""


@dataclass
class Rival:
    """A running pipeline that takes bytes on a pipe and drops them at the other end.

    Attributes:
        input: Where to write.
        processes: Whose processor time counts, and whose end means that all has arrived.
    """

    input: int
    processes: list[subprocess.Popen[bytes]]
    others: tuple[int, ...] = ()

    def finish(self) -> float:
        """End the input, wait until all has arrived; return the processor time in seconds."""
        os.close(self.input)
        usage = 0.0
        for process in self.processes:
            _, _, spent = os.wait4(process.pid, 0)
            process.returncode = 0
            usage += spent.ru_utime + spent.ru_stime
        return usage + sum(cpu_s(pid) for pid in self.others)


def free_port() -> int:
    """Return a port that nothing uses now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def is_listening(port: int) -> bool:
    """Tell whether something listens there, without connecting to it."""
    wanted = f":{port:04X}"
    rows = Path("/proc/self/net/tcp").read_text().splitlines()[1:]
    return any(row.split()[1].endswith(wanted) and row.split()[3] == "0A" for row in rows)


def socat_to(address: str, far: Sequence[str] = ()) -> Rival:
    """Return one connection by socat to `address`, where `far` runs the other end."""
    port = free_port()
    sink = subprocess.Popen(
        [*far, "socat", "-u", "-b", BLOCK, f"TCP-LISTEN:{port},bind={address}", "OPEN:/dev/null"]
    )
    # The first byte waits for a listener; so nothing has to be known of another network's table.
    link = f"TCP:{address}:{port},retry=100,interval=0.05"
    source, write = _with_input(["socat", "-u", "-b", BLOCK, "-", link])
    return Rival(write, [source, sink])


def _with_input(argv: list[str]) -> tuple[subprocess.Popen[bytes], int]:
    read, write = os.pipe()
    process = subprocess.Popen(argv, stdin=read, stdout=subprocess.DEVNULL)
    os.close(read)
    return process, write


def socat() -> Rival:
    """Return `socat -b 65536` on both sides."""
    port = free_port()
    sink = subprocess.Popen(
        ["socat", "-u", "-b", BLOCK, f"TCP-LISTEN:{port},bind=127.0.0.1", "OPEN:/dev/null"]
    )
    until(lambda: is_listening(port), "socat listens")
    source, write = _with_input(["socat", "-u", "-b", BLOCK, "-", f"TCP:127.0.0.1:{port}"])
    return Rival(write, [source, sink])


@contextmanager
def ssh_server() -> Iterator[list[str]]:
    """Run an sshd with keys of its own; give the client's command line for `cat >/dev/null`."""
    with tempfile.TemporaryDirectory(prefix="colod-bench-") as name:
        folder = Path(name)
        for key in ("host", "user"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True
            )
        port = free_port()
        Path("/run/sshd").mkdir(exist_ok=True)
        options = {
            "ListenAddress": f"127.0.0.1:{port}",
            "HostKey": folder / "host",
            "AuthorizedKeysFile": folder / "user.pub",
            "StrictModes": "no",
            "PidFile": "none",
            "UsePAM": "no",
        }
        words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
        server = subprocess.Popen([SSHD, "-D", "-f", "/dev/null", *words])
        until(lambda: is_listening(port), "sshd listens")
        client = ["ssh", "-F", "none", "-p", str(port), "-i", str(folder / "user"), "-c", CIPHER]
        client += ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
        client += ["-o", "LogLevel=ERROR", "-o", f"SetEnv=COLOD_BENCH={server.pid}"]
        try:
            yield [*client, "root@127.0.0.1", "cat >/dev/null"]
        finally:
            server.terminate()
            server.wait()


def ssh(client: list[str]) -> Rival:
    """Return one connection to that server; its processor time is counted on the client only."""
    process, write = _with_input(client)
    return Rival(write, [process])


def splice() -> Rival:
    """Return a process that splices its input into a socket, as a thin transport would."""
    listener = socket.create_server(("127.0.0.1", 0))

    def drop() -> None:
        connection, _ = listener.accept()
        with connection, listener:
            buffer = bytearray(1 << 20)
            while connection.recv_into(buffer):
                pass

    threading.Thread(target=drop, daemon=True).start()
    port = listener.getsockname()[1]
    process, write = _with_input([sys.executable, "-c", SPLICE, str(port)])
    return Rival(write, [process])


def send(rival: Rival, pieces: list[bytes]) -> float:
    """Write all pieces and wait for their arrival; return the processor time in seconds."""
    for piece in pieces:
        write_all(rival.input, piece)
    return rival.finish()
