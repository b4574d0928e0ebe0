"""The reference of all JSON that `colodctl` prints, written from the types of its documents.

python -m colod.cli.json_reference >docs/json.md
python -m colod.cli.json_reference --schema >docs/json-schema.json
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import click
from pydantic import ConfigDict, TypeAdapter

from colod.observe import json_types
from colod.observe.schema import SCHEMA_VERSION

DOCUMENTS: Final[Mapping[str, Any]] = {
    "status": json_types.StatusDocument,
    "protect": json_types.ProtectDocument,
    "unprotect": json_types.UnprotectDocument,
    "suspend": json_types.SuspendDocument,
    "resume": json_types.ResumeDocument,
    "lag": json_types.LagDocument,
    "top": json_types.TopDocument,
    "failover": json_types.HandoverDocument,
    "switchover": json_types.HandoverDocument,
    "failback": json_types.FailbackDocument,
    "fence-confirm": json_types.FenceConfirmDocument,
    "pause": json_types.PauseDocument,
    "unpause": json_types.PauseDocument,
    "drain": json_types.DrainDocument,
    "drill isolated": json_types.DrillDocument,
    "drill secondary": json_types.DrillDocument,
    "drill live": json_types.DrillDocument,
    "drill report": json_types.DrillsDocument,
    "checkpoint now": json_types.CheckpointNowDocument,
    "checkpoint list": json_types.CheckpointsDocument,
    "checkpoint export": json_types.ExportDocument,
    "quarantine list": json_types.QuarantineDocument,
    "quarantine discard": json_types.QuarantineDiscardDocument,
    "quarantine keep": json_types.QuarantineKeepDocument,
    "history": json_types.HistoryDocument,
    "events": json_types.EventDocument,
    "doctor": json_types.DoctorDocument,
    "colo config": json_types.ColoConfigDocument,
    "config check": json_types.ConfigCheckDocument,
    "config show": json_types.ConfigShowDocument,
    "pki init": json_types.CertificateDocument,
    "pki issue": json_types.CertificateDocument,
    "pki issue-operator": json_types.CertificateDocument,
    "stream inspect": json_types.StreamDocument,
    "version": json_types.VersionDocument,
}
"""What each command prints with `--json`."""

STRICT: Final = ConfigDict(extra="forbid", strict=True)
"""For tests: nothing is printed that is not documented."""

_DOCUMENTED: Final = ConfigDict(use_attribute_docstrings=True)
_VERSION: Final = {"const": SCHEMA_VERSION, "description": "Of this schema."}
_HEAD: Final = """\
# JSON

<!-- Written by `python -m colod.cli.json_reference`; tests compare the two. -->

With `--json` standard output is one object (with `--watch`, and of `top` and `events`: one per
line), and a failure is one object on standard error. Every object on standard output begins with
`"schema_version": 1`. Within a version, keys are added but never removed, renamed or given another
type. What is not known is `null`, never 0. Names end with their unit; `_unix_s` are seconds since
1970.

[json-schema.json](json-schema.json) is the same as a JSON Schema: `#/$defs/NAME` for each of the
objects below.
"""


def adapter(document: Any, config: ConfigDict) -> TypeAdapter[list[Any]]:
    """Return what knows a list of the documents; alone they take no configuration."""
    return TypeAdapter(list[document], config=config)


def definitions() -> dict[str, Any]:
    """Return the JSON Schema of each object, by its name."""
    documents = {each.__name__: each for each in (*DOCUMENTS.values(), json_types.ErrorDocument)}
    inputs = [
        (name, "serialization", adapter(each, _DOCUMENTED)) for name, each in documents.items()
    ]
    _, schema = TypeAdapter.json_schemas(inputs)  # type: ignore[arg-type]
    found: dict[str, Any] = {
        name: _without_titles(each) for name, each in sorted(schema["$defs"].items())
    }
    for name, each in found.items():
        _inherit(name, each["properties"], found)
    for name in documents.keys() - {json_types.ErrorDocument.__name__}:
        each = found[name]
        each["properties"] = {"schema_version": _VERSION, **each["properties"]}
        each["required"] = ["schema_version", *each["required"]]
    return found


def _inherit(name: str, properties: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Describe what a type has from its bases as they do: docstrings are not inherited."""
    for base in getattr(getattr(json_types, name), "__orig_bases__", ()):
        for key, described in found.get(base.__name__, {"properties": {}})["properties"].items():
            if "description" in described:
                properties[key].setdefault("description", described["description"])


def _without_titles(schema: Any) -> Any:
    """Drop the titles that are made of names and say nothing more."""
    if isinstance(schema, dict):
        return {
            key: {name: _without_titles(each) for name, each in inner.items()}
            if key == "properties"
            else _without_titles(inner)
            for key, inner in schema.items()
            if key != "title"
        }
    return [_without_titles(each) for each in schema] if isinstance(schema, list) else schema


def schema() -> dict[str, Any]:
    """Return the JSON Schema of whatever colodctl prints."""
    commands = {
        f"colodctl {name} --json": {"$ref": f"#/$defs/{document.__name__}"}
        for name, document in DOCUMENTS.items()
    }
    error = {"$ref": f"#/$defs/{json_types.ErrorDocument.__name__}"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What colodctl prints with --json",
        "anyOf": list({each["$ref"]: each for each in (*commands.values(), error)}.values()),
        "commands": commands,
        "$defs": definitions(),
    }


# --- Markdown -------------------------------------------------------------------------------------


def reference() -> str:
    """Return the page, as Markdown."""
    return "\n".join([_HEAD, *_lines(definitions())])


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    yield "| command | object |\n|---|---|"
    for command, document in DOCUMENTS.items():
        yield f"| `{command}` | {_link(document.__name__)} |"
    yield f"| whatever fails | {_link(json_types.ErrorDocument.__name__)} |\n"
    for name, each in found.items():
        yield f"## {name}\n"
        yield f"{each['description']}\n"
        for key, described in each["properties"].items():
            text = described.get("description")
            yield f"- `{key}`: {_type(described)}{f'. {text}' if text else ''}"
        yield ""


def _link(name: str) -> str:
    return f"[{name}](#{name.lower()})"


def _type(schema: Mapping[str, Any]) -> str:
    """Return a type in words."""
    match schema:
        case {"$ref": str(reference)}:
            return _link(reference.rpartition("/")[2])
        case {"anyOf": [*kinds]}:
            return " or ".join(map(_type, kinds))
        case {"enum": [*values]}:
            return " or ".join(f"`{json.dumps(value)}`" for value in values)
        case {"const": value}:
            return f"`{json.dumps(value)}`"
        case {"type": "array", "items": items}:
            return f"list of {_type(items)}"
        case {"type": "object", "additionalProperties": values}:
            return f"object of {_type(values)}"
        case {"type": str(kind)}:
            return kind
    return "any"


@click.command()
@click.option("--schema", "as_schema", is_flag=True, help="Print the JSON Schema instead.")
def write(*, as_schema: bool) -> None:
    """Print the reference as Markdown."""
    click.echo(json.dumps(schema(), indent=1) if as_schema else reference().rstrip("\n"))


if __name__ == "__main__":
    write()
