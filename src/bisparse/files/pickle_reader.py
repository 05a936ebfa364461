"""Reading ``torch.save`` files without running any code they may carry."""

from __future__ import annotations

import pickletools
import re
import warnings
import zipfile
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor

from bisparse.files.errors import CheckpointError

__all__ = ["LoadedPickle", "load_pickle"]

# Where checkpoints keep the model, most specific first; optimiser states and averages are left as they are.
_MODEL_KEYS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "module",
    "net",
    "network",
    "weights",
)
_ZIP_START = b"PK\x03\x04"
_MAX_DEPTH = 4


@dataclass(frozen=True, slots=True, eq=False)
class LoadedPickle:
    """A loaded ``torch.save`` file.

    Attributes:
        content: everything the file holds.
        path: keys that lead to the model's tensors inside ``content`` (``()``: the content itself).
        tensors: the model's tensors, dotted name to tensor; they share memory with ``content``.
        mapped: whether the file is mapped instead of read (files of PyTorch 1.6 and later).
    """

    content: Any
    path: tuple[str, ...]
    tensors: Mapping[str, Tensor]
    mapped: bool

    def extras(self) -> dict[str, Any]:
        """The entries beside the model, at every level that leads to it, by dotted name."""
        found: dict[str, Any] = {}
        level, prefix = self.content, ""
        for key in self.path:
            found.update({f"{prefix}{k}": v for k, v in level.items() if k != key})
            level, prefix = level[key], f"{prefix}{key}."
        leaves = {k: v for k, v in level.items() if not isinstance(v, (Tensor, Mapping))}
        return found | {f"{prefix}{key}": value for key, value in leaves.items()}


def load_pickle(path: Path) -> LoadedPickle:
    """Load a ``torch.save`` file on the CPU with ``weights_only=True``, and find the model in it.

    Zip files (PyTorch 1.6 and later) are mapped: memory follows what is touched, and writing into the tensors
    never changes the file. Older pickles are read whole.

    Raises:
        CheckpointError: unreadable, no such file, corrupt, would run code on loading, or holds no model.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            mapped = file.read(4) == _ZIP_START
        if size == 0:
            raise CheckpointError(f"{path} is empty")
        (_check_zip if mapped else _check_legacy)(path, size)
        content = _load(path, mapped)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from None
    keys, tensors = _find_model(content, path)
    return LoadedPickle(content, keys, tensors, mapped)


def _load(path: Path, mapped: bool) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except OSError:
        raise
    except Exception as error:
        # A corrupt pickle makes the loader fail in any way: KeyError, IndexError, RuntimeError, struct.error
        # ...
        raise CheckpointError(f"{path} is no checkpoint that can be loaded: {_cause(error)}") from None


def _cause(error: Exception) -> str:
    """One line of the loader's long message."""
    text = str(error)
    if match := re.search(r"GLOBAL ([\w.]+)|class (?:named )?([\w.]+\.[\w.]+)", text):
        name = match[1] or match[2]
        return (
            f"it would run code ({name}); only plain tensors and containers are accepted: save a state_dict"
        )
    if "weights_only" in text or isinstance(error, (KeyError, IndexError)):
        return "it is no pickle of tensors, or it is corrupt"
    return text.split("\n")[0][:120] or type(error).__name__


def _check_zip(path: Path, size: int) -> None:
    """Refuse archives that would unfold into more bytes than they have (``torch.save`` never compresses)."""
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise CheckpointError(f"{path} is a damaged or truncated archive ({error})") from None
    if (
        any(r.compress_type != zipfile.ZIP_STORED for r in records)
        or sum(r.file_size for r in records) > size
    ):
        raise CheckpointError(
            f"{path} is an archive that torch.save did not write: its records are compressed"
        )


def _check_legacy(path: Path, size: int) -> None:
    """Refuse pickles that claim a storage larger than the file, before PyTorch allocates it."""
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as mapped:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                claimed = max(_claimed_sizes(mapped), default=0)
        except Exception:
            raise CheckpointError(f"{path} is no pickle of tensors, or it is corrupt") from None
    if claimed > size:
        shown = str(claimed) if claimed < 10**20 else "more than 10^20"
        raise CheckpointError(f"{path} claims a tensor of {shown} elements in a file of {size} bytes")


def _claimed_sizes(mapped: mmap) -> Iterator[int]:
    """The largest integer just before each storage reference: its element count. Nothing is executed.

    A file of the legacy format is five pickles (magic, protocol, system, content, keys) and then raw bytes.
    """
    for _ in range(5):
        if mapped.tell() == mapped.size():
            return
        recent: deque[int] = deque(maxlen=12)
        for opcode, argument, _ in pickletools.genops(cast(IO[bytes], mapped)):
            if opcode.name == "BINPERSID":
                yield max(recent, default=0)
                recent.clear()
            else:
                recent.append(argument if isinstance(argument, int) and _is_number(opcode.name) else 0)


def _find_model(content: Any, path: Path) -> tuple[tuple[str, ...], dict[str, Tensor]]:
    """The mapping that holds the model: the content, or what a customary key holds, or the only one."""
    keys: tuple[str, ...] = ()
    level = content
    for _ in range(_MAX_DEPTH):
        if not isinstance(level, Mapping):
            break
        nested = [k for k, v in level.items() if isinstance(k, str) and isinstance(v, Mapping)]
        known = [key for key in _MODEL_KEYS if key in nested]
        if not known and any(isinstance(value, Tensor) for value in level.values()):
            return keys, _checked_tensors(level, path)
        known = known or [key for key in nested if _holds_matrix(level[key])]
        if not known or (known[0] not in _MODEL_KEYS and len(known) > 1):
            shown = ", ".join(sorted(map(str, level))[:8])
            raise CheckpointError(
                f"{path} holds no model that can be found (entries: {shown}): save its state_dict"
            )
        keys, level = (*keys, known[0]), level[known[0]]
    raise CheckpointError(
        f"{path} holds no tensors (found {type(level).__name__}): save a model's state_dict"
    )


def _checked_tensors(level: Mapping[Any, Any], path: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, tensor in _named_tensors(level):
        if name in tensors:
            raise CheckpointError(f"{path} holds two tensors that are both called {name!r}")
        if _is_plain(tensor) and tensor.nbytes > tensor.untyped_storage().nbytes():
            raise CheckpointError(
                f"{path}: tensor {name!r} is an expanded view, larger than its memory: save a clone"
            )
        tensors[name] = tensor
    return tensors


def _is_plain(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_meta


def _holds_matrix(mapping: Mapping[Any, Any]) -> bool:
    return any(isinstance(value, Tensor) and value.dim() >= 2 for value in mapping.values())


def _named_tensors(
    level: Mapping[Any, Any], prefix: str = "", depth: int = 0
) -> Iterator[tuple[str, Tensor]]:
    for key, value in level.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{key}", value
        elif isinstance(value, Mapping) and depth < _MAX_DEPTH:
            yield from _named_tensors(value, f"{prefix}{key}.", depth + 1)


def _is_number(opcode: str) -> bool:
    """Whether an opcode pushes an integer (the others' integer arguments are memo slots)."""
    return opcode in ("INT", "LONG", "BININT", "BININT1", "BININT2", "LONG1", "LONG4")
