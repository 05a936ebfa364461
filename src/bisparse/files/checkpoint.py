"""Any checkpoint behind one view: shards of tensors, a config, and which tensors are one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from bisparse.files.errors import CheckpointError
from bisparse.files.packed.reader import open_safetensors
from bisparse.files.pickle_reader import LoadedPickle, load_pickle
from bisparse.files.safetensors_header import TensorEntry
from bisparse.files.safetensors_reader import SafetensorsFile
from bisparse.files.shards import MemoryShard, Shard, is_storable, texts_of, tied_names

__all__ = [
    "INDEX_NAME",
    "PACKED_INDEX_NAME",
    "PACKED_SINGLE_NAME",
    "PICKLE_SUFFIXES",
    "SINGLE_NAME",
    "Checkpoint",
    "Kind",
    "index_metadata",
    "kind_of",
    "open_checkpoint",
]

Kind = Literal["safetensors", "folder", "pickle"]
PICKLE_SUFFIXES = (".pt", ".pth", ".th", ".bin")
INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
# Packed folders: other libraries must say that there is no model, rather than load one without its packed weights.
PACKED_INDEX_NAME = "packed.safetensors.index.json"
PACKED_SINGLE_NAME = "packed.safetensors"
_MAX_JSON = 100_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """An open checkpoint; close it, or use it in a ``with`` statement.

    Attributes:
        path: what was given, or the folder where its index was given.
        kind: safetensors file, folder of them, or pickle.
        shards: where the tensors are; a pickle is one shard.
        config: the ``config.json`` beside it (or the ``config`` inside a pickle); empty where there is none.
        config_name: where the config was found; ``""`` where there is none.
        ties: groups of names that are one tensor, first name first.
        pickle: what was loaded, for a pickle.
        unstorable: tensors of a pickle that safetensors cannot hold (sparse, quantised); they are not in
            ``shards``.
        pickle_only: entries of a pickle beside the model that no safetensors header can hold.
        notes: what a user should know, one line each.
    """

    path: Path
    kind: Kind
    shards: tuple[Shard, ...]
    config: Mapping[str, Any]
    config_name: str
    ties: tuple[tuple[str, ...], ...]
    pickle: LoadedPickle | None
    unstorable: tuple[str, ...]
    pickle_only: tuple[str, ...]
    notes: tuple[str, ...]

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every shard."""
        for shard in self.shards:
            shard.close()

    def source_paths(self) -> list[Path]:
        """The files that hold the tensors."""
        if self.kind != "folder":
            return [self.path]
        return [self.path / shard.name for shard in self.shards]

    def entries(self) -> Iterator[tuple[Shard, TensorEntry]]:
        """Every tensor with its shard."""
        for shard in self.shards:
            for entry in shard.header.entries:
                yield shard, entry


def kind_of(path: Path) -> Kind:
    """What kind of checkpoint a path names, by its suffix; no suffix means a folder.

    Raises:
        ValueError: another suffix.
    """
    if path.is_dir() or path.suffix == "":
        return "folder"
    if path.suffix == ".safetensors":
        return "safetensors"
    if path.suffix in PICKLE_SUFFIXES:
        return "pickle"
    raise ValueError(
        f"{path}: unknown suffix {path.suffix!r}; use .safetensors, {', '.join(PICKLE_SUFFIXES)}, or a folder"
    )


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Open a ``.safetensors`` file, a folder of them, or a ``torch.save`` file.

    Args:
        path: the file or folder; the ``*.index.json`` of a folder stands for the folder.

    Returns:
        The open checkpoint, its headers checked; no tensor is read (a pickle of the old format is).

    Raises:
        CheckpointError: missing, of an unknown kind, corrupt, or hostile; one line says why.
    """
    path = Path(path)
    if path.name.endswith(".index.json"):
        path = path.parent
    if not path.exists():
        raise CheckpointError(f"{path} does not exist")
    if not path.is_dir() and not path.is_file():
        raise CheckpointError(f"{path} is neither a file nor a folder")
    try:
        kind = kind_of(path) if path.is_dir() or path.suffix else "pickle"
    except ValueError as error:
        raise CheckpointError(str(error)) from None
    if kind == "pickle":
        return _open_pickle(path)
    if kind == "folder":
        return _open_folder(path)
    shard = open_safetensors(path)
    config, config_name = _config_near(path.parent, required=False)
    return _finish(path, kind, (shard,), config, config_name)


def _finish(
    path: Path, kind: Kind, shards: tuple[Shard, ...], config: Mapping[str, Any], config_name: str
) -> Checkpoint:
    seen: dict[str, str] = {}
    for shard in shards:
        for entry in shard.header.entries:
            if entry.name in seen:
                for other in shards:
                    other.close()
                raise CheckpointError(f"tensor {entry.name!r} is in both {seen[entry.name]} and {shard.name}")
            seen[entry.name] = shard.name
    aliases = {k: v for s in shards for k, v in s.header.metadata.items() if v in seen and k not in seen}
    kept = dict.fromkeys(aliases.values())
    ties = tuple((name, *(k for k, v in aliases.items() if v == name)) for name in kept)
    return Checkpoint(path, kind, shards, config, config_name, ties, None, (), (), ())


def _open_pickle(path: Path) -> Checkpoint:
    loaded = load_pickle(path)
    notes = (
        [] if loaded.mapped else ["a pickle of the old format cannot be mapped: it is held in memory whole"]
    )
    texts, pickle_only = texts_of(loaded.extras())
    storable = {name: tensor for name, tensor in loaded.tensors.items() if is_storable(tensor)}
    unstorable = tuple(loaded.tensors.keys() - storable.keys())
    shard = MemoryShard(SINGLE_NAME, storable, {"format": "pt"} | texts)
    ties = tuple(tied_names(storable))
    config, config_name = _config_near(path.parent, required=False)
    inner = loaded.content.get("config") if isinstance(loaded.content, Mapping) else None
    if not config and isinstance(inner, Mapping):
        config, config_name = inner, "the entry 'config'"
    return Checkpoint(
        path,
        "pickle",
        (shard,),
        config,
        config_name,
        ties,
        loaded,
        unstorable,
        tuple(pickle_only),
        tuple(notes),
    )


def _open_folder(folder: Path) -> Checkpoint:
    config, config_name = _config_near(folder, required=True)
    index, single = _names_in(folder)
    names = _shard_names(index) if index.is_file() else {single: set()}
    if index.is_file() and single not in names and (folder / single).is_file():
        raise CheckpointError(f"{folder} holds both {index.name} and {single}: remove the one not meant")
    if not index.is_file() and not (folder / single).is_file():
        found = sorted(p.name for p in folder.iterdir() if p.suffix in (".safetensors", *PICKLE_SUFFIXES))
        hint = f"; name a file: {', '.join(found[:4])}" if found else ""
        raise CheckpointError(f"{folder} holds neither {INDEX_NAME} nor {SINGLE_NAME}{hint}")
    shards: list[SafetensorsFile] = []
    try:
        for name, tensors in names.items():
            shards.append(open_safetensors(folder / name))
            if missing := tensors - {entry.name for entry in shards[-1].header.entries}:
                raise CheckpointError(f"{index} places {min(missing)!r} in {name}, which does not hold it")
    except CheckpointError:
        for shard in shards:
            shard.close()
        raise
    return _finish(folder, "folder", tuple(shards), config, config_name)


def _names_in(folder: Path) -> tuple[Path, str]:
    """Index and file of a folder: packed ones only where there are no others."""
    packed = [name for name in (PACKED_INDEX_NAME, PACKED_SINGLE_NAME) if (folder / name).is_file()]
    plain = [name for name in (INDEX_NAME, SINGLE_NAME) if (folder / name).is_file()]
    if packed and plain:
        raise CheckpointError(f"{folder} holds both {plain[0]} and {packed[0]}: remove the one not meant")
    return (folder / PACKED_INDEX_NAME, PACKED_SINGLE_NAME) if packed else (folder / INDEX_NAME, SINGLE_NAME)


def index_metadata(checkpoint: Checkpoint) -> dict[str, Any]:
    """What the index of a folder says beside where its tensors are; empty where there is no index."""
    if checkpoint.kind != "folder":
        return {}
    index, _ = _names_in(checkpoint.path)
    metadata = _read_json(index).get("metadata", {}) if index.is_file() else {}
    return dict(metadata) if isinstance(metadata, dict) else {}


def _shard_names(index: Path) -> dict[str, set[str]]:
    """Shards and the tensors that the index places in each; nothing outside the folder is accepted."""
    parsed = _read_json(index)
    placed = parsed.get("weight_map")
    if not isinstance(placed, dict) or not placed or not all(isinstance(v, str) for v in placed.values()):
        raise CheckpointError(f"{index} has no weight_map from tensors to files")
    shards: dict[str, set[str]] = {}
    for tensor, name in placed.items():
        if (
            PurePosixPath(name).name != name
            or "\\" in name
            or "\0" in name
            or not name.endswith(".safetensors")
        ):
            raise CheckpointError(
                f"{index} names the shard {name[:80]!r}: not a .safetensors file of this folder"
            )
        shards.setdefault(name, set()).add(tensor)
    return dict(sorted(shards.items()))


def _config_near(folder: Path, *, required: bool) -> tuple[Mapping[str, Any], str]:
    """The folder's ``config.json``; a broken one is an error only where it is the checkpoint's for sure."""
    path = folder / "config.json"
    if not path.is_file():
        return {}, ""
    if required:
        return _read_json(path), path.name
    with suppress(CheckpointError):
        return _read_json(path), path.name
    return {}, ""


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_JSON:
            raise CheckpointError(f"{path} is larger than {_MAX_JSON} bytes")
        parsed = json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise CheckpointError(f"{path} is not JSON") from None
    if not isinstance(parsed, dict):
        raise CheckpointError(f"{path} is not a JSON object")
    return parsed
