"""From a model that needs code to a checkpoint and its report: what ``bisparse prune --model`` does."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bisparse.compress.entry import load_calibration, load_entry, load_model, ready_model, save_model
from bisparse.compress.prune import prune_
from bisparse.compress.report import PruneReport
from bisparse.compress.write_report import write_beside
from bisparse.files.checkpoint import Kind, kind_of
from bisparse.files.folder_files import copy_other_files
from bisparse.files.partial import PartialOutput, as_output_error
from bisparse.pattern import parse_pattern

__all__ = ["ModelJob", "prune_model"]


@dataclass(frozen=True, slots=True)
class ModelJob:
    """What to prune, and how; everything as the command line says it.

    Attributes:
        model: ``package.module:function``, or a local Hugging Face folder.
        pattern: ``"4:8t"`` and the like.
        weights: a checkpoint to load into the model first, strictly; ``None`` = the model as it comes.
        calibration: a file or entry point, see :func:`bisparse.compress.entry.load_calibration`.
        evaluate: entry point of a function from the model to a number, called before and after.
        scores: name, or ``auto``.
        reconstruct: name, or ``auto``.
        targets: names, globs and ``re:`` expressions; ``None`` = every weight of a known kind.
        ignore: the same; ``None`` = the default exceptions.
        batch: calibration samples per batch.
        length: tokens per sample at most, for text.
        device: where the model runs.
        seed: of everything random.
    """

    model: str
    pattern: str
    weights: str | None = None
    calibration: str | None = None
    evaluate: str | None = None
    scores: str = "auto"
    reconstruct: str = "auto"
    targets: tuple[str, ...] | None = None
    ignore: tuple[str, ...] | None = None
    batch: int = 32
    length: int = 512
    device: str = "cpu"
    seed: int = 0

    def fingerprint(self) -> str:
        """Identifies the options and the files that they name, by size and time of change."""
        named = [Path(text) for text in (self.model, self.weights, self.calibration) if text]
        files = [path / "config.json" if path.is_dir() else path for path in named]
        stamps = [[str(p), p.stat().st_size, p.stat().st_mtime_ns] for p in files if p.is_file()]
        return hashlib.sha256(json.dumps([asdict(self), stamps]).encode()).hexdigest()


def prune_model(
    job: ModelJob, output: str | Path, *, force: bool = False, progress: bool = False
) -> PruneReport:
    """Load a model by its code, prune it, and write a loadable checkpoint and the report.

    The checkpoint and, beside it, ``OUTPUT.report.json`` and (with calibration data and matplotlib)
    ``OUTPUT.report.png`` appear only when they are complete. Solved layers are kept in
    ``OUTPUT.partial.layers`` until then: an interrupted run goes on there when it is called again.

    Args:
        job: what to do.
        output: ``.safetensors``, ``.pt`` and the like (a state dict), or a folder for a model with
            ``save_pretrained``, to which the other files of the model's folder (tokenizer) are copied.
        force: replace an existing output.
        progress: show a bar on stderr.

    Raises:
        ValueError: an unknown pattern, name or suffix; a checkpoint that does not fit the model; whatever
            :func:`bisparse.prune_` refuses. Nothing is left behind.
        OutputError: the output exists, or cannot be written.
        ImportError: an optional package is missing.
    """
    parse_pattern(job.pattern)
    target = Path(output)
    kind = kind_of(target)
    stamp = job.fingerprint()
    layers = target.absolute().parent / f"{target.name}.partial.layers"
    partial = PartialOutput(target, stamp, force=force)
    with _kept_when_interrupted(partial, layers):
        model = _loaded(job, kind)
        report = _pruned(job, model, layers / stamp[:16], progress=progress)
        partial.restart(stamp)
        with as_output_error(partial.path):
            save_model(model, partial.path, kind)
        if kind == "folder" and Path(job.model).is_dir():
            written = {str(path.relative_to(partial.path)) for path in partial.path.rglob("*")}
            copy_other_files(Path(job.model), partial.path, written | _WEIGHT_FILES, durable=True)
        write_beside(target, report)
        partial.commit()
    shutil.rmtree(layers, ignore_errors=True)
    return report


_WEIGHT_FILES = frozenset({"model.safetensors", "model.safetensors.index.json"})


@contextmanager
def _kept_when_interrupted(partial: PartialOutput, layers: Path) -> Iterator[None]:
    """After wrong input nothing is left; after an interruption or a full memory or disk the solved layers are."""
    try:
        yield
    except (ValueError, TypeError, ImportError):
        partial.discard()
        shutil.rmtree(layers, ignore_errors=True)
        raise
    except BaseException:
        partial.keep()
        raise


def _loaded(job: ModelJob, kind: Kind) -> nn.Module:
    model = load_model(job.model)
    if kind == "folder" and not callable(getattr(model, "save_pretrained", None)):
        raise ValueError("only Hugging Face models are written as folders: name a .safetensors or .pt file")
    return ready_model(model, job.weights, job.device)


def _pruned(job: ModelJob, model: nn.Module, layers: Path, *, progress: bool) -> PruneReport:
    calibration: Any = None
    if job.calibration is not None:
        calibration = load_calibration(job.calibration, job.model, batch=job.batch, length=job.length)
    torch.manual_seed(job.seed)  # for data functions that draw
    return prune_(
        model,
        job.pattern,
        targets=job.targets,
        ignore=job.ignore,
        scores=job.scores,
        reconstruct=job.reconstruct,
        calibration=calibration,
        evaluate=None if job.evaluate is None else load_entry(job.evaluate),
        checkpoint_dir=layers,
        progress=progress,
        seed=job.seed,
    )
