"""One host's Xen in memory: domains, counted pauses, xl's habits, as the simulated Xen has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colod.errors import DomainNotFound, ToolstackError
from colod.model import INCOMING_SUFFIX, GuestName
from colod.toolstack.port import (
    Discarded,
    Domain,
    DomainState,
    HostFacts,
    ProcessRef,
    Vif,
)

if TYPE_CHECKING:
    from tests.sim.world import Incarnation, SimHost

MEMORY_BYTES = 1 << 26


@dataclass(slots=True, kw_only=True)
class SimDomain:
    """A domain.

    Attributes:
        domid: Its number.
        name: Its name.
        pauses: Pause references.
        suspended: Suspended for a checkpoint.
        ended: How its guest's run has ended (`reboot`, `poweroff`), and no xl sees to that; or "".
        is_built: Whether it holds a whole guest, and not a part of one.
        is_mute: Whether its output is held.
        done_s: How far the guest has got, in seconds that it has run, when it last started.
        born_s: How far the copy had got that it was made from.
        since_s: When that was; None while it does not run.
    """

    domid: int
    name: str
    pauses: int = 0
    suspended: bool = False
    ended: str = ""
    is_built: bool = True
    is_mute: bool = False
    done_s: float = 0.0
    born_s: float = 0.0
    since_s: float | None = None

    @property
    def may_run(self) -> bool:
        """Whether nothing keeps its vCPU from running."""
        return self.is_built and self.pauses == 0 and not (self.suspended or self.ended)


class SimXen:
    """The domains of one host; they die with it."""

    def __init__(self, host: SimHost) -> None:
        self._host = host
        self._next_domid = 1
        self.domains: dict[int, SimDomain] = {}
        self.on_disk_s = 0.0
        """How far a guest gets to again that is started here."""

    def create(self, name: str, **fields: Any) -> SimDomain:
        """Add a domain."""
        domain = SimDomain(domid=self._next_domid, name=name, **fields)
        self.domains[domain.domid] = domain
        self._next_domid += 1
        self._host.world.changed()
        return domain

    def end(self, domain: SimDomain, how: str) -> None:
        """Have its guest end its run; what it did is on its disk."""
        self._host.world.changed()
        domain.ended, domain.suspended = how, False
        self.on_disk_s = domain.done_s
        self._host.world.changed()

    def start(self, name: str) -> SimDomain:
        """Make the guest's domain from its disk, paused, where its name is free."""
        if self.find(name) is not None:
            raise ToolstackError(("xl", "create"), 1, f"{name} already exists")
        return self.create(name, pauses=1, done_s=self.on_disk_s, born_s=self.on_disk_s)

    def built(self, domain: SimDomain, is_good: bool) -> None:
        """End its making: it runs, or goes."""
        if domain.domid not in self.domains:
            return
        if is_good:
            domain.pauses -= 1
            self._host.world.changed()
        else:
            self.destroy(domain)

    def find(self, name: str) -> SimDomain | None:
        """Return the domain of that name."""
        return next((each for each in self.domains.values() if each.name == name), None)

    def destroy(self, domain: SimDomain) -> None:
        """Remove a domain; what it did until now was heard."""
        self._host.world.changed()
        self.domains.pop(domain.domid, None)
        self._host.world.changed()


class SimToolstack:
    """The toolstack as one daemon of this host calls it."""

    def __init__(self, life: Incarnation) -> None:
        self._life = life
        self._host = life.host
        self._xen = life.host.xen
        self._world = life.world

    async def _call(self) -> None:
        random = self._world.random
        slow_s = self._host.xl_delay_s
        await self._life.step(random.uniform(0.01, 0.08) + random.uniform(0, slow_s))
        if random.random() < self._host.xl_failures:
            raise ToolstackError(("xl",), 1, "an injected failure")

    def _domain(self, name: str) -> SimDomain:
        domain = self._xen.find(name)
        if domain is None:
            raise DomainNotFound(("xl", name), 1, f"no domain {name}")
        return domain

    async def host_facts(self) -> HostFacts:
        """Return what this host is."""
        await self._call()
        return HostFacts(
            xen_version="4.17.3",
            free_memory_bytes=1 << 34,
            machine="x86_64",
            autoballoon=False,
            simulated=True,
        )

    async def domains(self) -> Sequence[Domain]:
        """List them."""
        await self._call()
        listed = [_shown(each) for each in self._xen.domains.values()]
        await self._life.step(0.002)
        return listed

    async def find(self, name: str) -> Domain | None:
        """Return one."""
        await self._call()
        domain = self._xen.find(name)
        return None if domain is None else _shown(domain)

    async def domain_config(self, name: str) -> Mapping[str, Any]:
        """Return a small guest's."""
        await self._call()
        return {
            "c_info": {"type": "pv", "name": name},
            "b_info": {"max_vcpus": 1, "type.pv": {}},
            "on_reboot": "restart",
        }

    async def vifs(self, domid: int) -> Sequence[Vif]:
        """Return its one interface."""
        await self._call()
        name = f"vif{domid}.0"
        return [Vif(devid=0, mac="00:16:3e:00:00:01", bridge="xenbr0", name=name, backend_domid=0)]

    async def pause(self, name: str) -> Domain:
        """Take a pause reference."""
        await self._call()
        domain = self._domain(name)
        domain.pauses += 1
        self._world.changed()
        await self._call()
        return _shown(domain)

    async def unpause(self, name: str) -> None:
        """Drop one."""
        await self._call()
        domain = self._domain(name)
        if domain.pauses == 0:
            raise ToolstackError(("xl", "unpause"), 1, "not paused")
        domain.pauses -= 1
        self._world.changed()
        await self._call()

    async def resume(self, name: str) -> None:
        """Make it run again, if its xl is gone."""
        await self._call()
        domain = self._domain(name)
        if self._host.replicates(domain):
            raise ToolstackError(("xl", "resume"), 1, "an xl still saves it")
        domain.suspended = False
        self._world.changed()
        await self._call()

    async def destroy(self, name: str) -> None:
        """Destroy it."""
        await self._call()
        self._xen.destroy(self._domain(name))
        await self._call()

    async def clear_ended(self, name: str, domid: int) -> None:
        """Destroy it, if its guest has ended."""
        await self._call()
        domain = self._domain(name)
        if domain.domid != domid or not domain.ended:
            raise ToolstackError(("xl", "list"), 0, "another one")
        self._xen.destroy(domain)
        await self._call()

    async def rename(self, name: str, new_name: str) -> None:
        """Give it another name."""
        await self._call()
        self._domain(name).name = new_name
        await self._call()

    async def discard_replica(self, guest: GuestName, receiver: ProcessRef | None) -> Discarded:
        """Kill xl, then destroy the copy."""
        await self._call()
        if receiver is not None:
            self._world.processes.kill(receiver.pid)
        await self._call()
        incoming = self._xen.find(guest + INCOMING_SUFFIX)
        if incoming is not None:
            self._xen.destroy(incoming)
        return Discarded()

    async def restore_paused(self, image: Path, name: str, *, timeout_s: float) -> Domain:
        """There are no images in this world."""
        raise NotImplementedError

    async def discard_restored(self, image: Path, uuid: str) -> Discarded:
        """There are no images in this world."""
        raise NotImplementedError

    async def await_takeover(
        self, guest: GuestName, *, timeout_s: float, receiver: ProcessRef | None = None
    ) -> Domain:
        """Wait until xl has let the copy go."""
        for _ in range(int(timeout_s / 0.25)):
            await self._call()
            domain = self._xen.find(guest)
            if domain is not None and not self._world.processes.lives(receiver):
                return _shown(domain)
            if domain is None and self._xen.find(guest + INCOMING_SUFFIX) is None:
                break
            await self._life.step(0.25)
        raise ToolstackError(("xl", "migrate-receive"), None, "it has not let the copy go")

    async def run_promoted(self, guest: GuestName) -> Domain:
        """Drop pauses until it runs."""
        while True:
            await self._call()
            domain = self._domain(guest)
            if domain.pauses == 0:
                return _shown(domain)
            domain.pauses -= 1
            self._world.changed()

    def remus_argv(self, guest: GuestName, *, interval_ms: int, command: str) -> Sequence[str]:
        """Return what the launcher recognises."""
        return ("xl", "remus", "-i", str(interval_ms), guest, command)

    def receive_argv(self) -> Sequence[str]:
        """Return xl's receiving side."""
        return ("xl", "migrate-receive", "-r")

    def pause_argv(self, name: str) -> Sequence[str]:
        """Return the command for the second pause."""
        return ("xl", "pause", name)

    async def file_config(self, file: Path) -> Mapping[str, Any]:
        """Return what little there is of a guest that the file is named for."""
        await self._call()
        return {"c_info": {"name": file.stem}}

    def create_argv(self, file: Path, uuid: str = "") -> Sequence[str]:
        """Return what the launcher recognises."""
        return ("xl", "create", file.stem)

    def exists_argv(self, name: str) -> Sequence[str]:
        """Return a command that looks."""
        return ("xl", "domid", name)


def _shown(domain: SimDomain) -> Domain:
    if domain.ended:
        state = DomainState.SHUTDOWN
    elif domain.suspended:
        state = DomainState.SUSPENDED
    else:
        state = DomainState.PAUSED if domain.pauses else DomainState.RUNNING
    return Domain(
        domid=domain.domid,
        name=domain.name,
        state=state,
        paused=domain.pauses > 0,
        memory_bytes=MEMORY_BYTES,
        cpu_time_s=0.0,
        shutdown_reason=domain.ended,
    )
