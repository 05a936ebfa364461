"""Layouts that the user gives: ``"h.*.c_attn=transposed"``, or ``"experts"`` for all that is undecided."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias, cast, get_args

from bisparse.weights import Layout, LayoutKind, matches

__all__ = ["LayoutChoice", "LayoutOption", "find_layout", "parse_layouts"]

LayoutOption: TypeAlias = "str | Layout | Iterable[str] | Mapping[str, str | Layout]"
_KINDS = get_args(LayoutKind)
_FORMS = f"NAMES=KIND or KIND, KIND one of {', '.join(_KINDS)} (conv:32 for 32 groups, linear:3 for 3 parts)"


@dataclass(frozen=True, slots=True)
class LayoutChoice:
    """One given layout.

    Attributes:
        selector: names that it holds for; ``None``: every tensor that is undecided and of a fitting shape.
        layout: the layout.
    """

    selector: str | None
    layout: Layout


def parse_layouts(option: LayoutOption | None) -> tuple[LayoutChoice, ...]:
    """Read the layouts that a user gave.

    Args:
        option: one text, several, or a mapping from names to layouts; ``None`` gives none.

    Raises:
        ValueError: a text of another form or an unknown kind.
    """
    if option is None:
        return ()
    if isinstance(option, (str, Layout)):
        option = [option] if isinstance(option, str) else {"": option}
    if isinstance(option, Mapping):
        return tuple(LayoutChoice(name or None, _layout(value)) for name, value in option.items())
    choices = []
    for text in option:
        name, _, kind = text.rpartition("=")
        choices.append(LayoutChoice(name.strip() or None, _layout(kind)))
    return tuple(choices)


def _layout(value: str | Layout) -> Layout:
    if isinstance(value, Layout):
        return value
    kind, _, parts = value.strip().partition(":")
    if kind not in _KINDS or (parts and not parts.isdecimal()):
        raise ValueError(f"cannot read the layout {value!r}; write {_FORMS}")
    return Layout(cast(LayoutKind, kind), int(parts) if parts else 1)


def find_layout(
    choices: Iterable[LayoutChoice], name: str, dimensions: int, *, undecided: bool
) -> Layout | None:
    """The last given layout that holds for a tensor; ``None`` where there is none.

    Raises:
        ValueError: a layout given for this name does not fit its number of dimensions.
    """
    found: Layout | None = None
    for choice in choices:
        if choice.selector is None:
            if undecided and fits(choice.layout, dimensions):
                found = choice.layout
        elif matches(choice.selector, name) and dimensions >= 2:
            if not fits(choice.layout, dimensions):
                raise ValueError(
                    f"{name} has {dimensions} dimensions: it cannot be read as {choice.layout.kind!r}"
                )
            found = choice.layout
    return found


def fits(layout: Layout, dimensions: int) -> bool:
    """Whether a tensor of so many dimensions can be read with this layout."""
    if layout.kind in ("linear", "transposed"):
        return dimensions == 2
    if layout.kind in ("experts", "experts_transposed"):
        return dimensions == 3
    return dimensions >= 3
