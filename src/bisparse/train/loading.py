"""Batches on their way to the model: in this process, or prepared by workers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bisparse.train.examples import Batch, Examples

__all__ = ["Request", "load", "moved"]


@dataclass(frozen=True, slots=True)
class Request:
    """One batch to be made: which examples, and the seed of their random changes (``None`` = unchanged)."""

    chosen: Tensor
    seed: int | None = None


@dataclass(frozen=True)
class _Requests(Dataset[Batch]):
    """Requests as a data set: the seed belongs to the request, so it does not matter which worker answers."""

    examples: Examples
    requests: Sequence[Request]

    def __len__(self) -> int:
        return len(self.requests)

    def __getitem__(self, number: int) -> Batch:
        request = self.requests[number]
        generator = None if request.seed is None else torch.Generator().manual_seed(request.seed)
        return self.examples.batch(request.chosen, generator)


def load(examples: Examples, requests: Sequence[Request], workers: int = 0) -> Iterator[Batch]:
    """The requested batches, in order; ``workers`` processes prepare them ahead where there are any."""
    made = _Requests(examples, requests)
    if workers:
        loader: Any = DataLoader(made, batch_size=None, num_workers=workers, prefetch_factor=4)
        yield from loader
    else:
        yield from (made[number] for number in range(len(made)))


def moved(batch: Batch, device: torch.device) -> Batch:
    """A batch on a device."""
    if isinstance(batch, Mapping):
        return {name: value.to(device, non_blocking=True) for name, value in batch.items()}
    inputs, targets = batch
    return inputs.to(device, non_blocking=True), targets.to(device, non_blocking=True)
