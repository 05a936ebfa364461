"""Shares and their maxima: by eye, by hand, and by their invariances."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bisparse.compress.calibration import Call
from bisparse.filters.collect import collect_shares, input_pieces, layer_inputs, layer_weight
from bisparse.filters.sensitivity import channel_sensitivity, weight_sensitivity
from bisparse.filters.trace import trace


def by_hand(weight: torch.Tensor, inputs: torch.Tensor, reduction: str) -> torch.Tensor:
    """Plain loops over the definition."""
    best = torch.zeros(weight.shape[1], weight.shape[2], dtype=torch.float64)
    whole = torch.zeros(weight.shape[1], dtype=torch.float64)
    for w in (weight.clamp(min=0), (-weight).clamp(min=0)):
        for a in (inputs.clamp(min=0), (-inputs).clamp(min=0)):
            terms = torch.einsum("ock,ckp->ckop", w.double(), a.double())
            share = terms / terms.sum((0, 1))
            share = torch.nan_to_num(share)
            best = torch.maximum(best, share.amax((2, 3)))
            whole = torch.maximum(whole, share.sum(1).amax((1, 2)))
    return whole if reduction == "sum" else best.amax(1)


def test_a_case_checkable_by_eye() -> None:
    weight = torch.tensor([[1.0, 1.0, 2.0], [3.0, 0.0, 1.0]])[:, :, None]
    inputs = torch.tensor([[1.0, 0.0], [1.0, 2.0], [1.0, 0.0]])[:, None, :]
    # Position 0: output 0 has the shares 1/4, 1/4, 2/4, output 1 has 3/4, 0, 1/4; position 1: 0, 1, 0 and none.
    assert channel_sensitivity(weight, inputs).tolist() == [0.75, 1.0, 0.5]
    assert weight_sensitivity(weight, inputs)[:, :, 0].tolist() == [[0.25, 1.0, 0.5], [0.75, 0.0, 0.25]]


@pytest.mark.parametrize("reduction", ["sum", "max"])
@pytest.mark.parametrize("signed", [False, True])
def test_maxima_are_those_of_the_definition(reduction: str, signed: bool) -> None:
    torch.manual_seed(1)
    weight, inputs = torch.randn(5, 7, 9), torch.randn(7, 9, 40)
    inputs = inputs if signed else inputs.relu()
    found = channel_sensitivity(weight, inputs, reduction)  # type: ignore[arg-type]
    torch.testing.assert_close(found.double(), by_hand(weight, inputs, reduction), rtol=1e-4, atol=1e-5)


def test_kernel_positions_by_sum_and_by_maximum_bound_each_other() -> None:
    torch.manual_seed(2)
    weight, inputs = torch.randn(6, 8, 9), torch.randn(8, 9, 50).relu()
    most, whole = (channel_sensitivity(weight, inputs, how) for how in ("max", "sum"))  # type: ignore[arg-type]
    assert bool((most <= whole + 1e-6).all())
    assert bool((whole <= 9 * most + 1e-6).all())
    assert 1.0 <= float(whole.sum()) <= 8.0


def test_scaling_outputs_or_samples_changes_nothing() -> None:
    torch.manual_seed(3)
    weight, inputs = torch.randn(6, 8, 4), torch.randn(8, 4, 30)
    rows, samples = torch.rand(6, 1, 1) + 0.5, torch.rand(1, 1, 30) + 0.5
    expected = channel_sensitivity(weight, inputs)
    torch.testing.assert_close(channel_sensitivity(weight * rows, inputs * samples), expected)


def test_shares_of_a_linear_layer_sum_to_one() -> None:
    torch.manual_seed(4)
    weight, inputs = torch.rand(1, 9, 1), torch.rand(9, 1, 1)
    assert float(channel_sensitivity(weight, inputs).sum()) == pytest.approx(1.0, abs=1e-5)


def test_zeros_and_silent_channels_stay_finite() -> None:
    weight, inputs = torch.randn(3, 4, 1), -torch.rand(4, 1, 5)
    inputs[2] = 0
    found = channel_sensitivity(weight, inputs)
    assert float(found[2]) == 0.0
    assert bool(found.isfinite().all())
    assert not channel_sensitivity(weight, torch.zeros(4, 1, 5)).any()


def test_outputs_too_small_to_divide_by_count_for_nothing() -> None:
    weight, inputs = torch.ones(1, 2, 1), torch.tensor([[1e-40, 3.0], [0.0, 1.0]])[:, None, :]
    assert channel_sensitivity(weight, inputs).tolist() == [0.75, 0.25]
    assert channel_sensitivity(weight, inputs, "max").tolist() == [0.75, 0.25]
    assert weight_sensitivity(weight, inputs)[0, :, 0].tolist() == [0.75, 0.25]


def test_padding_tokens_do_not_count() -> None:
    torch.manual_seed(7)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
    x, valid = torch.randn(3, 5, 4), torch.rand(3, 5) < 0.6
    found = trace(model, Call((x[:1],)))
    padded, real, all_of_them = (
        next(iter(collect_shares(model, found, [[call]]).values())).first
        for call in (Call((x,), valid=valid), Call((x[valid],)), Call((x,)))
    )
    assert torch.equal(padded, real)
    assert not torch.equal(padded, all_of_them)


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Conv2d(4, 8, 3, groups=2), (70, 4, 40, 40)),
        (nn.Conv2d(4, 8, 3), (4, 9, 9)),
        (nn.Linear(4, 3), (7, 4)),
    ],
)
def test_pieces_are_the_whole(module: nn.Module, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    pieces = list(input_pieces(module, x))
    assert len(pieces) == (2 if len(shape) == 4 else 1)
    torch.testing.assert_close(torch.cat(pieces, 2), layer_inputs(module, x))


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False),
        nn.Conv2d(4, 6, 3, dilation=2, padding=2, padding_mode="reflect", bias=False),
        nn.Conv1d(4, 6, 5, padding="same", bias=False),
        nn.Conv2d(4, 8, 3, groups=2, bias=False),
        nn.Conv2d(4, 8, (1, 3), groups=4, bias=False),
        nn.Linear(4, 3, bias=False),
    ],
)
def test_windows_times_weights_are_the_layers_outputs(module: nn.Module) -> None:
    torch.manual_seed(5)
    shape = {nn.Linear: (7, 4), nn.Conv1d: (2, 4, 9)}.get(type(module), (2, 4, 9, 8))  # type: ignore[call-overload]
    x = torch.randn(shape)
    weight, windows = layer_weight(module, module.weight.detach()), layer_inputs(module, x)  # type: ignore[arg-type]
    groups = getattr(module, "groups", 1)
    parts = [
        torch.einsum("ock,ckp->op", w, a)
        for w, a in zip(weight.chunk(groups), windows.chunk(groups), strict=True)
    ]
    outputs = module(x).detach()
    expected = outputs.t() if outputs.dim() == 2 else outputs.movedim(1, 0).flatten(1)
    torch.testing.assert_close(torch.cat(parts), expected)
