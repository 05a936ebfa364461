"""Filters removed, then what is left trained, with a pattern inside it: one recipe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from bisparse.filters import apply_plan_, load_plan
from bisparse.recipes import Recipe, train_recipe
from bisparse.recipes.errors import RecipeError
from bisparse.zoo.mlp import mlp

VALUES = {
    "model": {"name": "mlp", "options": {"widths": [64, 48, 32, 10]}},
    "data": {"name": "digits"},
    "filters": {"budget": "params:0.5", "calibration": 64, "multiple": 4},
    "pattern": "2:4",
    "rule": "ste",
    "epochs": 1,
    "batch": 64,
}


def test_filters_then_a_pattern_then_training(tmp_path: Path) -> None:
    report = train_recipe(Recipe.of({**VALUES, "output": str(tmp_path / "run")}))
    assert all(mask.holds for mask in report.masks)
    model = apply_plan_(mlp((64, 48, 32, 10)), load_plan(tmp_path / "run" / "filters.plan.json"))
    model.load_state_dict(load_file(tmp_path / "run" / "model.safetensors"))
    removed = json.loads((tmp_path / "run" / "filters.report.json").read_text(encoding="utf-8"))
    assert removed["after"]["parameters"] == sum(p.numel() for p in model.parameters())
    assert sum(p.numel() for p in model.parameters()) <= 0.5 * (64 * 48 + 48 + 48 * 32 + 32 + 330)
    assert (
        train_recipe(Recipe.of({**VALUES, "output": str(tmp_path / "run")}), resume=True).steps
        == report.steps
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": "params"}, "write RESOURCE:SHARE"),
        ({"budget": "params:0.5", "scores": "l3"}, "choose one of pfp"),
        ({"budget": "params:0.0001"}, "cannot be met"),
        ({"budget": "latency:0.5"}, r"filters\.budget: .*measured times differ: choose params or flops"),
        ({"budget": "params:0.5", "scores": "taylor"}, "needs a loss, which a recipe has no key for"),
    ],
)
def test_wrong_sections_are_refused_in_words(tmp_path: Path, change: dict[str, str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        train_recipe(Recipe.of({**VALUES, "filters": change, "output": str(tmp_path / "run")}))
