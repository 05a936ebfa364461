"""The operators as PyTorch sees them: traced, differentiated twice, never dense."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import bisparse.kernels.operators  # noqa: F401  (registers the operators)
from bisparse.kernels import pack_matrix

SIZES = (40, 2, 4)
CHECKS = ("test_schema", "test_autograd_registration", "test_faketensor")


@pytest.fixture
def parts() -> dict[str, Tensor]:
    torch.manual_seed(0)
    weight = torch.randn(24, 40) * (torch.rand(24, 10, 4).argsort(2) < 2).view(24, 40)
    packed = pack_matrix(weight, "2:4")
    values = packed.values.requires_grad_()
    return {
        "weight": weight,
        "values": values,
        "index": packed.index,
        "x": torch.randn(3, 40),
        "y": torch.randn(3, 24),
    }


def test_the_operators_are_registered_rightly(parts: dict[str, Tensor]) -> None:
    x, y, values, index = (
        parts["x"].requires_grad_(),
        parts["y"].requires_grad_(),
        parts["values"],
        parts["index"],
    )
    bias = torch.randn(24, requires_grad=True)
    calls = {
        torch.ops.bisparse.packed_linear.default: (x, values, index, None, bias, *SIZES),
        torch.ops.bisparse.packed_transposed.default: (y, values, index, None, *SIZES),
        torch.ops.bisparse.packed_gradient.default: (y, x, values, index, None, *SIZES),
    }
    for operator, arguments in calls.items():
        outcome = torch.library.opcheck(operator, arguments, test_utils=CHECKS)
        assert set(outcome.values()) == {"SUCCESS"}


def test_gradients_of_gradients_agree_with_dense_ones(parts: dict[str, Tensor]) -> None:
    x, values, index = parts["x"].requires_grad_(), parts["values"], parts["index"]
    weight = parts["weight"].requires_grad_()
    mask = weight != 0

    def penalty(output: Tensor, parameter: Tensor) -> tuple[Tensor, ...]:
        of_x, of_weight = torch.autograd.grad(output.square().sum(), [x, parameter], create_graph=True)
        return torch.autograd.grad(of_x.square().sum() + of_weight.square().sum(), [x, parameter])

    dense = penalty(x @ (weight * mask).T, weight)
    packed = penalty(torch.ops.bisparse.packed_linear(x, values, index, None, None, *SIZES), values)
    torch.testing.assert_close(packed[0], dense[0], rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(packed[1], pack_matrix(dense[1], "2:4", mask).values, rtol=1e-4, atol=1e-2)


def test_the_transposed_product_has_gradients_too(parts: dict[str, Tensor]) -> None:
    y, values, index, weight = parts["y"].requires_grad_(), parts["values"], parts["index"], parts["weight"]
    mask = weight != 0
    weight.requires_grad_()
    found = torch.autograd.grad(
        torch.ops.bisparse.packed_transposed(y, values, index, None, *SIZES).square().sum(), [y, values]
    )
    wanted = torch.autograd.grad((y @ weight).square().sum(), [y, weight])
    torch.testing.assert_close(found[0], wanted[0])
    torch.testing.assert_close(found[1], pack_matrix(wanted[1], "2:4", mask).values)


def test_free_slots_learn_nothing_in_either_derivative() -> None:
    weight = torch.tensor([[1.0, 0.0, 0.0, 0.0, 2.0, 3.0, 0.0, 0.0]])
    packed = pack_matrix(weight, "2:4")
    y, x = torch.ones(1, 1, requires_grad=True), torch.ones(1, 8, requires_grad=True)
    gradient = torch.ops.bisparse.packed_gradient(y, x, packed.values, packed.index, packed.free, 8, 2, 4)
    assert gradient.tolist() == [[1.0, 0.0, 1.0, 1.0]]
    of_x = torch.autograd.grad(gradient.sum(), x)[0]
    assert of_x.tolist() == [[1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0]]
