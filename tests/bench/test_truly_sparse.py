"""The benchmark of truly sparse layers: contenders agree, memory is the child's, tables say what rows say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bisparse.bench.child import in_child
from bisparse.bench.truly_sparse import measure_group, run_case, run_recipe
from bisparse.bench.truly_sparse_cases import (
    KINDS,
    STUDIES,
    TASKS,
    LayerCase,
    RunCase,
    layer_groups,
    run_cases,
)
from bisparse.bench.truly_sparse_layers import CONTENDERS, MOMENTUM, RATE, build_step
from bisparse.bench.truly_sparse_plots import draw_layers
from bisparse.bench.truly_sparse_tables import truly_sparse_tables
from bisparse.nn import SparseLinear

SMALL = LayerCase("target", "bisparse", 40, 30, 0.1, 4)


@pytest.mark.parametrize("name", ["bisparse", "torch CSR", "SciPy"])
def test_contenders_that_hold_the_same_values_make_the_same_step(name):
    pytest.importorskip("scipy")
    layer = SparseLinear(30, 40, bias=False, density=0.1)
    before, index = layer.values.detach().clone(), layer.index
    torch.manual_seed(0)
    x, grad = torch.randn(4, 30, requires_grad=True), torch.randn(4, 40)
    step = CONTENDERS[name](lambda: layer, x, grad)
    step()
    step()
    dense = (grad.t() @ x.detach())[index.rows(), index.col.long()]
    expected = before - RATE * dense - RATE * (1 + MOMENTUM) * dense
    torch.testing.assert_close(layer.values.detach(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CONTENDERS)
def test_every_contender_makes_steps(name):
    pytest.importorskip("scipy")
    step = build_step(name, 20, 30, 0.2, 3)
    step()
    step()


def take(megabytes: int) -> int:
    return int(np.ones(megabytes * 2**20, dtype=np.uint8).sum())


def test_a_child_says_how_much_memory_its_call_took():
    measured = in_child(take, 60, threads=1)
    assert measured.result == 60 * 2**20
    assert 55 * 2**20 < measured.grown_bytes < 90 * 2**20
    assert measured.peak_bytes > measured.grown_bytes
    with pytest.raises(ValueError):
        in_child(int, "no number", threads=1)


def test_a_group_gives_a_row_for_each_contender():
    rows = list(measure_group([SMALL, replace(SMALL, contender="dense")], threads=1, repeats=1))
    assert [row["contender"] for row in rows] == ["bisparse", "dense"]
    assert all(row["connections"] == 120 and row["seconds"] > 0.0 for row in rows)


def test_every_run_is_a_recipe_of_its_own(tmp_path):
    for task in TASKS:
        cases = list(run_cases(task, seeds=2))
        assert [case.kind for case in cases] == [*KINDS, *KINDS]
        assert len({case.name for case in cases}) == 6
        for case in cases[3:]:
            recipe = run_recipe(case, tmp_path)
            assert (recipe.seed, recipe.epochs) == (1, TASKS[task][0])
            assert (recipe.evolution is None) == (case.kind != "set")
            assert getattr(recipe.data, "division", 1) == 1
            assert (recipe.model.options.get("density") == 1) == (case.kind == "dense")


def test_a_run_is_measured_and_leaves_only_its_row(tmp_path):
    changes = ["model.options.widths=[64, 30, 10]", "data={name: digits}", "batch=64"]
    rows = [run_case(RunCase("mnist", kind, 2, 0), tmp_path, threads=1, changes=changes) for kind in KINDS]
    assert list(tmp_path.iterdir()) == []
    sparse, static, dense = rows
    assert sparse["weights"] == static["weights"] == min(20 * 94, 64 * 30) + 300
    assert dense["weights"] == 64 * 30 + 300
    assert sparse["edit_seconds"] >= 0.0 == static["edit_seconds"]
    assert all(0.0 < row["test_accuracy"] < 1.0 and row["cpu_seconds"] > 0.0 for row in rows)


def invented_layers() -> list[dict[str, object]]:
    cost = {"bisparse": 1e-3, "dense": 5e-3, "masked dense": 6e-3, "torch CSR": 7e-3, "SciPy": 8e-3}
    return [
        {
            **case.row(),
            "connections": case.connections,
            "seconds": cost[case.contender],
            "peak_bytes": 9e8,
            "grown_bytes": 5e8,
            "threads": 2,
            "machine": "a machine",
        }
        for study in STUDIES
        for group in layer_groups(study)
        for case in group
    ]


def invented_runs(seeds):
    return [
        {
            **case.row(), "test_accuracy": 0.9 - 0.01 * case.seed - 0.1 * (case.kind == "static"), "weights": 1000,
            "state_bytes": 2e4, "peak_bytes": 1e6, "cpu_seconds": 3.0,
        }
        for case in run_cases("colon", seeds=seeds)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("seeds", "accuracy", "difference"),
    [(1, "80.00", "-10.00"), (2, "79.50 (sd 0.71)", "-10.00"), (3, "79.00 (sd 1.00)", "-10.00 ± 0.00")],
)
def test_differences_have_an_interval_from_three_seeds_on(seeds, accuracy, difference):
    table = truly_sparse_tables([], invented_runs(seeds))["sparse_runs"]
    assert f"| colon | sparse, static | 40 | {seeds} | {accuracy} | {difference} | 1,000 |" in table


def test_tables_say_what_the_rows_say(tmp_path):
    tables = truly_sparse_tables(invented_layers(), invented_runs(2))
    assert tables["sparse_targets"].count("5.00x") == 2
    assert "| 10x faster | 5.00x | missed: 50% of it |" in tables["sparse_targets"]
    assert "| under 1 GB | 0.90 GB | met |" in tables["sparse_targets"]
    assert tables["sparse_runs"].count("| colon |") == 3
    assert "| 1,000, 0.5% | 1.00 | 5.00 |  |  |  | 5.00x |" in tables["sparse_sizes"]
    assert tables["sparse_machine"] == "a machine, 2 threads\n"
    pytest.importorskip("matplotlib")
    assert draw_layers(invented_layers(), tmp_path / "a.png") == tmp_path / "a.png"
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_tables_of_no_rows_are_empty_but_whole(tmp_path):
    tables = truly_sparse_tables([], [])
    assert tables["sparse_targets"].count("not measured") == 3
    assert draw_layers([], tmp_path / "a.png") is None
    assert not Path(tmp_path / "a.png").exists()
