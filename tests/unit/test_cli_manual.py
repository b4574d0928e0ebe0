"""The manual: a page for each command, as roff takes it, and the reference in docs/."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from colod.cli import manual
from colod.cli.exits import Exit
from colod.cli.main import COMMANDS
from colod.daemon.main import EXIT_CONFIG, EXIT_HELD, EXIT_TOLD

ROOT = Path(__file__).parents[2]
WRITTEN = sorted((ROOT / "docs" / "man").glob("*.8"))
PAGES = {manual.page_name(context): context for context in manual.pages()}


def page(name: str) -> str:
    """Return the man page of a command."""
    return manual.man_page(PAGES[name], "2030-01-31")


def plain(text: str) -> str:
    """Return what a page says, without the marks of roff."""
    return re.sub(r"\\f[BIR]|\\&", "", text).replace(r"\-", "-").replace(r"\e", "\\")


def test_the_reference_in_docs_is_the_one_of_the_commands() -> None:
    kept = (ROOT / "docs" / "cli-reference.md").read_text()
    again = "run: python -m colod.cli.manual > docs/cli-reference.md"
    assert kept == manual.reference(), again


def test_each_command_has_a_page(tmp_path: Path) -> None:
    done = CliRunner().invoke(manual.write, [str(tmp_path / "man")])
    assert done.exit_code == 0, done.output
    written = {path.name for path in (tmp_path / "man").iterdir()}
    assert written == {f"{name}.1" for name in PAGES}
    assert {"colodctl.1", "colodctl-drill-isolated.1"} <= written
    assert {f"colodctl-{name}.1" for name in COMMANDS} <= written


@pytest.mark.parametrize("name", PAGES)
def test_a_page_names_every_option_and_argument(name: str) -> None:
    said = plain(page(name))
    for each in PAGES[name].command.params:
        for spelling in (*each.opts, *each.secondary_opts):
            is_option = isinstance(each, click.Option)
            assert (spelling if is_option else spelling.upper()) in said


@pytest.mark.parametrize("name", PAGES)
def test_what_a_page_refers_to_is_there(name: str) -> None:
    for other in re.findall(r"(colodctl[a-z-]*)\(1\)", plain(page(name))):
        assert other in PAGES


def test_a_page_tells_what_exit_statuses_mean() -> None:
    assert all(f".TP\n\\fB{each.value}\\fR\n" in page("colodctl") for each in Exit)
    assert Exit.REFUSED.meaning in plain(page("colodctl-protect"))
    inspect = plain(page("colodctl-stream-inspect"))
    assert "\n3\ntruncated.\n" in inspect
    assert Exit.UNREACHABLE.meaning not in inspect


def test_roff_prints_text_as_it_is_and_code_in_bold() -> None:
    command = click.Command("odd", help=".TH is no request; \\n is no newline; see `xl save`.")
    lines = manual.man_page(click.Context(command, info_name="odd"), "2030-01-31").splitlines()
    assert r"\&.TH is no request; \en is no newline; see \fBxl save\fR." in lines


def test_the_date_of_a_reproducible_build_is_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    CliRunner().invoke(manual.write, [str(tmp_path)], catch_exceptions=False)
    assert (tmp_path / "colodctl.1").read_text().startswith(".TH COLODCTL 1 2023-11-14 ")


@pytest.mark.skipif(not shutil.which("groff"), reason="needs groff (Debian: groff-base)")
def test_groff_has_nothing_to_say_against_the_pages() -> None:
    pages = "".join([*map(page, PAGES), *(path.read_text() for path in WRITTEN)])
    argv = ["groff", "-man", "-Tutf8", "-wall", "-z"]
    done = subprocess.run(argv, input=pages, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.stem)
def test_a_page_written_by_hand_names_every_option(path: Path) -> None:
    module = {"colod": "colod.daemon.main", "colod-session": "colod.session.main"}[path.stem]
    code = f"from {module} import main; main(['--help'])"
    argv = [sys.executable, "-c", code]
    usage = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    for option in set(re.findall(r"--[a-z]+", usage)):
        assert option in plain(path.read_text())


@pytest.mark.parametrize("status", [EXIT_HELD, EXIT_CONFIG, EXIT_TOLD])
def test_the_daemons_page_names_its_exit_status(status: int) -> None:
    assert f"\n{status}\n" in plain((ROOT / "docs" / "man" / "colod.8").read_text())
