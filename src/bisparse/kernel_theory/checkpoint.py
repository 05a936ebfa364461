"""A kernel report from files: what ``bisparse kernel`` does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bisparse.compress.entry import load_arrays, load_entry, load_model, load_weights
from bisparse.compress.write_report import replace_text
from bisparse.files.partial import as_output_error
from bisparse.kernel_theory.report import KernelReport, kernel_report
from bisparse.kernel_theory.targets import Loss
from bisparse.report import to_json

__all__ = ["KernelJob", "LabelledData", "load_labelled", "report_checkpoint", "write_report"]

_SUFFIXES = (".npz", ".safetensors")
_INPUTS = ("X", "x", "inputs", "images", "data", "train_inputs", "X_train")
_TARGETS = ("y", "labels", "targets", "train_labels", "y_train")
_TEST_INPUTS = ("X_test", "x_test", "test_inputs")
_TEST_TARGETS = ("y_test", "test_labels")


@dataclass(frozen=True, slots=True)
class LabelledData:
    """Training examples, and held-out ones where there are any."""

    X: Tensor
    y: Tensor
    X_test: Tensor | None = None
    y_test: Tensor | None = None


@dataclass(frozen=True, slots=True)
class KernelJob:
    """What to report on; everything as the command line says it.

    Attributes:
        model: ``package.module:function``, or a local Hugging Face folder.
        data: see :func:`load_labelled`.
        weights: a checkpoint to load into the model first; ``None`` = the model as it comes.
        rows: training examples to take, drawn with the seed; 0 = all.
        loss: what was minimised.
        penalty: λ.
        masked: zeros of weights are masked: K becomes K_M.
        outputs: ``"auto"``, ``"full"`` or ``"trace"``.
        memory: megabytes that derivatives may take.
        seed: of the drawing.
    """

    model: str
    data: str
    weights: str | None = None
    rows: int = 200
    loss: Loss = "auto"
    penalty: float = 0.0
    masked: bool = False
    outputs: str = "auto"
    memory: int = 512
    seed: int = 0


def load_labelled(text: str) -> LabelledData:
    """Examples by file or entry point.

    Args:
        text: an ``.npz`` or ``.safetensors`` file with arrays ``X`` and ``y`` (or inputs/images and labels/targets),
            perhaps ``X_test`` and ``y_test``; or ``package.module:function``, which returns such a mapping, a tuple
            ``(X, y)`` or ``(X, y, X_test, y_test)``, or an object with ``train_inputs`` and so on, as the zoo's
            readers do.

    Raises:
        ValueError: a file of another kind, or no inputs or targets in it.
    """
    path = Path(text)
    if path.suffix in _SUFFIXES:
        if not path.is_file():
            raise ValueError(f"{path} does not exist")
        return _named(load_arrays(path), text)
    found = load_entry(text)
    found = found() if callable(found) else found
    if isinstance(found, tuple):
        if len(found) not in (2, 4):
            raise ValueError(f"{text} returns {len(found)} values: return (X, y) or (X, y, X_test, y_test)")
        return LabelledData(*(torch.as_tensor(part) for part in found))
    if not isinstance(found, Mapping):
        names = (*_INPUTS, *_TARGETS, *_TEST_INPUTS, *_TEST_TARGETS)
        found = {name: getattr(found, name) for name in names if hasattr(found, name)}
    return _named({name: torch.as_tensor(value) for name, value in found.items()}, text)


def _named(arrays: Mapping[str, Tensor], text: str) -> LabelledData:
    def first(names: tuple[str, ...]) -> Any:
        return next((arrays[name] for name in names if name in arrays), None)

    X, y = first(_INPUTS), first(_TARGETS)
    if X is None or y is None:
        held = ", ".join(arrays) or "nothing"
        raise ValueError(f"{text} holds {held}: it must hold X and y (perhaps X_test and y_test)")
    return LabelledData(X, y, first(_TEST_INPUTS), first(_TEST_TARGETS))


def report_checkpoint(job: KernelJob) -> KernelReport:
    """Load the model, its weights and the data, and report.

    Raises:
        ValueError: whatever is wrong with the input, see :func:`kernel_report`.
        FileError: the checkpoint cannot be read.
    """
    model = load_model(job.model)
    if job.weights is not None:
        load_weights(model, job.weights)
    data = load_labelled(job.data)
    chosen = _chosen(len(data.X), job.rows, job.seed)
    held_out = None if data.X_test is None else _chosen(len(data.X_test), job.rows, job.seed)
    return kernel_report(
        model,
        _ready(data.X[chosen]),
        data.y[chosen],
        X_test=None if data.X_test is None else _ready(data.X_test[held_out]),
        y_test=None if data.y_test is None else data.y_test[held_out],
        loss=job.loss,
        penalty=job.penalty,
        masks="zeros" if job.masked else None,
        outputs=job.outputs,
        memory=job.memory * 10**6,
    )


def _chosen(total: int, rows: int, seed: int) -> Tensor:
    """All, or some drawn without order."""
    if rows <= 0 or rows >= total:
        return torch.arange(total)
    return torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:rows].sort().values


def _ready(X: Tensor) -> Tensor:
    """Bytes of images become numbers between 0 and 1; class and token numbers stay."""
    return X.float() / 255.0 if X.dtype == torch.uint8 else X


def write_report(report: KernelReport, folder: str | Path) -> tuple[Path, ...]:
    """``report.json`` and ``spectra.png`` (where matplotlib is there) in a folder, which is made.

    Raises:
        OutputError: they cannot be written.
    """
    target = Path(folder)
    text, picture = target / "report.json", target / "spectra.png"
    with as_output_error(target):
        target.mkdir(parents=True, exist_ok=True)
    replace_text(text, to_json(report))
    with as_output_error(picture):
        try:
            return text, report.plot(picture)
        except ImportError:
            return (text,)
