"""Read the configuration's files, lay them over each other, and name all problems at once."""

from __future__ import annotations

import stat
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from colod.config.schema import DEFAULT_ORIGIN, Config
from colod.errors import ConfigError

DEFAULT_PATH = Path("/etc/colod/colod.toml")
"""Where the configuration is; `*.toml` of `colod.d` beside it is read after it, sorted by name."""


def load_config(path: Path = DEFAULT_PATH) -> Config:
    """Read `path` and then `*.toml` of the directory of the same stem with `.d` beside it.

    A later file's value replaces an earlier one's key by key; lists are replaced whole.

    Raises:
        ConfigError: With every problem of every file, each with the key's path and its file.
    """
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    problems: list[str] = []
    for file in config_files(path):
        try:
            table = tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            problems.append(f"{file}: {_reason(error)}")
        else:
            _merge(merged, table, str(file), origins, "")
    return _validate(merged, origins, problems)


def config_files(path: Path) -> Sequence[Path]:
    """Return the files that make up the configuration at `path`, in the order of reading."""
    return (path, *sorted(path.with_suffix(".d").glob("*.toml")))


def flatten(config: Config) -> Iterator[tuple[str, object, str]]:
    """Yield path, value and origin of every value, in the schema's order."""
    for name, table in config.model_dump(mode="json").items():
        for key, value in table.items():
            if key == "options":
                for option, setting in value.items():
                    path = f"{name}.{option}"
                    yield path, setting, config.origin(path)
            else:
                path = f"{name}.{key}"
                yield path, value, config.origin(path)


def exposed_files(config: Config) -> Sequence[str]:
    """Say which files have options of fencing, or passwords, and can be read by others than root.

    Looks at the files.
    """
    files = {
        origin
        for path, _, origin in flatten(config)
        if origin != DEFAULT_ORIGIN
        and ((path.startswith("fencing.") and path != "fencing.kind") or "passw" in path)
    }
    return [
        f"{file} has options of fencing or passwords, and others may read it (mode {mode:04o})"
        for file in sorted(files)
        if (mode := _mode(Path(file))) & 0o044
    ]


def _mode(file: Path) -> int:
    """Return the rights to a file, without the group's where that is root's; 0 if it is gone."""
    try:
        status = file.stat()
    except OSError:
        return 0
    return stat.S_IMODE(status.st_mode) & (~0o070 if status.st_gid == 0 else ~0)


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error)


def _merge(
    into: dict[str, Any],
    table: Mapping[str, Any],
    file: str,
    origins: dict[str, str],
    prefix: str,
) -> None:
    """Lay `table` over `into`, and note for every key which file had the last word."""
    for key, value in table.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            kept = into.get(key)
            into[key] = kept if isinstance(kept, dict) else {}
            origins[path] = file
            _merge(into[key], value, file, origins, f"{path}.")
        else:
            into[key] = value
            origins[path] = file


def _validate(merged: dict[str, Any], origins: dict[str, str], problems: Sequence[str]) -> Config:
    try:
        config = Config.model_validate(merged)
    except ValidationError as error:
        # What a file that could not be read would have set is not known to be missing.
        found = _problems(error, origins, missing=not problems)
        raise ConfigError([*problems, *found]) from error
    if problems:
        raise ConfigError(problems)
    return config.with_origins(origins)


def _problems(
    error: ValidationError, origins: Mapping[str, str], *, missing: bool
) -> Iterator[str]:
    """Yield each finding of pydantic as `path: what is wrong (file)`."""
    for finding in error.errors():
        if finding["type"] == "missing" and not missing:
            continue
        path = ".".join(str(part) for part in finding["loc"] if part != "options")
        text = finding["msg"].removeprefix("Value error, ")
        if finding["type"] == "extra_forbidden":
            text = "no such key"
        elif finding["type"] == "missing":
            text = "is missing and has no default"
        file = _origin_of(path, origins)
        # What concerns several tables names its keys itself.
        yield f"{f'{path}: ' if path else ''}{text}{f' ({file})' if file else ''}"


def _origin_of(path: str, origins: Mapping[str, str]) -> str:
    """Return the file of `path`, or of the closest table around it that a file has."""
    while path and path not in origins:
        path = path.rpartition(".")[0]
    return origins.get(path, "")
