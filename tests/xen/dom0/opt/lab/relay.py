"""A plain transport for stock `xl remus`, to see what stock Xen does without colod.

    relay.py receive PORT COMMAND...   serve one connection: it becomes COMMAND's stdin and stdout
    relay.py send HOST PORT            join stdin and stdout to such a connection

Each end writes what it saw last, and why it ended, to /run/relay-send.log or -receive.log.
"""

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

CHUNK_BYTES = 1 << 18


def note(role: str, text: str) -> None:
    with Path(f"/run/relay-{role}.log").open("a") as log:
        log.write(text + "\n")


def pump(source: int, target: int, role: str, name: str) -> None:
    """Copy until the end of file, and say how it ended."""
    total_bytes = 0
    try:
        while chunk := os.read(source, CHUNK_BYTES):
            view = memoryview(chunk)
            while view:
                view = view[os.write(target, view) :]
            total_bytes += len(chunk)
        note(role, f"{name}: end of file after {total_bytes} bytes")
    except OSError as error:
        note(role, f"{name}: {error.strerror} after {total_bytes} bytes")


def receive(port: int, command: list[str]) -> int:
    with socket.create_server(("", port)) as listener:
        note("receive", "listening")
        connection, _ = listener.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        back = (child.stdout.fileno(), connection.fileno(), "receive", "from xl")
        threading.Thread(target=pump, args=back, daemon=True).start()
        pump(connection.fileno(), child.stdin.fileno(), "receive", "to xl")
        child.stdin.close()
        status = child.wait()
    note("receive", f"command ended: {status}")
    return status


def send(host: str, port: int) -> int:
    connection = socket.create_connection((host, port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    threading.Thread(
        target=pump, args=(connection.fileno(), 1, "send", "to xl"), daemon=True
    ).start()
    pump(0, connection.fileno(), "send", "from xl")
    return 0


if __name__ == "__main__":
    if sys.argv[1] == "receive":
        sys.exit(receive(int(sys.argv[2]), sys.argv[3:]))
    sys.exit(send(sys.argv[2], int(sys.argv[3])))
