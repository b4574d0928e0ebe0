"""Certificates: whose they are, as PEM files and as a handshake gives them."""

from __future__ import annotations

import base64
from collections.abc import Hashable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from colod.errors import ConfigError, NotPermitted
from colod.rpc.operators import remote_operator
from colod.rpc.tls import caller_names, caller_roles, dns_names, load_identity
from tests.fuzz.target import MIB, Reader, Target, demand, gist
from tests.fuzz.targets.folder import make_folder

SEEDS = Path(__file__).parents[1] / "seeds"
"""Certificates of a host, an operator and their authority; nobody has their keys any more."""

_HOST = "host-a"
_BEGIN, _END = b"-----BEGIN CERTIFICATE-----\n", b"-----END CERTIFICATE-----\n"


class _Context:
    """A call over TLS, as far as it is asked who makes it."""

    def __init__(self, pem: bytes) -> None:
        self._pem = pem

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"x509_pem_cert": [self._pem], "peer_dns": [self._pem[:20]]}

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"


@cache
def _folder() -> Path:
    folder = make_folder()
    key = ec.derive_private_key(7, ec.SECP256R1())
    path = folder / "key"
    path.touch(mode=0o600)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return folder


def _operator(pem: bytes) -> Hashable:
    context: Any = _Context(pem)
    try:
        operator = remote_operator(context)
    except NotPermitted as error:
        return gist(error)
    demand(operator.is_remote and operator.name.isprintable(), f"operator {operator!r}")
    return operator.role


def _peer(pem: bytes) -> Hashable:
    proven = _Context(pem).auth_context()
    caller_names(proven)
    try:
        return tuple(caller_roles(proven))
    except ValueError:
        return "unreadable"


def _names(pem: bytes) -> Hashable:
    return bool(dns_names(pem))


def _identity(pem: bytes) -> Hashable:
    certificate, ca = _folder() / "pem", SEEDS / "ca.pem"
    certificate.write_bytes(pem)
    try:
        identity = load_identity(ca, certificate, _folder() / "key", host=_HOST)
    except ConfigError as error:
        return tuple(gist(ValueError(each)) for each in error.problems)
    demand(_HOST in dns_names(identity.certificate), "another host's certificate was taken")
    return "taken"


_USES = (_operator, _peer, _names, _identity)


def _pem(der: bytes) -> bytes:
    text = base64.b64encode(der)
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return _BEGIN + b"\n".join([*lines, b""]) + _END


def _der(pem: bytes) -> bytes:
    return base64.b64decode(b"".join(pem.split(b"\n")[1:-2]))


def _run(octets: bytes) -> Hashable:
    reader = Reader(octets)
    how = reader.byte()
    rest = reader.rest()
    use = _USES[how >> 1 & 3]
    return how >> 1 & 3, use(_pem(rest) if how & 1 else rest)


def _seeds() -> Iterable[bytes]:
    for path in sorted(SEEDS.glob("*.pem")):
        pem = path.read_bytes()
        for use in range(len(_USES)):
            yield bytes((use << 1,)) + pem
            yield bytes((use << 1 | 1,)) + _der(pem)


CERTIFICATES = Target(run=_run, seeds=_seeds, held_bytes=lambda size: 2 * MIB + 512 * size)
