"""The configuration: files laid over each other, problems, origins, budgets."""

from pathlib import Path

import pytest

from colod.config import Config, flatten, load_config, split_address
from colod.errors import ConfigError

MINIMAL = """
[host]
name = "host-a"
[peer]
name = "host-b"
address = "192.0.2.2:7411"
[witness]
kind = "manual"
"""


@pytest.fixture
def main_file(tmp_path: Path) -> Path:
    path = tmp_path / "colod.toml"
    path.write_text(MINIMAL)
    (tmp_path / "colod.d").mkdir()
    return path


def add(main_file: Path, name: str, text: str) -> Path:
    path = main_file.with_suffix(".d") / name
    path.write_text(text)
    return path


def problems(main_file: Path) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load_config(main_file)
    return caught.value.problems


def test_peer_and_witness_are_all_that_must_be_said(tmp_path: Path) -> None:
    path = tmp_path / "colod.toml"
    path.write_text("")
    assert problems(path) == (
        "peer: is missing and has no default",
        "witness: is missing and has no default",
    )


def test_defaults_are_those_of_a_packaged_host(main_file: Path) -> None:
    config = load_config(main_file)
    assert config.admin_socket == Path("/run/colod/admin.sock")
    assert config.host.state_directory == Path("/var/lib/colod")
    assert config.toolstack.xl == ["xl"]
    assert config.session.command[0].endswith("/colod-session")
    assert (config.transport.kind, config.fencing.kind) == ("tcp", "none")


def test_a_later_file_replaces_an_earlier_one_key_by_key(main_file: Path) -> None:
    add(main_file, "10-first.toml", "[detection]\nsuspect_after_s = 9\nsession_silence_s = 4\n")
    last = add(main_file, "20-last.toml", "[detection]\nsuspect_after_s = 8\n")
    config = load_config(main_file)
    assert config.detection.suspect_after_s == 8
    assert config.detection.session_silence_s == 4
    assert config.origin("detection.suspect_after_s") == str(last)
    assert config.origin("detection.session_silence_s").endswith("10-first.toml")
    assert config.origin("detection.beat_interval_s") == "default"
    assert config.origin("host.name") == str(main_file)


def test_all_problems_of_all_files_are_named_at_once_with_path_and_file(main_file: Path) -> None:
    one = add(main_file, "1.toml", "[host]\nnmae = 'x'\n[peer]\naddress = 'nowhere'\n")
    two = add(main_file, "2.toml", "[detection]\nbeat_interval_s = '1'\n[log]\nlevel = 'loud'\n")
    found = problems(main_file)
    assert [problem.partition(":")[0] for problem in found] == [
        "host.nmae",
        "peer.address",
        "detection.beat_interval_s",
        "log.level",
    ]
    assert all(problem.endswith(f"({one})") for problem in found[:2])
    assert all(problem.endswith(f"({two})") for problem in found[2:])


def test_a_file_that_is_not_toml_is_named_together_with_the_other_problems(main_file: Path) -> None:
    add(main_file, "1.toml", "[host\n")
    add(main_file, "2.toml", "[log]\nlevel = 1\n")
    found = problems(main_file)
    assert len(found) == 2
    assert "1.toml: " in found[0]
    assert found[1].startswith("log.level: ")


def test_a_missing_file_does_not_complain_about_each_key_it_would_have_had(tmp_path: Path) -> None:
    path = tmp_path / "none.toml"
    assert problems(path) == (f"{path}: No such file or directory",)


def test_keys_beside_kind_are_the_options_of_the_plug_in(main_file: Path) -> None:
    add(
        main_file,
        "1.toml",
        "[transport]\nport = 7412\nnodelay = true\n[witness]\nkind = 'etcd'\n"
        "endpoints = ['192.0.2.3:2379']\n",
    )
    config = load_config(main_file)
    assert config.transport.options == {"port": "7412", "nodelay": "true"}
    assert config.witness.options == {"endpoints": ["192.0.2.3:2379"]}
    assert ("transport.port", "7412") in {
        (path, value) for path, value, _ in flatten(config) if isinstance(value, str)
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ping_interval_s = 1.5", "3 x ping_interval_s 1.5 is more than session_silence_s 3"),
        ("beat_interval_s = 2", "3 x beat_interval_s 2 is more than suspect_after_s 5"),
        ("session_silence_s = 6", "session_silence_s 6 is more than suspect_after_s 5"),
        ("carrier_grace_s = 6", "carrier_grace_s 6 is more than suspect_after_s 5"),
        ("carrier_grace_s = 4.2", "carrier_grace_s 4.2 is less than 4.3 (1.1 x session_silence_s"),
        (
            "carrier_grace_s = 4.4\nbeat_interval_s = 1.5",
            "3 x beat_interval_s 1.5 is more than carrier_grace_s 4.4",
        ),
    ],
)
def test_times_that_contradict_each_other_are_refused(
    main_file: Path, text: str, words: str
) -> None:
    add(main_file, "1.toml", f"[detection]\n{text}\n")
    (problem,) = problems(main_file)
    assert problem.startswith("detection: ")
    assert words in problem


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("every_s = 60.0", "every_s needs keep = true"),
        ("keep = true\nevery_s = 9.9", "every_s 9.9 is less than 10, and not 0"),
        ("keep = true\nevery_s = 60.0\nkeep_images = 0", "checkpoints.keep_images: "),
        ("keep = true\nevery_s = 60.0\nscheduled_mib = 0", "checkpoints.scheduled_mib: "),
    ],
)
def test_a_schedule_of_images_that_makes_no_sense_is_refused(
    main_file: Path, text: str, words: str
) -> None:
    add(main_file, "1.toml", f"[checkpoints]\n{text}\n")
    assert words in problems(main_file)[0]


@pytest.mark.parametrize("limit", [0.0, 300.1, float("nan"), float("inf")])
def test_a_quantity_outside_of_its_range_is_refused(main_file: Path, limit: float) -> None:
    add(main_file, "1.toml", f"[detection]\nsuspect_after_s = {limit}\n")
    assert problems(main_file)[0].startswith("detection.suspect_after_s: ")


def test_a_host_is_not_its_own_peer(main_file: Path) -> None:
    add(main_file, "1.toml", "[peer]\nname = 'host-a'\n")
    assert "are both 'host-a'" in problems(main_file)[0]


def test_a_runtime_directory_too_deep_for_a_socket_is_refused(main_file: Path) -> None:
    add(main_file, "1.toml", f"[host]\nruntime_directory = '/{'d' * 96}'\n")
    (problem,) = problems(main_file)
    assert "has 108 bytes, the kernel takes 107" in problem


def test_the_time_budget_shows_its_arithmetic_and_its_sum_is_right(main_file: Path) -> None:
    add(main_file, "1.toml", "[witness]\ntimeout_s = 1.5\n[toolstack]\ncommand_timeout_s = 20\n")
    *lines, last = load_config(main_file).time_budget()
    bounds = [float(line.split("<=")[1].split(" s ")[0]) for line in lines]
    assert bounds == [5.5, 4.8, 3.0, 60.0, 68.5, 6.0]
    assert "suspect_after_s 5 + beat_interval_s 0.5" in lines[0]
    assert "carrier_grace_s 4.3 + beat_interval_s 0.5" in lines[1]
    assert "all of 2 signals are silent: heartbeats every 0.5 s over 1 network" in last


def test_a_session_s_word_that_comes_late_is_warned_of_and_refused_by_nobody(
    main_file: Path,
) -> None:
    text = "suspect_after_s = 1\nsession_silence_s = 0.9\nbeat_interval_s = 0.3\n"
    add(main_file, "1.toml", f"[detection]\n{text}ping_interval_s = 0.3\n")
    lines = load_config(main_file).time_budget()
    assert "warning: suspect_after_s 1 is less than 1.3 (1 + ping_interval_s)" in lines[-1]


@pytest.mark.parametrize(
    ("text", "grace_s"),
    [
        ("", 4.3),
        ("session_silence_s = 4", 5.0),
        ("beat_interval_s = 1.5", 4.5),
        ("carrier_grace_s = 5", 5.0),
    ],
)
def test_a_link_may_be_gone_for_as_long_as_a_primary_needs_to_hold_its_guest(
    main_file: Path, text: str, grace_s: float
) -> None:
    """A configuration from before there was that key stays valid."""
    add(main_file, "1.toml", f"[detection]\n{text}\n")
    assert load_config(main_file).detection.carrier_grace == pytest.approx(grace_s)


def test_further_networks_are_signals_of_their_own(main_file: Path) -> None:
    add(main_file, "1.toml", "[peer]\nmore_addresses = ['198.51.100.2:7411', '[2001:db8::2]:1']\n")
    assert "all of 4 signals" in load_config(main_file).time_budget()[-1]
    assert "over 3 networks" in load_config(main_file).time_budget()[-1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("address = 'h:1'\nmore_addresses = ['h:1']", "more_addresses: h:1 is named twice"),
        ("more_listen = ['192.0.2.1:1', '192.0.2.1:1']", "192.0.2.1:1 is named twice"),
        ("more_listen = ['192.0.2.1:7411']", "listen 0.0.0.0:7411 hears that already"),
        ("more_addresses = ['a:1', 'b:1', 'c:1', 'd:1']", "at most 3 items"),
        ("more_addresses = ['a']", "want host:port"),
    ],
)
def test_networks_that_are_none_are_refused(main_file: Path, text: str, words: str) -> None:
    add(main_file, "1.toml", f"[peer]\n{text}\n")
    assert words in problems(main_file)[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("timeout_s = 90", "self_fence.timeout_s 90 is less than 91"),
        ("timeout_s = 59\n[toolstack]\ncommand_timeout_s = 5", "59 is less than 60"),
        ("device = 'watchdog'", "want an absolute path"),
    ],
)
def test_a_watchdog_leaves_a_daemon_time_to_come_back_and_to_pause_the_guest(
    main_file: Path, text: str, words: str
) -> None:
    add(main_file, "1.toml", f"[self_fence]\nkind = 'watchdog'\n{text}\n")
    (problem,) = problems(main_file)
    assert words in problem


def test_a_watchdogs_times_are_shown_beside_the_takeover_that_they_do_not_delay(
    main_file: Path,
) -> None:
    add(main_file, "1.toml", "[self_fence]\nkind = 'watchdog'\nmode = 'required'\n")
    config = load_config(main_file)
    assert config.self_fence.is_required
    fence, restart = config.time_budget()[-2:]
    assert "126.0 s = suspect_after_s 5 + 1 + self_fence.timeout_s 120" in fence
    assert "after 11.5 s, so this is a second line, no proof" in fence
    assert "at least 91" in restart


def test_a_pipe_that_resets_nothing_needs_no_such_time(main_file: Path) -> None:
    add(main_file, "1.toml", "[self_fence]\nkind = 'simulated'\ntimeout_s = 2\n")
    assert load_config(main_file).self_fence.timeout_s == 2


def test_no_value_can_be_changed_after_loading(main_file: Path) -> None:
    config = load_config(main_file)
    with pytest.raises(ValueError, match="frozen"):
        config.log.level = "debug"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("h:1", ("h", 1)), ("[::1]:65535", ("::1", 65535)), ("0.0.0.0:0", ("0.0.0.0", 0))],
)
def test_an_address_is_host_and_port(text: str, expected: tuple[str, int]) -> None:
    assert split_address(text) == expected


@pytest.mark.parametrize("text", ["", "h", ":1", "h:", "h:65536", "h:x", "h:-1", "h:²"])
def test_half_an_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="want host:port"):
        split_address(text)


def test_every_field_says_what_it_is_for_and_every_quantity_has_its_ends() -> None:
    for name, table in Config.model_fields.items():
        schema = table.annotation
        assert schema is not None
        for key, field in schema.model_fields.items():
            assert field.description, f"{name}.{key}"
            if field.annotation in (int, float):
                ends = {type(constraint).__name__ for constraint in field.metadata}
                assert {"Ge", "Le"} <= ends, f"{name}.{key}"
                assert "Smaller: " in field.description, f"{name}.{key}"
                assert "Larger: " in field.description, f"{name}.{key}"
                assert key.endswith(("_s", "_mib", "_mbit", "_images")), f"{name}.{key}"


def test_the_link_s_mark_goes_to_the_transport_and_its_rate_does_not(main_file: Path) -> None:
    add(main_file, "1.toml", "[transport]\ndscp = 'af21'\nrate_limit_mbit = 800\nport = 7412\n")
    transport = load_config(main_file).transport
    assert transport.path_options == {"port": "7412", "dscp": "af21"}
    assert transport.options == {"port": "7412"}
    assert transport.rate_bytes_per_s == 100_000_000


def test_without_those_settings_the_transport_is_told_what_it_was_before(main_file: Path) -> None:
    add(main_file, "1.toml", "[transport]\nport = 7412\n")
    transport = load_config(main_file).transport
    assert (transport.path_options, transport.rate_bytes_per_s) == ({"port": "7412"}, 0)


@pytest.mark.parametrize("value", ["0.5", "-1", "'fast'", "2e6"])
def test_a_rate_that_is_none_is_refused(main_file: Path, value: str) -> None:
    add(main_file, "1.toml", f"[transport]\nrate_limit_mbit = {value}\n")
    assert "transport" in problems(main_file)[0]


BACKUP = "[transport]\nlisten = '192.0.2.1'\n[transport.backup]\nlisten = '198.51.100.1'\n"


def test_a_second_path_has_options_of_its_own_and_has_links_mended(main_file: Path) -> None:
    add(main_file, "1.toml", BACKUP + "port = 7420\n")
    config = load_config(main_file)
    assert config.transport.options == {"listen": "192.0.2.1"}
    assert config.transport.backup_options == {"listen": "198.51.100.1", "port": "7420"}
    assert len(config.transport.paths) == 2
    assert config.resume_bytes == 16 << 20


def test_without_one_no_link_is_mended_unless_that_is_said(main_file: Path) -> None:
    config = load_config(main_file)
    assert (config.transport.backup_options, config.resume_bytes) == (None, 0)
    add(main_file, "1.toml", "[session]\nresume_mib = 4\n")
    assert load_config(main_file).resume_bytes == 4 << 20


def test_the_mark_is_of_both_paths_unless_one_has_its_own(main_file: Path) -> None:
    add(main_file, "1.toml", BACKUP.replace("[transport]\n", "[transport]\ndscp = 'ef'\n"))
    assert [path["dscp"] for path in load_config(main_file).transport.paths] == ["ef", "ef"]
    add(main_file, "2.toml", "[transport.backup]\ndscp = 'cs1'\n")
    assert [path["dscp"] for path in load_config(main_file).transport.paths] == ["ef", "cs1"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[session]\nresume_mib = 1\n", "session.resume_mib: want 0 or at least 2"),
        (BACKUP + "[session]\nresume_mib = 0\n", "transport.backup: of no use while"),
        ("[transport]\nport = 1\n[transport.backup]\nport = 1\n", "is the same path as the first"),
        ("[session]\nresume_mib = 5000\n", "session.resume_mib: "),
        ("[transport]\nbackup = 'eth1'\n", "transport.backup: "),
    ],
)
def test_paths_that_would_not_help_are_refused(main_file: Path, text: str, words: str) -> None:
    add(main_file, "1.toml", text)
    assert words in "\n".join(problems(main_file))
