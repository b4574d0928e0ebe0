"""The xl port against the simulated Xen: two hosts, one guest, real processes and signals."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from colod.errors import DomainNotFound, ToolstackError
from colod.model import INCOMING_SUFFIX, GuestName
from colod.toolstack import process
from colod.toolstack.command import CommandRunner
from colod.toolstack.port import Domain, DomainState, ProcessRef
from colod.toolstack.xl import XlToolstack

GUEST = GuestName("g1")
INCOMING = GUEST + INCOMING_SUFFIX
SIMXL = str(Path(sys.executable).with_name("colod-simxl"))
PATIENCE_S = 60.0

CONFIG = """
name = "g1"
memory = 32
vif = ["mac=00:16:3e:77:00:10,bridge=br0"]
sim_service = "127.0.0.1:0"
"""


@dataclass
class SimHost:
    """A simulated host and the port to it."""

    root: Path
    port: XlToolstack
    runner: CommandRunner

    @property
    def env(self) -> dict[str, str]:
        return dict(self.runner.env)

    async def xl(self, *arguments: str) -> None:
        (await self.runner.run((SIMXL, *arguments), timeout_s=PATIENCE_S)).checked()


def make_host(root: Path) -> SimHost:
    root.mkdir()
    runner = CommandRunner(env={**os.environ, "COLOD_SIMXEN_DIR": str(root)})
    xenstore = (SIMXL, "xenstore")
    port = XlToolstack((SIMXL,), xenstore, runner=runner, xl_conf=root / "xl.conf")
    return SimHost(root, port, runner)


@pytest.fixture
async def hosts(tmp_path: Path) -> AsyncIterator[tuple[SimHost, SimHost]]:
    pair = (make_host(tmp_path / "alpha"), make_host(tmp_path / "beta"))
    yield pair
    for host in pair:
        await host.xl("sim", "kill-host")
        host.runner.close()


@pytest.fixture
async def alpha(hosts: tuple[SimHost, SimHost]) -> SimHost:
    """The host where the guest runs."""
    config = hosts[0].root / "g1.cfg"
    config.write_text(CONFIG, encoding="utf-8")
    await hosts[0].xl("create", str(config))
    return hosts[0]


@pytest.fixture
def beta(hosts: tuple[SimHost, SimHost]) -> SimHost:
    """The host that receives."""
    return hosts[1]


@pytest.fixture
def remus(alpha: SimHost, beta: SimHost) -> Iterator[subprocess.Popen[bytes]]:
    """`xl remus` on alpha, piped straight into `xl migrate-receive` on beta."""
    receive = " ".join(beta.port.receive_argv())
    command = f"exec env COLOD_SIMXEN_DIR={beta.root} {receive}"
    with (alpha.root / "remus.log").open("wb") as log:
        child = subprocess.Popen(
            alpha.port.remus_argv(GUEST, interval_ms=50, command=command),
            env=alpha.env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    yield child
    child.kill()
    child.wait()


async def eventually(what: Callable[[], object]) -> None:
    for _ in range(int(PATIENCE_S / 0.05)):
        if what():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("never came true")


async def seen(host: SimHost, name: str, wanted: Callable[[Domain], bool]) -> Domain:
    for _ in range(int(PATIENCE_S / 0.05)):
        domain = await host.port.find(name)
        if domain and wanted(domain):
            return domain
        await asyncio.sleep(0.05)
    raise AssertionError(f"{name} was never so; it is {await host.port.find(name)}")


def helpers(host: SimHost) -> list[process.SaveHelper]:
    return [
        helper
        for helper in process.save_helpers(process.processes())
        if process.environment_value(helper.process.ref.pid, "COLOD_SIMXEN_DIR") == str(host.root)
    ]


def receiver_of(remus: subprocess.Popen[bytes]) -> ProcessRef:
    (found,) = [
        each.ref
        for each in process.processes()
        if each.parent_pid == remus.pid and "migrate-receive" in each.argv
    ]
    return found


async def replicating(beta: SimHost, alpha: SimHost) -> None:
    """Wait until checkpoints follow each other."""
    log = alpha.root / "remus.log"
    await eventually(lambda: log.read_text(encoding="utf-8").count("All records processed") >= 3)
    await beta.port.pause(INCOMING)


async def test_the_ports_view_of_a_simulated_host(alpha: SimHost) -> None:
    facts = await alpha.port.host_facts()
    assert facts.simulated
    assert facts.machine == "x86_64"
    assert not facts.autoballoon
    guest = await seen(alpha, GUEST, lambda each: each.state is DomainState.RUNNING)
    assert (await alpha.port.domain_config(GUEST))["c_info"]["name"] == GUEST
    (vif,) = await alpha.port.vifs(guest.domid)
    assert (vif.mac, vif.bridge, vif.backend_domid) == ("00:16:3e:77:00:10", "br0", 0)
    assert vif.name == f"vif{guest.domid}.0"


async def test_autoballoon_is_seen(beta: SimHost) -> None:
    (beta.root / "xl.conf").write_text('autoballoon="on"\n', encoding="utf-8")
    assert (await beta.port.host_facts()).autoballoon


async def test_pauses_are_counted(alpha: SimHost) -> None:
    await alpha.port.pause(GUEST)
    await alpha.port.pause(GUEST)
    await alpha.port.unpause(GUEST)
    assert (await seen(alpha, GUEST, lambda _: True)).paused
    await alpha.port.unpause(GUEST)
    assert not (await seen(alpha, GUEST, lambda _: True)).paused
    with pytest.raises(ToolstackError):
        await alpha.port.unpause(GUEST)


async def test_a_destroyed_guest_is_gone(alpha: SimHost) -> None:
    await alpha.port.destroy(GUEST)
    assert await alpha.port.find(GUEST) is None
    with pytest.raises(DomainNotFound):
        await alpha.port.pause(GUEST)


async def test_exists_argv_tells_by_its_status(alpha: SimHost, beta: SimHost) -> None:
    for host, status in ((alpha, 0), (beta, 1)):
        done = await host.runner.run(host.port.exists_argv(GUEST), timeout_s=PATIENCE_S)
        assert done.status == status


@pytest.mark.parametrize("is_known", [True, False])
async def test_a_discarded_replica_leaves_nothing_and_the_guest_alone(
    alpha: SimHost, beta: SimHost, remus: subprocess.Popen[bytes], is_known: bool
) -> None:
    await replicating(beta, alpha)
    receiver = receiver_of(remus)
    # Stopped, because it might else see the end of xl and go by itself before it is killed.
    (helper,) = helpers(beta)
    os.kill(helper.process.ref.pid, signal.SIGSTOP)
    done = await beta.port.discard_replica(GUEST, receiver if is_known else None)
    assert done.destroyed == (INCOMING,)
    assert done.killed == (receiver, helper.process.ref)
    assert [each.name for each in await beta.port.domains()] == ["Domain-0"]
    assert not helpers(beta)
    await seen(alpha, GUEST, lambda each: each.state is DomainState.RUNNING)


async def test_a_replica_whose_xl_died_before_is_discarded_with_its_helper(
    alpha: SimHost, beta: SimHost, remus: subprocess.Popen[bytes]
) -> None:
    await replicating(beta, alpha)
    receiver = receiver_of(remus)
    (helper,) = helpers(beta)
    os.kill(helper.process.ref.pid, signal.SIGSTOP)
    assert process.kill(receiver)
    assert await process.wait_gone(receiver, PATIENCE_S)
    done = await beta.port.discard_replica(GUEST, receiver)
    assert done.killed == (helper.process.ref,)
    assert await beta.port.find(INCOMING) is None


async def test_discarding_spares_the_guest_under_its_own_name_on_that_host(
    alpha: SimHost,
) -> None:
    done = await alpha.port.discard_replica(GUEST, None)
    assert (done.killed, done.destroyed) == ((), ())
    assert await alpha.port.find(GUEST)


async def test_a_taken_over_copy_waits_paused_until_it_is_promoted(
    alpha: SimHost, beta: SimHost, remus: subprocess.Popen[bytes]
) -> None:
    await replicating(beta, alpha)
    receiver = receiver_of(remus)
    # Both hold the pipe: beta's xl sees its end, and thinks of a failover, when both are gone.
    (saver,) = helpers(alpha)
    remus.kill()
    process.kill(saver.process.ref)
    copy = await beta.port.await_takeover(GUEST, timeout_s=PATIENCE_S, receiver=receiver)
    assert copy.paused
    assert process.start_ticks(receiver.pid) != receiver.start_ticks
    promoted = await beta.port.run_promoted(GUEST)
    assert promoted.state is DomainState.RUNNING
    await seen(beta, GUEST, lambda each: each.cpu_time_s > promoted.cpu_time_s)


async def test_a_guest_left_suspended_by_a_dead_xl_runs_again(
    alpha: SimHost, beta: SimHost, remus: subprocess.Popen[bytes]
) -> None:
    await replicating(beta, alpha)
    (restorer,) = helpers(beta)
    os.kill(restorer.process.ref.pid, signal.SIGSTOP)
    await seen(alpha, GUEST, lambda each: each.state is DomainState.SUSPENDED)
    # Whoever reads the stream has stopped: this suspension does not end by itself.
    with pytest.raises(ToolstackError, match="still saves"):
        await alpha.port.resume(GUEST)
    remus.kill()
    await asyncio.to_thread(remus.wait)
    await seen(alpha, GUEST, lambda each: each.state is DomainState.SUSPENDED)
    await alpha.port.pause(GUEST)
    await alpha.port.resume(GUEST)
    assert not helpers(alpha)
    assert (await seen(alpha, GUEST, lambda _: True)).state is DomainState.PAUSED
    await alpha.port.run_promoted(GUEST)
