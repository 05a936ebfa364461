"""Trained thresholds in the ways of training: optimizers, scaling, closures, resuming, patterns as limits."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from tests.train.setting import network, same
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

import bisparse as bs
from bisparse.train import Dst, Projection, Ramp, Rule, Schedule
from bisparse.train.mask_check import check_masks
from bisparse.train.thresholds import Reset, Target

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, foreach=False),
    "fused": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, fused=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, amsgrad=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01),
}


def batch(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return (torch.randn(16, 8, generator=generator).double() for _ in range(2))  # type: ignore[return-value]


def loss_of(model: nn.Module, step: int) -> Tensor:
    inputs, targets = batch(step)
    dtype = next(model.parameters()).dtype
    return nn.functional.mse_loss(model(inputs.to(dtype)), targets.to(dtype))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        optimizer.zero_grad()
        loss_of(model, step).backward()
        optimizer.step()


def prepared(
    model: nn.Module, optimizer: Any = None, pattern: str = "unstructured:0", **numbers: Any
) -> bs.Sparsifier:
    numbers = {"alpha": 0.02, "start": 0.1} | numbers
    return bs.Sparsifier(pattern, rule=Dst(**numbers), update_every=2, ignore=[]).prepare(model, optimizer)


def everything(model: nn.Module, sparse: bs.Sparsifier) -> dict[str, Any]:
    return {"model": model.state_dict(), "sparsifier": sparse.state_dict()}


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("pattern", ["unstructured:0", "2:4t"])
def test_resuming_is_exact(kind: str, pattern: str) -> None:
    make = OPTIMIZERS[kind]
    model = network()
    optimizer = make(model.parameters())
    numbers = {"target": Target(0.7), "granularity": "tile:4" if pattern == "2:4t" else "vector"}
    sparse = prepared(model, optimizer, pattern, **numbers)
    train(model, optimizer, range(5))
    saved = copy.deepcopy([part.state_dict() for part in (model, optimizer, sparse)])
    train(model, optimizer, range(5, 10))

    other = network(seed=1)
    again = make(other.parameters())
    resumed = prepared(other, again, pattern, **numbers)
    for part, state in zip((other, again, resumed), saved, strict=True):
        part.load_state_dict(state)
    train(other, again, range(5, 10))
    assert same(other.state_dict(), model.state_dict())
    assert same(resumed.state_dict(), sparse.state_dict())
    assert same(again.state_dict()["state"], optimizer.state_dict()["state"])
    assert 0.0 < sparse.metrics()["density"] < 1.0


def test_explored_counts_every_mask_that_was_in_force() -> None:
    """Those between two measures too, those before the first one, and those before a checkpoint."""
    ramp = Schedule(every=8, ramp=Ramp(begin=1, end=30))  # dense in prepare: the first mask comes at step 2
    options: dict[str, Any] = {"rule": Dst(alpha=0.5, start=0.05), "schedule": ramp, "ignore": []}
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    sparse = bs.Sparsifier("unstructured:0.9", **options).prepare(model, optimizer)
    union: dict[str, Tensor] = {}
    measured: set[float] = set()
    for step in range(24):
        train(model, optimizer, range(step, step + 1))
        for name, weight in sparse.weights.items():
            if not weight.is_dense:
                union[name] = union.get(name, torch.zeros_like(weight.mask)) | weight.mask
        if step == 4:
            states = [copy.deepcopy(part.state_dict()) for part in (model, optimizer, sparse)]
            model = network(seed=1)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
            sparse = bs.Sparsifier("unstructured:0.9", **options).prepare(model, optimizer)
            for part, state in zip((model, optimizer, sparse), states, strict=True):
                part.load_state_dict(state)
        if (step + 1) % 8 == 0:
            share = sum(int(mask.sum()) for mask in union.values()) / sum(m.numel() for m in union.values())
            assert sparse.metrics()["explored"] == share
            measured.add(share - sparse.metrics()["density"])
    assert all(difference > 0.0 for difference in measured)


def test_a_resumed_run_may_have_another_penalty() -> None:
    sparse = prepared(network(), alpha=0.02)
    resumed = prepared(network(), alpha=0.5)
    resumed.load_state_dict(sparse.state_dict())
    assert resumed.metrics()["alpha"] == 0.5


def test_a_state_of_other_thresholds_is_refused_before_anything_changes() -> None:
    model = network()
    sparse = prepared(model)
    state = prepared(network(seed=1), granularity="scalar").state_dict()
    before = copy.deepcopy(everything(model, sparse))
    with pytest.raises(ValueError, match="prepare with the same rule"):
        sparse.load_state_dict(state)
    with pytest.raises(ValueError, match="prepare with the same rule"):
        sparse.load_state_dict(bs.Sparsifier("unstructured:0", ignore=[]).prepare(network()).state_dict())
    assert same(everything(model, sparse), before)


def backward(model: nn.Module, optimizer: torch.optim.Optimizer, step: int, parts: int = 1) -> Tensor:
    optimizer.zero_grad()
    for _ in range(parts):
        loss = loss_of(model, step) / parts
        loss.backward()
    return loss


def test_accumulated_and_closed_over_steps_are_the_same() -> None:
    results = []
    for way in range(3):
        model = network()
        optimizer = OPTIMIZERS["adam"](model.parameters())
        sparse = prepared(model, optimizer)
        for step in range(4):
            if way == 2:
                optimizer.step(partial(backward, model, optimizer, step))
            else:
                backward(model, optimizer, step, parts=way + 1)
                optimizer.step()
        results.append(
            (model.state_dict(), {k: w.learned["threshold"].detach() for k, w in sparse.weights.items()})
        )
    for values, thresholds in results[1:]:
        for found, expected in ((values, results[0][0]), (thresholds, results[0][1])):
            for name, value in found.items():
                torch.testing.assert_close(value, expected[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("clip", [False, True])
def test_a_scaled_loss_gives_the_same_thresholds(fused: bool, clip: bool) -> None:
    found = []
    for scale in (1.0, 1024.0):
        model = network(dtype=torch.float32)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=fused)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        sparse = prepared(model, optimizer)
        for step in range(3):
            optimizer.zero_grad()
            scaler.scale(loss_of(model, step)).backward()
            if clip:
                scaler.unscale_(optimizer)
                clip_grad_norm_(model.parameters(), 0.1)
            scaler.step(optimizer)
            scaler.update()
        found.append([w.learned["threshold"].detach() for w in sparse.weights.values()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("fused", [False, True])
def test_a_skipped_step_changes_no_threshold(fused: bool) -> None:
    model = network(dtype=torch.float32)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    sparse = prepared(model, optimizer)
    train(model, optimizer, range(2))
    before = copy.deepcopy(everything(model, sparse))
    optimizer.zero_grad()
    scaler.scale(loss_of(model, 3) * torch.inf).backward()
    scaler.step(optimizer)
    scaler.update()
    assert same(everything(model, sparse), before)


def test_thresholds_of_a_weight_without_gradient_rest() -> None:
    """``model.zero_grad()`` clears no gradient of thresholds: the last one must not count twice."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparse = prepared(model, optimizer, alpha=0.5)
    loss_of(model, 0).backward()
    optimizer.step()
    model.zero_grad()
    before = {name: w.learned["threshold"].detach().clone() for name, w in sparse.weights.items()}
    model[2](torch.ones(1, 8).double()).sum().backward()
    optimizer.step()
    moved = {n: not torch.equal(w.learned["threshold"], before[n]) for n, w in sparse.weights.items()}
    assert moved == {"0.weight": False, "2.weight": True}


def test_autocast() -> None:
    model = network(dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    sparse = prepared(model, optimizer)
    for step in range(3):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(model, step)
        loss.backward()
        optimizer.step()
    thresholds = sparse.weights["0.weight"].learned["threshold"]
    assert thresholds.dtype == torch.float32
    assert thresholds.detach().unique().numel() == len(thresholds)


def test_thresholds_follow_each_group_s_settings_without_decay() -> None:
    model = network()
    groups = [
        {"params": list(model[0].named_parameters(prefix="0")), "lr": 0.25},
        {"params": list(model[2].named_parameters(prefix="2")), "betas": (0.5, 0.6)},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.5, weight_decay=0.1)
    prepared(model, optimizer)
    first, second = optimizer.param_groups[2:]
    assert (first["lr"], first["betas"], first["weight_decay"]) == (0.25, (0.9, 0.999), 0.0)
    assert (second["lr"], second["betas"], second["weight_decay"]) == (0.5, (0.5, 0.6), 0.0)
    assert first["param_names"] == ["0.weight.threshold"]


def test_a_scheduler_made_afterwards_moves_their_rate() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    prepared(model, optimizer)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.1)
    train(model, optimizer, range(1))
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.05]


def test_several_optimizers_and_steps_inside_backward() -> None:
    model = network()
    optimizers = {p: torch.optim.SGD([p], lr=0.1) for p in model.parameters()}
    sparse = prepared(model, target=Target(0.5))

    def step_now(parameter: nn.Parameter) -> None:
        optimizers[parameter].step()
        optimizers[parameter].zero_grad()

    for parameter, optimizer in optimizers.items():
        if parameter.dim() == 2:
            sparse.attach(optimizer)
        parameter.register_post_accumulate_grad_hook(step_now)
    before = sparse.metrics()["threshold"]
    for step in range(3):
        loss_of(model, step).backward()
    assert sparse.metrics()["step"] == 3
    assert sparse.metrics()["threshold"] != before


def test_a_copy_has_thresholds_of_its_own() -> None:
    model = network()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    sparse = prepared(model, optimizer)
    train(model, optimizer, range(2))
    twin, copied = copy.deepcopy((model, sparse))
    other = OPTIMIZERS["sgd"](twin.parameters())
    copied.attach(other)
    frozen = sparse.weights["0.weight"].learned["threshold"].detach().clone()
    train(twin, other, range(2, 4))
    assert torch.equal(sparse.weights["0.weight"].learned["threshold"], frozen)
    assert not torch.equal(copied.weights["0.weight"].learned["threshold"], frozen)


def _scheduled(model: nn.Module) -> torch.optim.Optimizer:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.optim.lr_scheduler.StepLR(optimizer, 1)
    return optimizer


@pytest.mark.parametrize(
    ("make", "explicit", "words"),
    [
        (lambda m: torch.optim.SGD(m.parameters(), lr=0.1), True, "step hooks"),
        (lambda m: torch.optim.LBFGS(m.parameters()), False, "LBFGS cannot take thresholds"),
        (_scheduled, False, "make the scheduler after"),
    ],
)
def test_optimizers_that_cannot_train_thresholds(make: Any, explicit: bool, words: str) -> None:
    model = network()
    sparse = prepared(model)
    with pytest.raises(ValueError, match=words):
        sparse.attach(make(model), explicit=explicit)


@pytest.mark.parametrize(
    "options", [{"hysteresis": 0.1}, {"average": 0.9}, {"topology": Projection(hysteresis=0.5)}]
)
def test_topologies_that_do_not_know_thresholds(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="chooses masks by its thresholds"):
        bs.Sparsifier("unstructured:0", rule="dst", **options)


def test_after_the_end_only_the_sparse_model_is_left() -> None:
    model = network()
    optimizer = OPTIMIZERS["adam"](model.parameters())
    sparse = prepared(model, optimizer)
    train(model, optimizer, range(3))
    masks = {name: mask.clone() for name, mask in sparse.masks.items()}
    sparse.squash_mask()
    assert sorted(model.state_dict()) == sorted(network().state_dict())
    thresholds = sparse.weights["0.weight"].learned["threshold"].detach().clone()
    for name, mask in masks.items():
        assert torch.equal(model.get_parameter(name) != 0, mask)
    train(model, optimizer, range(1))
    assert torch.equal(sparse.weights["0.weight"].learned["threshold"], thresholds)


@pytest.mark.parametrize("granularity", ["vector", "tile:4", "scalar"])
@pytest.mark.parametrize("pattern", ["2:4t", "3:4", "1:4t", "unstructured:0.75"])
def test_a_pattern_is_an_upper_limit(pattern: str, granularity: str) -> None:
    model = network()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    sparse = prepared(model, optimizer, pattern, granularity=granularity, start=0.15)
    for step in range(4):
        train(model, optimizer, range(step, step + 1))
        for weight in sparse.weights.values():
            above = (weight.values + weight.hidden).abs() > weight.learned["threshold"].repeat_interleave(
                4 if granularity == "tile:4" else 1, -1
            ).repeat_interleave(4 if granularity == "tile:4" else 1, -2).reshape(
                -1, 8 if granularity == "tile:4" else 1
            )
            assert not (weight.mask & ~above).any()
            assert bs.verify_mask(weight.mask, pattern, at_most=True).feasible
    checks = check_masks(sparse.weights, at_most=True)
    assert all(check.holds and check.pattern.startswith("at most") for check in checks)


def test_thresholds_steer_which_row_gives_way() -> None:
    """Both rows want the first column; the second row's own threshold is higher, so that it is worth less there."""
    layer = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.9, 0.7], [1.0, 0.6]]))
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.0)
    sparse = bs.Sparsifier("1:2t", rule=Dst(alpha=0.0), ignore=[]).prepare(layer, optimizer)
    assert sparse.masks["weight"].int().tolist() == [[0, 1], [1, 0]]  # 0.7 + 1.0 beats 0.9 + 0.6
    sparse.weights["weight"].learned["threshold"].data.copy_(torch.tensor([[0.0], [0.8]]))
    layer(torch.zeros(1, 2)).sum().backward()
    optimizer.step()
    assert sparse.masks["weight"].int().tolist() == [[1, 0], [0, 0]]  # 0.9 + 0 beats 0.7 + 0.2


def test_target_density_is_reached_and_held() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 64), nn.Tanh(), nn.Linear(64, 8))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    rule = Dst(alpha=1e-3, target=Target(0.2, Ramp(0, 150)), reset=Reset("off"))
    sparse = bs.Sparsifier("unstructured:0", rule=rule, update_every=10, ignore=[]).prepare(model, optimizer)
    inputs = torch.randn(128, 32)
    targets = torch.tanh(inputs @ torch.randn(32, 8) / 4)
    for _ in range(300):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(inputs), targets).backward()
        optimizer.step()
    densities = {row["step"]: row["density"] for row in sparse.history}
    assert densities[50] == pytest.approx(Target(0.2, Ramp(0, 150)).at(50), rel=0.3)
    assert all(0.12 < densities[step] < 0.3 for step in (200, 250, 300))
    assert sparse.metrics()["alpha"] != 1e-3


@pytest.mark.parametrize("start", [0.0, 0.05])
def test_where_masks_freeze_a_target_is_met_exactly(start: float) -> None:
    model = network()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    rule = Dst(alpha=1e-6, start=start, target=Target(0.25), reset=Reset("off"))
    sparse = bs.Sparsifier("unstructured:0", rule=rule, schedule=Schedule(freeze=3), ignore=[])
    sparse.prepare(model, optimizer)
    train(model, optimizer, range(2))
    assert sum(int(mask.sum()) for mask in sparse.masks.values()) > 32
    train(model, optimizer, range(2, 5))
    assert sum(int(mask.sum()) for mask in sparse.masks.values()) == 32  # of 128


def test_rules_by_name() -> None:
    rule: Rule = bs.Sparsifier("unstructured:0", rule="dst").rule
    assert rule == Dst()
