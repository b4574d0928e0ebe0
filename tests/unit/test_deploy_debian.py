"""The Debian package agrees with pyproject.toml and systemd/; it is built in tests/packaging."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
DEBIAN = ROOT / "deploy" / "debian"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def pins(name: str) -> dict[str, str]:
    """Return the version that is pinned for each package."""
    found = re.findall(
        r"^(\S+)==(\S+) --hash=sha256:[0-9a-f]{64}$", (DEBIAN / name).read_text(), re.M
    )
    return {package.lower().replace("_", "-"): version for package, version in found}


def unmet(wanted: list[str], pinned: dict[str, str]) -> list[str]:
    """Return the requirements that the pins do not meet."""
    needed = [Requirement(each) for each in wanted]
    return [
        str(each)
        for each in needed
        if not each.specifier.contains(pinned.get(each.name.lower(), "0"))
    ]


def test_every_dependency_is_pinned_to_a_version_that_is_allowed() -> None:
    assert unmet(PROJECT["project"]["dependencies"], pins("requirements.txt")) == []
    assert unmet(PROJECT["build-system"]["requires"], pins("requirements-build.txt")) == []


def test_every_line_of_the_pins_has_a_digest() -> None:
    for name in ("requirements.txt", "requirements-build.txt"):
        lines = (DEBIAN / name).read_text().splitlines()
        assert len(pins(name)) == len([line for line in lines if not line.startswith("#")])


def test_the_newest_entry_of_the_changelog_is_this_version() -> None:
    first = (DEBIAN / "changelog").read_text().splitlines()[0]
    assert first.startswith(f"colod ({PROJECT['project']['version']})")


def test_debhelper_stops_nothing_and_scripts_restart_the_daemon_alone() -> None:
    rules = (DEBIAN / "rules").read_text()
    (call,) = re.findall(r"^\tdh_installsystemd (.*)$", rules, re.M)
    assert call.split() == ["--no-enable", "--no-start", "--no-stop-on-upgrade", "colod.service"]
    postinst = (DEBIAN / "colod.postinst").read_text()
    assert re.findall(r"deb-systemd-invoke (.*?) >", postinst) == ["restart colod.service"]
    for script in ("colod.preinst", "colod.postrm"):
        assert "deb-systemd-invoke" not in (DEBIAN / script).read_text()


def removed(root: Path) -> subprocess.CompletedProcess[str]:
    """Run what dpkg runs before a removal, on a host that is no more than `root`."""
    stubs = root / "stubs"
    stubs.mkdir(exist_ok=True)
    says = f'''echo "$* ${{COLOD_HOST-nowhere}} ${{COLOD_CONFIG-default}}" >>{root}/calls
case "$*" in
"config show") echo 'host.state_directory = "{root}/lib"  # default'
               echo 'host.runtime_directory = "{root}/run"  # default' ;;
esac
'''
    for name, text in (("colodctl", says), ("systemctl", ""), ("deb-systemd-invoke", "")):
        (stubs / name).write_text(f"#!/bin/sh\n{text}")
        (stubs / name).chmod(0o755)
    script = (DEBIAN / "colod.prerm").read_text().replace("/run/colod/", f"{root}/run/")
    environment = {
        **os.environ,
        "PATH": f"{stubs}:{os.environ['PATH']}",
        "COLOD_HOST": "192.0.2.1:7413",
        "COLOD_CONFIG": "/elsewhere",
    }
    return subprocess.run(
        ["sh", "-c", script, "prerm", "remove"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_removal_that_is_insisted_on_is_insisted_on_once(tmp_path: Path) -> None:
    (tmp_path / "lib/protections").mkdir(parents=True)
    (tmp_path / "lib/protections/g1.journal").touch()
    (tmp_path / "run").mkdir()
    refused = removed(tmp_path)
    assert (refused.returncode, "protection g1" in refused.stderr) == (1, True)
    anyway = tmp_path / "run/remove-anyway"
    anyway.touch()
    assert removed(tmp_path).returncode == 0
    assert not anyway.exists()
    assert removed(tmp_path).returncode == 1


def test_a_removal_is_about_this_host_whatever_the_environment_names(tmp_path: Path) -> None:
    (tmp_path / "lib/protections").mkdir(parents=True)
    (tmp_path / "lib/protections/g1.journal").touch()
    (tmp_path / "run").mkdir()
    (tmp_path / "run/remove-anyway").touch()
    assert removed(tmp_path).returncode == 0
    calls = (tmp_path / "calls").read_text().splitlines()
    assert "drain --timeout 100 nowhere default" in calls
    assert all(each.endswith(" nowhere default") for each in calls)
    postinst = (DEBIAN / "colod.postinst").read_text()
    unset, check = postinst.index("unset COLOD_HOST"), postinst.index("colodctl config check")
    assert unset < check
