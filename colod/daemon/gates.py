"""Which output gate a guest gets on this host, and how one that a session left is got rid of."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import structlog

from colod.daemon.parts import Parts
from colod.errors import ColodError
from colod.model import GuestName
from colod.observe.logs import Event
from colod.output.announce import announce
from colod.output.frames import Guest, parse_mac
from colod.output.kinds import GateSpec, Kind, discard_left, open_left, parse_gate
from colod.output.naming import EMULATED_SUFFIX
from colod.toolstack.inventory import take_stock
from colod.toolstack.port import Vif
from colod.toolstack.preflight import Needs

_log = structlog.get_logger()

_ANNOUNCE_AFTER_S: Final = (0.0, 1.0, 3.0, 10.0)
"""Waits before each attempt to announce a guest."""

_DEVICES: Final = Path("/sys/class/net")


async def gate_for(parts: Parts, domid: int) -> dict[str, Any]:
    """Return the table `gate` of the sender's specification; kind `none` where nothing can hold.

    Raises:
        ToolstackError: If Xen does not answer.
    """
    vifs = await parts.toolstack.vifs(domid)
    facts = await parts.toolstack.host_facts()
    if not parts.limits.hold_output or not vifs:
        return {"kind": Kind.NONE}
    if facts.simulated:
        return _table(parts, Kind.SIMULATED, [vif.name for vif in vifs]) | {
            "argv": list(parts.simulated_argv)
        }
    stock = await take_stock(Needs(), simulated=False)
    if stock.missing_modules:
        return {"kind": Kind.NONE}
    return _table(parts, Kind.PLUG, _with_emulated(vifs))


def _table(parts: Parts, kind: Kind, interfaces: list[str]) -> dict[str, Any]:
    return {
        "kind": kind,
        "interfaces": interfaces,
        "limit_bytes": parts.limits.hold_limit_bytes,
    }


def _with_emulated(vifs: Sequence[Vif]) -> list[str]:
    """Return the interfaces in dom0; an HVM guest's emulated twins are there beside its vifs."""
    names = [name for vif in vifs for name in (vif.name, vif.name + EMULATED_SUFFIX)]
    return [name for name in names if not name.endswith(EMULATED_SUFFIX) or _exists(name)]


def _exists(device: str) -> bool:
    return (_DEVICES / device).exists()


def journaled(table: dict[str, Any]) -> str:
    """Return what the journal keeps of a gate, "" for none."""
    return "" if table["kind"] == Kind.NONE else json.dumps(table, sort_keys=True)


def _spec(gate: str) -> GateSpec:
    return parse_gate(json.loads(gate))


async def open_gate(gate: str, guest: GuestName) -> None:
    """Open what a session left of the journaled `gate`; only for an owner alone.

    Raises:
        NetworkError: If something is left; it may be tried again.
    """
    await asyncio.to_thread(open_left, _spec(gate), guest)


async def discard_gate(gate: str, guest: GuestName) -> None:
    """Drop what the journaled `gate` holds; its guest is never heard again.

    Raises:
        NetworkError: If something is left; it may be tried again.
    """
    await asyncio.to_thread(discard_left, _spec(gate), guest)


async def announce_guest(parts: Parts, guest: GuestName) -> None:
    """Tell the network that the guest lives on this host now; a failure is only logged.

    Until it is told, switches send the guest's traffic to the host that it left. So where Xen does
    not answer, as on a busy dom0, it is asked again.
    """
    for wait_s in _ANNOUNCE_AFTER_S:
        await asyncio.sleep(wait_s)
        try:
            await _announce(parts, guest)
            return
        except (ColodError, ValueError) as error:
            _log.warning(Event.GUEST_ANNOUNCED, protection=guest, error=str(error))


async def _announce(parts: Parts, guest: GuestName) -> None:
    domain = await parts.toolstack.find(guest)
    vifs = await parts.toolstack.vifs(domain.domid) if domain else ()
    for vif in vifs:
        if vif.bridge and _exists(vif.bridge):
            sent = await announce(vif.bridge, [Guest(parse_mac(vif.mac))])
            _log.info(Event.GUEST_ANNOUNCED, protection=guest, mac=vif.mac, frames=sent)
