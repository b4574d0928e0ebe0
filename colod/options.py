"""Check the configuration table of a kind: a plug-in's own options, all problems at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from colod.errors import ConfigError

_Options = TypeVar("_Options", bound=BaseModel)


def parse_options(model: type[_Options], options: Mapping[str, object], where: str) -> _Options:
    """Return a kind's configuration table as `model`.

    Args:
        model: A frozen pydantic model that forbids unknown fields.
        options: The table as read.
        where: Its path in the configuration, such as `witness`.

    Raises:
        ConfigError: With every problem of the table and its path.
    """

    try:
        return model.model_validate(dict(options))
    except ValidationError as error:
        problems = [
            f"{'.'.join([where, *map(str, one['loc'])])}: {one['msg']}" for one in error.errors()
        ]
        raise ConfigError(problems) from error
