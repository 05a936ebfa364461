from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bisparse.counting import count_at_most, count_equal, estimate_at_most, estimate_equal
from bisparse.diversity import (
    MaskDiversity,
    mask_diversity,
    paper_transposable_diversity,
    sequential_diversity,
)


def enumerate_matrices(rows: int, columns: int) -> list[tuple[list[int], list[int]]]:
    """All 0/1 matrices of a tiny size, as (row sums, column sums)."""
    lines = list(itertools.product((0, 1), repeat=columns))
    return [
        ([sum(line) for line in matrix], [sum(column) for column in zip(*matrix, strict=True)])
        for matrix in itertools.product(lines, repeat=rows)
    ]


@pytest.mark.parametrize(
    ("size", "keep", "count"),
    [
        (4, 1, 24),
        (4, 2, 90),
        (4, 3, 24),
        (8, 1, 40320),
        (8, 2, 187530840),
        (8, 3, 24046189440),
        (8, 4, 116963796250),
        (8, 6, 187530840),
        (5, 2, 2040),
        (16, 8, 34812290428176298285394893936773707951192224124239796250),
    ],
)
def test_known_counts_of_equal_line_sums(size: int, keep: int, count: int) -> None:
    assert count_equal(size, keep) == count


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4))
@settings(deadline=None, max_examples=40)
def test_at_most_counts_agree_with_enumeration(rows: int, columns: int, keep: int) -> None:
    sums = enumerate_matrices(rows, columns)
    expected = sum(max(*r, *c) <= keep for r, c in sums)
    assert count_at_most(rows, columns, keep) == expected


@pytest.mark.parametrize(("size", "keep"), [(4, 2), (8, 4), (8, 2), (11, 3), (14, 5)])
def test_closed_form_is_within_an_eighth_of_the_count(size: int, keep: int) -> None:
    ratio = 10 ** (estimate_equal(size, keep) - math.log10(count_equal(size, keep)))
    assert 0.87 < ratio < 1.0


@pytest.mark.parametrize(("rows", "columns", "keep"), [(3, 4, 2), (7, 8, 4), (15, 16, 2), (7, 8, 6)])
def test_at_most_estimate_is_close(rows: int, columns: int, keep: int) -> None:
    count = count_at_most(rows, columns, keep)
    assert count is not None
    assert 1.0 < 10 ** (estimate_at_most(rows, columns, keep) - math.log10(count)) < 1.5


def test_eight_by_eight_table() -> None:
    assert mask_diversity("unstructured:0.5", (8, 8)).exact == math.comb(64, 32)
    assert mask_diversity("4:8", (8, 8)).exact == 70**8
    assert mask_diversity("2:4", (8, 8)).exact == 6**16
    assert mask_diversity("1:2", (8, 8)).exact == 2**32
    assert mask_diversity("4:8t", (8, 8)).exact == 116963796250
    assert mask_diversity("2:4t", (8, 8)).exact == 90**4
    assert mask_diversity("1:2t", (8, 8)).exact == 2**16


def test_kept_and_zeros_count_alike() -> None:
    for text in ("2:8", "3:8", "1:4"):
        keep, block = map(int, text.split(":"))
        other = f"{block - keep}:{block}"
        for suffix in ("", "t"):
            assert mask_diversity(text + suffix, (16, 24)) == mask_diversity(other + suffix, (16, 24))


@given(st.sampled_from(["2:4t", "1:3t", "2:3t"]), st.integers(0, 5), st.integers(0, 5))
@settings(deadline=None)
def test_ragged_transposable_is_a_product_over_tiles(text: str, rows: int, columns: int) -> None:
    keep, block = int(text[0]), int(text[2])
    expected = 1
    for top, left in itertools.product(range(0, rows, block), range(0, columns, block)):
        r, c = min(block, rows - top), min(block, columns - left)
        whole = r == c == block
        expected *= count_equal(block, keep) if whole else count_at_most(r, c, keep) or 0
    result = mask_diversity(text, (rows, columns))
    assert result.exact == expected
    assert mask_diversity(text, (columns, rows)) == result


def test_ragged_rows_and_leading_dimensions() -> None:
    assert mask_diversity("1:4", (3, 6)).exact == (4 * (1 + 2)) ** 3  # the tail of 2 keeps none or one
    assert mask_diversity("2:4", (5,)).exact == 6 * 2
    assert mask_diversity("2:4t", (9, 4, 8)).exact == 90**18
    assert mask_diversity("2:4t", (3, 3, 4, 8)).exact == 90**18


def test_estimates_are_labelled() -> None:
    large = mask_diversity("16:32t", (32, 64))
    assert large.estimated
    assert large.exact is None
    assert large.log10 == pytest.approx(2 * estimate_equal(32, 16))
    assert "(estimate)" in str(large)
    assert mask_diversity("8:16t", (15, 15)).estimated
    assert not mask_diversity("4:8t", (15, 15)).estimated
    assert not mask_diversity("16:32t", (16, 100)).estimated  # no column can exceed 16


def test_long_integers_are_left_out_unless_asked_for() -> None:
    short = mask_diversity("2:4", (1024, 1024))
    assert short.exact is None
    assert not short.estimated
    full = mask_diversity("2:4", (1024, 1024), max_digits=10**6)
    assert full.exact == 6 ** (1024 * 256)
    assert full.log10 == pytest.approx(short.log10)
    assert repr(full) == repr(short)
    huge = mask_diversity("unstructured:0.5", (4096, 4096))
    assert huge.exact is None
    assert huge.log10 == pytest.approx(4096**2 * math.log10(2.0), rel=1e-6)


def test_empty_tensors_have_one_mask() -> None:
    for text in ("2:4", "2:4t", "unstructured:0.5"):
        assert mask_diversity(text, (0, 8)) == MaskDiversity(0.0, 1, estimated=False)


def test_sequential_zeros() -> None:
    assert sequential_diversity("2:4", (8, 8)).exact == 3**16
    assert sequential_diversity("4:8", (8, 8)).exact == 5**8
    assert sequential_diversity("1:4", (8, 8)).exact == 2**16
    assert sequential_diversity("2:4", (1, 7)).exact == 3 * 3  # a tail of 3 has one zero, in 3 places
    assert sequential_diversity("2:4", (1, 6)).exact == 3  # a tail of 2 stays whole


def test_the_papers_formula_overcounts() -> None:
    paper = paper_transposable_diversity("4:8t", (8, 8))
    assert 10**paper.log10 == pytest.approx(math.prod(map(math.factorial, (8, 7, 6, 5))))
    true = mask_diversity("4:8t", (8, 8))
    assert 10 ** (paper.log10 - true.log10) == pytest.approx(150.1, abs=0.1)
    assert 10 ** paper_transposable_diversity("2:4t", (4, 4)).log10 == pytest.approx(1.6 * 90)
    two_zeros, six_zeros = (paper_transposable_diversity(text, (8, 8)).log10 for text in ("6:8t", "2:8t"))
    assert 10**two_zeros == pytest.approx(1.08 * 187530840, rel=5e-3)
    assert 10**six_zeros == pytest.approx(2.53e15, rel=5e-3)
    assert 10 ** paper_transposable_diversity("3:4t", (4, 4)).log10 == pytest.approx(count_equal(4, 3))
    assert paper.estimated
    assert paper.exact is None


def test_shapes_and_patterns_are_checked() -> None:
    with pytest.raises(ValueError, match="needs a shape"):
        mask_diversity("2:4t", (8,))
    with pytest.raises(ValueError, match="negative size"):
        mask_diversity("2:4", (8, -8))
    with pytest.raises(TypeError, match="row-wise"):
        sequential_diversity("2:4t", (8, 8))
    with pytest.raises(TypeError, match="transposable"):
        paper_transposable_diversity("2:4", (8, 8))  # type: ignore[arg-type]
