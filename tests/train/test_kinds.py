"""Every kind of weight: masks are those of its matrices, and training keeps them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.train.setting import network, sparsifier
from torch import Tensor, nn

import bisparse as bs
from bisparse.train import Sparsifier
from bisparse.weights import as_matrices


class Conv1D(nn.Module):
    """A linear layer with the transposed weight of GPT-2's."""

    def __init__(self) -> None:
        super().__init__()
        self.nf = 8
        self.weight = nn.Parameter(torch.randn(12, 8) / 4)

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs @ self.weight


class Experts(nn.Module):
    """Three experts in one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = nn.Parameter(torch.randn(3, 8, 12) / 4)

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.einsum("erc,bc->ebr", self.stack, inputs)


class Tied(nn.Module):
    """One weight in two modules."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(12, 12), nn.Linear(12, 12)
        self.second.weight = self.first.weight

    def forward(self, inputs: Tensor) -> Tensor:
        return self.second(self.first(inputs).tanh())


class Attention(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(12, 3, batch_first=True, **options)

    def forward(self, inputs: Tensor) -> Tensor:
        x = inputs.unsqueeze(0)
        extra = {"kdim": 8}
        y = x if self.inner._qkv_same_embed_dim else x[..., : extra["kdim"]]
        return self.inner(x, y, y)[0]


def image(inputs: Tensor) -> Tensor:
    return inputs.reshape(-1, 12, 1, 1).expand(-1, 12, 5, 5)


KINDS: dict[str, tuple[Callable[[], nn.Module], Callable[[Tensor], Tensor]]] = {
    "linear": (lambda: nn.Linear(12, 20), lambda x: x),
    "ragged": (lambda: nn.Linear(12, 7), lambda x: x),
    "conv": (lambda: nn.Conv2d(12, 8, 3), image),
    "grouped conv": (lambda: nn.Conv2d(12, 16, 3, groups=2), image),
    "transposed conv": (lambda: nn.ConvTranspose2d(12, 8, 3, groups=2), image),
    "attention": (Attention, lambda x: x),
    "split attention": (lambda: Attention(kdim=8, vdim=8), lambda x: x),
    "lstm": (lambda: nn.LSTM(12, 8), lambda x: x.unsqueeze(0)),
    "gru": (lambda: nn.GRU(12, 8, bidirectional=True), lambda x: x.unsqueeze(0)),
    "transformers' conv1d": (Conv1D, lambda x: x),
    "experts": (Experts, lambda x: x),
    "tied": (Tied, lambda x: x),
}


def loss_of(output: Any) -> Tensor:
    return (output[0] if isinstance(output, tuple) else output).square().mean()


CASES = [(kind, pattern) for kind in KINDS for pattern in ("2:4t", "1:4", "unstructured:0.75")]
CASES.remove(("experts", "1:4"))  # refused: their input axis is not known


@pytest.mark.parametrize(("kind", "pattern"), CASES)
def test_masks_are_those_of_the_weight_s_matrices(kind: str, pattern: str) -> None:
    torch.manual_seed(0)
    make, shape_input = KINDS[kind]
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    sparse = Sparsifier(pattern, rule="ste", update_every=2, ignore=[]).prepare(model, optimizer)
    first = {name: mask.clone() for name, mask in sparse.masks.items()}
    for _ in range(6):
        optimizer.zero_grad()
        loss_of(model(shape_input(torch.randn(9, 12)))).backward()
        optimizer.step()
    for name, weight in sparse.weights.items():
        assert not (weight.values * ~weight.mask).any()
        scores = as_matrices((weight.values + weight.hidden).abs(), weight.layout)
        best = bs.solve_mask(scores, pattern)
        assert torch.equal(as_matrices(weight.mask, weight.layout), best.mask), name
    assert any(not torch.equal(mask, first[name]) for name, mask in sparse.masks.items())


def test_a_tied_weight_is_one_weight() -> None:
    model = Tied()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparse = sparsifier().prepare(model, optimizer)
    assert list(sparse.weights) == ["first.weight"]
    model(torch.randn(4, 12)).sum().backward()
    optimizer.step()
    assert model.second.weight is model.first.weight


def test_patterns_by_selector() -> None:
    sparse = Sparsifier({"0": "1:4", nn.Linear: "4:8t"}, ignore=[]).prepare(network())
    assert {name: str(w.pattern) for name, w in sparse.weights.items()} == {
        "0.weight": "1:4",
        "2.weight": "4:8t",
    }
    assert (
        Sparsifier({"0": "1:4"}, ignore=[]).prepare(network()).left_out["2.weight"].startswith("no pattern")
    )


def test_bias_and_protected_layers_stay_as_they_are() -> None:
    model = network()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    sparse = Sparsifier("2:4t").prepare(model)
    assert list(sparse.weights) == ["0.weight"]
    assert "last classifier" in sparse.left_out["2.weight"]
    for name in ("0.bias", "2.weight", "2.bias"):
        assert torch.equal(dict(model.named_parameters())[name], before[name])


def test_evaluating_changes_nothing() -> None:
    model = network()
    sparse = Sparsifier("2:4t", ignore=[]).prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    model.eval()
    with torch.no_grad():
        model(torch.randn(4, 8).double())
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert sparse.metrics()["step"] == 0


def embedding() -> nn.Module:
    return nn.Sequential(nn.Embedding(16, 8, sparse=True), nn.Linear(8, 8))


def frozen_elsewhere() -> None:
    model = network()
    sparsifier().prepare(model).attach(torch.optim.SGD(network().parameters(), lr=0.1))


def attached_twice() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparsifier().prepare(model, optimizer).attach(optimizer)


def not_a_number() -> None:
    model = network()
    with torch.no_grad():
        model[0].weight[1, 2] = torch.nan
    sparsifier().prepare(model)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Sparsifier("2:4t", update_every=0), "update_every=0"),
        (lambda: Sparsifier("2:4t", window=0), "window=0"),
        (lambda: Sparsifier("2:4t", hysteresis=-1.0), "hysteresis=-1"),
        (lambda: Sparsifier("2:4t", average=1.0), "average=1.0"),
        (lambda: Sparsifier("2:4x").prepare(network()), "cannot read the pattern"),
        (lambda: Sparsifier("1:4", ignore=[]).prepare(Experts()), "must know which axis"),
        (lambda: Sparsifier("2:4t", targets=["nothing"]).prepare(network()), "matches no weight"),
        (lambda: Sparsifier("2:4t", ignore=[]).prepare(embedding()), "sparse=False"),
        (lambda: sparsifier().attach(None), "prepare"),
        (lambda: sparsifier().squash_mask(), "prepare"),
        (lambda: sparsifier().prepare(network()).step(), "explicit=True"),
        (frozen_elsewhere, "holds none of the 2 prepared weights: build it from the same model"),
        (attached_twice, "holds none of the 2 prepared weights that have no optimizer yet"),
        (not_a_number, r"0.weight, step 0: scores\[0, 1, 2\] = nan"),
    ],
)
def test_errors_say_what_to_do(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_a_sparsifier_has_one_model() -> None:
    sparse = sparsifier().prepare(network())
    with pytest.raises(ValueError, match="has a model already"):
        sparse.prepare(network())


def test_a_model_has_one_sparsifier() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    first = sparsifier().prepare(model, optimizer)
    second = sparsifier().prepare(model, optimizer)
    model(torch.randn(4, 8).double()).sum().backward()
    with pytest.raises(
        ValueError, match=r"If another sparsifier has the weight as well: squash_mask\(\) there"
    ):
        optimizer.step()
    first.squash_mask()
    optimizer.step()
    assert [int((model[index].weight != 0).sum()) for index in (0, 2)] == [32, 32]
    assert second.metrics()["step"] == 1


def test_arguments_in_the_wrong_order_are_told() -> None:
    model = network()
    with pytest.raises(TypeError, match=r"model is no torch.nn.Module but SGD"):
        sparsifier().prepare(torch.optim.SGD(model.parameters(), lr=0.1), model)  # type: ignore[arg-type]


def test_a_model_without_weights_is_told() -> None:
    with pytest.raises(
        ValueError, match=r"no weight to prune .the model has none.; see targets= and ignore="
    ):
        sparsifier().prepare(nn.Sequential(nn.LayerNorm(4), nn.ReLU()))


def test_a_failed_prepare_leaves_the_model_alone() -> None:
    model = network()
    with torch.no_grad():
        model[2].weight[0, 0] = torch.inf
    before = model[0].weight.detach().clone()
    sparse = sparsifier()
    with pytest.raises(ValueError, match=r"2.weight"):
        sparse.prepare(model)
    assert torch.equal(model[0].weight, before)
    assert sparse.metrics()["refreshes"] == 0
