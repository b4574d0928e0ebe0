"""Whether a toolstack can do COLO, by the bytes of libxl and the answers of QEMU."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from colod.errors import ToolstackError
from colod.toolstack.colo_support import (
    COMMANDS,
    FILTERS,
    DeviceModel,
    Has,
    judge_device_model,
    judge_library,
    library_paths,
    look,
)
from colod.toolstack.command import CommandRunner, Completed

QEMU = "/usr/libexec/xen-qemu-system-i386"
STOCK = b"\x7fELF\0libxl_no_colo.c\0COLO is not supported\0\0/usr/libexec/xen-qemu-system-i386\0"
REBUILT = b"\x7fELF\0%s/colo-proxy-setup\0/usr/lib/xen-4.17/bin/qemu-system-i386\0"
# As QEMU 7.2.22 says it.
ASSERTION = (
    "Not a migration stream\nxen-qemu-system-i386: ../../util/yank.c:105: "
    "yank_unregister_instance: Assertion `entry' failed.\nAborted\n"
)
REFUSAL = {"error": {"class": "GenericError", "desc": "An IO error has occurred"}, "id": "load"}


def answers(
    *, commands: Sequence[str] = COMMANDS, filters: Sequence[str] = FILTERS, load: object = REFUSAL
) -> str:
    """Return what a QEMU prints that has these."""
    listed = {"commands": [*commands, "xen-load-devices-state"], "filters": filters}
    lines: list[object] = [
        {"QMP": {"version": {}, "capabilities": ["oob"]}},
        {"return": {}},
        *(
            {"return": [{"name": each} for each in names], "id": id_}
            for id_, names in listed.items()
        ),
        *([load] if load else []),
        {"return": {}},
    ]
    return "".join(f"{json.dumps(each)}\n" for each in lines)


def judged(stdout: str, status: int = 0, stderr: str = "") -> DeviceModel:
    return judge_device_model(QEMU, Completed(("sh",), status, stdout, stderr))


def test_a_stock_libxl_has_no_colo_and_names_its_qemu() -> None:
    library = judge_library("/lib/x", STOCK)
    assert (library.path, library.colo, library.device_model) == ("/lib/x", Has.NO, QEMU)


def test_a_libxl_with_libnl_has_it() -> None:
    library = judge_library("/lib/x", REBUILT)
    assert library.colo is Has.YES
    assert library.device_model == "/usr/lib/xen-4.17/bin/qemu-system-i386"


@pytest.mark.parametrize("octets", [b"", b"\x7fELF\0nothing\0", STOCK + REBUILT])
def test_a_libxl_that_says_neither_or_both_is_not_known(octets: bytes) -> None:
    assert judge_library("/lib/x", octets).colo is Has.UNKNOWN


def test_a_qemu_with_all_of_it_and_the_fix() -> None:
    model = judged(answers())
    assert (model.replicates, model.loads_state, model.problem) == (Has.YES, Has.YES, "")


def test_a_qemu_without_the_fix_ends_at_the_question() -> None:
    model = judged(answers(load=None), 134, ASSERTION)
    assert (model.replicates, model.loads_state) == (Has.YES, Has.NO)
    assert judged(answers(load=None), -6, ASSERTION).loads_state is Has.NO


@pytest.mark.parametrize(
    ("status", "stderr", "load"),
    [
        (134, "another assertion", None),
        (139, ASSERTION, None),
        (0, "", None),
        (0, "", {"error": {"class": "CommandNotFound", "desc": "no"}, "id": "load"}),
        (0, "", {"return": {}, "id": "load"}),
        (1, "", REFUSAL),
    ],
)
def test_another_end_tells_nothing_of_the_fix(status: int, stderr: str, load: object) -> None:
    assert judged(answers(load=load), status, stderr).loads_state is Has.UNKNOWN


def test_what_a_stock_qemu_lacks_is_named() -> None:
    model = judged(answers(commands=()))
    assert (model.replicates, model.missing_commands) == (Has.NO, COMMANDS)
    model = judged(answers(filters=("filter-mirror",)))
    assert model.missing_filters == ("filter-redirector", "filter-rewriter")


@pytest.mark.parametrize(
    ("stdout", "status", "stderr", "problem"),
    [
        ("", 127, "sh: 1: /x: not found", "is not there, or cannot be started"),
        ("", 126, "", "is not there, or cannot be started"),
        ("", 0, "", "says nothing"),
        ("", 1, "warning: a\nqemu: invalid accelerator qtest", "qemu: invalid accelerator qtest"),
        ("[" * 100_000, 0, "", "says nothing"),
        ('[]\n{"id": 3}\n{"id": "commands", "return": {}}\n', 0, "", "says nothing"),
    ],
)
def test_a_qemu_that_does_not_answer_is_not_known(
    stdout: str, status: int, stderr: str, problem: str
) -> None:
    model = judged(stdout, status, stderr)
    assert (model.replicates, model.loads_state) == (Has.UNKNOWN, Has.UNKNOWN)
    assert model.problem == problem


def test_the_library_is_the_one_of_the_xen_that_runs() -> None:
    text = (
        "2 libs found in cache `/etc/ld.so.cache'\n"
        "\tlibxenlight.so.4.17 (libc6,x86-64) => /lib/x86_64-linux-gnu/libxenlight.so.4.17\n"
        "\tlibxenlight.so.4.1 (libc6,x86-64) => /lib/old/libxenlight.so.4.1\n"
        "\tlibxenlight.so (libc6,x86-64) => /lib/dev/libxenlight.so\n"
    )
    assert library_paths(text, "4.17") == ["/lib/x86_64-linux-gnu/libxenlight.so.4.17"]
    assert library_paths(text, "4.18") == []
    assert library_paths("", "4.17") == []


# --- looking


@dataclass
class Programs:
    """Stands for `ldconfig` and QEMU: text of the one, text or an error of the other."""

    cache: str = ""
    qemu: str | ToolstackError = ""
    asked: list[Sequence[str]] = field(default_factory=list)

    @property
    def env(self) -> Mapping[str, str]:
        return {}

    async def run(self, argv: Sequence[str], *, timeout_s: float) -> Completed:
        assert 0 < timeout_s <= 10
        self.asked.append(argv)
        if argv[0] == "ldconfig":
            raise ToolstackError(argv, 127, "not in PATH")
        if argv[0] == "/sbin/ldconfig":
            return Completed(tuple(argv), 0, self.cache, "")
        if isinstance(self.qemu, ToolstackError):
            raise self.qemu
        return Completed(tuple(argv), 0, self.qemu, "")


async def test_the_qemu_that_is_asked_is_the_one_that_libxl_starts(tmp_path: Path) -> None:
    library = tmp_path / "libxenlight.so.4.17"
    library.write_bytes(REBUILT)
    programs = Programs(f"\tlibxenlight.so.4.17 (libc6) => {library}\n", answers())
    support = await look("4.17.5-pre", programs)
    assert support.library.path == str(library)
    assert support.library.colo is Has.YES
    assert programs.asked[-1][3] == "/usr/lib/xen-4.17/bin/qemu-system-i386"
    assert support.device_model.replicates is Has.YES


async def test_a_guests_own_qemu_is_asked_in_its_place() -> None:
    programs = Programs(qemu=answers(commands=()))
    support = await look("4.17.5", programs, device_model="/opt/qemu")
    assert (support.device_model.path, support.device_model.replicates) == ("/opt/qemu", Has.NO)
    assert support.library.colo is Has.UNKNOWN


@pytest.mark.parametrize("version", ["4.17.5", "unknown"])
async def test_without_libxl_nothing_is_asked_and_nothing_known(version: str) -> None:
    programs = Programs(cache="\tlibxenlight.so.4.17 (libc6) => /nonexistent/x\n")
    support = await look(version, programs)
    assert support.device_model.problem == "not found"
    assert all("ldconfig" in argv[0] for argv in programs.asked)


@pytest.mark.parametrize(
    ("status", "problem"), [(None, "does not answer"), (127, "cannot be asked")]
)
async def test_a_qemu_that_hangs_is_not_known(status: int | None, problem: str) -> None:
    programs = Programs(qemu=ToolstackError(("sh",), status))
    support = await look("4.17.5", programs, device_model="/opt/qemu")
    assert (support.device_model.problem, support.device_model.replicates) == (
        problem,
        Has.UNKNOWN,
    )


async def test_a_program_is_asked_on_its_monitor_with_no_machine(tmp_path: Path) -> None:
    qemu = tmp_path / "a qemu"
    qemu.write_text(f"#!/bin/sh\necho \"$@\" >'{tmp_path}/argv'\ncat >'{tmp_path}/asked'\n")
    qemu.chmod(0o755)
    commands = CommandRunner(workers=1)
    try:
        support = await look("none", commands, device_model=str(qemu))
    finally:
        commands.close()
    assert support.device_model.problem == "says nothing"
    words = (tmp_path / "argv").read_text().split()
    assert words[:2] == ["-M", "none"]
    assert words[-3:] == ["-S", "-qmp", "stdio"]
    asked = [json.loads(line) for line in (tmp_path / "asked").read_text().splitlines()]
    assert [each["execute"] for each in asked] == [
        *("qmp_capabilities", "query-commands", "qom-list-types", "quit"),
    ]
