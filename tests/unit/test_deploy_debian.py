"""The Debian package agrees with pyproject.toml and systemd/; it is built in tests/packaging."""

import re
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
