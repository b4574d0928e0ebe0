"""Grafana's dashboard asks only for what the code exports, in words that Prometheus understands."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from colod.observe.metrics import HOST_ROWS, ROWS, StatusCollector
from colod.v1 import admin_pb2

ROOT: Final = Path(__file__).parents[2]
DASHBOARD: Final = json.loads((ROOT / "deploy" / "grafana" / "colod.json").read_text())
SELECTOR: Final = re.compile(r"(colod_[a-z_]+)(?:\{([^}]*)\})?")
OF_SCRAPES: Final = {"instance", "job"}
SUFFIXES: Final = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}


def exported() -> Mapping[str, set[str]]:
    """Return the names of all samples that a scrape can have, and their labels."""
    labels = {f"colod_{row.name}": {"guest", *row.labels} for row in ROWS}
    labels["colod_info"] = {"version", "host", "simulated"}
    labels |= {f"colod_{row.name}": set() for row in HOST_ROWS}
    collector = StatusCollector(lambda: admin_pb2.StatusReply(host="alpha"))
    return {
        metric.name + suffix: labels.get(metric.name, {"guest"})
        | ({"le"} if suffix == "_bucket" else set())
        for metric in collector.collect()
        for suffix in SUFFIXES.get(metric.type, ("",))
    }


def panels() -> list[dict[str, Any]]:
    return [each for each in DASHBOARD["panels"] if each["type"] != "row"]


def queries() -> Iterator[tuple[str, str]]:
    """Yield each query with its legend."""
    for panel in panels():
        for target in panel["targets"]:
            yield target["expr"], target["legendFormat"]
    for annotation in DASHBOARD["annotations"]["list"]:
        yield annotation["expr"], annotation["titleFormat"]


def labels_in(selector: str) -> set[str]:
    return {part.split("=")[0].rstrip("!").strip() for part in selector.split(",") if part}


@pytest.mark.parametrize(("query", "legend"), list(queries()))
def test_a_query_asks_for_metrics_and_labels_that_there_are(query: str, legend: str) -> None:
    known = exported()
    found = SELECTOR.findall(query)
    assert found
    for name, selector in found:
        assert name in known
        assert labels_in(selector) <= known[name]
    kept = set().union(*(known[name] for name, _ in found)) | OF_SCRAPES
    for group in re.findall(r"\b(?:by|on) \(([^)]*)\)", query):
        assert labels_in(group) <= kept
    if summed := re.search(r"\bby \(([^)]*)\)", query):
        kept = labels_in(summed[1])
    assert set(re.findall(r"\{\{(\w+)\}\}", legend)) <= kept


def test_guests_to_choose_from_come_from_a_metric_that_there_is() -> None:
    (guest,) = (each for each in DASHBOARD["templating"]["list"] if each["name"] == "guest")
    assert guest["definition"] == guest["query"]["query"]
    name, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", guest["definition"]).groups()  # type: ignore[union-attr]
    assert label in exported()[name]


def test_every_query_is_of_the_chosen_data_source_and_guests() -> None:
    for panel in panels():
        assert {each["datasource"]["uid"] for each in panel["targets"]} == {"${datasource}"}
    for query, _ in queries():
        assert 'guest=~"$guest"' in query


def test_prometheus_understands_every_query(tmp_path: Path) -> None:
    promtool = shutil.which("promtool") or str(ROOT / ".venv" / "tools" / "promtool")
    if not Path(promtool).exists():
        pytest.skip("NOT TESTED: no promtool; run deploy/test-prerequisites")
    rules = [
        {"record": f"q{number}", "expr": query.replace("$__rate_interval", "1m")}
        for number, (query, _) in enumerate(queries())
    ]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    ran = subprocess.run(
        [promtool, "check", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_no_panel_hides_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (place["x"] + right, place["y"] + down)
            for right in range(place["w"])
            for down in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    identifiers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(identifiers)) == len(identifiers)
