"""The fencer `agents`: what proves that a host is off, and what does not."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from colod import plugins
from colod.errors import ConfigError
from colod.fencing.agents import AgentsFencer, AgentsOptions
from colod.fencing.base import Fenced, Unconfirmed
from colod.model import HostName

A, B = HostName("alpha"), HostName("beta")

AGENT = """#!/bin/sh
# Stands for a fence agent: reads key=value lines, appends what it was asked, and answers.
while IFS= read -r line; do
    case $line in action=*) action=${line#action=} ;; esac
    echo "$line" >>%(log)s
done
case $action in
%(cases)s
esac
"""


def agent(folder: Path, name: str = "fence_test", **cases: str) -> Path:
    """Write an agent that runs a shell command for each action."""
    body = "\n".join(f"{action}) {command} ;;" for action, command in cases.items())
    path = folder / name
    path.write_text(AGENT % {"log": folder / f"{name}.log", "cases": body})
    path.chmod(0o755)
    return path


def asked(path: Path) -> list[str]:
    """Return the actions that an agent was asked for."""
    lines = path.with_name(f"{path.name}.log").read_text().splitlines()
    return [line.removeprefix("action=") for line in lines if line.startswith("action=")]


def fencer(*devices: dict[str, Any], **options: Any) -> AgentsFencer:
    return AgentsFencer.from_config({"devices": list(devices), **options}, host=A)


SAYS_OFF = "echo Status: OFF; exit 2"


async def test_an_agent_that_switched_off_and_says_off_proves_it(tmp_path: Path) -> None:
    path = agent(tmp_path, off="exit 0", status=SAYS_OFF)
    verdict = await fencer({"agent": str(path)}).fence(B)
    assert verdict == Fenced(f"{path}: off, status: off")
    assert asked(path) == ["off", "status"]


async def test_a_host_that_was_off_already_counts_as_fenced(tmp_path: Path) -> None:
    path = agent(tmp_path, off="exit 1", status=SAYS_OFF)
    assert isinstance(await fencer({"agent": str(path)}).fence(B), Fenced)


@pytest.mark.parametrize(
    "cases",
    [
        {"off": "exit 0", "status": "echo Status: ON; exit 0"},
        {"off": "exit 0", "status": "exit 1"},
        {"off": "exit 0", "status": "echo 'Failed: bad arguments'; exit 2"},
        {"off": "exit 0", "status": "echo power_off: parameter not set >&2; exit 2"},
        {"off": "exit 0", "status": "echo unknown option pcmk_off_timeout; exit 2"},
        {"off": "exit 0", "status": "echo Status: OFF >&2; exit 2"},
        {"off": "exit 0", "status": "echo Status: OFFLINE; exit 2"},
        {"off": "exit 2", "status": SAYS_OFF},
        {"off": "exit 1", "status": "exit 8"},
        {"off": "kill -9 $$", "status": "kill -9 $$"},
    ],
    ids=[
        "still on",
        "no status",
        "bad arguments end with 2 too",
        "a shell's error",
        "a warning",
        "not on standard output",
        "another word",
        "the order was not understood",
        "all fails",
        "agent dies",
    ],
)
async def test_whatever_else_is_no_proof(tmp_path: Path, cases: dict[str, str]) -> None:
    path = agent(tmp_path, **cases)
    verdict = await fencer({"agent": str(path), "attempts": 2}).fence(B)
    assert isinstance(verdict, Unconfirmed)
    assert str(path) in verdict.reason
    assert "fence-confirm" in verdict.reason
    assert asked(path) == ["off", "status"] * 2


async def test_an_agent_that_hangs_is_killed_with_its_children_and_proves_nothing(
    tmp_path: Path,
) -> None:
    path = agent(tmp_path, off=f"sleep 300 & echo $! >{tmp_path}/child; wait", status="exit 1")
    began = time.monotonic()
    verdict = await fencer({"agent": str(path), "timeout_s": 1, "attempts": 1}).fence(B)
    assert isinstance(verdict, Unconfirmed)
    assert "did not end in time" in verdict.reason
    assert time.monotonic() - began < 60
    child = int((tmp_path / "child").read_text())
    for _ in range(100):
        if is_gone(child):
            return
        await asyncio.sleep(0.05)
    pytest.fail("the agent's child lives")


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


async def test_the_next_device_is_asked_when_one_proves_nothing(tmp_path: Path) -> None:
    broken = agent(tmp_path, "fence_broken", off="exit 1", status="exit 1")
    works = agent(tmp_path, "fence_works", off="exit 0", status=SAYS_OFF)
    verdict = await fencer({"agent": str(broken)}, {"agent": str(works)}).fence(B)
    assert isinstance(verdict, Fenced)
    assert verdict.evidence.startswith(str(works))


async def test_a_device_without_status_is_believed_only_where_that_is_said(tmp_path: Path) -> None:
    path = agent(tmp_path, off="exit 0", status="exit 1")
    assert isinstance(await fencer({"agent": str(path), "attempts": 1}).fence(B), Unconfirmed)
    assert isinstance(await fencer({"agent": str(path), "verify": False}).fence(B), Fenced)


async def test_options_go_to_standard_input_and_never_to_the_command_line(tmp_path: Path) -> None:
    path = agent(tmp_path, off=f"cat /proc/$$/cmdline >{tmp_path}/line", status=SAYS_OFF)
    options = {"ip": "192.0.2.9", "password": "hunter2", "plug": 3}
    await fencer({"agent": str(path), "options": options}).fence(B)
    log = path.with_name("fence_test.log").read_text().splitlines()
    assert {"ip=192.0.2.9", "password=hunter2", "plug=3"} <= set(log)
    assert b"hunter2" not in (tmp_path / "line").read_bytes()


async def test_a_fenced_host_is_switched_on_again_where_that_is_wanted(tmp_path: Path) -> None:
    path = agent(tmp_path, off="exit 0", status=SAYS_OFF, on="exit 0")
    made = switched_on_again(path)
    assert isinstance(await made.fence(B), Fenced)
    for _ in range(100):
        if asked(path) == ["off", "status", "on"]:
            break
        await asyncio.sleep(0.05)
    assert asked(path) == ["off", "status", "on"]
    await made.close()


def switched_on_again(path: Path, *, quiet_s: float = 0.0, **device: Any) -> AgentsFencer:
    """Return a fencer that switches the host on once nobody has asked for so long."""
    options = {"devices": [{"agent": str(path), **device}], "on_after": True}
    return AgentsFencer(AgentsOptions.model_validate(options), quiet_s=quiet_s)


def slow_host(folder: Path) -> Path:
    """Return an agent whose host's power is a file, and takes as long as a board's."""
    power = folder / "power"
    power.write_text("ON\n")
    return agent(
        folder,
        off=f"sleep 0.3; echo OFF >{power}; exit 0",
        status=f"sleep 0.2; grep -q OFF {power} && {{ {SAYS_OFF}; }}; echo Status: ON; exit 0",
        on=f"sleep 0.1; echo ON >{power}; exit 0",
    )


async def until_asked(path: Path, action: str) -> None:
    for _ in range(1000):
        if path.with_name("fence_test.log").exists() and action in asked(path):
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"it is not asked for {action}")


async def test_takeovers_of_several_guests_from_one_host_share_its_fence(tmp_path: Path) -> None:
    """Each by itself would switch it on between another's `off` and `status`."""
    path = slow_host(tmp_path)
    made = switched_on_again(path, quiet_s=0.3, attempts=1)
    verdicts = await asyncio.gather(*(made.fence(B) for _ in range(5)))
    assert all(isinstance(verdict, Fenced) for verdict in verdicts)
    await until_asked(path, "on")
    assert asked(path) == ["off", "status", "on"]
    await made.close()


async def test_a_takeover_that_asks_a_little_later_is_fenced_before_the_host_is_switched_on(
    tmp_path: Path,
) -> None:
    path = slow_host(tmp_path)
    made = switched_on_again(path, quiet_s=1.0, attempts=1)
    assert isinstance(await made.fence(B), Fenced)
    assert isinstance(await made.fence(B), Fenced)
    await until_asked(path, "on")
    assert asked(path) == ["off", "status"] * 2 + ["on"]
    await made.close()


async def test_a_takeover_that_asks_while_the_host_is_switched_on_has_it_fenced_anew(
    tmp_path: Path,
) -> None:
    path = slow_host(tmp_path)
    made = switched_on_again(path, attempts=1)
    await made.fence(B)
    await until_asked(path, "on")
    assert isinstance(await made.fence(B), Fenced)
    assert asked(path)[:5] == ["off", "status", "on", "off", "status"]
    await made.close()


async def test_a_proof_that_was_on_its_way_before_it_was_asked_for_is_no_answer(
    tmp_path: Path,
) -> None:
    """The host may have been on again in between: only what is found out afterwards counts."""
    path = slow_host(tmp_path)
    made = fencer({"agent": str(path), "attempts": 1})
    first = asyncio.create_task(made.fence(B))
    await until_asked(path, "status")
    assert isinstance(await made.fence(B), Fenced)
    assert isinstance(await first, Fenced)
    assert asked(path) == ["off", "status"] * 2


async def test_what_proved_nothing_is_not_tried_anew_for_those_that_waited(tmp_path: Path) -> None:
    """A board that hangs would be waited for once per guest, one after the other."""
    path = agent(tmp_path, off="sleep 0.2; exit 1", status="exit 1")
    made = fencer({"agent": str(path), "attempts": 1})
    verdicts = await asyncio.gather(*(made.fence(B) for _ in range(4)))
    assert all(isinstance(verdict, Unconfirmed) for verdict in verdicts)
    assert asked(path) == ["off", "status"]
    assert isinstance(await made.fence(B), Unconfirmed)
    assert asked(path) == ["off", "status"] * 2


async def test_a_fencer_that_is_closed_switches_nothing_on(tmp_path: Path) -> None:
    path = slow_host(tmp_path)
    made = switched_on_again(path, attempts=1)
    await made.fence(B)
    await made.close()
    await fencer({"agent": str(path), "attempts": 1}).fence(B)  # takes longer than the other's rest
    assert "on" not in asked(path)


async def test_a_host_that_somebody_still_wants_fenced_stays_off(tmp_path: Path) -> None:
    path = agent(
        tmp_path,
        off="exit 0",
        status=f"mkdir {tmp_path}/first 2>/dev/null || exit 1; {SAYS_OFF}",
        on="exit 0",
    )
    made = switched_on_again(path, quiet_s=0.1, attempts=1)
    assert isinstance(await made.fence(B), Fenced)
    assert isinstance(await made.fence(B), Unconfirmed)
    await fencer({"agent": str(slow_host(tmp_path)), "attempts": 1}).fence(B)
    assert "on" not in asked(path)
    await made.close()


async def test_an_agent_of_clusterlabs_is_understood(tmp_path: Path) -> None:
    """Debian's fence_dummy, whose power is a file."""
    if not shutil.which("fence_dummy", path="/usr/sbin:/usr/bin"):
        pytest.skip("NOT TESTED: no fence_dummy; run deploy/test-prerequisites")
    power = tmp_path / "power"
    device = {"agent": "fence_dummy", "options": {"status_file": str(power)}}
    power.write_text("on")
    assert isinstance(await fencer(device).fence(B), Fenced)
    assert power.read_text() == "off"
    assert isinstance(await fencer(device).fence(B), Fenced), "it is off already"
    stuck = {"agent": "fence_dummy", "options": {"type": "fail", "plug": 1, "power_timeout": 1}}
    assert isinstance(await fencer(stuck | {"attempts": 1}).fence(B), Unconfirmed)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "devices"),
        ({"devices": []}, "devices"),
        ({"devices": [{"agent": "fence_of_no_make"}]}, "no program fence_of_no_make"),
        ({"devices": [{"agent": "sh", "options": {"action": "off"}}]}, "colod's to say"),
        ({"devices": [{"agent": "sh", "options": {"a": "1\nb=2"}}]}, "key=value"),
        ({"devices": [{"agent": "sh", "timeout_s": 0}]}, "timeout_s"),
        ({"devices": [{"agent": "sh", "colour": "red"}]}, "colour"),
    ],
)
def test_a_wrong_table_is_refused_with_the_reason(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as refused:
        AgentsFencer.from_config(options, host=A)
    assert problem in str(refused.value)


def test_the_kind_is_found_by_its_entry_point() -> None:
    assert plugins.load("colod.fencers", "agents") is AgentsFencer
