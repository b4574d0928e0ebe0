"""The example of a third party's transport: found by its entry point, and true to the contract."""

import asyncio
import tomllib
from pathlib import Path

import pytest

import colod_paced
from colod import plugins
from colod.errors import ConfigError, PeerUnreachable
from colod.transport.testing import (
    CHECKS,
    Relay,
    Subject,
    dial_tcp,
    run_check,
    strangers_over,
    why_not,
)
from colod_paced import Pace, PacedTransport

PROJECT = Path(colod_paced.__file__).parent.parent / "pyproject.toml"


def subject() -> Subject:
    transport = PacedTransport.from_options({"rate_mbit_per_s": "2000"})
    return Subject(
        sender=transport,
        receiver=transport,
        relay=Relay.over_tcp,
        strangers=strangers_over(dial_tcp),
    )


@pytest.mark.parametrize("check", [name for name in CHECKS if not why_not(subject(), name)])
async def test_the_contract_is_kept(check: str) -> None:
    await run_check(subject(), check)


def test_it_is_found_as_an_installed_package_would_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tomllib.loads(PROJECT.read_text())["project"]
    points = project["entry-points"]["colod.transports"]
    installed = tmp_path / "colod_transport_paced-0.1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text(f"Name: {project['name']}\nVersion: 0.1.0\n")
    lines = [f"{name} = {value}" for name, value in points.items()]
    (installed / "entry_points.txt").write_text("\n".join(["[colod.transports]", *lines]))
    monkeypatch.syspath_prepend(tmp_path)
    assert plugins.load("colod.transports", "paced") is PacedTransport


def test_bytes_go_when_their_time_has_come_and_silence_saves_nothing_up() -> None:
    pace = Pace(1000.0)
    assert pace.delay_s(500, now=10.0) == 0.0
    assert pace.delay_s(500, now=10.0) == pytest.approx(0.5)
    assert pace.delay_s(500, now=10.9) == pytest.approx(0.1)
    assert pace.delay_s(500, now=99.0) == 0.0


async def test_a_write_that_waits_for_its_turn_fails_when_its_side_closes() -> None:
    transport = PacedTransport.from_options({"rate_mbit_per_s": "0.1"})
    listener = await transport.listen()
    ours, theirs = await asyncio.gather(
        transport.connect(listener.address, timeout_s=10), listener.accept()
    )
    writing = asyncio.create_task(ours.write(bytes(1 << 20)))
    done, _ = await asyncio.wait([writing], timeout=0.1)
    assert not done
    await ours.close()
    with pytest.raises(PeerUnreachable, match="closed on this side"):
        await writing
    await theirs.close()
    await listener.close()


@pytest.mark.parametrize("rate", ["", "0", "fast", "nan", "-1", "1e9"])
def test_all_problems_of_the_options_are_named_at_once(rate: str) -> None:
    with pytest.raises(ConfigError) as caught:
        PacedTransport.from_options({"rate_mbit_per_s": rate, "port": "x", "lisen": "y"})
    assert len(caught.value.problems) == 3
