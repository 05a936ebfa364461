"""Sections of a recipe that say which weights become zero, how and when."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, PlainValidator, model_validator

from bisparse.pattern import parse_pattern, part_of
from bisparse.recipes.base import Section, named
from bisparse.recipes.dst import DstRule
from bisparse.train.rules import RULES, Rule, SrSte
from bisparse.train.schedule import Ramp, Schedule

__all__ = ["PatternText", "RuleChoice", "ScheduleChoice", "ScheduleSection"]


def _patterns(value: Any) -> Any:
    """Check patterns while they are text; a recipe stays plain data."""
    texts = list(value.values()) if isinstance(value, dict) else [value]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError("expected a pattern such as 4:8t, or a mapping from layers to patterns")
    for text in texts:
        parse_pattern(text)
    return value


PatternText: TypeAlias = Annotated[str | dict[str, str], PlainValidator(_patterns)]
"""A pattern as text, for example ``4:8t``, or one for each selector of weights; the first that matches counts."""


class PlainRule(Section):
    """A rule without numbers."""

    name: Literal["hard", "ste", "s-ste"]

    def build(self) -> Rule:
        """As the sparsifier takes it."""
        return RULES[self.name]


class SrSteRule(Section):
    """Dropped entries decay by ``decay`` times the learning rate, through the gradient or by themselves."""

    name: Literal["sr-ste"]
    decay: float = 2e-4
    mode: Literal["coupled", "decoupled"] = "coupled"

    def build(self) -> Rule:
        """As the sparsifier takes it."""
        return SrSte(self.decay, self.mode)


RuleChoice: TypeAlias = Annotated[
    Annotated[PlainRule | SrSteRule | DstRule, Field(discriminator="name")], BeforeValidator(named)
]


class RampSection(Section):
    """The density falls from ``density`` to the pattern's own along a cubic curve, in steps."""

    begin: int = Field(default=0, ge=0)
    end: int = Field(ge=1)
    density: float = Field(default=1.0, gt=0, le=1)


class ScheduleSection(Section):
    """When masks change, in optimizer steps."""

    every: int = Field(default=40, ge=1, description="steps between refreshes")
    start: int = Field(default=0, ge=0, description="the first masks stay until then")
    freeze: int | None = Field(
        default=None, ge=0, description="no refresh after this step; 0: masks never change"
    )
    until: float | None = Field(
        default=None, gt=0, le=1, description="share of the run after which masks stay, instead of freeze"
    )
    dense_until: int = Field(default=0, ge=0)
    dense_from: int | None = Field(default=None, ge=1)
    ramp: RampSection | None = None

    @model_validator(mode="after")
    def _one_end(self) -> ScheduleSection:
        if self.until is not None and self.freeze is not None:
            raise ValueError("freeze and until both say when masks stay: give one")
        return self

    @property
    def ends(self) -> bool:
        """Whether masks stay from some step on."""
        return self.freeze is not None or self.until is not None

    def build(self, steps: int) -> Schedule:
        """As the sparsifier takes it.

        Args:
            steps: of the whole run.
        """
        ramp = None if self.ramp is None else Ramp(**self.ramp.model_dump())
        freeze = self.freeze if self.until is None else part_of(steps, self.until)
        return Schedule(**self.model_dump(exclude={"ramp", "until", "freeze"}), freeze=freeze, ramp=ramp)


def _static(value: Any) -> Any:
    return {"freeze": 0} if value == "static" else value


ScheduleChoice: TypeAlias = Annotated[ScheduleSection, BeforeValidator(_static)]
"""A schedule, or ``static``: masks are chosen once, from the weights at the start."""
