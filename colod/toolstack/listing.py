"""Read what xl and xenstore print. Pure: text in, values out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from colod.toolstack.port import Domain, DomainState, Vif

NAMELESS = "(null)"
"""What xl prints for a domain whose name has gone already: it is being torn down."""

_ROW = re.compile(
    r"(?P<name>\S(?:.*\S)?)\s+(?P<domid>\d+)\s+(?P<mem>\d+)\s+(?P<vcpus>\d+)\s+"
    r"(?P<state>[r-][b-][p-][s-][-rscwS?][d-])\s+(?P<time>\d+(?:\.\d+)?)\s*"
)
_WITH_UUID = re.compile(
    rf"{_ROW.pattern}(?P<uuid>[0-9a-fA-F]{{8}}(?:-[0-9a-fA-F]{{4}}){{3}}-[0-9a-fA-F]{{12}})(?: .*)?"
)
_HEADER = re.compile(r"Name\s+ID\s+Mem\s+VCPUs\s+State\s+Time\(s\)\s*")
_SIZE = r"-?[0-9]+[bBkKmMgGtT]?"
_DOM0_MEM = re.compile(
    rf"(?:^| )dom0_mem=(?:(?:|min:|max:)(?:{_SIZE}|(?:{_SIZE}\+)?[0-9]{{1,2}}%),?)+(?:$| )"
)
_NODE = re.compile(r'(?P<indent> *)(?P<name>[^ =]+) = "(?P<value>.*)"')

# Column 5: why the domain was shut down. "s" is libxc's suspend, all others end the guest's run.
_SHUTDOWN_STATES = {
    "s": DomainState.SUSPENDED,
    "c": DomainState.CRASHED,
    "w": DomainState.CRASHED,
}
_SHUTDOWN_REASONS = {
    "-": "poweroff",
    "r": "reboot",
    "c": "crash",
    "w": "watchdog",
    "S": "soft_reset",
}


class Unreadable(ValueError):
    """A tool printed something that is not what it should be."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of `xl list`.

    Attributes:
        domain: The domain.
        letters: Its six state letters; `------` is a domain that waits for a processor.
    """

    domain: Domain
    letters: str

    @property
    def was_seen_running(self) -> bool:
        """Whether one of its processors ran, or had run and went idle, with no pause held."""
        return self.domain.state is DomainState.RUNNING and self.letters[:2] != "--"


def parse_list(text: str) -> Sequence[Row]:
    """Read `xl list`.

    The state's columns are running, blocked, paused, shutdown, its reason, dying.
    Spec: Xen tools/xl/xl_info.c, list_domains.

    Raises:
        Unreadable: If the heading or a line is not as xl prints it.
    """
    lines = text.splitlines()
    if not lines or not _HEADER.fullmatch(lines[0]):
        raise Unreadable(f"xl list: unknown heading {lines[0] if lines else ''!r}")
    return [_parse_row(line) for line in lines[1:] if line.strip()]


def parse_uuids(text: str) -> Mapping[str, Domain]:
    """Read `xl list -v`: return the domains by their UUIDs, in lower case.

    Spec: Xen tools/xl/xl_info.c, list_domains, `verbose`.

    Raises:
        Unreadable: If a line is not as xl prints it.
    """
    found = {}
    for line in filter(str.strip, text.splitlines()[1:]):
        match = _WITH_UUID.fullmatch(line)
        if not match:
            raise Unreadable(f"xl list -v: cannot read the line {line!r}")
        found[match["uuid"].lower()] = _row(match).domain
    return found


def _parse_row(line: str) -> Row:
    match = _ROW.fullmatch(line)
    if not match:
        raise Unreadable(f"xl list: cannot read the line {line!r}")
    return _row(match)


def _row(match: re.Match[str]) -> Row:
    letters = match["state"]
    state, reason = _state(letters)
    domain = Domain(
        domid=int(match["domid"]),
        name=match["name"],
        state=state,
        paused=letters[2] == "p",
        memory_bytes=int(match["mem"]) << 20,
        cpu_time_s=float(match["time"]),
        shutdown_reason=reason,
    )
    return Row(domain, letters)


def _state(letters: str) -> tuple[DomainState, str]:
    paused, shutdown, reason, dying = tuple(letters[2:])
    why = _SHUTDOWN_REASONS.get(reason, "") if shutdown == "s" else ""
    if dying == "d":
        return DomainState.DYING, why
    if shutdown == "s":
        return _SHUTDOWN_STATES.get(reason, DomainState.SHUTDOWN), why
    return (DomainState.PAUSED if paused == "p" else DomainState.RUNNING), ""


def parse_details(text: str, name: str) -> Mapping[str, Any] | None:
    """Return `config` of the domain `name` from `xl list -l`; None if xl gave none.

    While a copy is being received xl has no configuration for it: the list is then empty.

    Raises:
        Unreadable: If it is not JSON, or not a list of domains.
    """
    try:
        found = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise Unreadable(f"xl list -l: {error}") from error
    entries = found if isinstance(found, list) else [found]
    for entry in entries:
        config = entry.get("config") if isinstance(entry, dict) else None
        if not isinstance(config, dict):
            raise Unreadable("xl list -l: an entry has no `config`")
        if _name(config) == name:
            return config
    return None


def parse_dry_run(text: str) -> Mapping[str, Any]:
    """Return the configuration that `xl create --dryrun` prints.

    Raises:
        Unreadable: If it is not JSON, or has no name.
    """
    try:
        found = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise Unreadable(f"xl create --dryrun: {error}") from error
    if not isinstance(found, dict) or not _name(found):
        raise Unreadable("xl create --dryrun: no name is in it")
    return found


def _name(config: Mapping[str, Any]) -> str:
    created = config.get("c_info")
    return str(created.get("name", "")) if isinstance(created, dict) else ""


def parse_info(text: str) -> Mapping[str, str]:
    """Read the `key : value` lines of `xl info`."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {key.strip(): value.strip() for key, colon, value in pairs if colon}


def is_autoballooning(xl_conf: str, xen_commandline: str) -> bool:
    """Tell whether xl shrinks dom0 to make room for new domains.

    `auto`, xl's default, means yes unless Xen was started with a `dom0_mem`.
    Spec: Xen tools/xl/xl.c, auto_autoballoon and parse_global_config.

    Args:
        xl_conf: Text of /etc/xen/xl.conf; empty if there is none.
        xen_commandline: `xen_commandline` of `xl info`.
    """
    setting = "auto"
    for line in xl_conf.splitlines():
        key, equals, value = line.partition("#")[0].partition("=")
        if equals and key.strip() == "autoballoon":
            setting = value.strip().rstrip(";").strip().strip("\"'")
    if setting in {"on", "1"}:
        return True
    if setting in {"off", "0"}:
        return False
    return not _DOM0_MEM.search(xen_commandline)


def parse_tree(text: str) -> Mapping[str, str]:
    """Read `xenstore ls PATH`: values by path below PATH, parts joined by `/`.

    Long values come cut off, ending in `...`. Spec: Xen tools/xs-clients/xenstore_client.c, do_ls.
    """
    found: dict[str, str] = {}
    parts: list[str] = []
    for line in text.splitlines():
        match = _NODE.match(line)
        if match:
            del parts[len(match["indent"]) :]
            parts.append(match["name"])
            found["/".join(parts)] = match["value"]
    return found


def vifs_of(tree: Mapping[str, str], domid: int) -> Sequence[Vif]:
    """Build the interfaces from the tree below `/libxl/DOMID/device/vif`.

    libxl keeps that copy out of the guest's reach; the guest may write to its own.

    Raises:
        Unreadable: If an interface has no backend there.
    """
    numbers = sorted({int(path.split("/")[0]) for path in tree if path.split("/")[0].isdecimal()})
    return [_vif(tree, domid, number) for number in numbers]


def _vif(tree: Mapping[str, str], domid: int, number: int) -> Vif:
    backend = tree.get(f"{number}/backend", "")
    match = re.match(r"/local/domain/(\d+)/", backend)
    if not match:
        raise Unreadable(f"xenstore: interface {number} of domain {domid} has no backend")
    return Vif(
        devid=number,
        mac=tree.get(f"{number}/mac", ""),
        bridge=tree.get(f"{number}/bridge", ""),
        name=tree.get(f"{number}/vifname") or f"vif{domid}.{number}",
        backend_domid=int(match[1]),
        kind=tree.get(f"{number}/type") or "vif",
    )
