"""Certificates of operators, sound and odd, for tests of the port for remote operators."""

from __future__ import annotations

from collections.abc import Sequence
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
from cryptography.x509.oid import NameOID

from colod.rpc.remote_host import RemoteHost


def sign(
    authority: Path,
    stem: str,
    *,
    names: Sequence[str] = ("ann",),
    units: Sequence[str] = (),
    hosts: Sequence[str] = (),
    days: tuple[int, int] = (-1, 9),
) -> Path:
    """Have an authority sign whatever is wanted, which `colodctl pki` would not.

    Args:
        authority: Its directory; certificate and key are written there.
        stem: Of the files' names.
        names: Common names.
        units: Organizational units.
        hosts: DNS names.
        days: From when until when it is valid, counted from today.

    Returns:
        The certificate's file; the key's is beside it.
    """
    issuer = x509.load_pem_x509_certificate((authority / "ca.pem").read_bytes())
    issuer_key = load_pem_private_key((authority / "ca.key").read_bytes(), password=None)
    assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(
            x509.Name(
                [
                    *(x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names),
                    *(x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit) for unit in units),
                ]
            )
        )
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=days[0]))
        .not_valid_after(now + timedelta(days=days[1]))
    )
    if hosts:
        alternative = x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts])
        builder = builder.add_extension(alternative, critical=False)
    made = builder.sign(issuer_key, hashes.SHA256())
    path = authority / f"{stem}.pem"
    path.write_bytes(made.public_bytes(Encoding.PEM))
    secret = path.with_suffix(".key")
    secret.touch(mode=0o600)
    secret.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path


def remote(port: int, authority: Path, certificate: Path, *, name: str = "host-a") -> RemoteHost:
    """Return the way to a port of loopback, by a certificate of which the key is beside it."""
    return RemoteHost(
        address=f"127.0.0.1:{port}",
        name=name,
        ca=authority / "ca.pem",
        certificate=certificate,
        key=certificate.with_suffix(".key"),
    )
