"""Configuration tables that several kinds of fencer share."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class NoOptions(BaseModel):
    """A table that holds nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")
