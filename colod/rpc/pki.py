"""A small certificate authority for a pair of hosts, and for operators of other machines.

Keys are EC P-256 and never leave mode 0600; a certificate names its host as DNS name, which is the
identity that the other host checks. An operator's has no such name and is for clients only; its
role is an organizational unit. Nothing is overwritten unless it is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from colod.errors import ColodError
from colod.model import HostName
from colod.rpc.operators import OperatorRole
from colod.rpc.tls import TlsIdentity

AUTHORITY_DAYS = 3652
HOST_DAYS = 731
OPERATOR_DAYS = 90
"""Short, because there is no way to take a certificate back."""

OPERATORS = "operators"
"""The directory, below the authority's, of operators: one may have a host's name."""

_Pair = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]

_CLOCKS_APART = timedelta(hours=1)  # a new certificate is valid at once on a host that is slow


class PkiError(ColodError):
    """A certificate could not be made."""

    code = "pki.failed"


@dataclass(frozen=True, slots=True)
class Issued:
    """Where a certificate and its key were written."""

    certificate: Path
    key: Path
    expires: datetime


def create_authority(directory: Path, *, force: bool = False) -> Issued:
    """Make the authority: `ca.pem` (to every host) and `ca.key` (to none) in `directory`.

    Raises:
        PkiError: If it exists and `force` is not given, or cannot be written.
    """
    loses = "what was issued before is then no longer believed"
    return _write(directory, "ca", *_new_authority(), force=force, loses=loses)


def issue_certificate(directory: Path, host: HostName, *, force: bool = False) -> Issued:
    """Make `HOST.pem` and `HOST.key` in `directory`, signed by the authority there.

    Raises:
        PkiError: If there is no authority, if they exist and `force` is not given, or if they
            cannot be written.
    """
    issued = _new_certificate(host, *_load_authority(directory))
    loses = _stays_valid(directory / f"{host}.pem")
    return _write(directory, host, *issued, force=force, loses=loses)


def issue_operator(
    directory: Path,
    name: str,
    role: OperatorRole,
    *,
    days: int = OPERATOR_DAYS,
    force: bool = False,
) -> Issued:
    """Make `operators/NAME.pem` and `.key` in `directory`, signed by the authority there.

    Args:
        directory: Where the authority is.
        name: What the operator's orders are recorded under; also a name of files.
        role: What the operator may do.
        days: How long the certificate is valid, if the authority is for so long.
        force: Overwrite what exists.

    Raises:
        PkiError: If there is no authority, if they exist and `force` is not given, or if they
            cannot be written.
    """
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, name),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role.unit),
        ]
    )
    uses = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    issued = _signed(subject, days, (uses,), *_load_authority(directory))
    loses = _stays_valid(directory / OPERATORS / f"{name}.pem")
    return _write(directory / OPERATORS, name, *issued, force=force, loses=loses)


def _stays_valid(path: Path) -> str:
    """Return what to know before a certificate is issued anew: that takes nothing from the old."""
    try:
        until = x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
    except (OSError, ValueError):
        return "whoever has the one that is there can use it until its date"
    return f"whoever has the one that is there can use it until {until:%Y-%m-%d}"


def unknown_identity(host: HostName) -> TlsIdentity:
    """Return an identity of `host` under an authority that nobody knows: no host believes it."""
    authority, authority_key = _new_authority()
    certificate, key = _new_certificate(host, authority, authority_key)
    return TlsIdentity(
        ca=authority.public_bytes(Encoding.PEM),
        certificate=certificate.public_bytes(Encoding.PEM),
        key=_secret(key),
    )


def _new_authority() -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "colod authority")])
    public = key.public_key()
    builder = (
        _builder(name, name, public)
        .not_valid_after(datetime.now(UTC) + timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )
    return builder.sign(key, hashes.SHA256()), key


def _new_certificate(
    host: HostName, authority: x509.Certificate, authority_key: ec.EllipticCurvePrivateKey
) -> _Pair:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    extensions = (
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
        x509.SubjectAlternativeName([x509.DNSName(host)]),
    )
    return _signed(name, HOST_DAYS, extensions, authority, authority_key)


def _signed(
    subject: x509.Name,
    days: int,
    extensions: Sequence[x509.ExtensionType],
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
) -> _Pair:
    """Return a certificate that ends with the authority's, if that is sooner than its own time."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key()
    signer = authority_key.public_key()
    end = datetime.now(UTC) + timedelta(days=days)
    builder = (
        _builder(subject, authority.subject, public)
        .not_valid_after(min(end, authority.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
    )
    for each in extensions:
        builder = builder.add_extension(each, critical=False)
    builder = builder.add_extension(
        x509.SubjectKeyIdentifier.from_public_key(public), critical=False
    ).add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False)
    return builder.sign(authority_key, hashes.SHA256()), key


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - _CLOCKS_APART)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _load_authority(directory: Path) -> _Pair:
    try:
        certificate = x509.load_pem_x509_certificate((directory / "ca.pem").read_bytes())
        key = load_pem_private_key((directory / "ca.key").read_bytes(), password=None)
    except FileNotFoundError as error:
        raise PkiError(
            f"no authority in {directory}", advice=f"run: colodctl pki init --directory {directory}"
        ) from error
    except (OSError, ValueError, TypeError) as error:
        raise PkiError(f"authority in {directory} cannot be read: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise PkiError(f"{directory / 'ca.key'}: not a key of an elliptic curve")
    return certificate, key


def _secret(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(
    directory: Path,
    stem: str,
    certificate: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
    *,
    force: bool,
    loses: str,
) -> Issued:
    paths = (directory / f"{stem}.pem", directory / f"{stem}.key")
    existing = [str(path) for path in paths if path.exists()]
    if existing and not force:
        raise PkiError(
            f"{' and '.join(existing)} would be overwritten",
            advice=f"add --force; {loses}",
        )
    secret = _secret(key)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The key first: a certificate without its key would look finished.
        _write_file(paths[1], secret, 0o600)
        _write_file(paths[0], certificate.public_bytes(Encoding.PEM), 0o644)
    except OSError as error:
        raise PkiError(f"{error.filename}: {error.strerror}") from error
    return Issued(paths[0], paths[1], certificate.not_valid_after_utc)


def _write_file(path: Path, content: bytes, mode: int) -> None:
    """Replace `path` at once: it is never half written and never more readable than `mode`."""
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
