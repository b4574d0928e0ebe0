"""The commands of colodctl that need no daemon, and what help and completion may not import."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.shell_completion import BashComplete

from colod import errors
from colod.cli import layout
from colod.cli.exits import EXITS, Exit, exit_of
from colod.cli.main import COMMANDS, cli, run
from colod.config import exposed_files, load_config
from tests.json_documents import check_json

Call = Callable[..., tuple[int, str, str]]

CONFIG = """
[host]
name = "host-a"
[peer]
name = "host-b"
address = "192.0.2.2:7411"
[tls]
ca = "{pki}/ca.pem"
certificate = "{pki}/host-a.pem"
key = "{pki}/host-a.key"
[witness]
kind = "manual"
"""


@pytest.fixture
def colodctl(capsys: pytest.CaptureFixture[str]) -> Call:
    def call(*arguments: str) -> tuple[int, str, str]:
        status = run(arguments)
        captured = capsys.readouterr()
        check_json(arguments, captured.out, captured.err)
        return status, captured.out, captured.err

    return call


@pytest.fixture
def config(tmp_path: Path, colodctl: Call) -> Path:
    """A valid configuration with real certificates."""
    pki = tmp_path / "pki"
    assert colodctl("pki", "init", "--directory", str(pki))[0] == 0
    assert colodctl("pki", "issue", "host-a", "--directory", str(pki))[0] == 0
    path = tmp_path / "colod.toml"
    path.write_text(CONFIG.format(pki=pki))
    return path


def test_pki_makes_what_a_host_needs_and_says_where_it_goes(tmp_path: Path, colodctl: Call) -> None:
    directory = str(tmp_path / "pki")
    status, out, _ = colodctl("pki", "init", "--directory", directory)
    assert (status, out.splitlines()[1]) == (0, f"{directory}/ca.key: keep it secret")
    status, out, _ = colodctl("pki", "issue", "host-a", "--directory", directory)
    assert status == 0
    assert "host-a.key as host.key (mode 0600)" in out
    assert sorted(path.name for path in (tmp_path / "pki").iterdir()) == [
        "ca.key",
        "ca.pem",
        "host-a.key",
        "host-a.pem",
    ]


def test_pki_does_not_overwrite_unless_forced(tmp_path: Path, colodctl: Call) -> None:
    words = ("pki", "init", "--directory", str(tmp_path), "--json")
    status, out, _ = colodctl(*words)
    assert (status, json.loads(out)["certificate"]) == (0, f"{tmp_path}/ca.pem")
    status, out, err = colodctl(*words)
    assert (status, out) == (1, "")
    assert json.loads(err)["error"]["code"] == "pki.failed"
    assert colodctl(*words, "--force")[0] == 0


def test_a_valid_configuration_is_said_to_be_so_with_its_time_budget(
    config: Path, colodctl: Call
) -> None:
    status, out, err = colodctl("--config", str(config), "config", "check")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[:2] == [str(config), "valid"]
    assert lines[2].startswith("detection   <=    5.5 s = suspect_after_s 5")


def test_all_problems_are_printed_tls_and_plug_ins_included(config: Path, colodctl: Call) -> None:
    text = config.read_text().replace("host-a.pem", "missing.pem")
    text = text.replace('[witness]\nkind = "manual"', '[witness]\nkind = "oracle"')
    config.write_text(f"{text}\n[fencing]\nkind = 'none'\nwrong = 1\n")
    status, out, err = colodctl("--config", str(config), "config", "check")
    assert status == 7
    starts = [line.partition(": ")[0] for line in out.splitlines()]
    assert starts == ["colod.witnesses", "fencing.wrong", "tls.certificate"]
    assert "problem(s) (config.invalid)" in err


def test_a_group_that_this_host_does_not_have_is_a_problem(config: Path, colodctl: Call) -> None:
    config.write_text(config.read_text() + '[admin]\ngroup = "no-such-group"\n')
    status, out, _ = colodctl("--config", str(config), "config", "check")
    assert status == 7
    assert out == "admin.group: this host has no group 'no-such-group'\n"


def test_a_file_with_options_of_fencing_that_others_may_read_is_warned_of(
    config: Path, colodctl: Call
) -> None:
    words = ("--config", str(config), "config", "check")
    config.chmod(0o644)
    assert "warning" not in colodctl(*words)[2]
    (config.parent / "colod.d").mkdir()
    extra = config.parent / "colod.d" / "20-fencing.toml"
    extra.write_text(
        "[fencing]\nkind = 'agents'\n[[fencing.devices]]\nagent = 'true'\n"
        "options = { ip = '192.0.2.9', password = 'hunter2' }\n"
    )
    for mode, is_warned_of in ((0o644, True), (0o604, True), (0o600, False)):
        extra.chmod(mode)
        exposed = exposed_files(load_config(config))
        assert [each.partition(" ")[0] for each in exposed] == [str(extra)] * is_warned_of
    extra.write_text("[fencing]\nkind = 'none'\n")
    extra.chmod(0o644)
    assert list(exposed_files(load_config(config))) == []


def test_a_warning_does_not_make_a_configuration_invalid(config: Path, colodctl: Call) -> None:
    config.write_text(
        f"{config.read_text()}[fencing]\nkind = 'agents'\n[[fencing.devices]]\n"
        "agent = '/bin/true'\noptions = { ip = '192.0.2.9', password = 'hunter2' }\n"
    )
    config.chmod(0o644)
    status, out, err = colodctl("--config", str(config), "config", "check")
    assert (status, "valid" in out.splitlines()) == (0, True), out
    assert f"warning: {config} has options of fencing" in err
    assert "hunter2" not in err


def test_a_transport_that_proves_the_hosts_is_checked_with_its_options(
    config: Path, colodctl: Call
) -> None:
    text = config.read_text()
    config.write_text(f"{text}\n[transport]\nkind = 'tls'\nlisten = '192.0.2.1'\n")
    assert colodctl("--config", str(config), "config", "check")[0] == 0
    config.write_text(f"{text}\n[transport]\nkind = 'tls'\nport = 'x'\nca = '/x'\n")
    status, out, _ = colodctl("--config", str(config), "config", "check")
    assert status == 7
    assert [line.partition(": ")[0] for line in out.splitlines()] == [
        "transport.ca",
        "transport.port",
    ]


def test_problems_of_the_schema_are_printed_line_by_line(tmp_path: Path, colodctl: Call) -> None:
    path = tmp_path / "c.toml"
    path.write_text("[log]\nlevel = 'loud'\n")
    status, out, _ = colodctl("--config", str(path), "config", "check")
    assert status == 7
    assert [line.split(":")[0] for line in out.splitlines()] == ["peer", "witness", "log.level"]


def test_show_names_every_value_and_where_it_came_from(config: Path, colodctl: Call) -> None:
    (config.parent / "colod.d").mkdir()
    extra = config.parent / "colod.d" / "10-log.toml"
    extra.write_text("[log]\nlevel = 'debug'\n")
    status, out, _ = colodctl("--config", str(config), "config", "show")
    assert status == 0
    assert f'log.level = "debug"  # {extra}' in out.splitlines()
    assert 'log.format = "json"  # default' in out.splitlines()
    assert f'host.name = "host-a"  # {config}' in out.splitlines()


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_show_hides_secrets(config: Path, colodctl: Call, words: tuple[str, ...]) -> None:
    (config.parent / "colod.d").mkdir()
    (config.parent / "colod.d" / "20-fencing.toml").write_text("[fencing]\npassword = 'hunter2'\n")
    status, out, err = colodctl("--config", str(config), "config", "show", *words)
    assert status == 0
    assert "fencing.password" in out
    assert "hunter2" not in out + err


def test_show_hides_secrets_of_devices(config: Path, colodctl: Call) -> None:
    (config.parent / "colod.d").mkdir()
    (config.parent / "colod.d" / "20-fencing.toml").write_text(
        "[fencing]\nkind = 'agents'\n[[fencing.devices]]\nagent = 'fence_ipmilan'\n"
        "options = { ip = '192.0.2.9', password = 'hunter2' }\n"
    )
    status, out, err = colodctl("--config", str(config), "config", "show")
    assert status == 0
    assert "192.0.2.9" in out
    assert "hunter2" not in out + err


def test_the_socket_is_the_one_of_the_configuration(
    config: Path, tmp_path: Path, colodctl: Call
) -> None:
    config.write_text(
        config.read_text().replace("[peer]", f'runtime_directory = "{tmp_path}/run"\n[peer]')
    )
    status, _, err = colodctl("--config", str(config), "status")
    assert status == 3
    assert f"{tmp_path}/run/admin.sock" in err


def test_the_reference_in_docs_is_the_one_of_the_schema(colodctl: Call) -> None:
    status, out, _ = colodctl("config", "reference")
    page = Path(__file__).parents[2] / "docs" / "configuration.md"
    assert status == 0
    assert page.read_text() == out, "run: colodctl config reference > docs/configuration.md"


def test_the_reference_is_the_same_on_every_host(colodctl: Call) -> None:
    assert sys.prefix not in colodctl("config", "reference")[1]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_name_the_tool(colodctl: Call, shell: str) -> None:
    status, out, _ = colodctl("completion", shell)
    assert status == 0
    assert "_COLODCTL_COMPLETE" in out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(colodctl: Call, name: str) -> None:
    status, out, _ = colodctl(name, "--help")
    assert status == 0
    assert out.startswith(f"Usage: colodctl {name}")


@pytest.mark.parametrize("seconds", ["nan", "inf", "0", "-1"])
def test_a_time_limit_that_never_comes_is_wrong_usage(colodctl: Call, seconds: str) -> None:
    status, _, err = colodctl("drill", "secondary", "web", "--yes", "--timeout", seconds)
    assert (status, "--timeout" in err) == (2, True)


def test_a_command_that_is_misspelt_is_guessed(colodctl: Call) -> None:
    status, _, err = colodctl("statsu")
    assert status == 2
    assert "No such command 'statsu'. Did you mean 'status'? (usage)\n" in err
    assert "Did you mean" not in colodctl("xyz")[2]


def test_a_key_that_cannot_be_looked_at_is_a_problem_like_any_other(
    config: Path, colodctl: Call
) -> None:
    """As where this user may not look into the directory of the key, too."""
    name = "x" * 300
    config.write_text(config.read_text().replace("host-a.key", name))
    status, out, err = colodctl("--config", str(config), "config", "check")
    assert status == 7
    assert "(config.invalid)" in err
    assert f"tls.key: {config.parent}/pki/{name}: File name too long" in out


def test_what_the_machine_refuses_is_an_error_and_no_traceback() -> None:
    program = Path(sys.executable).parent / "colodctl"
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [program, "completion", "bash"], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 1
    assert done.stderr == b"colodctl: No space left on device (system.refused)\n"


def test_a_configuration_that_cannot_be_read_is_invalid_and_no_wrong_usage(
    tmp_path: Path, colodctl: Call
) -> None:
    status, out, _ = colodctl("--config", str(tmp_path), "config", "check")
    assert (status, out) == (7, f"{tmp_path}: Is a directory\n")


def test_no_command_at_all_shows_help_as_wrong_usage(colodctl: Call) -> None:
    status, out, err = colodctl()
    assert (status, out) == (2, "")
    assert "protect" in err


def imported_by(code: str, **environment: str) -> tuple[str, set[str]]:
    """Run `code` in an interpreter of its own; return its output and the heavy modules it has."""
    heavy = "{'grpc', 'google.protobuf', 'pydantic', 'rich', 'cryptography', 'asyncio'}"
    script = f"import sys\n{code}\nprint('HEAVY', *sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=os.environ | environment,
    )
    output, _, names = done.stdout.rpartition("HEAVY")
    return output, set(names.split())


@pytest.mark.parametrize("words", [["--help"], ["protect", "--help"], ["status", "--help"]])
def test_help_does_not_wait_for_heavy_imports(words: list[str]) -> None:
    output, heavy = imported_by(f"from colod.cli.main import run\nrun({words!r})")
    assert "Usage: colodctl" in output
    assert heavy == set()


def test_completion_of_commands_does_not_wait_for_heavy_imports() -> None:
    output, heavy = imported_by(
        "from click.shell_completion import BashComplete\n"
        "from colod.cli.main import cli\n"
        "print(BashComplete(cli, {}, 'colodctl', '_COLODCTL_COMPLETE').complete())",
        COMP_WORDS="colodctl st",
        COMP_CWORD="1",
    )
    assert output.split() == ["plain,status", "plain,stream"]
    assert heavy == set()


def test_completion_of_guests_without_a_daemon_is_empty_and_no_error(tmp_path: Path) -> None:
    from colod.cli.daemon import GUEST

    context = click.Context(cli, obj={"socket": str(tmp_path / "none"), "config": None})
    assert GUEST.shell_complete(context, click.Argument(["guest"]), "w") == []


def test_a_completion_runs_nothing_that_would_note_the_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLOD_SOCKET", str(tmp_path / "none"))
    complete = BashComplete(cli, {}, "colodctl", "_COLODCTL_COMPLETE")
    assert complete.get_completions(["status"], "w") == []


def test_grpc_learns_its_switches_before_it_is_imported() -> None:
    output, _ = imported_by(
        "import os\nimport colod.rpc.admin_client\nprint(os.environ['GRPC_ENABLE_FORK_SUPPORT'])"
    )
    assert output.strip() == "0"


def test_every_exit_status_of_the_table_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    for status in Exit:
        assert f"| {status.value} |" in page, status


@pytest.mark.parametrize("error", EXITS)
def test_no_error_ends_with_success(error: type[errors.ColodError]) -> None:
    assert exit_of(error.__new__(error)) not in (Exit.OK, Exit.USAGE)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0004, "0 ms"), (0.25, "250 ms"), (1.04, "1.0 s"), (600, "10 min"), (90000, "25 h")],
)
def test_durations_have_a_unit_that_suits_them(value: float, text: str) -> None:
    assert layout.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (1 << 42, "4.0 TiB")]
)
def test_sizes_have_a_unit_that_suits_them(value: int, text: str) -> None:
    assert layout.size(value) == text
