"""Scenarios of trained thresholds in two processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.train.two_processes import Net, adamw, result, share_of, train
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import bisparse as bs
from bisparse.train import Dst
from bisparse.train.thresholds import Target

PATTERNS = {"second": "2:4t", "*": "unstructured:0"}


def thresholded(model: nn.Module, optimizer: Any = None) -> bs.Sparsifier:
    rule = Dst(alpha=0.02, start=0.1, target=Target(0.4))
    return bs.Sparsifier(PATTERNS, rule=rule, update_every=2, ignore=[]).prepare(model, optimizer)


def outcome(model: nn.Module, sparse: bs.Sparsifier) -> dict[str, Any]:
    thresholds = {name: w.learned["threshold"].detach().clone() for name, w in sparse.weights.items()}
    return result(model, sparse) | {"thresholds": thresholds}


def alone() -> dict[str, Any]:
    model = Net()
    optimizer = adamw(model)
    sparse = thresholded(model, optimizer)
    train(model, optimizer, slice(None))
    return outcome(model, sparse)


def together(rank: int, folder: Path) -> dict[str, Any]:
    model = DistributedDataParallel(Net())
    optimizer = adamw(model)
    sparse = thresholded(model, optimizer)
    train(model, optimizer, share_of(rank), parts=2)
    return outcome(model, sparse)


def divided(rank: int, folder: Path) -> dict[str, Any]:
    """Refused, before and after the weights are divided."""
    model = Net()
    sparse = thresholded(model)
    fully_shard(model)
    return {"errors": [refused(lambda: sparse.attach(adamw(model))), refused(lambda: thresholded(model))]}


def refused(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except ValueError as error:
        return str(error)
    return ""
