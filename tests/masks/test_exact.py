"""The exact solver: small examples by eye, and the properties that define it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_program import solve_matrix
from torch import Tensor

import bisparse as bs
from bisparse import _core
from bisparse.masks.approximate import solve_flow
from bisparse.masks.exact import solve_exact

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int32]
PATTERNS = [
    "2:4t", "1:4t", "3:4t", "4:8t", "2:8t", "6:8t", "1:2t", "3:7t", "8:16t", "4:16t", "16:32t", "32:64t",
]  # fmt: skip
KINDS = ["gaussian", "heavy", "80% zeros", "95% zeros", "zero", "equal", "integers", "decades", "denormal"]


def draw(kind: str, shape: tuple[int, ...], seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    normal = torch.randn(shape, generator=random, dtype=torch.float64).abs()
    uniform = torch.rand(shape, generator=random, dtype=torch.float64)
    return {
        "gaussian": normal,
        "heavy": normal / (uniform + 1e-2),
        "80% zeros": normal * (uniform > 0.8),
        "95% zeros": normal * (uniform > 0.95),
        "zero": torch.zeros(shape, dtype=torch.float64),
        "equal": torch.full(shape, 3.0, dtype=torch.float64),
        "integers": (4 * uniform).floor(),
        "decades": 10 ** (24 * uniform - 12),
        "denormal": normal * 1e-41,
    }[kind].float()


def proved(scores: Tensor, pattern: str, **options: object) -> bs.MaskResult:
    """Solve, and check the result with the independent verifier."""
    result = bs.solve_mask(scores, pattern, return_duals=pattern.endswith("t"), **options)  # type: ignore[arg-type]
    found = bs.verify_mask(result.mask, pattern, scores=scores, duals=result.duals)
    assert found.feasible, found.violations
    assert found.optimal or result.objective == 0, found
    assert result.gap <= 1e-7
    assert result.objective == pytest.approx(found.objective, rel=1e-12)
    return result


def test_two_of_four_by_eye() -> None:
    # Rows 0, 1 want columns 0, 1 and rows 2, 3 want columns 2, 3: no conflict.
    scores = torch.tensor([[9, 8, 1, 0], [7, 9, 0, 1], [0, 1, 9, 8], [1, 0, 7, 9]])
    expected = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]).bool()
    assert torch.equal(proved(scores, "2:4t").mask, expected)


def test_greedy_is_not_optimal_where_exact_is() -> None:
    # Keeping the largest entry (10) forces out two nines: greedy gets 10 + 0, the optimum is 9 + 9.
    scores = torch.tensor([[10, 9], [9, 0]])
    assert bs.solve_mask(scores, "1:2t").objective == 18
    assert torch.equal(proved(scores, "1:2t").mask, torch.tensor([[False, True], [True, False]]))


def test_one_of_four_is_an_assignment() -> None:
    scores = torch.tensor([[1, 2, 3, 9], [9, 1, 2, 3], [3, 9, 1, 2], [2, 3, 9, 1]])
    expected = torch.tensor([[0, 0, 0, 1], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]).bool()
    assert torch.equal(proved(scores, "1:4t").mask, expected)


def test_three_of_four_drops_one_of_each_line() -> None:
    scores = torch.tensor([[0, 5, 5, 5], [5, 5, 0, 5], [5, 5, 5, 0], [5, 0, 5, 5]])
    assert torch.equal(proved(scores, "3:4t").mask, scores > 0)


def test_a_cut_tile_keeps_at_most_n() -> None:
    # 3 x 3 corner at 1:4t: the middle column holds the three best entries, but only one of them may stay.
    scores = torch.tensor([[1, 9, 0], [0, 8, 2], [3, 7, 1]])
    assert torch.equal(proved(scores, "1:4t").mask, torch.tensor([[0, 1, 0], [0, 0, 1], [1, 0, 0]]).bool())


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_score_is_solved_with_proof(pattern: str, kind: str) -> None:
    block = bs.parse_pattern(pattern).block  # type: ignore[union-attr]
    proved(draw(kind, (2 * block, 9 * block), 0), pattern)
    proved(draw(kind, (2 * block + 1, 3 * block - 1), 1), pattern)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(0, 40),
    columns=st.integers(0, 40),
    block=st.integers(2, 20),
    data=st.data(),
    dtype=st.sampled_from(DTYPES),
    kind=st.sampled_from(KINDS[:-1]),
)
def test_any_shape_pattern_and_dtype(
    rows: int, columns: int, block: int, data: st.DataObject, dtype: torch.dtype, kind: str
) -> None:
    keep = data.draw(st.integers(1, block - 1))
    suffix = data.draw(st.sampled_from(["", "t"]))
    scores = draw(kind, (rows, columns), rows).clamp(max=1e4).to(dtype)
    proved(scores, f"{keep}:{block}{suffix}")


@pytest.mark.parametrize("pattern", PATTERNS[:-1])
def test_the_objective_is_that_of_linear_programming(pattern: str) -> None:
    value = bs.parse_pattern(pattern)
    assert isinstance(value, bs.TransposableNM)
    shapes = [(value.block, value.block), (value.block + value.block // 2, value.block - 1)]
    for seed, (kind, shape) in enumerate((k, s) for k in KINDS[:7] for s in shapes):
        scores = draw(kind, shape, seed)
        best, _ = solve_matrix(scores, value)
        assert bs.solve_mask(scores, value).objective == pytest.approx(best, rel=1e-7, abs=1e-12)


@pytest.mark.parametrize("pattern", ["2:4t", "2:8t", "6:8t", "4:8t", "8:16t", "16:32t"])
def test_the_objective_is_that_of_minimum_cost_flow(pattern: str) -> None:
    value = bs.parse_pattern(pattern)
    assert isinstance(value, bs.TransposableNM)
    scores = draw("heavy", (70, 75), 5)
    mask = solve_flow(scores[None], value)[0]
    assert bs.solve_mask(scores, value).objective == pytest.approx(
        float(scores[mask].double().sum()), rel=1e-7
    )


@settings(max_examples=25, deadline=None)
@given(pattern=st.sampled_from(PATTERNS[:9]), kind=st.sampled_from(KINDS[:8]), seed=st.integers(0, 99))
def test_symmetries_keep_the_objective(pattern: str, kind: str, seed: int) -> None:
    value = bs.parse_pattern(pattern)
    assert isinstance(value, bs.TransposableNM)
    scores = draw(kind, (3 * value.block, 2 * value.block), seed)
    result = bs.solve_mask(scores, value)
    transposed = bs.solve_mask(scores.T, value)
    assert transposed.objective == pytest.approx(result.objective, rel=1e-7)
    assert bs.verify_mask(transposed.mask.T, value).feasible
    order = torch.randperm(value.block, generator=torch.Generator().manual_seed(seed))
    rows = torch.cat([order, torch.arange(value.block, 3 * value.block)])  # inside the first row of tiles
    assert bs.solve_mask(scores[rows], value).objective == pytest.approx(result.objective, rel=1e-7)
    assert bs.solve_mask(scores * 2**-20, value).objective == pytest.approx(
        result.objective * 2**-20, rel=1e-7
    )
    if kind == "gaussian":  # the optimum is unique
        assert torch.equal(transposed.mask.T, result.mask)
        assert torch.equal(bs.solve_mask(scores[rows], value).mask, result.mask[rows])
        assert torch.equal(bs.solve_mask(scores * 8, value).mask, result.mask)


@pytest.mark.parametrize("pattern", ["2:4t", "4:8t", "8:16t", "16:32t"])
def test_a_warm_start_changes_the_work_not_the_result(pattern: str) -> None:
    scores = draw("gaussian", (130, 260), 3)
    before = bs.solve_mask(scores, pattern, return_duals=True)
    moved = (scores + 1e-3 * draw("gaussian", (130, 260), 4)).abs()
    cold = bs.solve_mask(moved, pattern)
    warm = bs.solve_mask(moved, pattern, warm_start=before, return_duals=True)
    assert torch.equal(warm.mask, cold.mask)
    assert bs.verify_mask(warm.mask, pattern, scores=moved, duals=warm.duals).optimal
    assert bs.solve_mask(scores, pattern, warm_start=before.duals).rounds == 1
    far = bs.solve_mask(draw("heavy", (130, 260), 9), pattern, warm_start=before)
    assert far.objective == pytest.approx(
        bs.solve_mask(draw("heavy", (130, 260), 9), pattern).objective, rel=1e-7
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("pattern", ["1:4t", "2:4t", "4:8t", "3:7t", "16:32t"])
def test_a_warm_start_that_dwarfs_the_scores_does_no_harm(pattern: str, dtype: torch.dtype) -> None:
    # In s - v with such a v every score drowns in rounding: all masks would look alike.
    scores = draw("gaussian", (131, 257), 5).to(dtype)
    cold = bs.solve_mask(scores, pattern, return_duals=True)
    assert cold.duals is not None
    noise = torch.randn(cold.duals.columns.shape, generator=torch.Generator().manual_seed(0))
    for columns in (noise * 1e6, noise * 1e30, noise.sign() * 3e38):
        warm = proved(scores, pattern, warm_start=bs.Duals(cold.duals.rows, columns))
        assert warm.objective == pytest.approx(cold.objective, rel=1e-7)


@pytest.mark.parametrize("pattern", ["2:4t", "4:8t", "3:7t", "16:32t", "2:4", "5:9", "unstructured:0.7"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_do_not_depend_on_threads_or_instruction_set(pattern: str, dtype: torch.dtype) -> None:
    scores = (50 * draw("gaussian", (1, 260, 517), 7)).to(dtype)
    value = bs.parse_pattern(pattern)
    transposable = isinstance(value, bs.TransposableNM)
    reference = solve_exact(scores, value, threads=1, return_duals=transposable)
    assert reference is not None
    for name in _core.instruction_sets():
        for threads in (1, 2, 5):
            other = solve_exact(
                scores, value, threads=threads, return_duals=transposable, instruction_set=name
            )
            assert other is not None
            assert torch.equal(other.mask, reference.mask)
            assert (other.objective, other.bound, other.rounds, other.repaired_tiles) == (
                reference.objective,
                reference.bound,
                reference.rounds,
                reference.repaired_tiles,
            )
            if other.duals is not None and reference.duals is not None:
                assert torch.equal(other.duals.rows, reference.duals.rows)
                assert torch.equal(other.duals.columns, reference.duals.columns)


@pytest.mark.parametrize("pattern", ["2:4t", "4:8t", "2:4", "unstructured:0.5"])
def test_layout_in_memory_does_not_matter(pattern: str) -> None:
    base = draw("integers", (3, 24, 40), 8)
    expected = bs.solve_mask(base, pattern)
    spread = torch.zeros(3, 48, 120)
    spread[:, ::2, ::3] = base
    views = [
        spread[:, ::2, ::3],
        base.transpose(1, 2).contiguous().transpose(1, 2),
        base.permute(2, 1, 0).contiguous().permute(2, 1, 0),
        base.flip(1).flip(1),
    ]
    for view in views:
        result = bs.solve_mask(view, pattern)
        assert torch.equal(result.mask, expected.mask)
        assert result.objective == expected.objective
    assert torch.equal(bs.solve_mask(base.numpy()[:, ::-1][:, ::-1], pattern).mask, expected.mask)


def test_batched_matrices_are_solved_one_by_one() -> None:
    scores = draw("gaussian", (2, 3, 12, 20), 2)
    result = bs.solve_mask(scores, "4:8t", return_duals=True)
    assert result.mask.shape == scores.shape
    assert result.duals is not None
    assert result.duals.rows.shape == (2, 3, 12, 3)
    assert result.duals.columns.shape == (2, 3, 2, 20)
    for i in range(2):
        for j in range(3):
            assert torch.equal(result.mask[i, j], bs.solve_mask(scores[i, j], "4:8t").mask)


def test_row_wise_masks_keep_the_largest_and_prefer_the_lower_index() -> None:
    scores = torch.tensor([[1, 5, 3, 4, 2, 2, 2, 2, 7], [0, 0, 0, 0, 1, 0, 0, 1, 0]])
    expected = torch.tensor([[0, 1, 0, 1, 1, 1, 0, 0, 1], [1, 1, 0, 0, 1, 0, 0, 1, 1]]).bool()
    assert torch.equal(proved(scores, "2:4").mask, expected)


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("dtype", DTYPES)
def test_unstructured_masks_keep_the_largest_of_all(sparsity: float, dtype: torch.dtype) -> None:
    scores = (100 * draw("gaussian", (37, 211), 1)).to(dtype)
    result = proved(scores, f"unstructured:{sparsity}")
    kept = scores.numel() - round(sparsity * scores.numel())
    assert int(result.mask.sum()) == kept
    best = scores.double().flatten().sort(descending=True).values[:kept]
    assert result.objective == pytest.approx(float(best.sum()), rel=1e-12)


def test_ties_of_an_unstructured_mask_go_to_the_lower_index() -> None:
    scores = torch.tensor([[1.0, 2.0, 1.0], [1.0, 0.0, 1.0]])
    assert torch.equal(
        bs.solve_mask(scores, "unstructured:0.5").mask,
        torch.tensor([[True, True, True], [False, False, False]]),
    )


@pytest.mark.parametrize("pattern", ["2:4t", "8:16t", "2:4", "unstructured:0.5"])
def test_magnitude_equals_abs(pattern: str) -> None:
    weight = torch.randn(33, 50, generator=torch.Generator().manual_seed(0))
    fused = bs.solve_mask(weight, pattern, magnitude=True)
    plain = bs.solve_mask(weight.abs(), pattern)
    assert torch.equal(fused.mask, plain.mask)
    assert fused.objective == plain.objective


def test_zeros_are_spread_over_the_columns() -> None:
    # Were ties to pile up on the first columns, every tile would need dozens of augmenting paths.
    result = proved(draw("80% zeros", (320, 320), 6), "16:32t")
    assert result.repaired_tiles == 0
    assert torch.equal(proved(torch.zeros(64, 64), "4:8t").mask.sum(0), torch.full((64,), 32))


def test_flushing_denormals_in_the_caller_changes_nothing() -> None:
    scores = draw("denormal", (16, 16), 0)
    expected = bs.solve_mask(scores, "4:8t")
    torch.set_flush_denormal(True)
    try:
        again = bs.solve_mask(scores, "4:8t")
    finally:
        torch.set_flush_denormal(False)
    assert torch.equal(again.mask, expected.mask)
    assert again.objective == expected.objective


def test_a_sum_beyond_float64_proves_nothing() -> None:
    result = bs.solve_mask(torch.full((8, 8), 1.7e308, dtype=torch.float64), "4:8t", return_duals=True)
    assert torch.equal(result.mask.sum(0), torch.full((8,), 4))
    assert result.objective == result.gap == float("inf")
