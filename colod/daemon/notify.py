"""Tell systemd how the daemon stands. Spec: sd_notify(3); one datagram, nothing without systemd."""

from __future__ import annotations

import os
import socket


def notify(*assignments: str) -> bool:
    """Send `assignments` (`READY=1`, `STATUS=…`) to the service manager; return whether it took."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.sendto("\n".join(assignments).encode(), address)
    except OSError:
        return False
    return True


def watchdog_interval_s() -> float | None:
    """Return half of systemd's watchdog time, in seconds, or None where it does not watch us."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    pid = os.environ.get("WATCHDOG_PID", str(os.getpid()))
    if not microseconds.isdigit() or pid != str(os.getpid()):
        return None
    return int(microseconds) / 2_000_000
