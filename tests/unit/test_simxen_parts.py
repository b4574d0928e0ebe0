"""The simulated guest, its settings, and xl's manners of reading options."""

import signal
import subprocess
from pathlib import Path

import pytest

from colod.simxen.guest import PAGE_BYTES, Guest, Machine
from colod.simxen.host import Host, HostProcess, signal_process, start_ticks
from colod.simxen.listing import state_letters
from colod.simxen.settings import ConfigProblem, domain_config, parse
from colod.simxen.speech import XlExit, options

CONFIG = """
name = "g1"   # the guest
type = 'pv'
memory = 88
vif = [ 'mac=00:16:3e:00:00:01,bridge=br0',
        'bridge=br1' ]
disk = [ 'phy:/dev/vg/g1,xvda,w' ]
on_crash = "preserve"
sim_service = "127.0.0.1:7000"
"""


def machine(directory: Path, pages: int = 64) -> Machine:
    directory.mkdir()
    Machine.create(directory, pages)
    return Machine(directory)


def copy(source: Machine, target: Machine) -> None:
    target.memory[:] = source.memory[:]
    target.vcpu[:] = source.vcpu[:]


def test_a_copied_guest_goes_on_where_the_original_was(tmp_path: Path) -> None:
    original = machine(tmp_path / "a")
    guest = Guest(original, 10)
    guest.boot()
    for _ in range(30):
        guest.tick()
    twin = machine(tmp_path / "b")
    copy(original, twin)
    again = Guest(twin, 10)
    again.load()
    assert (again.counter, again.boot_id) == (30, guest.boot_id)
    assert again.is_intact()
    guest.tick()
    again.tick()
    assert original.memory[:] == twin.memory[:], "what a guest does follows from its state alone"


def test_a_copy_that_misses_one_dirty_page_is_not_intact(tmp_path: Path) -> None:
    original = machine(tmp_path / "a")
    guest = Guest(original, 10)
    guest.boot()
    guest.tick()
    twin = machine(tmp_path / "b")
    copy(original, twin)
    guest.tick()
    dirty = [pfn for pfn in range(original.pages) if original.dirty[pfn]]
    stale = next(
        pfn
        for pfn in reversed(dirty)
        if original.memory[pfn * PAGE_BYTES : (pfn + 1) * PAGE_BYTES]
        != twin.memory[pfn * PAGE_BYTES : (pfn + 1) * PAGE_BYTES]
    )
    old_page = twin.memory[stale * PAGE_BYTES : (stale + 1) * PAGE_BYTES]
    copy(original, twin)
    twin.memory[stale * PAGE_BYTES : (stale + 1) * PAGE_BYTES] = old_page
    again = Guest(twin, 10)
    again.load()
    assert not again.is_intact()


def test_every_page_that_changes_is_flagged_dirty(tmp_path: Path) -> None:
    original = machine(tmp_path / "a")
    guest = Guest(original, 10)
    guest.boot()
    before = original.memory[:]
    original.dirty[:] = bytes(original.pages)
    for _ in range(5):
        guest.tick()
    for pfn in range(original.pages):
        span = slice(pfn * PAGE_BYTES, (pfn + 1) * PAGE_BYTES)
        assert original.dirty[pfn] or before[span] == original.memory[span]


def test_a_configuration_becomes_the_json_that_libxl_keeps() -> None:
    config = domain_config(CONFIG)
    assert config["c_info"]["name"] == "g1"
    assert config["b_info"]["max_memkb"] == 88 * 1024
    assert config["nics"][0] == {
        "devid": 0,
        "mac": "00:16:3e:00:00:01",
        "bridge": "br0",
        "nictype": "vif",
    }
    assert config["nics"][1]["mac"].startswith("00:16:3e:")
    assert config["disks"][0]["pdev_path"] == "/dev/vg/g1"
    assert (config["on_reboot"], config["on_crash"]) == ("restart", "preserve")
    assert "on_poweroff" not in config, "libxl leaves out what is its default, destroy"
    assert config["simulated"]["service"] == "127.0.0.1:7000"


@pytest.mark.parametrize(
    "text", ["memory = 5", 'name = "a"\nnonsense', 'name = "a"\nmemory = lots', "name = ["]
)
def test_a_configuration_that_xl_would_refuse_is_refused(text: str) -> None:
    with pytest.raises(ConfigProblem):
        domain_config(text)


def test_a_hash_inside_quotes_is_no_comment() -> None:
    assert parse('extra = "a#b" # c')["extra"] == "a#b"


def test_options_may_stand_anywhere_and_take_values() -> None:
    found, rest = options(
        ["-F", "-nd", "-i", "100", "-s", "", "g1", "cmd -x"], "Fndi:s:", "remus", 2
    )
    assert found == {"F": "", "n": "", "d": "", "i": "100", "s": ""}
    assert rest == ["g1", "cmd -x"]


@pytest.mark.parametrize(("words", "required"), [(["-Z", "g1"], 1), ([], 1), (["-i"], 0)])
def test_wrong_usage_ends_with_status_2(words: list[str], required: int) -> None:
    with pytest.raises(XlExit) as ending:
        options(words, "i:", "remus", required)
    assert ending.value.status == 2


@pytest.mark.parametrize(
    ("pauses", "shutdown", "letters"),
    [
        (0, None, "-b----"),
        (1, None, "--p---"),
        (0, 2, "---ss-"),
        (1, 2, "--pss-"),
        (0, 0, "---s--"),
    ],
)
def test_states_are_written_as_xl_writes_them(
    pauses: int, shutdown: int | None, letters: str
) -> None:
    running = not pauses and shutdown is None
    info = {"domid": 1, "pauses": pauses, "shutdown": shutdown, "running": running}
    assert state_letters(info) == letters


def test_a_process_that_has_a_recorded_pid_by_chance_is_not_touched(tmp_path: Path) -> None:
    host = Host(tmp_path / "h")
    (host.root / "pids" / "1").write_text("7 stranger\n", encoding="utf-8")
    assert host.processes() == [], "PID 1 did not start 7 ticks after boot"
    with subprocess.Popen(["sleep", "60"]) as stranger:
        ticks = start_ticks(stranger.pid)
        assert ticks is not None
        signal_process(HostProcess(stranger.pid, ticks + 1, "gone"), signal.SIGKILL)
        assert stranger.poll() is None
        signal_process(HostProcess(stranger.pid, ticks, "it"), signal.SIGTERM)
        assert stranger.wait(30) == -signal.SIGTERM, "had the first hit, it would say SIGKILL"
