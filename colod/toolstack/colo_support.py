"""Find out whether this host's toolstack can do COLO: libxl, QEMU, and what both lack upstream.

Stock builds cannot, and for Remus nothing of it matters. Nothing here touches a guest: libxl is
read as a file, and QEMU is started without a machine, asked, and ended.

Spec: Xen tools/libs/light/Makefile (COLO only with CONFIG_LIBNL) and libxl_colo_restore.c,
init_dsps(); QEMU qapi/migration.json (`xen-set-replication` and others, if CONFIG_REPLICATION),
migration/savevm.c, qmp_xen_load_devices_state(), and util/yank.c, yank_unregister_instance().
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from colod.errors import ToolstackError
from colod.toolstack.command import Commands, Completed

FILTERS = ("filter-mirror", "filter-redirector", "filter-rewriter")
"""Objects of QEMU that colod's proxy works with."""

COMMANDS = ("xen-set-replication", "query-xen-replication-status", "xen-colo-do-checkpoint")
"""Commands by which libxl replicates disks; they are there where the block driver is."""

_HAS_COLO = b"/colo-proxy-setup\0"
"""Only libxl_colo_save.c and libxl_colo_restore.c have it, as the end of a format; a build without
libnl has libxl_no_colo.c in their place. What is sent to the proxy would not do: the compiler makes
code of it."""
_HAS_NO_COLO = b"COLO is not supported\0"
_DEVICE_MODEL = re.compile(rb"\0(/[\x21-\x7e]*/[\x21-\x2e\x30-\x7e]*qemu-system-[a-z0-9_]+)(?=\0)")
_MOST_LIBRARY_BYTES = 64 << 20
_LOOK_S = 10.0

# $0 is QEMU, and the arguments are what it is asked: it reads them, and the end of its input.
_ASK = (
    'ulimit -c 0; printf "%s\\n" "$@" | "$0" -M none -accel tcg -accel qtest -nodefaults '
    "-no-user-config -display none -S -qmp stdio"
)
_QUESTIONS = (
    {"execute": "qmp_capabilities"},
    {"execute": "query-commands", "id": "commands"},
    {"execute": "qom-list-types", "arguments": {"implements": "netfilter"}, "id": "filters"},
)
# A state that is none: whether that is an error or the end of the process tells whether the
# instance that it unregisters at last was ever registered.
_LOAD = {"execute": "xen-load-devices-state", "arguments": {"filename": "/dev/null"}, "id": "load"}
_QUIT = {"execute": "quit"}
_NOT_STARTED = frozenset({126, 127})
_MOST_WORDS = 200
_ABORTED = frozenset({-signal.SIGABRT, 128 + signal.SIGABRT})


class Has(StrEnum):
    """Whether something is there."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """What libxl is like.

    Attributes:
        path: Of the library; empty if it was not found.
        colo: Whether it was built with COLO.
        device_model: The QEMU that it starts for a guest that names none; empty if not known.
    """

    path: str = ""
    colo: Has = Has.UNKNOWN
    device_model: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceModel:
    """What a QEMU is like.

    Attributes:
        path: Of the program; empty if none is known.
        missing_filters: Of FILTERS, those that it lacks.
        missing_commands: Of COMMANDS, those that it lacks.
        loads_state: Whether it survives the loading of devices' state, as each checkpoint does on
            the secondary.
        problem: Why it told nothing; the others then say nothing either.
    """

    path: str = ""
    missing_filters: tuple[str, ...] = ()
    missing_commands: tuple[str, ...] = ()
    loads_state: Has = Has.UNKNOWN
    problem: str = ""

    @property
    def replicates(self) -> Has:
        """Whether it has all that COLO asks of it, but for the survival."""
        if self.problem:
            return Has.UNKNOWN
        return Has.NO if self.missing_filters or self.missing_commands else Has.YES


@dataclass(frozen=True, slots=True, kw_only=True)
class Support:
    """What this host has for COLO."""

    library: Library
    device_model: DeviceModel


async def look(xen_version: str, commands: Commands, *, device_model: str = "") -> Support:
    """Find out what this host has; never fails, as what is not known is said to be so.

    Args:
        xen_version: `major.minor` and what follows, of the Xen that runs.
        commands: Runs `ldconfig` and QEMU, for 10 s each at most.
        device_model: The QEMU of a guest; that of libxl where it is empty.
    """
    library = await _find_library(xen_version, commands)
    path = device_model or library.device_model
    if not path:
        return Support(library=library, device_model=DeviceModel(problem="not found"))
    try:
        model = await _ask(path, (*_QUESTIONS, _QUIT), commands)
        if model.replicates is Has.YES:  # else nobody needs to know, and it may well abort
            model = await _ask(path, (*_QUESTIONS, _LOAD, _QUIT), commands)
    except ToolstackError as error:
        end = "does not answer" if error.status is None else "cannot be asked"
        model = DeviceModel(path=path, problem=end)
    return Support(library=library, device_model=model)


async def _ask(
    path: str, questions: Sequence[Mapping[str, object]], commands: Commands
) -> DeviceModel:
    lines = [json.dumps(each) for each in questions]
    done = await commands.run(("sh", "-c", _ASK, path, *lines), timeout_s=_LOOK_S)
    return judge_device_model(path, done)


def judge_library(path: str, octets: bytes) -> Library:
    """Say what a libxenlight is like from its bytes: it tells by no call, and not by its version.

    Args:
        path: Where it is.
        octets: The whole file.
    """
    found = (_HAS_COLO in octets, _HAS_NO_COLO in octets)
    colo = {(True, False): Has.YES, (False, True): Has.NO}.get(found, Has.UNKNOWN)
    match = _DEVICE_MODEL.search(octets)
    return Library(path=path, colo=colo, device_model=match[1].decode("ascii") if match else "")


def judge_device_model(path: str, done: Completed) -> DeviceModel:
    """Say what a QEMU is like from how it answered.

    Args:
        path: Of the program.
        done: Its end, with the lines of its monitor as output.
    """
    answers = _answers(done.stdout)
    present, filters = (_names(answers, each) for each in ("commands", "filters"))
    if present is None or filters is None:
        return DeviceModel(path=path, problem=_why_silent(done))
    if done.status in _ABORTED and "yank_unregister_instance" in done.stderr:
        loads_state = Has.NO
    elif done.status == 0 and _is_refusal(answers.get("load", {})):
        loads_state = Has.YES
    else:
        loads_state = Has.UNKNOWN
    return DeviceModel(
        path=path,
        missing_filters=tuple(each for each in FILTERS if each not in filters),
        missing_commands=tuple(each for each in COMMANDS if each not in present),
        loads_state=loads_state,
    )


def _why_silent(done: Completed) -> str:
    if done.status in _NOT_STARTED:
        return "is not there, or cannot be started"
    lines = done.stderr.strip().splitlines()
    return lines[-1][:_MOST_WORDS] if lines else "says nothing"


def _is_refusal(answer: Mapping[str, Any]) -> bool:
    """Tell whether a command was carried out and failed, rather than was not known at all."""
    error = answer.get("error")
    return isinstance(error, dict) and error.get("class") != "CommandNotFound"


def _answers(text: str) -> Mapping[str, Mapping[str, Any]]:
    """Return what was answered, by the questions' ids; lines that are none are left out."""
    found = {}
    for line in text.splitlines():
        try:
            answer = json.loads(line)
        except (json.JSONDecodeError, RecursionError):
            continue
        if isinstance(answer, dict) and isinstance(answer.get("id"), str):
            found[answer["id"]] = answer
    return found


def _names(answers: Mapping[str, Mapping[str, Any]], which: str) -> frozenset[str] | None:
    listed = answers.get(which, {}).get("return")
    if not isinstance(listed, list):
        return None
    return frozenset(str(each.get("name")) for each in listed if isinstance(each, dict))


async def _find_library(xen_version: str, commands: Commands) -> Library:
    series = re.match(r"\d+\.\d+", xen_version)
    if series is None:
        return Library()
    for program in ("ldconfig", "/sbin/ldconfig"):
        try:
            done = await commands.run((program, "-p"), timeout_s=_LOOK_S)
        except ToolstackError:
            continue
        for path in library_paths(done.stdout, series[0]):
            octets = await asyncio.to_thread(_read, Path(path))
            if octets:
                return judge_library(path, octets)
        break
    return Library()


def library_paths(text: str, series: str) -> Sequence[str]:
    """Return where libxenlight of a series of Xen is, by what `ldconfig -p` prints.

    Args:
        text: Lines `\\tSONAME (KIND) => PATH`.
        series: `major.minor`.
    """
    lines = (line.strip().partition(" => ") for line in text.splitlines())
    return [path for name, _, path in lines if name.split(" ")[0] == f"libxenlight.so.{series}"]


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MOST_LIBRARY_BYTES:
            return b""
        return path.read_bytes()
    except OSError:
        return b""
