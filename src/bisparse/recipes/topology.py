"""Sections of a recipe that say how masks are chosen, and how many weights each layer keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, model_validator

from bisparse.pattern import Pattern, Unstructured
from bisparse.recipes.base import Section, named
from bisparse.train.allocation import ALLOCATIONS, Allocation, ErdosRenyi
from bisparse.train.topology import (
    DROPS,
    GROWS,
    REDISTRIBUTIONS,
    TOPOLOGIES,
    Evolve,
    Importance,
    Projection,
    Topology,
)

__all__ = ["AllocationChoice", "EvolvingSection", "TopologyChoice"]


class ProjectionSection(Section):
    """Masks that keep the largest magnitudes."""

    name: Literal["projection"]
    method: Literal["exact", "greedy", "two_approx", "entropic", "flow"] = "exact"
    hysteresis: float = Field(default=0.0, ge=0, description="bonus for entries that are kept already")
    average: float | None = Field(
        default=None, gt=0, lt=1, description="learn masks from a moving average of W"
    )
    warm: bool = True

    def build(self, seed: int) -> Topology:  # noqa: ARG002
        """As the sparsifier takes it."""
        return Projection(**self.model_dump(exclude={"name"}))


class NeuronsSection(Section):
    """Hidden neurons of little strength lose their edges, counted in refreshes."""

    start: int = Field(default=200, ge=1)
    every: int | None = Field(default=10, ge=1, description="null: once")
    share: float = Field(default=0.2, gt=0, lt=1)
    outgoing: bool = False
    outputs: list[str] | None = Field(
        default=None, description="weights whose outputs stay; default: the last"
    )

    def build(self) -> Importance:
        """As the topology takes it."""
        outputs = None if self.outputs is None else tuple(self.outputs)
        return Importance(**self.model_dump(exclude={"outputs"}), outputs=outputs)


class EvolvingSection(Section):
    """Sparse from scratch: what is left out is as the name says, and everything can be combined.

    Attributes:
        name: ``set``, ``rigl``, ``snfs``, ``static`` (never changed), or ``evolve`` (the smallest go, new ones come at
            random).
        drop: which weights go.
        grow: where new ones come.
        redistribute: whether layers share them out, and by what; ``none`` = each keeps its number.
        fraction: share of the kept weights that is exchanged at the first refresh.
        course: how that share falls, up to the end of the schedule.
        floor: to what.
        first: the first masks.
        newborn: what new weights start from; ``std`` of ``normal``.
        neurons: cut unimportant neurons; ``null`` = never.
        gradients: how many of the last gradients are averaged, where they are asked for.
        beta: of the momentum, where that is asked for.
        seed: of everything random; default: the recipe's.
    """

    name: Literal["set", "rigl", "snfs", "static", "evolve"]
    drop: Literal["magnitude", "two-sided", "taylor", "magnitude-gradient"] | None = None
    grow: Literal["random", "random-unfired", "gradient", "momentum"] | None = None
    redistribute: Literal["none", "momentum", "magnitude", "nonzeros"] | None = None
    fraction: float | None = Field(default=None, ge=0, le=1)
    course: Literal["constant", "cosine", "linear"] | None = None
    floor: float | None = Field(default=None, ge=0, le=1)
    first: Literal["random", "magnitude"] | None = None
    newborn: Literal["zero", "normal", "he", "xavier"] | None = None
    std: float | None = Field(default=None, gt=0)
    neurons: NeuronsSection | None = None
    gradients: int | None = Field(default=None, ge=1)
    beta: float | None = Field(default=None, ge=0, lt=1)
    seed: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _static_masks_do_not_evolve(self) -> EvolvingSection:
        without = self.model_fields_set - {"name", "first", "seed"}
        if self.name == "static" and without:
            raise ValueError(
                f"{', '.join(sorted(without))}: without effect on static masks; name set or rigl"
            )
        return self

    @property
    def falls(self) -> bool:
        """Whether the exchanged share falls towards an end, which the schedule has to name."""
        return self._evolve.fraction.shape != "constant"

    def build(self, seed: int) -> Topology:
        """As the sparsifier takes it."""
        topology = self._evolve
        return replace(topology, seed=seed if self.seed is None else self.seed)

    @property
    def _evolve(self) -> Evolve:
        topology = TOPOLOGIES[self.name]
        assert isinstance(topology, Evolve)
        given: dict[str, Any] = self.model_dump(include={"first", "gradients", "beta"}, exclude_none=True)
        if self.drop is not None:
            given["drop"] = DROPS[self.drop]
        if self.grow is not None:
            given["grow"] = GROWS[self.grow]
        if self.redistribute is not None:
            given["redistribute"] = REDISTRIBUTIONS.get(self.redistribute)
        if self.neurons is not None:
            given["neurons"] = self.neurons.build()
        course = _given(start=self.fraction, shape=self.course, floor=self.floor)
        values = _given(kind=self.newborn, std=self.std)
        return replace(
            topology,
            fraction=replace(topology.fraction, **course),
            newborn=replace(topology.newborn, **values),
            **given,
        )


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


TopologyChoice: TypeAlias = Annotated[
    Annotated[ProjectionSection | EvolvingSection, Field(discriminator="name")], BeforeValidator(named)
]
"""How masks are chosen; a name alone takes everything as that method has it."""


class AllocationSection(Section):
    """How unstructured sparsity is divided among layers."""

    name: Literal["uniform", "er", "erk"]
    eps: float | None = Field(default=None, gt=0, description="SET's: with pattern unstructured:0")
    power: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _uniform_has_no_numbers(self) -> AllocationSection:
        without = self.model_fields_set - {"name"}
        if self.name == "uniform" and without:
            raise ValueError(f"{', '.join(sorted(without))}: without effect on uniform; name er or erk")
        return self

    def check(self, patterns: Sequence[Pattern]) -> None:
        """Raise where no pattern leaves anything to divide, or where eps and a pattern say two things.

        Raises:
            ValueError: says what to write.
        """
        own = [pattern for pattern in patterns if isinstance(pattern, Unstructured)]
        if not own:
            raise ValueError(
                f"allocation: {self.name} divides unstructured sparsity, but pattern is {patterns[0]}"
            )
        if self.eps is not None and any(pattern.sparsity for pattern in own):
            raise ValueError(
                "allocation: eps says how many weights stay, so pattern has to be unstructured:0"
            )

    def build(self) -> Allocation:
        """As the sparsifier takes it."""
        if self.name == "uniform":
            return ALLOCATIONS[self.name]
        return ErdosRenyi(kernel=self.name == "erk", eps=self.eps, power=self.power)


AllocationChoice: TypeAlias = Annotated[AllocationSection, BeforeValidator(named)]
"""A name alone divides what the pattern says."""
