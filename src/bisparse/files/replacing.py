"""What may be replaced: files and models, never a folder of other things, a repository, or the input's home."""

from __future__ import annotations

import os
from pathlib import Path

from bisparse.files.checkpoint import INDEX_NAME, PACKED_INDEX_NAME, PACKED_SINGLE_NAME, SINGLE_NAME
from bisparse.files.errors import OutputError

__all__ = ["refuse_losing_input", "refuse_losing_others"]


def refuse_losing_others(output: Path) -> None:
    """Raise where replacing an existing output would delete more than a checkpoint.

    Raises:
        OutputError: the output is a folder without a model, a folder under version control, or a device.
    """
    if output.is_dir():
        known = (INDEX_NAME, SINGLE_NAME, PACKED_INDEX_NAME, PACKED_SINGLE_NAME)
        if not any((output / name).is_file() for name in known):
            reason = f"is a folder without {SINGLE_NAME} or its index"
        elif os.path.lexists(output / ".git"):
            reason = "holds a .git repository"
        else:
            return
        raise OutputError(f"{output} {reason}: --force does not delete it; choose another name")
    if output.exists() and not output.is_file():
        raise OutputError(f"{output} is neither a file nor a folder: choose another name")


def refuse_losing_input(source: Path, output: Path) -> None:
    """Raise where replacing an output folder would delete an input that lies in it.

    Raises:
        OutputError: the input is inside the output folder, and is not this folder itself.
    """
    inputs, folder = (source.parent.resolve() / source.name, source.resolve()), output.resolve()
    if folder.is_dir() and folder not in inputs and any(folder in path.parents for path in inputs):
        raise OutputError(f"{output} holds the input {source}: choose another name")
