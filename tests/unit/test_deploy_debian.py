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


def test_an_upgrade_does_not_stop_what_gives_pairings_up() -> None:
    rules = (DEBIAN / "rules").read_text().replace("\\\n", " ")
    lines = [line for line in rules.splitlines() if line.startswith("\tdh_installsystemd")]
    (drain,) = [line for line in lines if "colod-drain.service" in line]
    assert "--no-restart-after-upgrade" in drain
    assert "--no-stop-on-upgrade" in drain
    assert not [line for line in lines if "slice" in line or "rescue" in line]
    assert [line.split()[-1] for line in lines] == ["colod.service", "colod-drain.service"], (
        "without names debhelper would take all units, the slice with its sessions too"
    )
