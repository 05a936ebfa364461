"""Tables in recipes: the section's keys reach the reader, mistakes name the key."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bisparse.recipes import Recipe, RecipeError


def recipe(folder, **keys):
    data = {"name": "tabular", "table": "madelon", "folder": str(folder), **keys}
    return Recipe.of({"model": {"name": "mlp"}, "data": data, "epochs": 1})


def write(folder):
    (folder / "tabular").mkdir()
    inputs = np.random.default_rng(0).integers(0, 9, (40, 3)).astype(np.int16)
    labels = np.array([-1, 1] * 20, dtype=np.int8)
    np.savez(
        folder / "tabular" / "madelon.npz", x_train=inputs, y_train=labels, x_valid=inputs, y_valid=labels
    )


def test_the_section_divides_as_it_says(tmp_path):
    write(tmp_path)
    parts = recipe(tmp_path, held_out=0.25, division=3).data.load()
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (30, 10, 40)
    again, other = (recipe(tmp_path, held_out=0.25, division=seed).data.load() for seed in (3, 4))
    assert torch.equal(parts.validation.inputs, again.validation.inputs)
    assert not torch.equal(parts.validation.inputs, other.validation.inputs)


def test_mistakes_name_their_key(tmp_path):
    with pytest.raises(RecipeError, match=r"data.table: 'iris' is not one of 'madelon'"):
        recipe(tmp_path, table="iris")
    write(tmp_path)
    with pytest.raises(
        RecipeError, match=r"data: share=0.01 of the 20 examples of class 0 leaves one part empty"
    ):
        recipe(tmp_path, held_out=0.01).data.load()
