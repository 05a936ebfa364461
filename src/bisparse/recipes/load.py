"""Recipes from files, from the package, and with single keys changed."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from bisparse.recipes.errors import RecipeError
from bisparse.recipes.recipe import Recipe
from bisparse.recipes.yaml_text import parse_yaml

__all__ = ["load_recipe", "shipped_recipes"]


def shipped_recipes() -> dict[str, str]:
    """The recipes inside the package: name to text, sorted by name."""
    found = [file for file in files("bisparse.recipes").iterdir() if file.name.endswith(".yaml")]
    return {
        file.name.removesuffix(".yaml"): file.read_text("utf-8")
        for file in sorted(found, key=lambda f: f.name)
    }


def load_recipe(source: str | Path, changes: Sequence[str] = ()) -> Recipe:
    """A recipe from a file, or one of the package's by name.

    Args:
        source: path of a YAML file, or a name as :func:`shipped_recipes` lists it.
        changes: ``key=value`` with dotted keys (``optimizer.lr=0.05``); values are YAML; ``null`` takes a default back.

    Raises:
        RecipeError: no such recipe, no valid YAML, or a key or value that is wrong.
    """
    text = _text(str(source))
    values = parse_yaml(text, str(source))
    if not isinstance(values, dict):
        raise RecipeError(f"{source}: a recipe is a mapping of keys, got {type(values).__name__}")
    for change in changes:
        _set(values, change)
    return Recipe.of(values, str(source))


def _text(source: str) -> str:
    path = Path(source)
    if path.is_file():
        return path.read_text(encoding="utf-8")
    shipped = shipped_recipes()
    if source in shipped:
        return shipped[source]
    raise RecipeError(f"{source} is neither a file nor one of the recipes {', '.join(shipped)}")


def _set(values: dict[str, Any], change: str) -> None:
    """Change one key in place; sections on the way to it are made."""
    name, equals, text = change.partition("=")
    if not equals or not name.strip("."):
        raise RecipeError(f"--set {change!r}: write key=value, for example optimizer.lr=0.05")
    *sections, last = name.strip().split(".")
    place = values
    for section in sections:
        inner = place.get(section)
        if isinstance(inner, str):  # a name alone stands for the section with that name
            inner = {"name": inner}
        place[section] = dict(inner) if isinstance(inner, dict) else {}
        place = place[section]
    value = parse_yaml(text, f"--set {change}")
    if value is None:
        place.pop(last, None)
    else:
        place[last] = value
