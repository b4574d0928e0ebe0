"""Mutual TLS: keys from PEM files, and who a certificate is of.

A host is what the DNS names of its certificate say. An operator is what its organizational unit
says (`colod.rpc.operators`). A certificate that says both is nobody's.
"""

from __future__ import annotations

import contextlib
import ssl
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Final, TypeVar

import grpc
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from colod.errors import ConfigError

_USES = {
    ExtendedKeyUsageOID.SERVER_AUTH: "TLS servers",
    ExtendedKeyUsageOID.CLIENT_AUTH: "TLS clients",
}
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_Extension = TypeVar("_Extension", bound=x509.ExtensionType)

ROLE_PREFIX: Final = "colod-"
"""What an organizational unit begins with that names an operator's role.

The subject, and no name in an extension: every tool that makes certificates can set it, and
authorities that sign requests keep it. Kubernetes has its groups in the organization; that is the
company's name in a company's certificates, and units are what is below it.
"""

ROLE_UNITS: Final = tuple(f"{ROLE_PREFIX}{role}" for role in ("viewer", "operator", "admin"))
"""Those that there are; no host has one of them. Other units of a host's are its owner's."""


@dataclass(frozen=True, slots=True)
class TlsIdentity:
    """What a host proves itself with, and whom it believes.

    Attributes:
        ca: PEM of the authority that both hosts trust.
        certificate: PEM of this host's certificate (and what lies between it and the authority).
        key: PEM of its private key; not shown.
    """

    ca: bytes
    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        """Name the host and never the key."""
        return f"TlsIdentity({', '.join(dns_names(self.certificate))})"

    @property
    def valid_until(self) -> datetime:
        """The last moment at which the other host believes the certificate, in UTC."""
        return min(each.not_valid_after_utc for each in self._certificates())

    def date_problems(self, now: datetime) -> Sequence[str]:
        """Return what is out of date at `now`, or not yet valid: the hosts do not hear each other.

        That may mend itself, where the clock is wrong, and epochs do not wait for it.
        """
        return [
            f"tls.{name}: valid from {each.not_valid_before_utc:%F} to "
            f"{each.not_valid_after_utc:%F}, now is {now:%F}"
            for name, each in zip(("ca", "certificate"), self._certificates(), strict=True)
            if not each.not_valid_before_utc <= now <= each.not_valid_after_utc
        ]

    def _certificates(self) -> tuple[x509.Certificate, x509.Certificate]:
        """Return the authority's and this host's; of several authorities, the one that counts.

        That is the one that issued this host's certificate; where none did so directly, the one
        that ends last.
        """
        own = x509.load_pem_x509_certificate(self.certificate)
        known = x509.load_pem_x509_certificates(self.ca)
        issuers = [each for each in known if is_issued_by(each, own)] or known
        return max(issuers, key=lambda each: each.not_valid_after_utc), own

    def server_credentials(self) -> grpc.ServerCredentials:
        """Return credentials that admit only clients with a certificate of the authority."""
        pair = (self.key, self.certificate)
        return grpc.ssl_server_credentials([pair], self.ca, require_client_auth=True)

    def server_context(self) -> ssl.SSLContext:
        """Return the same for a server of the standard library, from TLS 1.2 on."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        # Without the words that a PEM file may hold between its certificates, in any encoding.
        authorities = x509.load_pem_x509_certificates(self.ca)
        context.load_verify_locations(
            cadata=b"".join(each.public_bytes(Encoding.DER) for each in authorities)
        )
        # The standard library reads keys from files only; this one is its
        # owner's alone, and goes with the block.
        with NamedTemporaryFile() as pair:
            pair.write(self.certificate + b"\n" + self.key)
            pair.flush()
            context.load_cert_chain(pair.name)
        return context

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Return credentials that present this host's certificate."""
        return grpc.ssl_channel_credentials(self.ca, self.key, self.certificate)


def load_identity(ca: Path, certificate: Path, key: Path, *, host: str) -> TlsIdentity:
    """Read and check the three files.

    Args:
        ca: The authority's certificate.
        certificate: This host's certificate.
        key: Its private key.
        host: The name that the certificate must have.

    Raises:
        ConfigError: With every problem: unreadable, open to others, another host's. Dates are not
            among them: see `TlsIdentity.date_problems`.
    """
    problems: list[str] = []
    read = {
        name: read_file(f"tls.{name}", path, problems)
        for name, path in (("ca", ca), ("certificate", certificate), ("key", key))
    }
    check_private("tls.key", key, problems)
    if not problems:
        identity = TlsIdentity(**read)
        problems.extend(_mistakes(identity, host))
    if problems:
        raise ConfigError(problems)
    return identity


def is_issued_by(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    """Whether `authority` has signed `certificate` itself."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def read_certificate(pem: bytes) -> x509.Certificate:
    """Return the first certificate in `pem`.

    Raises:
        ValueError: If there is none that can be read.
    """
    try:
        return x509.load_pem_x509_certificate(pem)
    except x509.InvalidVersion as error:
        raise ValueError(str(error)) from error


def dns_names(certificate: bytes) -> Sequence[str]:
    """Return the DNS names of a PEM certificate, none if it has no such extension."""
    try:
        return names_of_hosts(read_certificate(certificate))
    except ValueError:
        return ()


def names_of_hosts(certificate: x509.Certificate) -> Sequence[str]:
    """Return the DNS names of a certificate.

    Raises:
        ValueError: If its extensions cannot be read.
    """
    names = _extension(certificate, x509.SubjectAlternativeName)
    return () if names is None else tuple(names.get_values_for_type(x509.DNSName))


def _extension(certificate: x509.Certificate, kind: type[_Extension]) -> _Extension | None:
    """Return an extension, None if there is none of its kind.

    Raises:
        ValueError: If the extensions cannot be read.
    """
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
    except (x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise ValueError(str(error)) from error


def caller_names(auth_context: Mapping[str, Sequence[bytes]]) -> Sequence[str]:
    """Return the DNS names that a caller proved, from gRPC's authentication context.

    Names of other kinds (mail, address, URI) and the common name do not count.
    """
    return tuple(name.decode("ascii", "replace") for name in auth_context.get("peer_dns", ()))


def caller_roles(auth_context: Mapping[str, Sequence[bytes]]) -> Sequence[str]:
    """Return the operators' roles that a caller's certificate has; a host's has none.

    Raises:
        ValueError: If the certificate cannot be read.
    """
    return tuple(role for pem in auth_context.get("x509_pem_cert", ()) for role in _roles_in(pem))


def role_units(certificate: x509.Certificate) -> Sequence[str]:
    """Return the organizational units that name a role, be it one of `ROLE_UNITS` or not."""
    units = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
    return tuple(unit for each in units if (unit := str(each.value)).startswith(ROLE_PREFIX))


@lru_cache(maxsize=64)  # a heartbeat's caller is asked for each time
def _roles_in(pem: bytes) -> Sequence[str]:
    return _roles(read_certificate(pem))


def _roles(certificate: x509.Certificate) -> Sequence[str]:
    return tuple(unit for unit in role_units(certificate) if unit in ROLE_UNITS)


def _missing_uses(certificate: x509.Certificate) -> Sequence[str]:
    """Return what the certificate says that it is not for; without the extension it is for all."""
    uses = _extension(certificate, x509.ExtendedKeyUsage)
    if uses is None:
        return ()
    return tuple(words for use, words in _USES.items() if use not in uses)


def check_private(name: str, key: Path, problems: list[str]) -> None:
    """Add to `problems` that a private key's file, which `name` names, is open to others.

    One that cannot be looked at is `read_file`'s to tell of.
    """
    with contextlib.suppress(OSError):
        if key.stat().st_mode & _OTHERS:
            problems.append(f"{name}: {key} can be read by others (want mode 0600)")


def read_file(name: str, path: Path, problems: list[str]) -> bytes:
    """Return what is in the file that `name` names; add to `problems` why it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        problems.append(f"{name}: {path}: {error.strerror}")
        return b""


def _mistakes(identity: TlsIdentity, host: str) -> Iterator[str]:
    try:
        x509.load_pem_x509_certificates(identity.ca)
        certificate = read_certificate(identity.certificate)
        key = load_pem_private_key(identity.key, password=None)
    except (ValueError, TypeError, x509.InvalidVersion) as error:
        yield f"tls: a file is not the PEM it should be: {error}"
        return
    try:
        yield from _unfit(certificate, key, host)
    except (ValueError, UnsupportedAlgorithm) as error:  # some is only read when it is asked for
        yield f"tls.certificate: cannot be read: {error}"


def _unfit(certificate: x509.Certificate, key: PrivateKeyTypes, host: str) -> Iterator[str]:
    """Yield why a host cannot use them.

    Raises:
        ValueError: If part of the certificate cannot be read.
        UnsupportedAlgorithm: If its key is of no known kind.
    """
    names = names_of_hosts(certificate)
    if host not in names:
        found = ", ".join(names) or "no DNS name"
        yield f"tls.certificate: has {found}, host.name is {host!r}"
    if missing := _missing_uses(certificate):
        yield f"tls.certificate: not for {' and '.join(missing)}: a host calls and is called"
    if roles := _roles(certificate):
        yield f"tls.certificate: is an operator's ({', '.join(roles)}): a host has no role"
    if not is_key_of(key, certificate):
        yield "tls.key: is not the key of tls.certificate"


def is_key_of(key: PrivateKeyTypes, certificate: x509.Certificate) -> bool:
    """Whether a private key is the one that `certificate` is about."""
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return key.public_key().public_bytes(*form) == certificate.public_key().public_bytes(*form)
