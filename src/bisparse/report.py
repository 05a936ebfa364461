"""One form for every result of the library: a table for people, plain data for programs.

A result is a dataclass with ``to_dict()`` (ready for JSON) and ``to_table()``. The table is rendered as
aligned text that fits a width: long tables are grouped (``layers.*.weight x32``), columns of low rank are
dropped first, and what was dropped is said; names are never cut. Pictures are in ``bisparse.plots``.
"""

from __future__ import annotations

import json
import math
import re
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

__all__ = [
    "Column",
    "Form",
    "Report",
    "Table",
    "TableReport",
    "counted",
    "format_bytes",
    "format_value",
    "plain_number",
    "render",
    "to_json",
    "to_plain",
]

Form = Literal["text", "shape", "count", "bytes", "share", "number", "seconds"]


class Report(Protocol):
    """What every result can do."""

    def to_dict(self) -> dict[str, object]:
        """Everything, ready for JSON."""

    def to_table(self) -> Table:
        """What a person wants to see."""


class TableReport(ABC):
    """A result that prints as its table; for dataclasses."""

    __slots__ = ()

    @abstractmethod
    def to_table(self) -> Table:
        """What a person wants to see."""

    def __str__(self) -> str:
        """The table as text."""
        return "\n".join(render(self.to_table()))

    def to_dict(self) -> dict[str, object]:
        """Everything, ready for JSON."""
        plain: dict[str, object] = to_plain(self)
        return plain


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        key: its key in the rows.
        title: its heading.
        form: how its values are written.
        rank: 0 for what must be shown; higher ranks are dropped first where the width is short.
    """

    key: str
    title: str
    form: Form = "text"
    rank: int = 0


@dataclass(frozen=True, slots=True)
class Table:
    """A table with a title and closing lines (totals, notes)."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Any]]
    notes: Sequence[str] = ()

    def grouped(self) -> Table:
        """The table with rows joined that differ only by the numbers in their first column.

        Numbers and shares that differ inside a group become their mean, marked with ``~``.
        """
        key = self.columns[0].key
        groups: dict[tuple[object, ...], list[Mapping[str, Any]]] = {}
        texts = [c.key for c in self.columns[1:] if c.form in ("text", "shape")]
        for row in self.rows:
            name = re.sub(r"(?<![^.])\d+(?=\.)", "*", str(row[key]))
            groups.setdefault((name, *(str(row.get(text)) for text in texts)), []).append(row)
        rows = [self._joined(str(name[0]), members) for name, members in groups.items()]
        if len(rows) == len(self.rows):
            return self
        hint = "(x5: five tensors that differ only by the numbers in their names; ~: their mean; --all: each)"
        return Table(self.title, self.columns, rows, (*self.notes, hint))

    def _joined(self, name: str, members: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        if len(members) == 1:
            return members[0]
        first, *others = self.columns
        joined: dict[str, Any] = {first.key: f"{name} x{len(members)}"}
        for column in others:
            values = [member.get(column.key) for member in members]
            numbers = [float(value) for value in values if isinstance(value, (int, float))]
            same = all(value == values[0] for value in values) or len(numbers) < len(values)
            mean = math.fsum(numbers) / max(len(numbers), 1)
            joined[column.key] = values[0] if same else "~" + format_value(mean, column.form)
        return joined


def counted(count: int, one: str, many: str) -> str:
    """A number with its noun: ``"1 layer"``, ``"2 layers"``."""
    return f"{count:,} {one if count == 1 else many}"


def format_bytes(count: float) -> str:
    """A size with three or four digits: ``"1.07 GB"`` (powers of 1000)."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 999.5:  # what rounds to 1000 belongs to the next unit
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.4g} TB"


def format_value(value: Any, form: Form = "text") -> str:
    """One value as a table shows it; ``None`` is a dash."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if form == "shape":
        return "x".join(map(str, value)) or "scalar"
    if form == "bytes":
        return format_bytes(value)
    if form == "count":
        return f"{value:,}"
    if form == "share":
        return f"{value:.4f}"
    if form == "seconds":
        return f"{value:.3g} s"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def render(table: Table, width: int | None = None, *, limit: int | None = None) -> list[str]:
    """A table as lines of text, columns aligned.

    Args:
        table: what to show.
        width: columns of the terminal; ``None``: as wide as it gets (a pipe).
        limit: group the rows where there are more than this many.

    Returns:
        Lines: title, heading, rows, notes. A name that is too long gets lines of its own above its values; other
        text ends in ``...`` where it is cut; the last line says which columns are dropped.
    """
    if limit is not None and len(table.rows) > limit:
        table = table.grouped()
    columns = list(table.columns)
    cells = {c.key: [c.title, *(format_value(row.get(c.key), c.form) for row in table.rows)] for c in columns}
    widths = {key: max(map(len, texts)) for key, texts in cells.items()}
    dropped: list[str] = []
    while width is not None and len(columns) > 1 and _total(columns, widths) > width:
        last = max(range(len(columns)), key=lambda index: (columns[index].rank, index))
        if columns[last].rank == 0:
            break
        if columns[last].form == "text" and width - _total(columns, widths) + widths[columns[last].key] >= 24:
            widths[columns[last].key] += width - _total(columns, widths)  # cut it rather than lose it
            break
        dropped.append(columns.pop(last).title)
    if width is not None and _total(columns, widths) > width:
        first = columns[0].key
        widths[first] = max(12, widths[first] + width - _total(columns, widths))
    lines = [
        line for index in range(len(table.rows) + 1) for line in _lines(columns, cells, widths, index, width)
    ]
    hint = [f"(not shown for lack of width: {', '.join(reversed(dropped))}; --json has everything)"]
    closing = [*table.notes, *(hint if dropped else [])]
    if width is not None:
        closing = [part for line in closing for part in textwrap.wrap(line, width, break_on_hyphens=False)]
    return [table.title, *lines, *closing]


def _total(columns: Sequence[Column], widths: Mapping[str, int]) -> int:
    return sum(widths[column.key] + 2 for column in columns) - 2


def _lines(
    columns: Sequence[Column],
    cells: Mapping[str, Sequence[str]],
    widths: Mapping[str, int],
    index: int,
    room: int | None,
) -> list[str]:
    """One row; layers are told apart by any part of their names, so a long name is folded, never cut."""
    parts, above = [], []
    for column in columns:
        text, width = cells[column.key][index], widths[column.key]
        if len(text) > width and column is columns[0]:
            above, text = textwrap.wrap(text, room or width), ""
        elif len(text) > width:
            text = text[: width - 3] + "..."
        parts.append(text.ljust(width) if column.form in ("text", "shape") else text.rjust(width))
    return [*above, "  ".join(parts).rstrip()]


def plain_number(value: float, digits: int = 3) -> str:
    """The value with about so many significant digits, never with an exponent: 0.0123, 1.2, 345, 67890."""
    if not math.isfinite(value) or value == 0.0:
        return f"{value:g}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{decimals}f}"


def to_plain(value: Any) -> Any:
    """Dataclasses, patterns, paths and numbers as data that JSON can hold (infinity becomes text)."""
    if is_dataclass(value) and not isinstance(value, type):
        if type(value).__str__ is not object.__str__ and not hasattr(value, "to_table"):
            return str(value)
        return {f.name: to_plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value) if isinstance(value, Path) or not hasattr(value, "item") else to_plain(value.item())


def to_json(report: Report) -> str:
    """A result as JSON text."""
    return json.dumps(report.to_dict(), indent=2, allow_nan=False)
