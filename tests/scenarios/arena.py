"""Two hosts, a guest and an etcd, each in a network namespace, and a disk of each host's own."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

from colod.v1 import admin_pb2
from tests.integration.etcd_server import EtcdMember
from tests.integration.pair_trial import belonging, domains_of
from tests.pair import Pair, SimulatedHost, Site, kill
from tests.scenarios.disk import Disk
from tests.scenarios.network import ADDRESSES, Net
from tests.scenarios.words import Words

GUEST: Final = "g1"
TICK_MS: Final = 10
_ENDED_S: Final = 30.0
_PATIENCE_S: Final = 0.5


class Arena:
    """The pair under chaos.

    Attributes:
        net: The links between hosts and witness.
        disks: The disk of each host's state.
        etcd: The witness; None where each host has one of its own (`is_arbitrated` is false).
        words: What the guest says.
    """

    mode = "remus"
    interval_ms = 100
    running_when_well = 1
    """How many copies run where all is well."""

    def __init__(self, *, is_arbitrated: bool = True, **limits: float) -> None:
        """Start everything, the guest protected from alpha to beta.

        Args:
            is_arbitrated: Whether both hosts ask one witness. If not, each has its own, and both
                get all they ask for: what happens then, an observer has to see.
            limits: `suspect_s` and `silence_s` of the pair, in seconds.
        """
        # Not pytest's own: the paths of unix sockets end at 107 bytes.
        self.root = Path(tempfile.mkdtemp(prefix="colod-"))
        self.etcd: EtcdMember | None = None
        self._ending: set[str] = set()
        self._closing = ExitStack()
        self._closing.callback(shutil.rmtree, self.root, ignore_errors=True)
        try:
            self._start(is_arbitrated, limits)
        except BaseException:
            self.close()
            raise

    def _start(self, is_arbitrated: bool, limits: Mapping[str, Any]) -> None:
        self.net = Net(self.root.name)
        self._closing.callback(self.net.close)
        witness = self._start_etcd() if is_arbitrated else ""
        sites = [
            Site(
                namespace=self.net.name(name),
                address=ADDRESSES[name],
                witness=witness or f'kind = "file"\ndirectory = "{self.witness_of(name)}"',
            )
            for name in ("alpha", "beta")
        ]
        self.pair = Pair(
            self.root, resync="automatic", hold="automatic", sites=(sites[0], sites[1]), **limits
        )
        self._closing.callback(self._end_processes)
        self.disks: dict[str, Disk] = {}
        self.witness_of("alpha").mkdir()
        self.witness_of("beta").symlink_to(self.witness_of("alpha"))
        for host in self.hosts:
            disk = Disk(self.root / f"{host.name}.disk", host.root / "state")
            self._closing.callback(disk.close)
            self.disks[host.name] = disk
        # Disks are unmounted once nothing writes to them any more.
        self._closing.callback(self._end_processes)
        self.words = Words(self.root / "words")
        self.pair.start()
        self._create_guest()
        self.protect(self.pair.alpha)

    def _create_guest(self) -> None:
        self.pair.create_guest(
            GUEST, sim_listener=str(self.root / "words"), sim_tick_ms=TICK_MS, sim_memory_pages=64
        )

    def _start_etcd(self) -> str:
        prefix = Site(namespace=self.net.name("witness")).prefix
        self.etcd = EtcdMember(self.root, address=ADDRESSES["witness"], prefix=prefix)
        self._closing.callback(self.etcd.stop)
        self.etcd.start()
        self.etcd.wait_until_serving()
        return f'kind = "etcd"\nendpoints = ["{self.etcd.url}"]\ntimeout_s = 1.0'

    @property
    def hosts(self) -> Sequence[SimulatedHost]:
        """Alpha and beta."""
        return self.pair.hosts

    def other(self, host: SimulatedHost) -> SimulatedHost:
        """Return the other host."""
        return self.pair.beta if host is self.pair.alpha else self.pair.alpha

    def witness_of(self, name: str) -> Path:
        """Return the directory of a host's own records, where nobody arbitrates."""
        return self.root / f"witness-{name}"

    def split_witness(self) -> None:
        """From now on each host's own witness says yes to all it asks."""
        ours, theirs = self.witness_of("alpha"), self.witness_of("beta")
        theirs.unlink()
        shutil.copytree(ours, theirs)

    def protect(self, host: SimulatedHost) -> None:
        """Have `host` protect the guest, which runs there."""
        request = admin_pb2.ProtectRequest(
            guest=GUEST,
            to=self.other(host).name,
            disks="none",
            interval_ms=self.interval_ms,
            mode=self.mode,
        )
        with host.admin() as client:
            client.protect(request)

    # --- looking ----------------------------------------------------------------------------

    def is_protected(self) -> bool:
        """Whether both daemons say so."""
        return all(host.protection(GUEST).state == "PROTECTED" for host in self.hosts)

    def running(self) -> list[SimulatedHost]:
        """Return the hosts on which a copy of the guest runs, as their domains say themselves."""
        return [host for host in self.hosts if any(seen.running for seen in domains_of(host))]

    def copies(self, host: SimulatedHost) -> list[str]:
        """Return the names of all domains there."""
        return [seen.name for seen in domains_of(host)]

    def processes(self, host: SimulatedHost) -> list[int]:
        """Return all processes of a host: its domains, its daemon, sessions and xl."""
        return [pid for pid, _ in belonging(host.root)]

    def report(self) -> str:
        """Return the ends of both daemons' logs."""
        return "\n".join(
            f"--- {host.name}\n" + "\n".join(host.log().splitlines()[-60:]) for host in self.hosts
        )

    # --- ends -------------------------------------------------------------------------------

    def kill_daemon(self, host: SimulatedHost, number: signal.Signals = signal.SIGKILL) -> None:
        """Send the daemon a signal that ends it; it may take its time, on a disk that stands."""
        if host.daemon is not None:
            host.daemon.send_signal(number)
            self._ending.add(host.name)

    def revive(self, host: SimulatedHost) -> None:
        """See that a daemon runs there, as systemd does."""
        daemon = host.daemon
        if daemon is not None and host.name in self._ending:
            with suppress(subprocess.TimeoutExpired):
                daemon.wait(_PATIENCE_S)
        if daemon is None or daemon.poll() is not None:
            self._ending.discard(host.name)
            host.launch_daemon()

    def bring_witness_back(self) -> None:
        """Have etcd answer again."""
        if self.etcd is not None:
            self.etcd.thaw() if self.etcd.process else self.etcd.start()

    def mend(self) -> None:
        """End every fault: what stands still goes on, and every daemon runs."""
        self.net.mend()
        for disk in self.disks.values():
            disk.mend()
        self.bring_witness_back()
        for host in self.hosts:
            for pid in self.processes(host):
                kill(pid, signal.SIGCONT)
        for host in self.hosts:
            if host.name in self._ending and host.daemon is not None:
                host.daemon.wait(_ENDED_S)
            self.revive(host)

    def _end_processes(self) -> None:
        for disk in self.disks.values():
            disk.thaw()
        spared = {self.etcd.process.pid} if self.etcd and self.etcd.process else set()
        deadline = time.monotonic() + _ENDED_S
        while left := {pid for pid, _ in belonging(self.root)} - spared:
            for pid in left:
                kill(pid)
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        for host in self.hosts:
            if host.daemon is not None:
                host.daemon.wait(_ENDED_S)
                host.daemon = None

    def close(self) -> None:
        """End everything."""
        self._closing.close()
