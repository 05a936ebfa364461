"""Every kind of module: reconstruction lowers the error, and reported errors are those of a forward pass."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from bisparse.compress import AdaPrune, prune, prune_
from bisparse.masks.verify import verify_mask
from bisparse.weights import as_matrices, find_weights

from .models import KINDS

PATTERN = "2:4t"


def batches(shape, count=3):
    generator = torch.Generator().manual_seed(1)
    mixing = torch.randn(shape[-1], shape[-1], generator=generator)
    return [torch.randn(shape, generator=generator) @ mixing for _ in range(count)]  # correlated features


@pytest.mark.parametrize("name", KINDS)
def test_least_squares_lowers_every_layers_error_and_the_measured_one(name):
    torch.manual_seed(0)
    model = nn.Sequential(KINDS[name].make())
    data = batches(KINDS[name].shape)
    masked = prune(model, PATTERN, ignore=[], scores="obs", reconstruct="none", calibration=data)
    fitted = prune(model, PATTERN, ignore=[], scores="obs", reconstruct="least_squares", calibration=data)
    for before, after in zip(masked.report.layers, fitted.report.layers, strict=True):
        assert after.name == before.name
        assert after.error_after < after.error_before
        assert after.density <= 0.5
        assert "no statistics" not in after.note
    for weight in find_weights(fitted.model, ignore=[]):
        assert verify_mask(as_matrices(weight.parameter != 0, weight.layout), PATTERN).feasible
    with torch.no_grad():
        expected = torch.cat([model(x).flatten() for x in data])
        error = [
            float((torch.cat([pruned.model(x).flatten() for x in data]) - expected).norm())
            for pruned in (masked, fitted)
        ]
    assert error[1] < error[0]


SINGLE = ["linear", "hf_conv1d", "conv1d", "conv2d_groups", "conv3d", "conv_transpose2d"]
SINGLE += ["experts", "grouped_experts"]


FAST = ["none", "bias", "least_squares", "alps"]
SLOW = [AdaPrune(steps=50), "sparsegpt"]  # two kinds of module suffice for these
REPORTED = [(r, name) for r in FAST for name in SINGLE] + [
    (r, n) for r in SLOW for n in ("linear", "conv2d_groups")
]


@pytest.mark.parametrize(("reconstruct", "name"), REPORTED, ids=str)
def test_reported_error_equals_the_error_of_a_forward_pass(reconstruct, name):
    torch.manual_seed(0)
    model = nn.Sequential(KINDS[name].make())
    data = batches(KINDS[name].shape)
    pruned = prune(model, PATTERN, ignore=[], reconstruct=reconstruct, calibration=data)
    bare = copy.deepcopy(model)
    if getattr(bare[0], "bias", None) is not None:
        nn.init.zeros_(bare[0].bias)  # relative to the output without its constant part
    with torch.no_grad():
        change = torch.cat([(pruned.model(x) - model(x)).flatten() for x in data]).norm()
        size = torch.cat([bare(x).flatten() for x in data]).norm()
    assert pruned.report.layers[0].error_after == pytest.approx(float(change / size), rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_dtypes_stay(dtype):
    model = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 8)).to(dtype)
    report = prune_(
        model, "2:4", ignore=[], reconstruct="alps", calibration=[torch.randn(50, 16, dtype=dtype)]
    )
    assert model[0].weight.dtype == dtype
    assert all(layer.error_after < layer.error_before for layer in report.layers)
    assert int((model[2].weight != 0).sum()) == 32


def test_separate_attention_weights_and_embeddings():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(12, 8)
            self.attention = nn.MultiheadAttention(16, 2, kdim=8, vdim=8)
            self.query = nn.Parameter(torch.randn(5, 1, 16))

        def forward(self, ids):
            x = self.embed(ids)
            return self.attention(self.query.expand(-1, x.shape[1], -1), x, x)[0]

    model = Net()
    report = prune_(
        model, "2:4", ignore=[], reconstruct="least_squares", calibration=[torch.randint(12, (7, 6))]
    )
    assert {layer.name: bool(layer.note) for layer in report.layers} == {
        "attention.q_proj_weight": False,
        "attention.k_proj_weight": False,
        "attention.v_proj_weight": False,
        "attention.out_proj.weight": False,
        "embed.weight": True,
    }
    assert "masked only" in report["embed"].note
    assert "query" in report.left_out
