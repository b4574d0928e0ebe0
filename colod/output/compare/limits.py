"""The comparator's bounds: in time, frames, bytes and flows."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much is held, and for how long.

    A checkpoint is asked for at half of `held_frames` and of `held_bytes`, so that there is room
    for what comes until it is made. At the whole bound the comparator stops comparing and forgets
    all it knows of the secondary; the primary's frames are held while there is room, then lost
    (`Lose`). Every other bound costs knowledge only, and missing knowledge holds frames back.

    Attributes:
        timeout_s: How long a frame may wait for its equal before a checkpoint is asked for. Below
            the guest's delayed acknowledgement (40 to 200 ms in Linux) quiet connections cost
            checkpoints; the larger, the longer a client waits at a divergence.
        held_frames: Frames of both sides that wait.
        held_bytes: What all that is kept may take: waiting frames, twice, and compared bytes.
        flows: TCP connections that are remembered. At the bound the one that was silent longest is
            forgotten if nothing of it waits; else the new one's frames wait for a checkpoint.
        flow_history_bytes: Compared bytes of one connection that are kept to compare later
            retransmissions with. Older retransmissions need the secondary's, too.
        history_bytes: The same for all connections; those silent longest are forgotten.
        flow_gaps: Separate runs of the secondary's bytes in one connection; the lowest is
            forgotten.
        flow_resets: Different RSTs of one connection and side; all are forgotten.
        datagrams: Fragmented IP datagrams of one side that are being put together. Further ones
            wait for a checkpoint.
    """

    timeout_s: float = 0.2
    held_frames: int = 32_768
    held_bytes: int = 256 << 20
    flows: int = 16_384
    flow_history_bytes: int = 1 << 20
    history_bytes: int = 64 << 20
    flow_gaps: int = 64
    flow_resets: int = 64
    datagrams: int = 256

    def __post_init__(self) -> None:
        """Refuse bounds that would hold nothing.

        Raises:
            ValueError: If one is not positive.
        """
        for field in fields(self):
            value = getattr(self, field.name)
            if value <= 0:
                raise ValueError(f"{field.name} {value}: want more than 0")


def check_times(options: Any) -> None:
    """Refuse options, all of them times and rates, of which one cannot be.

    Raises:
        ValueError: If one is not positive, or infinite.
    """
    for field in fields(options):
        value = getattr(options, field.name)
        if not 0 < value < float("inf"):
            raise ValueError(f"{field.name} {value}: want more than 0, and an end")
