"""Truly sparse networks from recipes: what is written, what is refused, and two processes under torchrun."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bisparse.recipes import RecipeError, load_recipe, shipped_recipes, train_recipe

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
QUICK = ["epochs=3", "loop.threads=1", "loop.device=cpu"]
SHIPPED = [name for name in shipped_recipes() if name.endswith("-sparse-mlp")]


def run(output: Path, *changes: str, **options: bool):
    return train_recipe(load_recipe("digits-sparse-mlp", [*QUICK, f"output={output}", *changes]), **options)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_networks_are_sparse(name):
    recipe = load_recipe(name)
    model = recipe.model.build(recipe.seed)
    dense = sum(layer.in_features * layer.out_features for layer in model.sparse_layers)
    assert recipe.evolution.name == "set"
    assert 0 < sum(layer.nnz for layer in model.sparse_layers) < 0.5 * dense
    again, other = recipe.model.build(recipe.seed), recipe.model.build(recipe.seed + 1)
    assert torch.equal(model[0].col, again[0].col)
    assert not torch.equal(model[0].col, other[0].col)


def test_a_run_writes_connections_and_says_how_many(tmp_path):
    report = run(tmp_path)
    assert report.notes == ["3 truly sparse layers, 4,370 of 50,200 weights (8.71%)"]
    saved = load_file(tmp_path / "model.safetensors")
    assert saved["0.values"].shape == saved["0.col"].shape == (1820,)
    assert (tmp_path / "model.safetensors").stat().st_size < 9 * 4370 + 8000
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["layers"][0] == {"name": "0", "shape": [300, 64], "connections": 1820}
    assert "connections" in (tmp_path / "metrics.csv").read_text().splitlines()[0]


def test_written_weights_start_another_network(tmp_path):
    run(tmp_path / "first")
    weights = f"model.weights={tmp_path / 'first' / 'model.safetensors'}"
    recipe = load_recipe("digits-sparse-mlp", [weights, "model.options.epsilon=1.0"])
    saved = load_file(tmp_path / "first" / "model.safetensors")
    assert torch.equal(recipe.model.build(5)[0].values, saved["0.values"])


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ("evolution=static", True),
        ("evolution=null", True),
        ("evolution=set", False),
        ("evolution={name: rigl, every: 20, candidates: exact}", False),
    ],
)
def test_ways_to_evolve(tmp_path, change, same):
    report = run(tmp_path, change)
    recipe = load_recipe("digits-sparse-mlp")
    first = recipe.model.build(recipe.seed)[0].col
    assert torch.equal(load_file(tmp_path / "model.safetensors")["0.col"], first) == same
    assert sum(layer.connections for layer in report.layers) == 4370


def test_importance_pruning_shrinks_the_network(tmp_path):
    report = run(tmp_path, "evolution={name: set, importance: {begin: 1, every: 1, share: 0.2}}")
    counts = [row["connections"] for row in report.rows]
    assert counts[0] == 4370 > counts[1] > counts[2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["evolution=sett"], "evolution.name: 'sett' is not one of 'static', 'set', 'rigl'"),
        (["evolution.zeta=2.0"], "evolution.zeta"),
        (["model={name: mlp, options: {widths: [64, 10]}}"], "no truly sparse layers; name sparse-mlp"),
        (["model.options.density=0.1"], "model.options: epsilon=5.0, density=0.1: give one of them"),
    ],
)
def test_mistakes_are_told(tmp_path, changes, message):
    with pytest.raises(RecipeError) as told:
        run(tmp_path, *changes)
    assert message in str(told.value)


def test_two_processes_equal_one(tmp_path):
    """SET and RigL under torchrun; connections are equal, weights differ by the rounding of sums only."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    change = "evolution={name: rigl, every: 30, candidates: exact}"
    words = ["-m", "bisparse", "train", "digits-sparse-mlp", "--no-progress", "-o", str(tmp_path / "two")]
    words += [word for key in (*QUICK, change) for word in ("-s", key)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([*launcher, *words], env=ENVIRONMENT, start_new_session=True, **pipes) as processes:
        try:
            told, complaints = processes.communicate(timeout=280)
        except subprocess.TimeoutExpired:
            os.killpg(processes.pid, signal.SIGKILL)
            raise
    assert processes.returncode == 0, complaints
    assert told.count("truly sparse layers") == 1
    run(tmp_path / "one", change)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert torch.equal(one["0.col"], two["0.col"])
    for name in one:
        assert torch.allclose(one[name].double(), two[name].double(), atol=1e-4), name
