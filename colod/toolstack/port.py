"""Everything that colod asks of Xen, as one interface; `xl` is behind it, real or simulated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from colod.model import GuestName


class DomainState(StrEnum):
    """What a domain is doing, from xl's state letters (xl list: rbpscd)."""

    RUNNING = "running"
    PAUSED = "paused"
    SUSPENDED = "suspended"
    SHUTDOWN = "shutdown"
    CRASHED = "crashed"
    DYING = "dying"


ENDED = frozenset({DomainState.SHUTDOWN, DomainState.CRASHED})
"""What a domain does whose guest has ended its run, and that nobody has destroyed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """A domain on this host.

    Attributes:
        domid: Xen's number for it; a reboot changes it.
        name: Its present name.
        state: What it is doing.
        paused: Whether at least one pause reference is held, whatever else it does.
        memory_bytes: Memory it has now.
        cpu_time_s: Processor time it has used, in seconds.
        shutdown_reason: `poweroff`, `reboot`, `crash`, `watchdog` or `soft_reset` when its run has
            ended, else empty.
    """

    domid: int
    name: str
    state: DomainState
    paused: bool
    memory_bytes: int
    cpu_time_s: float
    shutdown_reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What xl says of this host.

    Attributes:
        xen_version: `major.minor` and what follows, as `xl info` has it.
        free_memory_bytes: Memory that new domains can have.
        machine: Architecture, `x86_64`.
        autoballoon: Whether creating a domain may shrink dom0 (xl.conf).
        simulated: Whether this is the simulated Xen.
        cpu_features: Words of the host's CPUID policy (`hw_caps`).
    """

    xen_version: str
    free_memory_bytes: int
    machine: str
    autoballoon: bool
    simulated: bool
    cpu_features: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Vif:
    """A network interface of a guest on this host.

    Attributes:
        devid: Its number within the guest.
        mac: Its address.
        bridge: The bridge it belongs to.
        name: The backend's interface in dom0, `vifD.N`.
        backend_domid: The domain of its backend; anything but 0 is a driver domain.
        kind: Type as xl names it: `vif`, `vif_ioemu`, `pv`...
    """

    devid: int
    mac: str
    bridge: str
    name: str
    backend_domid: int
    kind: str = "vif"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessRef:
    """A process that must not be mistaken for a later one of the same number.

    Attributes:
        pid: Its number.
        start_ticks: Its start time, field 22 of /proc/PID/stat.
    """

    pid: int
    start_ticks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Discarded:
    """What `discard` did, verified: none of it is left."""

    killed: tuple[ProcessRef, ...] = ()
    destroyed: tuple[str, ...] = field(default=())


class Toolstack(Protocol):
    """The Xen toolstack of this host. Every call is bounded in time.

    All raise ToolstackError when a command fails or gives no answer in time; DomainNotFound when
    the domain they name does not exist.
    """

    async def host_facts(self) -> HostFacts:
        """Return what this host is and has."""
        ...

    async def domains(self) -> Sequence[Domain]:
        """Return all domains, dom0 included."""
        ...

    async def find(self, name: str) -> Domain | None:
        """Return the domain of that name, or None."""
        ...

    async def domain_config(self, name: str) -> Mapping[str, Any]:
        """Return the configuration that xl keeps (`config` of `xl list -l`)."""
        ...

    async def vifs(self, domid: int) -> Sequence[Vif]:
        """Return the guest's network interfaces, from xenstore."""
        ...

    async def pause(self, name: str) -> Domain:
        """Take one pause reference (Xen counts them), verify it, and return the domain as it is."""
        ...

    async def unpause(self, name: str) -> None:
        """Drop one pause reference; a domain that has none is an error."""
        ...

    async def resume(self, name: str) -> None:
        """Make a domain run again that was left suspended when its xl died; verify it.

        Pause references stay: with one, it is left paused. A domain that is not suspended is left
        as it is. Refused (ToolstackError) while an xl still replicates or saves the domain.
        """
        ...

    async def destroy(self, name: str) -> None:
        """Destroy the domain and verify that it is gone, or dying: it never runs again."""
        ...

    async def clear_ended(self, name: str, domid: int) -> None:
        """Destroy the domain of that name and number, whose guest has ended; verify it.

        Another domain of the name, or one that runs, is an error and is left alone.
        """
        ...

    async def rename(self, name: str, new_name: str) -> None:
        """Give the domain another name and verify it; its state stays."""
        ...

    async def discard_replica(self, guest: GuestName, receiver: ProcessRef | None) -> Discarded:
        """Throw the incoming copy away without letting xl promote it.

        SIGKILLs `xl migrate-receive` and its save helper first (by pidfd), then destroys
        `GUEST--incoming`, then verifies that processes and domain are gone.

        Args:
            guest: The guest; its domain under its own name is never touched.
            receiver: `xl migrate-receive` as the session reported it, or None when unknown.
        """
        ...

    async def await_takeover(
        self, guest: GuestName, *, timeout_s: float, receiver: ProcessRef | None = None
    ) -> Domain:
        """Wait until xl has let the copy go: named GUEST, present, still paused; return it.

        Args:
            guest: The guest.
            timeout_s: Most seconds to wait.
            receiver: `xl migrate-receive`. Give it where it is known: xl drops its pause reference
                after the renaming, and ends after that; a reference taken in between would be
                dropped by xl.

        Raises:
            ToolstackError: If xl destroyed it or did not finish in time, or if it already runs.
        """
        ...

    async def run_promoted(self, guest: GuestName) -> Domain:
        """Drop pause references one by one until the domain runs; verify it; return it."""
        ...

    async def restore_paused(self, image: Path, name: str, *, timeout_s: float) -> Domain:
        """Restore an image to a domain `name`, and leave it paused with one reference.

        After an error, or when cancelled, `discard_restored` clears what is left.
        """
        ...

    async def discard_restored(self, image: Path, uuid: str) -> Discarded:
        """End whatever still restores `image`, destroy the domain with `uuid`, and verify both.

        No other domain is touched, whatever its name is.
        """
        ...

    def remus_argv(self, guest: GuestName, *, interval_ms: int, command: str) -> Sequence[str]:
        """Return the command that replicates `guest` through the shell command `command`."""
        ...

    def receive_argv(self) -> Sequence[str]:
        """Return the command that receives a guest on its standard input."""
        ...

    async def file_config(self, file: Path) -> Mapping[str, Any]:
        """Return what a guest's configuration file comes to; made as `domain_config`'s."""
        ...

    def create_argv(self, file: Path, uuid: str = "") -> Sequence[str]:
        """Return the command that starts a guest from its configuration file.

        Args:
            file: The file.
            uuid: What the guest is to have in place of the file's; "" for that.
        """
        ...

    def pause_argv(self, name: str) -> Sequence[str]:
        """Return the command that takes one pause reference on `name`."""
        ...

    def exists_argv(self, name: str) -> Sequence[str]:
        """Return a command that prints the number of the domain `name`, or fails without one."""
        ...
