"""colod.session.handshake."""

from dataclasses import replace

import pytest

from colod.errors import PeerRefused, VersionMismatch
from colod.session.digests import DIGESTS
from colod.session.ending import Ending
from colod.session.handshake import _proof, accept_hello, check_welcome, make_hello
from colod.session.receiving import Receiving
from colod.session.sending import Sending
from colod.session.spec import SessionSpec
from colod.stream.frames import Challenge
from tests.unit.session_samples import receive, remus_stream, send

SENDER = SessionSpec(
    role="send",
    guest="g1",
    pairing="0" * 32,
    generation=4,
    host="alpha",
    peer="beta",
    secret=b"s" * 32,
    transport_kind="tcp",
)
RECEIVER = replace(SENDER, role="receive", host="beta", peer="alpha")
CHALLENGE = Challenge(nonce="aa" * 32)
NONCE = "bb" * 32


def test_two_sessions_of_one_pairing_accept_each_other() -> None:
    hello = make_hello(SENDER, CHALLENGE, NONCE)
    check_welcome(SENDER, CHALLENGE, hello, accept_hello(RECEIVER, CHALLENGE, hello))


def test_the_secret_itself_is_never_sent() -> None:
    hello = make_hello(SENDER, CHALLENGE, NONCE)
    assert SENDER.secret.hex() not in repr(hello)
    assert SENDER.secret.hex() not in repr(accept_hello(RECEIVER, CHALLENGE, hello))


def test_a_replayed_hello_is_refused() -> None:
    hello = make_hello(SENDER, CHALLENGE, NONCE)
    with pytest.raises(PeerRefused):
        accept_hello(RECEIVER, Challenge(nonce="cc" * 32), hello)


@pytest.mark.parametrize(
    "changes",
    [
        {"secret": b"t" * 32},
        {"guest": "g2"},
        {"pairing": "1" * 32},
        {"generation": 3},
        {"generation": 5},
        {"host": "gamma"},
        {"peer": "gamma"},
    ],
)
def test_a_sender_that_is_not_the_right_one_is_refused(changes: dict[str, object]) -> None:
    wrong = replace(SENDER, **changes)  # type: ignore[arg-type]
    with pytest.raises(PeerRefused):
        accept_hello(RECEIVER, CHALLENGE, make_hello(wrong, CHALLENGE, NONCE))


@pytest.mark.parametrize("field", ["guest", "pairing", "sender", "receiver", "nonce", "proof"])
def test_a_hello_that_was_changed_on_its_way_is_refused(field: str) -> None:
    hello = make_hello(SENDER, CHALLENGE, NONCE)
    with pytest.raises(PeerRefused):
        accept_hello(RECEIVER, CHALLENGE, replace(hello, **{field: "changed"}))  # type: ignore[arg-type]


def test_a_receiver_that_does_not_know_the_secret_gets_no_guest() -> None:
    hello = make_hello(SENDER, CHALLENGE, NONCE)
    welcome = accept_hello(RECEIVER, CHALLENGE, hello)
    with pytest.raises(PeerRefused):
        check_welcome(SENDER, CHALLENGE, hello, replace(welcome, proof="00" * 32))


def test_a_proof_cannot_be_sent_back_as_the_other_sides() -> None:
    hello = make_hello(SENDER, CHALLENGE, NONCE)
    welcome = accept_hello(RECEIVER, CHALLENGE, hello)
    with pytest.raises(PeerRefused):
        check_welcome(SENDER, CHALLENGE, hello, replace(welcome, proof=hello.proof))


def test_a_welcome_for_another_hello_is_refused() -> None:
    first = make_hello(SENDER, CHALLENGE, NONCE)
    second = make_hello(SENDER, CHALLENGE, "dd" * 32)
    with pytest.raises(PeerRefused):
        check_welcome(SENDER, CHALLENGE, second, accept_hello(RECEIVER, CHALLENGE, first))


def test_a_receiver_of_another_version_is_named_as_such() -> None:
    with pytest.raises(VersionMismatch, match="beta"):
        make_hello(SENDER, Challenge(nonce="aa", versions=(2, 3)), NONCE)


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (("xxh3-128", "sha256"), "xxh3-128"),
        (("sha256", "xxh3-128"), "xxh3-128"),
        (("sha256",), "sha256"),
        (("md5", "sha256"), "sha256"),
    ],
)
def test_the_digest_is_the_best_that_both_have(offered: tuple[str, ...], chosen: str) -> None:
    """An older sender, which has SHA-256 only, is understood."""
    hello = replace(make_hello(SENDER, CHALLENGE, NONCE), digests=offered)
    hello = replace(hello, proof=_proof(SENDER.secret, "sender", CHALLENGE, hello))
    welcome = accept_hello(RECEIVER, CHALLENGE, hello)
    assert welcome.digest == chosen
    check_welcome(SENDER, CHALLENGE, hello, welcome)


def test_without_a_digest_in_common_there_is_no_session() -> None:
    hello = replace(make_hello(SENDER, CHALLENGE, NONCE), digests=("md5",))
    hello = replace(hello, proof=_proof(SENDER.secret, "sender", CHALLENGE, hello))
    with pytest.raises(VersionMismatch, match="md5"):
        accept_hello(RECEIVER, CHALLENGE, hello)


@pytest.mark.parametrize("name", DIGESTS)
def test_what_changed_on_the_way_is_seen_by_each_digest(name: str) -> None:
    sample = remus_stream(2).data
    sending, receiving = Sending(), Receiving(1 << 20)
    sending.use_digest(name)
    receiving.use_digest(name)
    pieces = send(sending, sample)
    for piece in pieces[:3]:
        receive(receiving, piece)
    assert receive(receiving, pieces[3])[0].epoch == 2
    changed = Receiving(1 << 20)
    changed.use_digest(next(other for other in DIGESTS if other != name))
    receive(changed, pieces[0])
    with pytest.raises(Ending, match="does not match its seal"):
        receive(changed, pieces[1])
