from __future__ import annotations

import pytest
import torch
from torch import nn

from bisparse.scores import SCORES, LayerStatistics, magnitude, obs, ria, score_rows, wanda
from bisparse.weights import as_rows, find_weights


def statistics(inputs, rows):
    found = LayerStatistics.zeros(*rows.shape)
    found.update(inputs, inputs @ rows.mT)
    return found


ROWS = torch.tensor([[[1.0, -2.0, 3.0], [4.0, 0.0, -1.0]]])
INPUTS = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 4.0, 1.0]]])


def test_magnitude_and_wanda_by_eye():
    known = statistics(INPUTS, ROWS)
    assert magnitude(ROWS, known).tolist() == [[[1, 2, 3], [4, 0, 1]]]
    assert known.input_norm().tolist() == [[1.0, 5.0, 1.0]]
    assert wanda(ROWS, known).tolist() == [[[1, 10, 3], [4, 0, 1]]]


def test_relative_importance_by_eye():
    rows = torch.tensor([[[1.0, 3.0], [1.0, 1.0]]])
    found = ria(rows, statistics(torch.eye(2)[None], rows))
    expected = torch.tensor([[[1 / 4 + 1 / 2, 3 / 4 + 3 / 4], [1 / 2 + 1 / 2, 1 / 2 + 1 / 4]]])
    torch.testing.assert_close(found, expected)


def test_obs_is_the_error_left_after_the_best_refit():
    torch.manual_seed(0)
    rows = torch.randn(1, 2, 5, dtype=torch.float64)
    inputs = torch.randn(1, 50, 5, dtype=torch.float64)
    scores = obs(rows, statistics(inputs, rows), damping=1e-12)
    for column in range(5):
        others = [c for c in range(5) if c != column]
        design, goal = inputs[0][:, others], inputs[0] @ rows[0].T
        fit = design @ torch.linalg.lstsq(design, goal).solution
        torch.testing.assert_close(scores[0, :, column], (goal - fit).square().sum(0), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", SCORES)
def test_all_scores_are_finite_and_non_negative_even_with_dead_inputs(name):
    rows = torch.randn(2, 4, 6, dtype=torch.float64)
    inputs = torch.randn(2, 30, 6, dtype=torch.float64)
    inputs[..., 3:] = 0.0
    scores = SCORES[name](rows, statistics(inputs, rows))
    assert scores.shape == rows.shape
    assert bool(torch.isfinite(scores).all())
    assert bool((scores >= 0).all())


def test_statistics_do_not_depend_on_batches():
    torch.manual_seed(0)
    x, rows = torch.randn(1, 3000, 4), torch.randn(1, 3, 4)
    whole, parts = statistics(x, rows), LayerStatistics.zeros(1, 3, 4)
    for piece in x.split(700, 1):
        parts.update(piece, piece @ rows.mT)
    torch.testing.assert_close(whole.gram, parts.gram, rtol=1e-6, atol=1e-4)
    assert whole.count == parts.count == 3000


def test_errors_equal_direct_ones():
    torch.manual_seed(0)
    x, rows, other = (
        torch.randn(2, 40, 4).double(),
        torch.randn(2, 3, 4).double(),
        torch.randn(2, 3, 4).double(),
    )
    known, bias = statistics(x, rows), torch.randn(2, 3).double()
    direct = (x @ rows.mT - x @ other.mT - bias[:, None]).square().sum((1, 2))
    torch.testing.assert_close(known.squared_error(other, bias), direct)
    centred = (x - x.mean(1, keepdim=True)) @ (rows - other).mT
    torch.testing.assert_close(known.centred().squared_error(other), centred.square().sum((1, 2)))
    assert known.relative_error(rows) < 1e-6


def test_wrong_shapes_and_bad_values_are_refused():
    known = LayerStatistics.zeros(1, 3, 4)
    with pytest.raises(ValueError, match="3 outputs and 4 inputs"):
        known.update(torch.zeros(1, 5, 4), torch.zeros(1, 5, 2))
    with pytest.raises(ValueError, match="NaN"):
        known.update(torch.full((1, 5, 4), float("inf")), torch.zeros(1, 5, 3))


def test_choice_of_scores():
    model = nn.Sequential(nn.Conv1d(4, 6, 3))
    (weight,) = find_weights(model, ignore=[])
    rows = as_rows(weight.parameter.detach(), weight.layout)
    given = torch.rand(6, 4, 3)
    expected = as_rows(given, weight.layout)
    assert torch.equal(score_rows({"0.weight": given}, weight, rows, None), expected)
    assert torch.equal(score_rows(lambda w, s: w.square(), weight, rows, None), rows.square())
    with pytest.raises(ValueError, match="calibration"):
        score_rows("obs", weight, rows, None)


@pytest.mark.parametrize("columns", [1, 47, 100, 150, 203])
def test_gram_by_blocks_is_the_whole_symmetric_product(columns):
    x, y = torch.randn(5000, columns, dtype=torch.float64), torch.randn(5000, 2, dtype=torch.float64)
    statistics = LayerStatistics.zeros(1, 2, columns)
    for part, goal in zip(x.split(3000), y.split(3000), strict=True):
        statistics.update(part[None], goal[None])
    torch.testing.assert_close(statistics.gram[0], x.T @ x)
    assert torch.equal(statistics.gram[0], statistics.gram[0].T)
    torch.testing.assert_close(statistics.cross[0], y.T @ x)
