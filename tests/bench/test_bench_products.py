"""The benchmark of products: cases, words, resuming, the commands."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import bisparse as bs
from bisparse.bench.product_cases import grid, parse_shape, shapes_of_file
from bisparse.bench.product_words import in_plain_words, pays_up_to
from bisparse.bench.products import masked_linear, open_ledger, run_products
from bisparse.cli.app import app


def rows_of(
    shape: tuple[int, int], speedups: Sequence[float]
) -> list[dict[str, str | int | float | bool | None]]:
    return [
        {
            "rows": shape[0],
            "columns": shape[1],
            "pattern": "4:8",
            "dtype": "float32",
            "tokens": 2**i,
            "speedup": s,
        }
        for i, s in enumerate(speedups)
    ]


def test_words_say_up_to_which_batch_it_pays() -> None:
    small, large = rows_of((64, 64), [1.2, 1.0, 3.0]), rows_of((128, 64), [1.9, 1.5, 1.4])
    assert (pays_up_to(small), pays_up_to(large), pays_up_to(rows_of((1, 1), [1.04]))) == (1, 4, 0)
    assert list(in_plain_words([*small, *large])) == [
        "On this machine 4:8 float32 pays for single tokens at 64x64, batch <= 4 (no more were measured) at 128x64 "
        "(up to 3.00x)."
    ]
    assert list(in_plain_words(rows_of((64, 64), [1.3, 1.2, 0.9]))) == [
        "On this machine 4:8 float32 pays for batch <= 2 (up to 1.30x)."
    ]
    assert list(in_plain_words(rows_of((64, 64), [0.8]))) == [
        "On this machine 4:8 float32 pays nowhere among what was measured: leave the layers dense (best 0.80x)."
    ]


@pytest.mark.parametrize(
    ("text", "shape"), [("4096x1024", (4096, 1024)), ("64", (64, 64)), (" 8X4 ", (8, 4))]
)
def test_shapes(text: str, shape: tuple[int, int]) -> None:
    assert parse_shape(text) == shape


@pytest.mark.parametrize("text", ["", "0", "4x0", "x", "4x5x6", "-1"])
def test_what_is_no_shape(text: str) -> None:
    with pytest.raises(ValueError, match="outputs x inputs"):
        parse_shape(text)


def test_unknown_patterns_and_types_are_refused_before_anything_is_measured() -> None:
    with pytest.raises(ValueError, match="cannot read the pattern"):
        list(grid("inference", [(8, 8, "half")], dtypes=["float32"], tokens=[1], threads=1))
    with pytest.raises(ValueError, match="packed products take float32 and bfloat16"):
        list(grid("inference", [(8, 8, "2:4")], dtypes=["int8"], tokens=[1], threads=1))


@pytest.mark.parametrize("mode", ["inference", "training"])
def test_rows_are_measured_once(tmp_path: Path, mode: str) -> None:
    cases = list(grid(mode, [(64, 96, "2:4")], dtypes=["float32"], tokens=[1, 3], threads=1, cold=False))  # type: ignore[arg-type]
    ledger = open_ledger(tmp_path / "rows.json")
    told: list[str] = []
    report = run_products(cases, ledger, repeats=1, progress=told.append)
    assert told == ["64x96 2:4 float32, 1 tokens", "64x96 2:4 float32, 3 tokens"]
    assert [row["tokens"] for row in report.rows] == [1, 3]
    assert all(row["share"] == (48 * 4 + 12) / (96 * 4) and row["difference"] < 1e-5 for row in report.rows)  # type: ignore[operator]
    again = run_products(cases, open_ledger(tmp_path / "rows.json"), progress=told.append)
    assert again.rows == report.rows
    assert len(told) == 2
    assert str(report).splitlines()[-1].startswith("On this machine 2:4 float32 pays")


def test_shapes_of_a_file_are_its_patterned_matrices(tmp_path: Path) -> None:
    weights = {f"{i}.weight": masked_linear(64, 128, "4:8", torch.float32).weight.detach() for i in range(2)}
    weights |= {"head.weight": torch.randn(64, 64), "bias": torch.ones(3)}
    bs.save_packed(weights, tmp_path / "x.safetensors", durable=False)
    assert shapes_of_file(tmp_path / "x.safetensors") == [(64, 128, "4:8")]
    bs.save_packed({"w": torch.ones(64, 64)}, tmp_path / "y.safetensors", durable=False)
    with pytest.raises(ValueError, match="holds no N:M matrix"):
        shapes_of_file(tmp_path / "y.safetensors")
    kernels = torch.randn(64, 64, 3, 3)
    kernels[:, ::2] = 0
    bs.save_packed({"conv.weight": kernels}, tmp_path / "z.safetensors", durable=False)
    with pytest.raises(ValueError, match=r"no \(outputs, inputs\) matrices"):
        shapes_of_file(tmp_path / "z.safetensors")


def test_the_commands(tmp_path: Path) -> None:
    options = [
        "-s",
        "64x32",
        "-p",
        "4:8",
        "-b",
        "2",
        "--dtype",
        "float32",
        "--warm",
        "--repeats",
        "1",
        "-t",
        "1",
    ]
    result = CliRunner().invoke(app, ["bench", "inference", *options, "-o", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "64x32" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("On this machine 4:8 float32 pays")
    assert {path.name for path in tmp_path.iterdir()} == {"inference.json", "inference.png"}
    result = CliRunner().invoke(app, ["bench", "training", *options, "--json"])
    assert json.loads(result.stdout)["mode"] == "training"
    result = CliRunner().invoke(app, ["bench", "inference", "-s", "big"])
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
