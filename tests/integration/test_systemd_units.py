"""The units are what systemd accepts, and keep what restart and shutdown rest on."""

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from colod.config import budget, load_config
from colod.daemon.main import BEGINNING_S, EXIT_TOLD

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "systemd"
PROGRAMS = {"colod", "colodctl"}
PAGE = ROOT / "docs" / "systemd.md"
RATED_BY = 252
"""The systemd whose rating docs/systemd.md states, which is Debian 12's."""
HARDENING = (
    *("NoNewPrivileges", "ProtectSystem", "ProtectHome", "ProtectHostname"),
    *("ProtectControlGroups", "LockPersonality", "RestrictRealtime", "RestrictSUIDSGID"),
    *("RestrictNamespaces", "RestrictAddressFamilies", "SystemCallArchitectures"),
    *("CapabilityBoundingSet", "UMask"),
)


def run(*command: str) -> subprocess.CompletedProcess[str]:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def settings(unit: str, section: str, key: str) -> Sequence[str]:
    """Return all words that `unit` gives `key`."""
    words: list[str] = []
    current = ""
    for line in (UNITS / unit).read_text().splitlines():
        if line.startswith("["):
            current = line.strip("[]")
        name, _, value = line.partition("=")
        if (current, name) == (section, key):
            words += value.split()
    return words


def with_paths(unit: Path) -> str:
    """Return the text of `unit`, its programs by their paths here: systemd has its own."""
    text = unit.read_text()
    for program in PROGRAMS:
        for key in ("ExecStart", "ExecStop"):
            absolute = Path(sys.executable).parent / program
            text = text.replace(f"{key}={program}", f"{key}={absolute}")
    return text


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    for path in (
        path for kind in ("service", "slice", "timer") for path in UNITS.glob(f"*.{kind}")
    ):
        (tmp_path / path.name).write_text(with_paths(path))
    verified = run("systemd-analyze", "verify", "--man=no", *map(str, sorted(tmp_path.iterdir())))
    complaints = [line for line in verified.stderr.splitlines() if "colod" in line]
    assert complaints == []


def stated_exposures() -> dict[str, str]:
    """Return the exposure of each unit, as docs/systemd.md states it."""
    rows = re.findall(
        r"^\| `(colod[^`]*\.service)` \| (\d+\.\d) \|", PAGE.read_text(), flags=re.MULTILINE
    )
    return dict(rows)


def test_the_exposure_of_every_service_is_stated() -> None:
    assert stated_exposures().keys() == {path.name for path in UNITS.glob("*.service")}


@pytest.mark.parametrize(("unit", "stated"), sorted(stated_exposures().items()))
def test_no_service_is_more_exposed_than_is_stated(unit: str, stated: str, tmp_path: Path) -> None:
    if not run("systemd-analyze", "--version").stdout.startswith(f"systemd {RATED_BY} "):
        pytest.skip(f"other versions than systemd {RATED_BY} rate by other rules")
    copy = tmp_path / unit.replace("@.", "@web.")
    copy.write_text(with_paths(UNITS / unit))
    rated = run("systemd-analyze", "security", "--offline=true", "--no-pager", str(copy))
    found = re.search(r"Overall exposure level for \S+: (\d+\.\d)", rated.stdout)
    assert found, (rated.stdout, rated.stderr)
    assert float(found[1]) <= float(stated), f"mend {unit}, or docs/systemd.md and say why"


def test_the_rescue_has_the_daemons_hardening() -> None:
    """It does the same work with the same tools, and is looked at less often."""
    for key in HARDENING:
        words = settings("colod.service", "Service", key)
        assert words, key
        assert settings("colod-rescue.service", "Service", key) == words


def test_systemd_sysusers_accepts_the_group() -> None:
    done = run("systemd-sysusers", "--dry-run", str(UNITS / "sysusers.d" / "colod.conf"))
    assert done.returncode == 0, done.stderr


def test_systemd_tmpfiles_makes_the_directories(tmp_path: Path) -> None:
    source = str(UNITS / "tmpfiles.d" / "colod.conf")
    done = run("systemd-tmpfiles", "--create", "--root", str(tmp_path), source)
    if "Operation not permitted" in done.stderr:
        pytest.skip("only root can give directories to root")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/colod/sessions").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("unit", ["colod.service", "colod-rescue.service"])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("Type", "notify"),
        ("NotifyAccess", "main"),
        ("KillMode", "process"),
        ("OOMPolicy", "continue"),
        ("RuntimeDirectory", "colod"),
        ("RuntimeDirectoryPreserve", "yes"),
        ("StateDirectory", "colod"),
    ],
)
def test_a_restart_of_who_decides_leaves_sessions_and_sockets(
    unit: str, key: str, value: str
) -> None:
    assert settings(unit, "Service", key) == [value]


@pytest.mark.parametrize("unit", ["colod.service", "colod-rescue.service"])
def test_a_watchdogs_least_time_is_reckoned_from_what_the_unit_says(unit: str) -> None:
    (stall,) = settings(unit, "Service", "WatchdogSec")
    (restart,) = settings(unit, "Service", "RestartSec")
    assert float(stall) == budget.STALL_S
    assert float(restart) < budget.COME_BACK_S


def test_the_daemon_starts_between_xen_and_the_guests() -> None:
    xen = {"xenstored.service", "xenconsoled.service", "xen.service"}
    assert xen <= set(settings("colod.service", "Unit", "After"))
    assert xen <= set(settings("colod.service", "Unit", "Wants"))
    assert settings("colod.service", "Unit", "Before") == ["xendomains.service"]


def test_a_daemon_that_cannot_come_back_is_followed_by_the_rescue() -> None:
    assert settings("colod.service", "Unit", "OnFailure") == ["colod-rescue.service"]
    assert settings("colod.service", "Service", "Restart") == ["always"]
    assert settings("colod-rescue.service", "Service", "ExecStart") == ["colod", "rescue"]


def test_starts_that_fail_as_slowly_as_can_be_still_reach_the_limit_that_calls_the_rescue() -> None:
    (burst,) = settings("colod.service", "Unit", "StartLimitBurst")
    (interval_s,) = settings("colod.service", "Unit", "StartLimitIntervalSec")
    keys = ("TimeoutStartSec", "TimeoutStopSec", "RestartSec")
    slowest_s = BEGINNING_S + sum(
        float(word) for key in keys for word in settings("colod.service", "Service", key)
    )
    assert float(burst) * slowest_s < float(interval_s)


def test_the_rescue_is_ended_by_the_daemons_start_and_by_nothing_else() -> None:
    unit = "colod-rescue.service"
    assert settings(unit, "Unit", "Conflicts") == ["colod.service"]
    assert settings(unit, "Service", "TimeoutStartSec") == ["infinity"]
    assert settings(unit, "Service", "Restart") == ["on-failure"]
    assert settings(unit, "Unit", "StartLimitIntervalSec") == ["0"]
    assert settings(unit, "Service", "SuccessExitStatus") == [str(EXIT_TOLD)]
    for key in ("RuntimeMaxSec", "RestartPreventExitStatus"):
        assert settings(unit, "Service", key) == []


def test_stopping_the_daemon_does_not_drain() -> None:
    for key in ("PartOf", "BindsTo", "Requires", "Requisite"):
        assert settings("colod-drain.service", "Unit", key) == []
    assert "colod.service" in settings("colod-drain.service", "Unit", "After")
    assert settings("colod-drain.service", "Service", "ExecStop")[:2] == ["colodctl", "drain"]
    assert settings("colod-drain.service", "Service", "RemainAfterExit") == ["yes"]


def test_drain_has_less_time_than_systemd_gives_it() -> None:
    (timeout,) = settings("colod-drain.service", "Service", "TimeoutStopSec")
    words = settings("colod-drain.service", "Service", "ExecStop")
    assert float(words[words.index("--timeout") + 1]) < float(timeout)


def test_the_example_configuration_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "colod.toml"
    shutil.copy(ROOT / "deploy" / "colod.toml.example", path)
    assert load_config(path).peer.name == "host-b"
