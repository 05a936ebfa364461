"""The demo of sparse training: real digits, a tenth of the weights from the first step on, against dense."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

import torch
from torch import Tensor

from bisparse.demo.sparse_training_report import SparseTrainingReport, SparseTrainingRow
from bisparse.timing import torch_threads
from bisparse.train.callback import Callback, LogRow
from bisparse.train.examples import DataParts, Pairs, hold_out
from bisparse.train.learning_rate import LearningRate
from bisparse.train.optimizers import OptimizerSpec
from bisparse.train.schedule import Schedule
from bisparse.train.sparsifier import Sparsifier
from bisparse.train.topology import Evolve, RigL, Set, Static
from bisparse.train.train_options import TrainOptions
from bisparse.train.train_report import TrainReport
from bisparse.train.trainer import Trainer
from bisparse.zoo.digits import digits
from bisparse.zoo.mlp import mlp

__all__ = ["SparseTrainingSettings", "run_sparse_training"]

_HELD_OUT, _BATCH, _SIDE = 150, 32, 8


@dataclass(frozen=True, slots=True)
class SparseTrainingSettings:
    """What to run.

    Attributes:
        widths: features of the network from pixels to classes; every layer is sparse.
        sparsity: share of the weights that are never there, divided among layers as Erdos-Renyi graphs.
        runs: networks of each kind, with the seeds ``seed``, ``seed + 1``, ...
        epochs: of each; connections move after every epoch but the last (SET), for three quarters of them (RigL).
        seed: of the first network, its data order and the division of the data.
    """

    widths: tuple[int, ...] = (64, 256, 128, 10)
    sparsity: float = 0.9
    runs: int = 2
    epochs: int = 30
    seed: int = 0

    @classmethod
    def quick(cls, seed: int = 0) -> SparseTrainingSettings:
        """One narrow network of each kind, trained briefly."""
        return cls(widths=(64, 64, 32, 10), sparsity=0.8, runs=1, epochs=8, seed=seed)


@dataclass(eq=False)
class _Watch(Callback):
    """Notes accuracies, exploration and the connections of every pixel as training goes on."""

    rows: list[LogRow] = field(default_factory=list)
    connections: list[Tensor] = field(default_factory=list)

    def on_start(self, trainer: Trainer) -> None:
        """The first connections."""
        self._note(trainer)

    def on_epoch(self, trainer: Trainer, row: LogRow) -> None:
        """Those after an epoch."""
        self.rows.append(row)
        self._note(trainer)

    def _note(self, trainer: Trainer) -> None:
        if trainer.sparsifier is not None:
            mask = next(iter(trainer.sparsifier.masks.values()))
            self.connections.append(mask.sum(0).reshape(_SIDE, _SIDE))

    def curve(self, name: str) -> list[float]:
        """One number after each epoch; empty where there is none."""
        return [float(row[name] or 0.0) for row in self.rows if name in row]


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    report: TrainReport
    watch: _Watch
    weights: int
    state: dict[str, Tensor]


def run_sparse_training(
    settings: SparseTrainingSettings, progress: Callable[[str], None] | None = None
) -> SparseTrainingReport:
    """Train dense networks and sparse ones of three kinds on the same data; on one thread: all is small.

    Args:
        settings: what to run; equal settings give equal numbers on one machine, times apart.
        progress: told in words what is being done.

    Raises:
        ImportError: scikit-learn, which has the digits, is missing.
    """
    report = progress or (lambda _: None)
    topologies: dict[str, Evolve | None] = {"dense": None, "static": Static(), "set": Set(), "rigl": RigL()}
    data = _data(settings.seed)
    runs: dict[str, list[_Run]] = {name: [] for name in topologies}
    with torch_threads(1):
        for number in range(settings.runs):
            for name, topology in topologies.items():
                report(f"network {number + 1} of {settings.runs}: {name}")
                runs[name].append(_train(settings, data, topology, settings.seed + number))
    return _summary(settings, data, runs)


def _data(seed: int) -> DataParts:
    """Ink from 0 to 1: connections of blank pixels then carry nothing."""
    split = digits(seed=seed)
    train, validation = hold_out(Pairs(split.train_inputs + 0.5, split.train_labels), _HELD_OUT)
    return DataParts(train, validation, Pairs(split.test_inputs + 0.5, split.test_labels))


def _train(settings: SparseTrainingSettings, data: DataParts, topology: Evolve | None, seed: int) -> _Run:
    """One network; all kinds start from the same weights and see the same batches."""
    model, watch = mlp(settings.widths, seed=seed), _Watch()
    trainer = Trainer(
        model,
        data,
        TrainOptions(epochs=settings.epochs, batch=_BATCH, seed=seed),
        OptimizerSpec(lr=0.2, weight_decay=5e-5),
        LearningRate(warmup=len(data.train) // _BATCH),
        sparsifier=None if topology is None else _sparsifier(settings, data, replace(topology, seed=seed)),
        callbacks=[watch],
    )
    report = trainer.fit()
    dense = sum(p.numel() for p in model.parameters() if p.dim() > 1)
    weights = round(report.measures.get("density", 1.0) * dense)
    return _Run(report, watch, weights, {k: v.detach().clone() for k, v in model.state_dict().items()})


def _sparsifier(settings: SparseTrainingSettings, data: DataParts, topology: Evolve) -> Sparsifier:
    every = len(data.train) // _BATCH
    steps = every * settings.epochs
    return Sparsifier(
        f"unstructured:{settings.sparsity}",
        allocation="er",
        topology=topology,
        schedule=Schedule(every=every, freeze=int(0.75 * steps) if isinstance(topology, RigL) else steps - 1),
        ignore=[],
    )


def _summary(
    settings: SparseTrainingSettings, data: DataParts, runs: dict[str, list[_Run]]
) -> SparseTrainingReport:
    first = runs["set"][0]
    seen = first.watch.connections
    chosen = sorted({0, 1, *(round(settings.epochs * share) for share in (0.1, 0.3, 0.6, 1.0))})
    pixels = data.train.batch(torch.arange(len(data.train)), None)
    assert isinstance(pixels, tuple)
    assert data.test is not None
    return SparseTrainingReport(
        rows=tuple(_row(name, done) for name, done in runs.items()),
        runs=settings.runs,
        epochs=settings.epochs,
        test_examples=len(data.test),
        image=pixels[0].mean(0).reshape(_SIDE, _SIDE),
        connections={epoch: seen[epoch] for epoch in chosen},
        state=first.state,
    )


def _row(method: str, runs: Sequence[_Run]) -> SparseTrainingRow:
    accuracies = [run.report.parts["test"].accuracy or 0.0 for run in runs]
    measures = [run.report.measures for run in runs]
    return SparseTrainingRow(
        method=method,
        weights=runs[0].weights,
        accuracy=fmean(accuracies),
        lowest=min(accuracies),
        highest=max(accuracies),
        explored=fmean(m.get("explored", 1.0) for m in measures),
        moved=fmean(m.get("edge_distance_from_start", 0.0) for m in measures),
        seconds=fmean(run.report.seconds for run in runs),
        curve=_mean([run.watch.curve("validation_accuracy") for run in runs]),
        explored_curve=_mean([run.watch.curve("explored") for run in runs]),
    )


def _mean(curves: Sequence[Sequence[float]]) -> list[float]:
    return [fmean(values) for values in zip(*curves, strict=True)]
