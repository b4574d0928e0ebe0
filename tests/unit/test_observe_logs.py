"""Log lines are one JSON object each, with bound fields, also those of other libraries."""

import io
import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from colod.observe import logs


@pytest.fixture
def output() -> Iterator[io.StringIO]:
    """Where the lines go; the process's logging is put back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(output: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.getvalue().splitlines()]


def test_a_line_has_time_level_event_and_what_was_bound(output: io.StringIO) -> None:
    logs.configure("info", "json", stream=output)
    log = logs.logger(protection="web", generation=3)
    log.bind(role="primary").info(logs.Event.ROLE_CHANGED, cause="asked", lag_s=0.5)
    (line,) = lines(output)
    assert list(line) == [
        "time",
        "level",
        "event",
        "protection",
        "role",
        "generation",
        "cause",
        "lag_s",
    ]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", line.pop("time"))
    assert line == {
        "level": "info",
        "event": "role.changed",
        "protection": "web",
        "role": "primary",
        "generation": 3,
        "cause": "asked",
        "lag_s": 0.5,
    }


def test_an_exception_stays_on_one_line(output: io.StringIO) -> None:
    logs.configure("info", "json", stream=output)
    try:
        raise ValueError("boom")
    except ValueError:
        logs.logger().exception("daemon.failed")
    (line,) = lines(output)
    assert "ValueError: boom" in line["exception"]


def test_lines_of_other_libraries_have_the_same_form(output: io.StringIO) -> None:
    logs.configure("info", "json", stream=output)
    logging.getLogger("grpc").warning("port %d", 7)
    (line,) = lines(output)
    assert (line["event"], line["level"], line["logger"]) == ("port 7", "warning", "grpc")


def test_a_reload_changes_the_level_of_loggers_that_exist(output: io.StringIO) -> None:
    logs.configure("info", "json", stream=output)
    log = logs.logger(protection="web").bind(role="primary")
    log.debug("effect.started")
    logs.configure("debug", "json", stream=output)
    log.debug("drill.started")
    logs.configure("warning", "json", stream=output)
    log.info("role.changed")
    assert [line["event"] for line in lines(output)] == ["drill.started"]


def test_lines_for_eyes_name_event_and_fields(output: io.StringIO) -> None:
    logs.configure("info", "console", stream=output)
    logs.logger(protection="web").info("role.changed")
    assert "role.changed" in output.getvalue()
    assert "web" in output.getvalue()


def test_names_of_events_are_a_subject_and_a_past_participle() -> None:
    for event in logs.Event:
        assert re.fullmatch(r"[a-z]+\.[a-z]*(ed|held|lost|won|heard|written)", event.value), event
