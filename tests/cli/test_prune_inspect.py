"""The commands as a new user meets them: help, exit codes, pipes, narrow terminals, no colour."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import bisparse.files
from bisparse.cli.app import app
from bisparse.cli.prune import complete_method, complete_pattern
from bisparse.masks.solve import METHODS

PROGRAM = [sys.executable, "-c", "from bisparse.cli.app import app; app(prog_name='bisparse')"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    tensors = {f"layers.{i}.linear.weight": torch.randn(16, 16) for i in range(30)}
    save_file(tensors | {"layers.0.linear.bias": torch.ones(16), "head.weight": torch.ones(4, 16)}, path)
    return path


@pytest.fixture
def run() -> Callable[..., tuple[int, str, str]]:
    def invoke(*arguments: object) -> tuple[int, str, str]:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        return result.exit_code, result.stdout, result.stderr

    return invoke


def test_prune_then_inspect(model: Path, tmp_path: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    out = tmp_path / "out.safetensors"
    code, text, errors = run("prune", model, "-o", out, "-p", "4:8t")
    assert (code, errors) == (0, "")
    assert "layers.*.linear.weight x30" in text
    assert "protected: last classifier" in text
    assert "30 of 32 tensors pruned to 4:8t (exact, proven optimal)" in text
    assert all(int((load_file(out)[f"layers.{i}.linear.weight"] != 0).sum()) == 128 for i in range(30))
    code, text, errors = run("inspect", out, "-p", "4:8t", "--plot", tmp_path / "x.png")
    assert (code, errors) == (0, "")
    assert "4:8t" in text
    assert "30 of 31 weights are 4:8t" in text
    assert (tmp_path / "x.png").stat().st_size > 10_000
    assert run("inspect", out, "--all")[1].count("linear.weight") == 30


def test_json_is_the_whole_report(
    model: Path, tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    code, text, _ = run("prune", model, "-o", tmp_path / "out.pt", "-p", "2:4", "--json", "--progress")
    report = json.loads(text)
    assert code == 0
    assert len(report["tensors"]) == 32
    assert report["pattern"] == "2:4"
    code, text, _ = run("inspect", tmp_path / "out.pt", "--json")
    assert json.loads(text)["weight_density"] == pytest.approx((30 * 128 + 64) / (30 * 256 + 64))


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["-p", "5:4"], "did you mean 4:5"),
        (["-p", "2:4", "-m", "best"], "unknown method 'best'"),
        (["-p", "2:4", "-t", "layer"], "targets='layer' matches no weight; nearest"),
        (["-p", "2:4", "-l", "x"], "cannot read the layout"),
        (["-p", "2:4", "-i", "*"], "nothing to prune"),
    ],
)
def test_wrong_options_end_with_2_and_one_line(
    model: Path, tmp_path: Path, run: Callable[..., tuple[int, str, str]], arguments: list[str], line: str
) -> None:
    code, text, errors = run("prune", model, "-o", tmp_path / "out.safetensors", *arguments)
    assert (code, text) == (2, "")
    assert errors.startswith("bisparse prune: ")
    assert line in errors
    assert errors.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


def test_wrong_files_end_with_2_and_one_line(
    tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"hello world, this is no model")
    for command in (["prune", "-o", tmp_path / "out.pt", "-p", "2:4"], ["inspect"]):
        for name in ("bad.safetensors", "missing.pt"):
            code, text, errors = run(*command, tmp_path / name)
            assert (code, text) == (2, "")
            assert errors.startswith(f"bisparse {command[0]}: ")
            assert name in errors
            assert errors.count("\n") == 1
    assert run("prune", tmp_path / "bad.safetensors")[0] == 2  # -o and -p are missing


def test_empty_ignore_protects_nothing(
    model: Path, tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    code, text, _ = run("prune", model, "-o", tmp_path / "out.safetensors", "-p", "2:4t", "--ignore", "")
    assert code == 0
    assert "31 of 32 tensors pruned" in text


def test_the_other_exit_codes(
    model: Path, tmp_path: Path, run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for error, code, line in (
        (bisparse.files.DiskFullError("cannot write x: the disk is full"), 1, "the disk is full"),
        (KeyboardInterrupt(), 130, "run the same command again to go on"),
        (RuntimeError("a fault"), 1, ""),
    ):

        def fail(*_: object, fault: BaseException = error, **__: object) -> None:
            raise fault

        monkeypatch.setattr(bisparse.files, "prune_file", fail)
        found, _, errors = run("prune", model, "-o", tmp_path / "out.safetensors", "-p", "2:4")
        assert found == code
        assert line in errors


def test_help_teaches(run: Callable[..., tuple[int, str, str]]) -> None:
    code, text, _ = run("prune", "--help")
    assert code == 0
    for word in (
        "-o",
        "--pattern",
        "--layout",
        "Exit codes",
        "bisparse prune model.safetensors",
        "--no-progress",
    ):
        assert word in text
    assert "bisparse inspect model.safetensors" in run("inspect", "--help")[1]


def test_completion() -> None:
    assert complete_pattern("4:") == ["4:8", "4:8t"]
    assert complete_method("") == list(METHODS)
    asked = {
        "_BISPARSE_COMPLETE": "complete_bash",
        "COMP_WORDS": "bisparse prune --pattern 8:",
        "COMP_CWORD": "3",
    }
    done = subprocess.run(
        PROGRAM, env=os.environ | asked, capture_output=True, text=True, timeout=250, check=False
    )
    assert done.stdout.split() == ["8:16t"]


def test_in_a_pipe_and_on_a_narrow_terminal(model: Path) -> None:
    piped = subprocess.run(
        [*PROGRAM, "inspect", str(model)], capture_output=True, text=True, timeout=250, check=True
    )
    assert "\x1b" not in piped.stdout + piped.stderr
    assert piped.stderr == ""
    assert max(map(len, piped.stdout.splitlines())) > 80  # everything, for grep and less
    for colour in ({}, {"NO_COLOR": "1"}):
        text = _on_terminal([*PROGRAM, "inspect", str(model)], 60, colour)
        plain = text.replace("\x1b[1m", "").replace("\x1b[0m", "")
        lines = [line for line in plain.splitlines() if "\x1b" not in line]
        assert any("layers.*" in line for line in lines)
        assert all(len(line) <= 60 for line in lines if line.startswith(("layers", "tensor", "head", "(not")))


def _on_terminal(command: list[str], columns: int, extra: dict[str, str]) -> str:
    """Output of a program that believes to be on a terminal of that width."""
    main, side = pty.openpty()
    environment = os.environ | {"COLUMNS": str(columns), "TERM": "xterm"} | extra
    with subprocess.Popen(command, stdout=side, stderr=side, stdin=side, env=environment) as process:
        os.close(side)
        parts = []
        while True:
            try:
                part = os.read(main, 4096)
            except OSError:
                break
            if not part:
                break
            parts.append(part)
        assert process.wait(timeout=250) == 0
    os.close(main)
    return b"".join(parts).decode().replace("\r\n", "\n")
