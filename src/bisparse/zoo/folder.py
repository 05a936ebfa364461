"""Where real data live."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["data_file"]


def data_file(name: str, folder: str | Path | None = None) -> Path:
    """Path of a file of real data.

    Args:
        name: path inside the folder.
        folder: the folder; ``None`` = the environment variable ``BISPARSE_DATA``, else ``../shared/data``.

    Raises:
        FileNotFoundError: it is not there; says which variable to set.
    """
    root = Path(folder if folder is not None else os.environ.get("BISPARSE_DATA", "../shared/data"))
    path = root / name
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: set BISPARSE_DATA to the folder that holds {name}")
    return path
