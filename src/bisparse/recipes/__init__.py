"""Training runs as files: validated recipes, those that come with the package, and what runs them.

Needs pydantic and PyYAML (``pip install "bisparse[train]"``).
"""

from __future__ import annotations

from bisparse.recipes.errors import RecipeError
from bisparse.recipes.load import load_recipe, shipped_recipes
from bisparse.recipes.recipe import Recipe
from bisparse.recipes.run import train_recipe

__all__ = ["Recipe", "RecipeError", "load_recipe", "shipped_recipes", "train_recipe"]
