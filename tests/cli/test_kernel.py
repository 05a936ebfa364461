from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from bisparse.cli.app import app

CODE = """
import torch
from torch import nn


def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8, bias=False), nn.ReLU(), nn.Linear(8, 1, bias=False))


def pairs():
    torch.manual_seed(1)
    X = torch.randn(30, 4)
    return X, X[:, 0], X + 1, X[:, 1]


def three():
    return 1, 2, 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("kernel_nets.py").write_text(CODE)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 4)).astype(np.float32)
    np.savez("data.npz", X=X, y=X[:, 0])
    np.savez("bad.npz", X=X)
    model = nn.Sequential(nn.Linear(4, 8, bias=False), nn.ReLU(), nn.Linear(8, 1, bias=False))
    model[0].weight.data[:, ::2] = 0.0
    torch.save(model.state_dict(), "net.pt")
    torch.save({"other": torch.ones(2)}, "other.pt")
    return tmp_path


def run(*arguments: str) -> tuple[int, str, str]:
    answer = CliRunner().invoke(app, ["kernel", "--model", "kernel_nets:build", *arguments])
    return answer.exit_code, answer.stdout, " ".join(answer.stderr.split())


def test_the_report_is_printed_and_written(folder: Path) -> None:
    code, text, errors = run("net.pt", "--data", "data.npz", "--penalty", "0.01", "--rows", "20", "--masked")
    assert (code, errors) == (0, "")
    assert "kernels of 40 parameters, 24 kept on 20 examples, 1 output" in text
    assert "K_M: rank" in text
    assert "homogeneous of degree 2" in text
    report = json.loads((folder / "kernel" / "report.json").read_text())
    assert [statement["name"] for statement in report["statements"]][3] == "ridge, all layers"
    assert (folder / "kernel" / "spectra.png").stat().st_size > 10_000
    assert {path.name for path in (folder / "kernel").iterdir()} == {
        "report.json",
        "spectra.png",
    }  # no drafts


def test_a_report_that_cannot_be_written_is_one_clear_line(folder: Path) -> None:
    Path("taken").write_text("a file")
    code, _, errors = run("net.pt", "--data", "data.npz", "--rows", "10", "-o", "taken")
    assert code == 2
    assert "cannot write taken" in errors
    Path("old/report.json.partial").mkdir(parents=True)  # in the way of the draft
    Path("old/report.json").write_text("old")
    code, _, errors = run("net.pt", "--data", "data.npz", "--rows", "10", "-o", "old")
    assert code == 2
    assert (folder / "old" / "report.json").read_text() == "old"


def test_entry_points_json_and_held_out_errors(folder: Path) -> None:
    code, text, _ = run("--data", "kernel_nets:pairs", "-o", "out", "--json", "--penalty", "0.1")
    report = json.loads(text)
    assert code == 0
    assert report["examples"] == 30
    assert set(report["held_out"]) == {"network", "ridge K", "ridge H", "ridgeless K", "ridgeless H"}
    assert (folder / "out" / "report.json").exists()
    code, _, errors = run("--data", "bisparse.zoo:digits")
    assert code == 2
    assert "does not accept inputs of shape (3, 64)" in errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("other.pt", "--data", "data.npz"), "does not fit the model"),
        (("missing.pt", "--data", "data.npz"), "missing.pt"),
        (("--data", "bad.npz"), "must hold X and y"),
        (("--data", "none.npz"), "does not exist"),
        (("--data", "kernel_nets:three"), "return (X, y)"),
        (("--data", "kernel_nets:absent"), "cannot load"),
        (("--data", "data.npz", "--loss", "hinge"), "'squared'"),
        (("--data", "data.npz", "--outputs", "half"), "'trace'"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_wrong_input_is_one_clear_line(arguments: tuple[str, ...], message: str) -> None:
    code, _, errors = run(*arguments)
    assert code == 2
    assert errors.startswith("bisparse kernel:")
    assert message in errors
