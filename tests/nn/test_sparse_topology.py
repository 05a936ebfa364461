"""Topology steps: the right connections go and come, and what an optimizer knows about the others stays."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from bisparse.kernels.sparse_sampling import sample_absent, sample_distinct
from bisparse.nn import GradientRecorder, SparseLinear, prune_neurons_, replace_edges_, rigl_step_, set_step_


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trained(steps: int = 3, **options: Any) -> tuple[SparseLinear, torch.optim.Optimizer, GradientRecorder]:
    """A layer whose optimizer has state, and a recorder of its last pass."""
    layer = SparseLinear(30, 20, density=0.3, **options)
    optimizer = torch.optim.Adam(layer.parameters(), 0.01, amsgrad=True)
    recorder = GradientRecorder([layer])
    torch.manual_seed(1)
    for _ in range(steps):
        optimizer.zero_grad()
        with recorder:
            (layer(torch.randn(16, 30)) - 1).square().sum().backward()
        optimizer.step()
    return layer, optimizer, recorder


def by_key(layer: SparseLinear, entries: Tensor) -> dict[int, float]:
    return dict(zip(layer.index.keys().tolist(), entries.tolist(), strict=True))


def states(layer: SparseLinear, optimizer: torch.optim.Optimizer) -> list[dict[int, float]]:
    """Values, gradient and every state by connection."""
    assert layer.values.grad is not None
    state = optimizer.state[layer.values]
    names = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
    return [
        by_key(layer, entries) for entries in (layer.values, layer.values.grad, *(state[n] for n in names))
    ]


def test_every_state_goes_with_its_connection() -> None:
    layer, optimizer, _ = trained()
    before, parameter, place = states(layer, optimizer), layer.values, layer.values.data_ptr()
    keep = torch.ones(layer.nnz, dtype=torch.bool)
    keep[::3] = False
    dropped = layer.index.keys()[~keep]
    new = sample_absent(len(dropped), layer.index.keys(), 600, generator())
    replace_edges_(layer, keep, new.flip(0), torch.full((len(new),), 7.0), optimizer)
    for number, (old, now) in enumerate(zip(before, states(layer, optimizer), strict=True)):
        assert set(now) == set(old) - set(dropped.tolist()) | set(new.tolist())
        for key, value in now.items():
            assert value == old.get(key, 0.0 if number else 7.0)
    assert layer.values is parameter
    assert layer.values.data_ptr() == place
    assert int(optimizer.state[parameter]["step"]) == 3


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": partial(torch.optim.SGD, lr=0.01, momentum=0.9, nesterov=True),
    "fused sgd": partial(torch.optim.SGD, lr=0.01, momentum=0.9, fused=True),
    "adam": partial(torch.optim.Adam, lr=0.01, amsgrad=True, foreach=True),
    "fused adamw": partial(torch.optim.AdamW, lr=0.01, amsgrad=True, fused=True),
    "nadam": partial(torch.optim.NAdam, lr=0.01),
    "radam": partial(torch.optim.RAdam, lr=0.01),
    "adamax": partial(torch.optim.Adamax, lr=0.01),
    "adagrad": partial(torch.optim.Adagrad, lr=0.01, initial_accumulator_value=0.1),
    "adadelta": partial(torch.optim.Adadelta, lr=1.0),
    "adafactor": partial(torch.optim.Adafactor, lr=0.01),
    "rmsprop": partial(torch.optim.RMSprop, lr=0.001, momentum=0.9, centered=True),
    "rprop": partial(torch.optim.Rprop, lr=0.01),
    "asgd": partial(torch.optim.ASGD, lr=0.01),
}
FIRST = {"step_size": 0.01, "sum": 0.1}  # what states begin with, where it is not 0


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_edits_under_every_optimizer(name: str) -> None:
    """States are carried or begin anew, and it trains on, also where the number changes while the last loss is kept."""
    torch.manual_seed(0)
    layer, x = SparseLinear(30, 20, density=0.3), torch.randn(16, 30)
    optimizer = OPTIMIZERS[name](layer.parameters())

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = (layer(x) - 1).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    losses = [step() for _ in range(3)]
    state = optimizer.state[layer.values]
    before = {key: by_key(layer, each) for key, each in state.items() if each.shape == layer.values.shape}
    assert before
    keep = torch.arange(layer.nnz) % 3 > 0
    new = sample_absent(int((~keep).sum()), layer.index.keys(), 600, generator())
    replace_edges_(layer, keep, new, torch.zeros(len(new)), optimizer)
    for key, old in before.items():
        for place, value in by_key(layer, state[key]).items():
            assert value == pytest.approx(old.get(place, FIRST.get(key, 0.0)))
    losses += [step() for _ in range(3)]
    assert prune_neurons_(layer, 0.3, optimizer=optimizer).dropped > 0
    losses += [step() for _ in range(3)]
    assert losses[5] < losses[3]
    assert losses[8] < losses[6]
    assert layer.values.grad is not None
    assert layer.values.grad.shape == layer.values.shape == (layer.nnz,)


def test_lbfgs_starts_anew() -> None:
    """Its directions run over all parameters in a row."""
    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Linear(30, 30), SparseLinear(30, 20, density=0.3))
    optimizer = torch.optim.LBFGS(layers.parameters(), line_search_fn="strong_wolfe")
    x = torch.randn(16, 30)

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = (layers(x) - 1).square().mean()
        value.backward()
        return value

    for edit in (set_step_, prune_neurons_):
        optimizer.step(loss)
        options = {"generator": generator()} if edit is set_step_ else {}
        edit(layers[1], 0.3, optimizer=optimizer, **options)
        before = loss()
        for _ in range(2):
            after = optimizer.step(loss)
        assert after < before


def test_a_changed_number_of_connections_trains_on() -> None:
    layer, optimizer, _ = trained()
    before = states(layer, optimizer)
    keep = torch.arange(layer.nnz) % 2 == 0
    replace_edges_(layer, keep, optimizer=optimizer)
    assert layer.nnz == layer.values.numel() == 90
    for old, now in zip(before, states(layer, optimizer), strict=True):
        assert all(old[key] == value for key, value in now.items())
    kept = layer.values.detach().clone()
    optimizer.zero_grad()
    layer(torch.randn(4, 30)).sum().backward()
    optimizer.step()
    assert not layer.values.equal(kept)


def test_a_waiting_backward_pass_is_told() -> None:
    layer, _, _ = trained()
    loss = layer(torch.randn(4, 30, requires_grad=True)).sum()
    set_step_(layer, generator=generator())
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_impossible_edits_change_nothing() -> None:
    layer, optimizer, _ = trained()
    keys = layer.index.keys()
    keep = torch.ones(layer.nnz, dtype=torch.bool)
    for wrong in (
        keys[:1],
        torch.tensor([600]),
        torch.tensor([-1]),
        sample_absent(1, keys, 600, generator()).repeat(2),
    ):
        with pytest.raises(ValueError, match=r"exists already|increasing"):
            replace_edges_(layer, keep, wrong, torch.zeros(len(wrong)), optimizer)
    with pytest.raises(ValueError, match="180 booleans"):
        replace_edges_(layer, keep[1:])
    with pytest.raises(ValueError, match="both"):
        replace_edges_(layer, keep, keys[:1])
    with pytest.raises(ValueError, match="does not train this layer"):
        replace_edges_(layer, keep, optimizer=torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], 0.1))
    assert layer.index.keys().equal(keys)


def test_set_drops_the_weakest_of_each_sign_and_grows_as_many() -> None:
    layer, optimizer, _ = trained()
    before = by_key(layer, layer.values)
    change = set_step_(layer, 0.3, generator=generator(), optimizer=optimizer)
    after = by_key(layer, layer.values)
    assert layer.nnz == len(after) == len(before)
    survivors = {key for key in before if after.get(key) == before[key]}
    expected = set()
    for sign in (1, -1):
        side = sorted((key for key in before if before[key] * sign > 0), key=lambda key: abs(before[key]))
        expected |= set(side[int(0.3 * len(side)) :])
    assert survivors == expected
    assert change.dropped == change.grown == len(before) - len(survivors)
    momentum = by_key(layer, optimizer.state[layer.values]["exp_avg"])
    assert all((momentum[key] != 0) == (key in survivors) for key in after)


def test_the_share_counts_as_written() -> None:
    layer = SparseLinear(20, 10, density=0.5, seed=0)
    with torch.no_grad():
        layer.values.abs_()
    assert set_step_(layer, 0.29, generator=generator()).dropped == 29


def test_set_is_deterministic_and_reaches_every_place() -> None:
    layers = [trained()[0] for _ in range(2)]
    for layer in layers:
        set_step_(layer, generator=generator(5))
    assert layers[0].index.keys().equal(layers[1].index.keys())
    assert layers[0].values.equal(layers[1].values)
    seen = set()
    chance = generator(6)
    for _ in range(60):
        set_step_(layers[0], 0.5, generator=chance)
        seen |= set(layers[0].index.keys().tolist())
    assert len(seen) == 600


def dense_gradient(layer: SparseLinear, recorder: GradientRecorder) -> Tensor:
    x, grad = recorder.of(layer)
    return (grad.t() @ x).flatten()


@pytest.mark.parametrize("candidates", ["exact", 1000])
def test_rigl_keeps_the_largest_and_grows_where_the_gradient_is(candidates: Any) -> None:
    layer, optimizer, recorder = trained()
    before = by_key(layer, layer.values)
    gradient = dense_gradient(layer, recorder).abs()
    count = int(0.3 * layer.nnz)
    strong = set(sorted(before, key=lambda key: -abs(before[key]))[: layer.nnz - count])
    scores = gradient.clone()
    scores[list(strong)] = -1
    best = set(scores.topk(count).indices.tolist())
    change = rigl_step_(
        layer, recorder, 0.3, candidates=candidates, generator=generator(), optimizer=optimizer
    )
    after = by_key(layer, layer.values)
    assert set(after) == strong | best
    assert all(
        value == before.get(key, 0.0) for key, value in after.items()
    )  # those that came back kept their value
    assert change.dropped == change.grown == len(set(before) - set(after))


def test_rigl_with_few_candidates_keeps_the_count() -> None:
    layer, optimizer, recorder = trained()
    rigl_step_(layer, recorder, 0.3, candidates=2, generator=generator(), optimizer=optimizer)
    assert layer.nnz == 180
    layer(torch.randn(4, 30)).sum().backward()
    with pytest.raises(ValueError, match="generator"):
        rigl_step_(layer, recorder, 0.3)
    with pytest.raises(ValueError, match="no backward pass"):
        rigl_step_(layer, GradientRecorder([layer]), 0.3, candidates="exact")


@pytest.mark.parametrize("candidates", ["exact", 5])
@pytest.mark.parametrize("wrong", [torch.inf, torch.nan])
def test_a_step_that_a_scaler_skips_moves_no_connection(
    wrong: float, candidates: Any, caplog: pytest.LogCaptureFixture
) -> None:
    layer, optimizer, recorder = trained()
    scaler = torch.amp.GradScaler("cpu", init_scale=16.0)

    def step(factor: float) -> Any:
        optimizer.zero_grad()
        with recorder:
            scaler.scale((layer(torch.randn(16, 30)) - 1).square().sum() * factor).backward()
        scaler.step(optimizer)
        scaler.update()
        return rigl_step_(
            layer, recorder, 0.3, candidates=candidates, generator=generator(), optimizer=optimizer
        )

    keys, values = layer.index.keys(), layer.values.detach().clone()
    momentum = optimizer.state[layer.values]["exp_avg"].clone()
    change = step(wrong)
    assert (change.dropped, change.grown) == (0, 0)
    assert "not finite: its connections stay" in caplog.text
    assert layer.index.keys().equal(keys)
    assert layer.values.equal(values)
    assert optimizer.state[layer.values]["exp_avg"].equal(momentum)
    assert step(1.0).grown > 0
    assert layer.nnz == len(keys)
    assert layer.values.isfinite().all()


def test_a_recorder_adds_up_micro_batches() -> None:
    layer = SparseLinear(30, 20, density=0.3)
    x = torch.randn(2, 5, 30)
    with GradientRecorder([layer]) as recorder:
        for part in x:
            layer(part).square().sum().backward()
    assert layer.values.grad is not None
    keys = layer.index.keys()
    torch.testing.assert_close(dense_gradient(layer, recorder)[keys], layer.values.grad)
    layer(x).sum().backward()
    assert len(recorder.of(layer)[0]) == 10


def test_a_recorder_sees_inputs_that_are_named() -> None:
    layer, x = SparseLinear(30, 20, density=0.3), torch.randn(5, 30)
    with GradientRecorder([layer]) as recorder:
        layer(input=x).square().sum().backward()
    assert layer.values.grad is not None
    assert recorder.of(layer)[0].equal(x)
    torch.testing.assert_close(dense_gradient(layer, recorder)[layer.index.keys()], layer.values.grad)


def test_an_activation_in_place_hides_nothing_from_the_recorder() -> None:
    layer, x = SparseLinear(30, 20, density=0.3), torch.randn(5, 30)
    with GradientRecorder([layer]) as recorder:
        layer(x).relu_().square().sum().backward()
    assert layer.values.grad is not None
    torch.testing.assert_close(dense_gradient(layer, recorder)[layer.index.keys()], layer.values.grad)


def test_the_weakest_neurons_lose_all_their_inputs() -> None:
    layer, optimizer, _ = trained()
    importance = layer.to_linear().weight.abs().sum(1)
    weakest = importance.topk(4, largest=False).indices
    before = layer.nnz
    change = prune_neurons_(layer, 0.2, optimizer=optimizer)
    assert layer.to_linear().weight[weakest].eq(0).all()
    assert change.dropped == before - layer.nnz > 0
    degrees = layer.crow.diff()
    assert (degrees > 0).sum() == 16
    prune_neurons_(layer, 0.25, optimizer=optimizer)  # of those that are left: no neuron is pruned twice
    assert (layer.crow.diff() > 0).sum() == 12
    assert set_step_(layer, generator=generator(), optimizer=optimizer).grown > 0
    assert layer.nnz == layer.values.numel() < before


def test_keys_do_not_overflow() -> None:
    keys = sample_distinct(1000, 2**62, generator())
    assert keys.max() > 2**60
    layer = SparseLinear(60_000, 50_000, epsilon=1)
    rows, columns = layer.index.rows(), layer.col.long()
    assert rows.max() > 49_000
    assert layer.index.keys().equal(rows * 60_000 + columns)
    set_step_(layer, generator=generator())
    assert int(layer.index.keys().max()) > 2**31


@pytest.mark.parametrize(
    ("count", "taken", "total"), [(5, 3, 8), (3, 2, 40), (0, 4, 4), (300, 100, 1000), (90, 9, 100)]
)
def test_samples_are_distinct_free_and_uniform(count: int, taken: int, total: int) -> None:
    occupied = sample_distinct(taken, total, generator(1))
    hits = torch.zeros(total)
    for seed in range(200):
        keys = sample_absent(count, occupied, total, generator(seed))
        assert len(keys) == count
        assert not torch.isin(keys, occupied).any()
        assert (keys.diff() > 0).all()
        hits[keys] += 1
    free = torch.ones(total, dtype=torch.bool)
    free[occupied] = False
    p = count / max(1, int(free.sum()))
    if free.any():
        assert (hits[free] / 200 - p).abs().max() <= 6 * (p * (1 - p) / 200) ** 0.5 + 1e-9


def test_too_many_are_refused() -> None:
    with pytest.raises(ValueError, match="2 of 4 are free"):
        sample_absent(3, torch.tensor([0, 2]), 4, generator())
