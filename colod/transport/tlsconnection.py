"""TLS 1.3 over a connected socket: both sides prove who they are before anything is carried.

OpenSSL works on memory here, and the socket's own connection moves what it makes: so a read, a
write, a cancellation and a close are those of `colod.transport.sockets`, with records between.
Spec: RFC 8446.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any, Final, cast

from colod.errors import NetworkError, PeerRefused, PeerUnreachable
from colod.model import Credentials
from colod.transport.base import Buffer
from colod.transport.sockets import SocketConnection

PROTOCOL: Final = "colod-session/1"
"""What both sides must choose by ALPN: no other service of these hosts is talked to by mistake."""

# Said by the listener once it knows the caller. In TLS 1.3 a caller is through with its handshake
# before the listener has seen its certificate (RFC 8446, 2): without a word it would not know.
_ADMITTED = b"\x01"
_REFUSED = b"\x00"

_CHUNK_BYTES = 256 << 10
_ENDED = "it ended without close_notify (RFC 8446, 6.1): cut off, or the other process died"


class TlsConnection:
    """A `Connection` whose bytes nobody on the way can read, change or cut short unnoticed."""

    def __init__(
        self, carrier: SocketConnection, context: ssl.SSLContext, *, is_listener: bool
    ) -> None:
        """Take over `carrier`; `prove` comes next.

        Args:
            carrier: Connected, nothing said on it yet.
            context: As `make_context` made it for this side.
            is_listener: Whether this side accepted the connection.
        """
        self._carrier = carrier
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=is_listener)
        self._is_listener = is_listener
        self._received = memoryview(bytearray(_CHUNK_BYTES))
        self._early = bytearray()  # decrypted already, to be read first
        self._failure: ssl.SSLError | None = None  # found behind bytes that were sound
        self._is_writing = False
        self._is_finished = False
        self._is_over = False

    @property
    def peer_address(self) -> str:
        """The other end, for messages."""
        return self._carrier.peer_address

    @property
    def dscp(self) -> int | None:
        """How the kernel marks what is sent."""
        return self._carrier.dscp

    def pace(self, bytes_per_s: int) -> bool:
        """Have the kernel send no faster, TLS's own bytes included; return whether it will."""
        return self._carrier.pace(bytes_per_s)

    async def prove(self, peer: str) -> None:
        """Shake hands, and make sure that both sides are who the other one wants.

        Args:
            peer: DNS name that the other side's certificate must have.

        Raises:
            PeerRefused: If the other side is not `peer`, or does not take this host.
            PeerUnreachable: If it broke off.
        """
        try:
            await self._shake_hands()
        except ssl.SSLError as error:
            raise PeerRefused(f"{self.peer_address}: {explain(error)}") from error
        try:
            self._check_peer(peer)
        except PeerRefused:
            if self._is_listener:
                await self._say(_REFUSED)
            raise
        if self._is_listener:
            await self._say(_ADMITTED)
        else:
            await self._flush()
            await self._hear_whether_admitted()

    async def read_into(self, buffer: memoryview) -> int:
        """Receive into `buffer`; 0 at the end that the other side made.

        Raises:
            PeerUnreachable: If the connection broke, bytes were changed, or the end was not made by
                the other side.
        """
        if self._early and not self._is_over:
            count = min(len(self._early), len(buffer))
            buffer[:count] = self._early[:count]
            del self._early[:count]
            return count
        while True:
            try:
                return self._read(buffer)
            except ssl.SSLWantReadError:
                await self._fill()

    async def write(self, *parts: Buffer) -> None:
        """Send `parts` in order; return when the kernel has all of them.

        Raises:
            PeerUnreachable: If the connection broke, or was finished or closed on this side.
        """
        if self._is_finished or self._is_over:
            raise self._broken("closed on this side")
        self._is_writing = True
        for part in parts:
            rest = memoryview(part).cast("B") if len(part) else memoryview(b"")
            while rest:
                rest = rest[self._encrypt(rest) :]
                if self._outgoing.pending >= _CHUNK_BYTES:
                    await self._flush()
        await self._flush()
        self._is_writing = False

    async def finish(self) -> None:
        """Send close_notify; reading goes on. Spec: RFC 8446, 6.1.

        Raises:
            PeerUnreachable: If the connection broke or was closed on this side.
        """
        if self._is_over:
            raise self._broken("closed on this side")
        if not self._is_finished:
            self._is_finished = True
            self._notify_close()
            await self._flush()

    async def close(self) -> None:
        """Close both directions at once; the other side is told that it is meant, if it can be.

        It cannot while a write waits or was broken off, or where the kernel's buffer is full just
        then: what the other side reads is cut short, and an error.
        """
        if not (self._is_over or self._is_writing or self._is_finished):
            self._notify_close()
            self._carrier.send_at_once(self._outgoing.read())
        await self.abandon()

    async def abandon(self) -> None:
        """Close without a word: nothing that was said here may be taken for all."""
        self._is_over = True
        await self._carrier.close()

    # -- the handshake

    async def _shake_hands(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            except ssl.SSLError:
                self._carrier.send_at_once(self._outgoing.read())  # the alert that says why
                raise
            else:
                return

    def _check_peer(self, peer: str) -> None:
        """Compare as the daemons do: exactly, and DNS names only. See `colod.rpc.tls`."""
        chosen = self._tls.selected_alpn_protocol()
        if chosen != PROTOCOL:
            message = f"{self.peer_address} speaks {chosen or 'something else'}, not {PROTOCOL}"
            raise PeerRefused(message)
        certificate: Any = self._tls.getpeercert() or {}
        found = [value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS"]
        if peer not in found:
            names = ", ".join(map(str, found)) or "nobody"
            raise PeerRefused(
                f"{self.peer_address} is {names}, not the configured peer {peer}",
                advice="compare peer.name here with host.name and the certificate there",
            )

    async def _say(self, word: bytes) -> None:
        self._encrypt(memoryview(word))
        await self._flush()

    async def _hear_whether_admitted(self) -> None:
        word = bytearray(1)
        try:
            count = await self.read_into(memoryview(word))
        except PeerUnreachable as error:
            if isinstance(error.__cause__, ssl.SSLError):
                raise PeerRefused(str(error)) from error
            raise
        if not count or word != _ADMITTED:
            raise PeerRefused(
                f"{self.peer_address} does not take this host for its peer; its log says why",
                advice="compare host.name and the certificate here with peer.name there",
            )

    # -- records

    def _read(self, buffer: memoryview) -> int:
        """Fill `buffer` from the records that are there; 0 at the end.

        Raises:
            ssl.SSLWantReadError: If there is none.
            PeerUnreachable: If what is there is broken, or this side has closed.
        """
        if self._is_over:
            raise self._broken("closed on this side")
        filled = 0
        while filled < len(buffer) and (count := self._read_record(buffer[filled:], filled)):
            filled += count
        return filled

    def _read_record(self, buffer: memoryview, filled: int) -> int:
        """Read of one record; where bytes come before, leave whatever else it is to the next."""
        try:
            if self._failure is not None:
                raise self._failure
            # Into a buffer it returns a count. Source: ssl.SSLObject.read
            return cast("int", self._tls.read(len(buffer), cast("bytearray", buffer)))
        except ssl.SSLWantReadError:
            if filled:
                return 0
            raise
        except ssl.SSLZeroReturnError:  # both sides have finished
            return 0
        except ssl.SSLError as error:
            self._failure = error
            if filled:
                return 0
            raise self._broken(explain(error)) from error

    def _encrypt(self, part: memoryview) -> int:
        try:
            return self._tls.write(part)
        except ssl.SSLError as error:
            raise self._broken(explain(error)) from error

    def _notify_close(self) -> None:
        """Leave a close_notify in what goes out.

        OpenSSL then looks for the other side's, and takes anything else for a fault: what has come
        is read first. Source: SSL_shutdown(3).
        """
        self._keep(self._tls.read)
        self._keep(self._tls.unwrap)

    def _keep(self, call: Callable[[], object]) -> None:
        try:
            while isinstance(read := call(), bytes) and read:
                self._early += read
        except ssl.SSLError:  # nothing more, or what the next read will find too
            return

    async def _fill(self) -> None:
        count = await self._carrier.read_into(self._received)
        if not count:
            raise self._broken(_ENDED)
        self._incoming.write(self._received[:count])

    async def _flush(self) -> None:
        while self._outgoing.pending:
            await self._carrier.write(self._outgoing.read(_CHUNK_BYTES))

    def _broken(self, reason: str) -> PeerUnreachable:
        return PeerUnreachable(f"connection to {self.peer_address} broke: {reason}")


def make_context(credentials: Credentials, *, is_listener: bool) -> ssl.SSLContext:
    """Read the files of `credentials`; return what admits only TLS 1.3 and their authority.

    It blocks for the time of three small reads.

    Raises:
        NetworkError: If a file cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if is_listener else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # `TlsConnection.prove` is stricter: no wildcards
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols([PROTOCOL])
    if is_listener:
        context.num_tickets = 0  # a session is never resumed; each connection proves anew
    try:
        context.load_verify_locations(cafile=credentials.ca)
    except OSError as error:
        raise NetworkError(f"tls.ca: {credentials.ca}: {explain(error)}") from error
    try:
        # A password asked for on the terminal would stop the process for ever.
        context.load_cert_chain(credentials.certificate, credentials.key, password=lambda: b"")
    except OSError as error:
        files = f"{credentials.certificate}, {credentials.key}"
        raise NetworkError(f"tls.certificate, tls.key: {files}: {explain(error)}") from error
    return context


def explain(error: OSError) -> str:
    """Return in words what OpenSSL or the kernel says."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not believed: {error.verify_message}"
    reason = getattr(error, "reason", None)
    if not reason:
        return error.strerror or str(error)
    words = str(reason).lower().replace("_", " ")
    if " alert " in words:  # sslv3 alert …, tlsv1 alert …, tlsv13 alert …
        return f"it refused this side: {words.partition(' alert ')[2]}"
    return f"no TLS 1.3 as it should be: {words}"
