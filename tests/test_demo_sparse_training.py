"""The demo of sparse training: same weights everywhere, files, words, and what it says about itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from bisparse.cli.app import app
from bisparse.demo.sparse_training import SparseTrainingSettings, run_sparse_training
from bisparse.demo.sparse_training_outputs import write_sparse_training
from bisparse.demo.sparse_training_report import SparseTrainingReport

TINY = SparseTrainingSettings(widths=(64, 32, 16, 10), sparsity=0.8, runs=2, epochs=3)
DENSE = 64 * 32 + 32 * 16 + 16 * 10


@pytest.fixture(scope="module")
def report() -> Iterator[SparseTrainingReport]:
    before = torch.get_num_threads()
    yield run_sparse_training(TINY)
    assert torch.get_num_threads() == before


def test_every_sparse_network_has_the_same_number_of_weights(report: SparseTrainingReport) -> None:
    assert [row.method for row in report.rows] == ["dense", "static", "set", "rigl"]
    assert report.rows[0].weights == DENSE
    for row in report.rows[1:]:
        assert row.weights == round(0.2 * DENSE)
    for row in report.rows:
        assert 0.1 <= row.lowest <= row.accuracy <= row.highest <= 1.0
        assert len(row.curve) == TINY.epochs
        assert row.lowest * report.test_examples == pytest.approx(round(row.lowest * report.test_examples))


def test_what_moves_and_what_does_not(report: SparseTrainingReport) -> None:
    rows = {row.method: row for row in report.rows}
    assert rows["static"].moved == 0.0
    assert rows["static"].explored == pytest.approx(0.2, abs=1e-3)
    for name in ("set", "rigl"):
        assert rows[name].moved > 0.1
        assert list(rows[name].explored_curve) == sorted(rows[name].explored_curve)
        assert 0.2 < rows[name].explored < 1.0
    assert list(report.connections) == [0, 1, 2, 3]
    assert {int(grid.sum()) for grid in report.connections.values()} == {int(report.connections[0].sum())}
    assert not torch.equal(report.connections[0], report.connections[3])
    assert 0.0 < report.on_ink(0) < 1.0


def test_the_report_repeats(report: SparseTrainingReport) -> None:
    again = run_sparse_training(TINY)
    assert [replace(row, seconds=0.0) for row in again.rows] == [
        replace(row, seconds=0.0) for row in report.rows
    ]


def test_files(report: SparseTrainingReport, tmp_path: Path) -> None:
    files = write_sparse_training(report, tmp_path / "new")
    assert files.picture.read_bytes().startswith(b"\x89PNG")
    assert json.loads(files.numbers.read_text())["rows"][2]["method"] == "set"
    state = load_file(files.sparse)
    kept = sum(int(tensor.count_nonzero()) for tensor in state.values() if tensor.dim() > 1)
    assert 0.95 * report.rows[2].weights < kept <= report.rows[2].weights


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(TINY, runs=1, epochs=1)
    monkeypatch.setattr(
        SparseTrainingSettings, "quick", classmethod(lambda cls, seed: replace(small, seed=seed))
    )
    command = ["demo", "--topic", "sparse-training", "--quick", "-o", str(tmp_path / "d")]
    answer = CliRunner().invoke(app, command)
    assert answer.exit_code == 0, answer.output
    for text in (
        "static",
        "What you see.",
        "What you do not see.",
        "bisparse inspect",
        "sparse-training.png",
    ):
        assert text in answer.stdout
    answer = CliRunner().invoke(app, [*command, "--json", "--seed", "1"])
    assert json.loads(answer.stdout)["rows"][0]["method"] == "dense"
    (tmp_path / "file").write_text("")
    answer = CliRunner().invoke(app, [*command[:-1], str(tmp_path / "file")])
    assert answer.exit_code == 2
    answer = CliRunner().invoke(app, ["demo", "--topic", "sparse"])
    assert answer.exit_code == 2
    assert "sparse-training" in answer.output
