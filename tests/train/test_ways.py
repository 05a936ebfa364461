"""In every way of training, a dropped weight without gradient decays by exactly 1 - lr * (lambda + wd)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tests.train.setting import (
    DECAY,
    FACTOR,
    RATE,
    WEIGHT_DECAY,
    Dropped,
    network,
    sgd,
    silent_loss,
    sparsifier,
)
from torch import nn
from torch.nn.utils import clip_grad_norm_

from bisparse.train import SrSte

STEPS = 3


def test_plain_loop() -> None:
    model = network()
    optimizer = sgd(model)
    dropped = Dropped(sparsifier().prepare(model, optimizer))
    for _ in range(STEPS):
        optimizer.zero_grad()
        silent_loss(model).backward()
        optimizer.step()
    dropped.check(STEPS)


def test_gradient_accumulation_adds_the_term_once_for_each_step() -> None:
    model = network()
    optimizer = sgd(model)
    dropped = Dropped(sparsifier().prepare(model, optimizer))
    for _ in range(STEPS):
        optimizer.zero_grad()
        for _ in range(4):
            silent_loss(model).backward()
        optimizer.step()
    dropped.check(STEPS)


def test_the_term_is_not_clipped() -> None:
    model = network()
    optimizer = sgd(model)
    dropped = Dropped(sparsifier().prepare(model, optimizer))
    for _ in range(STEPS):
        optimizer.zero_grad()
        silent_loss(model).backward()
        clip_grad_norm_(model.parameters(), 1e-30)
        optimizer.step()
    dropped.check(STEPS)


@pytest.mark.parametrize("options", [{"foreach": True}, {"foreach": False}, {"fused": True}], ids=str)
def test_implementations_of_sgd(options: dict[str, bool]) -> None:
    model = network()
    optimizer = sgd(model, **options)
    dropped = Dropped(sparsifier().prepare(model, optimizer))
    for _ in range(STEPS):
        optimizer.zero_grad()
        silent_loss(model).backward()
        optimizer.step()
    dropped.check(STEPS)


@pytest.mark.parametrize("options", [{"foreach": True}, {"foreach": False}, {"fused": True}], ids=str)
def test_adamw_with_the_decoupled_term(options: dict[str, bool]) -> None:
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=WEIGHT_DECAY, **options)
    dropped = Dropped(sparsifier(rule=SrSte(DECAY, mode="decoupled")).prepare(model, optimizer))
    for _ in range(STEPS):
        optimizer.zero_grad()
        silent_loss(model).backward()
        optimizer.step()
    dropped.check(STEPS, (1.0 - RATE * DECAY) * (1.0 - RATE * WEIGHT_DECAY))


def test_a_learning_rate_that_is_a_tensor() -> None:
    model = network()
    rate = torch.tensor(RATE, dtype=torch.float64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    dropped = Dropped(sparsifier(rule=SrSte(DECAY, mode="decoupled")).prepare(model, optimizer))
    silent_loss(model).backward()
    optimizer.step()
    dropped.check(1, 1.0 - RATE * DECAY)


def test_every_parameter_group_has_its_own_factor() -> None:
    model = network()
    groups = [
        {"params": model[0].parameters(), "lr": 0.25},
        {"params": model[2].parameters(), "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(groups, lr=RATE, weight_decay=WEIGHT_DECAY)
    sparse = sparsifier().prepare(model, optimizer)
    before = {name: w.hidden.clone() for name, w in sparse.weights.items()}
    silent_loss(model).backward()
    optimizer.step()
    factors = {"0.weight": 1.0 - 0.25 * (DECAY + WEIGHT_DECAY), "2.weight": 1.0 - RATE * DECAY}
    for name, weight in sparse.weights.items():
        torch.testing.assert_close(weight.hidden, before[name] * factors[name], rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("explicit", [False, True])
def test_a_parameter_group_that_is_added_later(explicit: bool) -> None:
    """Gradual unfreezing: a weight that the optimizer did not hold at first is masked from its first step on."""
    model = network()
    optimizer = sgd(model[0])
    sparse = sparsifier().prepare(model).attach(optimizer, explicit=explicit)
    before = {name: w.hidden.clone() for name, w in sparse.weights.items()}
    for number in range(2):
        if number:
            optimizer.add_param_group({"params": model[2].parameters(), "weight_decay": 0.0})
        model.zero_grad()
        silent_loss(model).backward()
        optimizer.step()
        sparse.step()
    for name, factor in (("0.weight", FACTOR**2), ("2.weight", 1.0 - RATE * DECAY)):
        weight = sparse.weights[name]
        torch.testing.assert_close(weight.hidden, before[name] * factor, rtol=1e-12, atol=0.0)
        assert not (weight.values * weight.dropped).any()
    assert {name: weight.steps for name, weight in sparse.weights.items()} == {"0.weight": 2, "2.weight": 1}


def test_several_optimizers() -> None:
    model = network()
    first, second = sgd(model[0]), sgd(model[2])
    sparse = sparsifier().prepare(model).attach(first).attach(second)
    dropped = Dropped(sparse)
    for _ in range(STEPS):
        for optimizer in (first, second):
            optimizer.zero_grad()
        silent_loss(model).backward()
        first.step()
        second.step()
    dropped.check(STEPS)


OTHERS: list[Callable[[nn.Module], torch.optim.Optimizer]] = [
    lambda m: torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    lambda m: torch.optim.SGD(m.parameters(), lr=0.1, maximize=True),
    lambda m: torch.optim.Adam(m.parameters(), lr=0.01, weight_decay=0.01),
    lambda m: torch.optim.Adam(m.parameters(), lr=0.01, fused=True),
    lambda m: torch.optim.AdamW(m.parameters(), lr=0.01, amsgrad=True),
    lambda m: torch.optim.RMSprop(m.parameters(), lr=0.01, momentum=0.5),
    lambda m: torch.optim.Adagrad(m.parameters(), lr=0.01),
]


@pytest.mark.parametrize("make", OTHERS)
def test_equal_to_an_optimizer_that_sees_w_and_the_rule_s_gradient(
    make: Callable[[nn.Module], torch.optim.Optimizer],
) -> None:
    model, twin = network(), network()
    optimizer, other = make(model), make(twin)
    sparse = sparsifier().prepare(model, optimizer)
    inputs, targets = torch.randn(16, 8).double(), torch.randn(16, 8).double()
    masks = {name: w.mask.double() for name, w in sparse.weights.items()}
    sign = -1.0 if optimizer.param_groups[0]["maximize"] else 1.0
    for _ in range(5):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(inputs), targets).backward()
        for (name, parameter), mine in zip(twin.named_parameters(), model.parameters(), strict=True):
            parameter.grad = mine.grad.clone()
            if name in masks:
                parameter.grad += sign * DECAY * (1.0 - masks[name]) * parameter.detach()
        optimizer.step()
        other.step()
    for name, weight in sparse.weights.items():
        whole = dict(twin.named_parameters())[name].detach()
        torch.testing.assert_close(weight.values + weight.hidden, whole, rtol=1e-12, atol=1e-14)
        assert torch.equal(weight.values, weight.values * masks[name])


def test_factor_is_not_one() -> None:
    assert pytest.approx(0.94) == FACTOR
