"""Sections of a recipe that say how to train: optimizer, learning rate, loop."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bisparse.recipes.base import Section
from bisparse.train.learning_rate import LearningRate
from bisparse.train.optimizers import OptimizerSpec

__all__ = ["LearningRateSection", "LoopSection", "OptimizerSection"]


class OptimizerSection(Section):
    """An optimizer by name; numbers that it does not know are ignored by it."""

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = Field(default=0.1, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = False
    betas: list[float] = Field(default=[0.9, 0.999], min_length=2, max_length=2)

    def spec(self) -> OptimizerSpec:
        """As the trainer takes it."""
        numbers = self.model_dump(exclude={"betas"})
        return OptimizerSpec(**numbers, betas=(self.betas[0], self.betas[1]))


class LearningRateSection(Section):
    """The course of the learning rate, in epochs."""

    shape: Literal["constant", "cosine", "linear", "step"] = "cosine"
    warmup: float = Field(default=0.0, ge=0, description="epochs from 0 to the full rate")
    floor: float = Field(default=0.0, ge=0, le=1)
    milestones: list[float] = Field(default=[], description="epochs at which shape step falls by gamma")
    gamma: float = Field(default=0.1, gt=0, le=1)

    def in_steps(self, steps_per_epoch: int) -> LearningRate:
        """As the trainer takes it."""
        return LearningRate(
            shape=self.shape,
            warmup=round(self.warmup * steps_per_epoch),
            floor=self.floor,
            milestones=tuple(round(epoch * steps_per_epoch) for epoch in self.milestones),
            gamma=self.gamma,
        )


class LoopSection(Section):
    """The training loop; see :class:`bisparse.train.train_options.TrainOptions`."""

    steps_per_epoch: int | None = Field(default=None, ge=1)
    accumulate: int = Field(default=1, ge=1)
    clip: float | None = Field(default=None, gt=0)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    channels_last: bool = False
    compile: bool = False
    workers: int = Field(default=0, ge=0)
    threads: int | None = Field(default=None, ge=1, description="of the processor; default: all cores")
    device: str = "auto"
    evaluate_every: int = Field(default=1, ge=1)
    evaluation_batch: int = Field(default=500, ge=1)
    checkpoint_every: int | None = Field(default=None, ge=1)
    log_every: int = Field(default=50, ge=1)
    tensorboard: bool = False
