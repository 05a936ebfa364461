"""Recipes that run: outputs, refusals, a kill, several processes, and those for real use in small."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner

from bisparse.cli.app import app
from bisparse.masks.verify import verify_mask
from bisparse.recipes import RecipeError, load_recipe, train_recipe
from bisparse.weights import as_matrices, find_weights

from .stand_ins import make_bert, make_images, make_questions, make_resnet

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "ONEDNN_MAX_CPU_ISA": "AVX2"}
DYING = str(Path(__file__).with_name("dying.py"))
QUICK = ["epochs=2", "loop.threads=1", "loop.device=cpu"]


def run(name: str, output: Path, *changes: str, **options: bool):
    return train_recipe(load_recipe(name, [*QUICK, f"output={output}", *changes]), **options)


def test_the_output_folder_holds_everything(tmp_path):
    report = run("digits-dynamic", tmp_path / "run", "loop.tensorboard=true")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {
        "recipe.yaml", "checkpoint.pt", "metrics.jsonl", "metrics.csv", "model.safetensors", "report.json",
        "report.png", "tensorboard",
    }  # fmt: skip
    weight = load_file(tmp_path / "run" / "model.safetensors")["0.weight"]
    assert verify_mask(weight != 0, "2:4t").feasible
    written = json.loads((tmp_path / "run" / "report.json").read_text())
    assert written["test_accuracy"] == report.parts["test"].accuracy
    assert [mask["holds"] for mask in written["masks"]] == [True, True]
    assert len((tmp_path / "run" / "metrics.csv").read_text().splitlines()) == 3
    scalars = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload().Tags()["scalars"]
    assert {"step/loss", "epoch/validation_accuracy", "epoch/flip_rate", "final/test_accuracy"} <= set(
        scalars
    )


def test_a_run_is_neither_overwritten_nor_mixed_with_another(tmp_path):
    run("digits-dense", tmp_path)
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(RecipeError, match="--resume goes on with it, --force deletes it"):
        run("digits-dense", tmp_path)
    with pytest.raises(RecipeError, match=r"another recipe .batch: 32 there, 64 here"):
        run("digits-dense", tmp_path, "batch=64", resume=True)
    run("digits-dense", tmp_path, "batch=64", force=True)
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_the_pretrained_start_of_a_static_run_keeps_its_mask(tmp_path):
    run("digits-dense", tmp_path / "dense")
    run("digits-static", tmp_path / "static", f"model.weights={tmp_path / 'dense' / 'model.safetensors'}")
    before, after = (
        load_file(tmp_path / name / "model.safetensors")["2.weight"] for name in ("dense", "static")
    )
    from bisparse import solve_mask

    assert torch.equal(after != 0, solve_mask(before.abs(), "2:4t").mask & (after != 0))
    assert (after != 0).float().mean() > 0.49


def test_an_image_folder_trains_a_transformers_resnet(tmp_path):
    make_images(tmp_path / "images")
    make_resnet(tmp_path / "resnet")
    changes = [
        f"model.name={tmp_path / 'resnet'}", f"data.folder={tmp_path / 'images'}", "data.size=16", "data.held_out=8",
        "batch=8", "loop.workers=1", "loop.precision=float32", "loop.checkpoint_every=1", "optimizer.lr=0.05",
    ]  # fmt: skip
    for name in ("imagenet-resnet50-dynamic", "imagenet-resnet50-static"):
        report = run(name, tmp_path / name, *changes)
        assert {mask.pattern for mask in report.masks} == {"4:8t"}
        assert all(mask.holds for mask in report.masks)
        assert not any("classifier" in mask.name for mask in report.masks)
        assert any("embedder" in mask.name for mask in report.masks)  # the stem is sparse, as in the paper
    from transformers import ResNetForImageClassification

    model = ResNetForImageClassification.from_pretrained(tmp_path / "imagenet-resnet50-static" / "model")
    checked = list(find_weights(model, ignore=["classifier.*"]))
    assert all(bool((w.parameter == 0).float().mean() > 0.4) for w in checked)


def test_questions_and_answers_train_a_bert(tmp_path):
    make_bert(tmp_path / "bert")
    make_questions(tmp_path / "squad")
    changes = [
        f"model.name={tmp_path / 'bert'}", f"data.tokenizer={tmp_path / 'bert'}", f"data.folder={tmp_path / 'squad'}",
        "data.length=16", "data.stride=2", "data.held_out=8", "batch=8", "loop.precision=float32", "epochs=25",
        "optimizer.lr=0.01", "loop.evaluate_every=25",
    ]  # fmt: skip
    report = run("squad-bert-dynamic", tmp_path / "run", *changes)
    assert report.parts["test"].accuracy > 0.9  # the answer is always the second word
    assert all(mask.holds for mask in report.masks)
    from transformers import BertForQuestionAnswering

    model = BertForQuestionAnswering.from_pretrained(tmp_path / "run" / "model")
    for weight in find_weights(model):
        mask = as_matrices(weight.parameter.detach() != 0, weight.layout)
        assert verify_mask(mask, "4:8t").feasible, weight.name


def bisparse(*words: str, launcher: tuple[str, ...] = (), die_at: int | None = None) -> list[str]:
    """The command; killed half way through writing the checkpoint of a step, if one is given."""
    program = ("-m", "bisparse", "train") if die_at is None else (DYING, str(die_at))
    return [sys.executable, *launcher, *program, *words, "--no-progress"]


def test_a_killed_run_resumes_bit_for_bit(tmp_path):
    words = ["digits-dynamic", "-s", "epochs=3", "-s", "loop.checkpoint_every=5", "-s", "loop.log_every=1"]
    run("digits-dynamic", tmp_path / "whole", "epochs=3", "loop.checkpoint_every=5", "loop.log_every=1")
    command = bisparse(*words, "-o", str(tmp_path / "killed"), die_at=60)
    assert subprocess.run(command, env=ENVIRONMENT, timeout=280, check=False).returncode == -signal.SIGKILL
    assert {path.name for path in (tmp_path / "killed").glob("checkpoint*")} == {
        "checkpoint.pt",
        "checkpoint.pt.part",
    }
    answer = CliRunner().invoke(app, ["train", *words, "-o", str(tmp_path / "killed"), "--resume", "--json"])
    assert answer.exit_code == 0, answer.output
    whole, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    steps = [
        json.loads(line)["step"] for line in (tmp_path / "killed" / "metrics.jsonl").read_text().splitlines()
    ]
    assert steps == sorted(steps)
    assert set(steps) == set(range(1, steps[-1] + 1))


BUSY = pytest.mark.timeout(900)  # half a minute of work, on a machine that may be busy
LAUNCHER = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
TOGETHER = ["digits-dynamic", "-s", "epochs=2", "-s", "schedule.every=100", "-s", "loop.checkpoint_every=1"]


def kill_workers(launcher: int) -> None:
    """Kill the processes that torchrun started, each of them in a session of its own."""
    for child in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        os.kill(int(child), signal.SIGKILL)


def run_two(output: Path, *words: str, die_at: int | None = None) -> str:
    """What two processes print that train together; killed as above."""
    command = bisparse(*TOGETHER, "-o", str(output), *words, launcher=LAUNCHER, die_at=die_at)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=ENVIRONMENT, **pipes) as processes:
        try:
            told, complaints = processes.communicate(timeout=280)
        except subprocess.TimeoutExpired:
            kill_workers(processes.pid)
            raise
    assert processes.returncode == (0 if die_at is None else 1), complaints
    return told


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The folder of a whole run of two processes."""
    folder = tmp_path_factory.mktemp("two")
    assert run_two(folder).count("verified") == 1
    return folder


@BUSY
def test_two_processes_equal_one(two, tmp_path):
    """Under torchrun every process takes its half of each batch; sums of gradients differ only in rounding."""
    run("digits-dynamic", tmp_path / "one", "schedule.every=100")
    one, two = (load_file(folder / "model.safetensors") for folder in (tmp_path / "one", two))
    for name in one:
        assert torch.allclose(one[name], two[name], atol=1e-5), name
        assert torch.equal(one[name] == 0, two[name] == 0)


@BUSY
def test_two_killed_processes_go_on_bit_for_bit(two, tmp_path):
    run_two(tmp_path, "-s", "loop.log_every=1", die_at=20)
    assert (tmp_path / "checkpoint.pt.part").exists()
    assert not (tmp_path / "report.json").exists()
    run_two(tmp_path, "-s", "loop.log_every=1", "--resume")
    whole, resumed = (load_file(folder / "model.safetensors") for folder in (two, tmp_path))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_the_command_explains_itself(tmp_path):
    runner = CliRunner()
    listing = runner.invoke(app, ["train", "--list"])
    assert "imagenet-resnet50-dynamic" in listing.stdout
    shown = runner.invoke(app, ["train", "digits-dynamic", "--show", "-s", "pattern=4:8t"])
    assert "pattern: 4:8t" in shown.stdout
    (tmp_path / "bad.yaml").write_text(shown.stdout.replace("momentum", "x").replace("epochs:", "epoch:"))
    wrong = runner.invoke(app, ["train", str(tmp_path / "bad.yaml")])
    assert wrong.exit_code == 2
    assert "epoch: unknown key. Did you mean 'epochs'" in " ".join(wrong.stderr.split())
    assert runner.invoke(app, ["train"]).exit_code == 2
    absent = runner.invoke(
        app, ["train", "cifar10-resnet20-dense", "-s", f"data.folder={tmp_path}", "-o", str(tmp_path)]
    )
    assert absent.exit_code == 2
    assert "set BISPARSE_DATA" in " ".join(absent.stderr.split())
    assert not (tmp_path / "run").exists()
    assert runner.invoke(app, ["train", "digits-dense", "--resume", "--force"]).exit_code == 2


def test_the_progress_bar_shows_what_matters(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("FORCE_COLOR", "1")  # else nothing is drawn where nobody looks
    answer = CliRunner().invoke(app, ["train", "digits-dynamic", "-s", "epochs=2", "-o", "run", "--progress"])
    assert answer.exit_code == 0
    assert "verified" in answer.stdout
    drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", answer.stderr)
    assert re.search(
        r"epoch 2/2 .*loss \d\.\d{3} accuracy 0\.\d{3} flips \d\.\d\de-\d\d held out 0\.\d{3}", drawn
    )
