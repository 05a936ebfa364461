"""Elimination: which channel goes first, and what its absence costs after refitting, against brute force."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bisparse.compress.calibration import Call
from bisparse.filters.elimination import elimination_errors
from bisparse.filters.families import find_families
from bisparse.filters.output_change import OutputChange
from bisparse.filters.prune import prune_filters
from bisparse.filters.trace import trace
from bisparse.filters.widths import Scored, fill, widths_at


def errors(model: nn.Sequential, x: Tensor, damping: float = 1e-9) -> np.ndarray:
    found = trace(model, Call((x[:2],)))
    values = elimination_errors(model, found, find_families(found), [Call((x,))], damping=damping)
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
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3, bias=False)).double().eval()
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
    found = errors(model, torch.randn(8, 2, 12, 12), damping=1e-5)  # singular: more than float32 rounds
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


def test_what_the_rest_of_the_network_hides_costs_nothing() -> None:
    """Two equal branches, of which the output sees one a thousand times less."""

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.loud = nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 3))
            self.quiet = copy.deepcopy(self.loud)

        def forward(self, x: Tensor) -> Tensor:
            return self.loud(x) + 1e-3 * self.quiet(x)

    torch.manual_seed(2)
    model, x = Branches().eval(), torch.randn(64, 4)
    found = trace(model, Call((x[:2],)))
    families = find_families(found)
    loud, quiet = elimination_errors(model, found, families, [Call((x,))])
    assert [family.name.split(".")[0] for family in families] == ["loud", "quiet"]
    np.testing.assert_allclose(np.sort(quiet)[:-1], 1e-6 * np.sort(loud)[:-1], rtol=1e-3, atol=1e-12)
    costs = [Scored(np.asarray(errors)) for errors in (loud, quiet)]
    assert widths_at(costs, "error", float(np.log(np.sort(loud)[0] / 2))) == [12, 1]


def test_the_last_errors_are_those_of_the_network_with_one_unit_left() -> None:
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 5)
    )
    x = torch.randn(32, 2, 12, 12)
    before = {name: value.clone() for name, value in model.eval().state_dict().items()}
    found = trace(model, Call((x[:2],)))
    family = find_families(found)[0]
    errors = elimination_errors(model, found, [family], [Call((x,))], damping=1e-9)[0]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    last = int(errors.argmax())
    with torch.no_grad():
        goal, hidden = model(x), model[:2](x)
        windows = nn.functional.unfold(hidden, 3).transpose(1, 2).reshape(-1, 72)
        target = windows @ model[2].weight.flatten(1).t()
        kept = slice(9 * last, 9 * last + 9)
        model[2].weight.zero_()
        model[2].weight[:, last] = torch.linalg.lstsq(windows[:, kept], target).solution.t().view(4, 3, 3)
        change = float((model(x) - goal).square().sum() / goal.square().sum())
    assert np.sort(errors)[-2] == pytest.approx(change, rel=1e-3)
    assert errors[last] > 1.0


def test_a_network_that_only_returns_zeros_and_one_that_overflows() -> None:
    torch.manual_seed(4)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2, bias=False)).eval()
    weights = {"2.weight": torch.full((2, 4), torch.inf)}
    calls = [Call((torch.randn(3, 4),)), Call((torch.randn(5, 4),))]
    assert OutputChange(model, calls, 6)(weights) == np.inf
    assert OutputChange(model, calls, 6)({"2.weight": 2 * model[2].weight.detach()}) == pytest.approx(1.0)
    with torch.no_grad():
        model[2].weight.zero_()
    assert OutputChange(model, calls, 6)(weights) == 0.0


def test_errors_are_weighed_against_what_a_unit_costs() -> None:
    cheap, dear = (Scored(np.array([0.1, 0.3, 0.6]), price=price) for price in (1.0, 10.0))
    assert widths_at([cheap, dear], "error", float(np.log(0.05))) == [3, 1]
    assert widths_at([cheap, dear], "error", float(np.log(0.005))) == [3, 3]


def test_what_a_dear_unit_leaves_of_a_budget_goes_to_cheap_ones() -> None:
    dear = Scored(np.array([0.1, 0.3, 0.6, 1.0]), price=10.0)
    cheap = Scored(np.array([0.01, 0.02, 0.2, 0.9]), price=1.0)

    def cost(widths: Sequence[int]) -> float:
        return 10.0 * widths[0] + widths[1]

    assert fill([dear, cheap], [3, 2], cost, 32.0) == [3, 2]
    assert fill([dear, cheap], [3, 1], cost, 33.9) == [3, 3]
    assert fill([dear, cheap], [2, 1], cost, 40.0) == [
        3,
        4,
    ]  # cheap ones are worth more, and then one dear one fits
    assert fill([dear, cheap], [1, 1], cost, 13.5, multiple=2) == [1, 3]
    assert fill([dear, cheap], [4, 4], cost, 1e9) == [4, 4]


def test_rounded_widths_of_equal_families_do_not_all_jump_at_once() -> None:
    torch.manual_seed(6)
    layers = [layer for _ in range(6) for layer in (nn.Linear(32, 32), nn.ReLU())]
    model = nn.Sequential(*layers, nn.Linear(32, 4)).eval()
    total = sum(p.numel() for p in model.parameters())
    for scores in ("pfp", "l1"):
        found = prune_filters(
            model, "params:0.6", calibration=[torch.rand(64, 32)], scores=scores, multiple=8, latency=False
        ).model
        widths = [found[place].out_features for place in range(0, 12, 2)]
        assert {width % 8 for width in widths} == {0}
        left = sum(p.numel() for p in found.parameters())
        assert left <= 0.6 * total
        for place in range(6):  # no further step fits
            before = found[2 * place].in_features
            after = found[2 * place + 2].out_features
            assert widths[place] == 32 or left + 8 * (before + 1 + after) > 0.6 * total


def test_of_a_budget_no_unit_is_left_that_fits() -> None:
    torch.manual_seed(5)
    model = nn.Sequential(
        nn.Conv2d(3, 24, 3), nn.ReLU(), nn.Conv2d(24, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(384, 4)
    ).eval()
    data, total = [torch.randn(64, 3, 12, 12)], sum(p.numel() for p in model.parameters())
    for keep in (0.85, 0.6, 0.35):
        found = prune_filters(model, f"params:{keep}", calibration=data, scores="obs", latency=False).model
        first, second = found[0].out_channels, found[2].out_channels
        left = keep * total - sum(p.numel() for p in found.parameters())
        assert left >= 0
        assert first == 24 or left < 3 * 9 + 1 + 9 * second
        assert second == 6 or left < 9 * first + 1 + 64 * 4
