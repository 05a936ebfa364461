"""Queries, keys and values from one layer: heads are found behind the dimension of three, however it is opened."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bisparse.filters import apply_plan_, prune_filters


class Attention(nn.Module):
    """Self-attention as vision transformers write it.

    Args:
        heads: how many, of 8 numbers each.
        way: how the three are told apart.
    """

    def __init__(self, heads: int, way: str) -> None:
        super().__init__()
        self.num_heads, self.way = heads, way
        self.qkv, self.proj = nn.Linear(24, 3 * 8 * heads), nn.Linear(8 * heads, 24)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        parts = self.qkv(x).view(batch, tokens, 3, self.num_heads, 8)
        if self.way == "unbind":
            q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        elif self.way == "unpack":
            q, k, v = parts.permute(2, 0, 3, 1, 4)
        elif self.way == "select":
            q, k, v = (parts[:, :, number].transpose(1, 2) for number in range(3))
        else:
            q, k, v = (part.squeeze(2).transpose(1, 2) for part in parts.split(1, 2))
        out: Tensor = self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return out


def network(heads: int, way: str) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.LayerNorm(24), Attention(heads, way), nn.Linear(24, 5)).eval()


@pytest.mark.parametrize("way", ["unbind", "unpack", "select", "split"])
def test_a_silent_head_goes_whole_and_changes_nothing(way: str) -> None:
    model, x = network(4, way), torch.randn(6, 7, 24)
    with torch.no_grad():
        model[1].proj.weight[:, 16:24] = 0.0  # of the third head
    expected = model(x)
    options = {"scores": "obs", "reconstruct": "none", "ignore": ["1.proj"], "latency": False}
    found = prune_filters(model, "params:0.85", calibration=[x], **options)
    assert [(family.units, family.kept) for family in found.report.families] == [(4, 3)]
    attention = found.model[1]
    assert (attention.num_heads, attention.qkv.out_features, attention.proj.in_features) == (3, 72, 24)
    rows = [*range(16), *range(24, 32)]
    kept = [32 * part + row for part in range(3) for row in rows]
    assert torch.equal(attention.qkv.weight, model[1].qkv.weight[kept])
    torch.testing.assert_close(found.model(x), expected, atol=1e-6, rtol=1e-5)
    again = apply_plan_(network(4, way), found.report.plan)
    again.load_state_dict(found.model.state_dict())
    assert torch.equal(again(x), found.model(x))


def test_three_heads_are_not_taken_for_the_three_kinds() -> None:
    model, x = network(3, "unbind"), torch.randn(6, 7, 24)
    found = prune_filters(model, "params:0.8", calibration=[x], ignore=["1.proj"], latency=False)
    assert [(family.units, family.kept) for family in found.report.families] == [(3, 2)]
    assert found.model[1].qkv.out_features == 48
    assert found.report.deviation < 1e-5


def test_heads_that_the_code_counts_by_a_number_stay() -> None:
    class Fixed(Attention):
        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.qkv(x).view(len(x), -1, 3, 4, 8).permute(2, 0, 3, 1, 4).unbind(0)
            out: Tensor = self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
            return out

    model = nn.Sequential(Fixed(4, ""), nn.Linear(24, 40), nn.ReLU(), nn.Linear(40, 5)).eval()
    found = prune_filters(model, "params:0.8", calibration=[torch.randn(6, 7, 24)], latency=False)
    assert [family.name for family in found.report.families] == ["0.proj", "1"]
    assert "0.qkv.weight" in found.report.left_out or "0.qkv" in found.report.left_out
