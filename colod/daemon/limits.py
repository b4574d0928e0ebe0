"""Times and sizes that the configuration gives; what uses them sees a reload at once."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

from colod.config import Config


@dataclass(slots=True, kw_only=True)
class Limits:
    """Times and sizes from the configuration; each is described there.

    One object for the whole daemon: it is changed in place when the configuration is read again.
    Attributes are written in the daemon's loop only, and each is read on its own.
    """

    beat_interval_s: float
    suspect_after_s: float
    carrier_grace_s: float
    standstill_s: float
    session_silence_s: float
    ping_interval_s: float
    staging_bytes: int
    ack_timeout_s: float
    resync_backoff_s: float
    resync_backoff_max_s: float
    takeover_automatic: bool
    resync_automatic: bool
    keep_quarantined: bool
    hold_output: bool
    hold_limit_bytes: int
    delta_codec: str
    delta_store_bytes: int
    rate_bytes_per_s: int = 0
    resume_bytes: int = 0
    image_directory: Path | None = None
    """Where images of replicas are kept; None where none are."""
    image_bytes: int = 0
    image_every_s: float = 0.0
    """How often one is written by schedule; 0 for never."""
    images_kept: int = 1
    scheduled_bytes: int = 0
    self_fence_required: bool = False
    guest_configs: Path = Path("/etc/xen")
    guest_end_wait_s: float = 15.0

    @classmethod
    def of(cls, config: Config) -> Self:
        """Return the limits that the configuration sets."""
        return cls(
            beat_interval_s=config.detection.beat_interval_s,
            suspect_after_s=config.detection.suspect_after_s,
            carrier_grace_s=config.detection.carrier_grace,
            standstill_s=config.detection.standstill_s,
            session_silence_s=config.detection.session_silence_s,
            ping_interval_s=config.detection.ping_interval_s,
            staging_bytes=config.session.staging_mib << 20,
            ack_timeout_s=config.session.ack_timeout_s,
            resync_backoff_s=config.policy.resync_backoff_s,
            resync_backoff_max_s=config.policy.resync_backoff_max_s,
            takeover_automatic=config.policy.takeover == "automatic",
            resync_automatic=config.policy.resync == "automatic",
            keep_quarantined=config.policy.quarantine == "keep",
            hold_output=config.output.hold == "automatic",
            hold_limit_bytes=config.output.limit_mib << 20,
            delta_codec=config.session.deltas,
            delta_store_bytes=config.session.page_store_mib << 20,
            resume_bytes=config.resume_bytes,
            rate_bytes_per_s=config.transport.rate_bytes_per_s,
            guest_configs=config.toolstack.guest_configs,
            guest_end_wait_s=config.toolstack.guest_end_wait_s,
            self_fence_required=config.self_fence.is_required,
            image_directory=config.checkpoints.directory if config.checkpoints.keep else None,
            image_bytes=config.checkpoints.store_mib << 20,
            image_every_s=config.checkpoints.every_s,
            images_kept=config.checkpoints.keep_images,
            scheduled_bytes=config.checkpoints.scheduled_mib << 20,
        )

    def become(self, other: Self) -> None:
        """Take over all values of `other`."""
        for field in fields(self):
            setattr(self, field.name, getattr(other, field.name))
