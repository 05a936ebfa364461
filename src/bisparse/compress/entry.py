"""Models and calibration data named by text, for the command line."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor, nn

from bisparse.files.checkpoint import Kind, kind_of, open_checkpoint
from bisparse.files.in_memory import load_content

__all__ = [
    "load_arrays",
    "load_calibration",
    "load_entry",
    "load_model",
    "load_weights",
    "ready_model",
    "save_model",
]


def load_entry(text: str) -> Any:
    """What ``"package.module:attribute"`` names; the current folder is searched first.

    Raises:
        ValueError: not of that form, or no such module or attribute.
    """
    module_name, colon, attribute = text.partition(":")
    if not (colon and module_name and attribute):
        raise ValueError(f"{text!r} is no entry point: write package.module:function")
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module_name)
        for name in attribute.split("."):
            found = getattr(found, name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise ValueError(f"cannot load {text!r}: {error}") from error
    finally:
        if added:
            sys.path.remove(here)
    return found


def _transformers() -> Any:
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise ImportError(
            'folders of Hugging Face models need transformers: pip install "bisparse[transformers]"'
        ) from error


def load_model(text: str) -> nn.Module:
    """A model by entry point (a module, or a function without arguments that returns one) or by local folder.

    A folder with ``config.json`` is loaded through ``transformers`` as the class that its config names.

    Raises:
        ValueError: the entry point gives no module or needs arguments, or the folder has no config.
        ImportError: ``transformers`` is missing.
    """
    folder = Path(text)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ValueError(f"{folder} has no config.json: it is not a Hugging Face model")
        library = _transformers()
        config = library.AutoConfig.from_pretrained(folder, local_files_only=True)
        name = (getattr(config, "architectures", None) or ["AutoModel"])[0]
        kind = getattr(library, name, library.AutoModel)
        model = kind.from_pretrained(folder, local_files_only=True)
    else:
        entry = load_entry(text)
        model = _built(text, entry) if callable(entry) and not isinstance(entry, nn.Module) else entry
    if not isinstance(model, nn.Module):
        raise ValueError(f"{text!r} gives a {type(model).__name__}, not a torch.nn.Module")
    return model


def _built(text: str, build: Callable[[], Any]) -> Any:
    """What a function without arguments returns."""
    try:
        inspect.signature(build).bind()
    except TypeError as error:
        raise ValueError(
            f"{text!r} is called without arguments: {error}; name a function that needs none"
        ) from None
    return build()


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load a checkpoint of any known kind into a model, strictly; prefixes of wrappers (``module.``) are dropped.

    Raises:
        ValueError: names or shapes differ.
        FileError: the checkpoint cannot be read.
    """
    with open_checkpoint(path) as checkpoint:
        tensors: Mapping[str, Tensor] = load_content(checkpoint)[1]
        if tensors and all(name.startswith("module.") for name in tensors):
            tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
        try:
            model.load_state_dict(dict(tensors))
        except RuntimeError as error:
            raise ValueError(f"{path} does not fit the model{_plan_told(Path(path))}: {error}") from None


def _plan_told(path: Path) -> str:
    """What to do with the checkpoint of a network without some of its filters."""
    plan = path.with_name(f"{path.name}.plan.json")
    if not plan.is_file():
        return ""
    return f" (filters were removed from it: build with apply_plan_(build(), load_plan({str(plan)!r})))"


def ready_model(model: nn.Module, weights: str | Path | None, device: str) -> nn.Module:
    """A model with a checkpoint's weights, where one is named, on a device.

    Raises:
        ValueError: the checkpoint does not fit the model, or the device cannot be used.
        FileError: the checkpoint cannot be read.
    """
    if weights is not None:
        load_weights(model, weights)
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:  # the latter of a PyTorch without CUDA
        raise ValueError(f"cannot use device {device!r}: {error}") from None


def load_arrays(path: Path) -> dict[str, Tensor]:
    """Named arrays of an .npz, .npy or .safetensors file.

    Raises:
        ValueError: it is damaged, or holds objects instead of numbers.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            found: dict[str, Tensor] = load_file(path)
            return found
        content = np.load(path)
        if path.suffix == ".npy":
            return {"": torch.from_numpy(content)}
        return {name: torch.from_numpy(content[name]) for name in content.files}
    except (OSError, EOFError, ValueError, TypeError, BadZipFile, SafetensorError) as error:
        raise ValueError(f"{path} cannot be read as arrays: {error}") from None


def _single(array: Tensor) -> Tensor:
    return array.float() if array.dtype == torch.float64 else array


def _text_batches(path: Path, tokenizer_folder: Path, batch: int, length: int) -> list[dict[str, Tensor]]:
    """Non-empty lines of a text file as padded token batches."""
    if not tokenizer_folder.is_dir():
        raise ValueError(
            f"{path} is text, for which --model must be a Hugging Face folder with its tokenizer; for other "
            "models pass token ids (.npy) or an entry point"
        )
    tokenizer = _transformers().AutoTokenizer.from_pretrained(tokenizer_folder, local_files_only=True)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    options = {"return_tensors": "pt", "padding": True, "truncation": True, "max_length": length}
    return [dict(tokenizer(lines[i : i + batch], **options)) for i in range(0, len(lines), batch)]


def load_calibration(
    text: str, model: str, *, batch: int = 32, length: int = 512
) -> Iterable[Any] | Callable[..., Any]:
    """Calibration data by file or entry point.

    Args:
        text: an ``.npy`` or ``.npz`` / ``.safetensors`` file (one array: the only input; several: keyword
            arguments, all with the same first dimension; float64, NumPy's default, becomes float32), a text file
            of which every line is a sample (needs the model folder's tokenizer), or an entry point, as in
            ``prune_``.
        model: the model's text; names the tokenizer's folder.
        batch: samples per batch.
        length: tokens per sample at most.

    Raises:
        ValueError: no such file, a damaged or empty one, arrays of different lengths, text for a model without a
            tokenizer, or an entry point to something else than batches.
        ImportError: a text file without ``transformers``.
    """
    path = Path(text)
    if not path.is_file():
        if ":" not in text:
            raise ValueError(
                f"{text}: no such file of calibration data, and no entry point package.module:function"
            )
        found: Iterable[Any] | Callable[..., Any] = load_entry(text)
        if isinstance(found, (Tensor, Mapping)) or not (callable(found) or isinstance(found, Iterable)):
            raise ValueError(
                f"{text!r} is one {type(found).__name__}: name a list of batches, or a function that returns one"
            )
        return found
    if path.suffix not in (".npy", ".npz", ".safetensors"):
        return _text_batches(path, Path(model), batch, length)
    arrays = {name: _single(array) for name, array in load_arrays(path).items()}
    lengths = {len(array) if array.dim() else 0 for array in arrays.values()}
    if len(lengths) != 1 or not min(lengths):
        raise ValueError(f"{path}: the arrays must have one common first dimension, got {sorted(lengths)}")
    total = lengths.pop()
    if len(arrays) == 1:
        return list(torch.split(next(iter(arrays.values())), batch))
    return [
        {name: array[first : first + batch] for name, array in arrays.items()}
        for first in range(0, total, batch)
    ]


def save_model(model: nn.Module, path: str | Path, kind: Kind | None = None) -> Path:
    """Write a loadable checkpoint.

    Args:
        model: what to save.
        path: where to.
        kind: ``"folder"`` (``save_pretrained``), ``"safetensors"`` or ``"pickle"`` (a state dict); ``None``: as the
            suffix says.

    Raises:
        ValueError: an unknown suffix, or a folder for a model that has no ``save_pretrained``.
    """
    path = Path(path)
    kind = kind or kind_of(path)
    if kind == "safetensors":
        from safetensors.torch import save_model as save_tensors

        path.touch()  # with the rights that new files have here: safetensors makes its own for the owner alone
        rights = path.stat().st_mode & 0o777
        save_tensors(model, str(path))
        path.chmod(rights)
    elif kind == "pickle":
        torch.save(model.state_dict(), path)
    elif callable(save := getattr(model, "save_pretrained", None)):
        save(path)
    else:
        raise ValueError(
            f"{path}: only Hugging Face models are saved as folders; name a .safetensors or .pt file"
        )
    return path
