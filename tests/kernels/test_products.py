"""Products with packed matrices against dense ones in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bisparse import _core
from bisparse.kernels import multiply, multiply_transposed, pack_matrix, value_gradient
from bisparse.pattern import NM

INSTRUCTION_SETS = _core.product_instruction_sets()
PATTERNS = [NM(2, 4), NM(4, 8), NM(8, 16), NM(16, 32), NM(1, 4), NM(2, 8), NM(3, 5), NM(31, 32), NM(20, 64)]
DTYPES = [torch.float32, torch.bfloat16]


def masked(rows: int, columns: int, pattern: NM) -> Tensor:
    generator = torch.Generator().manual_seed(rows * columns)
    order = torch.rand(rows, -(-columns // pattern.block), pattern.block, generator=generator).argsort(2)
    kept = (order < pattern.keep).view(rows, -1)[:, :columns]
    return torch.randn(rows, columns, generator=generator) * kept


def close(found: Tensor, wanted: Tensor) -> bool:
    """To the tolerance that is promised: 1e-5 in float32, bfloat16's own rounding otherwise."""
    tolerance = 1e-5 if found.dtype == torch.float32 else 8e-3
    return bool(((found.double() - wanted).abs() <= tolerance * (1.0 + wanted.abs())).all())


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "bfloat16"])
def test_products_agree_with_dense_ones(instruction_set: str, pattern: NM, dtype: torch.dtype) -> None:
    for rows, columns in [(1, 3), (33, 64), (40, 203)]:
        weight = masked(rows, columns, pattern).to(dtype)
        packed = pack_matrix(weight, pattern)
        sizes = (columns, pattern.keep, pattern.block)
        bias = torch.randn(rows).to(dtype)
        for batch, kind in [
            (0, dtype),
            (1, dtype),
            (2, torch.float32),
            (5, torch.bfloat16),
            (8, dtype),
            (70, dtype),
        ]:
            x, y = torch.randn(batch, columns).to(kind), torch.randn(batch, rows).to(kind)
            exact = x.double() @ weight.double().T + bias.double()
            found = multiply(x, packed.values, packed.index, bias, *sizes, instruction_set=instruction_set)
            assert found.dtype == kind
            assert close(found, exact)
            back = multiply_transposed(
                y, packed.values, packed.index, *sizes, instruction_set=instruction_set
            )
            assert close(back, y.double() @ weight.double())
            gradient = value_gradient(
                y, x, packed.values, packed.index, packed.free, *sizes, instruction_set=instruction_set
            )
            dense = (y.double().T @ x.double()) * (weight != 0)
            assert close(gradient, pack_matrix(dense, pattern, weight != 0).values)


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
def test_threads_do_not_change_a_bit(instruction_set: str) -> None:
    weight = masked(700, 1024, NM(4, 8))
    packed = pack_matrix(weight, "4:8")
    x, y = torch.randn(6, 1024), torch.randn(6, 700)
    parts = (packed.values, packed.index)
    first = [
        (
            multiply(x, *parts, None, 1024, 4, 8, threads=threads, instruction_set=instruction_set),
            multiply_transposed(y, *parts, 1024, 4, 8, threads=threads, instruction_set=instruction_set),
            value_gradient(y, x, *parts, None, 1024, 4, 8, threads=threads, instruction_set=instruction_set),
        )
        for threads in (1, 2, 5)
    ]
    for other in first[1:]:
        assert all(a.equal(b) for a, b in zip(first[0], other, strict=True))


def test_leading_axes_stay_and_strided_inputs_are_read_right() -> None:
    weight = masked(12, 32, NM(2, 4))
    packed = pack_matrix(weight, "2:4")
    x = torch.randn(32, 3, 5).permute(1, 2, 0)
    found = multiply(x, packed.values, packed.index, None, 32, 2, 4)
    assert found.shape == (3, 5, 12)
    assert close(found, x.double() @ weight.double().T)
    assert multiply(x[0, 0], packed.values, packed.index, None, 32, 2, 4).shape == (12,)


def test_infinities_and_nans_of_kept_weights_arrive() -> None:
    weight = masked(8, 64, NM(4, 8))
    row, column = (int(place[0]) for place in weight.nonzero(as_tuple=True))
    weight[row, column] = float("inf")
    packed = pack_matrix(weight, "4:8")
    y = multiply(torch.ones(1, 64), packed.values, packed.index, None, 64, 4, 8)
    assert y.isinf().sum() == 1
    assert not y.isnan().any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(2, 31)}, r"\(2, 31\) does not end in the 32 features"),
        ({"x": torch.zeros(2, 32, dtype=torch.float16)}, "float32 and bfloat16, x is torch.float16"),
        ({"x": torch.zeros(2, 32, device="meta")}, "x is on meta"),
        ({"bias": torch.zeros(3)}, r"\(3,\) does not fit 12 outputs"),
        ({"index": torch.zeros(12, 8, dtype=torch.uint8)}, r"\(12, 8\) do not belong"),
        ({"index": torch.zeros(12, 4, dtype=torch.int8)}, "uint8"),
        ({"values": torch.zeros(12, 16, dtype=torch.float64)}, "values is torch.float64"),
        ({"values": torch.zeros(16, 12).t()}, "contiguous"),
    ],
)
def test_wrong_parts_are_refused_before_memory_is_touched(change: dict[str, Tensor], message: str) -> None:
    packed = pack_matrix(masked(12, 32, NM(2, 4)), "2:4")
    parts: dict[str, Tensor | None] = {
        "x": torch.zeros(2, 32),
        "values": packed.values,
        "index": packed.index,
    }
    arguments = {**parts, "bias": None, **change}
    with pytest.raises(ValueError, match=message):
        multiply(**arguments, columns=32, keep=2, block=4)  # type: ignore[arg-type]


def test_an_unknown_instruction_set_is_named() -> None:
    packed = pack_matrix(masked(4, 8, NM(2, 4)), "2:4")
    with pytest.raises(ValueError, match="not available here: vax"):
        multiply(torch.zeros(1, 8), packed.values, packed.index, None, 8, 2, 4, instruction_set="vax")
