"""Drop and grow inside tiles: N:M and transposable N:M patterns hold at every step, and the best that fits grows."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import bisparse as bs
from bisparse.pattern import parse_pattern
from bisparse.train import Fraction, RigL, Schedule, Set
from bisparse.train.topology.selection import completed
from bisparse.weights import Layout, as_matrices

LINEAR = Layout("linear")


def test_a_tile_by_eye() -> None:
    surviving = torch.tensor([[1, 0, 0, 0],
                              [0, 1, 0, 0],
                              [0, 0, 0, 1],
                              [0, 0, 0, 0]]).bool()  # fmt: skip
    growth = torch.tensor([[0, 9, 0, 1],
                           [8, 0, 1, 0],
                           [0, 0, 9, 0],
                           [0, 0, 5, 7]]).float()  # fmt: skip
    expected = torch.tensor([[1, 1, 0, 0],
                             [1, 1, 0, 0],
                             [0, 0, 1, 1],
                             [0, 0, 1, 1]]).bool()  # fmt: skip
    assert torch.equal(completed(surviving, growth, parse_pattern("2:4t"), LINEAR), expected)


def test_a_group_by_eye() -> None:
    surviving = torch.tensor([[True, False, False, False], [False, False, False, False]])
    growth = torch.tensor([[0.0, 0.1, 0.3, 0.2], [0.0, 0.0, 2.0, 1.0]])
    expected = torch.tensor([[True, False, True, False], [False, False, True, True]])
    assert torch.equal(completed(surviving, growth, parse_pattern("2:4"), LINEAR), expected)


def permutation_tiles() -> list[Tensor]:
    """All masks of 1:3t."""
    return [torch.eye(3)[list(order)].bool() for order in itertools.permutations(range(3))]


@settings(deadline=None)
@given(st.integers(0, 10**6))
def test_the_best_completion_of_a_small_tile_is_found(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    tiles = permutation_tiles()
    start = tiles[int(torch.randint(6, (1,), generator=generator))]
    surviving = start & (torch.rand(3, 3, generator=generator) > 0.5)
    growth = torch.rand(3, 3, generator=generator)
    found = completed(surviving, growth, parse_pattern("1:3t"), LINEAR)
    allowed = [tile for tile in tiles if not (surviving & ~tile).any()]
    best = max(float((growth * (tile & ~surviving)).sum()) for tile in allowed)
    assert not (surviving & ~found).any()
    assert float((growth * (found & ~surviving)).sum()) == pytest.approx(best, abs=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["2:4t", "4:8t", "1:4t", "6:8t", "8:16t", "2:4", "1:4"]),
    st.integers(0, 10**6),
    st.floats(0, 1),
)
def test_survivors_stay_and_line_sums_hold(text: str, seed: int, share: float) -> None:
    pattern, generator = parse_pattern(text), torch.Generator().manual_seed(seed)
    scores = torch.rand(2, 32, 48, generator=generator)
    old = bs.solve_mask(scores[0], pattern).mask
    surviving = old & (torch.rand(32, 48, generator=generator) >= share)
    new = completed(surviving, scores[1], pattern, LINEAR)
    assert not (surviving & ~new).any()
    assert bs.verify_mask(new, pattern).feasible
    assert new.sum() == old.sum()


class Model(nn.Sequential):
    """Linear and convolution, both ends of which tiles cut."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(nn.Conv2d(9, 12, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(192, 20))


def trained(pattern: str, topology: Any, steps: int, check: Any = None) -> bs.Sparsifier:
    model = Model()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    sparse = bs.Sparsifier(
        pattern, topology=topology, schedule=Schedule(every=2, freeze=20), ignore=[]
    ).prepare(model, optimizer)
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        optimizer.zero_grad()
        model(torch.randn(4, 9, 4, 4, generator=generator)).square().mean().backward()
        optimizer.step()
        if check is not None:
            check(sparse)
    return sparse


@pytest.mark.parametrize("pattern", ["2:4t", "4:8t", "2:4", "3:4"])
@pytest.mark.parametrize("topology", [Set(fraction=Fraction(0.5)), RigL(fraction=Fraction(0.5))])
def test_the_pattern_holds_at_every_step(pattern: str, topology: Any) -> None:
    def check(sparse: bs.Sparsifier) -> None:
        for weight in sparse.weights.values():
            mask = as_matrices(weight.mask, weight.layout)
            assert bs.verify_mask(mask, weight.pattern).feasible
            assert not weight.values[~weight.mask].any()

    sparse = trained(pattern, topology, 9, check)
    assert sparse.metrics()["sad"] > 0
    assert sparse.metrics()["explored"] > 1.2 * sparse.metrics()["density"]


def test_first_masks_in_tiles_are_random_and_obey() -> None:
    one, two = (trained("4:8t", Set(seed=seed), 0) for seed in (0, 1))
    for name, weight in one.weights.items():
        assert bs.verify_mask(as_matrices(weight.mask, weight.layout), "4:8t").feasible
        assert not torch.equal(weight.mask, two.masks[name])


def test_no_more_changes_than_the_fraction_allows() -> None:
    sparse = trained("4:8t", RigL(fraction=Fraction(0.2)), 2)
    for name, figures in sparse.metrics()["layers"].items():
        kept = int(sparse.masks[name].sum())
        assert 0 < figures["sad"] <= 2 * (kept // 5)
