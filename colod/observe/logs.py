"""Logs: structlog over the standard library, one event per line on standard error.

An event's name is `subject.past_participle` from `Event`; everything else is a field with its unit.
Bind once, log often: `log = logger(protection="web", role="primary")`.
"""

from __future__ import annotations

import logging
import sys
from enum import StrEnum
from typing import Final, Literal, TextIO, cast

import structlog
from structlog.typing import FilteringBoundLogger, Processor

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["json", "console"]

BOUND_FIELDS: Final = ("protection", "host", "role", "generation", "epoch", "cause")
"""Fields that are bound rather than given with each event; they come first in a line."""


class Event(StrEnum):
    """Names of events that others rely on. Per-epoch ones are debug, changes of role are info."""

    ADMIN_CALLED = "admin.called"
    ADMIN_DENIED = "admin.denied"
    ADMIN_FINISHED = "admin.finished"
    AUDIT_UNWRITTEN = "audit.unwritten"
    AUTOMATION_CHANGED = "automation.changed"
    CARRIER_LOST = "carrier.lost"
    CARRIER_RETURNED = "carrier.returned"
    CARRIER_UNWATCHED = "carrier.unwatched"
    CERTIFICATE_REFUSED = "certificate.refused"
    CONFIG_REFUSED = "config.refused"
    CONFIG_RELOADED = "config.reloaded"
    COPY_DISCARDED = "copy.discarded"
    COPY_RELEASED = "copy.released"
    COPY_RETAINED = "copy.retained"
    DAEMON_FAILED = "daemon.failed"
    DAEMON_STARTED = "daemon.started"
    DAEMON_STOPPED = "daemon.stopped"
    DEFECT_DETECTED = "defect.detected"
    DRILL_CLEARED = "drill.cleared"
    DRILL_FINISHED = "drill.finished"
    DRILL_STARTED = "drill.started"
    EFFECT_FAILED = "effect.failed"
    EFFECT_STARTED = "effect.started"
    FENCE_CONFIRMED = "fence.confirmed"
    FENCE_FAILED = "fence.failed"
    GUEST_ANNOUNCED = "guest.announced"
    GUEST_CLEARED = "guest.cleared"
    GUEST_CONTINUED = "guest.continued"
    GUEST_STALLED = "guest.stalled"
    GUEST_STARTED = "guest.started"
    GUEST_UNSTARTED = "guest.unstarted"
    HISTORY_UNWRITTEN = "history.unwritten"
    HTTP_FAILED = "http.failed"
    IMAGE_FAILED = "image.failed"
    IMAGE_REFUSED = "image.refused"
    IMAGE_WRITTEN = "image.written"
    JOURNAL_UNWRITTEN = "journal.unwritten"
    LISTEN_FAILED = "listen.failed"
    OWNERSHIP_LOST = "ownership.lost"
    OWNERSHIP_WON = "ownership.won"
    PAIRING_STARTED = "pairing.started"
    PEER_UNREACHED = "peer.unreached"
    PROTECTION_ENDED = "protection.ended"
    REPLICA_DISCARDED = "replica.discarded"
    RESCUE_FINISHED = "rescue.finished"
    ROLE_CHANGED = "role.changed"
    SESSION_ENDED = "session.ended"
    SESSION_UNKNOWN = "session.unrecognised"
    SESSION_UNREACHED = "session.unreached"
    WATCHDOG_ABANDONED = "watchdog.abandoned"
    WATCHDOG_ARMED = "watchdog.armed"
    WATCHDOG_DISARMED = "watchdog.disarmed"
    WATCHDOG_FAILED = "watchdog.failed"
    WATCHDOG_RESUMED = "watchdog.resumed"
    WATCHDOG_STARVED = "watchdog.starved"
    WITNESS_UNREACHED = "witness.unreached"


def configure(level: Level, form: Format, *, stream: TextIO | None = None) -> None:
    """Set up logging for the whole process; a second call replaces the first (a reload).

    Lines of other libraries come out in the same form, with their logger as `logger`.

    Args:
        level: Lowest level to write.
        form: `json`, one object a line, or `console` for eyes.
        stream: Where to write; standard error if None.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    output = logging.StreamHandler(stream or sys.stderr)
    output.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_rendering(form),
            ],
        )
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(output)
    # At debug the libraries' own lines (gRPC's, asyncio's) would drown ours and help nobody.
    root.setLevel("INFO" if level == "debug" else level.upper())
    logging.getLogger("colod").setLevel(level.upper())
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        # Levels are left to the standard library: a reload must reach loggers that exist already.
        wrapper_class=structlog.make_filtering_bound_logger(logging.NOTSET),
        cache_logger_on_first_use=False,
    )


def logger(**fields: object) -> FilteringBoundLogger:
    """Return a logger with `fields` bound to each of its events."""
    return cast("FilteringBoundLogger", structlog.get_logger("colod", **fields))


def _rendering(form: Format) -> list[Processor]:
    if form == "console":
        return [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), timestamp_key="time")]
    return [
        structlog.processors.format_exc_info,
        _order_fields,
        structlog.processors.JSONRenderer(default=str),
    ]


def _order_fields(
    _logger: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Put what every line has first, so that lines can be read by eye too."""
    first = ("time", "level", "event", *BOUND_FIELDS)
    head = {name: event[name] for name in first if name in event}
    return head | {name: value for name, value in event.items() if name not in head}
