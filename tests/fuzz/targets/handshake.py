"""The words by which two sessions prove who they are: nobody gets in without the secret."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterable
from dataclasses import asdict, replace

from colod.errors import PeerRefused, StreamError, VersionMismatch
from colod.session.deltas import agreed
from colod.session.handshake import _proof, accept_hello, check_welcome, make_hello
from colod.stream.frames import (
    MAX_CONTROL_BYTES,
    Challenge,
    Hello,
    Welcome,
    decode_message,
    encode_message,
)
from tests.fuzz.target import MIB, Finding, Reader, Target, demand, gist, same
from tests.fuzz.targets.specs import sender, spec

_CHALLENGE = Challenge(nonce="c" * 64)
_REFUSALS = (PeerRefused, VersionMismatch, StreamError)


def _challenged(payload: bytes) -> Hashable:
    """A sender before a receiver that nobody knows yet."""
    challenge = decode_message(Challenge, payload)
    hello = make_hello(sender(), challenge, "n" * 64)
    raw = encode_message(hello)
    demand(len(raw) <= MAX_CONTROL_BYTES, "a hello that does not fit into a frame")
    same("a hello read anew", decode_message(Hello, raw), hello)
    return "answered"


def _greeted_by_stranger(payload: bytes) -> Hashable:
    hello = decode_message(Hello, payload)
    accept_hello(spec(), _CHALLENGE, hello)
    raise Finding("a sender was let in that cannot know the secret")


def _greeted(payload: bytes) -> Hashable:
    """Somebody who knows the secret, and says what it likes."""
    hello = decode_message(Hello, payload)
    hello = replace(hello, proof=_proof(spec().secret, "sender", _CHALLENGE, hello))
    welcome = accept_hello(spec(), _CHALLENGE, hello)
    right = make_hello(sender(), _CHALLENGE, hello.nonce)
    for name in ("guest", "pairing", "sender", "receiver", "generation"):
        same(f"a hello with another {name}", getattr(hello, name), getattr(right, name))
    demand(len(encode_message(welcome)) <= MAX_CONTROL_BYTES, "a welcome that fits no frame")
    agreed(hello.capabilities, welcome.capabilities)
    check_welcome(sender(), _CHALLENGE, hello, welcome)
    return "let in", len(welcome.capabilities)


def _welcomed_by_stranger(payload: bytes) -> Hashable:
    welcome = decode_message(Welcome, payload)
    check_welcome(sender(), _CHALLENGE, make_hello(sender(), _CHALLENGE, "n" * 64), welcome)
    raise Finding("a receiver was believed that cannot know the secret")


def _welcomed(payload: bytes) -> Hashable:
    """A receiver that knows the secret, and chooses what it likes."""
    hello = make_hello(sender(), _CHALLENGE, "n" * 64)
    welcome = decode_message(Welcome, payload)
    proof = _proof(spec().secret, "receiver", _CHALLENGE, hello, welcome)
    check_welcome(sender(), _CHALLENGE, hello, replace(welcome, proof=proof))
    demand(welcome.digest in hello.digests, "a digest that was not offered")
    terms, own = agreed(hello.capabilities, welcome.capabilities), sender().deltas.terms
    assert own is not None
    if terms is not None:
        demand(terms.max_pages <= own.max_pages, "a larger store than was offered")
        demand(terms.pfn_limit <= own.pfn_limit, "more PFNs than were offered")
    return "believed", terms is not None


_STEPS: tuple[Callable[[bytes], Hashable], ...] = (
    _challenged,
    _greeted_by_stranger,
    _greeted,
    _welcomed_by_stranger,
    _welcomed,
)


def _run(octets: bytes) -> Hashable:
    reader = Reader(octets)
    step = reader.byte() % len(_STEPS)
    try:
        return step, _STEPS[step](reader.rest())
    except _REFUSALS as error:
        demand(spec().secret.decode() not in str(error), "the secret is in an error")
        return step, gist(error)


def _seeds() -> Iterable[bytes]:
    hello = make_hello(sender(), _CHALLENGE, "n" * 64)
    welcome = accept_hello(spec(), _CHALLENGE, hello)
    # The right proof would let a copy in; here nobody can make one.
    messages = (_CHALLENGE, replace(hello, proof="0" * 64), replace(welcome, proof="0" * 64))
    for step, message in ((0, 0), (1, 1), (2, 1), (3, 2), (4, 2)):
        yield bytes((step,)) + encode_message(messages[message])
    yield b"\x02" + json.dumps(asdict(hello) | {"capabilities": [], "later": {"a": None}}).encode()


HANDSHAKE = Target(run=_run, seeds=_seeds, held_bytes=lambda size: MIB + 256 * size)
