"""Who an operator is: by certificate over TCP, by its word on the unix socket."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from functools import lru_cache
from typing import Any, Final, cast

from cryptography import x509
from cryptography.x509.oid import NameOID

from colod.errors import NotPermitted
from colod.rpc.tls import ROLE_PREFIX, names_of_hosts, read_certificate, role_units

OPERATOR_KEY: Final = "colod-operator-bin"
"""Metadata by which who uses the unix socket says who it is; nobody believes it over TCP."""

NAME_MAX_CHARS: Final = 64
"""Longest name: a common name has no more."""

HERE: Final = "unix"
"""The address of who uses the unix socket."""

_ANEW: Final = "have a certificate made: colodctl pki issue-operator NAME --role ROLE"


class OperatorRole(IntEnum):
    """What an operator may do; each role may do all that a smaller one may."""

    VIEWER = 1
    OPERATOR = 2
    ADMIN = 3

    @property
    def word(self) -> str:
        """Its name, as people write it."""
        return self.name.lower()

    @property
    def unit(self) -> str:
        """The organizational unit that names it in a certificate."""
        return f"{ROLE_PREFIX}{self.word}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """Who asks.

    Attributes:
        name: Of the certificate; on the unix socket what the caller says of itself, "" if nothing.
        role: What it may do.
        address: Where it asks from, as gRPC has it; `unix` on this host.
    """

    name: str
    role: OperatorRole
    address: str

    @property
    def is_remote(self) -> bool:
        """Whether it has proven its name."""
        return self.address != HERE

    def __str__(self) -> str:
        """Name it as records of its orders do."""
        return f"{self.name} ({self.role.word})"


def remote_operator(context: Any) -> Operator:
    """Return who makes a call over TLS.

    Args:
        context: Of the call, as gRPC has it.

    Raises:
        NotPermitted: If the certificate is no operator's, or out of date.
    """
    # gRPC's types have bytes where it gives a list of them.
    proven = cast("Mapping[str, Sequence[bytes]]", context.auth_context())
    name, role, begin, end = _read(next(iter(proven.get("x509_pem_cert", ())), b""))
    # The handshake asks for that too, but a connection may live longer than a certificate.
    if not begin <= datetime.now(UTC) <= end:
        raise NotPermitted(
            f"the certificate of {name} is valid from {begin:%F} to {end:%F}", advice=_ANEW
        )
    return Operator(name=name, role=role, address=str(context.peer()))


def local_operator(context: Any) -> Operator:
    """Return who makes a call on the unix socket: whoever may use that may do all."""
    said = dict(context.invocation_metadata() or ()).get(OPERATOR_KEY, b"")
    name = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
    return Operator(name=name[:NAME_MAX_CHARS], role=OperatorRole.ADMIN, address=HERE)


def operator_in(certificate: x509.Certificate) -> tuple[str, OperatorRole]:
    """Return the name and the role in an operator's certificate.

    Raises:
        NotPermitted: If it names no role, several, or one that there is not; a host; or not exactly
            one name that can be printed.
    """
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    name = str(names[0].value) if len(names) == 1 else ""
    if not name.strip() or not name.isprintable() or len(name) > NAME_MAX_CHARS:
        raise NotPermitted(
            "the certificate does not have one common name, or no sound one", advice=_ANEW
        )
    return name, _role(name, certificate)


def _role(name: str, certificate: x509.Certificate) -> OperatorRole:
    units = role_units(certificate)
    known = {role.unit: role for role in OperatorRole}
    want = f"want one organizational unit of {', '.join(known)}"
    if not units:
        raise NotPermitted(f"the certificate of {name} names no role: {want}", advice=_ANEW)
    if len(units) > 1:
        raise NotPermitted(
            f"the certificate of {name} names several roles ({', '.join(units)}): {want}",
            advice=_ANEW,
        )
    if units[0] not in known:
        raise NotPermitted(
            f"the certificate of {name} names a role that is not known, {units[0]}: {want}",
            advice=_ANEW,
        )
    if hosts := names_of_hosts(certificate):
        raise NotPermitted(
            f"the certificate of {name} is of a host too ({', '.join(hosts)}): no host is one",
            advice=_ANEW,
        )
    return known[units[0]]


@lru_cache(maxsize=64)  # the same few callers ask again and again
def _read(pem: bytes) -> tuple[str, OperatorRole, datetime, datetime]:
    try:
        certificate = read_certificate(pem)
        name, role = operator_in(certificate)
    except ValueError as error:
        raise NotPermitted(f"the certificate cannot be read: {error}", advice=_ANEW) from error
    return name, role, certificate.not_valid_before_utc, certificate.not_valid_after_utc
