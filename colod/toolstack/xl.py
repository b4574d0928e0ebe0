"""The toolstack port over `xl` and `xenstore`: real Xen's, or the simulated ones."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colod.errors import DomainNotFound, ToolstackError
from colod.model import INCOMING_SUFFIX, GuestName
from colod.toolstack import discard, listing, process
from colod.toolstack.command import CommandRunner, Commands, Completed
from colod.toolstack.listing import Row, Unreadable
from colod.toolstack.port import (
    ENDED,
    Discarded,
    Domain,
    DomainState,
    HostFacts,
    ProcessRef,
    Vif,
)

XL_CONF = Path("/etc/xen/xl.conf")
RESUME_ARGV = (sys.executable, "-m", "colod.toolstack.libxl_resume")
"""Resumes the domain of the number that follows; for an xl older than 4.20, which cannot."""

MOST_REFERENCES = 4
"""Pause references that a copy can be expected to hold: xl's, the receiver's, the daemon's, one."""

_UNKNOWN_NAME = "is an invalid domain identifier"
_NO_SUCH_COMMAND = "command not implemented"
_LIBXL_ERROR = "libxl: error:"
_SLOWEST_POLL_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Most seconds for each kind of request; generous, as a stuck one is all they are to end.

    Attributes:
        query_s: Commands that only read.
        change_s: pause, unpause, resume.
        destroy_s: Destroying a domain, and again as much until it is seen to be gone or dying.
        running_s: From the last unpause until the domain is seen to run.
    """

    query_s: float = 20.0
    change_s: float = 20.0
    destroy_s: float = 60.0
    running_s: float = 20.0


class XlToolstack:
    """Asks Xen by running its commands, and checks by `xl list` what they did.

    The status of `xl pause` and `xl unpause` says nothing: both exit with 0 when libxl failed.
    """

    def __init__(
        self,
        xl: Sequence[str] = ("xl",),
        xenstore: Sequence[str] = ("xenstore",),
        *,
        runner: Commands | None = None,
        limits: Limits | None = None,
        xl_conf: Path = XL_CONF,
        resume_argv: Sequence[str] = RESUME_ARGV,
    ) -> None:
        """Set up; nothing is run.

        Args:
            xl: The command that is xl.
            xenstore: The command that has `ls PATH`.
            runner: Runs the commands, in its environment.
            limits: Time limits.
            xl_conf: xl's own configuration.
            resume_argv: Takes xl's place for `resume` where xl has no such command.
        """
        self._xl = tuple(xl)
        self._xenstore = tuple(xenstore)
        self._runner = runner or CommandRunner()
        self._limits = limits or Limits()
        self._xl_conf = xl_conf
        self._resume_argv = tuple(resume_argv)

    # --- what there is -------------------------------------------------------------------------

    async def host_facts(self) -> HostFacts:
        """Return what this host is and has."""
        argv = (*self._xl, "info")
        info = listing.parse_info((await self._query(argv)).stdout)
        conf = await asyncio.to_thread(_read_if_present, self._xl_conf)
        try:
            return HostFacts(
                xen_version=info["xen_version"],
                free_memory_bytes=int(info["free_memory"]) << 20,
                machine=info["machine"],
                autoballoon=listing.is_autoballooning(conf, info.get("xen_commandline", "")),
                simulated=_is_simulated(info),
                cpu_features=tuple(info.get("hw_caps", "").split(":")),
            )
        except (KeyError, ValueError) as error:
            raise ToolstackError(argv, 0, f"unreadable: {error!r}") from error

    async def domains(self) -> Sequence[Domain]:
        """Return all domains, dom0 included."""
        return [row.domain for row in await self._rows()]

    async def find(self, name: str) -> Domain | None:
        """Return the domain of that name, or None."""
        row = await self._row(name)
        return row.domain if row else None

    async def domain_config(self, name: str) -> Mapping[str, Any]:
        """Return the configuration that xl keeps; it keeps none for a copy while it is received."""
        argv = (*self._xl, "list", "-l", await self._designator(name))
        done = await self._query(argv)
        try:
            config = listing.parse_details(done.stdout, name)
        except Unreadable as error:
            raise ToolstackError(argv, done.status, str(error)) from error
        if config is None:
            raise ToolstackError(argv, done.status, f"no configuration: {done.stderr}")
        return config

    async def vifs(self, domid: int) -> Sequence[Vif]:
        """Return the guest's network interfaces, from libxl's own part of xenstore."""
        path = f"/libxl/{domid}/device/vif"
        argv = (*self._xenstore, "ls", path)
        done = await self._runner.run(argv, timeout_s=self._limits.query_s)
        if done.status != 0 and "No such file or directory" in done.stderr:
            return ()
        try:
            return listing.vifs_of(listing.parse_tree(done.checked().stdout), domid)
        except Unreadable as error:
            raise ToolstackError(argv, done.status, str(error)) from error

    async def file_config(self, file: Path) -> Mapping[str, Any]:
        """Return what a guest's configuration file comes to; made as `domain_config`'s."""
        argv = (*self._xl, "create", "-q", "-n", str(file))
        done = await self._query(argv)
        try:
            return listing.parse_dry_run(done.stdout)
        except Unreadable as error:
            raise ToolstackError(argv, done.status, str(error)) from error

    # --- changes, each verified ----------------------------------------------------------------

    async def pause(self, name: str) -> Domain:
        """Take one pause reference, verify that the domain is paused, and return it."""
        done = await self._change("pause", name)
        row = await self._require(name)
        if not row.domain.paused:
            raise ToolstackError(done.argv, 0, f"{name} is not paused, but {row.letters}")
        return row.domain

    async def unpause(self, name: str) -> None:
        """Drop one pause reference; a domain that has none is an error."""
        await self._change("unpause", name)

    async def resume(self, name: str) -> None:
        """Make a domain run again that was left suspended when its xl died; verify it.

        Pause references stay. A domain that is not suspended is left as it is.

        Raises:
            ToolstackError: Also while an xl still replicates it: that one resumes it itself.
        """
        row = await self._require(name)
        if row.domain.state is not DomainState.SUSPENDED:
            return
        await discard.end_stray_savers(row.domain.domid, self._simulated_host())
        done = await self._resume(row.domain.domid)
        async for _ in _polls(self._limits.running_s):
            row = await self._require(name)
            if row.domain.state is not DomainState.SUSPENDED:
                return
        raise ToolstackError(done.argv, done.status, f"{name} stays suspended: {done.stderr}")

    async def destroy(self, name: str) -> None:
        """Destroy the domain and verify that it is gone, its memory too."""
        row = await self._require(name)
        await self._destroy(row.domain, await self._designator(name))

    async def clear_ended(self, name: str, domid: int) -> None:
        """Destroy the domain of that name and number, whose guest has ended; verify it."""
        domain = (await self._require(name)).domain
        if domain.domid != domid or domain.state not in ENDED:
            is_so = f"domain {domain.domid} named {name} is {domain.state}"
            raise ToolstackError((*self._xl, "list"), 0, f"{is_so}, not {domid}, which had ended")
        # By its number, which no other domain gets.
        await self._destroy(domain, str(domid))

    async def rename(self, name: str, new_name: str) -> None:
        """Give the domain another name and verify it; its state stays."""
        domid = (await self._require(name)).domain.domid
        argv = (*self._xl, "rename", str(domid), new_name)
        done = (await self._runner.run(argv, timeout_s=self._limits.change_s)).checked()
        renamed = await self._row(new_name)
        if renamed is None or renamed.domain.domid != domid:
            raise ToolstackError(done.argv, 0, f"domain {domid} is not named {new_name}")

    async def discard_replica(self, guest: GuestName, receiver: ProcessRef | None) -> Discarded:
        """Throw the incoming copy away without letting xl promote it.

        The order is what makes it safe: xl first, because it takes the end of anything else for a
        failover; then its save helper, which would go on to map the domain's memory; then the
        domain. A copy that xl has renamed already is not the incoming one any more and is left
        alone, paused: `destroyed` is then empty.
        """
        incoming = guest + INCOMING_SUFFIX
        row = await self._row(incoming)
        domid = row.domain.domid if row else None
        killed = await discard.end_restore(receiver, domid, self._simulated_host())
        destroyed = []
        while row := await self._row(incoming):
            await self._destroy(row.domain, incoming)
            killed += await discard.end_restore(None, row.domain.domid, self._simulated_host())
            destroyed.append(incoming)
        return Discarded(killed=killed, destroyed=tuple(destroyed))

    async def restore_paused(self, image: Path, name: str, *, timeout_s: float) -> Domain:
        """Restore an image to a domain `name`, and leave it paused with one reference.

        Without xl's monitor (`-e`): a domain that ends is left as it is, for its end to be seen.
        """
        argv = (*self._xl, "restore", "-p", "-e", str(image))
        done = (await self._runner.run(argv, timeout_s=timeout_s)).checked()
        row = await self._require(name)
        if not row.domain.paused:
            raise ToolstackError(done.argv, 0, f"{name} is not paused, but {row.letters}")
        return row.domain

    async def discard_restored(self, image: Path, uuid: str) -> Discarded:
        """End whatever still restores `image`, destroy the domain with `uuid`, and verify both.

        Its name says nothing: anybody may have given it to another domain meanwhile, and one whose
        restore was cut short may have none yet.
        """
        killed = await discard.end_restore_of(image, self._simulated_host())
        destroyed = []
        while domain := await self._with_uuid(uuid):
            # By its number, which no other domain gets.
            await self._destroy(domain, str(domain.domid))
            killed += await discard.end_restore(None, domain.domid, self._simulated_host())
            destroyed.append(domain.name)
        return Discarded(killed=killed, destroyed=tuple(destroyed))

    # --- promotion -----------------------------------------------------------------------------

    async def await_takeover(
        self, guest: GuestName, *, timeout_s: float, receiver: ProcessRef | None = None
    ) -> Domain:
        """Wait until xl has let the copy go: named GUEST, present, still paused; return it."""
        incoming = guest + INCOMING_SUFFIX
        argv = (*self._xl, "list")
        async for _ in _polls(timeout_s):
            named = {row.domain.name: row.domain for row in await self._rows()}
            if guest not in named and incoming not in named:
                raise ToolstackError(argv, 0, f"xl has destroyed the copy: no {guest} is left")
            if incoming in named or guest not in named or await _is_alive(receiver):
                continue
            if not named[guest].paused:
                raise ToolstackError(argv, 0, f"{guest} is not paused, but {named[guest].state}")
            return named[guest]
        raise ToolstackError(argv, None, f"xl has not let {incoming} go in {timeout_s:g} s")

    async def run_promoted(self, guest: GuestName) -> Domain:
        """Drop pause references one by one until the domain runs; verify it; return it."""
        row = await self._require(guest)
        for _ in range(MOST_REFERENCES):
            if not row.domain.paused:
                break
            # xl may drop its own at the same moment, so that ours finds none: not an error here.
            await self._command("unpause", guest)
            row = await self._require(guest)
        return await self._await_running(guest, row)

    async def _await_running(self, guest: GuestName, first: Row) -> Domain:
        row = first
        async for _ in _polls(self._limits.running_s):
            if row.domain.paused or row.domain.state is not DomainState.RUNNING:
                break
            if row.was_seen_running or row.domain.cpu_time_s > first.domain.cpu_time_s:
                return row.domain
            row = await self._require(guest)
        text = f"{guest} does not run: {row.domain.state}, {row.letters}"
        raise ToolstackError((*self._xl, "unpause", guest), 0, text)

    # --- commands for the session --------------------------------------------------------------

    def remus_argv(self, guest: GuestName, *, interval_ms: int, command: str) -> Sequence[str]:
        """Return the command that replicates `guest` through the shell command `command`."""
        options = ("-F", "-n", "-d", "-i", str(interval_ms), "-s", "")
        return (*self._xl, "remus", *options, _unambiguous(guest), command)

    def receive_argv(self) -> Sequence[str]:
        """Return the command that receives a guest on its standard input."""
        return (*self._xl, "migrate-receive", "-r")

    def create_argv(self, file: Path, uuid: str = "") -> Sequence[str]:
        """Return the command that starts a guest from its configuration file."""
        return (*self._xl, "create", str(file), *([f'uuid="{uuid}"'] if uuid else []))

    def pause_argv(self, name: str) -> Sequence[str]:
        """Return the command that takes one pause reference on `name`."""
        return (*self._xl, "pause", _unambiguous(name))

    def exists_argv(self, name: str) -> Sequence[str]:
        """Return a command that prints the number of the domain `name`, or fails without one."""
        return (*self._xl, "domid", name)

    # --- inside --------------------------------------------------------------------------------

    async def _query(self, argv: Sequence[str]) -> Completed:
        done = await self._runner.run(argv, timeout_s=self._limits.query_s)
        return _known(done).checked()

    async def _rows(self) -> Sequence[Row]:
        argv = (*self._xl, "list")
        done = await self._query(argv)
        try:
            return listing.parse_list(done.stdout)
        except Unreadable as error:
            raise ToolstackError(argv, done.status, str(error)) from error

    async def _row(self, name: str) -> Row | None:
        return next((row for row in await self._rows() if row.domain.name == name), None)

    async def _with_uuid(self, uuid: str) -> Domain | None:
        """Return the domain that has `uuid`, unless it is being torn down."""
        argv = (*self._xl, "list", "-v")
        done = await self._query(argv)
        try:
            found = listing.parse_uuids(done.stdout).get(uuid.lower())
        except Unreadable as error:
            raise ToolstackError(argv, done.status, str(error)) from error
        return None if found is None or found.state is DomainState.DYING else found

    async def _require(self, name: str) -> Row:
        row = await self._row(name)
        if row is None:
            raise DomainNotFound((*self._xl, "list"), 0, f"no domain is named {name}")
        return row

    async def _designator(self, name: str) -> str:
        """Return what xl takes for this domain: it takes a name of digits for a domid."""
        return str((await self._require(name)).domain.domid) if name.isdecimal() else name

    async def _command(self, verb: str, name: str) -> Completed:
        argv = (*self._xl, verb, await self._designator(name))
        done = await self._runner.run(argv, timeout_s=self._limits.change_s)
        return _known(done).checked()

    async def _change(self, verb: str, name: str) -> Completed:
        done = await self._command(verb, name)
        if _LIBXL_ERROR in done.stderr:
            raise done.error()
        return done

    async def _resume(self, domid: int) -> Completed:
        limit_s = self._limits.change_s
        done = await self._runner.run((*self._xl, "resume", str(domid)), timeout_s=limit_s)
        if done.status != 0 and _NO_SUCH_COMMAND in done.stderr:
            done = await self._runner.run((*self._resume_argv, str(domid)), timeout_s=limit_s)
        return done.checked()

    async def _destroy(self, domain: Domain, designator: str) -> None:
        argv = (*self._xl, "destroy", designator)
        done = await self._runner.run(argv, timeout_s=self._limits.destroy_s)
        left = domain
        async for _ in _polls(self._limits.destroy_s):
            found = [each for each in await self.domains() if each.domid == domain.domid]
            if not found:
                return
            left = found[0]
            if left.state is DomainState.DYING:
                # It never runs again. Its memory may stay for as long as somebody maps a page of
                # it, which a packet in our own gate does: that opens only after this.
                return
            if done.status != 0:
                raise done.error()
        text = f"domain {domain.domid} is still there as {left.name}, {left.state}"
        raise ToolstackError(argv, None, text)

    def _simulated_host(self) -> str | None:
        return self._runner.env.get(discard.SIMULATION_VARIABLE)


def _known(done: Completed) -> Completed:
    if done.status != 0 and _UNKNOWN_NAME in done.stderr:
        raise DomainNotFound(done.argv, done.status, done.stderr)
    return done


def _unambiguous(name: str) -> str:
    if name.isdecimal():
        raise ValueError(f"domain name {name!r}: xl takes a name of digits for a domain's number")
    return name


async def _is_alive(ref: ProcessRef | None) -> bool:
    return ref is not None and not await process.wait_gone(ref, 0)


def _is_simulated(info: Mapping[str, str]) -> bool:
    return any("simulated" in info.get(key, "") for key in ("xen_extra", "xen_caps", "xen_version"))


def _read_if_present(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        # As xl does: what it cannot read counts as empty.
        return ""


async def _polls(timeout_s: float) -> AsyncIterator[None]:
    """Yield at once, and then at growing intervals until the time is up."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    pause_s = 0.02
    yield
    while (left_s := deadline - loop.time()) > 0:
        await asyncio.sleep(min(pause_s, left_s))
        pause_s = min(pause_s * 2, _SLOWEST_POLL_S)
        yield
