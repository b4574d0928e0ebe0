"""Tables fit eighty columns, whatever is in them."""

from __future__ import annotations

import pytest

from colod.v1 import admin_pb2, types_pb2
from tests.integration.admin_double import FakeDaemon, protection, replicating, report
from tests.integration.test_cli_daemon import Run, colodctl, daemon

__all__ = ["colodctl", "daemon"]

GUEST = "g" * 63
HOST = ".".join(["host-" * 5] * 9)
CAUSE = (
    "neither the peer nor its session was heard for a long time, and nothing else is known of it"
)
COUNT = 9_999_999
BYTES = 999 << 40
LONG_S = 1e7


def wide() -> admin_pb2.ProtectionStatus:
    """Return a protection of which everything is long."""
    progress = types_pb2.Progress(
        sealed_epoch=COUNT,
        acked_epoch=1,
        unacked_bytes=BYTES,
        domain_pages=1000,
        first_copy_pages=999,
        epoch_pages=COUNT,
        epoch_bytes=BYTES,
        epoch_wire_bytes=BYTES,
        lag_s=LONG_S,
        pause_s=LONG_S,
        copy_s=LONG_S,
        ack_wait_s=LONG_S,
    )
    gate = types_pb2.Gate(
        phase=types_pb2.GATE_PHASE_HOLDING,
        hold_s=LONG_S,
        held_packets=999_999,
        held_bytes=BYTES,
        dropped_packets=COUNT,
        uncovered=["vif123.45"] * 9,
        not_in_replica=["vif123.45"] * 9,
        skipped={"unacknowledged": COUNT, "not_locked": COUNT},
    )
    signal = admin_pb2.PeerSignal(name=f"[{'2001:db8:' * 6}1]:7411", no_carrier_s=LONG_S)
    return protection(
        "SYNCING",
        progress,
        gate=gate,
        guest=GUEST,
        peer=HOST,
        owner=HOST,
        generation=COUNT,
        pairing="0" * 32,
        cause=CAUSE,
        advice=CAUSE,
        signals=[signal] * 3,
        standstill_s=LONG_S,
        standstill_cause=CAUSE,
    )


@pytest.fixture
def wide_daemon(daemon: FakeDaemon) -> FakeDaemon:
    """A daemon of which everything is long."""
    shown = report(wide(), replicating(guest="db"))
    shown.automation.CopyFrom(
        admin_pb2.Automation(paused=True, operator="o" * 70, reason=CAUSE, peer_paused=False)
    )
    daemon.reports = [shown]
    daemon.entries = [
        admin_pb2.HistoryEntry(
            unix_s=1e9,
            host=HOST,
            guest=GUEST,
            from_state="GUEST_SHUTDOWN",
            to_state="ARBITRATING",
            cause=CAUSE,
            generation=COUNT,
            epoch=COUNT,
        )
    ]
    daemon.findings = [
        admin_pb2.Finding(severity="warning", subject=GUEST, text=CAUSE, advice=CAUSE)
    ]
    daemon.checkpoints = admin_pb2.CheckpointsReply(
        kept=[
            admin_pb2.KeptImage(guest=GUEST, is_kept=True, epoch=COUNT, epoch_age_s=LONG_S),
            admin_pb2.KeptImage(guest=GUEST, trouble=CAUSE, advice=CAUSE),
        ],
        exported=[admin_pb2.ExportedImage(name="n" * 200, size_bytes=BYTES, unix_s=1e9)],
    )
    daemon.drills = [
        admin_pb2.DrillRecord(
            unix_s=1e9,
            host=HOST,
            guest=GUEST,
            kind="isolated",
            epoch=COUNT,
            verdict="not checked",
            detail=CAUSE,
            operator="o" * 70,
            network="b" * 15,
            is_kept=True,
            rpo_s=LONG_S,
            rto_s=LONG_S,
        )
    ]
    daemon.copies = [
        admin_pb2.QuarantinedCopy(
            domain=f"{GUEST}--quarantine-{COUNT}",
            guest=GUEST,
            kind="stranger",
            generation=COUNT,
            why=CAUSE,
            since_unix_s=1e9,
            memory_bytes=BYTES,
            domain_state="suspended",
            keep=admin_pb2.KeepOrder(operator="o" * 70, reason=CAUSE, unix_s=1e9),
            refusal=CAUSE,
            advice=CAUSE,
        )
    ]
    return daemon


@pytest.mark.parametrize(
    "command",
    [
        ("status",),
        ("status", GUEST),
        ("lag",),
        ("top", "--count", "1"),
        ("history",),
        ("doctor",),
        ("checkpoint", "list"),
        ("drill", "report"),
        ("quarantine", "list"),
        ("version",),
    ],
    ids=" ".join,
)
def test_no_line_is_longer_than_eighty_columns(
    wide_daemon: FakeDaemon, colodctl: Run, command: tuple[str, ...]
) -> None:
    ran = colodctl(*command)
    assert ran.status == 0
    assert [line for line in ran.out.splitlines() if len(line) > 80] == []
