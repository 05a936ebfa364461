"""The section of a recipe that trains thresholds, and the recipes and cases that have one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from bisparse.bench.dst import case_recipe, run_case
from bisparse.bench.dst_cases import NETWORKS, STUDIES, Case
from bisparse.bench.dst_tables import draw_curve, dst_tables
from bisparse.recipes import load_recipe, train_recipe
from bisparse.recipes.errors import RecipeError
from bisparse.recipes.run import make_sparsifier
from bisparse.train import Dst, Ramp
from bisparse.train.thresholds import LongTail, PerTile, Reset, Target
from bisparse.zoo.lstm import lstm_classifier


def rule_of(*changes: str) -> Any:
    sparsifier = make_sparsifier(load_recipe("digits-dst", changes), 100)
    assert sparsifier is not None
    return sparsifier.rule


def test_every_number_arrives() -> None:
    assert rule_of("rule=dst") == Dst()
    text = (
        "rule={name: dst, alpha: 0.1, granularity: 'tile:4', target: {density: 0.1, begin: 5, end: 9, gain: 3}, "
        "reset: {mode: floor, level: 0.2}, estimator: {tail: 0.1}, strict: false, start: 0.3, faithful: true}"
    )
    assert rule_of(text) == Dst(
        0.1,
        PerTile(4),
        Target(0.1, Ramp(5, 9), 3.0),
        Reset("floor", 0.2),
        LongTail(tail=0.1),
        strict=False,
        start=0.3,
        faithful=True,
    )


@pytest.mark.parametrize(
    "change",
    ["rule.granularity=column", "rule.alpha=-1", "rule.target={density: 2}", "rule.reset={mode: never}"],
)
def test_wrong_keys_are_named(change: str) -> None:
    with pytest.raises(RecipeError, match=change.split("=", maxsplit=1)[0].split(".")[1]):
        load_recipe("digits-dst", [change])


def test_training_from_a_recipe_resumes(tmp_path: Path) -> None:
    changes = ["epochs=3", "rule.alpha=5e-2", f"output={tmp_path / 'run'}", "loop.threads=1"]
    report = train_recipe(load_recipe("digits-dst", changes))
    assert report.notes == ["3 weights of at most unstructured:0.0, verified"]
    assert 0.0 < report.measures["density"] < 1.0
    assert {"alpha", "resets", "threshold"} <= report.rows[-1].keys()
    assert train_recipe(load_recipe("digits-dst", changes), resume=True).final == report.final


@pytest.mark.parametrize("hidden", [5, 8])
def test_lstm_classifiers_read_rows(hidden: int) -> None:
    torch.manual_seed(0)
    model = lstm_classifier(hidden, features=6)
    images = torch.randn(3, 1, 4, 6)
    logits = model(images)
    assert logits.shape == (3, 10)
    assert torch.equal(model(images[:, 0]), logits)
    changed = images.clone()
    changed[1] += 1.0
    moved = (model(changed) != logits).any(1)
    assert moved.tolist() == [False, True, False]  # no state is carried between images
    assert sum(p.numel() for n, p in model.named_parameters() if "weight_" in n) == 4 * hidden * (
        6 + 3 * hidden
    )


def test_cases_are_recipes_that_load(tmp_path: Path) -> None:
    digits = [case_recipe(case, tmp_path) for case in STUDIES["digits"]]
    assert [recipe.rule.build().alpha for recipe in digits[:4]] == [0.0, 1e-4, 5e-4, 2e-3]  # type: ignore[union-attr]
    assert case_recipe(Case("digits", "digits", "dense"), tmp_path).pattern is None
    target = case_recipe(Case("digits", "digits", "target", 1e-3, 0.2, epochs=10), tmp_path)
    steps = 10 * (len(target.data.load().train) // target.batch)
    assert target.schedule.freeze == round(0.55 * steps)
    assert (
        rule_of(f"rule.target={{density: 0.2, end: {round(0.45 * steps)}}}").target
        == target.rule.build().target
    )  # type: ignore[union-attr]


def test_a_row_has_what_the_tables_tell(tmp_path: Path) -> None:
    case = Case("digits", "digits", "target", 2e-3, 0.3, epochs=6)
    row = run_case(case, tmp_path, ["loop.threads=1"])
    assert 0.15 < float(row["remaining"]) <= 0.3  # type: ignore[arg-type]
    assert row["verified"]
    assert not (tmp_path / case.name).exists()
    mnist = row | Case("curve", "mnist-lenet-300-100", "target", 5e-4, 0.1, epochs=12).row()
    reached = row | STUDIES["mnist-lenet5"][0].row() | {"remaining": 0.01, "test_accuracy": 0.995}
    tables = dst_tables([row, mnist, reached])
    assert f"| {100 * float(row['remaining']):.2f}% |" in tables["dst_curve"]  # type: ignore[arg-type]
    verdicts = {
        line.split("|")[1].strip(): line.split("|")[-2].strip() for line in tables["dst_targets"].splitlines()
    }
    assert verdicts["LeNet-5"] == "yes"
    assert verdicts["LSTM-b"] == "not run yet"
    assert "--only cifar" in tables["dst_cifar"]
    assert draw_curve([mnist], tmp_path / "curve.png").stat().st_size > 1000
    with pytest.raises(ValueError, match="nothing to draw"):
        draw_curve([row], tmp_path / "curve.png")


def test_the_published_table() -> None:
    printed = [(network.remaining, network.accuracy) for network in NETWORKS.values()]
    assert printed == [(0.0248, 0.9769), (0.0164, 0.9911), (0.0193, 0.9870), (0.0098, 0.9889)]
    for task in NETWORKS:
        recipe = load_recipe(f"{task}-dst")
        rule = recipe.rule.build()
        assert isinstance(rule, Dst)
        assert rule.target is not None
        assert rule.target.density <= NETWORKS[task].remaining
