"""Averages of truly sparse models: equal ones stay, others keep the strongest of all connections."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from bisparse.nn import SparseLinear, SparseMLP
from bisparse.nn.sparse_average import averaged_model


def network(seed: int) -> SparseMLP:
    return SparseMLP((12, 20, 16, 4), epsilon=4, seed=seed)


def test_the_average_of_equal_models_is_the_model():
    model = network(0)
    average = averaged_model([model, copy.deepcopy(model), copy.deepcopy(model), copy.deepcopy(model)])
    for (name, one), other in zip(average.state_dict().items(), model.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=0, msg=name)
    assert averaged_model([model])[0].values is not model[0].values


def layer(weights: list[list[float]]) -> nn.Sequential:
    linear = nn.Linear(3, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor(weights))
        linear.bias.fill_(len(weights[0]) * weights[0][0])
    return nn.Sequential(SparseLinear.from_linear(linear))


def test_an_average_by_eye():
    first = layer([[4.0, 0.0, -2.0], [1.0, 0.0, -6.0]])
    second = layer([[2.0, 8.0, 0.0], [0.0, 0.0, -2.0]])
    average = averaged_model([first, second])
    # means: 3, 4, -1; .5, 0, -4. Four of the five are kept: of 3 positive 2, of 2 negative 2.
    assert average[0].to_linear().weight.tolist() == [[3.0, 4.0, -1.0], [0.0, 0.0, -4.0]]
    assert average[0].bias.tolist() == [9.0, 9.0]
    assert first[0].nnz == average[0].nnz == 4
    assert first[0].values.tolist() == [4.0, -2.0, 1.0, -6.0]


def test_other_models_keep_the_number_of_connections_and_learn_on():
    models = [network(seed) for seed in range(3)]
    average = averaged_model(models)
    assert [each.nnz for each in average.sparse_layers] == [each.nnz for each in models[0].sparse_layers]
    keys = [set(each[0].index.keys().tolist()) for each in models]
    assert set(average[0].index.keys().tolist()) <= set.union(*keys)
    average(torch.randn(5, 12)).sum().backward()
    assert average[0].values.grad.shape == average[0].values.shape


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ([], "no models"),
        ([network(0), SparseMLP((12, 20, 4), epsilon=2)], "different layers"),
        ([network(0), SparseMLP((12, 24, 16, 4), epsilon=4)], "does not fit"),
    ],
)
def test_models_of_other_structure_are_refused(models, message):
    with pytest.raises(ValueError, match=message):
        averaged_model(models)


def test_plain_layers_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match="average models of one structure"):
        averaged_model([nn.Sequential(nn.Linear(3, 2)), nn.Sequential(nn.Linear(4, 2))])


def test_models_that_diverged_are_refused():
    model = network(0)
    with torch.no_grad():
        model.sparse_layers[0].values[3] = float("nan")
    with pytest.raises(ValueError, match="did the training diverge"):
        averaged_model([network(0), model])
