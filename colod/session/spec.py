"""What a session is told at its start: `spec.json`, written by the daemon."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from colod.errors import ConfigError
from colod.model import (
    Credentials,
    HostName,
    parse_guest_name,
    parse_host_name,
    parse_pairing_id,
)
from colod.output.kinds import GateSpec, parse_gate
from colod.session.colo.spec import ColoSpec, parse_colo
from colod.session.deltas import DeltaSpec, parse_deltas
from colod.session.images import ImageSpec, parse_image

SPEC_VERSION: Final = 1
RESUME_MIN_BYTES: Final = 2 << 20
"""Room for the longest write, and for more while that waits for its confirmation."""

_TLS_FILES: Final = frozenset({"ca", "certificate", "key"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSpec:
    """Everything that a session needs to know.

    Attributes:
        role: `send` on the primary, `receive` on the secondary.
        guest: The domain's name.
        pairing: The replication run that this session and its peer share.
        generation: Of the ownership record when the pairing began; fences older daemons and peers.
        host: This host.
        peer: The other host.
        secret: Known to the two sessions of this pairing only, at least 16 bytes.
        transport_kind: Entry point in `colod.transports`.
        transport_options: That transport's own table.
        backup_options: The same for the second path; None without one.
        tls: Paths of `ca`, `certificate` and `key`, for a transport that proves the hosts.
        address: Where the receiver listens; sender only.
        backup_address: Where it listens on the second path, "" if it does not; sender only.
        receive_argv: `xl migrate-receive -r`; receiver only.
        pause_argv: Takes one more pause reference on the incoming copy; the sender's, on the guest.
        exists_argv: Prints the domain's number and exits with 0 once the incoming copy exists; the
            sender's, of the guest.
        ping_interval_s: Time between two signs of life.
        silence_s: Silence after which the peer counts as lost.
        staging_bytes: Most bytes of epochs that the receiver, and the sender, hold in memory.
        ack_timeout_s: How long what was sent may wait for its acknowledgement once replication is
            under way; sender only.
        connect_timeout_s: How long the sender goes on trying to connect.
        pause_timeout_s: How long the receiver waits for the second pause reference once the first
            checkpoint is whole.
        resume_bytes: Memory for what may have to be sent again over another connection, at least
            RESUME_MIN_BYTES; 0: the link ends at its first break.
        rate_bytes_per_s: Most that is put on the link, 0 for no limit.
        gate: How the guest's output is held; sender only.
        deltas: What may be used to send pages as what changed in them.
        image: What may be kept on disk, so that images of the replica can be written; receiver
            only.
        colo: How both copies run; None in Remus mode.
    """

    role: str
    guest: str
    pairing: str
    generation: int
    host: str
    peer: str
    secret: bytes = field(repr=False)
    transport_kind: str
    transport_options: dict[str, str] = field(default_factory=dict)
    backup_options: dict[str, str] | None = None
    tls: dict[str, Path] = field(default_factory=dict)
    address: str = ""
    backup_address: str = ""
    receive_argv: tuple[str, ...] = ()
    pause_argv: tuple[str, ...] = ()
    exists_argv: tuple[str, ...] = ()
    ping_interval_s: float = 0.5
    silence_s: float = 5.0
    staging_bytes: int = 256 << 20
    ack_timeout_s: float = 60.0
    connect_timeout_s: float = 30.0
    pause_timeout_s: float = 60.0
    resume_bytes: int = 0
    rate_bytes_per_s: int = 0
    gate: GateSpec = field(default_factory=GateSpec)
    deltas: DeltaSpec = field(default_factory=DeltaSpec)
    image: ImageSpec = field(default_factory=ImageSpec)
    colo: ColoSpec | None = None

    @property
    def is_sender(self) -> bool:
        """Whether this is the primary's session."""
        return self.role == "send"

    @property
    def credentials(self) -> Credentials | None:
        """What a transport may prove the hosts with, None where nothing was given."""
        if not self.tls:
            return None
        return Credentials(host=HostName(self.host), peer=HostName(self.peer), **self.tls)


def read_spec(path: Path) -> SessionSpec:
    """Read and check `spec.json`.

    Raises:
        ConfigError: With every problem of the file.
    """
    try:
        given = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError([f"{path}: {error}"]) from error
    if not isinstance(given, dict):
        raise ConfigError([f"{path}: not an object"])
    return parse_spec(given)


def parse_spec(given: dict[str, Any]) -> SessionSpec:
    """Return the specification that the JSON object `given` holds.

    Raises:
        ConfigError: With every problem of it.
    """
    if given.get("version") != SPEC_VERSION:
        message = f"version: {given.get('version')!r}, this session knows {SPEC_VERSION}"
        raise ConfigError([message])
    flat = _flatten(given)
    problems: list[str] = []
    values = _read_fields(flat, problems)
    if not problems:
        problems += _check_role(values)
    if problems:
        raise ConfigError(problems)
    return SessionSpec(**values)


def _flatten(given: dict[str, Any]) -> dict[str, Any]:
    transport = given.get("transport")
    table = transport if isinstance(transport, dict) else {}
    flat = {name: value for name, value in given.items() if value is not None}
    flat["transport_kind"] = table.get("kind")
    flat["transport_options"] = table.get("options", {})
    if table.get("backup") is not None:
        flat["backup_options"] = table["backup"]
    return flat


def _read_fields(flat: dict[str, Any], problems: list[str]) -> dict[str, Any]:
    values = {}
    for item in fields(SessionSpec):
        is_optional = item.default is not MISSING or item.default_factory is not MISSING
        if item.name not in flat and is_optional:
            continue
        try:
            values[item.name] = _READERS[item.name](flat.get(item.name))
        except (ValueError, TypeError) as error:
            problems.append(f"{item.name}: {error}")
    return values


def _check_role(values: dict[str, Any]) -> list[str]:
    wanted = {"send": ("address",), "receive": ("receive_argv", "pause_argv", "exists_argv")}
    problems = [
        f"{name}: needed to {values['role']}"
        for name in wanted[values["role"]]
        if not values.get(name)
    ]
    if values["host"] == values["peer"]:
        problems.append(f"peer: {values['peer']!r} is this host itself")
    return problems


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _role(value: Any) -> str:
    if value not in ("send", "receive"):
        raise ValueError(f"{value!r} is neither send nor receive")
    return str(value)


def _secret(value: Any) -> bytes:
    secret = bytes.fromhex(_text(value))
    if len(secret) < 16:
        raise ValueError(f"{len(secret)} bytes, want at least 16")
    return secret


def _argv(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is no list of words")
    return tuple(_text(word) for word in value)


def _options(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r} is no table")
    return {_text(name): _text(item) for name, item in value.items()}


def _resume_bytes(value: Any) -> int:
    octets = _integer(0, 1 << 40)(value)
    if 0 < octets < RESUME_MIN_BYTES:
        raise ValueError(f"{octets}, want 0 or at least {RESUME_MIN_BYTES}")
    return octets


def _files(value: Any) -> dict[str, Path]:
    files = {name: Path(path) for name, path in _options(value).items()}
    if files.keys() != _TLS_FILES:
        raise ValueError(f"has {sorted(files)}, want {sorted(_TLS_FILES)}")
    if relative := [str(path) for path in files.values() if not path.is_absolute()]:
        raise ValueError(f"{relative} not absolute")
    return files


def _number(low: float, high: float) -> Callable[[Any], float]:
    def read(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{value!r} is no number")
        if not low <= value <= high:
            raise ValueError(f"{value!r} is not within {low:g} to {high:g}")
        return float(value)

    return read


def _integer(low: int, high: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if not isinstance(value, int):
            raise TypeError(f"{value!r} is no whole number")
        return int(_number(low, high)(value))

    return read


_READERS: Final[dict[str, Callable[[Any], Any]]] = {
    "role": _role,
    "guest": lambda value: parse_guest_name(_text(value)),
    "pairing": lambda value: parse_pairing_id(_text(value)),
    "generation": _integer(0, 2**53),
    "host": lambda value: parse_host_name(_text(value)),
    "peer": lambda value: parse_host_name(_text(value)),
    "secret": _secret,
    "transport_kind": _text,
    "transport_options": _options,
    "tls": _files,
    "backup_options": _options,
    "address": _text,
    "backup_address": _text,
    "receive_argv": _argv,
    "pause_argv": _argv,
    "exists_argv": _argv,
    "ping_interval_s": _number(0.01, 60),
    "silence_s": _number(0.05, 3600),
    "staging_bytes": _integer(1 << 20, 1 << 40),
    "ack_timeout_s": _number(0.1, 3600),
    "connect_timeout_s": _number(0.1, 3600),
    "pause_timeout_s": _number(0.1, 3600),
    "resume_bytes": _resume_bytes,
    "rate_bytes_per_s": _integer(0, 1 << 40),
    "gate": parse_gate,
    "deltas": parse_deltas,
    "image": parse_image,
    "colo": parse_colo,
}
