from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bisparse.pattern import MAX_BLOCK, NM, Pattern, TransposableNM, Unstructured, parse_pattern, part_of

keep_block = st.integers(2, MAX_BLOCK).flatmap(lambda m: st.tuples(st.integers(1, m - 1), st.just(m)))
patterns = st.one_of(
    keep_block.map(lambda nm: NM(*nm)),
    keep_block.map(lambda nm: TransposableNM(*nm)),
    st.floats(0.0, 1.0, exclude_max=True).map(Unstructured),
)


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("2:4", NM(2, 4)),
        ("1:4", NM(1, 4)),
        ("4:8t", TransposableNM(4, 8)),
        ("16:32t", TransposableNM(16, 32)),
        (" 6 : 8 T ", TransposableNM(6, 8)),
        ("unstructured:0.9", Unstructured(0.9)),
        ("Unstructured: 0", Unstructured(0)),
        ("unstructured:1e-3", Unstructured(0.001)),
    ],
)
def test_text_is_read(text: str, pattern: Pattern) -> None:
    assert parse_pattern(text) == pattern


@given(patterns)
def test_text_round_trip_copy_and_pickle(pattern: Pattern) -> None:
    assert parse_pattern(str(pattern)) == pattern
    assert parse_pattern(pattern) is pattern
    assert pickle.loads(pickle.dumps(pattern)) == pattern
    assert copy.deepcopy(pattern) == pattern
    assert hash(parse_pattern(str(pattern))) == hash(pattern)


def test_density() -> None:
    assert NM(1, 4).density == 0.25
    assert TransposableNM(6, 8).density == 0.75
    assert Unstructured(0.75).density == 0.25


def test_kept_counts_the_whole_tensor() -> None:
    assert Unstructured(0.9).kept(1000) == 100
    assert Unstructured(0.0).kept(7) == 7
    assert Unstructured(0.9).kept(0) == 0


def test_kinds_differ_and_serve_as_keys() -> None:
    table = {NM(2, 4): "rows", TransposableNM(2, 4): "tiles", Unstructured(0.5): "any"}
    assert len(table) == 3
    assert table[parse_pattern("2:4t")] == "tiles"
    assert Unstructured(-0.0) == Unstructured(0)
    assert str(Unstructured(-0.0)) == "unstructured:0.0"


def test_patterns_are_immutable() -> None:
    with pytest.raises(AttributeError):
        NM(2, 4).keep = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5:4", r"5:4: keep must be smaller than block \(N:M means keep:block.*did you mean 4:5\?"),
        ("4:4t", "4:4t: keep must be smaller than block, or every weight stays"),
        ("0:4", "keep must be at least 1"),
        ("-1:4", "keep must be at least 1"),
        ("1:1", "block must be between 2 and 64"),
        ("2:65t", "block must be between 2 and 64"),
        ("unstructured:1.0", r"\[0, 1\)"),
        ("unstructured:-0.1", r"\[0, 1\)"),
        ("unstructured:nan", r"\[0, 1\)"),
        ("unstructured:most", "cannot read the share of zeros"),
        ("unstructured", "cannot read the share of zeros"),
        ("2-4", 'write "2:4"'),
        ("2:4x", 'write "2:4"'),
        ("", 'write "2:4"'),
    ],
)
def test_bad_text_is_explained(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_pattern(text)


@pytest.mark.parametrize("value", [None, 0.5, (2, 4)])
def test_other_types_are_refused(value: object) -> None:
    with pytest.raises(TypeError, match="a pattern is text or a pattern object"):
        parse_pattern(value)  # type: ignore[arg-type]


def test_numbers_must_have_the_right_type() -> None:
    with pytest.raises(TypeError, match="keep must be an integer"):
        NM(2.0, 4)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="block must be an integer"):
        TransposableNM(1, True)
    with pytest.raises(TypeError, match="sparsity must be a number"):
        Unstructured("0.5")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("total", "share", "part"),
    [
        (100, 0.29, 29),
        (10, 0.3, 3),
        (7, 0.3, 2),
        (3, 0.3, 0),
        (10**8, 0.29, 29 * 10**6),
        (5, 1.0, 5),
        (5, 0.0, 0),
    ],
)
def test_a_part_is_the_floor_of_the_share_as_written(total: int, share: float, part: int) -> None:
    assert part_of(total, share) == part
