"""Whether a user's function takes the arguments that it will be called with."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

__all__ = ["call_fault"]


def call_fault(function: Callable[..., Any], *arguments: Any) -> str | None:
    """What is wrong with such a call, found before hours of work; ``None`` where nothing is, or nothing is known."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # functions of extensions do not say what they take
        return None
    try:
        signature.bind(*arguments)
    except TypeError as error:
        return str(error)
    return None
