"""Scenarios of two processes whose masks evolve: copies of the weights, parts of them, a divided optimizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from tests.train.divided import sharded
from tests.train.two_processes import STEPS, Net, adamw, result, share_of, train
from torch import nn
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel

import bisparse as bs
from bisparse.train import Fraction, RigL, Schedule, Set, Snfs

TOPOLOGIES: dict[str, Any] = {
    "set": Set(fraction=Fraction(0.5)),
    "rigl": RigL(fraction=Fraction(0.5), gradients=2),
    "snfs": Snfs(fraction=Fraction(0.5)),
    "tiles": RigL(fraction=Fraction(0.5)),
}


def evolving(model: nn.Module, name: str, optimizer: Any = None) -> bs.Sparsifier:
    return bs.Sparsifier(
        {"second": "4:8t", "*": "1:4"} if name == "tiles" else "unstructured:0.7",
        topology=TOPOLOGIES[name],
        allocation=None if name == "tiles" else "erk",
        schedule=Schedule(every=2, freeze=STEPS),
        ignore=[],
    ).prepare(model, optimizer)


def alone(name: str) -> dict[str, Any]:
    """One process, the joined batch."""
    model = Net()
    optimizer = adamw(model)
    sparse = evolving(model, name, optimizer)
    train(model, optimizer, slice(None))
    return result(model, sparse)


def ddp(name: str, rank: int, *, after: bool = False) -> dict[str, Any]:
    model = Net()
    sparse = None if after else evolving(model, name)
    wrapped = DistributedDataParallel(model)
    optimizer = adamw(wrapped)
    sparse = evolving(wrapped, name, optimizer) if sparse is None else sparse.attach(optimizer)
    train(wrapped, optimizer, share_of(rank))
    return result(model, sparse)


def zero(name: str, rank: int) -> dict[str, Any]:
    model = Net()
    wrapped = DistributedDataParallel(model)
    optimizer = ZeroRedundancyOptimizer(wrapped.parameters(), torch.optim.AdamW, lr=0.05)
    sparse = evolving(wrapped, name, optimizer)
    train(wrapped, optimizer, share_of(rank))
    return result(model, sparse)


def fsdp(name: str, rank: int, *, after: bool) -> dict[str, Any]:
    model = Net()
    sparse = None if after else evolving(model, name)
    sharded(model)
    optimizer = adamw(model)
    sparse = evolving(model, name, optimizer) if sparse is None else sparse.attach(optimizer)
    train(model, optimizer, share_of(rank))
    return result(model, sparse)


def fsdp_checkpoint(name: str, rank: int, folder: Path) -> dict[str, Any]:
    """Save while gradients are being collected; a new model loads it and goes on; both end alike."""
    model = sharded(Net())
    optimizer = adamw(model)
    sparse = evolving(model, name, optimizer)
    train(model, optimizer, share_of(rank), steps=range(3))
    saved = {"model": model.state_dict(), "sparsifier": sparse.state_dict(compact=False)}
    dcp.save(saved, checkpoint_id=folder / f"evolving {name}")
    inner = dict(optimizer.state_dict())
    inner["state"] = {k: {n: t.clone() for n, t in s.items()} for k, s in inner["state"].items()}
    train(model, optimizer, share_of(rank), steps=range(3, STEPS))

    other = sharded(Net(seed=1))
    again = adamw(other)
    resumed = evolving(other, name, again)
    train(other, again, share_of(rank), steps=range(3))  # the same form: gradients are being collected
    state = {"model": other.state_dict(), "sparsifier": resumed.state_dict(compact=False)}
    dcp.load(state, checkpoint_id=folder / f"evolving {name}")
    other.load_state_dict(state["model"])
    resumed.load_state_dict(state["sparsifier"])
    again.load_state_dict(inner)
    train(other, again, share_of(rank), steps=range(3, STEPS))
    return {"through": result(model, sparse), "resumed": result(other, resumed)}


SCENARIOS = {
    **{f"ddp {name}": lambda r, _, name=name: ddp(name, r) for name in TOPOLOGIES},
    "ddp rigl, prepared after": lambda r, _: ddp("rigl", r, after=True),
    "zero rigl": lambda r, _: zero("rigl", r),
    **{f"fsdp {name}": lambda r, _, name=name: fsdp(name, r, after=False) for name in TOPOLOGIES},
    **{
        f"fsdp {name}, prepared after": lambda r, _, name=name: fsdp(name, r, after=True)
        for name in TOPOLOGIES
    },
    "fsdp checkpoint rigl": lambda r, f: fsdp_checkpoint("rigl", r, f),
    "fsdp checkpoint snfs": lambda r, f: fsdp_checkpoint("snfs", r, f),
}
