"""Closures, GradScaler, optimizers in backward, explicit steps: the same exact decay as in a plain loop."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from tests.train.setting import (
    DECAY,
    RATE,
    WEIGHT_DECAY,
    Dropped,
    network,
    same,
    sgd,
    silent_loss,
    sparsifier,
)
from torch import nn
from torch.nn.utils import clip_grad_norm_

from bisparse.train import SrSte

STEPS = 3


@pytest.mark.parametrize("by_name", [False, True])
def test_closures(by_name: bool) -> None:
    model = network()
    optimizer = sgd(model)
    dropped = Dropped(sparsifier().prepare(model, optimizer))
    seen = []

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        seen.append(int((model[0].weight != 0).sum()))
        loss = silent_loss(model)
        loss.backward()
        return loss

    for _ in range(STEPS):
        loss = optimizer.step(closure=closure) if by_name else optimizer.step(closure)
        assert isinstance(loss, torch.Tensor)
    dropped.check(STEPS)
    assert seen == [32] * STEPS  # the closure saw W*E, not W


def test_an_optimizer_that_evaluates_its_closure_many_times() -> None:
    model = network()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=5)
    sparse = sparsifier(rule=SrSte(0.0), update_every=2).prepare(model, optimizer)
    inputs, targets = torch.randn(16, 8).double(), torch.randn(16, 8).double()
    seen = []

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(inputs), targets)
        loss.backward()
        seen.append((float(loss.detach()), int((model[0].weight != 0).sum())))
        return loss

    for _ in range(4):
        optimizer.step(closure)
    assert len(seen) > 8
    assert all(kept == 32 for _, kept in seen)
    assert seen[-1][0] < seen[0][0]
    assert sparse.metrics()["step"] == 4


def test_the_decoupled_term_is_taken_once_however_often_the_closure_is_evaluated() -> None:
    model = network()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=RATE, max_iter=5)
    dropped = Dropped(sparsifier(rule=SrSte(DECAY, mode="decoupled")).prepare(model, optimizer))
    evaluations = []

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = silent_loss(model) + (model[2].bias - 3.0).pow(4).sum()  # weights do not matter to it
        loss.backward()
        evaluations.append(float(loss.detach()))
        return loss

    optimizer.step(closure)
    assert len(evaluations) > 2
    dropped.check(1, 1.0 - RATE * DECAY)


def scaled_step(model: nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> None:
    optimizer.zero_grad()
    scaler.scale(silent_loss(model)).backward()
    scaler.step(optimizer)
    scaler.update()


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("unscale", [False, True])
def test_grad_scaler(fused: bool, unscale: bool) -> None:
    model = network(dtype=torch.float32)
    optimizer = sgd(model, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    dropped = Dropped(sparsifier().prepare(model, optimizer))
    for _ in range(STEPS):
        optimizer.zero_grad()
        scaler.scale(silent_loss(model)).backward()
        if unscale:
            scaler.unscale_(optimizer)
            clip_grad_norm_(model.parameters(), 1e-30)
        scaler.step(optimizer)
        scaler.update()
    dropped.check(STEPS, tolerance=1e-6)


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_the_scaler_skips_changes_nothing(fused: bool) -> None:
    model = network(dtype=torch.float32)
    optimizer = sgd(model, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    sparse = sparsifier(update_every=2).prepare(model, optimizer)
    scaled_step(model, optimizer, scaler)
    before, state = copy.deepcopy(model.state_dict()), sparse.state_dict()
    optimizer.zero_grad()
    scaler.scale(silent_loss(model) + model[0].weight.sum() * torch.inf).backward()
    scaler.step(optimizer)
    scaler.update()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert same(sparse.state_dict(), state)
    scaled_step(model, optimizer, scaler)
    assert sparse.metrics()["refreshes"] == 2  # at prepare and after the second step that counted


def test_optimizer_in_backward() -> None:
    model = network()
    optimizers = {p: torch.optim.SGD([p], lr=RATE, weight_decay=WEIGHT_DECAY) for p in model.parameters()}
    sparse = sparsifier().prepare(model)
    for parameter, optimizer in optimizers.items():
        if parameter.dim() == 2:
            sparse.attach(optimizer)

    def step(parameter: nn.Parameter) -> None:
        optimizers[parameter].step()
        optimizers[parameter].zero_grad()

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(step)
    dropped = Dropped(sparse)
    for _ in range(STEPS):
        silent_loss(model).backward()
    dropped.check(STEPS)


def test_explicit_steps_with_the_optimizer_in_backward() -> None:
    model = network()
    optimizer = sgd(model)
    sparse = sparsifier().prepare(model).attach(optimizer, explicit=True)

    def step(parameter: nn.Parameter) -> None:
        kept, optimizer.param_groups[0]["params"] = optimizer.param_groups[0]["params"], [parameter]
        optimizer.step()
        optimizer.param_groups[0]["params"] = kept
        parameter.grad = None

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(step)
    dropped = Dropped(sparse)
    for _ in range(STEPS):
        silent_loss(model).backward()
        sparse.step()
    dropped.check(STEPS)


class Plain:
    """An optimizer of nobody's family: no hooks."""

    def __init__(self, model: nn.Module) -> None:
        self.param_groups = [{"params": list(model.parameters()), "lr": RATE, "weight_decay": WEIGHT_DECAY}]

    @torch.no_grad()
    def step(self) -> None:
        for parameter in self.param_groups[0]["params"]:
            parameter -= RATE * (parameter.grad + WEIGHT_DECAY * parameter)


def test_explicit_steps_without_hooks() -> None:
    model = network()
    optimizer = Plain(model)
    sparse = sparsifier().prepare(model)
    with pytest.raises(TypeError, match="explicit=True"):
        sparse.attach(optimizer)
    sparse.attach(optimizer, explicit=True)
    dropped = Dropped(sparse)
    for _ in range(STEPS):
        model.zero_grad()
        silent_loss(model).backward()
        optimizer.step()
        sparse.step()
    dropped.check(STEPS)


def test_step_does_nothing_where_hooks_have_done_it() -> None:
    model = network()
    optimizer = sgd(model)
    sparse = sparsifier().prepare(model, optimizer)
    dropped = Dropped(sparse)
    silent_loss(model).backward()
    optimizer.step()
    sparse.step()
    dropped.check(1)


def test_without_gradient_the_weight_is_left_alone_like_weight_decay_and_the_log_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = network()
    optimizer = sgd(model)
    sparse = sparsifier().prepare(model, optimizer)
    dropped = Dropped(sparse)
    shown = model[0].weight.detach().clone()
    optimizer.step()
    optimizer.step()
    for name, weight in sparse.weights.items():
        assert torch.equal(weight.hidden, dropped.before[name])
    assert torch.equal(model[0].weight, shown)
    assert [r.message.split(" has no")[0] for r in caplog.records] == ["0.weight", "2.weight"]


def test_gradients_of_zeros_decay() -> None:
    model = network()
    optimizer = sgd(model)
    dropped = Dropped(sparsifier().prepare(model, optimizer))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    dropped.check(1)


def test_a_step_that_raises_leaves_the_model_usable() -> None:
    model = network()
    optimizer = sgd(model)
    dropped = Dropped(sparsifier().prepare(model, optimizer))

    def closure() -> torch.Tensor:
        raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="out of luck"):
        optimizer.step(closure)
    assert int((model[0].weight != 0).sum()) == 32
    silent_loss(model).backward()
    optimizer.step()
    dropped.check(1)


class Inner(torch.optim.SGD):
    """Hooks run at its step and at that of the class above it."""

    def step(self, closure: Callable[[], torch.Tensor] | None = None) -> torch.Tensor | None:  # type: ignore[override]
        return super().step(closure)


@pytest.mark.parametrize("closed", [False, True])
def test_an_optimizer_that_calls_the_step_of_its_base_class(closed: bool) -> None:
    torch.optim.SGD([nn.Parameter(torch.zeros(1))])  # now both classes run hooks
    model = network()
    optimizer = Inner(model.parameters(), lr=RATE, weight_decay=WEIGHT_DECAY)
    dropped = Dropped(sparsifier().prepare(model, optimizer))

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = silent_loss(model)
        loss.backward()
        return loss

    for _ in range(STEPS):
        if closed:
            optimizer.step(closure)
        else:
            closure()
            optimizer.step()
    dropped.check(STEPS)


class Failing(torch.optim.SGD):
    """Fails after half of its work."""

    fails = True

    def step(self, closure: Callable[[], torch.Tensor] | None = None) -> None:  # type: ignore[override]
        if self.fails:
            raise MemoryError("out of memory")
        super().step(closure)


def test_a_state_that_is_saved_after_a_failed_step_is_masked() -> None:
    model = network()
    optimizer = Failing(model.parameters(), lr=RATE, weight_decay=WEIGHT_DECAY)
    sparse = sparsifier().prepare(model, optimizer)
    dropped = Dropped(sparse)
    silent_loss(model).backward()
    with pytest.raises(MemoryError):
        optimizer.step()
    sparse.state_dict()
    assert int((model[0].weight != 0).sum()) == 32
    optimizer.fails = False
    optimizer.zero_grad()
    silent_loss(model).backward()
    optimizer.step()
    dropped.check(1)
