"""All targets by name. Nothing of colod is imported here: what is measured must come later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tests.fuzz.target import Entry

_STREAM = ("colod.stream.parser", "colod.stream.cursor", "colod.stream.grammar")
_DELTA = (
    "colod.stream.delta.decoder",
    "colod.stream.delta.block",
    "colod.stream.delta.codec",
    "colod.stream.delta.pages",
    "colod.stream.delta.store",
)

TARGETS: Final[Mapping[str, Entry]] = {
    "stream": Entry("stream", "FORWARD", _STREAM),
    "stream-back": Entry("stream", "BACK", _STREAM),
    "xl-header": Entry("stream", "XL_HEADER", ("colod.stream.parser", "colod.stream.xl")),
    "frames": Entry("frames", "FRAMES", ("colod.stream.frames",)),
    "link": Entry("frames", "LINK", ("colod.session.link", "colod.session.ending")),
    "handshake": Entry(
        "handshake",
        "HANDSHAKE",
        ("colod.session.handshake", "colod.session.deltas", "colod.stream.delta.terms"),
    ),
    "receiving": Entry("receiving", "RECEIVING", ("colod.session.receiving",)),
    "control": Entry("frames", "CONTROL", ("colod.session.protocol",)),
    "chunks": Entry("transports", "CHUNKS", ("colod.transport.chunked",)),
    "messages": Entry("transports", "MESSAGES", ("colod.transport.messages",)),
    "delta": Entry("delta", "DECODER", (*_DELTA, "colod.session.unfolding")),
    "delta-encoder": Entry("delta", "ENCODER", ("colod.stream.delta.walk", *_DELTA[1:])),
    "image": Entry(
        "image",
        "IMAGE",
        ("colod.stream.image.keeper", "colod.stream.image.export", "colod.stream.image.pages"),
    ),
    "image-file": Entry("image", "FILE", ("colod.session.imagefile",)),
    "record": Entry("records", "RECORD", ("colod.failover.record", "colod.witness.content")),
    "record-file": Entry("records", "FILE", ("colod.witness.recordfile",)),
    "journal": Entry("records", "JOURNAL", ("colod.failover.entry",)),
    "lines": Entry(
        "records",
        "LINES",
        ("colod.daemon.jsonlines", "colod.daemon.history", "colod.daemon.drill_log"),
    ),
    "certificates": Entry("certificates", "CERTIFICATES", ("colod.rpc.tls", "colod.rpc.operators")),
    "trailers": Entry("trailers", "TRAILERS", ("colod.rpc.status", "colod.rpc.versions")),
    "http": Entry("http", "HTTP", ("colod.observe.http", "colod.observe.app")),
    "peer": Entry("peer", "PEER", ("colod.daemon.peer_service", "colod.toolstack.preflight")),
    "peer-rpc": Entry("rpc", "PEER", ("colod.rpc.peer_server", "colod.rpc.tls")),
    "admin": Entry("admin", "ADMIN", ("colod.daemon.admin_service",)),
    "admin-rpc": Entry("rpc", "ADMIN", ("colod.rpc.admin_guard", "colod.rpc.permissions")),
}
