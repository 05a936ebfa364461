"""Trained thresholds: gradients, masks, resets, the penalty's balance with weight decay; all against closed forms."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from scipy.special import lambertw
from tests.train.setting import network, same, silent_loss
from torch import Tensor, nn
from torch.func import functional_call

import bisparse as bs
from bisparse.train import Dst, Schedule
from bisparse.train.thresholds import LongTail, Reset, resolve_granularity
from bisparse.weights import Layout


def sparse_training(model: nn.Module, optimizer: Any = None, **numbers: Any) -> bs.Sparsifier:
    return bs.Sparsifier("unstructured:0", rule=Dst(**numbers), ignore=[]).prepare(model, optimizer)


def randomise(sparsifier: bs.Sparsifier, scale: float = 0.3) -> None:
    """Thresholds of both signs around the weights' magnitudes; masks follow at the next step."""
    for weight in sparsifier.weights.values():
        thresholds = weight.learned["threshold"].detach()
        thresholds.copy_(torch.rand_like(thresholds) * scale - scale / 10)


def dense(sparsifier: bs.Sparsifier) -> dict[str, Tensor]:
    return {name: (w.values + w.hidden).clone() for name, w in sparsifier.weights.items()}


class Step(torch.autograd.Function):
    """S(x), with H(x) as its derivative."""

    @staticmethod
    def forward(ctx: Any, distance: Tensor) -> Tensor:
        ctx.save_for_backward(distance)
        return (distance > 0).to(distance.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        x = ctx.saved_tensors[0].abs()
        tail = torch.where(x <= 0.4, 2.0 - 4.0 * x, torch.full_like(x, 0.4))
        return gradient * torch.where(x <= 1.0, tail, torch.zeros_like(x))


class Gates(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.rnn = kind(6, 5, num_layers=2)  # type: ignore[call-arg]

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.rnn(inputs.reshape(4, 2, 6))[0]
        return outputs.sum(0)


MODELS: dict[str, Any] = {
    "linear": lambda: nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 3)),
    "conv": lambda: nn.Sequential(
        nn.Unflatten(1, (2, 3)), nn.Conv1d(2, 4, 2), nn.Tanh(), nn.Conv1d(4, 4, 1, groups=2)
    ),
    "transposed": lambda: nn.Sequential(nn.Unflatten(1, (2, 3)), nn.ConvTranspose1d(2, 6, 2, groups=2)),
    "lstm": lambda: Gates(nn.LSTM),
    "gru": lambda: Gates(nn.GRU),
}


@pytest.mark.parametrize("granularity", ["vector", "scalar", "matrix", "tile:2"])
@pytest.mark.parametrize("kind", MODELS)
def test_gradients_equal_autograd_through_the_estimator(kind: str, granularity: str) -> None:
    torch.manual_seed(0)
    model = MODELS[kind]().double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    sparsifier = sparse_training(model, optimizer, alpha=0.01, granularity=granularity, reset=Reset("off"))
    randomise(sparsifier)
    silent = sum((p * 0.0).sum() for p in model.parameters())
    silent.backward()  # type: ignore[union-attr]
    optimizer.step()  # masks follow the thresholds
    inputs = torch.randn(8, 6).double()
    weights = {name: value.requires_grad_() for name, value in dense(sparsifier).items()}
    thresholds = {
        name: w.learned["threshold"].detach().clone().requires_grad_()
        for name, w in sparsifier.weights.items()
    }
    masked = {}
    for name, weight in sparsifier.weights.items():
        spread = resolve_granularity(granularity).spread(thresholds[name], weight.shape, weight.layout)
        masked[name] = weights[name] * Step.apply(weights[name].abs() - spread)
        assert torch.equal(masked[name].detach(), weight.values)
    penalty = sum(0.01 * torch.exp(-t).sum() for t in thresholds.values())
    (functional_call(model, masked, inputs).square().sum() + penalty).backward()
    optimizer.zero_grad()
    model(inputs).square().sum().backward()
    optimizer.step()
    assert (
        0
        < sum(int(w.mask.sum()) for w in sparsifier.weights.values())
        < sum(w.mask.numel() for w in sparsifier.weights.values())
    )
    for name, weight in sparsifier.weights.items():
        assert weight.gradient is not None
        torch.testing.assert_close(weight.gradient, weights[name].grad, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(
            weight.learned["threshold"].grad, thresholds[name].grad, rtol=1e-12, atol=1e-12
        )


@pytest.mark.parametrize("granularity", ["vector", "scalar", "matrix", "tile:4"])
@pytest.mark.parametrize("maximize", [False, True])
def test_the_penalty_pulls_each_threshold_up(granularity: str, maximize: bool) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, maximize=maximize)
    sparsifier = sparse_training(model, optimizer, alpha=0.3, granularity=granularity)
    before = {name: w.learned["threshold"].detach().clone() for name, w in sparsifier.weights.items()}
    silent_loss(model).backward()
    optimizer.step()
    for name, weight in sparsifier.weights.items():
        expected = before[name] + 0.5 * 0.3 * torch.exp(-before[name])
        torch.testing.assert_close(weight.learned["threshold"].detach(), expected, rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("strict", [True, False])
def test_thresholds_of_zero_drop_what_is_zero_or_nothing(strict: bool) -> None:
    model = network()
    with torch.no_grad():
        model[0].weight[2, 3] = 0.0
    sparsifier = sparse_training(model, strict=strict)
    assert torch.equal(sparsifier.masks["0.weight"], (model[0].weight != 0) | (not strict))
    assert sparsifier.masks["2.weight"].all()


def test_weights_that_are_dropped_keep_their_values_and_learn() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    sparsifier = sparse_training(model, optimizer, start=0.2)
    before, mask = dense(sparsifier), {k: v.clone() for k, v in sparsifier.masks.items()}
    model(torch.randn(8, 8).double()).square().mean().backward()
    optimizer.step()
    for name, weight in sparsifier.weights.items():
        dropped = ~mask[name]
        assert dropped.any()
        assert not weight.values[~weight.mask].any()
        assert (dense(sparsifier)[name] != before[name])[dropped].any()


def step_once(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    silent_loss(model).backward()
    optimizer.step()


def test_reset_happens_in_the_step_and_forgets_momentum() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9)
    sparsifier = sparse_training(model, optimizer, alpha=0.1)
    weight = sparsifier.weights["0.weight"]
    thresholds = weight.learned["threshold"]
    step_once(model, optimizer)
    assert "momentum_buffer" in optimizer.state[thresholds]
    assert sparsifier.metrics()["resets"] == 0.0
    with torch.no_grad():
        thresholds.fill_(5.0)
    step_once(model, optimizer)
    assert torch.equal(thresholds.detach(), torch.zeros_like(thresholds))
    assert thresholds not in optimizer.state
    assert weight.mask.all()
    assert sparsifier.metrics()["resets"] == sparsifier.metrics()["layers"]["0.weight"]["resets"] == 1.0


def test_evaluation_changes_nothing() -> None:
    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    sparsifier = sparse_training(model, optimizer)
    step_once(model, optimizer)
    with torch.no_grad():
        for weight in sparsifier.weights.values():
            weight.learned["threshold"].fill_(50.0)  # the next step will reset them
    states = [copy.deepcopy(part.state_dict()) for part in (model, sparsifier, optimizer)]
    model.eval()
    with torch.no_grad():
        first, second = model(torch.ones(3, 8).double()), model(torch.ones(3, 8).double())
    model.train()
    model(torch.ones(3, 8).double())
    assert torch.equal(first, second)
    for part, state in zip((model, sparsifier, optimizer), states, strict=True):
        assert same(part.state_dict(), state)


def test_with_weight_decay_thresholds_stop_at_lambert_s_w() -> None:
    """decay * t = alpha * exp(-t), where the loss has no say."""
    alpha, decay = 0.05, 0.1
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, weight_decay=decay)
    sparsifier = sparse_training(model, optimizer, alpha=alpha, faithful=True, reset=Reset("off"))
    for _ in range(400):
        step_once(model, optimizer)
    expected = float(lambertw(alpha / decay).real)
    for weight in sparsifier.weights.values():
        thresholds = weight.learned["threshold"].detach()
        torch.testing.assert_close(thresholds, torch.full_like(thresholds, expected), rtol=1e-9, atol=0.0)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [decay, decay]


def test_without_it_they_rise_for_ever() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, weight_decay=0.1)
    sparsifier = sparse_training(model, optimizer, alpha=0.05, reset=Reset("off"))
    for _ in range(400):
        step_once(model, optimizer)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    # dt = alpha exp(-t) per step, so that t = log(1 + alpha * steps) up to the size of a step
    assert sparsifier.metrics()["threshold"] == pytest.approx(torch.log(torch.tensor(21.0)).item(), rel=0.02)


def test_masks_follow_every_step_and_measures_the_schedule() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparsifier = bs.Sparsifier("unstructured:0", rule=Dst(alpha=0.2), update_every=4, ignore=[])
    sparsifier.prepare(model, optimizer)
    kept = []
    for _ in range(12):
        step_once(model, optimizer)
        kept.append(sum(int(mask.sum()) for mask in sparsifier.masks.values()))
        for weight in sparsifier.weights.values():
            saliency = (weight.values + weight.hidden).abs() - weight.learned["threshold"].detach()
            assert torch.equal(weight.mask, saliency > 0)
    assert len(set(kept)) > 6
    assert [row["step"] for row in sparsifier.history] == [0, 4, 8, 12]
    assert sparsifier.metrics()["density"] == kept[-1] / 128


def test_freezing_fixes_masks_and_thresholds() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    sparsifier = sparse_training(model, optimizer, alpha=0.2)
    for _ in range(3):
        step_once(model, optimizer)
    sparsifier.freeze()
    before = {
        name: (w.mask.clone(), w.learned["threshold"].detach().clone())
        for name, w in sparsifier.weights.items()
    }
    hidden = {name: w.hidden.clone() for name, w in sparsifier.weights.items()}
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(8, 8).double()).square().mean().backward()
        kept = {name: w.gradient.clone() for name, w in sparsifier.weights.items() if w.gradient is not None}
        optimizer.step()
        for name, weight in sparsifier.weights.items():
            assert torch.equal(weight.mask, before[name][0])
            assert torch.equal(weight.learned["threshold"].detach(), before[name][1])
            assert weight.gradient is not None
            assert torch.equal(weight.gradient, kept[name] * weight.mask)
    assert same(hidden, {name: w.hidden for name, w in sparsifier.weights.items()})


def test_a_schedule_may_freeze_too() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparsifier = bs.Sparsifier("unstructured:0", rule=Dst(alpha=0.2), schedule=Schedule(freeze=2), ignore=[])
    sparsifier.prepare(model, optimizer)
    seen = []
    for _ in range(4):
        step_once(model, optimizer)
        seen.append(sparsifier.metrics()["threshold"])
    assert seen[0] < seen[1] == seen[2] == seen[3]


def test_reported_density_of_an_lstm_counts_masks() -> None:
    torch.manual_seed(0)
    model = nn.LSTM(6, 5, num_layers=2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    sparsifier = bs.Sparsifier("unstructured:0", rule=Dst(alpha=1.0, reset=Reset("off")), update_every=1)
    sparsifier.prepare(model, optimizer)
    for _ in range(4):
        optimizer.zero_grad()
        model(torch.randn(7, 3, 6))[0].square().mean().backward()
        optimizer.step()
    shown = {name: p for name, p in model.named_parameters() if name.startswith("weight")}
    ratio = sum(int((p != 0).sum()) for p in shown.values()) / sum(p.numel() for p in shown.values())
    assert 0.0 < ratio < 1.0
    assert sparsifier.metrics()["density"] == pytest.approx(ratio, abs=1e-12)
    assert sparsifier.weights["weight_hh_l1"].learned["threshold"].shape == (20, 1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_thresholds_have_at_least_single_precision(dtype: torch.dtype) -> None:
    model = network(dtype=dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparsifier = sparse_training(model, optimizer, alpha=1e-3)
    step_once(model, optimizer)
    expected = torch.promote_types(dtype, torch.float32)
    for weight in sparsifier.weights.values():
        assert weight.learned["threshold"].dtype == expected
        assert weight.learned["threshold"].min() > 0


def test_another_estimator() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    sparsifier = sparse_training(
        model, optimizer, start=0.1, alpha=0.0, estimator=LongTail(1.0, 1.0, 1.0, 1.0)
    )
    masks = {name: mask.clone() for name, mask in sparsifier.masks.items()}
    model(torch.randn(8, 8).double()).square().mean().backward()
    came = {name: w.gradient.clone() for name, w in sparsifier.weights.items() if w.gradient is not None}
    full = dense(sparsifier)
    optimizer.step()
    for name, weight in sparsifier.weights.items():  # a box: H = 1 everywhere here
        torch.testing.assert_close(weight.gradient, came[name] * (masks[name] + full[name].abs()))


def test_numbers_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="alpha=-1"):
        Dst(alpha=-1.0)
    with pytest.raises(ValueError, match="unknown granularity"):
        Dst(granularity="column")
    assert Dst(granularity="scalar").granularity == resolve_granularity("scalar")
    assert resolve_granularity("scalar").shape((4, 3), Layout()) == (1, 1)
