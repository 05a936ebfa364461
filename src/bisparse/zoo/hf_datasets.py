"""Data sets of Hugging Face's ``datasets`` in a local folder."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = ["local_dataset"]


def local_dataset(folder: str | Path) -> Mapping[str, Any]:
    """The splits of a data set: saved by ``save_to_disk``, or Parquet, CSV or JSON files in a folder.

    Returns:
        Name of the split to ``datasets.Dataset``.

    Raises:
        FileNotFoundError: no such folder.
        ImportError: ``datasets`` is missing; the message names the extra.
        ValueError: the folder holds a single split; save a ``DatasetDict``.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is no folder: only local data sets are read, nothing is downloaded")
    try:
        library: Any = import_module("datasets")
    except ImportError as error:
        raise ImportError('local data sets need datasets: pip install "bisparse[datasets]"') from error
    saved = (root / "dataset_dict.json").is_file() or (root / "state.json").is_file()
    splits: Any = library.load_from_disk(str(root)) if saved else library.load_dataset(str(root))
    if not isinstance(splits, Mapping):
        raise ValueError(f"{root} holds a single split: save a DatasetDict with 'train' and, to test, 'test'")
    return splits
