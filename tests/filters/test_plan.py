"""Plans one after the other."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bisparse.filters import FilterPlan, apply_plan, apply_plan_
from bisparse.zoo.mlp import mlp

FIRST = FilterPlan(
    {"0.weight": {0: (1, 3, 4)}, "0.bias": {0: (1, 3, 4)}, "2.weight": {1: (1, 3, 4)}},
    {"0.weight": (6, 4), "0.bias": (6,), "2.weight": (5, 6)},
    {"block": {"heads": 3, "width": 9}},
)
LATER = FilterPlan(
    {
        "0.weight": {0: (0, 2)}, "0.bias": {0: (0, 2)}, "2.weight": {0: (0, 4), 1: (0, 2)}, "2.bias": {0: (0, 4)},
        "4.weight": {1: (0, 4)},
    },
    {"0.weight": (3, 4), "0.bias": (3,), "2.weight": (5, 3), "2.bias": (5,), "4.weight": (2, 5)},
    {"block": {"heads": 2}},
)  # fmt: skip


def test_two_plans_are_one():
    both = FIRST.then(LATER)
    assert both.kept["0.weight"] == {0: (1, 4)}
    assert both.kept["2.weight"] == {0: (0, 4), 1: (1, 4)}
    assert both.shapes == {**LATER.shapes, **FIRST.shapes}
    assert both.attributes == {"block": {"heads": 2, "width": 9}}
    assert FIRST.kept["2.weight"] == {1: (1, 3, 4)}  # unchanged
    assert FilterPlan().then(FIRST) == FIRST == FIRST.then(FilterPlan())


def test_one_plan_makes_the_network_of_both():
    one, two = (FilterPlan(plan.kept, plan.shapes) for plan in (FIRST, LATER))
    network = mlp((4, 6, 5, 2), seed=0)
    expected = apply_plan_(apply_plan(network, one), two).state_dict()
    found = apply_plan(network, one.then(two)).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_a_plan_for_other_shapes_is_refused():
    with pytest.raises(
        ValueError, match=r"0\.weight is \(3, 4\) after the first plan, the later one was made for \(6, 4\)"
    ):
        FIRST.then(FIRST)


def test_a_module_under_two_names_is_cut_once():
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(6, 6)
            self.second = self.first

    ids = (0, 1, 3)
    kept = {f"{name}.weight": {0: ids, 1: ids} for name in ("first", "second")}
    model = Shared()
    expected = model.first.weight.detach()[[0, 1, 3]][:, [0, 1, 3]]
    small = apply_plan(model, FilterPlan(kept, dict.fromkeys(kept, (6, 6))))
    assert torch.equal(small.first.weight, expected)
    assert small.first is small.second
    assert (small.first.in_features, small.first.out_features) == (3, 3)
