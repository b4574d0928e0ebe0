"""docs/failover.md says what the table says."""

from __future__ import annotations

from pathlib import Path

import pytest

from colod.failover.describe import BEGIN, END, described, main, updated
from colod.failover.rules import RULES

DOCUMENT = Path(__file__).parents[2] / "docs" / "failover.md"


def test_the_document_is_up_to_date() -> None:
    text = DOCUMENT.read_text()
    assert updated(text) == text, "run: python -m colod.failover.describe docs/failover.md"


def test_every_row_is_described() -> None:
    assert all(f"| `{rule.name}` |" in described() for rule in RULES)


def test_what_is_around_the_generated_part_stays(tmp_path: Path) -> None:
    path = tmp_path / "x.md"
    path.write_text(f"before\n{BEGIN}\nof yesterday\n{END}\nafter\n")
    main([str(path)])
    text = path.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "of yesterday" not in text


def test_a_document_without_the_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="no generated part"):
        updated("nothing")
