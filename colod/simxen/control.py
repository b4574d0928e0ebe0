"""How an xl command talks to a domain: JSON lines over the domain's `ctl` socket."""

import contextlib
import json
import os
import shutil
import socket
from pathlib import Path
from typing import Any

from colod.simxen.host import Host

JsonObject = dict[str, Any]

REPLY_TIMEOUT_S = 30.0


class DomainGone(Exception):
    """The domain does not exist, or ended while it was asked."""


class SuspendTimedOut(Exception):
    """The guest did not suspend in time; the request was withdrawn."""


def short_path(path: Path, directory_fd: int) -> str:
    """Name a socket through a descriptor of its directory: socket paths end at 107 bytes."""
    return f"/proc/self/fd/{directory_fd}/{path.name}"


class DomainLink:
    """A connection to one domain's control socket."""

    def __init__(self, host: Host, domid: int) -> None:
        """Connect.

        Raises:
            DomainGone: There is no such domain.
        """
        self.domid = domid
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(REPLY_TIMEOUT_S)
        self._unread = b""
        directory = host.root / "domains" / str(domid)
        try:
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            try:
                self._socket.connect(short_path(directory / "ctl", fd))
            finally:
                os.close(fd)
        except (FileNotFoundError, ConnectionError) as error:
            self._socket.close()
            raise DomainGone(str(domid)) from error
        except OSError:
            self._socket.close()
            raise

    def __enter__(self) -> "DomainLink":
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection; a pending suspend request is withdrawn by that."""
        self._socket.close()

    def send(self, command: str, **arguments: object) -> None:
        """Send a request and do not wait."""
        line = json.dumps({"command": command, **arguments}) + "\n"
        try:
            self._socket.sendall(line.encode())
        except OSError as error:
            raise DomainGone(str(self.domid)) from error

    def receive(self, timeout_s: float | None = REPLY_TIMEOUT_S) -> JsonObject:
        """Return the next line from the domain.

        Raises:
            DomainGone: The domain ended.
            TimeoutError: Nothing came for `timeout_s` seconds.
        """
        self._socket.settimeout(timeout_s)
        while b"\n" not in self._unread:
            try:
                got = self._socket.recv(65536)
            except TimeoutError:
                raise
            except OSError as error:
                raise DomainGone(str(self.domid)) from error
            if not got:
                raise DomainGone(str(self.domid))
            self._unread += got
        line, _, self._unread = self._unread.partition(b"\n")
        reply: JsonObject = json.loads(line)
        return reply

    def wait_end(self) -> None:
        """Return once the domain's process has closed its end."""
        with contextlib.suppress(DomainGone, TimeoutError):
            while True:
                self.receive()

    def ask(self, command: str, **arguments: object) -> JsonObject:
        """Send a request and return its reply."""
        self.send(command, **arguments)
        return self.receive()

    def fileno(self) -> int:
        """Return the descriptor, for `select`."""
        return self._socket.fileno()


def ask(host: Host, domid: int, command: str, **arguments: object) -> JsonObject:
    """Ask one domain one thing.

    Raises:
        DomainGone: There is no such domain.
    """
    with DomainLink(host, domid) as link:
        return link.ask(command, **arguments)


def domains(host: Host) -> list[JsonObject]:
    """Return what each living domain says of itself, by domid; forget those whose process died."""
    found = []
    for entry in (host.root / "domains").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            found.append(ask(host, int(entry.name), "info"))
        except DomainGone:
            shutil.rmtree(entry, ignore_errors=True)
    return sorted(found, key=lambda info: int(info["domid"]))


def find_by_name(host: Host, name: str) -> int | None:
    """Return the domid of the domain of this name."""
    return next((int(each["domid"]) for each in domains(host) if each["name"] == name), None)


def config_of(host: Host, domid: int) -> JsonObject:
    """Return a domain's configuration as libxl keeps it.

    Raises:
        DomainGone: There is no such domain.
    """
    try:
        text = (host.root / "domains" / str(domid) / "config.json").read_text(encoding="utf-8")
    except OSError as error:
        raise DomainGone(str(domid)) from error
    config: JsonObject = json.loads(text)
    return config


def destroy(host: Host, domid: int) -> bool:
    """Destroy a domain and wait until it and its memory are gone; False if there was none."""
    try:
        with DomainLink(host, domid) as link:
            link.send("destroy")
            link.wait_end()
    except DomainGone:
        return False
    return True


def suspend(host: Host, domid: int, timeout_s: float) -> JsonObject:
    """Ask the guest to suspend and wait until it has; a paused guest cannot.

    Raises:
        DomainGone: There is no such domain, or it was destroyed meanwhile.
        SuspendTimedOut: It did not within `timeout_s`; the request is withdrawn.
    """
    with DomainLink(host, domid) as link:
        link.send("suspend")
        try:
            return link.receive(timeout_s)
        except TimeoutError as error:
            raise SuspendTimedOut(str(domid)) from error


def is_gone(host: Host, domid: int) -> bool:
    """Tell whether there is no such domain."""
    try:
        ask(host, domid, "info")
    except DomainGone:
        return True
    return False
