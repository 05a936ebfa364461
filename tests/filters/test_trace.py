"""Which channels hang together, in networks small enough to say so by hand."""

from __future__ import annotations

import pytest
import torch
from tests.filters.networks import Attention, Branches, Residual
from torch import nn

from bisparse.compress.calibration import Call
from bisparse.filters.cost import costs_of
from bisparse.filters.families import find_families, frozen_layers
from bisparse.filters.indices import Indices
from bisparse.filters.shape_rules import _blocks
from bisparse.filters.trace import trace
from bisparse.zoo.gpt import gpt
from bisparse.zoo.lenet import lenet5
from bisparse.zoo.resnet_cifar import resnet_cifar


def families(
    model: nn.Module, *shape: int, dtype: torch.dtype = torch.float32
) -> dict[str, tuple[int, list[str]]]:
    """Name to number of units and readers."""
    found = trace(model, Call((torch.zeros(2, *shape, dtype=dtype),)))
    return {
        family.name: (len(family), [p.weight.removesuffix(".weight") for p in family.read])
        for family in find_families(found)
    }


def test_joined_indices_are_one_unit_and_frozen_ones_stay() -> None:
    indices = Indices()
    a, b, c = indices.new(3), indices.new(3), indices.new(2)
    indices.join(a, b)
    indices.join(b[1:], c)
    indices.freeze(c[:1], "because")
    units = indices.units()
    assert units.tolist() == [0, 1, 2, 0, 1, 2, 1, 2]
    assert indices.frozen(units) == {1: "because"}
    with pytest.raises(ValueError, match="cannot couple 3 indices with 2"):
        indices.join(a, c)


@pytest.mark.parametrize(
    ("old", "new", "sizes"),
    [
        ((2, 8, 4, 4), (2, 128), [((0, 1), (0, 1)), ((1, 4), (1, 2))]),
        ((2, 12), (2, 3, 4), [((0, 1), (0, 1)), ((1, 2), (1, 3))]),
        ((2, 8, 1, 1), (2, 8), [((0, 1), (0, 1)), ((1, 2), (1, 2)), ((2, 3), (2, 2)), ((3, 4), (2, 2))]),
        ((6, 4), (3, 8), [((0, 2), (0, 2))]),
    ],
)
def test_reshapes_are_cut_into_blocks(
    old: tuple[int, ...], new: tuple[int, ...], sizes: list[tuple[tuple[int, int], tuple[int, int]]]
) -> None:
    assert [((a.start, a.stop), (b.start, b.stop)) for a, b in _blocks(old, new)] == sizes


def test_a_residual_sum_couples_and_flattening_repeats() -> None:
    assert families(Residual().eval(), 3, 8, 8) == {"stem +1": (8, ["one", "head"]), "one": (12, ["two"])}


def test_concatenated_grouped_depthwise_and_gated_channels() -> None:
    found = families(Branches().eval(), 3, 8, 8)
    # Two groups read 8 channels each: positions 0 to 5 join left with right, 6 and 7 join right with itself.
    assert found["squeeze"] == (4, ["excite"])
    assert found["grouped +1"][0] == 6
    assert sum(count for count, _ in found.values()) == 4 + 6 + 8


def test_heads_go_whole_and_gated_halves_together() -> None:
    assert families(Attention().eval(), 6, 16) == {"qkv": (4, ["out"]), "up": (20, ["down"])}


def test_stages_of_a_resnet_share_their_channels_through_padded_shortcuts() -> None:
    found = families(resnet_cifar(8).eval(), 3, 32, 32)
    # The stem's 16 channels run through all stages; the second and the third add 16 and 32 of their own.
    assert [count for count, _ in found.values()] == [16, 16, 32, 16, 64, 32]
    assert set(found) >= {"layer1.0.conv1", "layer2.0.conv1", "layer3.0.conv1"}


def test_tied_embeddings_and_layer_norms_keep_the_residual_stream() -> None:
    model = gpt(vocabulary=11, length=8, layers=1, heads=2, width=8).eval()
    found = trace(model, Call((torch.zeros(2, 8, dtype=torch.long),)))
    assert [(family.name, len(family)) for family in find_families(found)] == [
        ("blocks.0.attention.qkv", 2),
        ("blocks.0.up", 32),
    ]
    assert frozen_layers(found)["blocks.0.down.weight"] == "a layer norm mixes these channels"


def test_costs_are_those_of_the_network() -> None:
    model = lenet5().eval()
    found = trace(model, Call((torch.zeros(3, 1, 28, 28),)))
    costs = costs_of(model, found, find_families(found))
    assert costs.parameters([20, 50, 500]) == sum(p.numel() for p in model.parameters()) == 431_080
    assert costs.operations([20, 50, 500]) == 20 * 25 * 576 + 50 * 500 * 64 + 500 * 800 + 5000
    assert costs.parameters([10, 25, 250]) == 10 * 26 + 25 * 251 + 250 * 401 + 10 * 251


class Sorted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.two(self.one(x).sort(-1).values)
        return out


def test_what_is_not_known_stays_and_says_why() -> None:
    found = trace(Sorted().eval(), Call((torch.zeros(2, 4),)))
    assert find_families(found) == []
    assert "aten.sort" in frozen_layers(found)["one.weight"]


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.sum() > 0 else x


def test_a_model_that_cannot_be_exported_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match=r"Branching cannot be traced by torch\.export"):
        trace(Branching(), Call((torch.ones(2, 3),)))
