"""Certificates are what the hosts need, keys are nobody else's, nothing is overwritten unasked."""

import base64
import stat
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
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

from colod.errors import ConfigError
from colod.model import HostName
from colod.rpc import pki, tls
from colod.rpc.operators import OperatorRole

HOST = HostName("host-a")


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    directory = tmp_path / "pki"
    pki.create_authority(directory)
    return directory


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_keys_are_readable_by_their_owner_alone(authority: Path) -> None:
    issued = pki.issue_certificate(authority, HOST)
    for key in (authority / "ca.key", issued.key):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(authority.stat().st_mode) == 0o700


def test_a_host_certificate_names_the_host_and_is_signed_by_the_authority(authority: Path) -> None:
    issued = certificate(pki.issue_certificate(authority, HOST).certificate)
    issued.verify_directly_issued_by(certificate(authority / "ca.pem"))
    assert tls.dns_names((authority / "host-a.pem").read_bytes()) == ("host-a",)
    public = issued.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    assert public.curve.name == "secp256r1"
    constraints = issued.extensions.get_extension_for_class(x509.BasicConstraints)
    assert not constraints.value.ca


def test_an_authority_lasts_ten_years_and_a_host_two(authority: Path) -> None:
    now = datetime.now(UTC)
    host = certificate(pki.issue_certificate(authority, HOST).certificate)
    years = [
        (end - now).days / 365.25
        for end in (certificate(authority / "ca.pem").not_valid_after_utc, host.not_valid_after_utc)
    ]
    assert [round(length) for length in years] == [10, 2]


def test_nothing_is_overwritten_unless_it_is_asked_for(authority: Path) -> None:
    pki.issue_certificate(authority, HOST)
    before = {path: path.read_bytes() for path in authority.iterdir()}
    with pytest.raises(pki.PkiError, match="would be overwritten") as caught:
        pki.create_authority(authority)
    assert caught.value.advice == "add --force; what was issued before is then no longer believed"
    with pytest.raises(pki.PkiError, match="would be overwritten"):
        pki.issue_certificate(authority, HOST)
    assert {path: path.read_bytes() for path in authority.iterdir()} == before
    pki.issue_certificate(authority, HOST, force=True)
    assert (authority / "host-a.pem").read_bytes() != before[authority / "host-a.pem"]


def test_what_was_issued_before_is_said_to_stay_valid_where_it_does(authority: Path) -> None:
    host = pki.issue_certificate(authority, HOST)
    ann = pki.issue_operator(authority, "ann", OperatorRole.VIEWER, days=3)
    for issued, again in (
        (host, partial(pki.issue_certificate, authority, HOST)),
        (ann, partial(pki.issue_operator, authority, "ann", OperatorRole.VIEWER)),
    ):
        with pytest.raises(pki.PkiError) as caught:
            again()
        assert f"can use it until {issued.expires:%Y-%m-%d}" in caught.value.advice
        issued.certificate.write_bytes(b"no certificate")
        with pytest.raises(pki.PkiError) as caught:
            again()
        assert "can use it until its date" in caught.value.advice


def test_without_an_authority_nothing_is_issued(tmp_path: Path) -> None:
    with pytest.raises(pki.PkiError, match="no authority") as caught:
        pki.issue_certificate(tmp_path, HOST)
    assert "pki init" in caught.value.advice
    assert list(tmp_path.iterdir()) == []


def load(directory: Path, *, host: str = "host-a", key: str = "host-a.key") -> tls.TlsIdentity:
    return tls.load_identity(
        directory / "ca.pem", directory / "host-a.pem", directory / key, host=host
    )


def test_an_identity_never_shows_its_key(authority: Path) -> None:
    pki.issue_certificate(authority, HOST)
    assert repr(load(authority)) == "TlsIdentity(host-a)"


def test_the_certificate_of_another_host_is_refused(authority: Path) -> None:
    pki.issue_certificate(authority, HOST)
    with pytest.raises(ConfigError, match=r"tls\.certificate: has host-a, host\.name is 'host-z'"):
        load(authority, host="host-z")


@pytest.mark.parametrize(
    ("uses", "missing"),
    [
        ([ExtendedKeyUsageOID.SERVER_AUTH], "TLS clients"),
        ([ExtendedKeyUsageOID.CLIENT_AUTH], "TLS servers"),
        ([ExtendedKeyUsageOID.EMAIL_PROTECTION], "TLS servers and TLS clients"),
    ],
)
def test_a_certificate_that_is_not_for_both_ways_is_refused(
    tmp_path: Path, uses: list[x509.ObjectIdentifier], missing: str
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .sign(key, hashes.SHA256())
    )
    for path in ("ca.pem", "host-a.pem"):
        (tmp_path / path).write_bytes(made.public_bytes(Encoding.PEM))
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "host-a.key").write_bytes(secret)
    (tmp_path / "host-a.key").chmod(0o600)
    with pytest.raises(ConfigError, match=f"tls.certificate: not for {missing}: a host calls"):
        load(tmp_path)


def test_a_key_that_others_can_read_is_refused(authority: Path) -> None:
    pki.issue_certificate(authority, HOST).key.chmod(0o640)
    with pytest.raises(ConfigError, match="can be read by others"):
        load(authority)


def test_the_key_of_another_certificate_is_refused(authority: Path) -> None:
    pki.issue_certificate(authority, HOST)
    pki.issue_certificate(authority, HostName("host-b"))
    with pytest.raises(ConfigError, match=r"tls\.key: is not the key"):
        load(authority, key="host-b.key")


def test_all_missing_files_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path)
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "tls.ca",
        "tls.certificate",
        "tls.key",
    ]


def test_a_file_that_is_no_certificate_is_named(authority: Path) -> None:
    pki.issue_certificate(authority, HOST).certificate.write_text("hello")
    with pytest.raises(ConfigError, match="not the PEM"):
        load(authority)


def valid(directory: Path, name: str, issuer: str, *, days: tuple[int, int]) -> x509.Certificate:
    """Return a certificate of `name` with the key of `issuer`, valid from and to these days."""
    key = load_pem_private_key((directory / f"{issuer}.key").read_bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    now = datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now + timedelta(days=days[0]))
        .not_valid_after(now + timedelta(days=days[1]))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (directory / f"{issuer}.pem").write_bytes(made.public_bytes(Encoding.PEM))
    return made


@pytest.mark.parametrize("days", [(-9, -1), (1, 9)])
def test_a_certificate_out_of_date_is_told_of_and_refuses_nothing(
    authority: Path, days: tuple[int, int]
) -> None:
    pki.issue_certificate(authority, HOST)
    assert load(authority).date_problems(datetime.now(UTC)) == []
    valid(authority, HOST, "host-a", days=days)
    (problem,) = load(authority).date_problems(datetime.now(UTC))
    assert problem.startswith("tls.certificate: valid from ")


def test_an_authority_that_ends_sooner_than_its_certificate_is_what_counts(
    authority: Path,
) -> None:
    pki.issue_certificate(authority, HOST)
    soon = valid(authority, "colod authority", "ca", days=(-1, 5))
    assert load(authority).valid_until == soon.not_valid_after_utc
    pki.issue_certificate(authority, HOST, force=True)
    issued = x509.load_pem_x509_certificate((authority / "host-a.pem").read_bytes())
    assert issued.not_valid_after_utc == soon.not_valid_after_utc


def test_while_an_authority_is_replaced_the_one_that_issued_the_certificate_counts(
    authority: Path, tmp_path: Path
) -> None:
    pki.issue_certificate(authority, HOST)
    old = tmp_path / "old"
    pki.create_authority(old)
    valid(old, "colod authority", "ca", days=(-9, -1))
    both = (old / "ca.pem").read_bytes() + (authority / "ca.pem").read_bytes()
    (authority / "ca.pem").write_bytes(both)
    assert load(authority).date_problems(datetime.now(UTC)) == []


def test_an_authority_s_file_may_hold_words_in_any_encoding(authority: Path) -> None:
    pki.issue_certificate(authority, HOST)
    path = authority / "ca.pem"
    path.write_bytes("# München\n".encode() + b"\xff\n" + path.read_bytes())
    assert load(authority).server_context().get_ca_certs()


def test_an_unknown_identity_is_of_nobody_known(authority: Path) -> None:
    pki.issue_certificate(authority, HOST)
    made = pki.unknown_identity(HOST)
    assert tls.dns_names(made.certificate) == ("host-a",)
    assert made.ca != load(authority).ca
    assert made.server_credentials()


def twice_named(authority: Path) -> Path:
    """Return a certificate that has its host's names twice, as no builder would make it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "host-a")])
    now = datetime.now(UTC)
    other = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.99"), b"\x30\x00")
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("host-a")]), critical=False)
        .add_extension(other, critical=False)
        .sign(key, hashes.SHA256())
    )
    der = made.public_bytes(Encoding.DER).replace(b"\x55\x1d\x63", b"\x55\x1d\x11")
    path = authority / "twice.pem"
    path.write_bytes(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM))
    return path


def test_a_certificate_that_says_a_thing_twice_is_named_and_is_nobodys(authority: Path) -> None:
    certificate = twice_named(authority)
    pki.issue_certificate(authority, HostName("host-a"))
    files = (authority / "ca.pem", certificate, authority / "host-a.key")
    with pytest.raises(ConfigError, match=r"tls\.certificate: cannot be read"):
        tls.load_identity(*files, host="host-a")
    assert tls.dns_names(certificate.read_bytes()) == ()
    pair = (path.read_bytes() for path in files)
    assert "host-a" not in repr(tls.TlsIdentity(*pair))


def test_a_certificate_whose_key_is_of_no_known_kind_is_named(authority: Path) -> None:
    issued = pki.issue_certificate(authority, HostName("host-a"))
    der = x509.load_pem_x509_certificate(issued.certificate.read_bytes()).public_bytes(Encoding.DER)
    p256, unknown = (bytes.fromhex(f"06082a8648ce3d0301{last}") for last in ("07", "7f"))
    odd = x509.load_der_x509_certificate(der.replace(p256, unknown))
    issued.certificate.write_bytes(odd.public_bytes(Encoding.PEM))
    with pytest.raises(ConfigError, match=r"tls\.certificate: cannot be read"):
        tls.load_identity(authority / "ca.pem", issued.certificate, issued.key, host="host-a")


def test_a_certificate_of_a_version_that_there_is_not_is_named_and_is_nobodys(
    authority: Path,
) -> None:
    issued = pki.issue_certificate(authority, HostName("host-a"))
    pem = issued.certificate.read_bytes()
    der = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
    odd = der.replace(bytes.fromhex("a003020102"), bytes.fromhex("a003020122"), 1)
    lines = base64.encodebytes(odd)
    pem = b"-----BEGIN CERTIFICATE-----\n" + lines + b"-----END CERTIFICATE-----\n"
    issued.certificate.write_bytes(pem)
    with pytest.raises(ConfigError, match="34 is not a valid X509 version"):
        tls.load_identity(authority / "ca.pem", issued.certificate, issued.key, host="host-a")
    assert tls.dns_names(pem) == ()
    with pytest.raises(ValueError, match="34 is not"):
        tls.caller_roles({"x509_pem_cert": [pem]})
