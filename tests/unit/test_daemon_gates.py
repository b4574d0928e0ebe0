"""What the network is told after a takeover."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from colod.daemon import gates
from colod.daemon.parts import Parts
from colod.errors import ToolstackError
from colod.model import GuestName

GUEST = GuestName("g1")


class BusyXen:
    """It answers only after some questions."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.asked = 0

    async def find(self, guest: GuestName) -> Any:
        self.asked += 1
        if self.asked <= self.failures:
            raise ToolstackError(("xl", "list"), None, "timed out")
        return SimpleNamespace(domid=7)

    async def vifs(self, domid: int) -> Any:
        assert domid == 7
        return [SimpleNamespace(bridge="br0", mac="00:16:3e:00:00:01")]


@pytest.fixture
def announced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the bridges on which a guest is announced; no time passes between attempts."""
    found: list[str] = []

    async def announce(bridge: str, guests: object) -> int:
        found.append(bridge)
        return 3

    monkeypatch.setattr(gates, "announce", announce)
    monkeypatch.setattr(gates, "_exists", lambda device: True)
    monkeypatch.setattr(gates, "_ANNOUNCE_AFTER_S", (0.0, 0.0, 0.0))
    return found


@pytest.mark.parametrize(("failures", "wanted"), [(0, ["br0"]), (2, ["br0"]), (3, [])])
async def test_a_guest_is_announced_though_xen_does_not_answer_at_first(
    announced: list[str], failures: int, wanted: list[str]
) -> None:
    """Else switches go on sending its traffic to the dead host."""
    xen = BusyXen(failures)
    await gates.announce_guest(cast("Parts", SimpleNamespace(toolstack=xen)), GUEST)
    assert announced == wanted
    assert xen.asked == min(failures + 1, 3)
