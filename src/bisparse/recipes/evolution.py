"""The section of a recipe that lets connections of truly sparse layers evolve."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BeforeValidator, Field

from bisparse.recipes.base import Section, named
from bisparse.train.callback import Callback
from bisparse.train.evolution import ImportancePruning, RiglEvolution, SetEvolution

__all__ = ["EvolutionChoice"]


class ImportanceSection(Section):
    """Hidden neurons with small incoming weights lose them, in epochs."""

    begin: int = Field(default=200, ge=1)
    every: int = Field(default=10, ge=1)
    share: float = Field(default=0.2, ge=0, lt=1)


class _EvolutionSection(Section):
    last_layer: bool = Field(default=True, description="whether the model's last layer evolves, too")
    importance: ImportanceSection | None = None

    def callbacks(self) -> list[Callback]:
        """As the trainer takes them: neurons are cut before connections are replaced."""
        cut = [] if self.importance is None else [ImportancePruning(**self.importance.model_dump())]
        return [*cut, *self._own()]

    def _own(self) -> list[Callback]:
        return []


class NoEvolution(_EvolutionSection):
    """Connections stay where they are, but for those of neurons that importance pruning cuts."""

    name: Literal["static"]


class SetSection(_EvolutionSection):
    """SET: weak connections are replaced by random ones, in epochs."""

    name: Literal["set"]
    zeta: float = Field(default=0.3, ge=0, le=1)
    every: int = Field(default=1, ge=1, description="epochs")

    def _own(self) -> list[Callback]:
        return [SetEvolution(self.zeta, every=self.every, last_layer=self.last_layer)]


class RiglSection(_EvolutionSection):
    """RigL: small weights are replaced where the gradient is largest, in steps."""

    name: Literal["rigl"]
    alpha: float = Field(default=0.3, ge=0, le=1)
    every: int = Field(default=100, ge=1, description="optimizer steps")
    until: float = Field(default=0.75, gt=0, le=1, description="share of the run")
    candidates: Literal["exact"] | Annotated[int, Field(ge=1)] = 10

    def _own(self) -> list[Callback]:
        options = self.model_dump(exclude={"name", "importance"})
        return [RiglEvolution(options.pop("alpha"), **options)]


EvolutionChoice: TypeAlias = Annotated[
    Annotated[NoEvolution | SetSection | RiglSection, Field(discriminator="name")], BeforeValidator(named)
]
