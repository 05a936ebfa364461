from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from bisparse.bench.adaptive import run_masked_case, run_pair
from bisparse.bench.adaptive_cases import CHOICES, KEY, PATTERNS, MaskedCase, masked_cases
from bisparse.bench.adaptive_correlations import MEASURES, mean_rows
from bisparse.bench.adaptive_masks import diversities, make_masks
from bisparse.bench.adaptive_plots import draw_measures
from bisparse.bench.adaptive_subjects import HIDDEN, Subject, load_subject
from bisparse.bench.adaptive_tables import adaptive_tables, correlation_table
from bisparse.bench.ledger import Row
from bisparse.bench.spearman import spearman
from bisparse.timing import torch_threads
from bisparse.zoo import digits, mlp


def test_rank_correlation_is_that_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    for values in (rng.normal(size=12), rng.integers(3, size=12).astype(float)):
        other = rng.integers(5, size=12).astype(float)
        assert spearman(values.tolist(), other.tolist()) == pytest.approx(stats.spearmanr(values, other)[0])
    assert spearman([1.0, 2.0, 9.0], [0.1, 0.2, 0.3]) == pytest.approx(1.0)
    assert math.isnan(spearman([1.0, 1.0], [1.0, 2.0]))


def test_cases_are_balanced_and_distinct() -> None:
    cases = list(masked_cases())
    assert len({tuple(case.row()[k] for k in KEY) for case in cases}) == len(cases) == 3 * 3 * 2 * 18


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("choice", CHOICES)
def test_every_mask_keeps_half(pattern: str, choice: str) -> None:
    model = mlp((16, 24, 16, 10))
    masks = make_masks(model, HIDDEN, pattern, choice, torch.randn(8, 16), 0)
    assert {name: float(mask.float().mean()) for name, mask in masks.items()} == dict.fromkeys(HIDDEN, 0.5)
    again = make_masks(model, HIDDEN, pattern, choice, torch.randn(8, 16), 1)
    assert choice != "random" or not torch.equal(masks["0.weight"], again["0.weight"])


def test_diversities() -> None:
    assert diversities("2:4", [(4, 4)]) == (pytest.approx(4 * math.log10(6)),) * 2
    paper, true = diversities("2:4t", [(4, 4)])
    assert (paper, true) == (pytest.approx(math.log10(144)), pytest.approx(math.log10(90)))
    assert diversities("filters", [(4, 8)]) == (pytest.approx(math.log10(6)),) * 2
    with pytest.raises(ValueError, match="choice"):
        make_masks(mlp((8, 8, 8, 2)), HIDDEN, "2:4", "best", torch.randn(2, 8), 0)


def test_a_case_is_judged_and_trained() -> None:
    with torch_threads(1):
        subject = Subject(digits(), 2)
        case = MaskedCase("digits", "trained", "2:4t", "magnitude", 0)
        row = run_masked_case(case, subject, subject.network("trained", 0))
    assert row["density"] == 0.5
    assert 0.1 < float(row["accuracy"] or 0) <= 1.0
    assert all(isinstance(row[name], (int, float)) for name in MEASURES)
    with pytest.raises(ValueError, match="digits, mnist or cifar"):
        load_subject("svhn")


def made_up_rows() -> list[Row]:
    """Accuracy follows the alignment, and nothing else varies with it."""
    rows: list[Row] = []
    for case in masked_cases():
        rank = PATTERNS.index(case.pattern) * 3 + CHOICES.index(case.choice)
        values: Row = dict.fromkeys(MEASURES, 0.5)
        rows.append(
            case.row() | values | {"alignment": rank / 20, "accuracy": rank / 100 + 0.5, "machine": "m"}
        )
    return rows


def test_tables_and_pictures_show_the_best_measure(tmp_path: Path) -> None:
    rows = made_up_rows()
    assert len(mean_rows(rows, "digits", "initial")) == 18
    line = next(text for text in correlation_table(rows).splitlines() if "alignment" in text)
    assert line.count("+1.00") == 7
    assert "**+1.00**" in line
    pair: Row = {"pair": "4 9", "step": 0, "alignment": 0.2, "cka_start": 1.0, "decay": -1.5, "machine": "m"}
    pair |= {f"error_{name}": 0.1 for name in ("network", "adaptive", "initial")}
    tables = adaptive_tables(rows, [pair])
    assert "| 4 9 | 0 | 0.200 | 1.000 | -1.50 | 10.0 | 10.0 | 10.0 |" in tables["kernel_pairs"]
    assert "± 0.00" in tables["kernel_accuracy"]
    assert tables["kernel_sentence"].startswith(
        "Mean rank correlation, best first: alignment of K_M with the labels +1.00"
    )
    assert tables["kernel_words"] == (
        "Best on average: alignment of K_M with the labels (+1.00); all others are more than two standard errors "
        "(0.20) behind.\n"
    )
    assert tables["kernel_seeds"] == "Seeds per number: 3; 324 trained networks.\n"
    assert "Nothing" in kernel_seeds_of_nothing()
    assert len(draw_measures([row for row in rows if row["data"] == "digits"], "trained", tmp_path)) == 1


def test_words_follow_the_rows() -> None:
    rows = made_up_rows()
    for row in rows:
        order = float(row["alignment"] or 0)
        row["rank"], row["diversity_paper"] = 2 * order, -order
        row["kept_trace"] = order if row["data"] == "mnist" else -order
        row["diversity_exact"] = order if row["choice"] == "magnitude" else -order
    words = " ".join(adaptive_tables(rows, [])["kernel_words"].split())
    assert "not to be told apart from it, being within two standard errors (0.20): rank K_M (+1.00)." in words
    assert "Mask diversity is behind these: -1.00 (paper's formula), " in words
    assert "sign changes from column to column: trace of K_M / trace of K (-1.00 to +1.00)." in words
    assert "it points the wrong way in 6 of 6 columns (two standard errors here: 0.37)." in words
    assert adaptive_tables([], [])["kernel_words"] == "Nothing is measured yet.\n"


def kernel_seeds_of_nothing() -> str:
    return adaptive_tables([], [])["kernel_seeds"]


@pytest.mark.data
def test_a_pair_of_digits() -> None:
    with torch_threads(1):
        try:
            rows, report = run_pair((0, 1), examples=20, width=10)
        except FileNotFoundError as error:
            pytest.skip(str(error))
    assert [row["step"] for row in rows] == [snapshot.step for snapshot in report.snapshots]
    assert float(rows[-1]["error_network"] or 0) < 0.1
