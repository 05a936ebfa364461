from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bisparse.cli.app import app


def test_help_lists_the_commands() -> None:
    answer = CliRunner().invoke(app, ["--help"])
    assert answer.exit_code == 0
    for command in ("prune", "inspect", "bench", "demo"):
        assert command in answer.stdout


def test_without_arguments_the_help_is_shown() -> None:
    assert "Usage" in CliRunner().invoke(app, []).output


def test_version() -> None:
    answer = CliRunner().invoke(app, ["--version"])
    assert answer.exit_code == 0
    assert answer.stdout.startswith("bisparse ")


def test_the_program_starts_without_the_optional_packages() -> None:
    code = (
        "import sys, bisparse.cli.app;"
        "print([name for name in ('matplotlib', 'sklearn', 'ortools') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "cauchy"], "choose from gaussian"),
        (["--pattern", "5:4"], "keep must be smaller than block"),
        (["--method", "guess"], "unknown method"),
        (["--start", "hot"], "write 'cold'"),
        (["--dtype", "int3"], "choose from float32"),
    ],
)
def test_bench_masks_refuses_with_one_clear_line(arguments: list[str], message: str) -> None:
    answer = CliRunner().invoke(app, ["bench", "masks", "--size", "16", *arguments])
    assert answer.exit_code == 2
    assert message in " ".join(answer.stderr.split())


def test_bench_masks_prints_a_table_resumes_and_draws(tmp_path: Path) -> None:
    arguments = ["bench", "masks", "-s", "64", "-p", "4:8t", "--repeats", "1", "-t", "1", "-o", str(tmp_path)]
    answer = CliRunner().invoke(app, arguments)
    assert answer.exit_code == 0, answer.output
    assert "two_approx" in answer.stdout
    stamp = (tmp_path / "masks.json").stat().st_mtime_ns
    assert {path.name for path in tmp_path.iterdir()} == {"masks.json", "masks_cost.png", "masks_methods.png"}
    again = CliRunner().invoke(app, [*arguments, "--json"])
    assert [row["method"] for row in json.loads(again.stdout)] == ["exact", "greedy", "two_approx"]
    assert (tmp_path / "masks.json").stat().st_mtime_ns == stamp


def test_bench_masks_shows_the_targets_that_rows_decide(tmp_path: Path) -> None:
    from bisparse.bench import describe_machine
    from bisparse.bench.mask_cases import MaskCase
    from bisparse.bench.masks import open_ledger

    measured = {
        "seconds": 0.03, "passes": 5.5, "ns_per_weight": 2.0, "gap": 0.0, "rounds": 9, "repaired_tiles": 0,
        "pass_seconds": 0.005, "samples": 7, "extrapolated_from": None,
    }  # fmt: skip
    case = MaskCase("exact", "4:8t", 4096)
    open_ledger(tmp_path / "masks.json").append({**case.key(describe_machine()), **measured})
    answer = CliRunner().invoke(
        app, ["bench", "masks", "-s", "4096", "-p", "4:8t", "-m", "exact", "-t", "2", "-o", str(tmp_path)]
    )
    assert answer.exit_code == 0, answer.output
    assert "4:8t exact, in memory passes" in answer.stdout
    assert "met" in answer.stdout
