"""What Prometheus sees of a status: every sample true, nothing invented, labels bounded."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from colod.daemon.status import WITNESS_SHOWN
from colod.failover.effects import State
from colod.failover.view import Answer
from colod.measures import Measure, Measures, bounds_of
from colod.observe.metrics import HOST_ROWS, ROWS, StatusCollector, updated
from colod.v1 import admin_pb2, types_pb2

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "metrics.md"
RULES = ROOT / "deploy" / "prometheus" / "colod.rules.yml"

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scraped(*protections: admin_pb2.ProtectionStatus) -> Samples:
    """Return what a scrape of these protections gives, read back by Prometheus's own parser."""
    reply = admin_pb2.StatusReply(host="alpha", protections=protections)
    registry = CollectorRegistry()
    registry.register(StatusCollector(lambda: reply))
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def of(samples: Samples, name: str) -> list[float]:
    return [value for (each, _), value in samples.items() if each == name]


def status(**fields: Any) -> admin_pb2.ProtectionStatus:
    return admin_pb2.ProtectionStatus(
        guest="g", role=types_pb2.ROLE_PRIMARY, peer="beta", mode="remus", disks="none", **fields
    )


def counted(measures: Measures) -> dict[str, types_pb2.Histogram]:
    return {
        str(name): types_pb2.Histogram(counts=each.counts, total=each.total)
        for name, each in measures.histograms().items()
    }


def test_exactly_one_state_is_shown() -> None:
    samples = scraped(status(state="PROTECTED"))
    shown = {
        dict(labels)["state"]: value
        for (name, labels), value in samples.items()
        if name == "colod_protection_state"
    }
    assert shown.keys() == {str(state) for state in State}
    assert [name for name, value in shown.items() if value] == ["PROTECTED"]


def test_lag_is_there_when_it_was_measured() -> None:
    progress = types_pb2.Progress(
        sealed_epoch=12, acked_epoch=10, unacked_bytes=4096, lag_s=0.25, rtt_s=-1
    )
    samples = scraped(status(progress=progress))
    assert of(samples, "colod_lag_seconds") == [0.25]
    assert of(samples, "colod_lag_epochs") == [2]
    assert of(samples, "colod_lag_bytes") == [4096]
    assert of(samples, "colod_rtt_seconds") == []


def test_a_link_is_measured_where_it_is_mended_and_only_there() -> None:
    link = types_pb2.SessionLink(may_resume=True, path="backup", resumed=3)
    samples = scraped(status(link=link))
    assert of(samples, "colod_link_mended_total") == [3]
    assert of(samples, "colod_link_on_backup") == [1]
    assert of(samples, "colod_link_broken_seconds") == [0]
    plain = scraped(status(link=types_pb2.SessionLink(rate_bytes_per_s=1)))
    assert of(plain, "colod_link_mended_total") == []
    assert of(plain, "colod_link_on_backup") == []


@pytest.mark.parametrize("progress", [None, types_pb2.Progress(lag_s=-1, unacked_bytes=9)])
def test_lag_that_nothing_measures_is_absent_and_never_0(
    progress: types_pb2.Progress | None,
) -> None:
    samples = scraped(status(progress=progress))
    for name in ("lag_seconds", "lag_epochs", "lag_bytes"):
        assert of(samples, f"colod_{name}") == []


def test_a_decision_that_was_never_made_has_no_age() -> None:
    assert of(scraped(status()), "colod_decided_age_seconds") == []
    assert of(scraped(status(decided_age_s=0.5)), "colod_decided_age_seconds") == [0.5]


def test_only_a_secondary_has_a_replica_to_promote() -> None:
    assert of(scraped(status()), "colod_replica_promotable") == []
    here = admin_pb2.ProtectionStatus(guest="g", role=types_pb2.ROLE_SECONDARY, promotable=True)
    assert of(scraped(here), "colod_replica_promotable") == [1]


def test_a_witness_that_was_not_asked_yet_is_neither_up_nor_away() -> None:
    seen = {
        answer: of(scraped(status(witness=text)), "colod_witness_up")
        for answer, text in WITNESS_SHOWN.items()
    }
    assert seen == {Answer.READ: [1], Answer.STALE: [], Answer.UNREACHABLE: [0]}


def test_the_gates_certainty_and_overflow_are_seen() -> None:
    gate = types_pb2.Gate(
        phase=types_pb2.GATE_PHASE_HOLDING,
        is_protected=True,
        barriers=40,
        skipped={"not_locked": 2, "unacknowledged": 3},
        dropped_packets=7,
        uncovered=["vif1.1"],
    )
    samples = scraped(status(gate=gate))
    assert of(samples, "colod_gate_protects") == [1]
    assert of(samples, "colod_gate_barriers_total") == [40]
    assert sorted(of(samples, "colod_gate_skipped_total")) == [2, 3]
    assert of(samples, "colod_gate_dropped_packets_total") == [7]
    assert of(samples, "colod_gate_uncovered_interfaces") == [1]
    assert sum(of(samples, "colod_gate_phase")) == 1


def test_without_a_gate_nothing_is_said_of_one() -> None:
    assert not [name for name, _ in scraped(status(state="ALONE")) if "gate" in name]


def test_histograms_hold_every_value_in_its_bucket() -> None:
    measures = Measures()
    for value in (0.001, 0.0011, 0.3, 31.0):
        measures.observe(Measure.PAUSE, value)
    measures.observe(Measure.PAUSE, -1)  # not known
    samples = scraped(status(measures=counted(measures)))
    buckets = {
        dict(labels)["le"]: value
        for (name, labels), value in samples.items()
        if name == "colod_epoch_pause_seconds_bucket"
    }
    assert (buckets["0.001"], buckets["0.002"], buckets["0.5"], buckets["30.0"]) == (1, 2, 3, 3)
    assert buckets["+Inf"] == of(samples, "colod_epoch_pause_seconds_count")[0] == 4
    assert of(samples, "colod_epoch_pause_seconds_sum") == [pytest.approx(31.3021)]


def test_a_histogram_of_another_version_is_left_out() -> None:
    odd = types_pb2.Histogram(counts=[1, 2], total=3)
    samples = scraped(status(measures={"pause_seconds": odd, "unheard_of": odd}))
    assert of(samples, "colod_epoch_pause_seconds_count") == []


def test_every_measure_has_growing_bounds() -> None:
    for measure in Measure:
        bounds = bounds_of(measure)
        assert list(bounds) == sorted(set(bounds))


def watched(fence: admin_pb2.SelfFence | None) -> Samples:
    registry = CollectorRegistry()
    registry.register(StatusCollector(lambda: admin_pb2.StatusReply(self_fence=fence)))
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {(each.name, ()): each.value for family in families for each in family.samples}


def test_a_watchdog_is_told_of_where_there_is_one() -> None:
    assert not [name for name, _ in watched(None) if "watchdog" in name]
    idle = watched(admin_pb2.SelfFence(kind="watchdog"))
    assert of(idle, "colod_watchdog_active") == [0]
    assert of(idle, "colod_watchdog_trouble") == [0]
    assert of(idle, "colod_watchdog_margin_seconds") == []
    starved = watched(admin_pb2.SelfFence(active=True, margin_s=3.5, trouble="not heard"))
    assert of(starved, "colod_watchdog_active") == [1]
    assert of(starved, "colod_watchdog_trouble") == [1]
    assert of(starved, "colod_watchdog_margin_seconds") == [3.5]


def test_labels_are_bounded() -> None:
    assert {label for row in ROWS for label in row.labels} == {
        *("state", "role", "peer", "mode", "disks", "phase", "reason", "signal"),
    }


def test_the_document_says_what_the_code_does() -> None:
    text = DOCUMENT.read_text()
    assert updated(text) == text, "run: python -m colod.observe.metrics docs/metrics.md"


def test_the_alerts_fire_when_they_should_and_only_then(tools: Path) -> None:
    promtool = tools / "promtool"
    if not promtool.exists():
        pytest.skip("NOT TESTED: no promtool; run deploy/test-prerequisites")
    for arguments in (
        ["check", "rules", str(RULES)],
        ["test", "rules", str(Path(__file__).with_name("prometheus_rules_test.yml"))],
    ):
        ran = subprocess.run([promtool, *arguments], capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_alerts_use_metrics_that_there_are(tools: Path) -> None:
    known = {"colod_" + row.name + ("_total" if row.is_counter else "") for row in ROWS}
    known |= {f"colod_{row.name}" for row in HOST_ROWS}
    used = set(_metrics_in(RULES.read_text()))
    assert used
    assert used <= known


def _metrics_in(text: str) -> Iterable[str]:
    for word in (
        text.replace("(", " ").replace(")", " ").replace("{", " ").replace("[", " ").split()
    ):
        if word.startswith("colod_"):
            yield word


@pytest.fixture
def tools() -> Path:
    """Where deploy/test-prerequisites puts programs."""
    found = shutil.which("promtool")
    return Path(found).parent if found else ROOT / ".venv" / "tools"
