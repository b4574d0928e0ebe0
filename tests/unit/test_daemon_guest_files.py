"""A guest's configuration files: that of its own, and those that xendomains starts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from colod.daemon import guest_files
from colod.daemon.parts import Parts
from colod.errors import ToolstackError
from colod.model import GuestName
from tests.unit.fake_parts import limits_with, parts_with

WEB = GuestName("web")


class Names:
    """Reads a file as xl would: its whole text is the guest's name; "bad" is none."""

    nics: tuple[Mapping[str, Any], ...] = ()

    async def file_config(self, file: Path) -> Mapping[str, Any]:
        if not (name := _text(file)) or name == "bad":
            raise ToolstackError(("xl", "create", str(file)), 1, f"cannot read {file.name}")
        return {"c_info": {"name": name}, "nics": self.nics}


def _text(file: Path) -> str:
    return file.read_text() if file.exists() else ""


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    return parts_with(toolstack=Names(), limits=limits_with(guest_configs=tmp_path))


async def test_a_guest_whose_file_is_there_needs_no_word(parts: Parts, tmp_path: Path) -> None:
    (tmp_path / "web.cfg").write_text("web")
    assert await guest_files.check(parts, WEB) == tmp_path / "web.cfg"
    assert await guest_files.warnings(parts, WEB) == []


@pytest.mark.parametrize(
    ("text", "words"), [(None, "cannot read web.cfg"), ("other", "it is of 'other'")]
)
async def test_one_whose_file_is_of_no_use_is_told_of(
    parts: Parts, tmp_path: Path, text: str | None, words: str
) -> None:
    if text is not None:
        (tmp_path / "web.cfg").write_text(text)
    with pytest.raises(ToolstackError, match=words):
        await guest_files.check(parts, WEB)
    (found,) = await guest_files.warnings(parts, WEB)
    assert "stays down when it reboots" in found
    assert f"{tmp_path}/web.cfg" in found
    assert words in found


@pytest.mark.parametrize(
    ("nics", "is_told"),
    [
        ([{"mac": "00:16:3e:00:00:01"}], False),
        ([{"mac": "00:16:3e:00:00:01"}, {"bridge": "br0"}], True),
        (["what"], True),
    ],
)
async def test_a_guest_that_would_get_another_address_is_told_of(
    parts: Parts, tmp_path: Path, nics: list[Any], *, is_told: bool
) -> None:
    (tmp_path / "web.cfg").write_text("web")
    cast("Any", parts.toolstack).nics = nics
    found = await guest_files.warnings(parts, WEB)
    assert [("mac=" in each) for each in found] == [True] * is_told


async def test_what_xendomains_starts_is_told_of_by_the_name_in_it(
    parts: Parts, tmp_path: Path
) -> None:
    (tmp_path / "web.cfg").write_text("web")
    (tmp_path / "auto").mkdir()
    (tmp_path / "auto" / "10-first").symlink_to(tmp_path / "web.cfg")
    (tmp_path / "auto" / "other").write_text("other")
    (tmp_path / "auto" / "broken").write_text("bad")
    (found,) = await guest_files.warnings(parts, WEB)
    assert "xendomains" in found
    assert f"remove {tmp_path}/auto/10-first" in found
