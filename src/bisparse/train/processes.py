"""The processes that train together: one by default, several under ``torchrun``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch import distributed as dist

__all__ = ["Processes", "joined"]


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among those that train together.

    Attributes:
        rank: its number, from 0.
        world: how many there are.
        device: where it computes.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - immutable

    @property
    def first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def wait(self) -> None:
        """Until all processes are here."""
        if self.world > 1:
            dist.barrier()

    def summed(self, values: Tensor) -> Tensor:
        """The sum of a tensor over all processes."""
        if self.world > 1:
            values = values.to(self.device)
            dist.all_reduce(values)
        return values.cpu()

    def gathered(self, values: Tensor) -> list[Tensor]:
        """The tensors of all processes, in order; of the same shape everywhere."""
        if self.world == 1:
            return [values]
        values = values.to(self.device).contiguous()
        copies = [torch.empty_like(values) for _ in range(self.world)]
        dist.all_gather(copies, values)
        return copies


@contextmanager
def joined(device: str = "auto") -> Iterator[Processes]:
    """Join the other processes if ``torchrun`` started this one (``WORLD_SIZE`` above 1), and leave at the end.

    Args:
        device: ``auto`` = the graphics processor of this process where there is one; or a device's name.
    """
    world, rank, local = (int(os.environ.get(name, default)) for name, default in _VARIABLES)
    if device == "auto":
        device = f"cuda:{local}" if torch.cuda.is_available() else "cpu"
    chosen = torch.device(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if world == 1:
        yield Processes(device=chosen)
        return
    started = not dist.is_initialized()
    if started:
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Processes(rank, world, chosen)
    finally:
        if started:
            dist.destroy_process_group()


_VARIABLES = (("WORLD_SIZE", "1"), ("RANK", "0"), ("LOCAL_RANK", "0"))
