"""What Prometheus sees, made of the daemon's status: one table, from which docs/metrics.md is made.

    python -m colod.observe.metrics docs/metrics.md

What is not known has no sample: a lag that was not measured is absent, never 0. Labels are bounded:
guests and peers of this host's protections, states and reasons that the code names.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from colod import __version__
from colod.failover.effects import State
from colod.measures import MEANINGS, Measure, bounds_of
from colod.observe.checks import WITNESS_ANSWERS, WITNESS_AWAY
from colod.output.compare.decisions import Reason
from colod.v1 import admin_pb2, types_pb2

PREFIX: Final = "colod_"
BEGIN: Final = "<!-- generated: python -m colod.observe.metrics docs/metrics.md -->"
END: Final = "<!-- end of what is generated -->"

Status = admin_pb2.ProtectionStatus
Sample = tuple[tuple[str, ...], float]
"""Values of the labels after `guest`, and the value."""


@dataclass(frozen=True, slots=True)
class Row:
    """One metric of a protection.

    Attributes:
        name: Without the prefix; a counter's without `_total`.
        meaning: What it says, for people.
        read: Takes the samples from a status; none where nothing is known.
        labels: Beside `guest`.
        is_counter: Whether it only grows, until the session ends.
    """

    name: str
    meaning: str
    read: Callable[[Status], Iterable[Sample]]
    labels: tuple[str, ...] = ()
    is_counter: bool = False


def _states(status: Status) -> Iterator[Sample]:
    for state in State:
        yield (state,), float(status.state == state)


def _phases(status: Status) -> Iterator[Sample]:
    if status.HasField("gate"):
        for name, number in types_pb2.GatePhase.items():
            if number:
                yield (
                    (name.removeprefix("GATE_PHASE_").lower(),),
                    float(status.gate.phase == number),
                )


def _progress(read: Callable[[types_pb2.Progress], float]) -> Callable[[Status], list[Sample]]:
    """Return a reader of the session's progress; a value below 0 is not known."""

    def samples(status: Status) -> list[Sample]:
        value = read(status.progress) if status.HasField("progress") else -1.0
        return [((), float(value))] if value >= 0 else []

    return samples


def _lag(read: Callable[[types_pb2.Progress], float]) -> Callable[[Status], list[Sample]]:
    """Return a reader of a part of the lag, of which all is known or nothing."""
    return _progress(lambda progress: read(progress) if progress.lag_s >= 0 else -1.0)


def _gate(read: Callable[[types_pb2.Gate], float]) -> Callable[[Status], list[Sample]]:
    return lambda status: [((), float(read(status.gate)))] if status.HasField("gate") else []


def _compared(
    read: Callable[[types_pb2.Comparison], float], role: types_pb2.Role.ValueType
) -> Callable[[Status], list[Sample]]:
    """Return a reader of what the session of one role says of the comparison."""

    def samples(status: Status) -> list[Sample]:
        is_told = status.HasField("comparison") and status.role == role
        return [((), float(read(status.comparison)))] if is_told else []

    return samples


def _comparing(read: Callable[[types_pb2.Comparison], float]) -> Callable[[Status], list[Sample]]:
    return _compared(read, types_pb2.ROLE_PRIMARY)


def _colo_checkpoints(status: Status) -> Iterator[Sample]:
    if status.HasField("comparison") and status.role == types_pb2.ROLE_PRIMARY:
        for reason in Reason:
            yield (reason,), float(status.comparison.made.get(reason, 0))
        yield ("unasked",), float(status.comparison.unasked)


def _witness(status: Status) -> list[Sample]:
    answers = {WITNESS_ANSWERS: 1.0, WITNESS_AWAY: 0.0}
    return [((), answers[status.witness])] if status.witness in answers else []


def _link(read: Callable[[types_pb2.SessionLink], float]) -> Callable[[Status], list[Sample]]:
    """Return a reader of a link that is mended where it breaks."""
    return lambda status: [((), float(read(status.link)))] if status.link.may_resume else []


def _skipped(status: Status) -> list[Sample]:
    return [((reason,), float(count)) for reason, count in sorted(status.gate.skipped.items())]


ROWS: Final = (
    Row("protection_state", "1 for the state that the protection is in", _states, ("state",)),
    Row(
        "protection_info",
        "Always 1: role on this host, the other host and the terms",
        lambda s: [((_role(s), s.peer, s.mode, s.disks), 1.0)],
        ("role", "peer", "mode", "disks"),
    ),
    Row(
        "output_held",
        "Whether nothing leaves that a failover could take back",
        lambda s: [((), float(s.output_held))],
    ),
    Row(
        "peer_up",
        "Whether the other host's daemon answers",
        lambda s: [((), float(s.peer_contact == "up"))],
    ),
    Row(
        "witness_up",
        "Whether the witness answered when it was last asked; absent until it has been. Without "
        "it nobody can take over",
        _witness,
    ),
    Row(
        "peer_signal_silent",
        "Whether a signal of the other host is silent: `session`, or an address of its daemon; it "
        "is suspected when all are",
        lambda s: [((signal.name,), float(signal.is_silent)) for signal in s.signals],
        ("signal",),
    ),
    Row(
        "guest_standstill_seconds",
        "For how long the guest has been seen to stand still, paused or suspended; 0 while it runs",
        lambda s: [((), s.standstill_s)] if s.HasField("standstill_s") else [],
    ),
    Row(
        "decided_age_seconds",
        "Age of the facts that the state was last decided on; a second, unless something hangs",
        lambda s: [((), s.decided_age_s)] if s.HasField("decided_age_s") else [],
    ),
    Row(
        "replica_promotable",
        "On a secondary: whether its replica may be promoted, as far as is known",
        lambda s: [((), float(s.promotable))] if s.role == types_pb2.ROLE_SECONDARY else [],
    ),
    Row(
        "drill_last_success_timestamp_seconds",
        "When the last drill on this host passed its check; 0 where none has and a replica is here",
        lambda s: (
            [((), s.drill_last_success_unix_s)] if s.HasField("drill_last_success_unix_s") else []
        ),
    ),
    Row(
        "image_last_scheduled_timestamp_seconds",
        "When the newest image by schedule on this host was begun; 0 where none was yet",
        lambda s: (
            [((), s.image_last_scheduled_unix_s)]
            if s.HasField("image_last_scheduled_unix_s")
            else []
        ),
    ),
    Row(
        "image_schedule_interval_seconds",
        "How often an image by schedule is to be begun on this host",
        lambda s: [((), s.image_every_s)] if s.HasField("image_every_s") else [],
    ),
    Row("generation", "Generation of the ownership record", lambda s: [((), float(s.generation))]),
    Row(
        "lag_seconds",
        "Age of the oldest guest state that the secondary does not hold",
        _lag(lambda p: p.lag_s),
    ),
    Row(
        "lag_epochs",
        "Epochs that are whole here and not acknowledged",
        _lag(lambda p: max(0, p.sealed_epoch - p.acked_epoch)),
    ),
    Row("lag_bytes", "Bytes of libxl's stream not acknowledged", _lag(lambda p: p.unacked_bytes)),
    Row("acknowledged_epoch", "The newest acknowledged epoch", _progress(lambda p: p.acked_epoch)),
    Row("stream_bytes", "Bytes of libxl's stream", _progress(lambda p: p.stream_bytes), (), True),
    Row("staged_bytes", "What waits in memory for the link", _progress(lambda p: p.staged_bytes)),
    Row("staging_bytes", "The bound of that memory", _progress(lambda p: p.staging_bytes)),
    Row(
        "stalled_seconds",
        "For how long libxl had to wait because that memory was full: it keeps the guest suspended",
        _progress(lambda p: p.stalled_s),
        (),
        True,
    ),
    Row("rtt_seconds", "Round trip between the sessions", _progress(lambda p: p.rtt_s)),
    Row(
        "link_mended",
        "How often another connection took over for the sessions' link, where both sides mend it",
        _link(lambda link: link.resumed),
        (),
        True,
    ),
    Row(
        "link_broken_seconds",
        "For how long the sessions have had no connection and look for another one; 0 with one",
        _link(lambda link: link.broken_s),
    ),
    Row(
        "link_on_backup",
        "Whether the sessions' link goes over the second path",
        _link(lambda link: link.path == "backup"),
    ),
    Row("gate_phase", "1 for the phase that the output gate is in", _phases, ("phase",)),
    Row(
        "gate_protects",
        "Whether nothing has left that the secondary lacks: the lock-step was certain since",
        _gate(lambda g: g.is_protected),
    ),
    Row(
        "gate_barriers",
        "Suspended windows in which a barrier was set",
        _gate(lambda g: g.barriers),
        (),
        True,
    ),
    Row(
        "gate_skipped",
        "Suspended windows without one: the output waits for the next certain one",
        _skipped,
        ("reason",),
        True,
    ),
    Row("gate_held_packets", "Packets in the plugs", _gate(lambda g: g.held_packets)),
    Row("gate_held_bytes", "Bytes in the plugs", _gate(lambda g: g.held_bytes)),
    Row(
        "gate_dropped_packets",
        "Packets dropped because a plug was full (docs/output-gate.md, 'Size')",
        _gate(lambda g: g.dropped_packets),
        (),
        True,
    ),
    Row(
        "gate_uncovered_interfaces",
        "Interfaces of the guest whose output is not held",
        _gate(lambda g: len(g.uncovered)),
    ),
    Row(
        "gate_interfaces_not_in_replica",
        "Interfaces that the guest got since the pairing began: a takeover would leave them behind",
        _gate(lambda g: len(g.not_in_replica)),
    ),
    Row(
        "colo_checkpoints",
        "In COLO: checkpoints by what they were made for (docs/colo.md), and `unasked` by libxl",
        _colo_checkpoints,
        ("reason",),
        True,
    ),
    Row(
        "colo_checkpoints_per_second",
        "In COLO: checkpoints a second, over the last ten",
        _comparing(lambda c: c.checkpoints_per_s),
    ),
    Row(
        "colo_held_frames",
        "In COLO: frames of both copies that wait to be compared",
        _comparing(lambda c: c.held_frames),
    ),
    Row(
        "colo_held_bytes",
        "In COLO: what is kept of frames to compare with",
        _comparing(lambda c: c.held_bytes),
    ),
    Row(
        "colo_released_frames",
        "In COLO: frames of the primary that left, as the secondary had said the same",
        _comparing(lambda c: c.released_frames),
        (),
        True,
    ),
    Row(
        "colo_lost_frames",
        "In COLO: frames of the primary lost for want of room, or of a way out",
        _comparing(lambda c: c.lost_frames),
        (),
        True,
    ),
    Row(
        "colo_stale_frames",
        "In COLO: frames of the secondary that proved nothing",
        _comparing(lambda c: c.stale_frames),
        (),
        True,
    ),
    Row(
        "colo_compare_cpu_seconds",
        "In COLO: processor time spent on comparing",
        _comparing(lambda c: c.busy_s),
        (),
        True,
    ),
    Row(
        "colo_copy_locked",
        "In COLO, on a secondary: whether its running copy reaches nobody but the comparator",
        _compared(lambda c: c.phase == "locked", types_pb2.ROLE_SECONDARY),
    ),
)


@dataclass(frozen=True, slots=True)
class HostRow:
    """One metric of the host itself, without labels.

    Attributes:
        name: Without the prefix.
        meaning: What it says, for people.
        read: Takes the value from the status; None where nothing is known.
    """

    name: str
    meaning: str
    read: Callable[[admin_pb2.StatusReply], float | None]


def _watchdog(read: Callable[[admin_pb2.SelfFence], float]) -> Callable[..., float | None]:
    def value(reply: admin_pb2.StatusReply) -> float | None:
        return float(read(reply.self_fence)) if reply.HasField("self_fence") else None

    return value


def _margin(reply: admin_pb2.StatusReply) -> float | None:
    fence = reply.self_fence
    return fence.margin_s if fence.HasField("margin_s") else None


HOST_ROWS: Final = (
    HostRow(
        "automation_paused",
        "Whether operators have paused what this host does by itself",
        lambda reply: float(reply.automation.paused),
    ),
    HostRow(
        "watchdog_active",
        "Whether this host's watchdog is armed; absent where none is configured",
        _watchdog(lambda w: w.active),
    ),
    HostRow(
        "watchdog_margin_seconds",
        "Time until it resets this host if it is not fed; absent while it is not armed",
        _margin,
    ),
    HostRow(
        "watchdog_trouble",
        "Whether it cannot be armed where it should be, or is not fed any more",
        _watchdog(lambda w: bool(w.trouble)),
    ),
)


class StatusCollector(Collector):
    """Makes metrics of the status at the moment of the scrape."""

    def __init__(self, status: Callable[[], admin_pb2.StatusReply]) -> None:
        """Collect from `status`, which is called in the scraper's thread."""
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """Yield all metric families."""
        reply = self._status()
        info = GaugeMetricFamily(
            f"{PREFIX}info", "Always 1: version and host", labels=["version", "host", "simulated"]
        )
        info.add_metric([__version__, reply.host, str(reply.simulated).lower()], 1)
        yield info
        for host_row in HOST_ROWS:
            gauge = GaugeMetricFamily(PREFIX + host_row.name, host_row.meaning)
            if (value := host_row.read(reply)) is not None:
                gauge.add_metric([], value)
            yield gauge
        for row in ROWS:
            yield _family(row, reply.protections)
        for measure in Measure:
            yield _histogram(measure, reply.protections)


def _family(row: Row, protections: Iterable[Status]) -> Metric:
    kind = CounterMetricFamily if row.is_counter else GaugeMetricFamily
    family = kind(PREFIX + row.name, row.meaning, labels=["guest", *row.labels])
    for status in protections:
        for labels, value in row.read(status):
            family.add_metric([status.guest, *labels], value)
    return family


def _histogram(measure: Measure, protections: Iterable[Status]) -> Metric:
    family = HistogramMetricFamily(_name_of(measure), MEANINGS[measure], labels=["guest"])
    bounds = [*map(str, bounds_of(measure)), "+Inf"]
    for status in protections:
        histogram = status.measures.get(measure)
        if histogram is None or len(histogram.counts) != len(bounds):
            continue  # of a session of another version
        so_far, buckets = 0, []
        for bound, count in zip(bounds, histogram.counts, strict=True):
            so_far += count
            buckets.append((bound, float(so_far)))
        family.add_metric([status.guest], buckets, histogram.total)
    return family


def _name_of(measure: Measure) -> str:
    return f"{PREFIX}epoch_{measure}"


def _role(status: Status) -> str:
    return types_pb2.Role.Name(status.role).removeprefix("ROLE_").lower()


def reference() -> str:
    """Return all metrics as a table in Markdown."""
    lines = ["| metric | kind | labels | meaning |", "|---|---|---|---|"]
    lines.append("| `colod_info` | gauge | `version`, `host`, `simulated` | Always 1 |")
    lines.extend(f"| `{PREFIX}{row.name}` | gauge |  | {row.meaning} |" for row in HOST_ROWS)
    for row in ROWS:
        name = f"{PREFIX}{row.name}{'_total' if row.is_counter else ''}"
        labels = ", ".join(f"`{label}`" for label in ("guest", *row.labels))
        kind = "counter" if row.is_counter else "gauge"
        lines.append(f"| `{name}` | {kind} | {labels} | {row.meaning} |")
    lines.extend(
        f"| `{_name_of(measure)}` | histogram | `guest` | {MEANINGS[measure]} |"
        for measure in Measure
    )
    return "\n".join(lines)


def updated(text: str) -> str:
    """Return the document `text` with the table made anew."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{reference()}\n\n{END}{tail}"


if __name__ == "__main__":
    document = Path(sys.argv[1])
    document.write_text(updated(document.read_text()))
