"""Make the xl configurations of a guest for COLO, one for each host, and have xl read them back."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path, PurePosixPath
from typing import Any, Final

from colod.config import Config, split_address
from colod.errors import ConfigError, NotFound, ToolstackError
from colod.model import GuestName, Role
from colod.output.colo.guest_keys import ColoGuest, ColoPorts, interface_keys
from colod.output.colo.guest_ports import choose_ports, numbers
from colod.prepare.colo_text import notes, with_colo
from colod.toolstack import colo_guest
from colod.toolstack.port import Toolstack
from colod.toolstack.xl import XlToolstack

_MOST_FILES: Final = 128
"""Of other guests' configurations that are asked for their ports."""

_MOST_BYTES: Final = 1 << 20
_LISTEN: Final = "0A"
"""State of a socket in /proc/net/tcp. Spec: Linux include/net/tcp_states.h, TCP_LISTEN."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is asked for.

    Attributes:
        guest: The guest's name.
        file: Its configuration, or None to ask xl for that of the domain that runs.
        primary_address: IPv4 address of this host on the replication network; "" to take it from
            colod's configuration.
        secondary_address: The same of the other host.
        overlays: Directory of what the secondary writes between two checkpoints, on both hosts.
    """

    guest: GuestName
    file: Path | None = None
    primary_address: str = ""
    secondary_address: str = ""
    overlays: PurePosixPath = PurePosixPath("/var/lib/colod/colo")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFile:
    """What one host is to have.

    Attributes:
        role: Which one, as things are now.
        host: Its name.
        path: Where a guest that reboots is started from there.
        text: What xl is to read.
    """

    role: Role
    host: str
    path: Path
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ColoFiles:
    """The configurations of both hosts.

    Attributes:
        guest: What the keys of the primary's are made of.
        notes: What has to be so besides.
        files: The primary's and the secondary's.
    """

    guest: ColoGuest
    notes: tuple[str, ...]
    files: tuple[HostFile, HostFile]


async def make(
    config: Config, wish: Wish, *, toolstack: Toolstack | None = None, root: Path = Path("/")
) -> ColoFiles:
    """Make both hosts' configurations. The domain is only looked at, and nothing is written.

    Args:
        config: colod's configuration.
        wish: What is asked for.
        toolstack: Asked of guests; by default the configuration's.
        root: Where this host's /proc is.

    Raises:
        ConfigError: If an address is not known, or not an IPv4 address.
        NetworkError: If no ports are free.
        NotFound: If no domain of that name runs here, or the file is another guest's.
        PreflightRefused: With every reason why COLO cannot have this guest.
        ToolstackError: If xl fails, or does not read the files as they were meant.
        OSError: If the file cannot be read.
    """
    asked = toolstack or XlToolstack(tuple(config.toolstack.xl), tuple(config.toolstack.xenstore))
    primary, secondary = _addresses(config, wish)
    found = await _found(asked, wish)
    own_file = wish.file or config.toolstack.guest_configs / f"{wish.guest}.cfg"
    own = await asyncio.to_thread(_own_text, own_file, is_needed=wish.file is not None)
    ports = colo_guest.ports_of(found) or choose_ports(
        wish.guest, await _taken(asked, config.toolstack.guest_configs, wish.guest, root)
    )
    guest = colo_guest.colo_guest(
        found, primary=primary, secondary=secondary, ports=ports, overlays=wish.overlays
    )
    said = list(notes(guest, await asyncio.to_thread(_size, guest)))
    if not own:
        said.append(f"This is not all: append it to the guest's own file ({own_file} is not here).")
    host, peer = config.host.name, config.peer.name
    place = config.toolstack.guest_configs / f"{wish.guest}.cfg"
    made = [
        HostFile(role=role, host=name, path=place, text=_text(own, each, name, said))
        for role, name, each in (
            (Role.PRIMARY, host, guest),
            (Role.SECONDARY, peer, replace(guest, primary=secondary, secondary=primary)),
        )
    ]
    if own:
        for each in made:
            await _check(asked, each, guest)
    return ColoFiles(guest=guest, notes=tuple(said), files=(made[0], made[1]))


def _text(own: str, guest: ColoGuest, host: str, said: Sequence[str]) -> str:
    head = f"For {host}, while {guest.name} runs there."
    try:
        return with_colo(own, guest, [head, *said])
    except ConfigError as error:
        raise colo_guest.from_problems(error) from error


# --- what there is --------------------------------------------------------------------------------


async def _found(toolstack: Toolstack, wish: Wish) -> Mapping[str, Any]:
    if wish.file is not None:
        found = await toolstack.file_config(wish.file)
        if (name := colo_guest.name_of(found)) != wish.guest:
            raise NotFound(f"{wish.file} is of {name}, not of {wish.guest}")
        return found
    if await toolstack.find(wish.guest) is None:
        raise NotFound(
            f"no domain {wish.guest} runs on this host",
            advice="give its configuration: --file FILE",
        )
    return await toolstack.domain_config(wish.guest)


async def _taken(
    toolstack: Toolstack, guest_configs: Path, guest: str, root: Path
) -> frozenset[int]:
    """Return ports that something listens on, or that belong to another guest of this host."""
    taken = set(await asyncio.to_thread(listening_ports, root))
    names = [each.name for each in await toolstack.domains() if each.domid != 0]
    for name in names:
        if name != guest:
            taken |= await _ports(toolstack.domain_config(name), guest)
    for path in await asyncio.to_thread(_files_in, guest_configs):
        if path.stem not in (guest, *names):
            taken |= await _ports(toolstack.file_config(path), guest)
    return frozenset(taken)


async def _ports(asking: Any, guest: str) -> frozenset[int]:
    """Return another guest's ports; none of one that is gone meanwhile, or whose file is none."""
    try:
        found = await asking
    except ToolstackError:
        return frozenset()
    return frozenset() if colo_guest.name_of(found) == guest else colo_guest.ports_in(found)


def listening_ports(root: Path = Path("/")) -> frozenset[int]:
    """Return the TCP ports that somebody on this host listens on.

    Spec: Linux Documentation/networking/proc_net_tcp.rst: `sl local_address rem_address st`, an
    address being `HEX:PORT`.
    """
    return frozenset(
        int(words[1].rpartition(":")[2], 16)
        for name in ("tcp", "tcp6")
        for words in map(str.split, _lines(root / "proc/net" / name)[1:])
        if len(words) > 3 and words[3] == _LISTEN
    )


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return []


def _files_in(directory: Path) -> list[Path]:
    try:
        return sorted(directory.glob("*.cfg"))[:_MOST_FILES]
    except OSError:
        return []


def _own_text(path: Path, *, is_needed: bool) -> str:
    """Return the guest's own file, "" where there is none and it is not the one that was named."""
    try:
        with path.open("rb") as file:
            octets = file.read(_MOST_BYTES + 1)
    except OSError:
        if is_needed:
            raise
        return ""
    if len(octets) > _MOST_BYTES:
        raise ConfigError([f"{path}: more than {_MOST_BYTES} bytes"])
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: not UTF-8: {error}"]) from error


def _size(guest: ColoGuest) -> int | None:
    """Return the size of the guest's disk, a file or a block device; None if it is not known."""
    for disk in guest.disks:
        try:
            with Path(disk.target).open("rb") as target:
                return target.seek(0, os.SEEK_END) or None
        except OSError:
            return None
    return None


# --- addresses ------------------------------------------------------------------------------------


def _addresses(config: Config, wish: Wish) -> tuple[str, str]:
    """Return both hosts' addresses; libxl takes IPv4 addresses only, and no names.

    Source: libxl_colo_proxy.c, colo_proxy_setup(), inet_addr().
    """
    options = config.transport.path_options
    here = [options.get("advertise", ""), options.get("listen", "")]
    here += [split_address(each)[0] for each in (config.peer.listen, *config.peer.more_listen)]
    there = [split_address(config.peer.address)[0]]
    primary = wish.primary_address or next(filter(_is_of_a_host, here), "")
    secondary = wish.secondary_address or next(filter(_is_of_a_host, there), "")
    wanted = (("--primary-address", primary), ("--secondary-address", secondary))
    if problems := [
        f"{option}: {value or 'not known'}: want an IPv4 address of the replication network"
        for option, value in wanted
        if not _is_of_a_host(value, is_loopback_one=True)
    ]:
        error = ConfigError(problems)
        error.advice = "give the option: libxl takes no names, and no IPv6"
        raise error
    if primary == secondary:
        raise ConfigError([f"--secondary-address: {secondary}: that is the primary's, too"])
    return primary, secondary


def _is_of_a_host(text: str, *, is_loopback_one: bool = False) -> bool:
    try:
        address = IPv4Address(text)
    except AddressValueError:
        return False
    return not address.is_unspecified and (is_loopback_one or not address.is_loopback)


# --- what xl says ---------------------------------------------------------------------------------


async def _check(toolstack: Toolstack, made: HostFile, guest: ColoGuest) -> None:
    """Have xl read what was made.

    Raises:
        ToolstackError: If it cannot, or reads something else.
    """
    facts = await toolstack.host_facts()
    with tempfile.NamedTemporaryFile("w", prefix="colod-", suffix=".cfg", encoding="utf-8") as file:
        file.write(made.text)
        file.flush()
        read = await toolstack.file_config(Path(file.name))
    # The simulated xl may not keep the keys.
    keys = () if facts.simulated else _varying(made, guest)
    if not colo_guest.is_as_made(read, guest, keys=keys):
        text = f"xl reads the configuration for {made.host} otherwise than it was meant"
        raise ToolstackError(("xl", "create", "-n", file.name), 0, text)


def _varying(made: HostFile, guest: ColoGuest) -> tuple[tuple[str, str], ...]:
    if made.role is Role.SECONDARY:
        guest = replace(guest, primary=guest.secondary, secondary=guest.primary)
    return interface_keys(guest, has_qemu_comparator=False)


def port_table(ports: ColoPorts) -> dict[str, int]:
    """Return the ports by what they are for."""
    names = ("mirror", "primary", "out", "secondary", "notify", "disk")
    return dict(zip(names, numbers(ports), strict=True))
