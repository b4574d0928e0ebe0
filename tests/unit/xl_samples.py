"""Guests' configurations, and what xl of Xen 4.17.7 printed of them (`xl create -n -q`)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from colod.errors import DomainNotFound, ToolstackError
from colod.toolstack.port import Domain, DomainState, HostFacts

DIRECTORY = Path(__file__).with_name("xl_configs")


def sample(name: str) -> dict[str, Any]:
    """Return what xl made of `NAME.cfg`."""
    found: dict[str, Any] = json.loads((DIRECTORY / f"{name}.json").read_text())
    return found


@dataclass
class FakeXl:
    """The part of the toolstack that reads configurations.

    Attributes:
        running: Configurations of the domains, by their names.
        files: What xl makes of files, by their names; another file is `made`.
        made: What xl makes of a file that nobody knows, such as one that colod wrote.
        read: Texts of those.
    """

    running: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    files: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    made: Mapping[str, Any] | None = None
    read: list[str] = field(default_factory=list)
    is_simulated: bool = True

    async def host_facts(self) -> HostFacts:
        return HostFacts(
            xen_version="4.17.7",
            free_memory_bytes=1 << 30,
            machine="x86_64",
            autoballoon=False,
            simulated=self.is_simulated,
        )

    async def domains(self) -> Sequence[Domain]:
        return [_domain(0, "Domain-0"), *(_domain(1, each) for each in self.running)]

    async def find(self, name: str) -> Domain | None:
        return _domain(1, name) if name in self.running else None

    async def domain_config(self, name: str) -> Mapping[str, Any]:
        if name not in self.running:
            raise DomainNotFound(("xl", "list"), 0, f"no domain is named {name}")
        return self.running[name]

    async def file_config(self, file: Path) -> Mapping[str, Any]:
        if file.name in self.files:
            return self.files[file.name]
        if self.made is None:
            raise ToolstackError(("xl", "create", "-n", str(file)), 1, "no configuration")
        self.read.append(await asyncio.to_thread(file.read_text))
        return self.made


def _domain(domid: int, name: str) -> Domain:
    return Domain(
        domid=domid,
        name=name,
        state=DomainState.RUNNING,
        paused=False,
        memory_bytes=1 << 28,
        cpu_time_s=1.0,
    )
