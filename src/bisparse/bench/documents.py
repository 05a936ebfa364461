"""Tables of measured numbers in the documents, written between markers: no number is typed by hand."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["fill_tables", "markdown_table"]

MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def fill_tables(documents: Sequence[Path], tables: Mapping[str, str]) -> None:
    """Replace what stands between ``<!-- table: NAME -->`` and ``<!-- end -->``; unknown names stay."""
    for document in documents:
        text = document.read_text(encoding="utf-8")
        filled = MARKED.sub(
            lambda match: match[1] + tables[match[2]] + match[3] if match[2] in tables else match[0], text
        )
        if filled != text:
            document.write_text(filled, encoding="utf-8")


def markdown_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A markdown table; the first column to the left, the others to the right."""
    rule = ["---", *(["---:"] * (len(head) - 1))]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in (head, rule, *lines))
