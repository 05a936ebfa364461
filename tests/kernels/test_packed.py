"""Packing and unpacking: exact, checked, and readable by eye."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bisparse.kernels import PackedMatrix, pack_matrix
from bisparse.pattern import NM

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int8, torch.int32, torch.int64]


def masked(rows: int, columns: int, keep: int, block: int, dtype: torch.dtype, seed: int) -> Tensor:
    """A random matrix with at most ``keep`` non-zeros in every group."""
    generator = torch.Generator().manual_seed(seed)
    groups = -(-columns // block)
    order = torch.rand(rows, groups, block, generator=generator).argsort(2)
    kept = (order < keep).flatten(1)[:, :columns]
    values = torch.randint(-50, 50, (rows, columns), generator=generator)
    return (values * kept).to(dtype)


def test_a_small_matrix_by_eye() -> None:
    weight = torch.tensor(
        [[0.0, 5.0, 0.0, 7.0, 1.0, 2.0, 0.0, 0.0], [3.0, 0.0, 0.0, 0.0, 0.0, 0.0, 4.0, 6.0]]
    )
    packed = pack_matrix(weight, "2:4")
    # Row 1 keeps one entry of its first group: the first free column, 1, fills the group up with a zero.
    assert packed.values.tolist() == [[5.0, 7.0, 1.0, 2.0], [3.0, 0.0, 4.0, 6.0]]
    assert packed.index.tolist() == [[0b00111010, 0, 0, 0], [0b11000011, 0, 0, 0]]
    assert packed.free is not None
    assert packed.free.tolist() == [[0], [0b0010]]
    assert packed.unpack().equal(weight)


def test_a_tail_group_keeps_what_it_has_room_for() -> None:
    packed = pack_matrix(torch.ones(1, 5) * torch.tensor([1, 1, 0, 0, 1]), "2:4")
    assert packed.values.shape == (1, 3)
    assert packed.index.tolist() == [[0b10011, 0, 0, 0]]
    assert packed.free is None


@given(
    rows=st.integers(0, 9),
    columns=st.integers(1, 140),
    block=st.integers(2, 64),
    data=st.data(),
    dtype=st.sampled_from(DTYPES),
)
@settings(max_examples=150, deadline=None)
def test_every_matrix_comes_back(
    rows: int, columns: int, block: int, data: st.DataObject, dtype: torch.dtype
) -> None:
    keep = data.draw(st.integers(1, block - 1))
    weight = masked(rows, columns, keep, block, dtype, seed=rows * columns)
    packed = pack_matrix(weight, NM(keep, block))
    packed.check()
    assert packed.unpack().equal(weight)


def test_a_mask_keeps_zeros_and_drops_the_rest() -> None:
    weight = torch.tensor([[0.0, 5.0, 6.0, 7.0]])
    mask = torch.tensor([[True, False, True, False]])
    packed = pack_matrix(weight, "2:4", mask)
    assert packed.values.tolist() == [[0.0, 6.0]]
    assert packed.free is None
    assert packed.unpack().tolist() == [[0.0, 0.0, 6.0, 0.0]]


def test_strides_do_not_matter() -> None:
    weight = masked(24, 40, 4, 8, torch.float32, 1)
    assert pack_matrix(weight.t().contiguous().t(), "4:8").values.equal(pack_matrix(weight, "4:8").values)


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 0.54), (torch.bfloat16, 0.57)])
@pytest.mark.parametrize("pattern", ["2:4", "4:8t", "16:32"])
def test_half_the_weights_take_little_more_than_half_the_bytes(
    dtype: torch.dtype, limit: float, pattern: str
) -> None:
    weight = torch.zeros(64, 256, dtype=dtype)
    assert pack_matrix(weight, pattern).nbytes - 64 * 16 <= limit * weight.numel() * weight.element_size()


def test_a_broken_pattern_is_named_with_its_place_and_remedy() -> None:
    weight = torch.zeros(4, 16)
    weight[2, 8:12] = 1.0
    with pytest.raises(ValueError, match=r"4 x 16 .* 2:4: row 2, columns 8 to 11 hold 4 non-zeros.*prune_"):
        pack_matrix(weight, "2:4")


@pytest.mark.parametrize(
    ("weight", "pattern", "mask", "error", "message"),
    [
        (torch.zeros(2, 4, 3), "2:4", None, ValueError, r"\(2, 4, 3\) is no matrix"),
        (torch.zeros(2, 4), "unstructured:0.5", None, ValueError, "only keep:block"),
        (torch.zeros(2, 4, dtype=torch.complex64), "2:4", None, TypeError, "complex64"),
        (torch.zeros(2, 4, device="meta"), "2:4", None, ValueError, "meta"),
        (torch.zeros(2, 4), "2:4", torch.zeros(2, 4), TypeError, "boolean"),
        (torch.zeros(2, 4), "2:4", torch.zeros(4, 2, dtype=torch.bool), ValueError, r"\(4, 2\)"),
    ],
)
def test_what_cannot_be_packed_is_refused(
    weight: Tensor, pattern: str, mask: Tensor | None, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        pack_matrix(weight, pattern, mask)


def damaged(part: str) -> PackedMatrix:
    packed = pack_matrix(masked(6, 40, 4, 8, torch.float32, 3), "4:8")
    values, index = packed.values, packed.index.clone()
    if part == "one bit too many":
        index[5, 0] = 0xFF
    elif part == "a bit behind the end":
        index[5, 7] |= 0x80
    elif part == "rows":
        index = index[:5]
    elif part == "slots":
        values = values[:, :-1].contiguous()
    elif part == "strides":
        values = values.repeat(1, 2)[:, : values.shape[1]]
    else:
        index = index.to(torch.int32)
    return PackedMatrix(values, index, packed.shape, packed.pattern)


@pytest.mark.parametrize(
    "part", ["one bit too many", "a bit behind the end", "rows", "slots", "strides", "dtype"]
)
def test_damaged_parts_are_refused(part: str) -> None:
    with pytest.raises(ValueError, match="6 x 40 matrix"):
        damaged(part).unpack()
