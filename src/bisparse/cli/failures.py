"""How a command ends when something is wrong: one clear line on stderr, and an exit code.

0: done. 1: the disk is full, or a fault of the program. 2: the input or the options are wrong. 130:
    interrupted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

__all__ = ["clear_failures"]


@contextmanager
def clear_failures(command: str, *, interrupted: str = "interrupted") -> Iterator[None]:
    """Turn what users can mend into one line.

    Args:
        command: its name, put before the line.
        interrupted: what to say after Ctrl-C.

    Raises:
        typer.Exit: with the exit code.
    """
    from bisparse.files.errors import DiskFullError, FileError

    try:
        yield
    except DiskFullError as error:
        raise _end(command, str(error), 1) from None
    except (FileError, ValueError, ImportError) as error:
        raise _end(command, str(error), 2) from None
    except KeyboardInterrupt:
        raise _end(command, interrupted, 130) from None


def _end(command: str, line: str, code: int) -> typer.Exit:
    console = Console(stderr=True, soft_wrap=True)
    console.print(f"bisparse {command}: {line}", style="red", markup=False, highlight=False)
    return typer.Exit(code)
