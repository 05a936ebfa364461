"""Accuracy of sparse training, run by run: every run is a shipped recipe with a few keys changed.

A run keeps its checkpoints until its row is in the ledger: a benchmark that was stopped goes on inside the run. Nothing
is chosen by the test data; they are looked at once, after the last step.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from bisparse.bench.ledger import Row
from bisparse.bench.train_cases import EPOCHS, HALVED, Case
from bisparse.diversity import paper_transposable_diversity
from bisparse.machine import describe_machine
from bisparse.pattern import TransposableNM, parse_pattern
from bisparse.recipes import Recipe, load_recipe, train_recipe
from bisparse.train.callback import Callback
from bisparse.train.train_report import TrainReport
from bisparse.train.trainer import Trainer

__all__ = ["case_recipe", "run_case"]

# Steps of a run that is only timed: prepare, then two refreshes.
_TIMED = 81


class _History(Callback):
    """Keeps the totals of every refresh."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_end(self, trainer: Trainer, report: TrainReport) -> None:  # noqa: ARG002
        """Take them before the sparsifier goes."""
        self.rows = [] if trainer.sparsifier is None else trainer.sparsifier.history


def case_recipe(case: Case, folder: Path, changes: Sequence[str] = ()) -> Recipe:
    """The recipe of a case.

    Args:
        case: which run.
        folder: of all runs.
        changes: further keys, as ``--set`` takes them.
    """
    keys = [f"epochs={case.epochs}", f"seed={case.seed}", f"output={folder / case.name}"]
    keys += ["loop.checkpoint_every=100", "loop.log_every=1000000"]
    if case.kind == "dynamic":
        keys += [f"pattern={case.pattern}", f"schedule.every={case.every}", f"rule={{name: {case.rule}}}"]
        keys += [f"rule.decay={case.decay}"] if case.rule == "sr-ste" else []
        keys += [f"topology={{name: projection, method: {case.method}}}"]
    if case.kind == "static":
        keys += [f"pattern={case.pattern}"]
        if "lenet5" in case.task:  # the dense run with the same seed
            start = Case(case.study, case.task, "dense", epochs=EPOCHS[case.task], seed=case.seed)
            keys += [f"model.weights={folder / start.name / 'model.safetensors'}"]
    if case.task == "digits":  # the network of the source's experiment
        keys += ["model.options={widths: [64, 300, 100, 10]}"]
    if case.study in HALVED:
        keys += ["loop.precision=bfloat16"]
    if case.study == "refresh":
        keys += [f"loop.steps_per_epoch={_TIMED}"]
    return load_recipe(f"{case.task}-{case.kind}", [*keys, *changes])


def run_case(case: Case, folder: Path, changes: Sequence[str] = ()) -> Row:
    """Train as the case says, or go on where it was stopped; the run's folder is deleted, dense models excepted.

    Returns:
        The case's columns; ``test_accuracy``, ``test_loss`` and the same of the held-out part; ``seconds`` in steps;
        ``precision`` of the forward pass; ``flip_rate`` (mean of all refreshes) and ``flip_rate_from_start``;
        ``kept_magnitude`` at the last refresh; ``diversity`` and ``diversity_paper`` (decimal logarithms, all layers);
        ``refresh_seconds``, ``step_seconds``, ``refresh_share``; ``verified``; ``machine``.
    """
    history = _History()
    recipe = case_recipe(case, folder, changes)
    report = train_recipe(recipe, resume=True, callbacks=[history])
    row: Row = {
        **case.row(),
        **report.final,
        "seconds": round(report.seconds, 1),
        "precision": recipe.loop.precision,
        "machine": describe_machine(),
    }
    if report.masks:
        row |= _measures(report, history.rows)
    _tidy(Path(recipe.output), keep_model=case.kind == "dense")
    return row


def _measures(report: TrainReport, history: Sequence[dict[str, float]]) -> Row:
    """Columns of sparse runs."""
    measures = report.measures
    changes = [row["flip_rate"] for row in history[1:]]
    return {
        "flip_rate": fmean(changes) if changes else 0.0,
        "refreshes": len(history),
        "diversity_paper": _paper_diversity(report),
        "diversity": measures["mask_diversity_log10"],
        "verified": all(mask.holds for mask in report.masks),
        **{
            name: measures[name]
            for name in (
                "flip_rate_from_start",
                "kept_magnitude",
                "refresh_seconds",
                "step_seconds",
                "refresh_share",
            )
        },
    }


def _paper_diversity(report: TrainReport) -> float | None:
    """The paper's formula over all layers; ``None`` for patterns that it is not about."""
    patterns = [(parse_pattern(mask.pattern), mask.shape) for mask in report.masks]
    if not all(isinstance(pattern, TransposableNM) for pattern, _ in patterns):
        return None
    return sum(
        paper_transposable_diversity(pattern, shape).log10
        for pattern, shape in patterns
        if isinstance(pattern, TransposableNM)
    )


def _tidy(folder: Path, *, keep_model: bool) -> None:
    """Delete a finished run, but for the model that others start from."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif not (keep_model and path.name == "model.safetensors"):
            path.unlink()
    if not keep_model:
        folder.rmdir()
