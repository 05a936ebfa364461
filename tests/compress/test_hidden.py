from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from bisparse.compress import Distill, LeastSquares, prune
from bisparse.compress.hidden import hidden_distance, layers_with_weights, run_recorded


class Twice(nn.Module):
    """One layer used twice, a norm, an embedding: only the layer and the embedding own matrices."""

    def __init__(self):
        super().__init__()
        self.embed, self.body, self.norm = nn.Embedding(9, 4), nn.Linear(4, 4), nn.LayerNorm(4)

    def forward(self, ids):
        return self.body(self.norm(self.body(self.embed(ids))))


def test_inputs_of_layers_with_weights_are_noted_once_per_call():
    torch.manual_seed(0)
    model, ids = Twice(), torch.tensor([[1, 2, 3]])
    layers = layers_with_weights(model)
    assert layers == [model.embed, model.body]
    output, seen = run_recorded(layers, lambda: model(ids))
    assert list(seen) == [model.body]  # token ids are no hidden states
    first, second = seen[model.body]
    assert torch.equal(first, model.embed(ids))
    assert torch.equal(second, model.norm(model.body(first)))
    assert torch.equal(output, model.body(second))
    assert not model.body._forward_pre_hooks


def test_keyword_inputs_are_noted_and_hooks_go_even_after_an_error():
    layer, x = nn.Linear(2, 2), torch.ones(1, 2)
    _, seen = run_recorded([layer], lambda: layer(input=x))
    assert seen[layer][0] is x
    with pytest.raises(RuntimeError):
        run_recorded([layer], lambda: layer(torch.ones(1, 3)))
    assert not layer._forward_pre_hooks


def test_distance_by_hand():
    a, b, c = nn.Identity(), nn.Identity(), nn.Identity()
    shared = torch.ones(3)
    goal = {a: [torch.tensor([3.0, 4.0])], b: [shared], c: [torch.ones(2)]}
    found = {a: [torch.tensor([3.0, 1.0])], b: [shared], c: [torch.ones(5)]}
    assert float(hidden_distance(found, goal, None)) == pytest.approx(9 / 25)  # the others do not count
    assert hidden_distance({b: [shared]}, goal, None) is None


def test_padding_tokens_do_not_count():
    layer, valid = nn.Identity(), torch.tensor([[True, True, False]])
    goal = torch.ones(1, 3, 2)
    found = goal.clone()
    found[:, 2] = 100.0
    assert float(hidden_distance({layer: [found]}, {layer: [goal]}, valid)) == 0.0
    assert float(hidden_distance({layer: [found]}, {layer: [goal]}, None)) > 1.0


def test_the_weight_draws_hidden_states_to_the_dense_ones():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))
    calibration = list(torch.randn(600, 16).split(200))
    fresh = torch.randn(400, 16)
    distance = {}
    for weight in (0.0, 40.0):
        recipe = (LeastSquares(), Distill(hidden=weight, min_steps=0, rate=3e-3))
        pruned = prune(model, "1:4", calibration=calibration, reconstruct=recipe).model
        with torch.no_grad():
            goal, found = (
                run_recorded(layers_with_weights(m), partial(m, fresh))[1] for m in (model, pruned)
            )
        matched = dict(zip(goal, found.values(), strict=True))
        distance[weight] = float(hidden_distance(matched, goal, None))
    assert distance[40.0] < 0.95 * distance[0.0]
