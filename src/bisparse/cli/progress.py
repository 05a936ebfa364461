"""A progress bar in bytes per second, on stderr, only where somebody looks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

__all__ = ["byte_bar"]


@contextmanager
def byte_bar(label: str, shown: bool | None) -> Iterator[Callable[[int, int], None] | None]:
    """A function that shows (bytes done, bytes in all), or ``None`` where nothing is to be shown.

    Args:
        label: what is being done.
        shown: True or False as the user says; ``None``: on a terminal only.
    """
    console = Console(stderr=True)
    if not (console.is_terminal if shown is None else shown):
        yield None
        return
    label_column, speed = TextColumn("{task.description} {task.percentage:>3.0f}%"), TransferSpeedColumn()
    narrow = (label_column, speed)
    wide = (label_column, BarColumn(), DownloadColumn(), speed, TimeRemainingColumn())
    with Progress(*(wide if console.width >= 72 else narrow), console=console, transient=True) as bars:
        task = bars.add_task(label, total=None)

        def show(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total)

        yield show
