"""Value types that every part of colod shares: names, roles, counters, a protection's terms."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NewType

HostName = NewType("HostName", str)
"""A host's name as its certificate and the configuration give it."""

GuestName = NewType("GuestName", str)
"""A Xen domain's name; also the name of its protection."""

Generation = NewType("Generation", int)
"""Counter of ownership changes, the fencing token; 0 means that none is known."""

Epoch = NewType("Epoch", int)
"""Number of a checkpoint, from 1; what lies between checkpoints N-1 and N is epoch N."""

PairingId = NewType("PairingId", str)
"""One replication run shared by two sessions: 32 lower-case hexadecimal digits."""

FIRST_PROMOTABLE_EPOCH = Epoch(2)
"""The first checkpoint whose barrier lock-step can make certain (docs/architecture.md)."""

INCOMING_SUFFIX = "--incoming"
"""What xl appends to the name of a domain that is being received (tools/xl/xl_vmcontrol.c)."""

DRILL_SUFFIX = "--drill"
"""What colod appends to the name of a domain that a drill restores beside the replica."""

QUARANTINE_INFIX = "--quarantine-"
"""What colod puts between the name of a guest and a generation, for a copy that lost it."""

# Xen's own tools accept more; these are safe in unit names, paths and metric labels.
_GUEST_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,62}")
_QUARANTINED = re.compile(rf"(.+){QUARANTINE_INFIX}([1-9][0-9]{{0,19}})")
_HOST_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,61}[A-Za-z0-9])?")
_PAIRING = re.compile(r"[0-9a-f]{32}")


class Role(StrEnum):
    """What a host is for one guest."""

    PRIMARY = "primary"
    SECONDARY = "secondary"


class Mode(StrEnum):
    """How a guest is replicated."""

    REMUS = "remus"
    COLO = "colo"


class Disks(StrEnum):
    """What the operator says of the guest's disks, since colod does not replicate them yet."""

    NONE = "none"
    SHARED = "shared"
    EXTERNAL = "external"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Who this host is, who the other one is, and the files that prove it (`[tls]`).

    The files may be replaced at any time: they are read anew for each connection.

    Attributes:
        host: This host, the DNS name in its certificate.
        peer: The other host, the only one to talk to, the DNS name in its certificate.
        ca: The authority that both trust.
        certificate: This host's certificate.
        key: Its private key.
    """

    host: HostName
    peer: HostName
    ca: Path
    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Protection:
    """The terms on which a guest is protected.

    Attributes:
        guest: The domain's name.
        primary: The host that asked for the protection.
        secondary: The host that holds the replica at first; both swap by failover.
        disks: What the operator said of the guest's disks.
        mode: How the guest is replicated.
        interval_ms: Time from one commit to the next checkpoint, 20 to 60000 ms.
    """

    guest: GuestName
    primary: HostName
    secondary: HostName
    disks: Disks
    mode: Mode = Mode.REMUS
    interval_ms: int = 200

    def other(self, host: HostName) -> HostName:
        """Return the host of the two that is not `host`."""
        return self.secondary if host == self.primary else self.primary


def parse_guest_name(text: str) -> GuestName:
    """Return `text` as a guest's name.

    Raises:
        ValueError: If it is not 1 to 63 of `A-Za-z0-9_.+-`, or ends as xl's temporary names do.
    """
    if not _GUEST_NAME.fullmatch(text):
        raise ValueError(f"guest name {text!r}: want 1 to 63 of A-Z a-z 0-9 _ . + -")
    if text.endswith(INCOMING_SUFFIX):
        raise ValueError(f"guest name {text!r}: xl uses the suffix {INCOMING_SUFFIX} itself")
    return GuestName(text)


def parse_host_name(text: str) -> HostName:
    """Return `text` as a host's name.

    Raises:
        ValueError: If it is not a DNS name of at most 63 characters.
    """
    if not _HOST_NAME.fullmatch(text):
        raise ValueError(f"host name {text!r}: want 1 to 63 of A-Z a-z 0-9 . -")
    return HostName(text)


def parse_pairing_id(text: str) -> PairingId:
    """Return `text` as a pairing's id.

    Raises:
        ValueError: If it is not 32 lower-case hexadecimal digits.
    """
    if not _PAIRING.fullmatch(text):
        raise ValueError(f"pairing id {text!r}: want 32 lower-case hexadecimal digits")
    return PairingId(text)


def quarantine_name(guest: GuestName, generation: Generation) -> str:
    """Return how a copy of `guest` is named that was put aside under `generation`."""
    return f"{guest}{QUARANTINE_INFIX}{generation}"


def parse_quarantine_name(text: str) -> tuple[GuestName, Generation] | None:
    """Return the guest and the generation that a copy's name tells, None of any other domain."""
    found = _QUARANTINED.fullmatch(text)
    return None if found is None else (GuestName(found[1]), Generation(int(found[2])))
