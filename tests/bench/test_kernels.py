"""The benchmark of packed products: right answers, rows found again, tables without gaps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bisparse.bench.kernel_tables import kernel_tables
from bisparse.bench.kernels import KernelCase, full_grid, open_ledger, random_masked, run_kernels
from bisparse.kernels import pack_matrix
from bisparse.pattern import NM

CASES = [
    KernelCase("forward", 48, 64, "4:8", "float32", 2, threads=1),
    KernelCase("transposed", 48, 64, "4:8", "float32", 1, threads=1),
    KernelCase("repacked", 48, 64, "4:8", "float32", 2, threads=1),
    KernelCase("gradient", 48, 64, "2:4", "float32", 3, threads=1),
    KernelCase("conv", 16, 16, "2:4", "float32", 5, 3, threads=1),
]


def test_rows_hold_both_times_and_a_small_difference_and_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "kernels.json"
    told: list[str] = []
    rows = run_kernels(CASES, open_ledger(path), repeats=1, progress=told.append)
    assert [row["way"] for row in rows] == ["forward", "transposed", "repacked", "gradient", "conv"]
    assert all(float(row["difference"] or 0) < 1e-5 for row in rows)
    assert len(told) == len(CASES)
    assert run_kernels(CASES, open_ledger(path), progress=told.append) == rows
    assert len(told) == len(CASES)


def test_tables_show_what_is_there_and_dashes_elsewhere() -> None:
    rows = run_kernels(CASES[:1], open_ledger(None), repeats=1)
    tables = kernel_tables(rows)
    assert "48 x 64, x W^T" in tables["kernel_float32"]
    assert tables["kernel_float32"].count("| - ") >= 5
    assert kernel_tables([])["kernel_machine"] == "not measured yet\n"


@pytest.mark.parametrize("pattern", [NM(2, 4), NM(4, 8), NM(16, 32)], ids=str)
def test_random_weights_obey_their_pattern_exactly(pattern: NM) -> None:
    weight = random_masked(32, 128, pattern, torch.float32)
    assert pack_matrix(weight, pattern).free is None


def test_every_case_of_the_grid_is_its_own() -> None:
    grid = full_grid()
    assert len({tuple(case.key("m").items()) for case in grid}) == len(grid)
    with pytest.raises(ValueError, match="row-wise"):
        run_kernels([KernelCase("forward", 8, 8, "2:4t", "float32", 1)], open_ledger(None))
