"""The simulated Xen has xl's habits, the dangerous ones above all; each test shows one."""

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from colod.simxen import control
from colod.simxen.domain import SHUTDOWN_POWEROFF, SHUTDOWN_SUSPEND
from colod.simxen.guest import PAGE_BYTES
from colod.simxen.host import Host, kill_processes
from colod.stream import libxl, writer
from colod.stream.events import EpochSealed, StreamEnded
from colod.stream.libxc import DomainType, RecordType
from colod.stream.parser import StreamParser
from tests.integration.simxen_hosts import (
    LIMIT_S,
    Replication,
    SimHost,
    answers,
    ask,
    free_port,
    until,
)

SUSPENDED = "---ss-"
Replicate = Callable[..., Replication]


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[SimHost, SimHost]]:
    pair = SimHost(tmp_path / "alpha"), SimHost(tmp_path / "beta")
    yield pair
    for host in pair:
        assert kill_processes(Host(host.root))


@pytest.fixture
def alpha(hosts: tuple[SimHost, SimHost]) -> SimHost:
    return hosts[0]


@pytest.fixture
def beta(hosts: tuple[SimHost, SimHost]) -> SimHost:
    return hosts[1]


@pytest.fixture
def replicate(alpha: SimHost, beta: SimHost) -> Iterator[Replicate]:
    """Start replicating `g1`, which must exist, and wait for the first checkpoints."""
    started = []

    def start(*receive_options: str, interval_ms: int = 50, checkpoints: int = 3) -> Replication:
        replication = Replication(alpha, beta, *receive_options, interval_ms=interval_ms)
        started.append(replication)
        replication.wait_checkpoints(checkpoints)
        return replication

    yield start
    for host in (alpha, beta):
        assert kill_processes(Host(host.root))
    for replication in started:
        with contextlib.suppress(subprocess.TimeoutExpired):
            replication.end()


def sealed_epochs(replication: Replication) -> list[int]:
    stream = replication.copy.read_bytes() if replication.copy.exists() else b""
    events = StreamParser().feed(stream)
    return [event.epoch for event in events if isinstance(event, EpochSealed)]


def reason(host: SimHost) -> Any:
    guest = host.guest("g1")
    return guest and guest["shutdown"]


# --- pauses are counted --------------------------------------------------------------------------


def test_a_domain_created_paused_holds_one_reference(alpha: SimHost) -> None:
    alpha.create(0, "-p")
    assert alpha.state("g1") == "--p---"
    assert not alpha.runs()
    alpha.xl("unpause", "g1")
    assert alpha.runs()


def test_each_pause_needs_an_unpause_of_its_own(alpha: SimHost) -> None:
    alpha.create()
    alpha.xl("pause", "g1")
    alpha.xl("pause", "g1")
    alpha.xl("unpause", "g1")
    assert alpha.state("g1") == "--p---"
    alpha.xl("unpause", "g1")
    assert alpha.runs()


def test_unpausing_what_is_not_paused_complains_but_exits_0(alpha: SimHost) -> None:
    alpha.create()
    done = alpha.xl("unpause", "g1")
    assert "Domain 1:Unpausing domain: Invalid argument" in done.stderr
    assert alpha.runs()


def test_a_paused_guest_does_nothing_and_does_not_answer(alpha: SimHost) -> None:
    port = free_port()
    alpha.create(port)
    until(lambda: answers(port), "the guest answers")
    alpha.xl("pause", "g1")
    before = alpha.guest("g1")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), LIMIT_S)
    assert alpha.guest("g1") == before


def test_a_guest_on_its_way_down_suspends_when_asked_and_goes_on_down_once_resumed(
    alpha: SimHost,
) -> None:
    alpha.create()
    host, domid = Host(alpha.root), alpha.guests()["g1"]["domid"]
    alpha.xl("pause", "g1")
    alpha.xl("shutdown", "g1")
    with control.DomainLink(host, domid) as link:
        link.send("suspend")
        alpha.xl("unpause", "g1")
        assert link.receive(LIMIT_S) == {"ok": True, "shutdown": SHUTDOWN_SUSPEND}
    assert reason(alpha) == SHUTDOWN_SUSPEND
    alpha.xl("resume", "g1")
    until(lambda: reason(alpha) == SHUTDOWN_POWEROFF, "the guest is powered off")
    # xl's monitor has taken the suspension for the guest's end: nobody clears the domain away.
    assert not control.is_gone(host, domid)


# --- every end of a stream means failover ---------------------------------------------------------


def test_killing_only_the_transport_leaves_the_guest_running_on_both_hosts(
    alpha: SimHost, beta: SimHost, replicate: Replicate
) -> None:
    alpha.create()
    replication = replicate()
    replication.cut()
    assert replication.receiver.wait(LIMIT_S) == 0
    assert replication.sender.wait(LIMIT_S) == 1
    assert "migration target: Remus Failover for domain 1" in replication.received()
    assert "Remus: Backup failed? resuming domain at primary." in replication.sent()
    assert alpha.runs()
    assert beta.runs()
    first, second = alpha.observe(), beta.observe()
    assert first is not None
    assert second is not None
    assert first["boot_id"] == second["boot_id"]
    assert (first["host"], second["host"]) == ("alpha", "beta")


def test_a_second_pause_reference_keeps_the_copy_still_until_it_is_dropped(
    alpha: SimHost, beta: SimHost, replicate: Replicate
) -> None:
    port = free_port()
    alpha.create(port)
    replication = replicate()
    beta.xl("pause", "g1--incoming")
    seen = until(lambda: ask(port) if answers(port) else None, "the guest answers")
    replication.wait_checkpoints()
    alpha.xl("sim", "kill-host")
    assert replication.receiver.wait(LIMIT_S) == 0
    assert beta.state("g1") == "--p---"
    assert not beta.runs()
    assert not answers(port), "a copy that never ran does not even listen"
    beta.xl("unpause", "g1")
    after = until(lambda: ask(port) if answers(port) else None, "the copy answers")
    assert after["boot_id"] == seen["boot_id"]
    assert after["counter"] > seen["counter"]
    assert after["intact"]
    assert (after["host"], after["simulated"]) == ("beta", True)


def test_the_stream_that_remus_writes_consists_of_whole_epochs(
    alpha: SimHost, replicate: Replicate
) -> None:
    alpha.create()
    replication = replicate()
    alpha.xl("sim", "kill-host")
    replication.receiver.wait(LIMIT_S)
    sealed = sealed_epochs(replication)
    assert len(sealed) >= 3
    assert sealed == list(range(1, len(sealed) + 1))


def test_a_guest_that_powers_off_at_the_primary_starts_again_at_the_secondary(
    alpha: SimHost, beta: SimHost, replicate: Replicate
) -> None:
    alpha.create()
    replication = replicate()
    alpha.xl("sim", "guest", "g1", "poweroff")
    assert replication.receiver.wait(LIMIT_S) == 0
    assert beta.runs()


def test_destroying_the_primary_ends_remus_with_status_0_and_the_copy_starts(
    alpha: SimHost, beta: SimHost, replicate: Replicate
) -> None:
    alpha.create()
    replication = replicate()
    alpha.xl("destroy", "g1")
    assert replication.sender.wait(LIMIT_S) == 0
    assert "Remus: Primary domain has been destroyed." in replication.sent()
    assert replication.receiver.wait(LIMIT_S) == 0
    assert beta.runs()


# --- the receiver --------------------------------------------------------------------------------


def head(name: str = "g1") -> bytes:
    config = {
        "c_info": {"type": "pv", "name": name, "uuid": "u"},
        "b_info": {"max_memkb": 65536, "target_memkb": 65536},
        "simulated": {"memory_pages": 16},
    }
    return (
        writer.xl_header(json.dumps(config).encode())
        + writer.libxl_header()
        + writer.libxl_record(libxl.RecordType.LIBXC_CONTEXT)
        + writer.libxc_image_header()
        + writer.libxc_domain_header(DomainType.X86_PV)
        + writer.pv_info()
        + writer.libxc_record(RecordType.STATIC_DATA_END)
    )


def receive(host: SimHost, stream: bytes) -> "subprocess.CompletedProcess[bytes]":
    with host.start(
        "migrate-receive",
        "-r",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        out, err = process.communicate(stream, timeout=LIMIT_S)
    return subprocess.CompletedProcess("", process.returncode, out, err)


@pytest.mark.parametrize(
    ("stream", "complaint"),
    [
        pytest.param(head(), b"Domain creation failed (code -3)", id="end-in-the-first-copy"),
        pytest.param(
            head() + writer.checkpoint(),
            b"Domain creation failed (code -3)",
            id="end-before-the-first-CHECKPOINT_END",
        ),
        pytest.param(
            head() + writer.libxc_record(0x55, b"x"),
            b"Mandatory record 0x55 not handled",
            id="unknown-record",
        ),
        pytest.param(head() + b"\xff" * 64, b"exceeds max", id="garbage-in-the-first-copy"),
        pytest.param(b"x" * 48, b"File has wrong magic number", id="no-stream-at-all"),
        pytest.param(b"", b"xl: fatal error", id="nothing"),
    ],
)
def test_without_a_whole_checkpoint_the_replica_is_destroyed(
    beta: SimHost, stream: bytes, complaint: bytes
) -> None:
    done = receive(beta, stream)
    assert done.returncode == 1
    assert done.stdout == writer.xl_banner()
    assert complaint in done.stderr
    assert beta.guests() == {}


@pytest.mark.parametrize(
    "rest",
    [
        pytest.param(b"\xff" * 64, id="garbage"),
        pytest.param(writer.checkpoint(), id="half-a-second-checkpoint"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_after_a_whole_checkpoint_garbage_too_is_taken_for_failover(
    beta: SimHost, rest: bytes
) -> None:
    done = receive(beta, head() + writer.checkpoint() + writer.checkpoint_end() + rest)
    assert done.returncode == 0
    assert b"migration target: Remus Failover for domain 1" in done.stderr
    assert beta.runs()


def counter_page(counter: int) -> bytes:
    """Build the record of the page that holds the guest's counter."""
    return writer.page_data([1], [counter.to_bytes(8, "little") + bytes(PAGE_BYTES - 8)])


@pytest.mark.parametrize(
    ("end", "is_applied"),
    [
        pytest.param(b"", False, id="cut-off-before-CHECKPOINT"),
        pytest.param(writer.checkpoint(), False, id="cut-off-before-CHECKPOINT_END"),
        pytest.param(writer.checkpoint() + writer.checkpoint_end(), True, id="whole"),
    ],
)
def test_only_whole_epochs_reach_the_replicas_memory(
    beta: SimHost, end: bytes, is_applied: bool
) -> None:
    whole = writer.checkpoint() + writer.checkpoint_end()
    stream = head() + counter_page(5) + whole + counter_page(1_000_000) + end
    assert receive(beta, stream).returncode == 0
    guest = beta.guest("g1")
    assert guest is not None
    assert (guest["counter"] >= 1_000_000) is is_applied


def test_a_record_that_libxc_cannot_apply_destroys_even_a_replica_with_checkpoints(
    beta: SimHost,
) -> None:
    one = head() + writer.checkpoint() + writer.checkpoint_end()
    bad = writer.libxc_record(0x55, b"x") + writer.checkpoint() + writer.checkpoint_end()
    assert receive(beta, one + bad).returncode == 1
    assert beta.guests() == {}


def test_killing_migrate_receive_leaves_a_paused_copy_and_its_save_helper(beta: SimHost) -> None:
    stream = head() + writer.checkpoint() + writer.checkpoint_end() + writer.checkpoint()[:4]
    with beta.start(
        "migrate-receive",
        "-r",
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdin is not None
        process.stdin.write(stream)
        process.stdin.flush()
        # Nothing is left in the pipe: the helper waits for the rest of the record.
        pipe = process.stdin.fileno()
        until(lambda: not _unread_bytes(pipe), "the stream is read")
        process.kill()
        process.wait(LIMIT_S)
        assert beta.state("g1--incoming") == "--p---"
        assert "save-helper 1" in beta.roles()
        beta.xl("destroy", "g1--incoming")
        assert beta.guests() == {}
        assert "save-helper 1" in beta.roles()
        process.stdin.write(writer.checkpoint()[4:])
    until(lambda: "save-helper 1" not in beta.roles(), "the helper finds nobody to ask")


def _unread_bytes(pipe: int) -> int:
    count = fcntl.ioctl(pipe, termios.FIONREAD, bytes(4))
    return int.from_bytes(count, sys.byteorder)


def test_the_death_of_the_save_helper_destroys_even_a_replica_with_checkpoints(
    alpha: SimHost, beta: SimHost, replicate: Replicate
) -> None:
    alpha.create()
    replication = replicate()
    beta.xl("sim", "kill-helper", "g1--incoming")
    assert replication.receiver.wait(LIMIT_S) == 1
    assert "died due to fatal signal Killed" in replication.received()
    assert beta.guests() == {}


def test_the_details_of_an_incoming_domain_cannot_be_listed(
    alpha: SimHost, beta: SimHost, replicate: Replicate
) -> None:
    alpha.create()
    replicate()
    done = beta.xl("list", "-l", "g1--incoming")
    assert done.stdout == "[\n\n]\n"
    assert "Fail to get domain configuration" in done.stderr
    row = beta.xl("list", "g1--incoming").stdout.splitlines()[1].split()
    assert row[:5] == ["g1--incoming", "1", "64", "0", "--p---"]


def test_with_autoballoon_a_restore_blocks_every_other_start_on_its_host(
    alpha: SimHost, beta: SimHost, replicate: Replicate
) -> None:
    (beta.root).mkdir()
    (beta.root / "xl.conf").write_text('autoballoon="on"\n', encoding="utf-8")
    alpha.create()
    replication = replicate()
    config = beta.root.parent / "other.cfg"
    config.write_text('name="other"\nmemory=64\n', encoding="utf-8")
    with beta.start("create", str(config), "-e", stderr=subprocess.DEVNULL) as other:
        replication.wait_checkpoints(5)
        assert other.poll() is None
        assert "other" not in beta.guests()
        replication.cut()
        assert other.wait(LIMIT_S) == 0
    assert "other" in beta.guests()


@pytest.mark.parametrize("options", [(), ("-e",)], ids=["monitored", "with -e"])
def test_only_without_e_somebody_handles_a_reboot_after_the_takeover(
    alpha: SimHost, beta: SimHost, replicate: Replicate, options: tuple[str, ...]
) -> None:
    alpha.create()
    replication = replicate(*options)
    replication.cut()
    assert replication.receiver.wait(LIMIT_S) == 0
    old = beta.observe()
    assert old is not None
    beta.xl("sim", "guest", "g1", "reboot")
    if options:
        assert until(lambda: reason(beta), "the guest stops") == 1
        assert beta.state("g1") == "---sr-"
        return
    fresh = until(lambda: _other_boot(beta, old["boot_id"]), "the guest boots again")
    assert fresh["domid"] == 2
    beta.xl("sim", "guest", "g1", "poweroff")
    until(lambda: beta.guest("g1") is None, "the domain is cleaned up")


def _other_boot(host: SimHost, boot_id: str) -> dict[str, Any] | None:
    guest = host.guest("g1")
    return guest if guest and guest["has_run"] and guest["boot_id"] != boot_id else None


# --- the sender ----------------------------------------------------------------------------------


def test_behind_a_full_pipe_the_guest_stays_suspended(alpha: SimHost, replicate: Replicate) -> None:
    port = free_port()
    alpha.create(port, sim_writes_per_tick=60)
    replication = replicate()
    replication.block()
    before = alpha.guest("g1")
    assert not answers(port)
    assert alpha.guest("g1") == before
    replication.unblock()
    until(lambda: answers(port), "the guest answers again")


def test_killing_xl_remus_may_leave_the_guest_suspended_for_ever(
    alpha: SimHost, beta: SimHost, replicate: Replicate
) -> None:
    alpha.create(0, sim_writes_per_tick=60)
    replication = replicate()
    replication.block()
    replication.sender.kill()
    replication.sender.wait(LIMIT_S)
    helper = alpha.roles()["save-helper 1"]
    os.kill(helper, 0)
    replication.unblock()
    # The helper writes on to CHECKPOINT, asks xl to resume the guest, and finds nobody.
    until(lambda: "save-helper 1" not in alpha.roles(), "the helper ends")
    assert alpha.state("g1") == SUSPENDED
    assert replication.receiver.wait(LIMIT_S) == 0
    assert beta.runs()
    alpha.xl("resume", "g1")
    assert alpha.runs()


def test_a_guest_paused_while_replicating_stays_paused_when_the_transport_dies(
    alpha: SimHost, replicate: Replicate
) -> None:
    alpha.root.mkdir()
    (alpha.root / "xl.conf").write_text('sim_suspend_timeout="1"\n', encoding="utf-8")
    alpha.create()
    replication = replicate()
    alpha.xl("pause", "g1")
    replication.cut()
    # xl asks it to suspend, which it cannot, and gives up without resuming anything.
    assert replication.sender.wait(LIMIT_S) == 1
    assert "Failed to suspend domain at primary." in replication.sent()
    assert alpha.state("g1") in {"--p---", "--pss-"}
    assert not alpha.runs()


def test_the_death_of_the_save_helper_between_checkpoints_makes_xl_remus_abort(
    alpha: SimHost, replicate: Replicate
) -> None:
    alpha.create()
    replication = replicate(interval_ms=60_000, checkpoints=0)
    until(lambda: sealed_epochs(replication) == [1], "xl waits for the next checkpoint")
    alpha.xl("sim", "kill-helper", "g1")
    assert replication.sender.wait(LIMIT_S) == -signal.SIGABRT
    assert "Assertion `XEN_TAILQ_EMPTY(&ctx->etimes)' failed." in replication.sent()
    assert alpha.runs()


def test_resuming_what_is_not_suspended_complains_but_exits_0(alpha: SimHost) -> None:
    alpha.create()
    assert "Dom 1 not suspended: (shutdown 0, reason 255)" in alpha.xl("resume", "g1").stderr


def test_remus_refuses_to_buffer_the_network(alpha: SimHost) -> None:
    alpha.create()
    command = f"printf '{writer.xl_banner().decode().strip()}\\n'; cat >/dev/null"
    done = alpha.xl("remus", "-F", "-d", "-s", "", "g1", command, check=False)
    assert done.returncode == 1
    assert "Remus: No support for network buffering" in done.stderr


@pytest.mark.parametrize("command", ["exit 3", "printf '%060d' 7; cat >/dev/null"])
def test_without_the_right_banner_remus_sends_nothing(alpha: SimHost, command: str) -> None:
    alpha.create()
    done = alpha.xl("remus", "-F", "-n", "-d", "-s", "", "g1", command, check=False)
    assert done.returncode == 1
    assert "banner" in done.stderr
    assert alpha.runs()


# --- save and restore ----------------------------------------------------------------------------


def test_a_saved_image_is_complete_and_a_restored_guest_goes_on(alpha: SimHost) -> None:
    alpha.create(sim_writes_per_tick=20)
    assert alpha.runs()
    image = alpha.root.parent / "g1.image"
    before = alpha.observe()
    alpha.xl("save", "g1", str(image))
    assert alpha.guests() == {}
    parser = StreamParser()
    events = [*parser.feed(image.read_bytes()), *parser.finish()]
    assert isinstance(events[-1], StreamEnded)
    alpha.xl("restore", str(image))
    assert alpha.runs()
    after = alpha.observe()
    assert before is not None
    assert after is not None
    assert after["intact"]
    assert after["boot_id"] == before["boot_id"]
    assert after["counter"] > before["counter"]


def test_a_truncated_image_leaves_no_domain(alpha: SimHost) -> None:
    alpha.create()
    image = alpha.root.parent / "g1.image"
    alpha.xl("save", "g1", str(image))
    os.truncate(image, image.stat().st_size - 8)
    assert alpha.xl("restore", str(image), check=False).returncode == 1
    assert alpha.guests() == {}


def test_save_with_c_lets_the_guest_go_on(alpha: SimHost) -> None:
    alpha.create()
    alpha.xl("save", "-c", "g1", str(alpha.root.parent / "g1.image"))
    assert alpha.runs()


# --- names, errors, what is shown ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "status", "complaint"),
    [
        (("pause", "nosuch"), 1, "nosuch is an invalid domain identifier (rc=-6)"),
        (("destroy", "nosuch"), 1, "nosuch is an invalid domain identifier (rc=-6)"),
        (("list", "nosuch"), 1, "nosuch is an invalid domain identifier (rc=-6)"),
        (("list", "99"), 1, "Error: Domain '99' does not exist."),
        (("pause", "99"), 0, "Domain 99:Pausing domain: No such process"),
        (("destroy", "99"), 1, "destroy failed (rc=-21)"),
        (("domid", "nosuch"), 1, "Can't get domid of domain name 'nosuch'"),
        (("rename", "g1", "g2"), 1, "Can't rename domain 'g1'."),
        (("nonsense",), 1, "command not implemented"),
        (("pause",), 2, "'xl pause' requires at least 1 argument."),
    ],
)
def test_errors_have_xls_texts_and_statuses(
    alpha: SimHost, arguments: tuple[str, ...], status: int, complaint: str
) -> None:
    alpha.create()
    config = alpha.root.parent / "g2.cfg"
    config.write_text('name="g2"\nmemory=64\n', encoding="utf-8")
    alpha.xl("create", str(config), "-e")
    done = alpha.xl(*arguments, check=False)
    assert done.returncode == status
    assert complaint in done.stderr


def test_a_name_in_use_makes_create_fail_with_status_3(alpha: SimHost) -> None:
    alpha.create()
    done = alpha.xl("create", str(alpha.root.parent / "alpha.cfg"), check=False)
    assert done.returncode == 3
    assert 'Domain with name "g1" already exists.' in done.stderr


def test_memory_is_finite_and_comes_back_when_a_domain_is_destroyed(alpha: SimHost) -> None:
    free = int(alpha.xl("info", "free_memory").stdout)
    alpha.create()
    assert int(alpha.xl("info", "free_memory").stdout) == free - 64
    config = alpha.root.parent / "big.cfg"
    config.write_text(f'name="big"\nmemory={free}\n', encoding="utf-8")
    assert alpha.xl("create", str(config), check=False).returncode == 3
    alpha.xl("destroy", "g1")
    assert int(alpha.xl("info", "free_memory").stdout) == free
    assert alpha.xl("create", str(config), "-p").returncode == 0


def test_it_says_simulated_wherever_it_shows_up(alpha: SimHost) -> None:
    port = free_port()
    alpha.create(port)
    config = alpha.root.parent / "alpha.cfg"
    assert "simulated" in alpha.xl("create", str(config), check=False).stderr
    assert "simulated" in alpha.xl("info", "xen_extra").stdout
    assert "simulated" in alpha.xl("--version").stdout
    until(lambda: answers(port), "the guest answers")
    assert ask(port)["simulated"] is True


def test_details_and_xenstore_describe_the_interfaces(alpha: SimHost) -> None:
    alpha.create()
    (details,) = json.loads(alpha.xl("list", "-l", "g1").stdout)
    (nic,) = details["config"]["nics"]
    path = "/local/domain/0/backend/vif/1/0"
    assert alpha.xl("xenstore", "read", f"{path}/mac").stdout.strip() == nic["mac"]
    assert alpha.xl("xenstore", "read", f"{path}/bridge").stdout.strip() == "br0"
    assert nic["mac"] in alpha.xl("network-list", "g1").stdout
    assert alpha.xl("xenstore", "read", "/no/such", check=False).returncode == 1


# --- the network ---------------------------------------------------------------------------------


def test_a_plug_holds_answers_until_their_epoch_is_released(alpha: SimHost) -> None:
    port = free_port()
    alpha.create(port)
    until(lambda: answers(port), "the guest answers")
    alpha.xl("sim", "plug", "vif1.0", "add")
    with socket.create_connection(("127.0.0.1", port), LIMIT_S) as client:
        client.settimeout(LIMIT_S)
        client.sendall(b"get\n")
        until(lambda: _plug(alpha)["queued_packets"] == 1, "the answer is held")
        alpha.xl("sim", "plug", "vif1.0", "release_one")
        assert _plug(alpha)["queued_packets"] == 1, "its epoch has not ended yet"
        alpha.xl("sim", "plug", "vif1.0", "buffer")
        alpha.xl("sim", "plug", "vif1.0", "release_one")
        assert json.loads(client.makefile().readline())["domain"] == "g1"
    alpha.xl("sim", "plug", "vif1.0", "del")
    assert answers(port)


def test_what_a_guest_says_unasked_goes_through_the_plug_too(
    alpha: SimHost, tmp_path: Path
) -> None:
    heard = tmp_path / "heard"
    alpha.create(sim_listener=str(heard))
    until(lambda: heard.exists() and heard.read_bytes().count(b"\n") > 3, "it speaks each tick")
    alpha.xl("sim", "plug", "vif1.0", "add")
    silent = heard.read_bytes()
    until(lambda: _plug(alpha)["queued_packets"] > 3, "its words are held")
    assert heard.read_bytes() == silent
    alpha.xl("sim", "plug", "vif1.0", "del")
    words = [json.loads(line) for line in heard.read_bytes().splitlines()]
    counters = [word["counter"] for word in words]
    assert counters == list(range(counters[0], counters[-1] + 1))
    assert {(word["root"], word["domid"]) for word in words} == {(str(alpha.root), 1)}


def _plug(host: SimHost) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(host.xl("sim", "plug", "vif1.0", "show").stdout)
    return shown


# --- hosts die as a whole ------------------------------------------------------------------------


def test_kill_host_ends_every_process_of_that_host_and_of_no_other(
    alpha: SimHost, beta: SimHost, replicate: Replicate
) -> None:
    alpha.create()
    replication = replicate()
    beta.xl("pause", "g1--incoming")
    pids = alpha.roles()
    assert {"domain 1", "xl remus", "save-helper 1", "transport"} <= set(pids)
    others = beta.roles()
    alpha.xl("sim", "kill-host")
    assert replication.sender.wait(LIMIT_S) == -signal.SIGKILL
    assert "resuming" not in replication.sent(), "a dead host does not resume its guest"
    assert alpha.roles() == {}
    assert alpha.guests() == {}
    assert beta.roles()["domain 1"] == others["domain 1"]


def test_the_processes_of_a_host_end_when_its_directory_is_removed(alpha: SimHost) -> None:
    alpha.create()
    domain = alpha.roles()["domain 1"]
    alpha.root.rename(alpha.root.with_name("gone"))
    until(lambda: not Path(f"/proc/{domain}").exists(), "the domain ends")


def test_an_ordered_failure_hits_exactly_the_next_command(alpha: SimHost) -> None:
    alpha.create()
    alpha.xl("sim", "fail", "pause", "7")
    assert alpha.xl("pause", "g1", check=False).returncode == 7
    assert alpha.runs()
    alpha.xl("pause", "g1")
    assert alpha.state("g1") == "--p---"


def test_without_a_state_directory_nothing_works(alpha: SimHost) -> None:
    environment = dict(alpha.environment)
    alpha.environment.pop("COLOD_SIMXEN_DIR")
    done = alpha.xl("list", check=False)
    alpha.environment = environment
    assert done.returncode == 1
    assert "COLOD_SIMXEN_DIR is not set" in done.stderr
