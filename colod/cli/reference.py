"""The configuration's reference, written from its schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from colod.config import Config

_HEAD = """\
# Configuration

<!-- Written by `colodctl config reference`; tests compare the two. -->

The daemon reads `/etc/colod/colod.toml`, then every `*.toml` of `/etc/colod/colod.d` in the order
of their names; a later file replaces an earlier one key by key (lists whole). A key that is not
below is an error. `colodctl config check` names all problems at once and adds up the time budget;
`colodctl config show` says where each value came from.
"""


def reference() -> str:
    """Return the whole page, as Markdown."""
    return "\n".join([_HEAD, *_tables()])


def _tables() -> Iterator[str]:
    for name, field in Config.model_fields.items():
        table: Any = field.annotation
        yield f"## [{name}]\n"
        yield f"{table.__doc__}\n"
        for key, inner in table.model_fields.items():
            shown = "*(other keys)*" if key == "options" else f"`{key}`"
            yield f"- {shown} ({', '.join(_terms(inner))}): {inner.description}"
        yield ""


def _terms(field: FieldInfo) -> Iterator[str]:
    """Yield type, range and default of a field."""
    yield _type(field)
    ends = {type(limit).__name__: limit for limit in field.metadata}
    if "Ge" in ends and "Le" in ends:
        yield f"{ends['Ge'].ge:g} to {ends['Le'].le:g}"
    yield _default(field)


def _type(field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return " or ".join(f"`{choice}`" for choice in get_args(field.annotation))
    kinds = [each for each in get_args(field.annotation) if each is not NoneType]
    annotation = kinds[0] if get_origin(field.annotation) is UnionType else field.annotation
    origin = get_origin(annotation) or annotation
    names = {int: "integer", float: "number", list: "list of strings", dict: "table", Path: "path"}
    return names.get(origin, "string") if isinstance(origin, type) else "string"


def _default(field: FieldInfo) -> str:
    extra = field.json_schema_extra
    if isinstance(extra, dict) and "default_text" in extra:
        return f"default: {extra['default_text']}"
    if field.is_required():
        return "required"
    if field.default_factory is not None:
        return "default: none"
    default = field.default
    return f"default: `{json.dumps(str(default) if isinstance(default, Path) else default)}`"
