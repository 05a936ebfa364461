"""The device's solver against the CPU's, by Triton's interpreter; what a compiler for a GPU makes of the kernels."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from triton_cases import CASES, REFUSED

import bisparse as bs
from bisparse.masks.gpu.network import selection_network
from bisparse.masks.gpu.unstructured import keep_largest
from bisparse.masks.route import on_device

pytestmark = pytest.mark.timeout(900)  # half a minute of work, on a machine that may be busy

HERE = Path(__file__).parent
UNIQUE = [name for name, (_, _, kind, _) in CASES.items() if kind in ("gaussian", "decades")]
PROVED_BY_SWEEPS = ["2:4t", "4:8t", "8:16t", "block 6", "block 12"]


def run_script(name: str, **environment: str) -> dict[str, dict[str, Any]]:
    pytest.importorskip("triton", reason="Triton is not installed")
    done = subprocess.run(
        [sys.executable, str(HERE / name)],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=850,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    rows: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return rows


@pytest.fixture(scope="module")
def rows() -> dict[str, dict[str, Any]]:
    return run_script("triton_cases.py")


@pytest.mark.parametrize("name", [*CASES, "warm", "warm, not finite", "magnitude", "transposed view"])
def test_the_mask_is_proved_optimal_and_worth_what_the_cpu_finds(
    rows: dict[str, dict[str, Any]], name: str
) -> None:
    row = rows[name]
    assert row["violations"] == []
    assert row["gap"] <= 1e-7
    assert abs(row["stated gap"]) <= 1e-7
    assert row["objective"] == pytest.approx(row["expected"], rel=1e-7)


@pytest.mark.parametrize("name", [*UNIQUE, "row-wise ties", "unstructured", "warm", "magnitude"])
def test_the_mask_equals_the_cpus_where_the_optimum_is_unique(
    rows: dict[str, dict[str, Any]], name: str
) -> None:
    assert rows[name]["same mask"] or CASES.get(name, ("",) * 4)[3] in ("bfloat16", "float16")


@pytest.mark.parametrize("name", PROVED_BY_SWEEPS)
def test_the_sweeps_take_as_many_rounds_as_on_the_cpu(rows: dict[str, dict[str, Any]], name: str) -> None:
    assert rows[name]["rounds"] == rows[name]["expected rounds"]
    assert rows[name]["repaired"] == 0


def test_most_ties_need_no_path(rows: dict[str, dict[str, Any]]) -> None:
    assert rows["zeros 2:4t"]["repaired"] + rows["zeros 4:8t"]["repaired"] <= 6  # of 12 tiles
    assert rows["all zero"]["repaired"] == 0


def test_a_warm_start_saves_rounds_and_a_useless_one_does_no_harm(rows: dict[str, dict[str, Any]]) -> None:
    assert rows["warm"]["rounds"] < rows["4:8t"]["rounds"]
    assert rows["warm, not finite"]["rounds"] > rows["warm"]["rounds"]


@pytest.mark.parametrize(("kind", "pattern"), REFUSED)
def test_invalid_scores_are_noticed(rows: dict[str, dict[str, Any]], kind: str, pattern: str) -> None:
    assert rows[f"{kind} {pattern}"]["refused"]


def test_solve_mask_hands_over_and_reports_as_for_the_cpu(rows: dict[str, dict[str, Any]]) -> None:
    row = rows["whole"]
    assert row["optimal"]
    assert row["rounds"][1] < row["rounds"][0]
    assert row["objectives"][1] == pytest.approx(row["objectives"][0], rel=1e-12)
    assert row["shapes"] == [[2, 1, 4, 6], [2, 1, 4, 2], [2, 1, 1, 6]]
    assert row["message"].startswith("scores[1, 0, 3, 5] = nan")


def test_nothing_is_solved_for_no_scores(rows: dict[str, dict[str, Any]]) -> None:
    assert rows["empty"]["objective"] == 0.0


def test_the_kernels_compile_for_an_h200(tmp_path: Path) -> None:
    # The interpreter accepts what the compiler refuses; this needs no GPU.
    built = run_script("triton_compile.py", TRITON_CACHE_DIR=str(tmp_path), TRITON_INTERPRET="0")
    assert len(built) == 5
    for name, found in built.items():
        assert not found["flushes denormals"], name
        assert not found["fuses multiply-add"], name
    assert all(
        built[name]["stack"] == 0 for name in ("sweep_tiles", "sweep_lines", "settle_ties", "select_groups")
    )
    assert built["sweep_tiles"]["registers"] <= 168


@pytest.mark.parametrize("size", [2, 3, 4, 5, 7, 8, 13, 16])
def test_a_network_brings_the_wanted_ranks_to_their_places(size: int) -> None:
    for rank in range(size):
        network = selection_network(size, (rank,))
        for seed in range(20):
            x = torch.randperm(size, generator=torch.Generator().manual_seed(seed)).tolist()
            expected = sorted(x, reverse=True)[rank]
            for high, low in network:
                x[high], x[low] = max(x[high], x[low]), min(x[high], x[low])
            assert x[rank] == expected


def test_pruning_drops_comparators() -> None:
    assert len(selection_network(4, (0,))) == 3
    assert len(selection_network(32, (15, 16))) < len(selection_network(32, tuple(range(32))))


@pytest.mark.parametrize("kept", [0, 1, 3, 6])
def test_the_largest_entries_are_kept_and_ties_go_to_the_lower_index(kept: int) -> None:
    scores = torch.tensor([[3.0, 1.0, 3.0], [0.0, 3.0, 1.0]])
    mask, total = keep_largest(scores, kept)
    order = [(0, 0), (0, 2), (1, 1), (0, 1), (1, 2), (1, 0)][:kept]
    assert sorted(tuple(p) for p in mask.nonzero().tolist()) == sorted(order)
    assert total.item() == sum(scores[place].item() for place in order)


def test_only_cuda_floats_are_solved_on_the_device() -> None:
    assert not on_device(torch.rand(4, 4))
    assert not on_device([[1.0]])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU; none is visible here")
@pytest.mark.parametrize("pattern", ["2:4t", "4:8t", "8:16t", "16:32t", "2:4", "unstructured:0.9"])
@pytest.mark.parametrize("kind", ["gaussian", "80% zeros"])
def test_on_a_gpu(pattern: str, kind: str) -> None:
    random = torch.Generator().manual_seed(0)
    scores = torch.randn(520, 1036, generator=random).abs()
    if kind == "80% zeros":
        scores *= torch.rand(scores.shape, generator=random) > 0.8
    duals = pattern.endswith("t")
    found = bs.solve_mask(scores.cuda(), pattern, return_duals=duals)
    expected = bs.solve_mask(scores, pattern)
    assert found.mask.is_cuda
    assert found.objective == pytest.approx(expected.objective, rel=1e-7)
    assert bs.verify_mask(found.mask, pattern, scores=scores.cuda(), duals=found.duals).optimal
    if kind == "gaussian":
        assert torch.equal(found.mask.cpu(), expected.mask)
