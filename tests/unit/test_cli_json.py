"""The JSON of the commands is documented: each document, each key, and nothing else is printed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pydantic
import pytest

from colod.cli import json_reference, manual
from colod.observe import json_types
from tests.json_documents import check_json

DOCS = Path(__file__).parents[2] / "docs"
UNPROTECTED = '{"schema_version": 1, "guest": "web", "protected": false}'


def has_json(context: click.Context) -> bool:
    """Tell whether a command has the option."""
    return any("--json" in each.opts for each in context.command.params)


def test_the_reference_in_docs_is_the_one_of_the_types() -> None:
    again = "run: python -m colod.cli.json_reference > docs/json.md"
    assert (DOCS / "json.md").read_text() == json_reference.reference().rstrip("\n") + "\n", again


def test_the_schema_in_docs_is_the_one_of_the_types() -> None:
    again = "run: python -m colod.cli.json_reference --schema > docs/json-schema.json"
    assert json.loads((DOCS / "json-schema.json").read_text()) == json_reference.schema(), again


def test_each_command_with_json_is_documented_and_no_other() -> None:
    commands = {
        context.command_path.removeprefix("colodctl ")
        for context in manual.pages()
        if has_json(context)
    }
    assert commands == json_reference.DOCUMENTS.keys()


@pytest.mark.parametrize(
    "context",
    [each for each in manual.pages() if not isinstance(each.command, click.Group)],
    ids=lambda context: context.command_path,
)
def test_only_commands_that_print_a_file_have_no_json(context: click.Context) -> None:
    files = ("colodctl config reference", "colodctl completion")
    assert has_json(context) == (context.command_path not in files)


def test_what_the_schema_refers_to_is_there() -> None:
    schema = json_reference.schema()
    references = set(_references(schema))
    assert references == {f"#/$defs/{name}" for name in schema["$defs"]}


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        for key, inner in schema.items():
            if key == "$ref":
                yield inner
            else:
                yield from _references(inner)
    elif isinstance(schema, list):
        for each in schema:
            yield from _references(each)


def test_every_object_says_what_it_is_and_what_it_inherits() -> None:
    found = json_reference.definitions()
    assert all(each["description"] for each in found.values())
    given_back = found["FailbackDocument"]["properties"]
    assert given_back["generation"]["description"] == "Null in a dry run."
    assert next(iter(given_back)) == "schema_version"
    assert "schema_version" not in found["Change"]["properties"]


@pytest.mark.parametrize(
    "printed",
    [
        UNPROTECTED,
        UNPROTECTED + "\n" + UNPROTECTED + "\n",
        json.dumps(json.loads(UNPROTECTED), indent=2) + "\n",
    ],
)
def test_what_is_documented_passes(printed: str) -> None:
    check_json(["--config", "x", "unprotect", "web", "--json"], printed, "")


@pytest.mark.parametrize(
    "printed",
    [
        UNPROTECTED.replace('"guest"', '"domain"'),
        UNPROTECTED.replace("false", "true"),
        UNPROTECTED.replace('"web"', "3"),
        UNPROTECTED.replace("}", ', "more": 1}'),
    ],
)
def test_what_is_not_documented_is_found(printed: str) -> None:
    with pytest.raises(pydantic.ValidationError):
        check_json(["unprotect", "web", "--json"], printed, "")


def test_a_failure_is_documented_too() -> None:
    with pytest.raises(pydantic.ValidationError):
        check_json(["unprotect", "web", "--json"], "", '{"error": {"code": "x"}}')
    failure = json_types.Failure(code="x", message="m", advice="", exit=1)
    check_json(["unprotect", "web", "--json"], "", json.dumps({"error": failure}))
