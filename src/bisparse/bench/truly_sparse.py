"""Truly sparse layers and networks, measured: time and memory of a step, accuracy of whole runs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

import torch

from bisparse.bench.child import forget_peak, in_child
from bisparse.bench.ledger import Row
from bisparse.bench.truly_sparse_cases import LayerCase, RunCase
from bisparse.bench.truly_sparse_layers import Step, build_step
from bisparse.machine import describe_machine
from bisparse.recipes import Recipe, load_recipe, train_recipe
from bisparse.timing import interleave
from bisparse.train.callback import Callback
from bisparse.train.evolution import Evolution
from bisparse.train.train_report import TrainReport
from bisparse.train.trainer import Trainer

__all__ = ["measure_group", "run_case", "run_recipe"]


def measure_group(
    cases: Sequence[LayerCase], *, threads: int, repeats: int = 7, seconds: float = 3.0
) -> Iterator[Row]:
    """Time the contenders of one layer in turn in one process, then the memory of each in a process of its own.

    Returns:
        For each case its columns; ``seconds`` of a step (median); ``grown_bytes``, by how much the process grew with
        the layer, its optimizer and three steps; ``peak_bytes``, the most that the whole process had, the making of the
        layer included; ``connections``; ``threads``; ``machine``.
    """
    times = in_child(_times, list(cases), repeats, seconds, threads=threads).result
    for case in cases:
        small = partial(_three_steps, replace(case, rows=64, columns=64, density=0.1))
        memory = in_child(_three_steps, case, threads=threads, warm_up=small)
        yield {
            **case.row(),
            "connections": case.connections,
            "seconds": times[case.contender],
            "peak_bytes": max(memory.peak_bytes, memory.result),
            "grown_bytes": memory.grown_bytes,
            "threads": threads,
            "machine": describe_machine(),
        }


def _times(cases: Sequence[LayerCase], repeats: int, seconds: float) -> dict[str, float]:
    samples = interleave({case.contender: _step(case) for case in cases}, repeats=repeats, seconds=seconds)
    return {name: median(found) for name, found in samples.items()}


def _three_steps(case: LayerCase) -> int:
    """Returns the most memory that the process had while the layer was made."""
    step = _step(case)
    making = forget_peak()
    for _ in range(3):
        step()
    return making


def _step(case: LayerCase) -> Step:
    return build_step(case.contender, case.rows, case.columns, case.density, case.batch)


def run_recipe(case: RunCase, folder: Path, changes: Sequence[str] = ()) -> Recipe:
    """The recipe of a training run.

    Args:
        case: which run.
        folder: of all runs.
        changes: further keys, as ``--set`` takes them.
    """
    keys = [f"epochs={case.epochs}", f"seed={case.seed}", f"output={folder / case.name}"]
    keys += ["loop.checkpoint_every=200", "loop.log_every=1000000", f"loop.evaluate_every={case.epochs}"]
    if case.kind != "set":
        keys += ["evolution=null"]
    if case.kind == "dense":
        keys += ["model.options.epsilon=null", "model.options.density=1"]
    recipe = load_recipe(f"{case.task}-sparse-mlp", [*keys, *changes])
    if recipe.data.name != "tabular":
        return recipe
    return load_recipe(f"{case.task}-sparse-mlp", [*keys, f"data.division={case.seed}", *changes])


def run_case(case: RunCase, folder: Path, *, threads: int, changes: Sequence[str] = ()) -> Row:
    """Train as the case says, or go on where it was stopped; the run's folder is deleted.

    Returns:
        The case's columns; ``test_accuracy``, ``test_loss`` and the same of the held-out part, after the last step;
        ``weights`` that exist; ``state_bytes`` of weights, places and momentum; ``seconds`` in steps and edits, of
        which ``edit_seconds``; ``cpu_seconds`` of the process since it was last resumed, data and evaluation included,
        which other processes disturb little; ``grown_bytes``, the memory that the process took on with data, network
        and training; ``threads``; ``machine``.
    """
    recipe = run_recipe(case, folder, changes)
    measured = in_child(_train, recipe, threads=threads)
    shutil.rmtree(recipe.output)
    memory = {"peak_bytes": measured.peak_bytes, "grown_bytes": measured.grown_bytes}
    return {**case.row(), **measured.result, **memory, "threads": threads, "machine": describe_machine()}


class _Sizes(Callback):
    """Notes what the network and its optimizer hold."""

    def __init__(self) -> None:
        self.row: Row = {}

    def on_end(self, trainer: Trainer, report: TrainReport) -> None:  # noqa: ARG002
        """After the last step."""
        model = trainer.model
        states = [t for state in trainer.built_optimizer.state.values() for t in state.values()]
        held = [*model.parameters(), *model.buffers(), *(t for t in states if isinstance(t, torch.Tensor))]
        edits = [callback.seconds for callback in trainer.callbacks if isinstance(callback, Evolution)]
        self.row = {
            "weights": sum(p.numel() for n, p in model.named_parameters() if not n.endswith("bias")),
            "state_bytes": sum(tensor.numel() * tensor.element_size() for tensor in held),
            "edit_seconds": round(sum(edits), 2),
        }


def _train(recipe: Recipe) -> Row:
    sizes, begin = _Sizes(), time.process_time()
    report = train_recipe(recipe, resume=True, callbacks=[sizes])
    spent = {"seconds": round(report.seconds, 1), "cpu_seconds": round(time.process_time() - begin, 1)}
    return {**report.final, **sizes.row, **spent}
