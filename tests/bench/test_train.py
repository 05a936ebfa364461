"""The benchmark of sparse training: its cases, its statistics, one run that is stopped, its tables."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from bisparse.bench.paired import paired_interval
from bisparse.bench.train import case_recipe, run_case
from bisparse.bench.train_cases import KEY, STUDIES, Case, cases
from bisparse.bench.train_tables import train_tables
from bisparse.recipes import train_recipe
from bisparse.timing import torch_threads
from bisparse.train.callback import Callback

PAGE = Path(__file__).resolve().parents[2] / "docs" / "train-results.md"
QUICK = Case("lambda", "digits", "dynamic", "2:4t", "sr-ste", 2e-4, every=5, epochs=2)


def test_an_interval_by_hand():
    interval = paired_interval([0.1, 0.3, 0.2])  # mean 0.2, standard deviation 0.1, t(2) = 4.303
    assert (interval.mean, interval.count) == (pytest.approx(0.2), 3)
    assert interval.half == pytest.approx(4.303 * 0.1 / math.sqrt(3))
    assert interval.upper == pytest.approx(0.2 + interval.half)
    assert str(interval) == "+0.20 ± 0.25"
    assert str(paired_interval([1.0])) == "+1.00"
    with pytest.raises(ValueError, match="no pair"):
        paired_interval([])


def test_an_interval_covers_the_truth_as_often_as_it_says():
    scipy = pytest.importorskip("scipy.stats")
    for count in (2, 5, 31):
        sample = scipy.norm.rvs(size=count, random_state=count)
        low, high = scipy.t.interval(0.95, count - 1, sample.mean(), scipy.sem(sample))
        ours = paired_interval(sample.tolist())
        assert (ours.mean - ours.half, ours.upper) == pytest.approx((low, high), abs=1e-3)


@pytest.mark.parametrize("study", STUDIES)
def test_every_case_is_a_valid_recipe_of_its_own(study, tmp_path):
    found = list(cases(study, 2))
    assert (
        len({tuple(case.row().values()) for case in found})
        == len(found)
        == len({case.name for case in found})
    )
    for case in found:
        recipe = case_recipe(case, tmp_path)
        assert (recipe.seed, recipe.epochs) == (case.seed, case.epochs)
        assert (recipe.pattern or "") == case.pattern
        assert (recipe.pattern is None) == (case.kind == "dense")
        if case.kind == "dynamic":
            assert (recipe.rule.name, recipe.topology.method, recipe.schedule.every) == (
                case.rule,
                case.method,
                case.every,
            )
            assert getattr(recipe.rule, "decay", 0.0) == case.decay
        if case.kind == "static":
            assert recipe.schedule.freeze == 0


class Stop(Callback):
    def on_step(self, trainer, row):
        if trainer.step == 40:  # the last checkpoint is that of the first epoch, step 37
            raise KeyboardInterrupt


def test_a_stopped_run_goes_on_and_leaves_only_its_row(tmp_path):
    with torch_threads(1):
        whole = run_case(QUICK, tmp_path / "a")
        with pytest.raises(KeyboardInterrupt):
            train_recipe(case_recipe(QUICK, tmp_path / "b"), callbacks=[Stop()])
        assert (tmp_path / "b" / QUICK.name / "checkpoint.pt").is_file()
        resumed = run_case(replace(QUICK), tmp_path / "b")
    assert list((tmp_path / "b").iterdir()) == []
    for name in (
        "test_accuracy",
        "test_loss",
        "flip_rate",
        "flip_rate_from_start",
        "kept_magnitude",
        "refreshes",
    ):
        assert whole[name] == resumed[name]
    assert whole["verified"] is True
    assert 0.0 < whole["flip_rate"] < whole["flip_rate_from_start"] < 1.0
    assert whole["diversity_paper"] > whole["diversity"] > 1000.0
    assert set(KEY) <= set(whole)


def invented(case: Case) -> dict[str, object]:
    accuracy = 0.9 - 0.001 * len(case.pattern) - 0.002 * case.seed * (case.seed + len(case.pattern))
    numbers = {
        "flip_rate": 1e-3, "flip_rate_from_start": 0.2, "diversity": 9.0, "diversity_paper": None,
        "kept_magnitude": accuracy, "refresh_seconds": 0.01, "step_seconds": 0.2, "refresh_share": 0.00125,
    }  # fmt: skip
    found = {
        "test_accuracy": accuracy,
        "test_loss": 1.0,
        "validation_loss": 2.0 - accuracy,
        "validation_accuracy": accuracy,
        "machine": "a machine",
    }
    return {**case.row(), **found, **(numbers if case.kind != "dense" else {})}


def test_tables_say_what_the_rows_say():
    rows = [invented(case) for study in STUDIES for case in cases(study, 3)]
    tables = train_tables(rows)
    dense = [90.0, 90.0 - 0.2, 90.0 - 0.8]
    assert f"| dense |  |  | 3 | {sum(dense) / 3:.2f} (sd 0.42) |  |" in tables["train_resnet"]
    assert "| 4:8t | from scratch | SR-STE | 3 |" in tables["train_resnet"]
    assert "0.12%" in tables["train_refresh"]
    assert tables["train_targets"].count("missed by") == 6
    assert tables["train_targets"].count("met") == 4
    assert tables["train_machine"] == "a machine\n"
    line = "| mnist-lenet5 | SR-STE from scratch | 8 |  |  | +1.00 |  |"  # nothing but kept magnitude differs
    assert tables["train_ordering"].splitlines()[2] == line
    assert tables["train_ordering"].count("transposable | 5 |") == 4
    assert all("nan" not in text for text in tables.values())


def test_tables_of_no_rows_are_empty_but_whole():
    for name, text in train_tables([]).items():
        assert f"<!-- table: {name} -->" in PAGE.read_text(encoding="utf-8")
        assert name == "train_machine" or text.startswith(("| ", "Not measured yet."))
