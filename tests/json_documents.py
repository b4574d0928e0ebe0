"""Hold what colodctl prints with `--json` against its documented types."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from colod.cli.json_reference import DOCUMENTS, STRICT, adapter
from colod.cli.main import COMMANDS
from colod.observe.json_types import ErrorDocument
from colod.observe.schema import SCHEMA_VERSION


def check_json(arguments: Sequence[str], out: str, err: str) -> None:
    """Check what one command line printed, if it asked for JSON.

    Raises:
        pydantic.ValidationError: If a key is missing, unknown or of another type.
    """
    if "--json" not in arguments or "--help" in arguments:
        return
    for document in _documents(out):
        assert next(iter(document)) == "schema_version"
        assert document.pop("schema_version") == SCHEMA_VERSION
        _strictly(DOCUMENTS[_command(arguments)]).validate_python([document])
    if not out and err.startswith("{"):
        (failure,) = _documents(err)
        _strictly(ErrorDocument).validate_python([failure])


def _command(arguments: Sequence[str]) -> str:
    at = next(at for at, word in enumerate(arguments) if word in COMMANDS)
    in_group = " ".join(arguments[at : at + 2])
    return in_group if in_group in DOCUMENTS else arguments[at]


def _documents(text: str) -> Iterator[Any]:
    """Yield the objects in `text`, on one line each or on many."""
    decoder = json.JSONDecoder()
    at = 0
    while at < len(text):
        document, at = decoder.raw_decode(text, at)
        yield document
        at += len(text[at:]) - len(text[at:].lstrip())


@cache
def _strictly(document: Any) -> TypeAdapter[list[Any]]:
    return adapter(document, STRICT)
