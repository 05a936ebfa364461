"""A whole recipe: everything that a training run depends on."""

from __future__ import annotations

from typing import Any

from pydantic import Field, ValidationError, model_validator

from bisparse.pattern import parse_pattern
from bisparse.recipes.base import Section
from bisparse.recipes.data import DataSection
from bisparse.recipes.distillation import DistillationSection
from bisparse.recipes.errors import explain
from bisparse.recipes.evolution import EvolutionChoice
from bisparse.recipes.filters import FiltersSection
from bisparse.recipes.model import ModelSection
from bisparse.recipes.optimization import LearningRateSection, LoopSection, OptimizerSection
from bisparse.recipes.sparsity import (
    PatternText,
    RuleChoice,
    ScheduleChoice,
    ScheduleSection,
)
from bisparse.recipes.topology import AllocationChoice, EvolvingSection, TopologyChoice
from bisparse.recipes.yaml_text import write_yaml

__all__ = ["Recipe"]


class Recipe(Section):
    """The one schema behind ``bisparse train``; every kind of section has its own small file.

    Attributes:
        description: one line for lists and reports.
        model: what is trained.
        data: on what.
        filters: remove filters before training; ``None`` = the whole network.
        distillation: learn from the model as it was before; ``None`` = from the labels alone.
        pattern: which masks are allowed, for every weight or by selector; ``None`` = dense training.
        rule: how gradients reach masked weights; ``None`` = ``sr-ste``, or what goes with the topology.
        schedule: when masks change.
        topology: how masks are chosen.
        allocation: how unstructured sparsity is divided among layers; ``None`` = as the pattern says.
        evolution: how connections of truly sparse layers change; ``None`` = they stay.
        targets: which weights; ``None`` = all that the library knows.
        ignore: which not; ``None`` protects the first convolution, the last classifier and embeddings.
        optimizer: with what.
        learning_rate: its course.
        epochs: passes over the training data.
        batch: examples per optimizer step, of all processes together.
        seed: of weights, order and random changes.
        loop: everything else about the loop.
        output: folder for checkpoints, logs and the report.
    """

    description: str = ""
    model: ModelSection
    data: DataSection
    filters: FiltersSection | None = None
    distillation: DistillationSection | None = None
    pattern: PatternText | None = None
    rule: RuleChoice | None = None
    schedule: ScheduleChoice = ScheduleSection()
    topology: TopologyChoice | None = None
    allocation: AllocationChoice | None = None
    evolution: EvolutionChoice | None = None
    targets: list[str] | None = None
    ignore: list[str] | None = None
    optimizer: OptimizerSection = OptimizerSection()
    learning_rate: LearningRateSection = LearningRateSection()
    epochs: int = Field(ge=1)
    batch: int = Field(default=128, ge=1)
    seed: int = Field(default=0, ge=0)
    loop: LoopSection = LoopSection()
    output: str = Field(default="runs/bisparse", min_length=1)

    @model_validator(mode="after")
    def _sparse_keys_need_a_pattern(self) -> Recipe:
        without = {"rule", "schedule", "topology", "allocation", "targets", "ignore"} & self.model_fields_set
        if self.pattern is None and without:
            raise ValueError(
                f"{', '.join(sorted(without))}: without effect unless there is a pattern; name one"
            )
        return self

    @model_validator(mode="after")
    def _a_teacher_was_trained(self) -> Recipe:
        if self.distillation is None:
            return self
        model = self.model
        if not (model.pretrained or model.weights or ":" in model.name):
            raise ValueError(
                "distillation: the teacher is the model before training, which is random here; name model.weights or "
                "model.pretrained: true"
            )
        if self.loop.label_smoothing:
            raise ValueError(
                "distillation: a teacher's predictions take the place of loop.label_smoothing; set it to 0"
            )
        if self.distillation.hidden and self.loop.compile:
            raise ValueError(
                "distillation.hidden: loop.compile passes over the hooks that it needs; leave one out"
            )
        return self

    @model_validator(mode="after")
    def _allocations_divide_something(self) -> Recipe:
        if self.allocation is not None and self.pattern is not None:
            texts = [self.pattern] if isinstance(self.pattern, str) else self.pattern.values()
            self.allocation.check([parse_pattern(text) for text in texts])
        return self

    @model_validator(mode="after")
    def _evolving_masks_forget_and_end(self) -> Recipe:
        if not isinstance(self.topology, EvolvingSection):
            return self
        if self.rule is not None and self.rule.name != "hard":
            raise ValueError(
                f"rule: {self.topology.name} masks forget what they drop, which only hard does; leave rule out"
            )
        if self.topology.falls and not self.schedule.ends:
            raise ValueError(
                f"schedule: what {self.topology.name} exchanges falls to an end; name it, until: 0.75 (of the run) or "
                "freeze: STEP"
            )
        return self

    @classmethod
    def of(cls, values: Any, origin: str = "recipe") -> Recipe:
        """A recipe from plain data.

        Args:
            values: nested mappings.
            origin: named in errors.

        Raises:
            RecipeError: one line for each key that is wrong, with its choices.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise explain(error, cls, origin) from None

    def to_yaml(self) -> str:
        """The recipe with every key that differs from its default."""
        return write_yaml(self.model_dump(mode="json", exclude_unset=True))
