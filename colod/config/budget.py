"""The time budget: how long a guest may be out, from the configured times."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from colod.config.schema import Config

_WITNESS_REQUESTS: Final = 2  # read, then compare-and-swap
_WITNESS_TIMEOUT_S: Final = 3.0  # the longest default of the witness kinds
_ACTIVATION_COMMANDS: Final = 3  # let xl finish the hand-over, verify the copy, unpause it

FEED_S = 1.0
"""Time between two feeds of the watchdog."""

STALL_S = 30.0
"""WatchdogSec= of colod.service: a daemon that hangs for longer is ended."""

COME_BACK_S = 29.0
"""RestartSec= of 1 s, and Python's start on a dom0 that has much to do."""

_STATUS_S: Final = 1.0  # a session tells its daemon at least that often what it heard
_STOP_COMMANDS = 3  # find the guest, pause it, verify that


def least_watchdog_s(config: Config) -> int:
    """Return the shortest time-out, in seconds, of a watchdog that is no danger to a sound host.

    Neither one whose daemon restarts nor one that still pauses its guest is reset by it.
    """
    return math.ceil(max(_restart_s(), _stop_s(config)))


def watchdog_needs(config: Config) -> tuple[str, str]:
    """Return what a watchdog's time-out has to leave room for, as sums."""
    command_s = config.toolstack.command_timeout_s
    return (
        f"a daemon that hangs, is ended and comes back takes {_restart_s():g} s ="
        f" {FEED_S:g} since the last feed + {STALL_S:g} (WatchdogSec) + {COME_BACK_S:g} to start",
        f"pausing the guest takes {_stop_s(config):g} s = {FEED_S:g} since the last feed"
        f" + {_STOP_COMMANDS} commands (find, pause, verify) x command_timeout_s {command_s:g}",
    )


def time_budget(config: Config) -> list[str]:
    """Return lines that add up the longest unplanned outage, and what makes its first part."""
    detection, toolstack = config.detection, config.toolstack
    timeout = config.witness.options.get("timeout_s", _WITNESS_TIMEOUT_S)
    timeout_s = float(timeout) if isinstance(timeout, int | float) else _WITNESS_TIMEOUT_S
    noticed_s = detection.suspect_after_s + detection.beat_interval_s
    decided_s = _WITNESS_REQUESTS * timeout_s
    running_s = _ACTIVATION_COMMANDS * toolstack.command_timeout_s
    cut_s = detection.carrier_grace + detection.beat_interval_s
    networks = 1 + len(config.peer.more_addresses)
    return [
        f"detection   <= {noticed_s:6.1f} s = suspect_after_s {detection.suspect_after_s:g}"
        f" + beat_interval_s {detection.beat_interval_s:g}",
        f"  by link   <= {cut_s:6.1f} s = carrier_grace_s {detection.carrier_grace:g}"
        f" + beat_interval_s {detection.beat_interval_s:g}, once every way to the peer has lost its"
        " link",
        f"arbitration <= {decided_s:6.1f} s = {_WITNESS_REQUESTS} requests (read,"
        f" compare-and-swap) x witness time-out {timeout_s:g}",
        f"activation  <= {running_s:6.1f} s = {_ACTIVATION_COMMANDS} commands (hand over, verify,"
        f" unpause) x command_timeout_s {toolstack.command_timeout_s:g}",
        f"outage      <= {noticed_s + decided_s + running_s:6.1f} s while witness and xl answer;"
        " past a bound the guest waits, paused",
        f"held output <= {detection.session_silence_s + decided_s:6.1f} s = session_silence_s"
        f" {detection.session_silence_s:g} + arbitration, where the other host is lost and the"
        " primary goes on alone",
        f"suspected when all of {networks + 1} signals are silent: heartbeats every"
        f" {detection.beat_interval_s:g} s over {_count(networks, 'network')}, the sessions' pings"
        f" every {detection.ping_interval_s:g} s",
        *_late_words(config),
        *_self_fence_budget(config, noticed_s + decided_s),
    ]


def _late_words(config: Config) -> list[str]:
    """Warn where a session's word of the peer may be older than the peer may be silent."""
    detection = config.detection
    told_s = _STATUS_S + detection.ping_interval_s
    if detection.suspect_after_s >= told_s:
        return []
    return [
        f"warning: suspect_after_s {detection.suspect_after_s:g} is less than {told_s:g} (1 +"
        " ping_interval_s): a session tells its daemon only once a second what it hears, so only"
        " heartbeats keep the peer from being suspected"
    ]


def _self_fence_budget(config: Config, taken_s: float) -> list[str]:
    """Return when a host that cannot stop its guest is reset, beside the other one's takeover."""
    if config.self_fence.kind == "none":
        return []
    detection, timeout_s = config.detection, config.self_fence.timeout_s
    starved_s = detection.suspect_after_s + FEED_S
    return [
        f"self-fence  <= {starved_s + timeout_s:6.1f} s = suspect_after_s"
        f" {detection.suspect_after_s:g} + {FEED_S:g} + self_fence.timeout_s {timeout_s:g}: the"
        f" other host may own the guest after {taken_s:g} s, so this is a second line, no proof",
        f"restart     <= {timeout_s:6.1f} s = self_fence.timeout_s, at least"
        f" {config.least_watchdog_s}: {'; '.join(watchdog_needs(config))}",
    ]


def _restart_s() -> float:
    return FEED_S + STALL_S + COME_BACK_S


def _stop_s(config: Config) -> float:
    return FEED_S + _STOP_COMMANDS * config.toolstack.command_timeout_s


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
