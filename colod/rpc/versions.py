"""Versions of the control plane's protocols, and how two sides agree on one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import colod
from colod.errors import VersionMismatch
from colod.v1 import peer_pb2

SOFTWARE: Final = colod.__version__

PEER_VERSION_MIN: Final = 1
PEER_VERSION_MAX: Final = 1

ADMIN_VERSION_MIN: Final = 1
ADMIN_VERSION_MAX: Final = 1

METADATA_KEY: Final = "colod-version"
"""Metadata of every call but `Greet`: the version that the caller speaks."""

Metadata = Iterable[tuple[str, str | bytes]]


def agree(theirs: tuple[int, int], ours: tuple[int, int], *, who: str) -> int:
    """Return the highest version that both ranges have.

    Raises:
        VersionMismatch: If there is none; names both ranges.
    """
    version = min(theirs[1], ours[1])
    if version < max(theirs[0], ours[0]):
        raise VersionMismatch(
            f"{who} speaks protocol versions {theirs[0]} to {theirs[1]}, this host {ours[0]} to "
            f"{ours[1]}",
            advice="upgrade the older of the two; replication of running pairings goes on",
        )
    return version


def greet_request() -> peer_pb2.GreetRequest:
    """Return what a host says first."""
    return peer_pb2.GreetRequest(
        version_min=PEER_VERSION_MIN, version_max=PEER_VERSION_MAX, software=SOFTWARE
    )


def answer_greet(request: peer_pb2.GreetRequest) -> peer_pb2.GreetReply:
    """Answer the peer's first call.

    Raises:
        VersionMismatch: If the two share no version.
    """
    theirs = (request.version_min, request.version_max)
    version = agree(
        theirs, (PEER_VERSION_MIN, PEER_VERSION_MAX), who=f"the caller ({request.software})"
    )
    return peer_pb2.GreetReply(version=version, software=SOFTWARE)


def check_version(metadata: Metadata, ours: tuple[int, int], *, required: bool) -> None:
    """Check the version that a caller claims.

    Raises:
        VersionMismatch: If it is not one of ours, or missing although required.
    """
    claimed = next((value for key, value in metadata if key == METADATA_KEY), None)
    if claimed is None:
        if required:
            raise VersionMismatch("the caller named no protocol version: it must greet first")
        return
    text = claimed.decode("ascii", "replace") if isinstance(claimed, bytes) else claimed
    is_number = text.isascii() and text.isdigit() and len(text) < 10
    if not (is_number and ours[0] <= int(text) <= ours[1]):
        raise VersionMismatch(
            f"the caller speaks protocol version {text[:16]!r}, this side {ours[0]} to {ours[1]}",
            advice="upgrade the older of the two",
        )
