"""A way of one's own to choose masks is one small class: here RigL in twenty lines."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import bisparse as bs
from bisparse.pattern import Pattern
from bisparse.train import Schedule, Topology
from bisparse.train.masked_weight import MaskedWeight
from bisparse.train.topology import Chosen, Projection


class RigL(Topology):
    """Drop the smallest of the kept weights, grow where the dense gradient is largest; new weights start at 0."""

    def look_(self, weight: MaskedWeight, *, due: bool, scale: Tensor | None = None) -> None:
        if due and weight.gradient is not None:
            weight.extra["gradient"] = weight.gradient.abs()

    def choose(self, weight: MaskedWeight, pattern: Pattern | None) -> Chosen:
        if not weight.refreshes or pattern is None:
            return Projection().choose(weight, pattern)
        kept = int(weight.mask.sum())
        swapped = kept // 4
        scores = (weight.values.abs() + 1e-9) * weight.mask
        mask = torch.zeros_like(weight.mask).flatten()
        mask[scores.flatten().topk(kept - swapped).indices] = True
        growth = weight.extra.pop("gradient").flatten().masked_fill(mask, -1.0)
        mask[growth.topk(swapped).indices] = True
        return Chosen(mask.reshape(weight.mask.shape))

    def settle_(self, weight: MaskedWeight, old: Tensor, new: Tensor, optimizer: object) -> None:
        grown = new & ~old
        weight.values.masked_fill_(grown | ~new, 0.0)
        if isinstance(optimizer, torch.optim.Optimizer):
            for state in optimizer.state[weight.parameter].values():
                if isinstance(state, Tensor) and state.shape == grown.shape:
                    state.masked_fill_(grown, 0.0)


def test_rigl() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(8, 8, bias=False)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    sparse = bs.Sparsifier(
        "unstructured:0.75", rule="hard", topology=RigL(), schedule=Schedule(every=2), ignore=[]
    ).prepare(layer, optimizer)
    first = sparse.masks["weight"].clone()
    gradient = torch.randn(8, 8)
    for step in range(2):
        layer.weight.grad = gradient.clone()
        before = layer.weight.detach().clone()
        optimizer.step()
        assert step == 1 or torch.equal(sparse.masks["weight"], first)
    mask = sparse.masks["weight"]
    grown = mask & ~first
    assert int(mask.sum()) == 16
    assert int(grown.sum()) > 0
    assert not layer.weight.detach()[grown].any()
    assert not optimizer.state[layer.weight]["momentum_buffer"][grown].any()
    assert not sparse.weights["weight"].hidden.any()
    survivors = mask & first
    assert (layer.weight.detach() != before)[survivors].all()
    candidates = gradient.abs().masked_fill(survivors, -1.0)
    assert set(grown.flatten().nonzero().flatten().tolist()) <= set(
        candidates.flatten().topk(4).indices.tolist()
    )


def test_projection_is_the_default_and_its_settings_are_the_sparsifier_s() -> None:
    sparse = bs.Sparsifier("2:4t", method="greedy", hysteresis=0.5, average=0.9)
    assert sparse.topology == Projection("greedy", 0.5, 0.9)


def test_approximate_methods_choose_masks_too() -> None:
    model = nn.Linear(16, 16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparse = bs.Sparsifier("2:4t", method="greedy", update_every=1, ignore=[]).prepare(model, optimizer)
    model(torch.randn(4, 16)).square().mean().backward()
    optimizer.step()
    greedy = bs.solve_mask(
        sparse.weights["weight"].values + sparse.weights["weight"].hidden,
        "2:4t",
        method="greedy",
        magnitude=True,
    )
    assert torch.equal(sparse.masks["weight"], greedy.mask)
