"""A pair of hosts under trial: an observer that counts running copies, and what must be tidy after.

The observer asks each domain's process itself, past xl and colod, as often as it can. Two hosts
cannot be asked at one instant, so a copy counts as running at the same time as the other host's if
it ran before and after that one was seen to run.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from colod.errors import ColodError
from colod.simxen import control
from colod.simxen.control import DomainGone
from colod.simxen.host import Host
from colod.v1 import admin_pb2, types_pb2
from tests.pair import LIMIT_S, Pair, SimulatedHost, kill, until

IN_STEP = ("REPLICATING", "PROTECTED")
"""States of a replica that could take over; which, depends on whether output is held."""

_PAUSE_S = 0.004
_KEPT = 4000


class Seen(NamedTuple):
    """One domain at one moment."""

    name: str
    domid: int
    running: bool
    pauses: int
    shutdown: object


def ask_all(host: Host) -> Iterator[dict[str, Any]]:
    """Yield what each domain of a simulated host says of itself; nothing is tidied up for it."""
    with suppress(OSError):
        for entry in (host.root / "domains").iterdir():
            if entry.name.isdigit():
                with suppress(DomainGone, OSError):
                    yield control.ask(host, int(entry.name), "info")


def look(host: Host) -> dict[int, Seen]:
    """Return the domains of a simulated host as they say themselves."""
    return {
        info["domid"]: Seen(
            info["name"], info["domid"], bool(info["running"]), info["pauses"], info["shutdown"]
        )
        for info in ask_all(host)
    }


def domains_of(host: SimulatedHost) -> Collection[Seen]:
    """Return the domains of a host of a pair, past xl and colod."""
    return look(Host(host.root / "xen")).values()


def guest_of(name: str) -> str:
    """Return the guest whose copy a domain is, whatever xl or colod named it."""
    return name.partition("--")[0]


def _has_stopped(pid: int) -> bool:
    """Whether a process stands still: on another processor, it goes on a little after SIGSTOP."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


class Observer:
    """Watches both hosts from beginning to end of a test."""

    def __init__(self, *hosts: Host) -> None:
        """Watch the two `hosts`."""
        self.looks = 0
        self.violations: list[str] = []
        self.changes: list[str] = []
        self._hosts = hosts
        self._began = time.monotonic()
        self._before: list[dict[int, Seen]] = [{}, {}]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="observer", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stop.set()
        self._thread.join(LIMIT_S)

    def _run(self) -> None:
        while not self._stop.is_set():
            first = look(self._hosts[0])
            second = look(self._hosts[1])
            again = look(self._hosts[0])
            self.looks += 1
            self._compare(first, second, again)
            self._note(0, again)
            self._note(1, second)
            self._stop.wait(_PAUSE_S)

    def _compare(
        self, first: dict[int, Seen], second: dict[int, Seen], again: dict[int, Seen]
    ) -> None:
        here = {
            guest_of(seen.name)
            for domid, seen in first.items()
            if seen.running and domid in again and again[domid].running
        }
        there = [guest_of(seen.name) for seen in second.values() if seen.running]
        on_one = [guest_of(seen.name) for seen in again.values() if seen.running]
        for guest in here & set(there):
            self.violations.append(f"{self._at()} {guest} ran on both hosts")
        for copies in (there, on_one):
            for guest in {each for each in copies if copies.count(each) > 1}:
                self.violations.append(f"{self._at()} {guest} ran twice on one host")

    def _note(self, index: int, now: dict[int, Seen]) -> None:
        before = self._before[index]
        if now != before and len(self.changes) < _KEPT:
            shown = [
                f"{seen.name}({seen.domid}): "
                f"{'runs' if seen.running else f'pauses={seen.pauses} shutdown={seen.shutdown}'}"
                for seen in now.values()
            ]
            self.changes.append(f"{self._at()} {self._hosts[index].root.parent.name} {shown}")
        self._before[index] = now

    def _at(self) -> str:
        return f"{time.monotonic() - self._began:7.3f}"


class Trial:
    """One pair for one test."""

    def __init__(self, root: Path, **options: Any) -> None:
        """Start both daemons and the observer; `options` are those of `Pair`."""
        self.pair = Pair(root, **options)
        self.alpha, self.beta = self.pair.alpha, self.pair.beta
        self.observer = Observer(*(Host(host.root / "xen") for host in self.pair.hosts))
        self.observer.start()
        try:
            self.pair.start()
        except BaseException:
            self.close()
            raise

    # --- looking ----------------------------------------------------------------------------

    def status(self, host: SimulatedHost, guest: str = "g1") -> admin_pb2.ProtectionStatus:
        """Return what the daemon says of the guest; an empty one when it says nothing."""
        return host.protection(guest)

    def state(self, host: SimulatedHost, guest: str = "g1") -> str:
        """Return the guest's state on that host."""
        return self.status(host, guest).state

    def until_state(self, host: SimulatedHost, *states: str, guest: str = "g1") -> None:
        """Wait until the guest is in one of `states` there."""
        what = f"{guest} is {' or '.join(states)} on {host.name}"
        until(lambda: self.state(host, guest) in states, what)

    def acked(self, host: SimulatedHost | None = None, guest: str = "g1") -> int:
        """Return the newest acknowledged epoch, as the primary's session says."""
        return self.status(host or self.alpha, guest).progress.acked_epoch

    def is_in_step(self) -> bool:
        """Tell whether both hosts say that g1 is replicated."""
        return all(self.state(host) in IN_STEP for host in self.pair.hosts)

    def seen(self, host: SimulatedHost, name: str = "g1") -> Seen | None:
        """Return the domain of that name, past xl and colod."""
        found = domains_of(host)
        return next((each for each in found if each.name == name), None)

    def runs(self, host: SimulatedHost, guest: str = "g1") -> bool:
        """Tell whether a copy of the guest runs there."""
        found = domains_of(host)
        return any(each.running and guest_of(each.name) == guest for each in found)

    def until_runs(self, host: SimulatedHost, guest: str = "g1") -> None:
        """Wait until a copy is seen to run there; a checkpoint suspends it now and then."""
        until(lambda: self.runs(host, guest), f"{guest} runs on {host.name}")

    def history(self, host: SimulatedHost, guest: str = "g1") -> list[str]:
        """Return the states that the guest went through on that host."""
        with host.admin() as client:
            return [entry.to_state for entry in client.history(guest, 0).entries]

    # --- doing ------------------------------------------------------------------------------

    def replicate(
        self, guest: str = "g1", *, disks: str = "none", interval_ms: int = 50, **settings: Any
    ) -> str:
        """Create and protect a guest from alpha to beta; return the pairing."""
        self.pair.create_guest(guest, **settings)
        request = admin_pb2.ProtectRequest(
            guest=guest, to="beta", disks=disks, interval_ms=interval_ms
        )
        with self.alpha.admin() as client:
            client.protect(request)
        self.until_replicating(guest)
        return self.status(self.alpha, guest).pairing

    def replicate_back(self, guest: str) -> None:
        """Create and protect a guest from beta to alpha."""
        lines = f'name="{guest}"\nmemory=64\nsim_memory_pages=256\n'
        config = self.pair.root / f"{guest}.cfg"
        config.write_text(lines + "vif=['bridge=br0,mac=00:16:3e:00:00:02']\n")
        self.beta.xl("create", str(config))
        argv = ("protect", guest, "--to", "alpha", "--disks", "none", "--interval-ms", "50")
        self.beta.ctl(*argv)
        self.until_replicating(guest)

    def until_replicating(self, guest: str = "g1") -> None:
        """Wait until both hosts say that the guest is replicated."""
        for host in self.pair.hosts:
            self.until_state(host, *IN_STEP, guest=guest)

    def until_epochs_go_on(self, host: SimulatedHost | None = None, guest: str = "g1") -> None:
        """Wait until some more epochs were acknowledged."""
        target = self.acked(host, guest) + 5
        until(lambda: self.acked(host, guest) >= target, "epochs go on")

    def session(self, host: SimulatedHost, guest: str = "g1") -> int:
        """Return the process number of the guest's session there."""
        return self._number(self._directory(host, guest) / "pid")

    def xl(self, host: SimulatedHost, guest: str = "g1") -> int:
        """Return the process number of the xl that belongs to that session."""
        return self._number(self._directory(host, guest) / "toolstack")

    def _directory(self, host: SimulatedHost, guest: str) -> Path:
        (found,) = (host.root / "run" / "sessions").glob(f"{guest}-*")
        return found

    def _number(self, path: Path) -> int:
        return int(path.read_text().split()[0])

    def helper(self, host: SimulatedHost, name: str = "g1") -> int:
        """Return the process number of a domain's save helper."""
        seen = self.seen(host, name)
        assert seen is not None
        role = f"save-helper {seen.domid}"
        (found,) = (each for each in Host(host.root / "xen").processes() if each.role == role)
        return found.pid

    @contextmanager
    def witness_away(self) -> Iterator[None]:
        """Make the witness of files unreachable for a while."""
        here = self.pair.root / "witness"
        away = here.with_name("elsewhere")
        here.rename(away)
        try:
            yield
        finally:
            away.rename(here)

    def kill(self, pid: int) -> None:
        """Kill a process and wait for its end."""
        kill(pid)
        until(lambda: not Path(f"/proc/{pid}/exe").exists(), f"{pid} has ended")

    def kill_daemon(self, host: SimulatedHost) -> None:
        """Kill the daemon, and nothing else."""
        host.stop_daemon(signal.SIGKILL)

    def stop_inside_checkpoint(self) -> int:
        """Stop alpha's save helper while the guest is suspended; return its process number."""
        helper = self.helper(self.alpha)

        def is_inside() -> bool:
            os.kill(helper, signal.SIGSTOP)
            until(partial(_has_stopped, helper), "the helper has stopped")
            seen = self.seen(self.alpha)
            if seen is not None and seen.shutdown is not None:
                return True
            os.kill(helper, signal.SIGCONT)
            return False

        until(is_inside, "a checkpoint is caught")
        return helper

    # --- ends -------------------------------------------------------------------------------

    def check_one_speaker(self) -> None:
        """Check that at no time two copies ran."""
        assert self.observer.looks > 10
        assert not self.observer.violations, self.observer.violations[:5]

    def check_tidy(self) -> None:
        """Check that no session or xl is left which no pairing needs."""
        until(lambda: not self._zombies(), f"no zombie is left: {self._zombies()}")
        for host in self.pair.hosts:
            if host.daemon is not None:
                until(partial(self._is_tidy, host), f"{host.name} is tidy: {self.left()}")

    def _is_tidy(self, host: SimulatedHost) -> bool:
        sessions = host.root / "run" / "sessions"
        with suppress(ColodError), host.admin() as client:
            known = {session_name(each) for each in client.status().protections if each.pairing}
            processes = [
                line
                for line in self.left()
                if f"{sessions}/" in line and ("remus" in line or "colod-session" in line)
            ]
            strays = [line for line in processes if not any(name in line for name in known)]
            return {path.name for path in sessions.iterdir()} <= known and not strays
        return False

    def _zombies(self) -> list[str]:
        return zombies_of({pid for pid, _ in belonging(self.pair.root)})

    def left(self) -> list[str]:
        """Return the command lines of all processes that belong to the pair."""
        return [words for _, words in belonging(self.pair.root)]

    def close(self) -> None:
        """End everything and check that nothing is left."""
        self.observer.stop()
        root = self.pair.root
        try:
            self.pair.close()
            until(lambda: not belonging(root), f"all ends: {belonging(root)}")
        finally:
            for pid, _ in belonging(root):
                kill(pid)

    def report(self) -> str:
        """Return what happened, for a test that failed."""
        parts = ["\n".join(self.observer.changes[-200:]), "--- processes", *self.left()]
        for host in self.pair.hosts:
            lines = host.log().splitlines()
            early = [line for line in lines[:-40] if '"debug"' not in line]
            parts.append(f"--- {host.name}\n" + "\n".join([*early[-120:], *lines[-40:]]))
            for path in (host.root / "run" / "sessions").glob("*/log"):
                parts.append(f"--- {path}\n" + "\n".join(path.read_text().splitlines()[-30:]))
        return "\n".join(parts)


def session_name(status: admin_pb2.ProtectionStatus) -> str:
    """Return the name of the directory of a protection's session."""
    role = "primary" if status.role == types_pb2.ROLE_PRIMARY else "secondary"
    return f"{status.guest}-{role}-{status.pairing[:8]}"


def belonging(root: Path) -> list[tuple[int, str]]:
    """Return processes whose command line or environment names a path below `root`."""
    mark, found = os.fsencode(f"{root}/"), []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):
                words = (entry / "cmdline").read_bytes()
                if mark in words or mark in (entry / "environ").read_bytes():
                    shown = words.replace(b"\0", b" ").decode(errors="replace")
                    found.append((int(entry.name), shown))
    return found


def zombies_of(parents: set[int]) -> list[str]:
    """Return processes that ended and that one of `parents` has not waited for."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if fields[0] == "Z" and int(fields[1]) in parents:
                    found.append((entry / "stat").read_text())
    return found


class MakeTrial:
    """Makes trials below a directory, and checks and ends them after the test."""

    def __init__(self, root: Path) -> None:
        """Make them below `root`."""
        self.root = root
        self._made: list[Trial] = []

    def __call__(self, **options: Any) -> Trial:
        """Return a new trial; `options` are those of `Pair`."""
        self._made.append(Trial(self.root / str(len(self._made)), **options))
        return self._made[-1]

    def check(self) -> None:
        """Check what every test promises."""
        for each in self._made:
            each.check_one_speaker()
            each.check_tidy()

    def close(self) -> None:
        """End everything."""
        for each in self._made:
            print(each.report())
            each.close()


def trials(root: Path) -> Iterator[MakeTrial]:
    """Give a test what makes trials; for a fixture."""
    make = MakeTrial(root)
    try:
        yield make
        make.check()
    finally:
        make.close()
