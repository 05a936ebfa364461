"""Degrees and strengths of neurons, and the cut of unimportant ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bisparse as bs
from bisparse.train import Fraction, Importance, Schedule, Set
from bisparse.train.mask_check import check_masks
from bisparse.train.measures.neurons import edges_of_inputs, edges_of_outputs, neurons
from bisparse.weights import Layout


def test_degrees_and_strengths_by_eye() -> None:
    values = torch.tensor([[1.0, -2.0, 9.0], [0.5, 9.0, 9.0]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    found = neurons(values, mask, Layout("linear"))
    assert found.in_degree.tolist() == [2, 1]
    assert found.out_degree.tolist() == [2, 1, 0]
    assert found.in_strength.tolist() == [3.0, 0.5]
    assert found.out_strength.tolist() == [1.5, 2.0, 0.0]
    figures = found.to_dict()
    assert figures["in_degree_min"] == 1
    assert figures["out_degree_none"] == 1
    assert figures["out_degree_mean"] == 1.0


@pytest.mark.parametrize(
    ("layout", "shape", "outputs", "inputs"),
    [
        (Layout("linear"), (6, 4), 6, 4),
        (Layout("linear", 3), (6, 4), 6, 4),
        (Layout("transposed"), (4, 6), 6, 4),
        (Layout("conv"), (6, 4, 3, 3), 6, 4),
        (Layout("conv", 2), (6, 4, 3, 3), 6, 8),
        (Layout("conv_transpose"), (4, 6, 3), 6, 4),
        (Layout("experts"), (2, 6, 4), 12, 8),
    ],
)
def test_every_layout_counts_its_edges(
    layout: Layout, shape: tuple[int, ...], outputs: int, inputs: int
) -> None:
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(0)) > 0.5
    found = neurons(torch.ones(shape), mask, layout)
    assert (len(found.in_degree), len(found.out_degree)) == (outputs, inputs)
    assert found.in_degree.sum() == found.out_degree.sum() == mask.sum()
    assert torch.equal(found.in_strength, found.in_degree.double())
    for degrees, edges in ((found.in_degree, edges_of_outputs), (found.out_degree, edges_of_inputs)):
        for neuron, degree in enumerate(degrees.tolist()):
            flags = torch.zeros(len(degrees), dtype=torch.bool)
            flags[neuron] = True
            assert int((edges(flags, layout, shape) & mask).sum()) == degree


def test_the_neurons_of_a_convolution_are_its_channels() -> None:
    weight = torch.arange(2 * 3 * 4.0).reshape(2, 3, 2, 2)
    found = neurons(weight, torch.ones_like(weight, dtype=torch.bool), Layout("conv"))
    assert torch.equal(found.in_strength, weight.double().sum((1, 2, 3)))
    assert torch.equal(found.out_strength, weight.double().sum((0, 2, 3)))


class Network:
    """Three layers, the last of which is never cut; the optimizer does nothing, so that all is known."""

    def __init__(self, **options: Any) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(
            nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 5)
        )
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.0)
        self.sparse = bs.Sparsifier(
            "unstructured:0.5",
            topology=Set(neurons=Importance(**options), fraction=Fraction(0.0)),
            schedule=Schedule(every=1),
            ignore=[],
        ).prepare(self.model, self.optimizer)

    def step(self) -> None:
        for parameter in self.model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        self.optimizer.step()

    def strengths(self) -> list[Tensor]:
        return [w.values.abs().sum(1) for w in self.sparse.weights.values()]


def test_the_weakest_neurons_lose_their_edges_and_the_number_shrinks() -> None:
    network = Network(start=2, every=2, share=0.2)
    before, masks = network.strengths(), {n: m.clone() for n, m in network.sparse.masks.items()}
    network.step()
    assert all(torch.equal(mask, masks[name]) for name, mask in network.sparse.masks.items())
    network.step()  # the first cut: 2 of 10 and 4 of 20 neurons, none of the outputs
    counts = {name: int(mask.sum()) for name, mask in network.sparse.masks.items()}
    for index, (name, weight) in enumerate(network.sparse.weights.items()):
        weak = before[index].argsort()[: [2, 4, 0][index]]
        assert not weight.mask[weak].any()
        gone = int(masks[name][weak].sum())
        assert counts[name] == int(masks[name].sum()) - gone
        assert torch.equal(weight.mask, masks[name] & edges_kept(weight.mask, weak))
        assert weight.pattern.kept(weight.mask.numel()) == counts[name]  # type: ignore[union-attr]
    network.step()
    assert {name: int(mask.sum()) for name, mask in network.sparse.masks.items()} == counts
    network.step()  # the second cut: of the neurons that are left, 1 of 8 and 3 of 16
    left = [int((weight.mask.sum(1) > 0).sum()) for weight in network.sparse.weights.values()]
    assert left == [7, 13, 5]
    assert all(check.holds for check in check_masks(network.sparse.weights))


def edges_kept(mask: Tensor, weak: Tensor) -> Tensor:
    kept = torch.ones_like(mask)
    kept[weak] = False
    return kept


def test_one_cut_only_and_named_outputs() -> None:
    network = Network(start=1, every=None, share=0.2, outputs=("2.weight", "4.weight"))
    totals = []
    for _ in range(4):
        totals.append([int(mask.sum()) for mask in network.sparse.masks.values()])
        network.step()
    assert totals[0][0] > totals[1][0] == totals[2][0] == totals[3][0]
    assert totals[0][1:] == totals[3][1:] == [100, 50]


def test_outgoing_edges_go_too_where_layers_follow_one_another() -> None:
    network = Network(start=1, every=None, share=0.2, outgoing=True)
    weak = network.strengths()[0].argsort()[:2]
    network.step()
    masks = list(network.sparse.masks.values())
    assert not masks[0][weak].any()
    assert not masks[1][:, weak].any()
    assert not masks[2].all(1).any()


def test_outgoing_edges_of_other_shapes_are_refused() -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(36, 4), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    bs.Sparsifier(
        "unstructured:0.5",
        topology=Set(neurons=Importance(start=1, share=0.5, outgoing=True)),
        schedule=Schedule(every=1),
        ignore=[],
    ).prepare(model, optimizer)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with pytest.raises(ValueError, match=r"0.weight has 4 outputs but 2.weight, the next weight, 36 inputs"):
        optimizer.step()


@pytest.mark.parametrize("wrong", [{"share": 0.0}, {"share": 1.0}, {"start": 0}, {"every": 0}])
def test_refusals(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Importance(**wrong)


def test_degrees_are_measured() -> None:
    network = Network(start=2)
    figures = network.sparse.metrics()["layers"]["0.weight"]
    mask = network.sparse.masks["0.weight"]
    assert figures["in_degree_max"] == int(mask.sum(1).max())
    assert figures["out_degree_min"] == int(mask.sum(0).min())
    assert figures["in_degree_none"] == 0
    assert figures["in_degree_mean"] == 6.0
