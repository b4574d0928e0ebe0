"""Put the simulated world in the place of what the daemon's modules use of the real one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from colod.daemon.parts import Parts
from colod.model import GuestName, HostName
from tests.sim.ports import SimHandle, SimProcesses
from tests.sim.replication import Directory
from tests.sim.virtual import VirtualLoop, VirtualTime
from tests.sim.world import GUEST, SimHost, World


@contextmanager
def in_place(world: World, loop: VirtualLoop) -> Iterator[None]:
    """Have the daemons use this world's sessions, processes, gates and clocks."""
    clock = VirtualTime(loop)
    SimHandle.world = world
    world.clock = clock

    def remove(directory: Path) -> None:
        world.hosts[HostName(directory.parent.name)].directories.pop(directory.name, None)

    def write_spec(directory: Path, spec: Mapping[str, Any]) -> None:
        place = Directory(spec=dict(spec))
        world.hosts[HostName(directory.parent.name)].directories[directory.name] = place

    async def end_gate(gate: str, guest: GuestName) -> None:
        await asyncio.sleep(0.02)
        for host in world.hosts.values():
            domain = host.xen.find(guest)
            if domain is not None and _acts(host):
                domain.is_mute = False
                world.changed()

    def _acts(host: SimHost) -> bool:
        daemon = host.daemon
        service = daemon.services.get(GUEST) if daemon else None
        return service is not None and service.decision.rule == "open_gate"

    async def drop_gate(gate: str, guest: GuestName) -> None:
        await asyncio.sleep(0.02)

    async def announce(parts: Parts, guest: GuestName) -> None:
        """Nobody is there to hear."""

    replaced: dict[str, Any] = {
        "colod.daemon.protection.SessionHandle": SimHandle,
        "colod.daemon.protection.remove_directory": remove,
        "colod.daemon.protection.last_words": lambda directory: "",
        "colod.daemon.actions.remove_directory": remove,
        "colod.daemon.actions.process": SimProcesses(world),
        "colod.daemon.actions.open_gate": end_gate,
        "colod.daemon.actions.discard_gate": drop_gate,
        "colod.daemon.actions.announce_guest": announce,
        "colod.daemon.pairing.write_spec": write_spec,
        "colod.daemon.pairing.last_words": lambda directory: "",
        "colod.daemon.host.clear_sessions": lambda sessions, journals: None,
        "colod.daemon.facts.time": clock,
        "colod.daemon.contact.time": clock,
        "colod.daemon.domains.time": clock,
        "colod.daemon.ended.time": clock,
        "colod.daemon.protection.time": clock,
        "colod.daemon.sessions.time": clock,
        "colod.daemon.actions.time": clock,
    }
    with ExitStack() as stack:
        for name, value in replaced.items():
            stack.enter_context(patch(name, value))
        yield
