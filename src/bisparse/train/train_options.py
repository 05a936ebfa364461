"""How long and how a training loop runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["TrainOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """How long and how.

    Attributes:
        epochs: passes over the training data.
        batch: examples per optimizer step, of all processes and accumulated parts together.
        seed: of the order of the examples, of their random changes and of dropout.
        steps_per_epoch: at most so many.
        accumulate: parts into which each process divides its share of a batch.
        clip: largest norm of the gradient; ``None`` = no limit.
        precision: of the forward pass (automatic mixed precision below ``float32``).
        channels_last: memory format of convolutions' weights, faster on most processors.
        compile: run the model through ``torch.compile``.
        workers: processes that prepare batches; 0 = none besides this one.
        evaluate_every: epochs between evaluations on the held-out examples; the last is always evaluated.
        evaluation_batch: examples at once.
        checkpoint_every: steps between checkpoints besides those at the end of each epoch.

    Raises:
        ValueError: a number that makes no sense.
    """

    epochs: int
    batch: int = 128
    seed: int = 0
    steps_per_epoch: int | None = None
    accumulate: int = 1
    clip: float | None = None
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    channels_last: bool = False
    compile: bool = False
    workers: int = 0
    evaluate_every: int = 1
    evaluation_batch: int = 500
    checkpoint_every: int | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "accumulate", "evaluate_every", "evaluation_batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")
