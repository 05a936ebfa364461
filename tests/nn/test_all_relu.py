"""All-ReLU: signs by layer parity."""

from __future__ import annotations

import pytest
import torch

from bisparse.nn import AllReLU

INPUTS = [-2.0, -1.0, 0.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (2, [1.0, 0.5, 0.0, 1.0, 2.0]),  # the first hidden layer: negative inputs, positive outputs
        (3, [-1.0, -0.5, 0.0, 1.0, 2.0]),
        (4, [1.0, 0.5, 0.0, 1.0, 2.0]),
    ],
)
def test_the_sign_of_the_left_side_follows_the_layer(layer: int, expected: list[float]) -> None:
    inputs = torch.tensor(INPUTS, dtype=torch.float64, requires_grad=True)
    outputs = AllReLU(layer, 0.5)(inputs)
    assert (outputs + 0.0).tolist() == expected
    outputs.sum().backward()
    left = 0.5 if layer % 2 else -0.5
    assert inputs.grad is not None
    assert inputs.grad.tolist() == [left, left, left, 1.0, 1.0]


def test_slope_0_is_relu_and_nothing_is_trained() -> None:
    module, inputs = AllReLU(2, 0.0), torch.tensor(INPUTS)
    assert torch.equal(module(inputs).abs(), torch.relu(inputs))
    assert not list(module.parameters()) + list(module.buffers())
    assert repr(module) == "AllReLU(layer_index=2, slope=0.0)"


@pytest.mark.parametrize("arguments", [(0,), (True,), (2, -0.1), (2, float("nan"))])
def test_refusals(arguments: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"layer_index|slope"):
        AllReLU(*arguments)  # type: ignore[arg-type]
