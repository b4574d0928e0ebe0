"""Bounds of the control plane in one place, and gRPC's channel arguments made of them."""

from __future__ import annotations

MESSAGE_MAX_BYTES = 1 << 20
"""Longest message either side takes; a domain's configuration is some tens of KiB."""

METADATA_MAX_BYTES = 32 << 10
"""Most metadata of one call; the text of an error travels there."""

PEER_CONCURRENT_CALLS = 32
ADMIN_CONCURRENT_CALLS = 64

REMOTE_CONNECTIONS = 64
"""Most connections of remote operators: they must not take all of the daemon's descriptors."""

REMOTE_CONCURRENT_CALLS = 64
REMOTE_CALLS_EACH = 8
"""Of one operator: somebody's forgotten terminals must leave room for others."""

PEER_SLOW_CALLS = 6
"""Calls that may run at once, but for the following two kinds and heartbeats."""
PEER_OFFERS = 2
"""Records that may be offered at once: what other calls wait for comes by these."""
PEER_GIFTS = 2
"""Guests that may be given back at once; each takes as long as a switchover."""
PEER_THREADS = PEER_SLOW_CALLS + PEER_OFFERS + PEER_GIFTS + 2
"""Two are always left for heartbeats."""

_HANDSHAKE_MAX_MS = 5_000
_KEEPALIVE_MS = 2_000
_KEEPALIVE_WAIT_MS = 3_000
_REMOTE_KEEPALIVE_MS = 10_000
_REMOTE_IDLE_MS = 300_000

Arguments = tuple[tuple[str, int | str], ...]

_COMMON: Arguments = (
    ("grpc.max_receive_message_length", MESSAGE_MAX_BYTES),
    ("grpc.max_send_message_length", MESSAGE_MAX_BYTES),
    ("grpc.max_metadata_size", METADATA_MAX_BYTES),
    ("grpc.absolute_max_metadata_size", METADATA_MAX_BYTES),
)

SERVER: Arguments = (
    *_COMMON,
    # Two daemons on one port would each get half of the connections.
    ("grpc.so_reuseport", 0),
    ("grpc.max_concurrent_streams", ADMIN_CONCURRENT_CALLS),
    # Whoever connects and says nothing must not keep the connection.
    ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MAX_MS),
)

PEER_SERVER: Arguments = (
    *SERVER,
    ("grpc.http2.min_ping_interval_without_data_ms", _KEEPALIVE_MS // 2),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.keepalive_time_ms", _KEEPALIVE_MS * 5),
    ("grpc.keepalive_timeout_ms", _KEEPALIVE_WAIT_MS),
)

REMOTE_SERVER: Arguments = (
    *SERVER,
    ("grpc.max_allowed_incoming_connections", REMOTE_CONNECTIONS),
    # A connection that asks nothing is closed; one whose other end has gone keeps no call open.
    ("grpc.max_connection_idle_ms", _REMOTE_IDLE_MS),
    ("grpc.http2.min_ping_interval_without_data_ms", _REMOTE_KEEPALIVE_MS // 2),
    ("grpc.keepalive_time_ms", _REMOTE_KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", _KEEPALIVE_WAIT_MS),
)

CLIENT: Arguments = (
    *_COMMON,
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
)

PEER_CLIENT: Arguments = (
    *CLIENT,
    # A path that was cut and mended: without pings TCP would wait for its own, ever longer, timer.
    ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", _KEEPALIVE_WAIT_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # A peer that comes back is to be heard within a second, not after gRPC's two minutes.
    ("grpc.initial_reconnect_backoff_ms", 250),
    ("grpc.min_reconnect_backoff_ms", 3_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)

REMOTE_CLIENT: Arguments = (
    *CLIENT,
    # Else `status --watch` would not notice that the host has died.
    ("grpc.keepalive_time_ms", _REMOTE_KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", _KEEPALIVE_WAIT_MS),
    # The connection that finds out why there is none goes straight there; so does this one.
    ("grpc.enable_http_proxy", 0),
)
