"""The way to a daemon on another machine, over mutual TLS; for `colodctl`, without asyncio.

A connection is tried before gRPC makes its own: gRPC does not say why there is none.
"""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from colod.config import split_address
from colod.errors import ConfigError, DaemonUnreachable, NotPermitted
from colod.rpc import limits
from colod.rpc.tls import TlsIdentity, check_private, is_issued_by, is_key_of, read_file

CONNECT_TIMEOUT_S: Final = 10.0
_RENEW: Final = "have one made: colodctl pki issue-operator NAME --role ROLE"


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteHost:
    """A daemon elsewhere, and what to show it.

    Attributes:
        address: `host:port` of its `admin.listen`.
        name: Its `host.name`, which its certificate must have.
        ca: File of the authority that it and this operator have.
        certificate: File of this operator's certificate.
        key: File of its private key.
    """

    address: str
    name: str
    ca: Path
    certificate: Path
    key: Path

    def __str__(self) -> str:
        """Name host and address."""
        return f"{self.name} ({self.address})"

    def channel(self) -> grpc.Channel:
        """Return a channel to it, once it has been seen to answer.

        Raises:
            ConfigError: With what is wrong with the files.
            DaemonUnreachable: If it does not answer, is another host, or does not take the
                certificate.
            NotPermitted: If the certificate cannot be taken by any host of the authority.
        """
        identity = self._identity()
        self._check_answers()
        options = (
            *limits.REMOTE_CLIENT,
            ("grpc.ssl_target_name_override", self.name),
            ("grpc.default_authority", self.name),
        )
        # With its scheme: a host that is called `unix` would else be a socket.
        return grpc.secure_channel(
            f"dns:///{self.address}", identity.channel_credentials(), options
        )

    def _identity(self) -> TlsIdentity:
        problems: list[str] = []
        read = {
            option: read_file(f"--{option}", path, problems)
            for option, path in (("ca", self.ca), ("cert", self.certificate), ("key", self.key))
        }
        check_private("--key", self.key, problems)
        if problems:
            raise _unusable(problems)
        try:
            authorities = x509.load_pem_x509_certificates(read["ca"])
            certificate = x509.load_pem_x509_certificate(read["cert"])
            key = load_pem_private_key(read["key"], password=None)
        except (ValueError, TypeError) as error:
            message = f"--ca, --cert, --key: a file is not the PEM it should be: {error}"
            raise _unusable([message]) from error
        self._check_pair(certificate, key)
        self._check_believable(authorities, certificate, is_alone=read["cert"].count(b"BEGIN") == 1)
        return TlsIdentity(read["ca"], read["cert"], read["key"])

    def _check_pair(self, certificate: x509.Certificate, key: PrivateKeyTypes) -> None:
        if not is_key_of(key, certificate):
            raise _unusable([f"--key: {self.key} is not the key of {self.certificate}"])

    def _check_believable(
        self, authorities: list[x509.Certificate], certificate: x509.Certificate, *, is_alone: bool
    ) -> None:
        begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        now = datetime.now(UTC)
        if not begin <= now <= end:
            raise NotPermitted(
                f"{self.certificate}: valid from {begin:%F} to {end:%F}, now is {now:%F}",
                advice=_RENEW,
            )
        # With others between it and the authority, that is the hosts' to find out.
        if is_alone and not any(is_issued_by(each, certificate) for each in authorities):
            raise NotPermitted(
                f"{self.certificate} is not of the authority in {self.ca}: no host believes it",
                advice=f"{_RENEW}, where the hosts' authority is; or correct --ca",
            )

    def _check_answers(self) -> None:
        """Connect as gRPC will, and wait for the server's first bytes."""
        host, port = split_address(self.address)
        try:
            with (
                socket.create_connection((host, port), CONNECT_TIMEOUT_S) as plain,
                self._context().wrap_socket(plain, server_hostname=self.name) as secure,
            ):
                # With TLS 1.3 a client has shaken hands before the server has looked at it.
                self._check_takes_us(secure.recv(1))
        except ssl.SSLCertVerificationError as error:
            raise DaemonUnreachable(
                f"what answers at {self.address} is not {self.name}: {error.verify_message}",
                advice="compare --host-name with host.name there, and --ca with its tls.ca",
            ) from error
        except (ssl.SSLError, ConnectionResetError) as error:
            raise self._unheard(f"the handshake failed: {error}") from error
        except TimeoutError as error:
            raise self._unheard("no answer in time") from error
        except OSError as error:
            raise self._unheard(error.strerror or str(error)) from error

    def _check_takes_us(self, answer: bytes) -> None:
        if not answer:
            raise DaemonUnreachable(
                f"{self} closed the connection before it answered",
                advice=f"does its tls.ca have the authority of {self.certificate}? are clocks "
                f"right? it takes {limits.REMOTE_CONNECTIONS} connections at once",
            )

    def _unheard(self, reason: str) -> DaemonUnreachable:
        return DaemonUnreachable(
            f"no daemon answers at {self}: {reason}",
            advice="is colod running there, with admin.listen? systemctl status colod",
        )

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_verify_locations(cafile=self.ca)
        context.load_cert_chain(self.certificate, self.key)
        context.set_alpn_protocols(["h2"])
        return context


def _unusable(problems: list[str]) -> ConfigError:
    error = ConfigError(problems)
    error.advice = "colodctl pki issue-operator makes certificate and key; ca.pem is the hosts'"
    return error
