"""A report beside the checkpoint that it is about."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from bisparse.files.errors import OutputError
from bisparse.files.partial import as_output_error
from bisparse.report import Report, to_json

__all__ = ["replace_text", "write_beside"]


class _DrawnReport(Report, Protocol):
    def plot(self, path: str | Path) -> Path:
        """Draw it."""


def replace_text(path: Path, text: str) -> None:
    """Write a text file that appears, or replaces an old one, only when it is complete.

    Raises:
        OutputError: it cannot be written.
    """
    with as_output_error(path):
        draft = path.with_name(path.name + ".partial")
        draft.write_text(text + "\n", encoding="utf-8")
        draft.replace(path)


def write_beside(target: Path, report: _DrawnReport) -> None:
    """``TARGET.report.json`` always, ``TARGET.report.png`` where there is something to draw and matplotlib is there.

    Raises:
        OutputError: one of them cannot be written.
    """
    text = target.absolute().parent / f"{target.name}.report.json"
    replace_text(text, to_json(report))
    picture = text.with_suffix(".png")
    try:
        report.plot(picture)
    except (ValueError, ImportError):
        return
    except OSError as error:
        raise OutputError(f"cannot write {picture}: {error.strerror}") from None
