"""Training with thresholds, run by run: every run is a shipped recipe with a few keys changed.

A run keeps its checkpoints until its row is in the ledger: a benchmark that was stopped goes on inside the run. The
last model of a run counts; recipes were settled on training data that are held out, and test data are looked at once,
after the last step.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

from bisparse.bench.dst_cases import Case
from bisparse.bench.ledger import Row
from bisparse.machine import describe_machine
from bisparse.recipes import Recipe, load_recipe, train_recipe
from bisparse.train.train_report import TrainReport

__all__ = ["case_recipe", "run_case"]

# Of all steps: the share that is wanted falls until the first, masks are fixed from the second on.
_REACHED, _FIXED = 0.45, 0.55
_SPARSE = ("pattern", "rule", "schedule", "ignore", "targets")


def case_recipe(case: Case, folder: Path, changes: Sequence[str] = ()) -> Recipe:
    """The recipe of a case.

    Args:
        case: which run.
        folder: of all runs.
        changes: further keys, as ``--set`` takes them.
    """
    name = f"{case.task}-dst"
    keys = [f"epochs={case.epochs}", f"seed={case.seed}", f"output={folder / case.name}"]
    keys += ["loop.checkpoint_every=100", "loop.log_every=1000000"]
    if case.kind == "dense":
        values = load_recipe(name, [*keys, *changes]).model_dump(mode="json", exclude_unset=True)
        return Recipe.of({key: value for key, value in values.items() if key not in _SPARSE}, name)
    keys += [f"rule.alpha={case.alpha}", f"rule.granularity={case.granularity}"]
    if case.kind == "alpha":
        keys += ["rule.target=null", "rule.reset={mode: zero}", "schedule={every: 40}"]
    else:
        steps = _steps(load_recipe(name), case)
        end, freeze = round(_REACHED * steps), round(_FIXED * steps)
        keys += [f"rule.target={{density: {case.density}, end: {end}}}", f"schedule.freeze={freeze}"]
    return load_recipe(name, [*keys, *changes])


def _steps(recipe: Recipe, case: Case) -> int:
    """Of the whole run."""
    return case.epochs * (len(recipe.data.load().train) // recipe.batch)


def run_case(case: Case, folder: Path, changes: Sequence[str] = ()) -> Row:
    """Train as the case says, or go on where it was stopped; the run's folder is deleted.

    Returns:
        The case's columns; ``test_accuracy``, ``test_loss`` and the same of the held-out part; ``remaining``, the
        share of weights that masks keep in the end, of all weights that have thresholds; ``layers``, the same of each,
        as text; ``resets``; ``last_alpha``; ``verified``; ``seconds`` in steps; ``machine``.
    """
    recipe = case_recipe(case, folder, changes)
    report = train_recipe(recipe, resume=True)
    row: Row = {**case.row(), **report.final, "seconds": round(report.seconds, 1)}
    row |= _measures(report)
    shutil.rmtree(recipe.output)
    return row | {"machine": describe_machine()}


def _measures(report: TrainReport) -> Row:
    """Columns of sparse runs; a dense one keeps everything."""
    if not report.masks:
        return {"remaining": 1.0}
    sizes = [math.prod(mask.shape) for mask in report.masks]
    kept = [round(mask.density * size) for mask, size in zip(report.masks, sizes, strict=True)]
    return {
        "remaining": sum(kept) / sum(sizes),
        "layers": ", ".join(f"{mask.name} {mask.density:.4f}" for mask in report.masks),
        "resets": report.measures["resets"],
        "last_alpha": report.measures["alpha"],
        "verified": all(mask.holds for mask in report.masks),
    }
