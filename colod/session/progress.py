"""How far a session has come, in numbers; the same on both sides as far as each can know it."""

from __future__ import annotations

from dataclasses import dataclass

from colod.measures import Measure, Measures

UNKNOWN = -1.0
"""An age or duration of which nothing is known yet."""


@dataclass(slots=True, kw_only=True)
class Progress:
    """The fields of Progress in types.proto: ages and durations in seconds, -1 if unknown.

    `suspended_s` is None, and absent from the message, while the guest is in no checkpoint.
    """

    sealed_epoch: int = 0
    acked_epoch: int = 0
    stream_bytes: int = 0
    unacked_bytes: int = 0
    first_copy_pages: int = 0
    domain_pages: int = 0
    lag_s: float = UNKNOWN
    last_ack_age_s: float = UNKNOWN
    peer_heard_age_s: float = UNKNOWN
    pause_s: float = UNKNOWN
    copy_s: float = UNKNOWN
    ack_wait_s: float = UNKNOWN
    epoch_bytes: int = 0
    epoch_pages: int = 0
    rtt_s: float = UNKNOWN
    epoch_wire_bytes: int = 0
    staged_bytes: int = 0
    staged_peak_bytes: int = 0
    staging_bytes: int = 0
    stalled_s: float = 0.0
    epoch_pages_same: int = 0
    epoch_pages_delta: int = 0
    epoch_pages_raw: int = 0
    suspended_s: float | None = None
    waits_for: str = ""


def age(now: float, instant: float | None) -> float:
    """Return the seconds from `instant` to `now`, -1 for an instant that is not known."""
    return UNKNOWN if instant is None else max(0.0, now - instant)


@dataclass(slots=True)
class EpochTimes:
    """What is noted of one epoch until it is acknowledged.

    Attributes:
        opened_at: When its first byte was read; from epoch 2 on the guest was suspended just
            before, or longer ago if the session had been slow to read.
        resumed_at: When libxc's CHECKPOINT was read.
        sealed_at: When libxl's CHECKPOINT_END was read.
        begin: Offset of its first byte.
        end: Offset of the first byte that is not its own.
        pages: Pages with contents.
        wire_bytes: What it took on the link, frames and all.
        sent_pages: With deltas: its pages that were the same, changed in part, and new.
    """

    opened_at: float
    begin: int
    resumed_at: float | None = None
    sealed_at: float | None = None
    end: int = 0
    pages: int = 0
    wire_bytes: int = 0
    sent_pages: tuple[int, int, int] = (0, 0, 0)


class EpochLedger:
    """Books the epochs of one stream: opened, sealed, acknowledged, and when."""

    def __init__(self) -> None:
        """Begin with no epoch."""
        self._open: dict[int, EpochTimes] = {}
        self._newest = 0
        self._acked_end = 0
        self._acked_opened_at: float | None = None
        self._acked_at: float | None = None
        self._progress = Progress()
        self.measures = Measures()

    @property
    def sealed_epoch(self) -> int:
        """The newest whole epoch, 0 for none."""
        return self._progress.sealed_epoch

    @property
    def acked_epoch(self) -> int:
        """The newest acknowledged epoch, 0 for none."""
        return self._progress.acked_epoch

    def opened(self, epoch: int, offset: int, now: float) -> None:
        """Book the first byte of `epoch`."""
        self._open[epoch] = EpochTimes(now, offset)
        self._newest = epoch

    def pages(self, count: int) -> None:
        """Book pages that came with contents in the epoch opened last."""
        self._open[self._newest].pages += count
        if self._newest == 1:
            self._progress.first_copy_pages += count

    def domain_pages(self, count: int) -> None:
        """Book how many pages the domain has."""
        self._progress.domain_pages = count

    def may_resume(self, epoch: int, now: float) -> None:
        """Book libxc's CHECKPOINT."""
        self._open[epoch].resumed_at = now

    def sealed(self, epoch: int, offset: int, now: float) -> None:
        """Book that `epoch` is whole and ends before `offset`."""
        times = self._open[epoch]
        times.sealed_at, times.end = now, offset
        self._progress.sealed_epoch = epoch

    def sent(self, epoch: int, wire_bytes: int, pages: tuple[int, int, int]) -> None:
        """Book that `epoch` went out, in `wire_bytes` bytes, `pages` as `Sending.sent` has it."""
        self._open[epoch].wire_bytes = wire_bytes
        self._open[epoch].sent_pages = pages

    def acked(self, epoch: int, now: float) -> None:
        """Book that `epoch`, which is sealed, and all before it will survive."""
        times = self._open[epoch]
        assert times.sealed_at is not None
        self._acked_end, self._acked_at = times.end, now
        if epoch > 1:  # the first copy is live: nobody saw when the guest was suspended for it
            self._acked_opened_at = times.opened_at
        progress = self._progress
        progress.acked_epoch = epoch
        if times.resumed_at is not None and epoch > 1:
            progress.pause_s = times.resumed_at - times.opened_at
        progress.copy_s = times.sealed_at - times.opened_at
        progress.ack_wait_s = now - times.sealed_at
        progress.epoch_bytes = times.end - times.begin
        progress.epoch_pages = times.pages
        progress.epoch_wire_bytes = times.wire_bytes
        same, delta, raw = times.sent_pages
        progress.epoch_pages_same = same
        progress.epoch_pages_delta = delta
        progress.epoch_pages_raw = raw
        if epoch > 1:  # the first copy is of another kind, and would drown the rest
            self._measure(same, delta, raw)
        while (oldest := next(iter(self._open))) < epoch:
            del self._open[oldest]
        del self._open[epoch]

    def _measure(self, same: int, delta: int, raw: int) -> None:
        """Count the epoch that was acknowledged last."""
        progress, observe = self._progress, self.measures.observe
        observe(Measure.PAUSE, progress.pause_s)
        observe(Measure.COPY, progress.copy_s)
        observe(Measure.ACK_WAIT, progress.ack_wait_s)
        observe(Measure.STREAM, progress.epoch_bytes)
        observe(Measure.WIRE, progress.epoch_wire_bytes)
        observe(Measure.PAGES, progress.epoch_pages)
        if same + delta + raw:
            observe(Measure.PAGES_SAME, same)
            observe(Measure.PAGES_DELTA, delta)
            observe(Measure.PAGES_RAW, raw)

    def suspended_s(self, now: float) -> float | None:
        """Return for how long the guest has been suspended for the epoch opened last, if it is."""
        times = self._open.get(self._newest)
        if self._newest == 1 or times is None or times.resumed_at is not None:
            return None
        return max(0.0, now - times.opened_at)

    def report(self, stream_bytes: int, now: float) -> Progress:
        """Return the numbers as of `now`, after `stream_bytes` bytes of the stream."""
        progress = self._progress
        progress.stream_bytes = stream_bytes
        progress.unacked_bytes = stream_bytes - self._acked_end
        progress.lag_s = age(now, self._acked_opened_at)
        progress.last_ack_age_s = age(now, self._acked_at)
        return progress
