"""Three network namespaces, of two hosts and their witness, and a link between each two.

Every namespace has one address on its loopback device and reaches the others' over the link to
them, so that each link can be cut alone. A link that is muted in one way loses every packet
silently, whatever the kernel has of netem: its sender believes in a neighbour that does not exist.
"""

from __future__ import annotations

import itertools
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Final

ADDRESSES: Final = {"alpha": "10.99.0.2", "beta": "10.99.0.3", "witness": "10.99.0.1"}
NOBODY: Final = "02:00:00:00:00:99"


class Net:
    """The namespaces `MARK-alpha`, `MARK-beta` and `MARK-witness`."""

    def __init__(self, mark: str) -> None:
        """Make them, empty ones."""
        self._mark = mark
        self._muted: set[tuple[str, str]] = set()
        try:
            for place, address in ADDRESSES.items():
                _ip("netns", "add", self.name(place))
                self._at(place, "link", "set", "lo", "up")
                self._at(place, "address", "add", f"{address}/32", "dev", "lo")
            for one, other in itertools.combinations(ADDRESSES, 2):
                self._join(one, other)
        except BaseException:
            self.close()
            raise

    def name(self, place: str) -> str:
        """Return the namespace of a place."""
        return f"{self._mark}-{place}"

    def mute(self, sender: str, receiver: str) -> None:
        """Let nothing that `sender` sends arrive at `receiver`; neither is told."""
        self._muted.add((sender, receiver))
        self._believe(sender, receiver)

    def unmute(self, sender: str, receiver: str) -> None:
        """End that."""
        self._muted.discard((sender, receiver))
        with suppress(subprocess.CalledProcessError):  # gone with its link
            self._at(sender, "neigh", "del", ADDRESSES[receiver], "dev", f"to-{receiver}")

    def set_link(self, one: str, other: str, *, is_up: bool) -> None:
        """Pull the cable between two places out, or put it in again; both see the carrier go."""
        self._at(one, "link", "set", f"to-{other}", "up" if is_up else "down")
        if is_up:
            self._route(one, other)
            for sender, receiver in self._muted & {(one, other), (other, one)}:
                self._believe(sender, receiver)

    def mend(self) -> None:
        """End every fault."""
        for one, other in itertools.combinations(ADDRESSES, 2):
            self.set_link(one, other, is_up=True)
        for sender, receiver in tuple(self._muted):
            self.unmute(sender, receiver)

    def close(self) -> None:
        """Remove the namespaces; what runs in them must have ended."""
        for place in ADDRESSES:
            if Path("/run/netns", self.name(place)).exists():
                _ip("netns", "delete", self.name(place))

    def _join(self, one: str, other: str) -> None:
        peer = ("peer", f"to-{one}", "netns", self.name(other))
        self._at(one, "link", "add", f"to-{other}", "type", "veth", *peer)
        for here, there in ((one, other), (other, one)):
            self._at(here, "link", "set", f"to-{there}", "up")
            self._route(here, there)

    def _route(self, here: str, there: str) -> None:
        route = (ADDRESSES[there], "dev", f"to-{there}", "src", ADDRESSES[here])
        self._at(here, "route", "replace", *route)

    def _believe(self, sender: str, receiver: str) -> None:
        entry = (ADDRESSES[receiver], "lladdr", NOBODY, "dev", f"to-{receiver}")
        with suppress(subprocess.CalledProcessError):  # the link is down: it loses all anyway
            self._at(sender, "neigh", "replace", *entry, "nud", "permanent")

    def _at(self, place: str, *words: str) -> None:
        _ip("-n", self.name(place), *words)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
