"""The folder of a training run: whose it is, and what is written at the end."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from torch import nn

from bisparse.compress.entry import save_model
from bisparse.recipes.errors import RecipeError
from bisparse.recipes.recipe import Recipe
from bisparse.recipes.yaml_text import parse_yaml
from bisparse.train.train_report import TrainReport

__all__ = ["claim_output", "write_results"]

_FILES = (
    "recipe.yaml", "checkpoint.pt", "checkpoint.pt.part", "metrics.jsonl", "metrics.csv", "model.safetensors",
    "report.json", "report.png", "filters.plan.json", "filters.report.json",
)  # fmt: skip
_FOLDERS = ("model", "tensorboard")
# Keys that may change between a run and its continuation: they do not change what is computed.
_FREE = (
    "output",
    "description",
    "loop.threads",
    "loop.workers",
    "loop.log_every",
    "loop.tensorboard",
    "loop.device",
)


def claim_output(folder: Path, recipe: Recipe, *, resume: bool, force: bool) -> None:
    """Make the folder this recipe's.

    Args:
        folder: where the run is to live.
        recipe: written there as ``recipe.yaml``.
        resume: the folder may hold a run of the same recipe.
        force: a run in the folder is deleted (only the files that a run writes).

    Raises:
        RecipeError: the folder holds something else; says what to do.
    """
    present = [name for name in (*_FILES, *_FOLDERS) if (folder / name).exists()]
    if force and not resume:
        for name in present:
            _delete(folder / name)
        present = []
    if resume and (folder / "recipe.yaml").is_file():
        _same_recipe(folder / "recipe.yaml", recipe)
    elif present:
        raise RecipeError(f"{folder} holds a run already: --resume goes on with it, --force deletes it")
    elif folder.exists() and not folder.is_dir():
        raise RecipeError(f"output: {folder} is a file; name a folder")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")


def write_results(folder: Path, model: nn.Module, report: TrainReport) -> None:
    """Write the sparse model, the report and, where matplotlib is installed, its picture."""
    save_model(model, folder / ("model" if hasattr(model, "save_pretrained") else "model.safetensors"))
    (folder / "report.json").write_text(json.dumps(report.to_dict(), indent=1), encoding="utf-8")
    try:
        report.plot(folder / "report.png")
    except ImportError:
        return


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _same_recipe(path: Path, recipe: Recipe) -> None:
    stored = Recipe.of(parse_yaml(path.read_text(encoding="utf-8"), str(path)), str(path))
    before, now = _flat(stored.model_dump()), _flat(recipe.model_dump())
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name) and name not in _FREE]
    if changed:
        name = changed[0]
        raise RecipeError(
            f"{path.parent} holds a run of another recipe ({name}: {before.get(name)} there, {now.get(name)} here): "
            "resume with the same recipe, or name another output"
        )


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(values, dict):
        return {prefix.rstrip("."): values}
    return {
        key: value
        for name, inner in values.items()
        for key, value in _flat(inner, f"{prefix}{name}.").items()
    }
