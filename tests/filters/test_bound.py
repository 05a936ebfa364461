"""The guarantee: unbiased, as rarely wrong as it says, and inverse functions that are inverse."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bisparse.filters.bound import (
    draws_for_distinct,
    draws_needed,
    expected_distinct,
    provable_error,
    sample_size,
    top_error,
)
from bisparse.filters.budget import level_for
from bisparse.filters.widths import Scored, choose, widths_at


def test_error_and_draws_are_inverse() -> None:
    for eps in (0.05, 0.3, 2.0):
        draws = draws_needed(eps, 17.6, delta=0.1, outputs=640, kappa=2.5)
        assert provable_error(draws, 17.6, delta=0.1, outputs=640, kappa=2.5) == pytest.approx(eps)
    assert provable_error(0, 5.0, delta=0.1) == math.inf
    assert provable_error(10, 5.0, delta=0.1, kappa=math.inf) == math.inf


def test_the_formula_at_a_point_checkable_by_hand() -> None:
    # kappa S (6 + 2 eps) ln(2 / delta) / (3 eps^2) with S = 3, eps = 1, delta = 2 / e: 3 * 8 * 1 / 3.
    assert draws_needed(1.0, 3.0, delta=2 / math.e) == pytest.approx(8.0)


def test_distinct_channels_match_a_simulation() -> None:
    generator = np.random.default_rng(0)
    p = generator.dirichlet(np.ones(20))
    hits = generator.multinomial(30, p, size=4000) > 0
    assert expected_distinct(30, p) == pytest.approx(hits.sum(1).mean(), abs=0.15)
    for wanted in (3, 11, 19):
        assert expected_distinct(draws_for_distinct(wanted, p), p) == pytest.approx(wanted, abs=1e-6)
    assert draws_for_distinct(20, p) == math.inf


def shares(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Sensitivities of 12 channels over 200 samples, and the terms of one of the samples."""
    terms = generator.gamma(0.5, size=(200, 12))
    return (terms / terms.sum(1, keepdims=True)).max(0), terms[0]


def estimates(selection: str, rounds: int) -> np.ndarray:
    """Outputs after a random choice, over the true output."""
    generator = np.random.default_rng(1)
    sensitivity, terms = shares(generator)
    found = []
    for _ in range(rounds):
        choice = choose(Scored(sensitivity), 7, selection, rescale=True, generator=generator)  # type: ignore[arg-type]
        found.append((terms * choice.scales * choice.kept).sum() / terms.sum())
    return np.array(found)


@pytest.mark.parametrize("selection", ["random", "hybrid"])
def test_random_choices_are_right_on_average(selection: str) -> None:
    ratios = estimates(selection, 4000)
    assert abs(ratios.mean() - 1) < 4 * ratios.std() / math.sqrt(len(ratios))
    assert ratios.std() > 0.01


def test_the_failure_rate_is_at_most_delta() -> None:
    generator = np.random.default_rng(2)
    sensitivity, terms = shares(generator)
    total, p = sensitivity.sum(), sensitivity / sensitivity.sum()
    for eps, delta in ((0.5, 0.2), (0.25, 0.1)):
        draws = math.ceil(draws_needed(eps, total, delta=delta))
        counts = generator.multinomial(draws, p, size=5000)
        errors = np.abs((counts / (draws * p)) @ terms / terms.sum() - 1)
        assert (errors >= eps).mean() <= delta


def test_top_channels_err_by_no_more_than_is_proven() -> None:
    generator = np.random.default_rng(3)
    terms = generator.gamma(0.5, size=(500, 12))
    share = terms / terms.sum(1, keepdims=True)
    sensitivity = share.max(0)
    for width in (6, 9, 11):
        choice = choose(Scored(sensitivity), width, "top", rescale=True, generator=generator)
        worst = np.abs(share @ (choice.scales * choice.kept) - 1).max()
        assert worst <= top_error(sensitivity[~choice.kept].sum(), choice.scales.max()) + 1e-12
        assert choice.kept.sum() == width


def test_rescaling_makes_the_kept_probabilities_whole() -> None:
    scores = np.array([4.0, 3.0, 2.0, 1.0])
    generator = np.random.default_rng(0)
    choice = choose(Scored(scores), 2, "top", rescale=True, generator=generator)
    assert choice.kept.tolist() == [True, True, False, False]
    assert choice.scales[0] == pytest.approx(10 / 7)
    assert choose(Scored(scores), 2, "top", rescale=False, generator=generator).scales.tolist() == [1.0] * 4


def test_the_papers_number_of_samples() -> None:
    # ResNet-20: 688 138 outputs per sample, at most 16 384 of one layer.
    assert sample_size([16384] * 7 + [8192] * 6 + [4096] * 6 + [10]) == 183


def test_wrong_probabilities_are_refused() -> None:
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        draws_needed(0.1, 1.0, delta=0.0)
    with pytest.raises(ValueError, match="no layer"):
        sample_size([])


def test_a_silent_channel_that_may_speak_makes_the_proof_vacuous() -> None:
    assert top_error(0.0, 1.0, 2.0) == 0.0
    assert top_error(0.0, 1.0, math.inf) == 1.0


@pytest.mark.parametrize("allocation", ["eps", "error"])
def test_channels_without_scores_go_first_but_only_as_the_budget_asks(allocation: str) -> None:
    families = [Scored(np.array([0.0] * 6 + [0.2, 0.4])), Scored(np.zeros(5)), Scored(np.array([0.5, 0.6]))]
    full = [8, 5, 2]
    assert widths_at(families, allocation, -80.0) == full  # type: ignore[arg-type]
    for kept in (14, 11, 8):
        level = level_for(lambda x: widths_at(families, allocation, x), sum, kept, (-80.0, 80.0))  # type: ignore[arg-type]
        found = widths_at(families, allocation, level)  # type: ignore[arg-type]
        assert kept - 2 <= sum(found) <= kept
        assert found[0] >= 2
        assert found[2] == 2
