"""A real QEMU without a guest, with the filters that libxl gives a COLO guest.

What libxl calls a tap is a datagram socket here, and the guest's interface another one, joined by a
hub: a frame sent to the one is what the network sends, a frame sent to the other is the guest's.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from colod.output.colo.ports import Address
from tests.integration.compare_qemu import PROGRAM

_FRAME_BYTES = 1 << 16


class Wire:
    """One side of QEMU's hub: what it sends comes here, what is sent from here it takes."""

    def __init__(self) -> None:
        self.socket = socket.socket(type=socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.setblocking(False)
        with socket.socket(type=socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            self._qemu = free.getsockname()

    def netdev(self, name: str) -> str:
        """Return QEMU's option for its end."""
        mine, theirs = (f"{host}:{port}" for host, port in (self.socket.getsockname(), self._qemu))
        return f"socket,id={name},udp={mine},localaddr={theirs}"

    def send(self, *frames: bytes) -> None:
        for each in frames:
            self.socket.sendto(each, self._qemu)

    async def receive(self) -> bytes:
        return await asyncio.get_running_loop().sock_recv(self.socket, _FRAME_BYTES)


class ColoQemu:
    """The device model of one copy."""

    def __init__(self, qmp: Path) -> None:
        self.network, self.guest = Wire(), Wire()
        self.qmp = qmp

    @contextlib.asynccontextmanager
    async def running(self, arguments: Sequence[str]) -> AsyncIterator[ColoQemu]:
        """Run it; return when it answers, its filters made."""
        command = [
            *(PROGRAM, "-M", "none", "-nodefaults", "-nographic", "-display", "none"),
            *("-monitor", "none", "-serial", "none"),
            *("-qmp", f"unix:{self.qmp},server=on,wait=off"),
            *("-netdev", self.network.netdev("net0")),
            *("-netdev", "hubport,id=hub0,hubid=0,netdev=net0"),
            *("-netdev", self.guest.netdev("guest")),
            *("-netdev", "hubport,id=hub1,hubid=0,netdev=guest"),
            *arguments,
        ]
        process = subprocess.Popen(  # noqa: ASYNC220  (it takes no time)
            command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            yield self
        finally:
            process.kill()
            process.wait()
            self.network.socket.close()
            self.guest.socket.close()


def client(name: str, address: Address) -> list[str]:
    """Return a socket that connects, as libxl's `sock_redirector1` and the secondary's do."""
    assert isinstance(address, tuple)
    return ["-chardev", f"socket,id={name},host={address[0]},port={address[1]}"]


def server(name: str, address: Address) -> list[str]:
    """Return a socket that listens, as libxl's `sock_compare_pri_in` and `sock_redirector0` do."""
    assert isinstance(address, tuple)
    return [
        "-chardev",
        f"socket,id={name},host={address[0]},port={address[1]},server=on,wait=off",
    ]


def primary_filters() -> list[str]:
    """Return the filters of a primary, in libxl's order.

    Source: Xen tools/libs/light/libxl_dm.c, "primary colo run".
    """
    return [
        *("-object", "filter-redirector,id=r1,netdev=net0,queue=rx,indev=out"),
        *("-object", "filter-redirector,id=r2,netdev=net0,queue=rx,outdev=primary"),
    ]


def secondary_filters() -> list[str]:
    """Return the filters of a secondary that go to the proxy, in libxl's order.

    Source: Xen tools/libs/light/libxl_dm.c, "secondary colo run".
    """
    return [
        *("-object", "filter-redirector,id=rs2,netdev=net0,queue=rx,outdev=secondary"),
        *("-object", "filter-rewriter,id=rs3,netdev=net0,queue=all"),
    ]


def libxl_arguments(keys: Mapping[str, str], *, is_secondary: bool) -> list[str]:
    """Return what libxl makes of a guest's COLO keys.

    Source: Xen tools/libs/light/libxl_dm.c, both "colo run"s, in their order.
    """
    if is_secondary:
        sockets = {"sec_redirector0": "", "sec_redirector1": ""}
        filters = [
            ("filter-redirector", "rs1", "sec_redirector0", "indev"),
            ("filter-redirector", "rs2", "sec_redirector1", "outdev"),
            ("filter-rewriter", "rs3", "sec_rewriter0", ""),
        ]
    else:
        sockets = dict.fromkeys(
            ["mirror", "compare_pri_in", "compare_sec_in", "compare_notify", "redirector0"],
            ",server=on,wait=off",
        )
        sockets |= {"redirector1": "", "redirector2": ""}
        filters = [
            ("filter-mirror", "m1", "mirror", "outdev"),
            ("filter-redirector", "r1", "redirector0", "indev"),
            ("filter-redirector", "r2", "redirector1", "outdev"),
        ]
    arguments = []
    for name, how in sockets.items():
        ends = [keys.get(f"colo_sock_{name}_{end}") for end in ("id", "ip", "port")]
        if all(ends):
            arguments += ["-chardev", "socket,id={},host={},port={}".format(*ends) + how]
    for kind, identity, name, end in filters:
        queue = keys[f"colo_filter_{name}_queue"]
        device = f",{end}={keys[f'colo_filter_{name}_{end}']}" if end else ""
        arguments += ["-object", f"{kind},id={identity},netdev=net0,queue={queue}{device}"]
    return arguments
