"""Methods by name: rules, topologies and allocations are looked up alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

__all__ = ["by_name"]

_Method = TypeVar("_Method")


def by_name(choice: str | _Method, table: Mapping[str, _Method], kind: type[_Method]) -> _Method:
    """A method by its name in a table, or the method itself.

    Args:
        choice: a name (capitals do not matter, ``_`` is ``-``), or an object of ``kind``.
        table: names and methods.
        kind: base of all methods; errors call it by its name.

    Raises:
        TypeError: neither text nor a method.
        ValueError: an unknown name.
    """
    if isinstance(choice, kind):
        return choice
    noun, known = kind.__name__, ", ".join(table)
    if not isinstance(choice, str):
        raise TypeError(
            f"{noun.lower()}: expected a name or an object of {noun}, got {type(choice).__name__}; "
            f"choose one of {known}"
        )
    found = table.get(choice.lower().replace("_", "-"))
    if found is None:
        raise ValueError(
            f"unknown {noun.lower()} {choice!r}; choose one of {known}, or pass an object of {noun}"
        )
    return found
