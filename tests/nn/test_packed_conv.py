"""The packed convolution computes and learns what the masked dense one does."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import bisparse as bs
from bisparse.nn import PackedConv2d
from bisparse.weights.layout import Layout, as_matrices, from_matrices

CASES: list[dict[str, Any]] = [
    {"kernel_size": 1},
    {"kernel_size": 1, "stride": 2, "bias": False},
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 3, "padding": "same", "dilation": 2},
    {"kernel_size": (3, 2), "padding": "same"},
    {"kernel_size": (1, 5), "stride": (2, 1), "padding": (0, 2)},
]


def masked_conv(**options: Any) -> nn.Conv2d:
    torch.manual_seed(0)
    conv = nn.Conv2d(16, 24, **options)
    layout = Layout("conv")
    mask = bs.solve_mask(as_matrices(conv.weight.detach().abs(), layout), "4:8t").mask
    with torch.no_grad():
        conv.weight.mul_(from_matrices(mask, layout, conv.weight.shape))
    return conv


@pytest.mark.parametrize("options", CASES, ids=str)
def test_it_computes_and_learns_what_the_masked_layer_does(options: dict[str, Any]) -> None:
    conv = masked_conv(**options)
    packed = PackedConv2d.from_conv(conv, "4:8t")
    x = torch.randn(2, 16, 9, 7, requires_grad=True)
    wanted = conv(x)
    torch.testing.assert_close(packed(x), wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(packed(x[0]), wanted[0], rtol=1e-4, atol=1e-5)
    grad = torch.randn_like(wanted)
    found = torch.autograd.grad(packed(x), [x, *packed.parameters()], grad)
    dense = torch.autograd.grad(wanted, [x, *conv.parameters()], grad)
    torch.testing.assert_close(found[0], dense[0], rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        packed.values.copy_(found[1])
    torch.testing.assert_close(packed.dense_weight(), dense[1] * (conv.weight != 0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", CASES, ids=str)
def test_the_dense_layer_comes_back(options: dict[str, Any]) -> None:
    conv = masked_conv(**options).eval()
    packed = copy.deepcopy(PackedConv2d.from_conv(conv))
    assert packed.dense_weight().equal(conv.weight)
    x = torch.randn(1, 16, 8, 8)
    torch.testing.assert_close(packed.to_conv()(x), conv(x))
    assert not packed.training


def test_it_loads_its_own_state_dict_and_compiles() -> None:
    packed = PackedConv2d.from_conv(masked_conv(kernel_size=3, padding=1))
    other = PackedConv2d(16, 24, (3, 3), "4:8", padding=(1, 1, 1, 1))
    other.load_state_dict(packed.state_dict())
    x = torch.randn(1, 16, 6, 6)
    assert other(x).equal(packed(x))
    assert torch.compile(other, backend="aot_eager", fullgraph=True)(x).equal(packed(x))


@pytest.mark.parametrize(
    ("conv", "pattern", "message"),
    [
        (nn.Conv2d(16, 16, 3, groups=2), "2:4", "2 groups"),
        (nn.Conv2d(16, 16, 3, padding=1, padding_mode="circular"), "2:4", "circular"),
        (nn.Conv2d(16, 16, 1), "2:4", "does not obey 2:4"),
    ],
)
def test_what_cannot_be_packed_is_refused(conv: nn.Conv2d, pattern: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PackedConv2d.from_conv(conv, pattern)


def test_groups_never_straddle_kernel_positions() -> None:
    conv = nn.Conv2d(6, 8, 3)
    conv.weight.data.zero_()
    with pytest.raises(ValueError, match="6 input channels are no multiple of 4"):
        PackedConv2d.from_conv(conv, "2:4")
    with pytest.raises(TypeError, match="takes a Conv2d, got Linear"):
        PackedConv2d.from_conv(nn.Linear(4, 4))  # type: ignore[arg-type]
