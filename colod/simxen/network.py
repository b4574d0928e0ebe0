"""The guest's network: it answers on its address while it runs, through the vifs' plugs.

Each request is one line, each answer one JSON line: `get` tells counter and boot id, `poweroff`
and `reboot` do what they say. A copy that never ran does not listen. A paused one stops
listening at once; one that is suspended for a checkpoint keeps its sockets, so that clients only
stall.

What it says unasked goes through the same plug to a file, in which everybody's words lie in the
order in which they got out: two copies that speak at one time show there whatever clients see.
"""

import contextlib
import os
import selectors
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from colod.simxen.control import short_path
from colod.simxen.plug import Plug

Answer = Callable[[str], dict[str, Any]]
Deliver = Callable[[bytes], None]
"""Gives a packet that left its vif to whom it is for."""


class Client:
    """One connection to the guest; `vif` is None for the host's own observers."""

    def __init__(self, connection: socket.socket, vif: str | None) -> None:
        """Take over an accepted connection."""
        connection.setblocking(False)
        self.socket = connection
        self.vif = vif
        self.received = b""


class Network:
    """Listeners and clients of one guest, served by the domain's own loop."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        encode: Callable[[dict[str, Any]], bytes],
        answer: Answer,
    ) -> None:
        """Start without listening; `answer` turns a request line into the reply's fields."""
        self._selector = selector
        self._encode = encode
        self._answer = answer
        self._listeners: list[tuple[socket.socket, str | None]] = []
        self._clients: set[Client] = set()
        self._is_served = False
        self._is_bound = False
        self._observer_path: Path | None = None
        self.plugs: dict[str, Plug[tuple[Deliver, bytes]]] = {}

    def listen(self, service: str, vif: str | None, observer: Path) -> None:
        """Bind the guest's address (`HOST:PORT`, may be empty) and the host's own socket."""
        if self._observer_path is None:
            with contextlib.suppress(OSError):
                self._add_listener(_unix_listener(observer), None)
                self._observer_path = observer
        if service and not self._is_bound:
            # The address may still be in use for a moment; the domain's loop tries again.
            with contextlib.suppress(OSError):
                self._add_listener(_tcp_listener(service), vif or "vif")
                self._is_bound = True

    def unlisten(self) -> None:
        """Give the guest's address up; open connections stay."""
        self.serve(False)
        for listener, _ in self._listeners:
            listener.close()
        self._listeners = []
        self._is_bound = False
        if self._observer_path is not None:
            with contextlib.suppress(OSError):
                self._observer_path.unlink()
            self._observer_path = None

    def serve(self, wanted: bool) -> None:
        """Begin or cease to read requests: the vCPU runs, or it does not."""
        if wanted == self._is_served:
            return
        self._is_served = wanted
        for listener, vif in self._listeners:
            self._watch(listener, partial(self._accept, listener, vif))
        for client in self._clients:
            self._watch(client.socket, partial(self._read, client))

    def flush(self, vif: str) -> None:
        """Send what a plug lets go."""
        plug = self.plugs.get(vif)
        while plug is not None and (packet := plug.dequeue()) is not None:
            deliver, content = packet
            deliver(content)

    def close(self) -> None:
        """Close everything; queued output is lost with the vif."""
        self.unlisten()
        for client in self._clients:
            client.socket.close()
        self._clients.clear()

    def send(self, deliver: Deliver, vif: str | None, packet: bytes) -> None:
        """Send a packet out of `vif`, once its plug lets it go."""
        plug = self.plugs.get(vif) if vif else None
        if plug is None or vif is None:
            deliver(packet)
        elif plug.enqueue((deliver, packet), len(packet)):
            self.flush(vif)

    def _add_listener(self, listener: socket.socket, vif: str | None) -> None:
        self._listeners.append((listener, vif))
        if self._is_served:
            self._watch(listener, partial(self._accept, listener, vif))

    def _watch(self, source: socket.socket, action: Callable[[], None]) -> None:
        if self._is_served:
            self._selector.register(source, selectors.EVENT_READ, action)
        else:
            with contextlib.suppress(KeyError):
                self._selector.unregister(source)

    def _accept(self, listener: socket.socket, vif: str | None) -> None:
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            client = Client(connection, vif)
            self._clients.add(client)
            self._watch(client.socket, partial(self._read, client))

    def _read(self, client: Client) -> None:
        try:
            got = client.socket.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            got = b""
        if not got:
            self._drop(client)
            return
        client.received = (client.received + got)[-65536:]
        while self._is_served and b"\n" in client.received:
            line, _, client.received = client.received.partition(b"\n")
            answer = self._answer(line.decode("utf-8", "replace").strip())
            self.send(partial(self._transmit, client), client.vif, self._encode(answer))

    def _transmit(self, client: Client, packet: bytes) -> None:
        try:
            client.socket.sendall(packet)
        except OSError:
            self._drop(client)

    def _drop(self, client: Client) -> None:
        if client in self._clients:
            self._clients.discard(client)
            if self._is_served:
                self._selector.unregister(client.socket)
            client.socket.close()


def _tcp_listener(service: str) -> socket.socket:
    address, _, port = service.rpartition(":")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Both hosts live on one machine: the guest's address has to work from either, and two
        # running copies have to be able to answer, or a test could never see them.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((address.strip("[]") or "127.0.0.1", int(port)))
        listener.listen(64)
    except BaseException:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def _unix_listener(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        path.unlink(missing_ok=True)
        listener.bind(short_path(path, fd))
        listener.listen(16)
    except BaseException:
        listener.close()
        raise
    finally:
        os.close(fd)
    listener.setblocking(False)
    return listener
