"""The other files of a model's folder: tokenizer, config and the like travel with the pruned weights."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from bisparse.files.partial import as_output_error, sync_file

__all__ = ["copy_other_files"]

# The same weights in other formats: a dense copy beside the sparse one would be loaded in its place.
_DENSE_COPIES = (
    "pytorch_model*.bin",
    "pytorch_model*.bin.index.json",
    "tf_model*.h5",
    "flax_model*.msgpack",
    "consolidated*.pth",
    "consolidated*.safetensors",
    "*.gguf",
)
_SKIPPED_FOLDERS = frozenset({".git", ".cache", "__pycache__"})


def copy_other_files(source: Path, target: Path, written: set[str], *, durable: bool) -> list[str]:
    """Copy everything but the weights.

    Args:
        source: the model's folder.
        target: where to copy to.
        written: names in the folder that are written otherwise.
        durable: synchronise each copy with the disk.

    Returns:
        Names of the files left out, because they hold the same weights in another format.

    Raises:
        OutputError: a file cannot be read or written.
    """
    left: list[str] = []
    for path in _files(source):
        name = path.relative_to(source)
        if str(name) in written or _is_own(path, target):
            continue
        if any(fnmatchcase(path.name, form) for form in _DENSE_COPIES):
            left.append(str(name))
            continue
        copy = target / name
        with as_output_error(copy):
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
            shutil.copystat(path, copy)
            if durable:
                sync_file(copy)
    return left


def _files(folder: Path) -> Iterator[Path]:
    """Regular files below a folder, in a fixed order; links to files are followed, to folders not."""
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in _SKIPPED_FOLDERS)
        yield from (path for name in sorted(names) if (path := Path(root) / name).is_file())


def _is_own(path: Path, target: Path) -> bool:
    """Whether a file belongs to an output that is written inside the folder itself."""
    return target in path.absolute().parents or path.name.endswith((".partial", ".partial.journal"))
