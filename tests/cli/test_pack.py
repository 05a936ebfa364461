"""``bisparse pack`` and ``unpack``: tables, JSON, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from bisparse.cli.app import app


@pytest.fixture
def sparse_file(tmp_path: Path) -> Path:
    """Two matrices, one of them 2:4."""
    weight = torch.randn(64, 64)
    weight.view(-1, 4)[:, :2] = 0
    save_file(
        {"a.weight": weight, "b.weight": torch.randn(64, 64), "a.bias": torch.ones(64)},
        tmp_path / "s.safetensors",
    )
    return tmp_path / "s.safetensors"


def test_pack_and_unpack(sparse_file: Path) -> None:
    packed, again = sparse_file.with_name("p.safetensors"), sparse_file.with_name("u.safetensors")
    result = CliRunner().invoke(app, ["pack", str(sparse_file), "-o", str(packed)])
    assert result.exit_code == 0, result.output
    assert "a.weight  2:4" in result.output
    assert "1 of 3 tensors packed (1 bias, norm or scalar not shown)" in result.output
    assert packed.stat().st_size < 0.8 * sparse_file.stat().st_size
    result = CliRunner().invoke(app, ["unpack", str(packed), "-o", str(again), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["dense_bytes"] == 2 * 64 * 64 * 4 + 64 * 4
    before, after = load_file(sparse_file), load_file(again)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["pack", "{in}", "-o", "{in}"], "exists"),
        (["pack", "{in}", "-o", "x.pt"], "name a .safetensors file"),
        (["pack", "{in}", "-o", "{out}", "-p", "four"], "cannot read the pattern"),
        (["unpack", "missing.safetensors", "-o", "{out}"], "does not exist"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(sparse_file: Path, arguments: list[str], line: str) -> None:
    places = {"{in}": str(sparse_file), "{out}": str(sparse_file.with_name("out.safetensors"))}
    result = CliRunner().invoke(app, [places.get(argument, argument) for argument in arguments])
    assert result.exit_code == 2
    assert line in result.stderr
    assert result.stderr.count("\n") == 1
