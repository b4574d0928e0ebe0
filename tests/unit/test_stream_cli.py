"""`colodctl stream inspect`: what it prints and how it exits."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from colod.cli.stream import stream, summarise
from colod.stream.inspect import Ending
from colod.stream.libxc import DomainType
from tests.json_documents import check_json
from tests.unit.stream_samples import Sample, remus_stream, save_image


def inspect(*arguments: str, data: bytes = b"") -> Result:
    """Run the command with `data` on standard input."""
    return CliRunner().invoke(stream, ["inspect", *arguments], input=data)


def write(directory: Path, data: bytes) -> str:
    """Write a file and return its name."""
    path = directory / "image"
    path.write_bytes(data)
    return str(path)


def test_a_complete_image_exits_with_zero(tmp_path: Path) -> None:
    result = inspect(write(tmp_path, save_image().data))
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["domain", "g1"]
    assert "type      PV" in lines
    assert "xen       4.17" in lines
    assert "ended     complete" in lines


def test_a_truncated_stream_exits_with_three_and_names_the_record(tmp_path: Path) -> None:
    sample = remus_stream(2).pages()
    result = inspect(write(tmp_path, sample.data[:-5]))
    assert result.exit_code == 3
    assert f"truncated_at {sample.records[-1].offset}" in result.stdout
    assert "2 whole" in result.stdout
    assert "not sealed" in result.stdout


@pytest.mark.parametrize("data", [b"#!/bin/sh\n" * 9, save_image().data + b"more"])
def test_what_is_no_stream_exits_with_four(tmp_path: Path, data: bytes) -> None:
    result = inspect(write(tmp_path, data))
    assert result.exit_code == 4
    assert "invalid:" in result.stdout
    told = inspect("--json", write(tmp_path, data)).stdout
    check_json(["stream", "inspect", "--json"], told, "")
    assert json.loads(told)["error"]["offset"] >= 0


def test_json_is_one_object(tmp_path: Path) -> None:
    sample = remus_stream(3, domain=DomainType.X86_HVM)
    result = inspect("--json", write(tmp_path, sample.data))
    assert result.exit_code == 3
    check_json(["stream", "inspect", "--json"], result.stdout, "")
    parsed = json.loads(result.stdout)
    assert (parsed["whole_epochs"], parsed["ending"]) == (3, "truncated")
    assert parsed["truncated_at"] == parsed["bytes"] == sample.size


def test_standard_input_is_read(tmp_path: Path) -> None:
    result = inspect("-", "--json", data=save_image().data)
    assert result.exit_code == 0
    assert json.loads(result.stdout)["ending"] == "complete"


def test_records_are_listed_one_a_line(tmp_path: Path) -> None:
    sample = save_image()
    lines = inspect("--records", write(tmp_path, sample.data)).stdout.splitlines()
    listed = [line.split() for line in lines[: len(sample.records)]]
    assert [(int(at), layer, int(length)) for at, layer, _, length in listed] == [
        (record.offset, record.layer.value, record.length) for record in sample.records
    ]
    assert listed[0][2] == "LIBXC_CONTEXT"


def test_json_and_a_list_of_records_exclude_each_other(tmp_path: Path) -> None:
    assert inspect("--json", "--records", write(tmp_path, b"")).exit_code == 2


def test_many_epochs_are_shortened_unless_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path, remus_stream(50).data)
    assert "10 epochs are not shown" in inspect(path).stdout
    assert "not shown" not in inspect(path, "--all-epochs").stdout


def test_a_crafted_name_cannot_talk_to_the_terminal(tmp_path: Path) -> None:
    config = b'{"c_info": {"name": "\\u001b[2J\\ud800", "type": "\\u001b]0;x"}}'
    sample = Sample(config=config).headers()
    result = inspect(write(tmp_path, sample.data))
    assert result.exit_code == 3
    assert "\x1b" not in result.stdout


def test_a_missing_file_is_wrong_usage(tmp_path: Path) -> None:
    assert inspect(str(tmp_path / "absent")).exit_code == 2


def test_a_file_that_cannot_be_read_is_an_error_with_its_name() -> None:
    result = inspect("/proc/self/mem")
    assert result.exit_code == 1
    assert "/proc/self/mem" in result.stderr


def test_reading_stops_at_the_first_error() -> None:
    chunks = iter([memoryview(b"garbage" * 10), memoryview(b"never asked for")])
    assert summarise(chunks, lambda _: None).ending is Ending.INVALID
    assert bytes(next(chunks)) == b"never asked for"
