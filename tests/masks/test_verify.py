from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_program import solve_matrix
from torch import Tensor

from bisparse.masks import chunks
from bisparse.masks.approximate import solve_flow
from bisparse.masks.bound import dual_bound, largest_sum, row_bound
from bisparse.masks.result import Duals
from bisparse.masks.verify import verify_mask
from bisparse.pattern import NM, TransposableNM, Unstructured, parse_pattern

# Two strong entries in every row and column: the optimum of 2:4t by eye. u = 2, v = 0 proves it.
SCORES = torch.tensor(
    [
        [4.0, 3.0, 1.0, 0.0],
        [3.0, 4.0, 0.0, 1.0],
        [0.0, 1.0, 4.0, 3.0],
        [1.0, 0.0, 3.0, 4.0],
    ]
)
MASK = SCORES > 2.0
PROOF = Duals(rows=torch.full((4, 1), 2.0), columns=torch.zeros(1, 4))


def transposable_cases() -> st.SearchStrategy[tuple[TransposableNM, int, int, int]]:
    return st.tuples(
        st.sampled_from(["2:4t", "1:4t", "3:4t", "4:8t", "2:8t", "6:8t", "1:2t", "3:5t"]),
        st.integers(1, 11),
        st.integers(1, 11),
        st.integers(0, 2**31),
    ).map(lambda case: (TransposableNM(*map(int, case[0][:-1].split(":"))), *case[1:]))


def gaussian(rows: int, columns: int, seed: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)).abs()


def test_a_proven_optimum() -> None:
    result = verify_mask(MASK, "2:4t", scores=SCORES, duals=PROOF)
    assert result.feasible
    assert result.optimal
    assert (result.objective, result.bound, result.gap, result.density) == (28.0, 28.0, 0.0, 0.5)
    assert result.violations == ()


def test_numpy_and_other_dtypes() -> None:
    for scores in (SCORES.numpy(), SCORES.half(), SCORES.bfloat16(), SCORES.to(torch.int64)):
        assert verify_mask(MASK.numpy(), "2:4t", scores=scores, duals=PROOF).optimal


def test_without_proof_nothing_is_claimed() -> None:
    result = verify_mask(MASK, "2:4t", scores=SCORES)
    assert result.feasible
    assert not result.optimal
    assert result.gap == result.bound == math.inf
    bare = verify_mask(MASK, "2:4t")
    assert bare.feasible
    assert math.isnan(bare.objective)
    assert not bare.optimal


def test_a_suboptimal_mask_is_not_optimal() -> None:
    swapped = MASK.clone()
    swapped[0], swapped[2] = MASK[2], MASK[0]
    result = verify_mask(swapped, "2:4t", scores=SCORES, duals=PROOF)
    assert result.feasible
    assert not result.optimal
    assert result.gap == pytest.approx((28.0 - 16.0) / 16.0)


def test_a_moved_entry_is_named() -> None:
    mask = MASK.clone()
    mask[2, 2], mask[2, 0] = False, True
    result = verify_mask(mask, "2:4t", scores=SCORES, duals=PROOF)
    assert not result.feasible
    assert not result.optimal
    assert result.gap == math.inf
    assert result.violations == (
        "2 columns of tiles break 2:4t; the first: column 0, rows 0..3 keep 3, must keep exactly 2",
    )


def test_a_missing_entry_is_named_in_row_and_column() -> None:
    masks = torch.stack([MASK, MASK]).repeat(1, 2, 3)
    masks[1, 5, 9] = False
    rows, columns = verify_mask(masks, "2:4t").violations
    assert rows.endswith("the first: matrix 1, row 5, columns 8..11 keep 1, must keep exactly 2")
    assert columns.endswith("the first: matrix 1, column 9, rows 4..7 keep 1, must keep exactly 2")


def test_tiles_cut_by_the_edge_may_stay_short_but_not_exceed() -> None:
    assert verify_mask(torch.zeros(3, 3, dtype=torch.bool), "2:4t").feasible
    full = torch.ones(2, 3, dtype=torch.bool)
    (message,) = verify_mask(full, "2:4t").violations
    assert "2 rows of tiles" in message
    assert "row 0, columns 0..2 keep 3, must keep at most 2" in message
    assert not verify_mask(torch.zeros(4, 4, dtype=torch.bool), "2:4t").feasible


def test_row_wise_patterns() -> None:
    mask = torch.tensor([[1, 1, 0, 0, 1], [0, 1, 1, 0, 0]]).bool()
    scores = torch.tensor([[3.0, 2.0, 1.0, 0.0, 7.0], [1.0, 5.0, 4.0, 0.0, 0.0]])
    result = verify_mask(mask, "2:4", scores=scores)
    assert result.optimal
    assert result.bound == 21.0
    worse = verify_mask(mask, "2:4", scores=scores.flip(0))
    assert worse.feasible
    assert not worse.optimal
    mask[1, 0] = True
    (message,) = verify_mask(mask, "2:4", scores=scores).violations
    assert message == "1 row groups break 2:4; the first: row 1, columns 0..3 keep 3, must keep exactly 2"
    assert verify_mask(mask[:, :2], "2:4").feasible


def test_unstructured_patterns() -> None:
    scores = torch.tensor([3.0, 1.0, 2.0, 2.0])
    best = verify_mask(torch.tensor([True, False, True, False]), "unstructured:0.5", scores=scores)
    assert best.optimal
    assert best.objective == best.bound == 5.0
    worse = verify_mask(torch.tensor([True, True, False, False]), "unstructured:0.5", scores=scores)
    assert worse.feasible
    assert not worse.optimal
    more = verify_mask(torch.ones(4, dtype=torch.bool), "unstructured:0.5", scores=scores)
    assert more.violations == ("4 entries are kept, but unstructured:0.5 keeps exactly 2",)


@given(transposable_cases())
@settings(deadline=None, max_examples=40)
def test_linear_programming_proves_the_flow_mask(case: tuple[TransposableNM, int, int, int]) -> None:
    pattern, rows, columns, seed = case
    scores = gaussian(rows, columns, seed)
    optimum, duals = solve_matrix(scores, pattern)
    mask = solve_flow(scores[None], pattern)[0]
    result = verify_mask(mask, pattern, scores=scores, duals=duals)
    assert result.optimal
    assert result.objective == pytest.approx(optimum, rel=1e-9)


@given(transposable_cases(), st.floats(-2.0, 2.0), st.floats(-2.0, 2.0))
@settings(deadline=None, max_examples=40)
def test_no_potentials_can_prove_too_much(
    case: tuple[TransposableNM, int, int, int], shift: float, tilt: float
) -> None:
    """Any admissible potentials, however tampered with, bound the true optimum from above."""
    pattern, rows, columns, seed = case
    scores = gaussian(rows, columns, seed)
    optimum, duals = solve_matrix(scores, pattern)
    noise = torch.randn(duals.rows.shape, generator=torch.Generator().manual_seed(seed + 1))
    tampered = Duals(duals.rows + shift + noise, duals.columns + tilt)
    mask = solve_flow(scores[None], pattern)[0]
    result = verify_mask(mask, pattern, scores=scores, duals=tampered)
    assert result.feasible
    assert result.bound >= optimum * (1.0 - 1e-12)


def test_tampered_potentials_are_rejected() -> None:
    broken = Duals(PROOF.rows.clone(), PROOF.columns.clone())
    broken.columns[0, 1] = math.nan
    result = verify_mask(MASK, "2:4t", scores=SCORES, duals=broken)
    assert not result.optimal
    assert result.violations == ("duals.columns are not finite",)
    moved = Duals(PROOF.rows + torch.tensor([[0.0], [0.0], [3.0], [0.0]]), PROOF.columns)
    assert not verify_mask(MASK, "2:4t", scores=SCORES, duals=moved).optimal
    shifted = Duals(PROOF.rows - 1.0, PROOF.columns + 1.0)  # the same sums u + v, hence the same proof
    assert verify_mask(MASK, "2:4t", scores=SCORES, duals=shifted).optimal


@pytest.mark.parametrize("offset", [1e9, 1e16, 1e30, 1e308])
def test_potentials_that_drown_the_scores_prove_nothing(offset: float) -> None:
    # In exact arithmetic an offset of u against v cancels; in float64 the scores vanish in it.
    worst = ~MASK
    assert verify_mask(worst, "2:4t", scores=SCORES).feasible
    rows = torch.full((4, 1), offset, dtype=torch.float64)
    huge = Duals(rows, -rows.T)
    result = verify_mask(worst, "2:4t", scores=SCORES, duals=huge)
    assert result.bound >= 28.0
    assert not result.optimal


def test_negative_potentials_prove_nothing_in_cut_tiles() -> None:
    # Keeping nothing is allowed in a 3 x 3 corner, and negative potentials would "prove" a bound below the
    # optimum.
    scores = torch.zeros(3, 3)
    scores[0, 0] = 1.0
    mask = torch.zeros(3, 3, dtype=torch.bool)
    below = Duals(torch.full((3, 1), -1.0), torch.zeros(1, 3))
    result = verify_mask(mask, "2:4t", scores=scores, duals=below)
    assert result.feasible
    assert not result.optimal
    assert result.bound == math.inf
    assert "duals.rows are negative in tiles cut by the edge" in result.violations[0]


def test_negative_potentials_are_found_in_every_cut_tile() -> None:
    mask = torch.zeros(5, 6, dtype=torch.bool)
    mask[:4, :4] = MASK
    for row, column_tile in ((4, 0), (0, 1), (4, 1)):
        duals = Duals(torch.zeros(5, 2), torch.zeros(2, 6))
        duals.rows[row, column_tile] = -1e-9
        assert verify_mask(mask, "2:4t", scores=mask.float(), duals=duals).bound == math.inf
    for row_tile, column in ((1, 0), (0, 4), (1, 5)):
        duals = Duals(torch.zeros(5, 2), torch.zeros(2, 6))
        duals.columns[row_tile, column] = -1e-9
        assert verify_mask(mask, "2:4t", scores=mask.float(), duals=duals).bound == math.inf
    inside = Duals(torch.zeros(5, 2), torch.zeros(2, 6))
    inside.rows[0, 0], inside.columns[0, 0] = -1.0, -1.0
    assert math.isfinite(verify_mask(mask, "2:4t", scores=mask.float(), duals=inside).bound)


def test_wrong_inputs_are_explained() -> None:
    with pytest.raises(TypeError, match="must be boolean"):
        verify_mask(MASK.float(), "2:4t")
    with pytest.raises(ValueError, match="differ in shape"):
        verify_mask(MASK, "2:4t", scores=SCORES[:3])
    with pytest.raises(ValueError, match=r"duals.rows must have shape \(4, 1\) for 2:4t on this mask"):
        verify_mask(MASK, "2:4t", scores=SCORES, duals=Duals(torch.zeros(4, 2), torch.zeros(1, 4)))
    with pytest.raises(ValueError, match="only together with scores"):
        verify_mask(MASK, "2:4", scores=SCORES, duals=PROOF)
    with pytest.raises(ValueError, match="needs a mask of shape"):
        verify_mask(MASK[0], "2:4")
    bad = SCORES.clone()
    bad[3, 1] = -1.0
    with pytest.raises(ValueError, match=r"scores\[3, 1\] is -1.0"):
        verify_mask(MASK, "2:4t", scores=bad)
    bad[0, 2] = math.nan
    with pytest.raises(ValueError, match=r"scores\[0, 2\] is nan"):
        verify_mask(MASK, "2:4t", scores=bad)


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 4, 4), (2, 0, 3)])
@pytest.mark.parametrize("text", ["2:4t", "2:4", "unstructured:0.5"])
def test_empty_tensors_are_feasible(shape: tuple[int, ...], text: str) -> None:
    result = verify_mask(torch.zeros(shape, dtype=torch.bool), text, scores=torch.zeros(shape))
    assert result.feasible
    assert result.objective == 0.0
    assert result.density == 0.0


def test_empty_tensors_accept_empty_potentials() -> None:
    mask = torch.zeros(2, 0, 5, dtype=torch.bool)
    duals = Duals(torch.zeros(2, 0, 2), torch.zeros(2, 0, 5))
    assert verify_mask(mask, "2:4t", scores=mask.float(), duals=duals).optimal


@pytest.mark.parametrize("size", [1, 7, 40, 10**6])
def test_pieces_cover_everything_once(size: int) -> None:
    shape = torch.Size((3, 10, 5))
    seen = torch.zeros(shape, dtype=torch.int64)
    for band in chunks.bands(shape, 4, size):
        assert band.rows.start % 4 == 0
        seen[band.batch, band.rows] += 1
    assert bool((seen == 1).all())


def test_bounds_do_not_depend_on_the_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = gaussian(30, 27, 3).reshape(1, 30, 27)
    duals = Duals(torch.rand(1, 30, 4), torch.rand(1, 4, 27))
    pattern = TransposableNM(4, 8)

    def bounds() -> list[float]:
        return [dual_bound(scores, pattern, duals), row_bound(scores, NM(2, 4)), largest_sum(scores, 100)]

    whole = bounds()
    monkeypatch.setattr("bisparse.masks.bound.bands", lambda shape, block: chunks.bands(shape, block, 200))
    assert bounds() == pytest.approx(whole, rel=1e-14)
    top = scores.double().flatten().sort(descending=True).values[:100].sum()
    assert whole[2] == pytest.approx(float(top), rel=1e-14)


def test_ties_and_kept_all_in_the_unstructured_bound() -> None:
    scores = torch.tensor([[2.0, 2.0, 2.0, 1.0]], dtype=torch.bfloat16)
    assert largest_sum(scores, 2) == 4.0
    assert largest_sum(scores, 4) == 7.0
    assert largest_sum(scores, 0) == 0.0
    everything = verify_mask(torch.ones(1, 4, dtype=torch.bool), Unstructured(0.0), scores=scores)
    assert everything.optimal


def test_leading_dimensions_and_views() -> None:
    masks = torch.stack([MASK, MASK.flip(1)]).reshape(2, 1, 4, 4)
    scores = torch.stack([SCORES, SCORES.flip(1)]).reshape(2, 1, 4, 4)
    duals = Duals(torch.full((2, 1, 4, 1), 2.0), torch.zeros(2, 1, 1, 4))
    assert verify_mask(masks, "2:4t", scores=scores, duals=duals).optimal
    wide = torch.from_numpy(np.kron(np.ones((2, 3)), SCORES.numpy()))
    assert verify_mask((wide > 2.0).T, parse_pattern("2:4t"), scores=wide.T).feasible
