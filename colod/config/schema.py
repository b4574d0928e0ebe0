"""The tables of the configuration and what each of their fields means.

Every field says what breaks at either end of its range; `docs/configuration.md` is made of this
text.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    model_validator,
)

from colod.config.budget import least_watchdog_s, time_budget, watchdog_needs
from colod.model import Credentials, HostName, parse_host_name

DEFAULT_ORIGIN = "default"
"""What `Config.origin` says of a value that no file sets."""

_SOCKET_PATH_MAX_BYTES = 107  # sun_path of unix(7) less its terminator
_PINGS_PER_SILENCE = 3  # fewer would let one lost packet look like a dead host
_LOOKS = 1.1  # a session looks for silence ten times in that time
_HOLD_S = 1.0  # for xl to pause the guest
_MOST_MORE = 3
_RESUME_MIB = 16
_RESUME_LEAST_MIB = 2  # room for the longest write of a session
_EVERYWHERE = frozenset({"0.0.0.0", "::"})


def split_address(text: str) -> tuple[str, int]:
    """Return host and port of `host:port` or `[v6-address]:port`.

    Raises:
        ValueError: If it has no port from 0 to 65535, or no host.
    """
    host, colon, port = text.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not host or not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise ValueError(f"{text!r}: want host:port (an IPv6 address in brackets)")
    return host, int(port)


def _check_address(text: str) -> str:
    split_address(text)
    return text


def _check_numeric_address(text: str) -> str:
    if text:
        ip_address(split_address(text)[0])
    return text


def _check_absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError(f"{path}: want an absolute path, the daemon's directory is not yours")
    return path


def _check_host_name(text: str) -> str:
    return parse_host_name(text)


def _check_argv(argv: list[str]) -> list[str]:
    if not argv or not all(argv):
        raise ValueError("want a command: a list of at least one word, none of them empty")
    return argv


def _scalar_text(value: object) -> object:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


Address = Annotated[str, AfterValidator(_check_address)]
OptionalNumericAddress = Annotated[str, AfterValidator(_check_numeric_address)]
HostNameText = Annotated[str, AfterValidator(_check_host_name)]
AbsolutePath = Annotated[Path, AfterValidator(_check_absolute)]
Argv = Annotated[list[str], AfterValidator(_check_argv)]
OptionText = Annotated[str, BeforeValidator(_scalar_text)]


_LEAST_EVERY_S = 10.0
"""Names of images tell the second; and each image is all of a guest's memory."""


def _quantity(default: float, low: float, high: float, description: str) -> Any:
    return Field(default=default, ge=low, le=high, strict=True, description=description)


class Table(BaseModel):
    """Base of every table: immutable, and a key that it does not have is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class KindTable(Table):
    """A table whose `kind` names a plug-in; all keys that it does not have are that one's."""

    @model_validator(mode="before")
    @classmethod
    def _gather_options(cls, table: object) -> object:
        if not isinstance(table, Mapping):
            return table
        own = cls.model_fields.keys()
        named = {key: value for key, value in table.items() if key in own and key != "options"}
        options = {key: value for key, value in table.items() if key not in own}
        given = table.get("options", {})
        if not isinstance(given, Mapping):
            return table
        return {**named, "options": {**given, **options}}


class HostTable(Table):
    """This host."""

    name: HostNameText = Field(
        default_factory=platform.node,
        description="Name of this host, the same in its certificate and in the peer's `peer.name`. "
        "Another name than the certificate's: the peer refuses every call.",
        json_schema_extra={"default_text": "the kernel's host name"},
    )
    state_directory: AbsolutePath = Field(
        default=Path("/var/lib/colod"),
        description="The journal. It must outlive a reboot: on a tmpfs a returning host would not "
        "know that it may no longer be the owner, and asks for an operator.",
    )
    runtime_directory: AbsolutePath = Field(
        default=Path("/run/colod"),
        description="Sockets of the daemon and of the sessions. It must be empty after a boot and "
        "survive a restart of the daemon, or running sessions are not found again.",
    )


class AdminTable(Table):
    """What `colodctl` talks to: the socket on this host, and a port for other machines."""

    group: str | None = Field(
        default=None,
        min_length=1,
        description="Group that may use the socket (mode 0660). Without it, or where this host has "
        "no such group when colod starts, only root may (`doctor` says so). Its "
        "members can stop, move and promote guests: do not name a group that everybody is in.",
        json_schema_extra={"default_text": "none"},
    )
    listen: OptionalNumericAddress = Field(
        default="",
        description="`ADDRESS:PORT` where operators of other machines are heard, as "
        "`192.0.2.1:7413`; nothing listens without it. TLS with the host's certificate, and only "
        "for operators' certificates of the authority in `tls.ca`, each with a role "
        "([cli.md](cli.md#from-another-machine)). On the replication link: a flood there delays "
        "epochs. In force from the next restart on.",
    )


class PeerTable(Table):
    """The other host."""

    listen: Address = Field(
        default="0.0.0.0:7411",
        description="Address and port on which this host hears the peer. A network that is not "
        "the replication link's works, but then its failure looks like the peer's death.",
    )
    name: HostNameText = Field(
        description="Name in the peer's certificate. Wrong: all calls are refused both ways."
    )
    address: Address = Field(
        description="Address and port of the peer's daemon. Wrong: the peer is never reached."
    )
    more_addresses: list[Address] = Field(
        default_factory=list,
        max_length=_MOST_MORE,
        description="Addresses of the peer's daemon in further networks, over which the hosts beat "
        "as well: the peer is suspected only when all are silent, and the sessions too. In the "
        "same network as `address`: its failure looks like the peer's death all the same.",
    )
    more_listen: list[Address] = Field(
        default_factory=list,
        max_length=_MOST_MORE,
        description="Further addresses and ports on which this host hears the peer, where `listen` "
        "does not cover them. One that cannot be used is reported, and the others serve.",
    )

    @model_validator(mode="after")
    def _check_networks(self) -> Self:
        problems = [
            f"{name}: {each} is named twice"
            for name, addresses in (
                ("more_addresses", [self.address, *self.more_addresses]),
                ("more_listen", [self.listen, *self.more_listen]),
            )
            for each in sorted({each for each in addresses if addresses.count(each) > 1})
        ]
        host, port = split_address(self.listen)
        problems += [
            f"more_listen: {each}: listen {self.listen} hears that already"
            for each in self.more_listen
            if host in _EVERYWHERE and split_address(each)[1] == port and each != self.listen
        ]
        if problems:
            raise ValueError("; ".join(problems))
        return self


class TlsTable(Table):
    """Certificates of the hosts, for daemons, `tls` and `grpc`; `colodctl pki` makes them."""

    ca: AbsolutePath = Field(
        default=Path("/etc/colod/tls/ca.pem"),
        description="The authority both hosts trust. Everyone it certifies under the peer's name "
        "can act as the peer: use one of its own, not the company's.",
    )
    certificate: AbsolutePath = Field(
        default=Path("/etc/colod/tls/host.pem"),
        description="This host's certificate; its DNS name is the host's name. Expired: the "
        "daemons no longer hear each other, and no new pairing is made.",
    )
    key: AbsolutePath = Field(
        default=Path("/etc/colod/tls/host.key"),
        description="Its private key, mode 0600. Readable by others: they can act as this host.",
    )


class TransportTable(KindTable):
    """What carries the epochs between the sessions."""

    kind: str = Field(
        default="tcp",
        min_length=1,
        description="Name of the transport (entry-point group `colod.transports`), the same on "
        "both hosts: `tls`, `ssh` (the operator's own, no port but sshd's), `grpc` (where only "
        "gRPC passes), `tcp` (neither encrypted nor protected: for a link of the two hosts alone) "
        "or `unix` (only for two daemons on one machine). See `docs/transports.md`.",
    )
    options: dict[str, OptionText] = Field(
        default_factory=dict,
        description="Every other key of the table, as the transport's page has it.",
    )
    dscp: OptionText | None = Field(
        default=None,
        description="How packets of the link are marked, 0 to 63 or a name (`ef`, `af21`, `cs1`, "
        "`le`), on both hosts. One that the network serves last: epochs are late when it is busy, "
        "and output is held. One that it serves first: other services suffer from a first copy.",
        json_schema_extra={"default_text": "as the system, or ssh, has it"},
    )
    rate_limit_mbit: float = Field(
        default=0.0,
        ge=0.0,
        le=100_000.0,
        strict=True,
        description="Most that each guest's sender on this host puts on the link, in Mbit/s; 0: as "
        "fast as it goes, else at least 1. Smaller: a guest that dirties memory faster is slowed, "
        "and its output late. Larger: a first copy may delay other guests' epochs.",
    )

    backup: dict[str, OptionText] | None = Field(
        default=None,
        description="Table `[transport.backup]`: the plug-in's own keys for a second path between "
        "the hosts, on both, in full; nothing is taken over from the first. The link goes on over "
        "it when the first one breaks. Over the same switch or cable: both fail at once.",
        json_schema_extra={"default_text": "none"},
    )

    @property
    def path_options(self) -> Mapping[str, str]:
        """The plug-in's own options, and how packets are marked."""
        return self._marked(self.options)

    @property
    def backup_options(self) -> Mapping[str, str] | None:
        """The same for the second path, None without one."""
        return None if self.backup is None else self._marked(self.backup)

    @property
    def paths(self) -> Sequence[Mapping[str, str]]:
        """The options of each path, the preferred one first."""
        backup = self.backup_options
        return [self.path_options, *([] if backup is None else [backup])]

    def _marked(self, options: Mapping[str, str]) -> Mapping[str, str]:
        return options if self.dscp is None else {"dscp": self.dscp, **options}

    @property
    def rate_bytes_per_s(self) -> int:
        """The limit of the rate in bytes per second, 0 for none."""
        return int(self.rate_limit_mbit * 1e6 / 8)

    @model_validator(mode="after")
    def _check_paths(self) -> Self:
        problems = []
        if 0.0 < self.rate_limit_mbit < 1.0:
            problems.append(f"rate_limit_mbit {self.rate_limit_mbit:g}: want 0 or at least 1")
        if self.backup is not None and self.backup == self.options:
            problems.append("backup: is the same path as the first one, and fails with it")
        if problems:
            raise ValueError("; ".join(problems))
        return self


class WitnessTable(KindTable):
    """Who keeps the ownership records."""

    kind: str = Field(
        min_length=1,
        description="Name of the witness (entry-point group `colod.witnesses`): `etcd`, `file` "
        "(only for two daemons on one machine) or `manual` (nothing fails over by itself).",
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="Every other key of the table, as the witness's page has it.",
    )


class FencingTable(KindTable):
    """How the other host is proven unable to write."""

    kind: str = Field(
        default="none",
        min_length=1,
        description="Name of the fencer (entry-point group `colod.fencers`). With `none`, guests "
        "on shared storage cannot be protected.",
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="Every other key of the table, as the fencer's page has it.",
    )


class SelfFenceTable(Table):
    """A second line: a watchdog resets this host if it can neither ask nor stop its guest."""

    kind: Literal["none", "watchdog", "simulated"] = Field(
        default="none",
        description="`watchdog` arms `device` while a guest of this host may be taken over "
        "(docs/fencing.md). It never counts as proof that a host is off: shared storage needs "
        "`[fencing]` all the same. `simulated`: a pipe for demos and tests, which resets nothing.",
    )
    device: AbsolutePath = Field(
        default=Path("/dev/watchdog"),
        description="The watchdog, which no other program may hold (systemd's RuntimeWatchdogSec=, "
        "sbd). Xen's own is the one of the driver `xen_wdt`, which also resets a host whose dom0 "
        "hangs. See `/sys/class/watchdog/*/identity`.",
    )
    timeout_s: int = _quantity(
        120,
        1,
        3600,
        "Time from the last feed to the reset, whole seconds. Smaller: a daemon that crashes, or "
        "is slow to come back, costs the host; `config check` knows the least. Larger: a guest "
        "that this host cannot stop goes on for longer beside the one that took over.",
    )
    mode: Literal["automatic", "required"] = Field(
        default="automatic",
        description="What happens if the watchdog cannot be armed: `automatic` protects the guest "
        "without it and says so, `required` does not let the other host take over before it is "
        "armed: the guest stays SYNCING. A takeover by this host never waits for it.",
    )

    @property
    def is_required(self) -> bool:
        """Whether the other host may take over only while the watchdog is armed."""
        return self.kind != "none" and self.mode == "required"


class DetectionTable(Table):
    """When the other side is taken for dead: when to ask for ownership, never whether."""

    beat_interval_s: float = _quantity(
        0.5,
        0.05,
        10.0,
        "Time between two heartbeats of the daemons. Smaller: more load and log, nothing gained "
        "below a third of suspect_after_s. Larger: death is noticed later.",
    )
    suspect_after_s: float = _quantity(
        5.0,
        0.5,
        300.0,
        "Silence after which the peer is suspected and ownership is asked for. Smaller: a busy "
        "dom0 or a network that reconverges causes a failover. Larger: a longer outage.",
    )
    session_silence_s: float = _quantity(
        3.0,
        0.3,
        120.0,
        "Silence after which a session takes the other session for lost. Smaller: a long pause of "
        "xl ends a pairing, and the guest is copied anew. Larger: output is held that long.",
    )
    ping_interval_s: float = _quantity(
        0.5,
        0.05,
        10.0,
        "Time between two pings of the sessions. Smaller: wake-ups for nothing. Larger: fewer "
        "chances to be heard before session_silence_s ends.",
    )
    carrier_grace_s: float | None = Field(
        default=None,
        ge=0.3,
        le=300.0,
        strict=True,
        description="The same as suspect_after_s for a signal whose network has no link meanwhile: "
        "the device of its route, or each of them, is down. Smaller (not below 1.1 "
        "session_silence_s + 1): a switch that restarts causes a failover. As large as "
        "suspect_after_s: links do not matter.",
        json_schema_extra={
            "default_text": "1.1 session_silence_s + 1, or 3 beat_interval_s if longer"
        },
    )
    standstill_s: float = _quantity(
        5.0,
        0.5,
        600.0,
        "How long a guest may stand still, paused or suspended, before status, log and checks say "
        "so, and why; nothing is done to it. Smaller: a long checkpoint is reported. Larger: the "
        "guest's users notice first.",
    )

    @property
    def carrier_grace(self) -> float:
        """Silence after which a signal without a link counts, in seconds."""
        if self.carrier_grace_s is not None:
            return self.carrier_grace_s
        least_s = max(self._held_s, _PINGS_PER_SILENCE * self.beat_interval_s)
        return min(self.suspect_after_s, least_s)

    @property
    def _held_s(self) -> float:
        """After what time of silence a primary has held its guest, in seconds.

        Its session looks for silence so often, and xl has to pause the guest then. A secondary that
        asked sooner would make a race of it, which a living primary could lose.
        """
        return self.session_silence_s * _LOOKS + _HOLD_S

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        problems = [*self._short_of_pings(), *self._out_of_order()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _short_of_pings(self) -> Iterator[str]:
        """Yield where one lost packet would count as death."""
        yield from (
            f"{_PINGS_PER_SILENCE} x {short} {getattr(self, short):g} is more than "
            f"{long} {getattr(self, long):g}: one lost packet would count as death"
            for short, long in (
                ("ping_interval_s", "session_silence_s"),
                ("beat_interval_s", "suspect_after_s"),
            )
            if _PINGS_PER_SILENCE * getattr(self, short) > getattr(self, long)
        )

    def _out_of_order(self) -> Iterator[str]:
        """Yield what would have the peer suspected before that is safe, or never sooner."""
        suspect_s, grace_s = self.suspect_after_s, self.carrier_grace_s
        if self.session_silence_s > suspect_s:
            yield (
                f"session_silence_s {self.session_silence_s:g} is more than suspect_after_s "
                f"{suspect_s:g}: the peer would be suspected before its sessions are"
            )
        if grace_s is None:
            return
        if grace_s > suspect_s:
            yield (
                f"carrier_grace_s {grace_s:g} is more than suspect_after_s {suspect_s:g}: without "
                f"a link the peer would be suspected later than with one"
            )
        if grace_s < min(self._held_s, suspect_s):
            yield (
                f"carrier_grace_s {grace_s:g} is less than {self._held_s:g} ({_LOOKS:g} x "
                f"session_silence_s + {_HOLD_S:g}): a living primary might not have held its guest"
            )
        if _PINGS_PER_SILENCE * self.beat_interval_s > grace_s:
            yield (
                f"{_PINGS_PER_SILENCE} x beat_interval_s {self.beat_interval_s:g} is more than "
                f"carrier_grace_s {grace_s:g}: a bond that changes its link would count as death"
            )


class ToolstackTable(Table):
    """How Xen is reached."""

    xl: Argv = Field(
        default=["xl"],
        description="Command that runs xl, as a list of words. It runs as root: a file that "
        "others may write gives them the host.",
    )
    xenstore: Argv = Field(
        default=["xenstore"],
        description="Command that reads xenstore (`xenstore read PATH`), as a list of words.",
    )
    launcher: Literal["systemd", "fork"] = Field(
        default="systemd",
        description="What keeps sessions outside the daemon's fate: transient units of systemd, "
        "or a double fork (no systemd; then nothing shields them from the daemon's cgroup).",
    )
    command_timeout_s: float = _quantity(
        30.0,
        1.0,
        600.0,
        "Bound on one command of the toolstack. Smaller: a busy host's slow answer counts as "
        "unknown, and a takeover stops half-way for an operator. Larger: a hung xl is seen later.",
    )
    guest_configs: AbsolutePath = Field(
        default=Path("/etc/xen"),
        description="Where each guest's configuration file is, `NAME.cfg`, on both hosts: a guest "
        "that reboots is started from it again. The xl that does so elsewhere is gone after the "
        "first checkpoint.",
    )
    guest_end_wait_s: float = _quantity(
        15.0,
        0.1,
        600.0,
        "How long a guest has been down before colod does what its configuration says (`on_reboot` "
        "and so on). Smaller: an xl that is still there, and slow, does the same at the same time. "
        "Larger: a guest that reboots is down for longer.",
    )


class SessionTable(Table):
    """The processes that move a guest's state."""

    staging_mib: int = _quantity(
        256,
        8,
        65536,
        "Memory for what is not yet acknowledged, per protection and host. Smaller: a guest that "
        "dirties much is throttled, or never gets into step. Larger: dom0 may run out of memory.",
    )
    ack_timeout_s: float = _quantity(
        60.0,
        1.0,
        3600.0,
        "How long a checkpoint that was sent may stay without an acknowledgement while the other "
        "host lives: its xl hangs, and the guest is mute. Then the guest goes on alone. Smaller: "
        "a busy dom0 there ends the pairing. Larger: the guest is mute for longer.",
    )
    deltas: Literal["off", "none", "zstd-1"] = Field(
        default="off",
        description="Send pages as what changed in them: `zstd-1` packs the changes, `none` does "
        "not. `off` sends every dirty page whole. Both hosts must allow it.",
    )
    page_store_mib: int = _quantity(
        256,
        1,
        65536,
        "Memory for earlier contents of pages, per protection and host, where deltas are used. "
        "Smaller: less is saved of what the guest writes again and again. Larger: dom0 may run "
        "out of memory.",
    )
    resume_mib: int | None = Field(
        default=None,
        ge=0,
        le=4096,
        strict=True,
        description="Memory, per protection and host, for what may have to be sent again: a link "
        "that breaks is mended then, over any path, within half of session_silence_s, without a "
        "new full copy. Both hosts must allow it. 0: its first break ends the pairing. Smaller, at "
        "least 2: a long way carries less. Larger: dom0 may run out of memory.",
        json_schema_extra={"default_text": "16 with a `[transport.backup]`, else 0"},
    )
    command: Argv = Field(
        default_factory=lambda: [str(Path(sys.executable).with_name("colod-session"))],
        description="Command that runs a session, as a list of words. Another version than the "
        "daemon's works within the versions both speak.",
        json_schema_extra={"default_text": "`colod-session` beside the daemon's Python"},
    )


class CheckpointsTable(Table):
    """Images of replicas that this host holds, for drills and for `checkpoint export`."""

    keep: bool = Field(
        default=False,
        strict=True,
        description="Whether a secondary keeps its replica's pages on disk too, so that an image "
        "of the newest epoch can be written at any time. The disk then takes every byte that the "
        "guest dirties, and room for all its memory. In force from the next pairing on.",
    )
    directory: AbsolutePath = Field(
        default=Path("/var/lib/colod/checkpoints"),
        description="Where pages and images are kept; they hold all that is in the guests' memory. "
        "On a tmpfs they would take dom0's. On a slow disk the image is given up, not the replica.",
    )
    store_mib: int = _quantity(
        65536,
        1,
        16777216,
        "Most that the pages of one guest may take there. Smaller: of a guest with more memory no "
        "image is kept. Larger: a guest may fill the disk, which ends its image too.",
    )
    every_s: float = _quantity(
        0.0,
        0.0,
        2592000.0,
        "How often an image of each replica is written without being asked, at least 10 s; 0 for "
        "never. Smaller: the disk writes all of a guest's memory again and again. Larger: the "
        "newest image is that much older than the replica.",
    )
    keep_images: int = _quantity(
        24,
        1,
        1000,
        "How many of those are kept of each guest; older ones are removed, once a newer one is "
        "whole. Smaller: a guest that corrupted itself earlier is lost. Larger: space.",
    )
    scheduled_mib: int = _quantity(
        65536,
        1,
        16777216,
        "Most that all of those together may take. Smaller: fewer than `keep_images` are kept, and "
        "where not two of a guest fit, none is written after the first. Larger: they may fill the "
        "disk, which ends images too.",
    )

    @model_validator(mode="after")
    def _check_schedule(self) -> Self:
        if 0 < self.every_s < _LEAST_EVERY_S:
            raise ValueError(f"every_s {self.every_s:g} is less than {_LEAST_EVERY_S:g}, and not 0")
        if self.every_s and not self.keep:
            raise ValueError("every_s needs keep = true")
        return self


class OutputTable(Table):
    """Whether a protected guest's output waits until the secondary has what it depends on."""

    hold: Literal["automatic", "off"] = Field(
        default="automatic",
        description="`automatic` holds it wherever the kernel can (ifb, sch_plug, act_mirred). "
        "`off` lets it out at once: a failover may then lose what clients have seen already.",
    )
    limit_mib: int = _quantity(
        32,
        1,
        2047,
        "Most that is held of each interface. Smaller: a burst is dropped, and TCP slows down. "
        "Larger: dom0's memory may be taken by a guest that floods the network.",
    )


class PolicyTable(Table):
    """What is done without being asked."""

    takeover: Literal["automatic", "manual"] = Field(
        default="automatic",
        description="Whether a secondary takes over by itself when the other host is lost. "
        "`manual` keeps everything as it is until `colodctl failover`, as for work on the network "
        "between the hosts; read again at SIGHUP.",
    )
    resync: Literal["automatic", "manual"] = Field(
        default="automatic",
        description="Whether an owner that is alone pairs again when the peer is back. `manual` "
        "leaves the guest unprotected until `colodctl resume`.",
    )
    resync_backoff_s: float = _quantity(
        5.0,
        0.5,
        3600.0,
        "Wait before the next attempt to pair; doubled with each that fails until one has come to "
        "protect the guest. Smaller: a first copy that cannot succeed eats the link. Larger: "
        "unprotected for longer.",
    )
    resync_backoff_max_s: float = _quantity(
        300.0,
        1.0,
        86400.0,
        "The longest such wait. Smaller: load while the cause lasts. Larger: unprotected for "
        "that long after the cause is gone.",
    )
    quarantine: Literal["discard", "keep"] = Field(
        default="discard",
        description="What happens to the old copy when a host returns and no longer owns the "
        "guest. `keep` puts it aside, paused, for inspection: its memory stays taken until "
        "`colodctl quarantine discard`, and may be missing for the next replica.",
    )

    @model_validator(mode="after")
    def _check_backoff(self) -> Self:
        if self.resync_backoff_s > self.resync_backoff_max_s:
            raise ValueError(
                f"resync_backoff_s {self.resync_backoff_s:g} is more than resync_backoff_max_s "
                f"{self.resync_backoff_max_s:g}"
            )
        return self


class LogTable(Table):
    """What the daemon writes on standard error (under systemd: the journal)."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info",
        description="Lowest level that is written. `debug` has lines for every epoch. Above "
        "`info` the changes of role are missing after an incident.",
    )
    format: Literal["json", "console"] = Field(
        default="json",
        description="`json`, one object per line, or `console`, for eyes only and not stable.",
    )


class ObserveTable(Table):
    """What the daemon says of itself over HTTP (docs/http.md)."""

    listen: OptionalNumericAddress = Field(
        default="",
        description="`ADDRESS:PORT` of metrics, status and checks for load balancers, as "
        "`127.0.0.1:7412`; nothing listens without it. Any but a loopback address speaks TLS, with "
        "the host's certificate, and only to clients that have one of the same authority.",
    )


class Config(Table):
    """The whole configuration of one host."""

    host: HostTable = Field(default_factory=HostTable)
    admin: AdminTable = Field(default_factory=AdminTable)
    peer: PeerTable
    tls: TlsTable = Field(default_factory=TlsTable)
    transport: TransportTable = Field(default_factory=TransportTable)
    witness: WitnessTable
    fencing: FencingTable = Field(default_factory=FencingTable)
    self_fence: SelfFenceTable = Field(default_factory=SelfFenceTable)
    detection: DetectionTable = Field(default_factory=DetectionTable)
    toolstack: ToolstackTable = Field(default_factory=ToolstackTable)
    session: SessionTable = Field(default_factory=SessionTable)
    checkpoints: CheckpointsTable = Field(default_factory=CheckpointsTable)
    output: OutputTable = Field(default_factory=OutputTable)
    policy: PolicyTable = Field(default_factory=PolicyTable)
    observe: ObserveTable = Field(default_factory=ObserveTable)
    log: LogTable = Field(default_factory=LogTable)

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    @property
    def admin_socket(self) -> Path:
        """Path of the daemon's unix socket."""
        return self.host.runtime_directory / "admin.sock"

    @property
    def credentials(self) -> Credentials:
        """Who the two hosts are, and the files that prove this one."""
        return Credentials(
            host=HostName(self.host.name),
            peer=HostName(self.peer.name),
            ca=self.tls.ca,
            certificate=self.tls.certificate,
            key=self.tls.key,
        )

    def origin(self, path: str) -> str:
        """Return the file that set `path` (`log.level`), or `default`."""
        return self._origins.get(path, DEFAULT_ORIGIN)

    def with_origins(self, origins: Mapping[str, str]) -> Self:
        """Return a copy that knows which file set each path."""
        copy = self.model_copy()
        copy._origins = dict(origins)
        return copy

    @property
    def resume_bytes(self) -> int:
        """Memory for what may have to be sent again, 0 where a link ends at its first break."""
        mib = self.session.resume_mib
        if mib is None:
            mib = _RESUME_MIB if self.transport.backup is not None else 0
        return mib << 20

    @property
    def least_watchdog_s(self) -> int:
        """The shortest time-out of a watchdog that resets no host whose daemon only restarts."""
        if self.self_fence.kind != "watchdog":
            return 1
        return least_watchdog_s(self)

    def time_budget(self) -> list[str]:
        """Return lines that add up the longest unplanned outage, from death to a running copy."""
        return time_budget(self)

    @model_validator(mode="after")
    def _check_tables(self) -> Self:
        problems = []
        if self.host.name == self.peer.name:
            problems.append(f"host.name and peer.name are both {self.host.name!r}")
        length_bytes = len(bytes(self.admin_socket))
        if length_bytes > _SOCKET_PATH_MAX_BYTES:
            problems.append(
                f"host.runtime_directory: {self.admin_socket} has {length_bytes} bytes, the "
                f"kernel takes {_SOCKET_PATH_MAX_BYTES} for a socket"
            )
        least_s = self.least_watchdog_s
        if self.self_fence.kind == "watchdog" and self.self_fence.timeout_s < least_s:
            problems.append(
                f"self_fence.timeout_s {self.self_fence.timeout_s} is less than {least_s}: "
                f"{' or '.join(watchdog_needs(self))}"
            )
        if 0 < self.resume_bytes < _RESUME_LEAST_MIB << 20:
            problems.append(f"session.resume_mib: want 0 or at least {_RESUME_LEAST_MIB}")
        if self.transport.backup is not None and not self.resume_bytes:
            problems.append("transport.backup: of no use while session.resume_mib is 0")
        if problems:
            raise ValueError("; ".join(problems))
        return self
