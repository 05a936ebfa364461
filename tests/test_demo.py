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
from bisparse.demo import DemoReport, DemoSettings, run_demo
from bisparse.demo import trial as trial_module
from bisparse.demo.outputs import write_outputs
from bisparse.demo.trial import hidden_layers, prune_and_tune
from bisparse.masks.verify import Verification, verify_mask
from bisparse.pattern import parse_pattern
from bisparse.zoo import digits, mlp

TINY = DemoSettings(widths=(64, 32, 16, 10), runs=1, epochs=2, tuning_epochs=1)


@pytest.fixture(scope="module")
def report() -> Iterator[DemoReport]:
    before = torch.get_num_threads()
    yield run_demo(TINY)
    assert torch.get_num_threads() == before


def test_every_pattern_is_solved_exactly_and_with_proof(report: DemoReport) -> None:
    exact = {row.pattern: row for row in report.rows if row.method == "exact"}
    assert list(exact) == ["2:4", "2:4t", "4:8t"]
    for row in exact.values():
        assert row.proof is not None
        assert row.proof <= 1e-7
        assert row.density == 0.5
        assert row.below_optimum == 0.0
    assert exact["2:4"].kept > exact["2:4t"].kept
    assert exact["4:8t"].kept > exact["2:4t"].kept


def test_no_method_that_keeps_line_sums_beats_the_exact_one(report: DemoReport) -> None:
    assert {row.method for row in report.rows} >= {"exact", "greedy", "two_approx", "entropic"}
    for row in report.rows:
        assert row.below_optimum >= -1e-9
        assert 0.3 < row.density <= 0.5
        assert 0.3 < row.kept < 1.0
        assert row.seconds > 0
    losses = {row.method: row.below_optimum for row in report.rows if row.pattern == "4:8t"}
    assert losses["exact"] < losses["entropic"] < losses["two_approx"]


def test_accuracies_are_shares_of_the_test_images(report: DemoReport) -> None:
    for value in (report.dense_accuracy, *(row.accuracy_tuned for row in report.rows)):
        assert 0.2 < value <= 1.0
        assert value * report.test_examples == pytest.approx(round(value * report.test_examples))


def test_the_report_repeats(report: DemoReport) -> None:
    again = run_demo(TINY)
    assert [replace(row, seconds=0.0) for row in again.rows] == [
        replace(row, seconds=0.0) for row in report.rows
    ]


def test_masks_in_the_report_obey_their_pattern(report: DemoReport) -> None:
    for pattern in ("2:4", "2:4t", "4:8t"):
        assert verify_mask(report.masks[pattern, "exact"], pattern).feasible
    assert not verify_mask(report.masks["4:8t", "two_approx"], "4:8t").feasible


def test_outputs_are_written_and_the_sparse_checkpoint_is_sparse(report: DemoReport, tmp_path: Path) -> None:
    files = write_outputs(report, tmp_path / "new")
    for picture in (files.masks, files.comparison):
        assert picture.read_bytes().startswith(b"\x89PNG")
    assert json.loads(files.numbers.read_text())["hidden_weights"] == 64 * 32 + 32 * 16
    dense, sparse = load_file(files.dense), load_file(files.sparse)
    assert dense.keys() == sparse.keys()
    assert verify_mask(sparse["0.weight"] != 0, "4:8t").feasible
    assert verify_mask(sparse["2.weight"] != 0, "4:8t").feasible
    assert sparse["4.weight"].count_nonzero() == sparse["4.weight"].numel()


def test_pruning_leaves_the_dense_network_alone_and_holds_the_mask() -> None:
    dense, data = mlp((64, 16, 8, 10)), digits()
    before = dense[0].weight.clone()
    trial = prune_and_tune(dense, data, parse_pattern("2:4t"), "exact", epochs=1, seed=0)
    assert torch.equal(dense[0].weight, before)
    for layer, result in zip(hidden_layers(trial.model), trial.results, strict=True):
        assert torch.equal(layer.weight != 0, result.mask)


def test_a_proof_that_does_not_hold_stops_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = Verification(True, (), 0.5, 1.0, 1.1, 0.1, False)
    monkeypatch.setattr(trial_module, "verify_mask", lambda *_, **__: verdict)
    with pytest.raises(RuntimeError, match=r"2:4t does not hold: gap 0\.1"):
        prune_and_tune(mlp((64, 8, 10)), digits(), parse_pattern("2:4t"), "exact", epochs=0, seed=0)


def test_command_prints_the_table_and_the_next_steps(tmp_path: Path) -> None:
    answer = CliRunner().invoke(app, ["demo", "--quick", "--output", str(tmp_path / "d")])
    assert answer.exit_code == 0, answer.output
    for text in (
        "two_approx",
        "What is proven.",
        "What is not.",
        "bisparse bench masks --quick",
        "masks.png",
    ):
        assert text in answer.stdout
    assert sorted(path.name for path in (tmp_path / "d").iterdir()) == [
        "comparison.png",
        "demo.json",
        "dense.safetensors",
        "masks.png",
        "sparse.safetensors",
    ]


def test_the_named_next_commands_work_on_the_written_files(report: DemoReport, tmp_path: Path) -> None:
    files = write_outputs(report, tmp_path)
    again = tmp_path / "again.safetensors"
    for arguments in (
        ["inspect", str(files.sparse), "--pattern", "4:8t"],
        ["prune", str(files.dense), "-o", str(again), "--pattern", "2:4t"],
    ):
        answer = CliRunner().invoke(app, arguments)
        assert answer.exit_code == 0, answer.output
    assert verify_mask(load_file(again)["0.weight"] != 0, "2:4t").feasible


def test_command_prints_json_alone_and_reports_a_bad_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DemoSettings, "quick", classmethod(lambda cls, seed: replace(TINY, seed=seed)))
    answer = CliRunner().invoke(app, ["demo", "--quick", "--json", "-o", str(tmp_path / "d"), "--seed", "1"])
    assert answer.exit_code == 0, answer.output
    assert json.loads(answer.stdout)["rows"][0]["pattern"] == "2:4"
    (tmp_path / "file").write_text("")
    answer = CliRunner().invoke(app, ["demo", "--quick", "-o", str(tmp_path / "file")])
    assert answer.exit_code == 2
    assert "file" in answer.stderr
