"""The section of a recipe that trains thresholds."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from bisparse.recipes.base import Section
from bisparse.train.rules import Dst, Rule
from bisparse.train.schedule import Ramp
from bisparse.train.thresholds import LongTail, Reset, Target, resolve_granularity

__all__ = ["DstRule"]


class EstimatorSection(Section):
    """What stands for the derivative of the step function."""

    peak: float = Field(default=2.0, ge=0)
    knee: float = Field(default=0.4, gt=0)
    tail: float = Field(default=0.4, ge=0)
    cut: float = Field(default=1.0, gt=0)


class ResetSection(Section):
    """What happens where at most the share ``level`` of a weight is left."""

    mode: Literal["zero", "floor", "off"] = "zero"
    level: float = Field(default=0.01, ge=0, lt=1)


class TargetSection(Section):
    """Adapt alpha until the share ``density`` of all weights is left."""

    density: float = Field(gt=0, lt=1)
    begin: int = Field(default=0, ge=0, description="step at which the wanted share begins to fall from 1")
    end: int | None = Field(default=None, ge=1, description="step from which it is density; null: at once")
    gain: float = Field(default=10.0, gt=0)
    limit: float = Field(default=20.0, gt=1, description="alpha changes by at most this factor")

    def build(self) -> Target:
        """As the rule takes it."""
        ramp = None if self.end is None else Ramp(self.begin, self.end)
        return Target(self.density, ramp, self.gain, self.limit)


class DstRule(Section):
    """Thresholds that are trained along with the weights; see :class:`bisparse.train.Dst`."""

    name: Literal["dst"]
    alpha: float = Field(default=5e-4, ge=0)
    granularity: str = Field(default="vector", description="vector, scalar, matrix or tile:8")
    target: TargetSection | None = None
    reset: ResetSection = ResetSection()
    estimator: EstimatorSection = EstimatorSection()
    strict: bool = True
    start: float = 0.0
    faithful: bool = Field(default=False, description="thresholds have the weights' weight decay")

    @field_validator("granularity")
    @classmethod
    def _known(cls, value: str) -> str:
        resolve_granularity(value)
        return value

    def build(self) -> Rule:
        """As the sparsifier takes it."""
        numbers: dict[str, Any] = self.model_dump(exclude={"name", "target", "reset", "estimator"})
        target = None if self.target is None else self.target.build()
        reset, estimator = Reset(**self.reset.model_dump()), LongTail(**self.estimator.model_dump())
        return Dst(**numbers, target=target, reset=reset, estimator=estimator)
