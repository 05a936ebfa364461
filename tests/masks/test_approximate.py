from __future__ import annotations

import builtins
from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_program import solve_matrix
from torch import Tensor

from bisparse.masks.approximate import (
    EntropicSetting,
    solve_entropic,
    solve_flow,
    solve_greedy,
    solve_two_approx,
    tuned_setting,
)
from bisparse.masks.tiles import TileGrid, by_tiles
from bisparse.masks.verify import verify_mask
from bisparse.pattern import TransposableNM, parse_pattern

Solver = Callable[[Tensor, TransposableNM], Tensor]

FILLING: dict[str, Solver] = {"greedy": solve_greedy, "entropic": solve_entropic, "flow": solve_flow}
SHORT: dict[str, Solver] = {
    "greedy walk": partial(solve_greedy, repair=False),
    "two_approx": solve_two_approx,
}
PATTERNS = ["2:4t", "1:4t", "3:4t", "4:8t", "2:8t", "6:8t", "3:5t", "8:16t", "1:2t", "1:8t", "7:8t"]

# Best pairs by eye: the two strong entries of every row and column.
EASY = torch.tensor(
    [
        [4.0, 3.0, 1.0, 0.0],
        [3.0, 4.0, 0.0, 1.0],
        [0.0, 1.0, 4.0, 3.0],
        [1.0, 0.0, 3.0, 4.0],
    ]
)


def transposable(text: str) -> TransposableNM:
    pattern = parse_pattern(text)
    assert isinstance(pattern, TransposableNM)
    return pattern


def make_scores(kind: str, shape: tuple[int, ...], seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(shape, generator=generator).abs()
    share = torch.rand(shape, generator=generator)
    if kind == "sparse":
        return scores * (share > 0.8)
    if kind == "ties":
        return (3.0 * share).floor()
    if kind == "scales":
        return scores * 10.0 ** (24.0 * share - 12.0)
    if kind == "zeros":
        return torch.zeros(shape)
    return scores


cases = st.fixed_dictionaries(
    {
        "text": st.sampled_from(PATTERNS),
        "kind": st.sampled_from(["gaussian", "sparse", "ties", "scales", "zeros"]),
        "shape": st.tuples(st.integers(1, 3), st.integers(0, 20), st.integers(0, 20)),
        "seed": st.integers(0, 2**31),
        "dtype": st.sampled_from([torch.float32, torch.float64]),
    }
)


def kept_score(mask: Tensor, scores: Tensor) -> float:
    return float((scores.double() * mask).sum())


@pytest.mark.parametrize("name", FILLING)
@given(case=cases)
@settings(deadline=None, max_examples=30)
def test_masks_are_feasible(name: str, case: dict[str, object]) -> None:
    pattern = transposable(str(case["text"]))
    scores = make_scores(case["kind"], case["shape"], case["seed"]).to(case["dtype"])  # type: ignore[arg-type]
    mask = FILLING[name](scores, pattern)
    result = verify_mask(mask, pattern)
    assert mask.shape == scores.shape
    assert result.feasible, result.violations


@pytest.mark.parametrize("name", SHORT)
@given(case=cases)
@settings(deadline=None, max_examples=30)
def test_lines_never_exceed(name: str, case: dict[str, object]) -> None:
    pattern = transposable(str(case["text"]))
    scores = make_scores(case["kind"], case["shape"], case["seed"]).to(case["dtype"])  # type: ignore[arg-type]
    tiles = TileGrid(*scores.shape, pattern.block).split(SHORT[name](scores, pattern)).int()
    assert bool((tiles.sum(1) <= pattern.keep).all())
    assert bool((tiles.sum(2) <= pattern.keep).all())


@given(
    st.sampled_from(PATTERNS[:7]),
    st.integers(1, 13),
    st.integers(1, 13),
    st.integers(0, 2**31),
    st.booleans(),
)
@settings(deadline=None, max_examples=40)
def test_flow_is_optimal_by_linear_programming(
    text: str, rows: int, columns: int, seed: int, sparse: bool
) -> None:
    pattern = transposable(text)
    scores = make_scores("sparse" if sparse else "gaussian", (rows, columns), seed)
    optimum, _ = solve_matrix(scores, pattern)
    mask = solve_flow(scores[None], pattern)[0]
    assert kept_score(mask, scores) == pytest.approx(optimum, rel=1e-9, abs=1e-12)


@given(
    st.sampled_from(PATTERNS),
    st.sampled_from(["gaussian", "sparse", "ties", "scales"]),
    st.integers(0, 2**31),
)
@settings(deadline=None, max_examples=40)
def test_bounds_of_the_literature(text: str, kind: str, seed: int) -> None:
    """Greedy keeps at least half; row and column top prune at most twice as much as needed."""
    pattern = transposable(text)
    scores = make_scores(kind, (1, 2 * pattern.block + 3, pattern.block + 1), seed).double()
    best = kept_score(solve_flow(scores, pattern), scores)
    total = float(scores.sum())
    slack = 1e-9 * total
    walk = solve_greedy(scores, pattern, repair=False)
    assert kept_score(walk, scores) >= 0.5 * best - slack
    pruned = total - kept_score(solve_two_approx(scores, pattern), scores)
    assert pruned <= 2.0 * (total - best) + slack


def test_greedy_reaches_only_half_at_worst() -> None:
    scores = torch.tensor([[[1.0, 0.999], [0.999, 0.0]]])
    pattern = transposable("1:2t")
    assert kept_score(solve_greedy(scores, pattern), scores) == 1.0
    assert kept_score(solve_flow(scores, pattern), scores) == pytest.approx(1.998)


@pytest.mark.parametrize("name", [*FILLING, *SHORT])
def test_an_easy_tile_by_eye(name: str) -> None:
    solver = {**FILLING, **SHORT}[name]
    assert torch.equal(solver(EASY[None], transposable("2:4t"))[0], EASY > 2.0)


def test_the_walk_takes_what_is_left_by_eye() -> None:
    # 1:3t: 9 and 8 on the diagonal block every 7, 6 and 5; only the zero in the corner still fits.
    scores = torch.tensor([[[9.0, 7.0, 6.0], [7.0, 8.0, 5.0], [6.0, 5.0, 0.0]]])
    expected = torch.eye(3, dtype=torch.bool)
    assert torch.equal(solve_greedy(scores, transposable("1:3t"))[0], expected)


def test_repair_swaps_where_no_free_crossing_is_left() -> None:
    pattern = transposable("2:3t")
    # 9, 8, 7, 6 fill rows 0 and 1 and columns 0 and 1; then only the 5 in the corner fits.
    blocked = torch.tensor([[[9.0, 8.0, 1.0], [7.0, 6.0, 2.0], [3.0, 0.5, 5.0]]])
    short = solve_greedy(blocked, pattern, repair=False)
    assert torch.equal(short[0], torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]]).bool())
    # Row 2 and column 2 miss one each, and (2, 2) is kept. The best swap drops (1, 0) = 7 for (2, 0) = 3 and
    # (1, 2) = 2: loss 2; the others lose 4.5 (drop (0, 1)), 5 (drop (0, 0)) and 3.5 (drop (1, 1)).
    repaired = solve_greedy(blocked, pattern)
    assert torch.equal(repaired[0], torch.tensor([[1, 1, 0], [0, 1, 1], [1, 0, 1]]).bool())


@pytest.mark.parametrize("text", ["2:4t", "4:8t", "8:16t", "16:32t"])
def test_the_tuned_entropic_setting_loses_at_most_a_thousandth(text: str) -> None:
    pattern = transposable(text)
    scores = make_scores("gaussian", (1, 320, 320), 11)
    best = kept_score(solve_flow(scores, pattern), scores)
    loss = 1.0 - kept_score(solve_entropic(scores, pattern), scores) / best
    assert 0.0 <= loss <= 1.1e-3  # 0.1% is the mean; this sample is small


@pytest.mark.parametrize(
    ("text", "greedy", "two_approx"),
    [("2:4t", 0.987, 0.89), ("4:8t", 0.990, 0.92), ("1:4t", 0.970, 0.73), ("6:8t", 0.996, 0.97)],
)
def test_quality_on_gaussian_scores(text: str, greedy: float, two_approx: float) -> None:
    pattern = transposable(text)
    scores = make_scores("gaussian", (1, 160, 160), 2)
    best = kept_score(solve_flow(scores, pattern), scores)
    assert kept_score(solve_greedy(scores, pattern), scores) > greedy * best
    assert kept_score(solve_two_approx(scores, pattern), scores) > two_approx * best
    assert solve_greedy(scores, pattern).float().mean() == pattern.density


def test_two_approx_prunes_too_much() -> None:
    scores = make_scores("gaussian", (1, 512, 512), 3)
    density = float(solve_two_approx(scores, transposable("4:8t")).float().mean())
    assert density == pytest.approx(0.405, abs=0.004)


def walk_up_and_prune(tile: Tensor, zeros: int) -> Tensor:
    """The paper's wording: walk up the scores, prune while the row or the column has too few zeros."""
    block = len(tile)
    kept = torch.ones_like(tile, dtype=torch.bool)
    rows, columns = [0] * block, [0] * block
    for index in tile.flatten().argsort().tolist():
        i, j = divmod(index, block)
        if rows[i] < zeros or columns[j] < zeros:
            kept[i, j] = False
            rows[i] += 1
            columns[j] += 1
    return kept


@given(st.sampled_from(["2:4t", "4:8t", "2:8t", "6:8t", "1:4t"]), st.integers(0, 2**31))
@settings(deadline=None, max_examples=30)
def test_two_approx_is_the_walk_of_the_paper(text: str, seed: int) -> None:
    pattern = transposable(text)
    tile = make_scores("gaussian", (pattern.block, pattern.block), seed)
    expected = walk_up_and_prune(tile, pattern.block - pattern.keep)
    assert torch.equal(solve_two_approx(tile[None], pattern)[0], expected)


@pytest.mark.parametrize("name", [*FILLING, *SHORT])
@pytest.mark.parametrize("text", ["1:4t", "2:8t", "6:8t", "8:16t"])
def test_one_tile_alone_equals_one_of_many(name: str, text: str) -> None:
    pattern = transposable(text)
    solver = {**FILLING, **SHORT}[name]
    scores = make_scores("gaussian", (23, pattern.block, pattern.block), 4)
    together = solver(scores, pattern)
    alone = torch.cat([solver(scores[i : i + 1], pattern) for i in range(len(scores))])
    assert torch.equal(together, alone)


@pytest.mark.parametrize("name", ["greedy", "two_approx", "flow", "entropic"])
def test_tiles_are_squares_of_the_matrix(name: str) -> None:
    """Not stretches of a flattened row: both the mask and its transpose obey the pattern."""
    pattern = transposable("4:8t")
    scores = make_scores("gaussian", (1, 24, 40), 5)
    mask = {**FILLING, **SHORT}[name](scores, pattern)
    flipped = {**FILLING, **SHORT}[name](scores.transpose(1, 2), pattern)
    for view in (mask[0], mask[0].T):
        assert bool((view.reshape(len(view), -1, 8).sum(2) <= 4).all())
    assert kept_score(flipped.transpose(1, 2), scores) == pytest.approx(kept_score(mask, scores), rel=5e-3)


def test_entropic_settings_are_checked() -> None:
    for bad in ((0.0, 10, 1.0), (10.0, 0, 1.0), (10.0, 10, 2.0)):
        with pytest.raises(ValueError, match="tau must be positive"):
            EntropicSetting(*bad)
    assert tuned_setting(8) == tuned_setting(5)


def test_more_entropic_effort_helps() -> None:
    pattern = transposable("4:8t")
    scores = make_scores("gaussian", (1, 128, 128), 6)
    quick = kept_score(solve_entropic(scores, pattern, setting=EntropicSetting(20.0, 3, 1.0)), scores)
    thorough = kept_score(solve_entropic(scores, pattern, setting=EntropicSetting(20.0, 150, 1.0)), scores)
    assert thorough > quick


def test_flow_without_or_tools_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def refuse(name: str, *args: object, **kwargs: object) -> object:
        if name.startswith("ortools"):
            raise ImportError(name)
        return real_import(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r'pip install "bisparse\[flow\]"'):
        solve_flow(EASY[None], transposable("2:4t"))


@given(st.integers(0, 3), st.integers(0, 9), st.integers(0, 9), st.integers(2, 5))
@settings(deadline=None)
def test_splitting_and_joining_are_inverse(batch: int, rows: int, columns: int, block: int) -> None:
    matrices = torch.arange(batch * rows * columns).reshape(batch, rows, columns)
    grid = TileGrid(batch, rows, columns, block)
    tiles = grid.split(matrices)
    assert tiles.shape == (batch * grid.down * grid.across, block, block)
    assert torch.equal(grid.join(tiles), matrices)
    assert int(grid.real().sum()) == matrices.numel()


def test_chunks_of_tiles_cannot_be_seen() -> None:
    scores = make_scores("gaussian", (2, 9, 14), 7)
    largest = partial(by_tiles, scores, 4, lambda tiles, real: tiles > tiles.mean((1, 2), keepdim=True))
    assert torch.equal(largest(), largest(chunk=1))
