"""A pretrained model loses filters, or gets a mask, and learns from itself as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bisparse.filters import apply_plan_, load_plan
from bisparse.recipes import Recipe, train_recipe
from bisparse.recipes.errors import RecipeError
from bisparse.recipes.filters import FiltersSection
from bisparse.recipes.run import make_trainer
from bisparse.train.callback import Callback, LogRow
from bisparse.train.distillation import Distillation
from bisparse.train.processes import Processes
from bisparse.train.trainer import Trainer
from bisparse.zoo.mlp import mlp

BASE: dict[str, Any] = {
    "model": {"name": "mlp", "options": {"widths": [64, 48, 32, 10]}},
    "data": {"name": "digits"},
    "epochs": 8,
    "batch": 64,
    "optimizer": {"name": "adam", "lr": 3e-3},
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("dense") / "run"
    train_recipe(Recipe.of({**BASE, "output": str(folder)}))
    return str(folder / "model.safetensors")


def recipe(weights: str, **changes: Any) -> Recipe:
    model = {**BASE["model"], "weights": weights}
    return Recipe.of({**BASE, "model": model, "distillation": {"hidden": 5.0, "mixup": 0.5}, **changes})


def test_the_teacher_is_the_model_before_its_filters_went(weights: str, tmp_path: Path) -> None:
    found = recipe(weights, filters={"budget": "params:0.5", "calibration": 64}, output=str(tmp_path / "run"))
    trainer = make_trainer(found, Processes())
    objective = trainer.objective
    assert isinstance(objective, Distillation)
    dense = load_file(weights)
    assert all(torch.equal(dense[name], value) for name, value in objective.teacher.state_dict().items())
    assert len(objective.kept["0.weight"][0]) == len(trainer.model.state_dict()["0.weight"]) < 48
    report = train_recipe(found)
    assert report.parts["validation"].accuracy > 0.8
    model = apply_plan_(mlp((64, 48, 32, 10)), load_plan(tmp_path / "run" / "filters.plan.json"))
    model.load_state_dict(load_file(tmp_path / "run" / "model.safetensors"))


def test_a_masked_model_learns_from_the_dense_one(weights: str, tmp_path: Path) -> None:
    report = train_recipe(recipe(weights, pattern="2:4", rule="ste", output=str(tmp_path / "run")))
    assert all(mask.holds for mask in report.masks)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": BASE["model"]}, "the model before training, which is random here; name model.weights"),
        ({"loop": {"label_smoothing": 0.1}}, "take the place of loop.label_smoothing"),
        ({"loop": {"compile": True}}, r"distillation\.hidden: loop\.compile passes over the hooks"),
        ({"distillation": {"mixup": 2.0}}, r"distillation\.mixup"),
    ],
)
def test_what_cannot_be_followed_is_refused(weights: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe(weights, **change)


def test_data_that_cannot_be_used_are_refused(weights: str) -> None:
    section = recipe(weights).distillation
    assert section is not None
    tokens = torch.zeros(1, 4, dtype=torch.int64)
    with pytest.raises(
        RecipeError, match="needs inputs with class numbers, and these data are input_ids, labels"
    ):
        section.check({"input_ids": tokens, "labels": tokens})
    with pytest.raises(RecipeError, match=r"distillation\.mixup: inputs of torch\.int64 cannot be mixed"):
        section.check((tokens, tokens))


def test_data_are_refused_before_filters_are_removed(
    tmp_path: Path, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FiltersSection, "remove", lambda *_: pytest.fail("filters were removed first"))
    (tmp_path / "text.txt").write_text("to be or not to be " * 60, encoding="utf-8")
    text = {"name": "text", "file": str(tmp_path / "text.txt"), "length": 16}
    with pytest.raises(RecipeError, match=r"distillation\.mixup: inputs of"):
        make_trainer(recipe(weights, data=text, filters={"budget": "params:0.5"}), Processes())


def test_a_stopped_run_goes_on_as_if_it_had_not(weights: str, tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    class Stop(Callback):
        def on_step(self, trainer: Trainer, row: LogRow) -> None:
            if trainer.step == 30:
                raise StopError

    runs = [
        recipe(
            weights,
            filters={"budget": "params:0.5", "calibration": 64},
            epochs=3,
            output=str(tmp_path / name),
        )
        for name in ("whole", "stopped")
    ]
    train_recipe(runs[0])
    with pytest.raises(StopError):
        train_recipe(runs[1], callbacks=[Stop()])
    train_recipe(runs[1], resume=True)
    whole, stopped = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "stopped"))
    assert all(torch.equal(value, stopped[name]) for name, value in whole.items())
