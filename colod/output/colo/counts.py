"""What a COLO proxy counts, as plain numbers for whoever makes metrics of them. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from colod.output.compare.decisions import Reason


@dataclass(slots=True, kw_only=True)
class Counts:
    """All since the proxy began, but for `held_*` and `connections`, which are of now.

    Attributes:
        primary_frames: That came from the primary.
        primary_bytes: Their bytes.
        secondary_frames: That came from the secondary.
        secondary_bytes: Their bytes.
        passed_frames: Of the primary, sent on without comparing: before COLO began, or alone.
        released_frames: Of the primary, sent on because the secondary had said the same, or
            because a checkpoint was made.
        lost_frames: Of the primary, for which there was no room: to hold them, or on the way out.
        matched_frames: Of the secondary, compared or made void by a checkpoint.
        stale_frames: Of the secondary, not looked at: from before a checkpoint, or nobody knows.
        offloaded_frames: Of either, left by a guest for its interface to cut or to checksum.
        held_frames: That wait now, of both.
        held_bytes: What all that is kept is counted as now.
        connections: TCP connections that are remembered now.
        requested: Checkpoints that libxl was asked for, by reason.
        made: Checkpoints that were made for each reason.
        unasked: Checkpoints that libxl made by its own clock.
        overdue: Requests that were unanswered for too long.
        uncut: Checkpoints at which the secondary's frames could not be told from older ones, or
            not yet: its mark had not come.
        assumed: Checkpoints at which that was assumed: see `ProxyOptions.are_cuts_assumed`.
        refused: Connections that were refused, by port.
        malformed: Connections that were ended for what came by them, by port.
        busy_s: Processor time spent on reading, comparing and passing on, in seconds.
    """

    primary_frames: int = 0
    primary_bytes: int = 0
    secondary_frames: int = 0
    secondary_bytes: int = 0
    passed_frames: int = 0
    released_frames: int = 0
    lost_frames: int = 0
    matched_frames: int = 0
    stale_frames: int = 0
    offloaded_frames: int = 0
    held_frames: int = 0
    held_bytes: int = 0
    connections: int = 0
    requested: Counter[Reason] = field(default_factory=Counter)
    made: Counter[Reason] = field(default_factory=Counter)
    unasked: int = 0
    overdue: int = 0
    uncut: int = 0
    assumed: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    malformed: Counter[str] = field(default_factory=Counter)
    busy_s: float = 0.0
