"""One weight as evolving topologies see it at a refresh: whole on every process, whatever its division."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bisparse.train.masked_weight import MaskedWeight
from bisparse.train.measures.bits import unpack
from bisparse.train.topology.randomness import generator

__all__ = ["View", "view"]


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """Whole tensors in the weight's shape.

    Attributes:
        weight: which.
        values: W; dropped entries are 0.
        mask: of the last refresh.
        gradient: magnitude of the dense gradient; ``None`` where nothing asked for it, or none has come.
        momentum: moving average of the dense gradient; likewise.
        seed: of the topology.
    """

    weight: MaskedWeight
    values: Tensor
    mask: Tensor
    gradient: Tensor | None
    momentum: Tensor | None
    seed: int

    @property
    def fired(self) -> Tensor:
        """Every entry that a mask has kept so far."""
        weight = self.weight
        if weight.fired is None:
            return self.mask
        return _whole(weight, unpack(weight.fired, weight.mask.shape).byte()).bool()

    def random(self, purpose: str) -> Tensor:
        """Numbers in [0, 1), the same on every process, device and number of threads."""
        source = generator(self.seed, self.weight.name, self.weight.steps, purpose)
        return torch.rand(self.mask.shape, generator=source).to(self.mask.device)

    def part(self, whole: Tensor) -> Tensor:
        """This process's part of a whole tensor."""
        return whole if self.weight.sharding is None else self.weight.sharding.scatter(whole)


def view(weight: MaskedWeight, seed: int, signals: Mapping[str, Tensor]) -> View:
    """Gather what a refresh needs. A collective where the weight is divided among processes.

    Raises:
        ValueError: a weight, gradient or momentum that is not finite; names the first position.
    """
    found = {name: _whole(weight, tensor) for name, tensor in {"weight": weight.values, **signals}.items()}
    for name, tensor in found.items():
        _check_finite(name, tensor)
    return View(
        weight,
        found["weight"],
        _whole(weight, weight.mask.byte()).bool(),
        found.get("gradient"),
        found.get("momentum"),
        seed,
    )


def _check_finite(name: str, tensor: Tensor) -> None:
    wrong = tensor.isfinite().logical_not()
    if wrong.any():
        place = wrong.nonzero()[0].tolist()
        raise ValueError(
            f"the {name} at {place} is {tensor[tuple(place)].item()}: find where it arose, or lower the learning rate"
        )


def _whole(weight: MaskedWeight, part: Tensor) -> Tensor:
    return part if weight.sharding is None else weight.sharding.gather(part)
