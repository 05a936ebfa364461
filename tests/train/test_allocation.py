"""How many weights each layer keeps: exact totals, densities of at most 1, the published proportions."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import bisparse as bs
from bisparse.train import ErdosRenyi
from bisparse.train.allocation import ALLOCATIONS
from bisparse.train.allocation.counts import whole_counts
from bisparse.train.topology.selection import keeping


def convolutions() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3), nn.Conv2d(16, 16, 1), nn.Flatten(), nn.Linear(256, 10)
    )


def kept(model: nn.Module, pattern: str, **options: object) -> dict[str, int]:
    sparse = bs.Sparsifier(pattern, ignore=[], topology="static", **options).prepare(model)  # type: ignore[arg-type]
    counts = {name: int(mask.sum()) for name, mask in sparse.masks.items()}
    assert counts == {name: w.pattern.kept(w.mask.numel()) for name, w in sparse.weights.items()}  # type: ignore[union-attr]
    return counts


@pytest.mark.parametrize("name", ALLOCATIONS)
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.9, 0.99])
def test_the_total_is_exact_and_no_layer_is_overfull(name: str, sparsity: float) -> None:
    model = convolutions()
    sizes = {n: p.numel() for n, p in model.named_parameters() if p.dim() > 1}
    counts = kept(model, f"unstructured:{sparsity}", allocation=name)
    assert sum(counts.values()) == round((1 - sparsity) * sum(sizes.values()))
    assert all(1 <= counts[n] <= size for n, size in sizes.items())


def test_erk_is_proportional_where_no_layer_is_full() -> None:
    counts = kept(convolutions(), "unstructured:0.9", allocation="erk")
    raw = {
        "1.weight": (8 + 16 + 3 + 3) / (8 * 16 * 9),
        "4.weight": (256 + 10) / 2560,
        "2.weight": (16 + 16 + 1 + 1) / 256,
    }
    sizes = {"1.weight": 1152, "4.weight": 2560, "2.weight": 256}
    assert counts["0.weight"] < 216
    eps = counts["4.weight"] / (raw["4.weight"] * 2560)
    for name, size in sizes.items():
        assert counts[name] == pytest.approx(eps * raw[name] * size, abs=1.0)


def test_full_layers_are_dense_and_the_others_are_solved_for_again() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(400, 100))  # raw densities 0.5 and 0.0125
    counts = kept(model, "unstructured:0.95", allocation="er")
    assert counts == {"0.weight": 16, "1.weight": round(0.05 * 40016) - 16}


def test_eps_gives_the_published_counts() -> None:
    model = nn.Sequential(nn.Linear(784, 1000), nn.Linear(1000, 10))
    counts = kept(model, "unstructured:0", allocation=ErdosRenyi(eps=4))
    assert counts == {"0.weight": 4 * 1784, "1.weight": 4 * 1010}
    dense = kept(
        nn.Sequential(nn.Linear(784, 1000), nn.Linear(1000, 10)),
        "unstructured:0",
        allocation=ErdosRenyi(eps=20),
    )
    assert dense["1.weight"] == 10_000  # 20 * 1010 edges would be more than there are


def test_degrees_of_a_random_layer_lie_within_binomial_bounds() -> None:
    model = nn.Sequential(nn.Linear(400, 300))
    sparse = bs.Sparsifier("unstructured:0.9", ignore=[], topology="static").prepare(model)
    mask = sparse.masks["0.weight"].double()
    assert mask.sum() == 12_000
    for degrees, mean, deviation in ((mask.sum(1), 40.0, 6.0), (mask.sum(0), 30.0, 5.2)):
        assert degrees.mean() == pytest.approx(mean)
        assert (degrees - mean).abs().max() < 5 * deviation
        assert degrees.std() == pytest.approx(deviation, rel=0.2)


def test_other_patterns_keep_theirs() -> None:
    model = convolutions()
    sparse = bs.Sparsifier(
        {"4": "2:4t", "*": "unstructured:0.9"}, ignore=[], allocation="erk", topology="static"
    ).prepare(model)
    assert str(sparse.weights["4.weight"].pattern) == "2:4t"
    rest = [int(mask.sum()) for name, mask in sparse.masks.items() if name != "4.weight"]
    assert sum(rest) == round(0.1 * (216 + 1152 + 256))


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 500)), min_size=1, max_size=6))
def test_whole_counts_add_up(layers: list[tuple[float, int]]) -> None:
    densities, sizes = [d for d, _ in layers], [s for _, s in layers]
    total = max(round(sum(d * s for d, s in layers)), len(layers))
    counts = whole_counts(densities, sizes, total)
    assert sum(counts) == total
    assert all(1 <= count <= size for count, size in zip(counts, sizes, strict=True))


@settings(deadline=None)
@given(st.integers(1, 10**7), st.floats(0, 1))
def test_a_pattern_for_every_count(total: int, share: float) -> None:
    count = max(1, round(share * total))
    assert keeping(count, total).kept(total) == count


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"unknown allocation 'erdos'; choose one of uniform, er, erk"):
        bs.Sparsifier("unstructured:0.9", allocation="erdos")
    with pytest.raises(TypeError, match="allocation: expected a name or an object of Allocation"):
        bs.Sparsifier("unstructured:0.9", allocation=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the pattern is 2:4t, the same number in every tile"):
        bs.Sparsifier("2:4t", allocation="erk", ignore=[]).prepare(nn.Linear(8, 8))
    with pytest.raises(ValueError, match="both say how many weights stay: write unstructured:0 with eps"):
        bs.Sparsifier("unstructured:0.9", allocation=ErdosRenyi(eps=20), ignore=[]).prepare(nn.Linear(8, 8))
    with pytest.raises(ValueError, match="eps=0: must be positive"):
        ErdosRenyi(eps=0)
    with pytest.raises(ValueError, match="cannot keep 0 of 4 weights"):
        keeping(0, 4)
