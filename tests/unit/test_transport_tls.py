"""The transport `tls`: who is not the peer is told why and stays out; the door stays open."""

import asyncio
import contextlib
import datetime
import logging
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from colod import plugins
from colod.errors import ConfigError, NetworkError, PeerRefused, PeerUnreachable
from colod.model import HostName
from colod.rpc import pki
from colod.transport import reception
from colod.transport.crowd import MAX_STRANGERS
from colod.transport.inet import Interface, listen_on
from colod.transport.testing import dial_tcp
from colod.transport.tls import TlsListener, TlsTransport
from colod.transport.tlsconnection import PROTOCOL, TlsConnection, explain, make_context
from tests.unit.transport_subjects import ALPHA, BETA, credentials, make_pki, tls_pair

GAMMA = HostName("gamma")
LIMIT_S = 20.0
Rogue = Callable[[str], Awaitable[object]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pki(tmp_path_factory.mktemp("pki"), ALPHA, BETA, GAMMA)


@pytest.fixture
def directory(made: Path, tmp_path: Path) -> Path:
    """Files of a test's own: it may replace them."""
    return shutil.copytree(made, tmp_path / "pki")


class Door(logging.Handler):
    """A listener of beta's, and what it says."""

    def __init__(self, listener: TlsListener, directory: Path) -> None:
        super().__init__(logging.WARNING)
        self.listener, self.directory = listener, directory
        self.address = listener.address
        self.refusals = ""
        self._heard = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.refusals += record.getMessage() + "\n"
        self._heard.set()

    async def refuses(self, reason: str, rogue: Rogue) -> None:
        """Make sure that `rogue` is not accepted, that the log says why, and that alpha is."""
        accepting = asyncio.create_task(self.listener.accept())
        try:
            await asyncio.wait_for(rogue(self.address), LIMIT_S)
            async with asyncio.timeout(LIMIT_S):
                await self._heard.wait()
            assert reason in self.refusals
            assert not accepting.done()
            ours, _ = tls_pair(self.directory)
            connection = await ours.connect(self.address, timeout_s=LIMIT_S)
            await greet(connection, await accepting)
        finally:
            accepting.cancel()
            await asyncio.gather(accepting, return_exceptions=True)


async def greet(ours: TlsConnection, theirs: TlsConnection) -> None:
    """Carry a word over the connection and close it."""
    await ours.write(b"word")
    buffer = memoryview(bytearray(4))
    assert await theirs.read_into(buffer) == 4
    assert bytes(buffer) == b"word"
    await ours.close()
    await theirs.close()


@contextlib.asynccontextmanager
async def open_door(directory: Path, greeting_s: float = LIMIT_S) -> AsyncIterator[Door]:
    inner = await listen_on(Interface())
    identity = credentials(directory, BETA, ALPHA)
    door = Door(TlsListener(inner, identity, greeting_s=greeting_s), directory)
    log = logging.getLogger(reception.__name__)
    log.addHandler(door)
    try:
        yield door
    finally:
        log.removeHandler(door)
        await door.listener.close()


@pytest.fixture
async def door(made: Path) -> AsyncIterator[Door]:
    async with open_door(made) as found:
        yield found


def sender(
    directory: Path, host: HostName = ALPHA, peer: HostName = BETA, *, ca: Path | None = None
) -> TlsTransport:
    given = credentials(directory, host, peer)
    return TlsTransport.from_options({}, replace(given, ca=ca) if ca else given)


def is_refused(transport: TlsTransport, match: str) -> Rogue:
    async def connect(address: str) -> None:
        with pytest.raises(PeerRefused, match=match):
            await transport.connect(address, timeout_s=LIMIT_S)

    return connect


# -- certificates that do not fit


async def test_a_certificate_of_another_authority_is_refused(door: Door, tmp_path: Path) -> None:
    foreign = make_pki(tmp_path / "foreign", ALPHA)
    rogue = sender(foreign, ca=door.directory / "ca.pem")
    await door.refuses(
        "its certificate is not believed", is_refused(rogue, "it refused this side: unknown ca")
    )


async def test_a_listener_of_another_authority_is_not_believed(door: Door, tmp_path: Path) -> None:
    trusting = make_pki(tmp_path / "foreign", ALPHA)
    await door.refuses(
        "unknown ca", is_refused(sender(trusting), "its certificate is not believed")
    )


async def test_another_host_of_the_authority_is_refused_by_its_name(door: Door) -> None:
    rogue = sender(door.directory, GAMMA)
    await door.refuses(
        "is gamma, not the configured peer alpha", is_refused(rogue, "does not take this host")
    )


async def test_a_listener_that_is_another_host_is_refused_by_its_name(door: Door) -> None:
    wrong = sender(door.directory, ALPHA, GAMMA)
    await door.refuses("ended without", is_refused(wrong, "is beta, not the configured peer gamma"))


def issued_by_trustme(directory: Path, name: str, until: datetime.datetime | None = None) -> Path:
    """Make an authority of another maker and a certificate of `name`; return its directory."""
    authority = trustme.CA()
    directory.mkdir()
    authority.cert_pem.write_to_path(directory / "ca.pem")
    since = until - datetime.timedelta(days=9) if until else None
    certificate = authority.issue_cert(name, not_before=since, not_after=until)
    (directory / f"{ALPHA}.pem").write_bytes(certificate.cert_chain_pems[0].bytes())
    certificate.private_key_pem.write_to_path(directory / f"{ALPHA}.key")
    return directory


async def refused_by_beta(directory: Path, match: str, *, alpha: str = ALPHA) -> None:
    """Have the sender of `directory` refused by a listener that trusts the same authority."""
    beta = make_pki(directory / "beta", BETA)
    trusted = replace(credentials(beta, BETA, HostName(alpha)), ca=directory / "ca.pem")
    listener = await TlsTransport.from_options({}, trusted).listen()
    accepting = asyncio.create_task(listener.accept())
    with pytest.raises(PeerRefused, match=match):
        await sender(directory, ca=beta / "ca.pem").connect(listener.address, timeout_s=LIMIT_S)
    assert not accepting.done()
    await listener.close()
    with pytest.raises(NetworkError, match="closed"):
        await accepting


async def test_an_expired_certificate_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    directory = issued_by_trustme(tmp_path / "pki", ALPHA, until=past)
    await refused_by_beta(directory, "refused this side: certificate expired")
    assert "certificate has expired" in caplog.text


async def test_a_wildcard_is_nobodys_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory = issued_by_trustme(tmp_path / "pki", "*.example")
    await refused_by_beta(directory, "does not take this host", alpha="alpha.example")
    assert "is *.example, not the configured peer alpha.example" in caplog.text


# -- callers that do not speak as they should


def client_context(directory: Path, host: str | None = ALPHA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cafile=directory / "ca.pem")
    context.set_alpn_protocols([PROTOCOL])
    if host is not None:
        context.load_cert_chain(directory / f"{host}.pem", directory / f"{host}.key")
    return context


def shakes_hands(context: ssl.SSLContext) -> Rogue:
    """Connect as `context` has it, and read until one's sent away."""

    async def connect(address: str) -> None:
        host, _, port = address.rpartition(":")
        writer = None
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
            said = await reader.read()
            assert said in (b"", b"\x00"), "somebody was let in"
        if writer is not None:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    return connect


def says(words: bytes) -> Rogue:
    """Say `words` over bare TCP and wait to be sent away, or end it where nothing is said."""

    async def connect(address: str) -> None:
        loop = asyncio.get_running_loop()
        sock = await dial_tcp(address)
        with sock, contextlib.suppress(ConnectionError):
            await loop.sock_sendall(sock, words)
            while words.startswith(b"GET") and await loop.sock_recv(sock, 4096):
                pass

    return connect


async def test_a_caller_without_a_certificate_is_refused(door: Door) -> None:
    rogue = shakes_hands(client_context(door.directory, None))
    await door.refuses("peer did not return a certificate", rogue)


async def test_a_caller_of_tls_1_2_is_refused(door: Door) -> None:
    context = client_context(door.directory)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    await door.refuses("unsupported protocol", shakes_hands(context))


async def test_a_caller_of_another_protocol_is_refused(door: Door) -> None:
    context = client_context(door.directory)
    context.set_alpn_protocols(["h2"])
    await door.refuses("speaks something else, not colod-session/1", shakes_hands(context))


async def test_a_caller_that_speaks_no_tls_is_refused(door: Door) -> None:
    await door.refuses("http request", says(b"GET / HTTP/1.1\r\n\r\n"))


async def test_a_handshake_that_is_broken_off_is_said_to_be(door: Door) -> None:
    await door.refuses("ended without close_notify", says(client_hello()[:100]))


async def test_a_handshake_whose_bytes_are_nonsense_is_refused(door: Door) -> None:
    hello = client_hello()
    await door.refuses("no TLS 1.3 as it should be", says(hello[:9] + bytes(len(hello) - 9)))


def client_hello() -> bytes:
    """Return the first flight of a client."""
    out = ssl.MemoryBIO()
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    with contextlib.suppress(ssl.SSLWantReadError):
        client.wrap_bio(ssl.MemoryBIO(), out).do_handshake()
    return out.read()


async def silent(address: str) -> None:
    """Say nothing until the other side has had enough."""
    with await dial_tcp(address) as sock:
        assert not await asyncio.get_running_loop().sock_recv(sock, 1)


async def test_a_silent_caller_is_sent_away_in_time(made: Path) -> None:
    async with open_door(made, 0.2) as door:
        await door.refuses("no handshake within 0.2 s", silent)


async def test_silent_callers_do_not_keep_the_peer_out_however_many_they_are(made: Path) -> None:
    async def crowd(address: str) -> None:
        for _ in range(3 * MAX_STRANGERS):
            crowded.enter_context(await dial_tcp(address))

    with contextlib.ExitStack() as crowded:
        async with open_door(made) as door:  # nobody's time is over soon
            await door.refuses("caller.crowded_out", crowd)


def address_of(listening: socket.socket) -> str:
    return f"127.0.0.1:{listening.getsockname()[1]}"


async def test_a_listener_that_speaks_no_tls_is_refused_by_the_sender(made: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        connecting = asyncio.create_task(
            sender(made).connect(address_of(listening), timeout_s=LIMIT_S)
        )
        accepted, _ = await asyncio.to_thread(listening.accept)
        with accepted:
            accepted.sendall(b"SSH-2.0-OpenSSH_9.2p1\r\n")
            with pytest.raises(PeerRefused, match="as it should be: wrong version number"):
                await connecting


async def test_a_listener_of_tls_1_2_is_refused_by_the_sender(made: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(made / f"{BETA}.pem", made / f"{BETA}.key")

    def answer(listening: socket.socket) -> None:
        accepted, _ = listening.accept()
        with accepted, contextlib.suppress(ssl.SSLError):
            context.wrap_socket(accepted, server_side=True)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        answering = asyncio.create_task(asyncio.to_thread(answer, listening))
        with pytest.raises(PeerRefused, match="it refused this side: protocol version"):
            await sender(made).connect(address_of(listening), timeout_s=LIMIT_S)
        await answering


@pytest.mark.parametrize("turns", range(8))
async def test_a_listener_that_closes_while_it_listens_to_a_stranger_leaves_nothing(
    made: Path, turns: int
) -> None:
    async with open_door(made) as door:
        with await dial_tcp(door.address) as sock:
            accepting = asyncio.create_task(door.listener.accept())
            for _ in range(turns):
                await asyncio.sleep(0)
            await door.listener.close()
            with pytest.raises(NetworkError, match="closed"):
                await accepting
            with contextlib.suppress(ConnectionResetError):
                assert not await asyncio.get_running_loop().sock_recv(sock, 1)


# -- files


async def test_replaced_certificates_count_for_the_next_connection(directory: Path) -> None:
    ours, theirs = tls_pair(directory)
    listener = await theirs.listen()
    before = await asyncio.gather(
        ours.connect(listener.address, timeout_s=LIMIT_S), listener.accept()
    )
    pki.create_authority(directory, force=True)
    for host in (ALPHA, BETA):
        pki.issue_certificate(directory, host, force=True)
    after = await asyncio.gather(
        ours.connect(listener.address, timeout_s=LIMIT_S), listener.accept()
    )
    await greet(*before)
    await greet(*after)
    await listener.close()


async def test_files_that_do_not_fit_for_a_moment_stop_no_listener(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ours, theirs = tls_pair(directory)
    listener = await theirs.listen()
    accepting = asyncio.create_task(listener.accept())
    key = directory / f"{BETA}.key"
    kept = key.read_bytes()
    key.write_bytes((directory / f"{GAMMA}.key").read_bytes())
    with pytest.raises(PeerUnreachable):
        await ours.connect(listener.address, timeout_s=LIMIT_S)
    assert "key values mismatch" in caplog.text
    key.write_bytes(kept)
    await greet(await ours.connect(listener.address, timeout_s=LIMIT_S), await accepting)
    await listener.close()


async def test_a_sender_whose_files_do_not_fit_may_try_again(directory: Path) -> None:
    ours, _ = tls_pair(directory)
    (directory / f"{ALPHA}.pem").unlink()
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        pytest.raises(PeerUnreachable, match=r"alpha\.pem.*No such file"),
    ):
        await ours.connect(address_of(listening), timeout_s=LIMIT_S)


@pytest.mark.parametrize("name", ["ca.pem", "beta.pem", "beta.key"])
@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN nothing-----\n"])
async def test_a_file_that_cannot_be_used_is_named_before_anybody_listens(
    directory: Path, name: str, content: bytes | None
) -> None:
    _, theirs = tls_pair(directory)
    if content is None:
        (directory / name).unlink()
    else:
        (directory / name).write_bytes(content)
    with pytest.raises(NetworkError, match=name) as caught:
        await theirs.listen()
    assert "BEGIN" not in str(caught.value)


def test_a_key_with_a_password_is_an_error_and_asks_nobody(directory: Path) -> None:
    path = directory / f"{BETA}.key"
    key = load_pem_private_key(path.read_bytes(), None)
    sealed = BestAvailableEncryption(b"secret")
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, sealed))
    with pytest.raises(NetworkError, match=r"beta\.key"):
        make_context(credentials(directory, BETA, ALPHA), is_listener=True)


def test_only_tls_1_3_is_spoken_and_nothing_is_resumed(made: Path) -> None:
    for is_listener in (True, False):
        context = make_context(credentials(made, BETA, ALPHA), is_listener=is_listener)
        assert context.minimum_version == context.maximum_version == ssl.TLSVersion.TLSv1_3
        assert context.verify_mode == ssl.CERT_REQUIRED
    assert make_context(credentials(made, BETA, ALPHA), is_listener=True).num_tickets == 0


# -- options


def test_tls_needs_its_files_and_says_all_that_is_wrong_with_its_options(made: Path) -> None:
    with pytest.raises(ConfigError, match=r"\[tls\]"):
        TlsTransport.from_options({})
    with pytest.raises(ConfigError) as caught:
        TlsTransport.from_options(
            {"port": "x", "listen": "", "ca": "/x"}, credentials(made, ALPHA, BETA)
        )
    assert len(caught.value.problems) == 3
    assert plugins.load("colod.transports", "tls") is TlsTransport


def test_an_error_without_words_of_openssl_is_explained_by_the_kernels() -> None:
    assert explain(FileNotFoundError(2, "No such file or directory")) == "No such file or directory"
