"""A small truly sparse network, its data, and trainers that let it evolve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bisparse.nn import SparseMLP
from bisparse.train.callback import Callback
from bisparse.train.evolution import ImportancePruning, RiglEvolution, SetEvolution
from bisparse.train.examples import DataParts, Pairs, hold_out
from bisparse.train.learning_rate import LearningRate
from bisparse.train.optimizers import OptimizerSpec
from bisparse.train.processes import Processes
from bisparse.train.train_options import TrainOptions
from bisparse.train.trainer import Trainer

WAYS: dict[str, Any] = {
    "static": list,
    "set": lambda: [SetEvolution(0.3)],
    "rigl": lambda: [RiglEvolution(0.4, every=3, candidates="exact")],
    "rigl, candidates": lambda: [RiglEvolution(0.4, every=4, candidates=3)],
    "importance": lambda: [ImportancePruning(begin=1, every=2, share=0.25), SetEvolution(0.3)],
}


def parts() -> DataParts:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(4, 16, generator=generator)
    labels = torch.arange(256) % 4
    inputs = centres[labels] + 0.5 * torch.randn(256, 16, generator=generator)
    train, validation = hold_out(Pairs(inputs[:200], labels[:200]), 40)
    return DataParts(train, validation, Pairs(inputs[200:], labels[200:]))


def trainer(
    way: str,
    *,
    output: Path | None = None,
    processes: Processes | None = None,
    extra: Sequence[Callback] = (),
    seed: int = 0,
    optimizer: str = "sgd",
    dtype: torch.dtype = torch.float32,
    **changes: Any,
) -> Trainer:
    data = parts()
    if dtype != torch.float32:
        for part in (data.train.whole, data.test):  # type: ignore[union-attr]
            object.__setattr__(part, "inputs", part.inputs.to(dtype))  # type: ignore[union-attr]
    return Trainer(
        SparseMLP((16, 40, 30, 4), epsilon=2, dropout=changes.pop("dropout", 0.0), seed=seed).to(dtype),
        data,
        TrainOptions(**{"epochs": 4, "batch": 16, "checkpoint_every": 3, **changes}),
        OptimizerSpec(name=optimizer, lr=0.05 if optimizer == "sgd" else 0.01, weight_decay=1e-3),  # type: ignore[arg-type]
        LearningRate(shape="constant"),
        callbacks=[*WAYS[way](), *extra],
        output=output,
        processes=processes or Processes(),
    )


def state_of(run: Trainer) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in run.model.state_dict().items()}


class Stop(Callback):
    """Ends the run at a step, as a kill would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, trainer: Trainer, row: Mapping[str, Any]) -> None:
        if trainer.step == self.step:
            raise KeyboardInterrupt
