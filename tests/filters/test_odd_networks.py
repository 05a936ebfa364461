"""Networks that tempt: tied weights, computed weights, halves that must stay equal, groups of one channel."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.filters.networks import Residual
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from bisparse.compress.calibration import Call
from bisparse.filters import prune_filters, prune_filters_
from bisparse.filters.collect import collect_shares
from bisparse.filters.cost import costs_of
from bisparse.filters.families import find_families, frozen_layers
from bisparse.filters.trace import trace
from bisparse.filters.verify import IncomparableError, output_difference

IMAGES = list(torch.randn(12, 3, 6, 6, generator=torch.Generator().manual_seed(0)).split(6))
ROWS = list(torch.randn(24, 10, generator=torch.Generator().manual_seed(1)).split(8))


class Net(nn.Module):
    """A function of named layers."""

    def __init__(self, function: Callable[[Any, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def net(function: Callable[[Any, Tensor], Tensor], **layers: nn.Module) -> Any:
    torch.manual_seed(0)
    for layer in layers.values():
        for parameter in layer.parameters():
            nn.init.uniform_(parameter, -0.5, 0.5)
    return Net(function, **layers).eval()


def found(model: nn.Module, x: Tensor) -> tuple[dict[str, int], dict[str, str]]:
    """Sizes of the families, and what is left out."""
    traced = trace(model, Call((x,)))
    return {family.name: len(family) for family in find_families(traced)}, frozen_layers(traced)


def test_a_grouped_convolution_may_shrink_to_one_channel_per_group() -> None:
    model = net(
        lambda n, x: n.three(F.relu(n.two(F.relu(n.one(x))))).mean((2, 3)),
        one=nn.Conv2d(3, 8, 1),
        two=nn.Conv2d(8, 12, 3, padding=1, groups=4),
        three=nn.Conv2d(12, 4, 1),
    )
    pruned = prune_filters(model, "params:0.4", calibration=IMAGES, allocation="uniform", latency=False)
    two: Any = pruned.model.get_submodule("two")
    assert (two.groups, two.in_channels, two.out_channels) == (4, 4, 4)
    assert pruned.report.deviation < 1e-5


def test_tied_weights_are_counted_once_and_under_any_name() -> None:
    model = net(
        lambda n, x: n.last(F.relu(n.again(F.relu(n.once(F.relu(n.first(x))))))),
        first=nn.Linear(10, 16),
        once=nn.Linear(16, 16),
        again=nn.Linear(16, 16),
        last=nn.Linear(16, 3),
    )
    model.again.weight = model.once.weight
    pruned = prune_filters(model, "params:0.6", calibration=ROWS, latency=False)
    assert pruned.report.before.parameters == sum(p.numel() for p in model.parameters())
    assert pruned.report.after.parameters == sum(p.numel() for p in pruned.model.parameters())
    assert pruned.report.parameters_removed < 0.5  # one unit of 16 is less than a tenth


def test_shares_are_those_of_all_layers_that_use_a_tied_weight() -> None:
    model = net(
        lambda n, x: n.once(F.relu(n.first(x))) + n.again(F.relu(-n.first(x))),
        first=nn.Linear(10, 6),
        once=nn.Linear(6, 3),
        again=nn.Linear(6, 3),
    )
    model.again.weight = model.once.weight
    traced = trace(model, Call((ROWS[0],)))
    (shares,) = collect_shares(model, traced, [[Call((ROWS[0],))]]).values()
    untied = copy.deepcopy(model)
    untied.again.weight = nn.Parameter(model.once.weight.detach().clone())
    parts = collect_shares(untied, trace(untied, Call((ROWS[0],))), [[Call((ROWS[0],))]]).values()
    assert len(parts) == 2
    torch.testing.assert_close(shares.first, torch.stack([part.first for part in parts]).amax(0))
    assert any(bool((part.first < shares.first).any()) for part in parts)


def test_computed_weights_keep_their_channels_and_are_counted() -> None:
    model = nn.Sequential(
        weight_norm(nn.Conv2d(3, 8, 1)), nn.ReLU(), nn.Conv2d(8, 6, 1), nn.ReLU(), nn.Conv2d(6, 2, 1)
    )
    traced = trace(model.eval(), Call((IMAGES[0],)))
    assert [family.name for family in find_families(traced)] == ["2"]
    assert costs_of(model, traced, []).operations([]) == 36 * (3 * 8 + 8 * 6 + 6 * 2)
    normed = nn.Sequential(
        weight_norm(nn.Linear(10, 8)), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2)
    )
    traced = trace(normed.eval(), Call((ROWS[0],)))
    assert costs_of(normed, traced, []).operations([]) == 10 * 8 + 8 * 6 + 6 * 2


CONSTANT = torch.linspace(0.5, 1.5, 8)


@pytest.mark.parametrize(
    ("function", "families"),
    [
        (lambda n, x: n.head(torch.max(n.one(x), n.two(x))), {"one +1": 8}),
        (lambda n, x: n.head(F.hardswish(n.one(x))), {"one": 8}),
        (lambda n, x: n.head(n.one(x).double().float()), {"one": 8}),
        (lambda n, x: n.short(F.glu(n.one(x))), {"one": 4}),
        (lambda n, x: n.head(n.one(x)[:, None].expand(-1, 3, -1).contiguous()[:, 2]), {"one": 8}),
        (lambda n, x: n.head(n.one(x) * CONSTANT), {}),
        (lambda n, x: n.head(n.one(x) * n.one(x)[:, :1]), {"one +1": 7}),
    ],
    ids=["maximum", "hardswish", "casts", "glu", "picked", "constant", "one meets many"],
)
def test_what_couples_and_what_does_not(
    function: Callable[[Any, Tensor], Tensor], families: dict[str, int]
) -> None:
    layers = {
        "one": nn.Linear(10, 8),
        "two": nn.Linear(10, 8),
        "head": nn.Linear(8, 3),
        "short": nn.Linear(4, 3),
    }
    model = net(function, **layers)
    sizes, _ = found(model, ROWS[0])
    assert sizes == families
    if families:
        report = prune_filters(model, "params:0.9", calibration=ROWS, latency=False).report
        assert report.deviation < 1e-5


@pytest.mark.parametrize("budget", ["params:0.8", "params:0.7", "params:0.5", "params:0.4"])
def test_halves_that_must_stay_equal_stay(budget: str) -> None:
    def halves(n: Any, x: Tensor) -> Tensor:
        left, right = n.one(x).chunk(2, 1)
        out: Tensor = n.last(F.relu(torch.cat([n.left(F.relu(left)), n.right(F.relu(right))], 1)))
        return out

    model = net(
        halves,
        one=nn.Conv2d(3, 16, 1),
        left=nn.Conv2d(8, 8, 1),
        right=nn.Conv2d(8, 8, 3, padding=1),
        last=nn.Conv2d(16, 4, 1),
    )
    pruned = prune_filters(
        model, budget, calibration=IMAGES, scores="obs", reconstruct="least_squares", latency=False
    )
    assert pruned.report.left_out["one (1)"] == "its code divides these channels by fixed numbers"
    assert pruned.report.deviation < 1e-5


@pytest.mark.parametrize("scores", ["pfp", "obs"])
def test_readers_whose_inputs_cannot_be_seen_keep_their_channels(scores: str) -> None:
    model = net(
        lambda n, x: F.linear(F.relu(n.two(F.relu(n.one(x)))), n.last.weight),
        one=nn.Linear(10, 8),
        two=nn.Linear(8, 8),
        last=nn.Linear(8, 3),
    )
    report = prune_filters_(model, "params:0.8", calibration=ROWS, scores=scores, latency=False)
    assert [family.name for family in report.families] == ["one"]
    assert report.left_out["two"] == "no layer that reads it was seen to run"


def test_outputs_that_say_nothing_are_no_proof() -> None:
    call = Call((torch.zeros(2, 3),))
    one, two = (net(lambda _, x, value=value: x + value) for value in (1.0, 2.0))  # type: ignore[misc]
    nothing, endless = (net(lambda _, x, value=value: x + value) for value in (float("nan"), float("inf")))  # type: ignore[misc]
    assert output_difference(one, two, call) == 1.0
    assert output_difference(endless, endless, call) == 0.0
    assert output_difference(endless, one, call) == float("inf")
    assert output_difference(one, nothing, call) == float("inf")
    with pytest.raises(IncomparableError, match="returns NaN"):
        output_difference(nothing, one, call)


def test_nan_is_named_whatever_scores() -> None:
    model = Residual().eval()
    before = copy.deepcopy(model.state_dict())
    bad = [torch.full((4, 3, 8, 8), float("nan"))]
    for scores, message in (("pfp", "not finite"), ("obs", "not finite"), ("l1", "the network returns NaN")):
        with pytest.raises(ValueError, match=message):
            prune_filters_(model, "params:0.8", calibration=bad, scores=scores, latency=False)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
