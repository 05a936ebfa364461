"""Examples that a training loop fetches by number, and their division into parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

__all__ = ["Batch", "DataParts", "Examples", "Pairs", "Part", "hold_out", "in_order", "shuffled"]

Batch: TypeAlias = "tuple[Tensor, Tensor] | Mapping[str, Tensor]"
"""(inputs, targets), or the keyword arguments of a model that returns its own loss."""


class Examples(Protocol):
    """A numbered collection. Every reader of the zoo returns one."""

    def __len__(self) -> int:
        """How many there are."""

    def batch(self, chosen: Tensor, generator: torch.Generator | None) -> Batch:
        """The examples with these numbers, int64 (b,).

        Args:
            chosen: numbers from 0.
            generator: where random changes (crops, flips, window positions) come from; ``None``: none are made.
        """


@dataclass(frozen=True, slots=True)
class Pairs:
    """Inputs and targets in memory, both (n, ...)."""

    inputs: Tensor
    targets: Tensor

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.targets):
            raise ValueError(f"{len(self.inputs)} inputs but {len(self.targets)} targets: give one for each")

    def __len__(self) -> int:
        return len(self.targets)

    def batch(self, chosen: Tensor, generator: torch.Generator | None) -> Batch:  # noqa: ARG002
        """The rows with these numbers."""
        return self.inputs[chosen], self.targets[chosen]


@dataclass(frozen=True, slots=True)
class Part:
    """Some of the examples of a larger collection, numbered anew."""

    whole: Examples
    numbers: Tensor

    def __len__(self) -> int:
        return len(self.numbers)

    def batch(self, chosen: Tensor, generator: torch.Generator | None) -> Batch:
        """The examples with these numbers."""
        return self.whole.batch(self.numbers[chosen], generator)


@dataclass(frozen=True, slots=True)
class DataParts:
    """What a training run needs.

    Attributes:
        train: learnt from.
        validation: held out of the training data; every choice is made by it.
        test: looked at once, at the very end; ``None`` where there is none.
    """

    train: Examples
    validation: Examples
    test: Examples | None = None


def hold_out(examples: Examples, count: int, seed: int = 0) -> tuple[Part, Part]:
    """Divide at random: (what remains, what is held out).

    Args:
        examples: to divide.
        count: how many are held out.
        seed: the same seed gives the same division on every machine.

    Raises:
        ValueError: one part would be empty.
    """
    total = len(examples)
    if not 0 < count < total:
        raise ValueError(f"cannot hold out {count} of {total} examples: both parts need at least one")
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    return Part(examples, order[count:].sort().values), Part(examples, order[:count].sort().values)


def shuffled(total: int, batch: int, seed: int, epoch: int) -> list[Tensor]:
    """The numbers of an epoch's batches: a new order for every epoch, full batches only.

    What is left over is left out, another remainder in every epoch.

    Raises:
        ValueError: fewer examples than one batch.
    """
    if total < batch:
        raise ValueError(
            f"{total} training examples do not fill one batch of {batch}: choose a smaller batch"
        )
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed + 1_000_003 * (epoch + 1)))
    return list(torch.split(order[: total // batch * batch], batch))


def in_order(total: int, batch: int) -> Iterator[Tensor]:
    """The numbers of batches that pass over everything once; the last may be smaller."""
    yield from torch.split(torch.arange(total), batch)
