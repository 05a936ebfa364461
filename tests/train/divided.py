"""Scenarios in which each process holds a part of every weight."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from tests.train.setting import Dropped, sgd, sparsifier
from tests.train.two_processes import STEPS, Net, adamw, prepared, result, share_of, train
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import bisparse as bs


def sharded(model: Net) -> Net:
    for child in (model.first, model.second, model.third, model.fourth, model.conv, model.row, model):
        fully_shard(child)
    return model


def fsdp(rank: int, folder: Path, *, after: bool) -> dict[str, Any]:
    model = Net()
    if after:
        sharded(model)
        optimizer = adamw(model)
        sparse = prepared(model, optimizer)
    else:
        sparse = prepared(model)
        sharded(model)
        optimizer = adamw(model)
        sparse.attach(optimizer)
    train(model, optimizer, share_of(rank))
    return result(model, sparse)


def fsdp_decay(rank: int, folder: Path, *, after: bool) -> dict[str, Any]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8)).double()
    sparse = sparsifier()
    if not after:
        sparse.prepare(model)
    fully_shard(model)
    optimizer = sgd(model)
    sparse.prepare(model, optimizer) if after else sparse.attach(optimizer)
    dropped = Dropped(sparse)
    for _ in range(3):
        optimizer.zero_grad()
        silent_loss_of_output(model).backward()
        optimizer.step()
    dropped.check(3)
    return {"checked": True}


def silent_loss_of_output(model: nn.Module) -> Tensor:
    return model(torch.zeros(2, 8, dtype=torch.float64)).sum() * 0.0


def soft(rank: int, folder: Path, *, after: bool) -> dict[str, Any]:
    """Soft thresholds need potentials: each process has those of its rows, in both orders of preparing."""
    model = soft_network()
    sparse = bs.Sparsifier("2:4t", rule="s-ste", update_every=2)
    if not after:
        sparse.prepare(model)
    fully_shard(model)
    optimizer = adamw(model)
    sparse.prepare(model, optimizer) if after else sparse.attach(optimizer)
    train(model, optimizer, share_of(rank))
    return soft_result(sparse)


def soft_alone() -> dict[str, Any]:
    model = soft_network()
    optimizer = adamw(model)
    sparse = bs.Sparsifier("2:4t", rule="s-ste", update_every=2).prepare(model, optimizer)
    train(model, optimizer, slice(None))
    return soft_result(sparse)


def soft_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 9)).double()


def soft_result(sparse: bs.Sparsifier) -> dict[str, Any]:
    """What the forward pass sees, the mask, and all of W."""
    weight = sparse.weights["0.weight"]
    whole = (lambda t: t) if weight.sharding is None else weight.sharding.gather
    return {
        name: whole(tensor).clone()
        for name, tensor in (("shown", weight.values), ("mask", weight.mask.byte()), ("whole", weight.hidden))
    }


def soft_cut(rank: int, folder: Path) -> dict[str, Any]:
    """Tiles of 8 rows, of which each process would have 4."""
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 16))
    sparse = bs.Sparsifier("4:8t", rule="s-ste").prepare(model)
    fully_shard(model)
    try:
        sparse.attach(adamw(model))
    except ValueError as error:
        return {"error": str(error)}
    return {"error": ""}


def fsdp_checkpoint(rank: int, folder: Path) -> dict[str, Any]:
    """Save after half of the steps; a new model loads it and goes on; both end alike."""
    model = sharded(Net())
    optimizer = adamw(model)
    sparse = prepared(model, optimizer)
    train(model, optimizer, share_of(rank), steps=range(3))
    dcp.save(together(model, optimizer, sparse), checkpoint_id=folder / "checkpoint")
    train(model, optimizer, share_of(rank), steps=range(3, STEPS))

    other = sharded(Net(seed=1))
    again = adamw(other)
    resumed = prepared(other, again)
    state = together(other, again, resumed)
    dcp.load(state, checkpoint_id=folder / "checkpoint")
    resumed.load_state_dict(state["sparsifier"])
    set_state_dict(other, again, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
    train(other, again, share_of(rank), steps=range(3, STEPS))
    return {"through": result(model, sparse), "resumed": result(other, resumed)}


def together(model: nn.Module, optimizer: torch.optim.Optimizer, sparse: bs.Sparsifier) -> dict[str, Any]:
    """All three states; that of a new optimizer is made by a step with zeros, which must not count as one."""
    states = dict(zip(("model", "optimizer"), get_state_dict(model, optimizer), strict=True))
    return {**states, "sparsifier": sparse.state_dict(compact=False)}


def fsdp_from_plain_state(rank: int, folder: Path) -> dict[str, Any]:
    """What one process saved after half of the steps goes on divided."""
    alone = Net()
    optimizer = adamw(alone)
    sparse = prepared(alone, optimizer)
    train(alone, optimizer, slice(None), steps=range(3))
    model = Net(seed=1)
    model.load_state_dict(alone.state_dict())
    sharded(model)
    other = adamw(model)
    resumed = prepared(model, other)
    resumed.load_state_dict(sparse.state_dict())
    return {"alone": result(alone, sparse), "divided": result(model, resumed)}


def hybrid(rank: int, folder: Path) -> dict[str, Any]:
    """A mesh of two dimensions: copies along one, parts along the other."""
    model = Net()
    mesh = init_device_mesh("cpu", (1, 2), mesh_dim_names=("copies", "parts"))
    sparse = prepared(model)
    fully_shard(model, mesh=mesh)
    optimizer = adamw(model)
    sparse.attach(optimizer)
    train(model, optimizer, share_of(rank))
    return result(model, sparse)


def tensor_parallel(rank: int, folder: Path) -> dict[str, Any]:
    """Rows of one weight and columns of the next on each process; both see the whole batch."""
    model = Net()
    mesh = init_device_mesh("cpu", (2,))
    parallelize_module(model, mesh, {"first": ColwiseParallel(), "second": RowwiseParallel()})
    optimizer = adamw(model)
    optimizer.defaults["foreach"] = optimizer.param_groups[0]["foreach"] = False
    sparse = prepared(model, optimizer)
    train(model, optimizer, slice(None), steps=range(3))
    sparse.load_state_dict(sparse.state_dict())
    train(model, optimizer, slice(None), steps=range(3, STEPS))
    return result(model, sparse)
