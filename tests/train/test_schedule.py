"""When masks change, and how dense they are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.train.setting import network
from torch import nn

import bisparse as bs
from bisparse.pattern import NM, TransposableNM, Unstructured
from bisparse.train import Ramp, Schedule


def refreshes(schedule: Schedule, steps: int) -> list[int]:
    return [step for step in range(steps + 1) if schedule.due(step)]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Schedule(every=3), [0, 3, 6, 9, 12]),
        (Schedule(every=3, start=5), [0, 6, 9, 12]),
        (Schedule(every=3, freeze=9), [0, 3, 6, 9]),
        (Schedule.static(), [0]),
        (Schedule(every=3, dense_until=2), [0, 2, 5, 8, 11]),
        (Schedule(every=3, dense_from=7), [0, 3, 6, 7]),
        (Schedule(every=5, ramp=Ramp(0, 7), freeze=9), [0, 5, 7]),
        (Schedule(every=5, ramp=Ramp(0, 7), start=8), [0, 10]),
    ],
)
def test_when_masks_are_chosen(schedule: Schedule, expected: list[int]) -> None:
    assert refreshes(schedule.with_default(1) if schedule.freeze != 0 else schedule, 12) == expected


def test_a_cubic_ramp() -> None:
    ramp = Ramp(10, 20)
    assert [ramp.at(0.5, step) for step in (0, 10, 20, 99)] == [1.0, 1.0, 0.5, 0.5]
    assert ramp.at(0.5, 15) == 0.5 + 0.5 * 0.5**3
    assert Ramp(0, 4, density=0.75).at(0.5, 0) == 0.75
    assert Ramp(0, 4, density=0.25).at(0.5, 0) == 0.5


def test_patterns_of_a_ramp_get_sparser() -> None:
    schedule = Schedule(every=1, ramp=Ramp(0, 8))
    keeps = [schedule.pattern(TransposableNM(2, 8), step) for step in range(9)]
    assert keeps[0] is None
    assert [p.keep for p in keeps[1:] if isinstance(p, TransposableNM)] == [7, 5, 4, 3, 3, 3, 3, 2]
    assert schedule.pattern(NM(1, 4), 8) == NM(1, 4)
    assert schedule.pattern(Unstructured(0.9), 0) is None
    halfway = schedule.pattern(Unstructured(0.9), 4)
    assert halfway is not None
    assert halfway.density == pytest.approx(0.1 + 0.9 * 0.5**3)
    assert schedule.pattern(Unstructured(0.9), 100) == Unstructured(0.9)


def densities(schedule: Schedule, steps: int, pattern: str = "2:4t") -> list[float]:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    bs.Sparsifier(pattern, schedule=schedule, update_every=2, ignore=[]).prepare(model, optimizer)
    inputs, targets = torch.randn(16, 8).double(), torch.randn(16, 8).double()
    shares = [(model[0].weight != 0).double().mean().item()]
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(inputs), targets).backward()
        optimizer.step()
        shares.append((model[0].weight != 0).double().mean().item())
    return shares


def test_dense_warm_up_and_dense_tail_of_a_real_run() -> None:
    shares = densities(Schedule(dense_until=3, dense_from=6), 8)
    assert shares == [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 1.0, 1.0, 1.0]


def test_a_dense_phase_is_plain_training() -> None:
    """Bit for bit: the sparsifier does nothing while the model is dense."""
    results = []
    for sparse in (False, True):
        model = network()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        if sparse:
            bs.Sparsifier("2:4t", schedule=Schedule(dense_until=100), ignore=[]).prepare(model, optimizer)
        torch.manual_seed(1)
        for _ in range(5):
            optimizer.zero_grad()
            model(torch.randn(4, 8).double()).square().mean().backward()
            optimizer.step()
        results.append([p.detach().clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_a_ramp_of_a_real_run() -> None:
    shares = densities(Schedule(every=1, ramp=Ramp(0, 4)), 5, "1:4")
    assert shares == [1.0, 0.75, 0.5, 0.5, 0.25, 0.25]


def test_static_masks_never_change_though_weights_do() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=5.0)
    sparse = bs.Sparsifier("2:4t", rule="ste", schedule=Schedule.static(), ignore=[]).prepare(
        model, optimizer
    )
    first = {name: mask.clone() for name, mask in sparse.masks.items()}
    for _ in range(50):
        optimizer.zero_grad()
        model(torch.randn(4, 8).double()).square().mean().backward()
        optimizer.step()
    assert all(torch.equal(mask, first[name]) for name, mask in sparse.masks.items())
    assert sparse.metrics()["refreshes"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "every=0"),
        ({"start": -1}, "start=-1"),
        ({"dense_until": 5, "dense_from": 5}, "no step is left"),
        (
            {"freeze": 9, "ramp": Ramp(0, 10)},
            "stay from step 9 on, but the ramp ends at step 10: the pattern would",
        ),
        ({"dense_from": 9, "ramp": Ramp(0, 10)}, "the pattern would never be reached"),
    ],
)
def test_impossible_schedules(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Schedule(**options)


def test_other_types_are_refused() -> None:
    with pytest.raises(TypeError, match=r"every=2.5: steps are whole numbers, got float"):
        Schedule(every=2.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"schedule='static': expected a Schedule, .*Schedule.static\(\)"):
        bs.Sparsifier("2:4t", schedule="static")  # type: ignore[arg-type]


def test_a_ramp_reaches_the_pattern_at_its_end_between_two_refreshes() -> None:
    shares = densities(Schedule(every=4, ramp=Ramp(0, 6), freeze=7), 9, "1:4")
    assert shares[-3:] == [0.25, 0.25, 0.25]


def test_masks_may_be_frozen_inside_a_ramp() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = Schedule(every=1, ramp=Ramp(0, 8))
    sparse = bs.Sparsifier("1:4", schedule=schedule, ignore=[]).prepare(model, optimizer)
    for step in range(10):
        if step == 2:
            sparse.freeze()
        optimizer.zero_grad()
        model(torch.randn(4, 8).double()).square().mean().backward()
        optimizer.step()
    assert sparse.metrics()["density"] == 0.75


def test_impossible_ramps() -> None:
    with pytest.raises(ValueError, match="begin < end"):
        Ramp(5, 5)
    with pytest.raises(ValueError, match="density=0"):
        Ramp(0, 5, density=0.0)
