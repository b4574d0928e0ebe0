"""The time budget: how long a guest may be out, from the configured times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from colod.config.schema import Config

_WITNESS_REQUESTS: Final = 2  # read, then compare-and-swap
_WITNESS_TIMEOUT_S: Final = 3.0  # the longest default of the witness kinds
_ACTIVATION_COMMANDS: Final = 3  # let xl finish the hand-over, verify the copy, unpause it


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
    ]


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
