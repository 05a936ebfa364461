"""Elimination: which channel goes first, and what its absence costs after refitting, against brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bisparse.compress.calibration import Call
from bisparse.filters.elimination import elimination_errors
from bisparse.filters.families import find_families
from bisparse.filters.trace import trace
from bisparse.filters.widths import Scored, widths_at


def errors(model: nn.Sequential, x: Tensor) -> np.ndarray:
    found = trace(model, Call((x[:2],)))
    values = elimination_errors(model, found, find_families(found), [Call((x,))], damping=1e-9)
    assert len(values) == 1
    return values[0]


def refitted(inputs: Tensor, weight: Tensor, kept: list[int]) -> float:
    """Relative squared error of the best weights on some of the inputs."""
    target = inputs @ weight.t()
    best = torch.linalg.lstsq(inputs[:, kept], target).solution
    return float((inputs[:, kept] @ best - target).square().sum() / target.square().sum())


@pytest.fixture
def network() -> tuple[nn.Sequential, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)).double().eval()
    return model, torch.randn(40, 5, dtype=torch.float64)


def test_the_first_to_go_costs_least_and_errors_are_those_of_refitting(
    network: tuple[nn.Sequential, Tensor],
) -> None:
    model, x = network
    hidden = model[:2](x).detach()
    weight = model[2].weight.detach()
    found = errors(model, x)
    order = np.argsort(found).tolist()
    alone = [refitted(hidden, weight, [c for c in range(6) if c != gone]) for gone in range(6)]
    assert order[0] == int(np.argmin(alone))
    for count in range(1, 5):
        kept = [c for c in range(6) if c not in order[:count]]
        assert found[order[count - 1]] == pytest.approx(refitted(hidden, weight, kept), rel=1e-4, abs=1e-7)


def test_greedy_is_close_to_the_best_pair(network: tuple[nn.Sequential, Tensor]) -> None:
    model, x = network
    hidden, weight = model[:2](x).detach(), model[2].weight.detach()
    best = min(refitted(hidden, weight, list(kept)) for kept in itertools.combinations(range(6), 4))
    assert best * (1 - 1e-5) <= np.sort(errors(model, x))[1] <= 3 * best + 1e-6  # float32 moments


def test_a_copy_of_a_channel_goes_for_nothing() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3)).eval()
    with torch.no_grad():
        model[0].weight[3], model[0].bias[3] = model[0].weight[1], model[0].bias[1]
    found = errors(model, torch.randn(8, 2, 12, 12))
    assert np.argmin(found) in (1, 3)
    assert found.min() < 1e-4 < np.sort(found)[1]


def test_padding_tokens_do_not_count(network: tuple[nn.Sequential, Tensor]) -> None:
    model, x = network
    valid = torch.arange(40).view(5, 8) % 3 > 0
    found = trace(model, Call((x[:2],)))
    calls = Call((x.view(5, 8, 5),), valid=valid), Call((x[valid.flatten()],))
    padded, real = (elimination_errors(model, found, find_families(found), [call])[0] for call in calls)
    np.testing.assert_allclose(padded, real, rtol=1e-4)  # moments are summed in another order
    assert not np.allclose(padded, errors(model, x), rtol=1e-2)


def test_errors_are_weighed_against_what_a_unit_costs() -> None:
    cheap, dear = (Scored(np.array([0.1, 0.3, 0.6]), price=price) for price in (1.0, 10.0))
    assert widths_at([cheap, dear], "error", float(np.log(0.05))) == [3, 1]
    assert widths_at([cheap, dear], "error", float(np.log(0.005))) == [3, 3]
