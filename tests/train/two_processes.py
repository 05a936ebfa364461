"""What each of two processes does; results go to files that the tests read."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from tests.train.setting import Dropped, sgd, silent_loss, sparsifier
from torch import Tensor, nn
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel

import bisparse as bs

STEPS = 6
PATTERNS: dict[Any, str] = {
    "first": "2:4t",
    "second": "4:8t",
    "third": "unstructured:0.5",
    "tile": "2:4t",
    "*": "1:4",
}


class Conv1D(nn.Module):
    """A weight whose first dimension is the input."""

    def __init__(self) -> None:
        super().__init__()
        self.nf = 12
        self.weight = nn.Parameter(torch.randn(20, 12) / 4)

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs @ self.weight


class Net(nn.Module):
    """Shards that end at tile borders (first), inside tiles (second, third), and along the input (fourth)."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.second, self.third = nn.Linear(8, 16), nn.Linear(16, 12), nn.Linear(12, 20)
        self.fourth, self.conv = Conv1D(), nn.Conv1d(12, 9, 1)
        self.row, self.tile = nn.Linear(9, 1), nn.Linear(9, 1)  # the second process has no part of these
        self.double()

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.third(self.second(self.first(inputs).tanh()).tanh()).tanh()
        outputs = self.conv(self.fourth(hidden).unsqueeze(-1)).squeeze(-1)
        return outputs + self.row(outputs) * self.tile(outputs)


def batch(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(8, 8, generator=generator).double(), torch.randn(8, 9, generator=generator).double()


def prepared(model: nn.Module, optimizer: Any = None) -> bs.Sparsifier:
    return bs.Sparsifier(PATTERNS, update_every=2, ignore=[]).prepare(model, optimizer)


def adamw(model: nn.Module) -> torch.optim.AdamW:
    return torch.optim.AdamW(model.parameters(), lr=0.05)


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    share: slice,
    *,
    steps: range = range(STEPS),
    parts: int = 1,
) -> None:
    for step in steps:
        inputs, targets = (tensor[share] for tensor in batch(step))
        optimizer.zero_grad()
        size = len(inputs) // parts
        for part in range(parts):
            waits = part < parts - 1 and hasattr(model, "no_sync")
            with model.no_sync() if waits else nullcontext():
                chosen = slice(part * size, (part + 1) * size)
                (nn.functional.mse_loss(model(inputs[chosen]), targets[chosen]) / parts).backward()
        optimizer.step()


def result(model: nn.Module, sparse: bs.Sparsifier) -> dict[str, Any]:
    """Whole weights and masks, gathered where they are divided."""
    values, masks, dense = {}, {}, {}
    for name, weight in sparse.weights.items():
        sharding = weight.sharding
        whole = (lambda t: t) if sharding is None else sharding.gather
        values[name] = whole(weight.values).clone()
        masks[name] = whole(weight.mask.byte()).bool()
        dense[name] = whole(weight.values + weight.hidden).clone()
    figures = {k: v for k, v in sparse.metrics().items() if "second" not in k and "share" not in k}
    return {"values": values, "masks": masks, "dense": dense, "metrics": figures}


def plain(share: slice = slice(None)) -> dict[str, Any]:
    """One process, the joined batch."""
    model = Net()
    optimizer = adamw(model)
    sparse = prepared(model, optimizer)
    train(model, optimizer, share)
    return result(model, sparse)


def share_of(rank: int) -> slice:
    return slice(4 * rank, 4 * rank + 4)


def ddp(rank: int, folder: Path, *, after: bool, parts: int = 1) -> dict[str, Any]:
    model = Net()
    if after:
        wrapped = DistributedDataParallel(model)
        optimizer = adamw(wrapped)
        sparse = prepared(wrapped, optimizer)
    else:
        sparse = prepared(model)
        wrapped = DistributedDataParallel(model)
        optimizer = adamw(wrapped)
        sparse.attach(optimizer)
    train(wrapped, optimizer, share_of(rank), parts=parts)
    return result(model, sparse)


def ddp_decay(rank: int, folder: Path) -> dict[str, Any]:
    """The term is added once, not once for each process."""
    torch.manual_seed(0)
    model = DistributedDataParallel(nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8)).double())
    optimizer = sgd(model)
    dropped = Dropped(sparsifier().prepare(model, optimizer))
    for _ in range(3):
        optimizer.zero_grad()
        with model.no_sync():
            silent_loss(model).backward()
        silent_loss(model).backward()
        optimizer.step()
    dropped.check(3)
    return {"checked": True}


def ddp_other_seeds(rank: int, folder: Path) -> dict[str, Any]:
    model = Net(seed=rank)
    sparse = prepared(model)
    wrapped = DistributedDataParallel(model)
    optimizer = adamw(wrapped)
    sparse.attach(optimizer)
    try:
        train(wrapped, optimizer, share_of(rank), steps=range(1))
    except ValueError as error:
        return {"error": str(error)}
    return {"error": ""}


def zero(rank: int, folder: Path) -> dict[str, Any]:
    """Optimizer state divided among processes (ZeRO stage 1)."""
    model = Net()
    wrapped = DistributedDataParallel(model)
    optimizer = ZeroRedundancyOptimizer(wrapped.parameters(), torch.optim.AdamW, lr=0.05)
    sparse = prepared(wrapped, optimizer)
    train(wrapped, optimizer, share_of(rank))
    return result(model, sparse)
