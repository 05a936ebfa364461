"""From a model named by text to a smaller checkpoint: what ``bisparse filters`` does."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from bisparse.compress.entry import load_calibration, load_entry, load_model, ready_model, save_model
from bisparse.compress.prune import prune_
from bisparse.compress.write_report import replace_text, write_beside
from bisparse.files.checkpoint import kind_of
from bisparse.files.partial import PartialOutput, as_output_error
from bisparse.filters.budget import parse_budget
from bisparse.filters.evaluated import check_evaluate, evaluated
from bisparse.filters.options import with_block
from bisparse.filters.prune import prune_filters_
from bisparse.filters.report import FilterReport
from bisparse.pattern import parse_pattern

__all__ = ["FilterModelJob", "prune_model_filters"]


@dataclass(frozen=True, slots=True)
class FilterModelJob:
    """What to do, as the command line says it.

    Attributes:
        model: ``package.module:function``, or a local Hugging Face folder.
        budget: ``"params:0.6"`` and the like.
        calibration: a file or entry point, see :func:`bisparse.compress.entry.load_calibration`.
        weights: a checkpoint to load into the model first, strictly; ``None`` = the model as it comes.
        evaluate: entry point of a function from the model to a number, called before and after.
        targets: outputs that may be removed; ``None`` = all.
        ignore: outputs that stay.
        then: an N:M pattern for what is left.
        batch: calibration samples per batch.
        length: tokens per sample at most, for text.
        device: where the model runs.
        options: of :class:`bisparse.filters.options.FilterOptions`.
    """

    model: str
    budget: str
    calibration: str
    weights: str | None = None
    evaluate: str | None = None
    targets: tuple[str, ...] | None = None
    ignore: tuple[str, ...] | None = None
    then: str | None = None
    batch: int = 32
    length: int = 512
    device: str = "cpu"
    options: dict[str, Any] = field(default_factory=dict)

    def fingerprint(self) -> str:
        """Identifies the options."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def prune_model_filters(job: FilterModelJob, output: str | Path, *, force: bool = False) -> FilterReport:
    """Load a model by its code, remove filters, and write a checkpoint of the smaller network with its plan.

    Beside the checkpoint appear ``OUTPUT.plan.json`` (for :func:`bisparse.filters.apply_plan_`, which makes a freshly
    built model fit it), ``OUTPUT.report.json`` and, where matplotlib is installed, ``OUTPUT.report.png``.

    Args:
        job: what to do.
        output: ``.safetensors`` or ``.pt`` and the like.
        force: replace an existing output.

    Raises:
        ValueError: whatever :func:`bisparse.prune_filters_` refuses, or a folder as output.
        OutputError: the output exists, or cannot be written.
    """
    parse_budget(job.budget)
    pattern = None if job.then is None else parse_pattern(job.then)
    options = with_block(job.options, pattern)
    target = Path(output)
    kind = kind_of(target)
    if kind == "folder":
        raise ValueError(
            f"{target}: the config of a folder cannot describe layers of different widths; name a .safetensors or .pt "
            "file"
        )
    partial = PartialOutput(target, job.fingerprint(), force=force)
    try:
        model = ready_model(load_model(job.model), job.weights, job.device).eval()
        calibration: Any = load_calibration(job.calibration, job.model, batch=job.batch, length=job.length)
        evaluate = None if job.evaluate is None else load_entry(job.evaluate)
        check_evaluate(evaluate)
        torch.manual_seed(options.get("seed", 0))  # for data functions that draw
        report = prune_filters_(
            model,
            job.budget,
            calibration=calibration,
            targets=job.targets,
            ignore=job.ignore,
            evaluate=evaluate,
            **options,
        )
        if pattern is not None:
            sparse = prune_(model, pattern, calibration=calibration)
            report.notes[f"density of {len(sparse.layers)} weights at {pattern}"] = sparse.density
            if evaluate is not None:
                report.notes["with the pattern"] = evaluated(evaluate, model)
        partial.restart(job.fingerprint())
        with as_output_error(partial.path):
            save_model(model, partial.path, kind)
        replace_text(Path(f"{target.absolute()}.plan.json"), json.dumps(report.plan.to_dict()))
        write_beside(target, report)
        partial.commit()
    except BaseException:
        partial.discard()
        raise
    return report
