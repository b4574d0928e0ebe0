"""What several looks tell together: a curve that invents nothing, and a rate of one session."""

from __future__ import annotations

import pytest

from colod.cli.trend import KEPT, Trend, sparkline
from colod.v1 import admin_pb2, types_pb2


@pytest.mark.parametrize(
    ("values", "width", "drawn"),
    [
        ([], 10, ""),
        ([0.0, 0.0], 10, "▁▁"),
        ([1.0], 10, "█"),
        ([0.0, 1.0, 2.0, 4.0, 7.9, 8.0], 10, "▁▂▃▅██"),
        ([None, 1.0, None], 10, "·█·"),
        ([None], 10, "·"),
        ([9.0, 1.0, 2.0], 2, "▅█"),
        ([1.0], 0, ""),
    ],
)
def test_a_curve_reaches_from_0_to_the_greatest_value_shown(
    values: list[float | None], width: int, drawn: str
) -> None:
    assert sparkline(values, width) == drawn


def test_a_curve_can_be_drawn_in_ascii() -> None:
    assert sparkline([0.0, None, 1.0], 3, plain=True) == "_?#"


def status(total: float | None, pairing: str = "p") -> admin_pb2.ProtectionStatus:
    histogram = {} if total is None else {"wire_bytes": types_pb2.Histogram(total=total)}
    return admin_pb2.ProtectionStatus(guest="g", pairing=pairing, measures=histogram)


@pytest.mark.parametrize(
    ("first", "second", "rate"),
    [
        (status(1000), status(5000), 2000.0),
        (status(1000), status(1000), 0.0),
        (status(1000), status(500), None),
        (status(1000), status(5000, "q"), None),
        (status(None), status(5000), None),
        (status(1000), status(None), None),
    ],
)
def test_a_rate_is_of_one_session(
    first: admin_pb2.ProtectionStatus, second: admin_pb2.ProtectionStatus, rate: float | None
) -> None:
    trend = Trend()
    trend.add(first, None, 10.0)
    assert trend.wire_bytes_per_s is None
    trend.add(second, None, 12.0)
    assert trend.wire_bytes_per_s == rate


def test_what_is_kept_is_bounded() -> None:
    trend = Trend()
    for number in range(2 * KEPT):
        trend.add(status(None), float(number), float(number))
    assert len(trend.lags) == KEPT
    assert sparkline(trend.lags, 1000).endswith("█")
