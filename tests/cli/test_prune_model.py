"""``bisparse prune --model``: models with their code, calibration data from files, and what is left after a kill."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from typer.testing import CliRunner

from bisparse import verify_mask
from bisparse.cli.app import app

CODE = """
import os, time
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(*(m for _ in range(6) for m in (nn.Linear(16, 16), nn.ReLU())), nn.Linear(16, 4))

def batches():
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(32, 16, generator=generator), torch.zeros(32)) for _ in range(2)]

def feed(model):
    for x, _ in batches():
        model(x)

def loss(model):
    with torch.no_grad():
        return float(model(torch.ones(1, 16)).square().sum())

calls = []

def waiting(weight, statistics):
    calls.append(weight)
    if len(calls) == 4 and os.path.exists("wait"):
        open("waiting", "w").close()
        time.sleep(600)
    return weight.detach().abs()
"""

PROGRAM = [sys.executable, "-c", "from bisparse.cli.app import app; app(prog_name='bisparse')"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with a user's code and calibration data."""
    (tmp_path / "code_of_prune_test.py").write_text(CODE)
    x = np.random.default_rng(0).normal(size=(96, 16)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "narrow.npy", x[:, :5])
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("code_of_prune_test", None)


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


MODEL = ("--model", "code_of_prune_test:build", "-c", "x.npy", "-p", "4:8t")


def test_a_model_by_entry_point_gives_a_checkpoint_and_its_report(folder):
    code, text, errors = run(
        "prune", *MODEL, "-o", "out.safetensors", "--evaluate", "code_of_prune_test:loss", "--all"
    )
    assert (code, errors) == (0, "")
    assert "8.weight" in text
    assert "last classifier" in text
    tensors = load_file("out.safetensors")
    for index in range(1, 6):
        assert verify_mask(tensors[f"{2 * index}.weight"] != 0, "4:8t").feasible
    assert int((tensors["12.weight"] != 0).sum()) == 64
    report = json.loads(Path("out.safetensors.report.json").read_text())
    assert report["notes"]["evaluate_before"] != report["notes"]["evaluate_after"]
    assert all(layer["error_after"] <= layer["error_before"] for layer in report["layers"])
    assert Path("out.safetensors.report.png").stat().st_size > 5_000
    assert sorted(p.name for p in folder.iterdir() if "partial" in p.name) == []


@pytest.mark.parametrize(
    "calibration",
    ["x.npy", "x.npz", "named.npz", "x.safetensors", "code_of_prune_test:batches", "code_of_prune_test:feed"],
)
def test_every_kind_of_calibration_data(folder, calibration):
    x = np.load("x.npy")
    np.savez("x.npz", x.astype(np.float64))
    np.savez("named.npz", input=x, weights=np.ones(len(x), np.float32))  # forward() has no "weights": dropped
    save_file({"input": torch.from_numpy(x)}, "x.safetensors")
    code, _, errors = run(
        "prune", *MODEL[:2], "-c", calibration, "-p", "4:8t", "-o", "out.pt", "--reconstruct", "least_squares"
    )
    assert (code, errors) == (0, "")
    report = json.loads(Path("out.pt.report.json").read_text())
    assert len(report["layers"]) == 6
    assert all(layer["error_after"] < layer["error_before"] for layer in report["layers"])
    pruned = torch.load("out.pt", weights_only=True)
    assert verify_mask(pruned["4.weight"] != 0, "4:8t").feasible


def test_weights_are_loaded_into_the_model_first(folder):
    model = nn.Sequential(*(m for _ in range(6) for m in (nn.Linear(16, 16), nn.ReLU())), nn.Linear(16, 4))
    torch.save({"state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}, "w.pt")
    code, _, errors = run(
        "prune", "w.pt", *MODEL, "-o", "out.pt", "--reconstruct", "none", "--scores", "wanda"
    )
    assert (code, errors) == (0, "")
    pruned = torch.load("out.pt", weights_only=True)
    kept = pruned["4.weight"] != 0
    assert torch.equal(pruned["4.weight"], model[4].weight * kept)
    torch.save({"other": torch.ones(3)}, "bad.pt")
    code, _, errors = run("prune", "bad.pt", *MODEL, "-o", "out2.pt")
    assert code == 2
    assert "bad.pt does not fit the model" in errors
    assert not list(folder.glob("out2*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "code_of_prune_test:nothing", "-o", "o.pt", "-p", "2:4"), "cannot load"),
        (("--model", "code_of_prune_test:build", "-o", "o", "-p", "2:4"), "only Hugging Face models"),
        ((*MODEL, "-o", "o.pt", "--reconstruct", "magic"), "unknown reconstruction 'magic'"),
        ((*MODEL, "-o", "o.pt", "--layout", "conv"), "--layout has no meaning with --model"),
        ((*MODEL, "-o", "o.pt", "-t", "typo"), "typo"),
        ((*MODEL[:2], "-c", "typo.npy", "-o", "o.pt", "-p", "2:4"), "typo.npy: no such file"),
        ((*MODEL[:2], "-c", "narrow.npy", "-o", "o.pt", "-p", "2:4"), "cannot run on a calibration batch"),
        (
            ("x.safetensors", "-o", "o.pt", "-p", "2:4", "--seed", "1"),
            "--seed has no meaning without --model",
        ),
        (("-o", "o.pt", "-p", "2:4"), "name a checkpoint, or a model by --model"),
        ((*MODEL, "-o", "o.pt", "--device", "nowhere"), "cannot use device 'nowhere'"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_left(folder, arguments, message):
    before = sorted(p.name for p in folder.iterdir() if p.name != "__pycache__")
    code, _, errors = run("prune", *arguments)
    assert code == 2
    assert message in errors
    assert sorted(p.name for p in folder.iterdir() if p.name != "__pycache__") == before


def test_an_existing_output_is_replaced_only_by_force(folder):
    Path("out.pt").write_text("precious")
    code, _, errors = run("prune", *MODEL, "-o", "out.pt")
    assert code == 2
    assert "--force" in errors
    assert Path("out.pt").read_text() == "precious"
    assert run("prune", *MODEL, "-o", "out.pt", "--force")[0] == 0
    assert "0.weight" in torch.load("out.pt", weights_only=True)


def test_a_killed_run_goes_on_at_the_layer_where_it_stopped(folder):
    script = (
        "from bisparse.compress.prune_model import *\n"
        "import bisparse.compress.prune_model as module, code_of_prune_test, functools\n"
        "real = module.prune_\n"
        "module.prune_ = lambda *a, **k: real(*a, **(k | {'scores': code_of_prune_test.waiting}))\n"
        "job = ModelJob('code_of_prune_test:build', '4:8t', calibration='x.npy', reconstruct='least_squares')\n"
        "report = prune_model(job, 'out.safetensors')\n"
    )
    Path("wait").touch()
    process = subprocess.Popen([sys.executable, "-c", script])
    try:
        while not Path("waiting").exists() and process.poll() is None:
            time.sleep(0.05)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not Path("out.safetensors").exists()
    solved = {
        path.name: path.stat().st_mtime_ns for path in folder.glob("out.safetensors.partial.layers/*/*.pt")
    }
    assert len(solved) == 3
    Path("wait").unlink()
    keep = "import shutil; shutil.rmtree = lambda *a, **k: None\n"
    subprocess.run([sys.executable, "-c", keep + script], check=True)
    after = {
        path.name: path.stat().st_mtime_ns for path in folder.glob("out.safetensors.partial.layers/*/*.pt")
    }
    assert len(after) == 6
    assert solved.items() <= after.items()
    assert int((load_file("out.safetensors")["10.weight"] != 0).sum()) == 128


@pytest.fixture
def llama(folder):
    """A local Hugging Face folder: a small Llama with a tokenizer of words."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    words = {word: index for index, word in enumerate(["<pad>", "<unk>", *"abcdefghijklmnop"])}
    raw = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", unk_token="<unk>")
    config = transformers.LlamaConfig(
        vocab_size=18,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).save_pretrained(folder / "llama")
    fast.save_pretrained(folder / "llama")
    letters = np.random.default_rng(0)
    lines = [" ".join(letters.choice(list("abcdefghijklmnop"), size=n)) for n in range(5, 37)]
    (folder / "text.txt").write_text("\n".join(lines))
    return transformers


def test_a_hugging_face_folder_becomes_a_sparse_one(llama, folder):
    code, _, errors = run(
        "prune", "--model", "llama", "-c", "text.txt", "-o", "sparse", "-p", "2:4t", "--batch", 8
    )
    assert code == 0, errors
    model = llama.AutoModelForCausalLM.from_pretrained("sparse")
    weights = [(n, p) for n, p in model.named_parameters() if "_proj" in n]
    assert len(weights) == 14
    assert all(verify_mask(p != 0, "2:4t").feasible for _, p in weights)
    tokenizer = llama.AutoTokenizer.from_pretrained("sparse")
    assert tokenizer("a b")["input_ids"] == [2, 3]
    assert "lm_head.weight" in json.loads(Path("sparse.report.json").read_text())["left_out"]
