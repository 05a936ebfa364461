"""Truly sparse networks: their sizes, and that they train as the masked dense network does."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable

import pytest
import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

import bisparse as bs
from bisparse.nn import AllReLU, SparseLinear, SparseMLP
from bisparse.nn.sparse_mlp import PUBLISHED

WIDTHS = (12, 20, 16, 4)


def network(**options) -> SparseMLP:
    return SparseMLP(WIDTHS, **{"epsilon": 3, "seed": 0, **options})


def batch(step: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(8, 12, generator=generator), torch.randint(4, (8,), generator=generator)


def test_every_layer_has_its_erdos_renyi_number_and_a_full_one_is_ordinary():
    model = network()
    assert [layer.nnz for layer in model.sparse_layers] == [3 * 32, 3 * 36, 3 * 20]
    model = network(epsilon=4)  # 4 * (16 + 4) = 80 >= 64
    assert [type(layer) for layer in model if not isinstance(layer, AllReLU)] == [
        SparseLinear, SparseLinear, nn.Linear,
    ]  # fmt: skip
    assert model.weight_count == 4 * 32 + 4 * 36 + 64
    assert [type(layer) for layer in network(last="dense")][-1] is nn.Linear
    dense = network(epsilon=None, density=1)
    assert dense.sparse_layers == []
    assert dense.weight_count == 12 * 20 + 20 * 16 + 16 * 4


def test_slopes_alternate_from_the_first_hidden_layer_on():
    model = network(slope=0.5)
    assert [layer(torch.tensor(-2.0)).item() for layer in model if isinstance(layer, AllReLU)] == [1.0, -1.0]
    assert sum(isinstance(layer, nn.ReLU) for layer in network(activation="relu")) == 2
    assert [layer.p for layer in network(dropout=0.3) if isinstance(layer, nn.Dropout)] == [0.3, 0.3]


@pytest.mark.parametrize(
    ("name", "widths", "connections"),
    [
        ("mnist", (784, 1000, 1000, 1000, 10), 20 * 1784 + 2 * 20 * 2000 + 10_000),
        ("fashion-mnist", (784, 1000, 1000, 1000, 10), 125_680),
        ("cifar10", (3072, 4000, 1000, 4000, 10), 20 * (7072 + 5000 + 5000) + 40_000),
        ("madelon", (500, 400, 100, 400, 1), 20 * (900 + 500 + 500) + 400),
    ],
)
def test_published_architectures(name, widths, connections):
    assert tuple(PUBLISHED[name]["widths"]) == widths
    model = SparseMLP.published(name, seed=0)
    assert model.weight_count == connections
    assert model(torch.randn(2, widths[0])).shape == (2, widths[-1])
    assert SparseMLP.published(name, density=0.01, seed=0).weight_count < 0.011 * sum(
        a * b for a, b in itertools.pairwise(widths)
    )


def test_images_are_flattened():
    images = torch.randn(3, 1, 3, 4)
    model = network()
    assert torch.equal(model(images), model(images.flatten(1)))


def test_a_seed_decides_everything_else_the_global_generator_does():
    states = [network(seed=seed).state_dict() for seed in (1, 1, 2)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0]["0.col"], states[2]["0.col"])
    torch.manual_seed(5)
    first, second = network(seed=None), network(seed=None)
    torch.manual_seed(5)
    again = network(seed=None)
    assert torch.equal(first[0].col, again[0].col)
    assert not torch.equal(first[0].col, second[0].col)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": None}, "give one of them"),
        ({"density": 0.1}, "give one of them"),
        ({"epsilon": -1.0}, "must be positive"),
        ({"epsilon": None, "density": 1.5}, "between 0 and 1"),
        ({"activation": "tanh"}, "choose all-relu or relu"),
        ({"init": "ones"}, "choose one of"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        network(**options)


def test_wrong_widths_and_names_are_refused():
    with pytest.raises(ValueError, match="input and an output width"):
        SparseMLP((5,), epsilon=1)
    with pytest.raises(ValueError, match="none of the architectures mnist"):
        SparseMLP.published("imagenet")


def masks_of(model: SparseMLP) -> dict[str, Tensor]:
    """By name of the dense weight; 1 where a connection is."""
    masks = {}
    for number, layer in enumerate(model):
        if isinstance(layer, SparseLinear):
            mask = torch.zeros(layer.out_features, layer.in_features)
            mask[layer.index.rows(), layer.col.long()] = 1.0
            masks[f"{number}.weight"] = mask
    return masks


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, masks: dict[str, Tensor], count: int) -> None:
    parameters = dict(model.named_parameters())
    for step in range(count):
        inputs, labels = batch(step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        for name, mask in masks.items():
            parameters[name].grad.mul_(mask)
        optimizer.step()


OPTIMIZERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "sgd": lambda model: torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3),
    "adam": lambda model: torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=1e-3),
    "adamw": lambda model: torch.optim.AdamW(model.parameters(), lr=0.01),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_twenty_steps_equal_those_of_the_masked_dense_network(optimizer, dtype, monkeypatch):
    sparse = network().to(dtype)
    dense, masks = bs.to_dense(sparse), {name: m.to(dtype) for name, m in masks_of(sparse).items()}
    assert not dense.sparse_layers
    inputs, labels = batch()
    monkeypatch.setitem(
        globals(), "batch", lambda step=0, made=batch: (made(step)[0].to(dtype), made(step)[1])
    )
    for model in (sparse, dense):
        nn.functional.cross_entropy(model(inputs.to(dtype)), labels).backward()
    for number, layer in enumerate(sparse):
        if isinstance(layer, SparseLinear):
            grad = dense[number].weight.grad[layer.index.rows(), layer.col.long()]
            torch.testing.assert_close(layer.values.grad, grad, rtol=1e-5, atol=1e-6)
    steps(sparse, OPTIMIZERS[optimizer](sparse), {}, 20)
    steps(dense, OPTIMIZERS[optimizer](dense), masks, 20)
    after = bs.to_dense(sparse)
    for (name, one), other in zip(after.named_parameters(), dense.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6, msg=name)


def test_a_masked_dense_network_becomes_a_sparse_one_layer_by_layer():
    sparse = network()
    dense = bs.to_dense(sparse)
    back = copy.deepcopy(dense)
    masks = masks_of(sparse)
    for number, layer in enumerate(dense):
        if isinstance(layer, nn.Linear):
            back[number] = SparseLinear.from_linear(layer, masks[f"{number}.weight"].bool())
    inputs, _ = batch()
    assert back.weight_count == sparse.weight_count
    torch.testing.assert_close(back(inputs), sparse(inputs), rtol=0, atol=0)


def test_files_hold_the_connections_and_load_into_other_ones(tmp_path):
    model, other = network(), network(seed=9, epsilon=1)
    save_model(model, str(tmp_path / "net.safetensors"))
    assert (tmp_path / "net.safetensors").stat().st_size < 8 * model.weight_count + 4000
    load_model(other, str(tmp_path / "net.safetensors"))
    inputs, _ = batch()
    assert torch.equal(other(inputs), model(inputs))
    assert other.weight_count == model.weight_count
