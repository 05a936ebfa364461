"""What all parts of a recipe have in common."""

from __future__ import annotations

from typing import Any

try:
    from pydantic import BaseModel, ConfigDict
except ImportError as error:
    raise ImportError('recipes need pydantic and PyYAML: pip install "bisparse[train]"') from error

__all__ = ["Section", "named"]


class Section(BaseModel):
    """A part of a recipe: values are checked, never converted, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def named(value: Any) -> Any:
    """A name alone stands for the section with that name."""
    return {"name": value} if isinstance(value, str) else value
