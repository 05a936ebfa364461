"""The GPU benchmark as far as a CPU can run it: its loop, its tables, its refusal."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import pytest
import torch

from bisparse.bench.gpu import KEY, Linear, check_solver, run_linears, run_solver, time_in_turn
from bisparse.bench.gpu_tables import gpu_tables
from bisparse.bench.ledger import Ledger, Row

CPU = torch.device("cpu")
SCRIPT = Path(__file__).parent.parent / "benchmarks" / "gpu.py"


def wall_clock(call: Callable[[], object]) -> float:
    begin = perf_counter()
    call()
    return perf_counter() - begin


def always_fast(call: Callable[[], object]) -> float:
    """Less than half of every target, however long the call really takes."""
    call()
    return 2e-4


def test_calls_take_turns_after_two_to_warm_up() -> None:
    seen: list[str] = []
    calls = {name: (lambda name=name: seen.append(name)) for name in ("a", "b")}
    times = time_in_turn(calls, wall_clock, repeats=3)
    assert seen == ["a", "b"] * 5
    assert list(times) == ["a", "b"]


def test_masks_are_measured_once_and_tabled() -> None:
    ledger = Ledger(None, KEY)
    run_solver(ledger, "a machine", CPU, clock=always_fast, size=64)
    rows = ledger.rows
    assert len(rows) == 16
    assert all(row["gap"] == 0.0 for row in rows if row["variant"] == "gaussian")
    run_solver(ledger, "a machine", CPU, clock=always_fast, size=64)
    assert ledger.rows == rows
    table = gpu_tables(rows)["gpu_masks"]
    assert table.startswith("a machine:")
    assert table.count("stretch") == 4


def test_layers_are_timed_against_dense_and_refusals_are_kept() -> None:
    ledger = Ledger(None, KEY)
    small = [Linear("small", 16, 64, 128)]
    with torch.backends.mkldnn.flags(enabled=False):
        run_linears(ledger, "a machine", CPU, clock=wall_clock, linears=small)
    found = {str(row["variant"]): row for row in ledger.rows}
    assert list(found) == ["dense", "cusparselt", "cutlass", "compress"]
    assert found["dense"]["gain"] == 1.0
    assert "multiples of 128" in str(found["cusparselt"]["reason"])
    assert "NVIDIA GPU" in str(found["cutlass"]["reason"])
    assert "small: 16 x 64 to 128" in gpu_tables(ledger.rows)["gpu_linears"]


def test_tables_say_what_was_wrong_or_missed() -> None:
    row: Row = {"machine": "m", "what": "linear", "case": "c", "seconds": 1e-3, "reason": ""}
    rows: list[Row] = [
        {**row, "variant": "dense", "gain": 1.0, "difference": 0.0},
        {**row, "variant": "cutlass", "gain": 1.5, "difference": 0.7},
        {"machine": "m", "what": "mask", "case": "4:8t", "variant": "gaussian", "seconds": 2e-3},
    ]
    tables = gpu_tables(rows)
    assert "1.50x (wrong result)" in tables["gpu_linears"]
    assert "missed by 2.00x" in tables["gpu_masks"]
    assert "Not measured yet" in gpu_tables([])["gpu_masks"]


def test_the_check_finds_nothing_where_all_is_well() -> None:
    assert list(check_solver(CPU, ["2:4t", "2:4"])) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is visible: nothing to refuse")
def test_it_refuses_clearly_without_a_gpu() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "COLUMNS": "300"},
    )
    assert done.returncode == 2
    assert "no NVIDIA GPU is visible" in done.stdout
