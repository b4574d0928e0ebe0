"""Who the other session is: both sides prove that they know the pairing's secret.

The receiver opens with a CHALLENGE, a nonce used once. The sender's HELLO carries a nonce of its
own and a proof over all that was said; the receiver's WELCOME answers with a proof that only it can
make. A recorded hello is of no use against another nonce, a proof of one side none as the other's.

A connection that takes over where one broke is proved in the same way, with nonces of its own; what
is agreed on there is only how much each side has (`colod.session.agreement`).
"""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import asdict, replace
from typing import Final

from colod.errors import PeerRefused, VersionMismatch
from colod.session import agreement, deltas
from colod.session.agreement import Standing
from colod.session.deltas import agreed
from colod.session.digests import DIGESTS
from colod.session.spec import SessionSpec
from colod.stream.frames import VERSION, Challenge, Hello, Welcome

NONCE_BYTES: Final = 32


def make_hello(
    spec: SessionSpec, challenge: Challenge, nonce: str, standing: Standing | None = None
) -> Hello:
    """Return the sender's answer to `challenge`.

    Args:
        spec: The sender's.
        challenge: As the receiver sent it.
        nonce: Fresh and not guessable, NONCE_BYTES in hexadecimal digits.
        standing: Of a connection that is to take over, None for the first one.

    Raises:
        VersionMismatch: If the receiver speaks no version of ours.
    """
    if VERSION not in challenge.versions:
        message = f"{spec.peer} speaks session protocol {challenge.versions}, this side {VERSION}"
        raise VersionMismatch(message)
    hello = Hello(
        guest=spec.guest,
        pairing=spec.pairing,
        sender=spec.host,
        receiver=spec.peer,
        generation=spec.generation,
        nonce=nonce,
        digests=DIGESTS,
        capabilities=_offered(spec, standing),
    )
    return replace(hello, proof=_proof(spec.secret, "sender", challenge, hello))


def accept_hello(
    spec: SessionSpec, challenge: Challenge, hello: Hello, standing: Standing | None = None
) -> Welcome:
    """Return the receiver's answer to a sender that is the right one.

    Args:
        spec: The receiver's.
        challenge: As it was sent.
        hello: As it came.
        standing: Of a connection that is to take over, None for the first one.

    Raises:
        VersionMismatch: If the sender speaks no version or digest of ours.
        PeerRefused: If it is another sender, or has not proved to be this one.
    """
    check_hello(spec, challenge, hello)
    digest = next((name for name in DIGESTS if name in hello.digests), None)
    if VERSION not in hello.versions or digest is None:
        message = f"{hello.sender} speaks session protocol {hello.versions} with {hello.digests}"
        raise VersionMismatch(f"{message}, this side {VERSION} with {DIGESTS}")
    welcome = Welcome(
        pairing=spec.pairing,
        version=VERSION,
        digest=digest,
        capabilities=_answered(spec, hello, standing),
    )
    return replace(welcome, proof=_proof(spec.secret, "receiver", challenge, hello, welcome))


def check_hello(spec: SessionSpec, challenge: Challenge, hello: Hello) -> None:
    """Let the receiver listen only to the right sender.

    Raises:
        PeerRefused: If it is another one, or has not proved to be this one.
    """
    # The proof comes first: what a stranger got wrong is not told to it.
    if not _is_proof(hello.proof, _proof(spec.secret, "sender", challenge, hello)):
        raise PeerRefused("the sender does not know this pairing's secret")
    _check_terms(spec, hello)


def check_welcome(spec: SessionSpec, challenge: Challenge, hello: Hello, welcome: Welcome) -> None:
    """Let the sender go on only with the right receiver.

    Raises:
        VersionMismatch: If it chose something that was not offered.
        PeerRefused: If it has not proved to be the right one.
    """
    if not _is_proof(welcome.proof, _proof(spec.secret, "receiver", challenge, hello, welcome)):
        raise PeerRefused("the receiver does not know this pairing's secret")
    if welcome.version not in hello.versions or welcome.digest not in hello.digests:
        raise VersionMismatch(f"{spec.peer} chose {welcome.version} with {welcome.digest}")
    agreed(hello.capabilities, welcome.capabilities)


def _offered(spec: SessionSpec, standing: Standing | None) -> tuple[str, ...]:
    if standing is not None:
        return (str(standing),)
    return (*deltas.offer(spec.deltas), *agreement.offer(spec.resume_bytes))


def _answered(spec: SessionSpec, hello: Hello, standing: Standing | None) -> tuple[str, ...]:
    if standing is not None:
        return (str(standing),)
    return (
        *deltas.answer(spec.deltas, hello.capabilities),
        *agreement.answer(spec.resume_bytes, hello.capabilities),
    )


def _check_terms(spec: SessionSpec, hello: Hello) -> None:
    wanted = {
        "guest": spec.guest,
        "pairing": spec.pairing,
        "sender": spec.peer,
        "receiver": spec.host,
        "generation": spec.generation,
    }
    wrong = [
        f"{name} {getattr(hello, name)!r} instead of {value!r}"
        for name, value in wanted.items()
        if getattr(hello, name) != value
    ]
    if wrong:
        raise PeerRefused(f"the sender has {', '.join(wrong)}")


def _proof(
    secret: bytes, side: str, challenge: Challenge, hello: Hello, welcome: Welcome | None = None
) -> str:
    """Return the proof of one side over everything that was said before it."""
    said = [side, asdict(challenge), asdict(replace(hello, proof=""))]
    if welcome is not None:
        said.append(asdict(replace(welcome, proof="")))
    text = json.dumps(["colod session 1", *said], sort_keys=True).encode()
    return hmac.new(secret, text, hashlib.sha256).hexdigest()


def _is_proof(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(errors="replace"), wanted.encode())
