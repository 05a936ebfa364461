from __future__ import annotations

import math

import pytest
import torch

import bisparse as bs
from bisparse.compress import choose_keep, fit_nm, relax_probability
from bisparse.pattern import NM, TransposableNM
from bisparse.weights import as_matrices, find_weights

# Share of groups that obey, from the binomial tail, to four digits (zeros 2 of 4, 4 of 8, 8 of 16).
TABLE = [(0.5, 0.6875, 0.6367, 0.5982), (0.7, 0.9163, 0.9420, 0.9743), (0.9, 0.9963, 0.9996, 1.0000)]


@pytest.mark.parametrize(("rho", "two_four", "four_eight", "eight_sixteen"), TABLE)
def test_binomial_tail(rho, two_four, four_eight, eight_sixteen):
    found = [relax_probability(rho, pattern) for pattern in ("2:4", "4:8", "8:16")]
    assert found == pytest.approx([two_four, four_eight, eight_sixteen], abs=5e-5)


def test_keep_and_zeros_are_not_confused():
    assert relax_probability(0.5, "1:4") == pytest.approx(5 / 16)  # at least 3 of 4 zeros
    assert relax_probability(0.5, "6:8") == pytest.approx(1 - 9 / 256)  # at least 2 of 8 zeros


@pytest.mark.parametrize(
    "pattern", [NM(2, 4), NM(6, 8), TransposableNM(2, 4), TransposableNM(4, 8), TransposableNM(2, 8)]
)
def test_probability_agrees_with_simulation(pattern):
    rho, draws = 0.65, 20_000
    generator = torch.Generator().manual_seed(1)
    tiles = torch.rand(draws, pattern.block, pattern.block, generator=generator) >= rho
    rows = (
        (tiles.sum(2) <= pattern.keep).all(1)
        if isinstance(pattern, TransposableNM)
        else tiles[:, 0].sum(1) <= pattern.keep
    )
    obeys = rows & ((tiles.sum(1) <= pattern.keep).all(1) if isinstance(pattern, TransposableNM) else True)
    expected = relax_probability(rho, pattern)
    assert (
        abs(float(obeys.float().mean()) - expected) < 4 * math.sqrt(expected * (1 - expected) / draws) + 1e-9
    )


def test_exact_tile_probability_of_two_by_two():
    # at most one non-zero per line of a 2 x 2 tile: none, one of four, or one of the two diagonals
    p = 0.3
    expected = (1 - p) ** 4 + 4 * p * (1 - p) ** 3 + 2 * p**2 * (1 - p) ** 2
    assert relax_probability(1 - p, "1:2t") == pytest.approx(expected)


def test_large_tiles_are_simulated_close_to_their_limits():
    assert relax_probability(1.0, "8:16t") == 1.0
    assert relax_probability(0.0, "8:16t") == 0.0
    assert relax_probability(0.8, "8:16t") < relax_probability(0.8, "8:16")


@pytest.mark.parametrize(
    ("sparsity", "keep"), [(0.5, 6), (0.6, 5), (0.7, 5), (0.75, 4), (0.8, 4), (0.85, 3), (0.9, 2)]
)
def test_chosen_keep_of_eight(sparsity, keep):
    assert choose_keep(1 - sparsity, 8, 0.95) == keep


@pytest.mark.parametrize("block", [4, 8])
@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_chosen_keep_of_tiles_is_the_first_that_suffices(block, confidence):
    for density in (0.02, 0.1, 0.25, 0.4, 0.6, 0.9):
        probabilities = [
            bs.relax_probability(1 - density, TransposableNM(keep, block)) for keep in range(1, block)
        ]
        expected = next((k for k, p in enumerate(probabilities, 1) if p > confidence), block)
        assert bs.choose_keep(density, block, confidence, transposable=True) == expected


def test_extreme_densities():
    assert choose_keep(1.0, 8) == 8
    assert choose_keep(0.0, 8) == 1


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"rho=1\.5"):
        relax_probability(1.5, "2:4")
    with pytest.raises(ValueError, match="no groups"):
        relax_probability(0.5, "unstructured:0.5")
    with pytest.raises(ValueError, match="confidence"):
        choose_keep(0.5, 8, 1.0)
    with pytest.raises(ValueError, match="density"):
        choose_keep(-0.1)


def sparse_model(sparsity: float) -> torch.nn.Sequential:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(32, 24), torch.nn.ReLU(), torch.nn.Conv1d(24, 16, 3))
    with torch.no_grad():
        for module in (model[0], model[2]):
            weight = module.weight
            weight.mul_(weight.abs() > weight.abs().flatten().quantile(sparsity))
    return model


@pytest.mark.parametrize("transposable", [False, True])
@pytest.mark.parametrize("sparsity", [0.6, 0.85])
def test_zeros_stay_and_only_violating_groups_change(transposable, sparsity):
    model = sparse_model(sparsity)
    fitted = fit_nm(model, 8, transposable=transposable, ignore=[])
    assert len(fitted.report.layers) == 2
    for weight, old in zip(find_weights(fitted.model, ignore=[]), (model[0], model[2]), strict=True):
        new = weight.parameter.detach()
        assert bool((new[old.weight == 0] == 0).all())
        changed = (new != old.weight.detach()).sum()
        repaired, groups = fitted.report.notes["violating_groups"][weight.name]
        assert (changed > 0) == (repaired > 0)
        assert repaired / groups < 0.3
        keep, rest = fitted.report[weight.name].pattern.split(":")
        line_sums = as_matrices(new != 0, weight.layout)[:, :, :8].sum(2)
        assert int(line_sums.max()) <= int(keep)
        assert rest.startswith("8")


def test_a_model_that_already_obeys_is_left_exactly_as_it_is():
    model = torch.nn.Sequential(torch.nn.Linear(16, 16))
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].weight[:, ::8] = 1.0
    fitted = fit_nm(model, 8, ignore=[])
    assert torch.equal(fitted.model[0].weight, model[0].weight)
    assert fitted.report.notes["violating_groups"]["0.weight"][0] == 0


def test_dense_models_are_refused():
    with pytest.raises(ValueError, match="unstructured-sparse"):
        fit_nm(torch.nn.Sequential(torch.nn.Linear(8, 8)), ignore=[])


@pytest.mark.parametrize("transposable", [False, True])
def test_calibration_mends_what_the_repairs_broke(transposable):
    model = sparse_model(0.7)
    model[2] = torch.nn.Linear(24, 16)
    with torch.no_grad():
        model[2].weight.mul_(model[2].weight.abs() > model[2].weight.abs().flatten().quantile(0.7))
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(600, 32, generator=generator) @ torch.randn(32, 32, generator=generator)
    options = {"block": 8, "confidence": 0.6, "transposable": transposable, "ignore": []}
    masked = fit_nm(model, **options)
    fitted = fit_nm(model, calibration=list(x[:400].split(100)), **options)
    assert sum(bad for bad, _ in masked.report.notes["violating_groups"].values()) > 0
    for name, old in model.named_parameters():
        new = fitted.model.get_parameter(name)
        assert bool((new[old == 0] == 0).all())
        assert torch.equal(new != 0, masked.model.get_parameter(name) != 0)
    with torch.no_grad():
        error = [float((pruned.model(x[400:]) - model(x[400:])).norm()) for pruned in (masked, fitted)]
    assert error[1] < error[0]
