from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from bisparse.compress import prune_
from bisparse.compress.entry import load_calibration, load_entry, load_model, save_model

CODE = """
import torch
from torch import nn

number = 3

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2))

def data():
    return [torch.ones(3, 8)]
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A user's Python file in the current folder."""
    (tmp_path / "user_code_of_test.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    yield "user_code_of_test"
    sys.modules.pop("user_code_of_test", None)


def test_models_and_data_by_entry_point(module, tmp_path):
    model = load_model(f"{module}:build")
    data = load_calibration(f"{module}:data", "")
    prune_(model, "2:4", calibration=data, reconstruct="least_squares")
    path = save_model(model, tmp_path / "pruned.safetensors")
    assert int((load_file(path)["0.weight"] != 0).sum()) == 32
    again = load_model(f"{module}:build")
    again.load_state_dict(torch.load(save_model(model, tmp_path / "pruned.pt"), weights_only=True))
    rights = {(tmp_path / name).stat().st_mode & 0o777 for name in ("pruned.safetensors", "pruned.pt")}
    assert len(rights) == 1
    assert torch.equal(again[0].weight, model[0].weight)
    assert str(tmp_path) not in sys.path


@pytest.mark.parametrize("text", ["nocolon", "missing_module_of_test:x", "math:nothing", ":x"])
def test_wrong_entry_points_are_explained(text):
    with pytest.raises(ValueError, match=text.split(":")[0] or "entry point"):
        load_entry(text)


def test_entry_points_that_give_no_module(module):
    with pytest.raises(ValueError, match="int, not a"):
        load_model(f"{module}:number")


def test_files_of_arrays(tmp_path):
    x, y = np.random.default_rng(0).normal(size=(70, 8)).astype(np.float32), np.ones((70, 2), np.float32)
    np.save(tmp_path / "one.npy", x)
    np.savez(tmp_path / "one.npz", x)
    np.savez(tmp_path / "two.npz", input=x, other=y)
    save_file({"input": torch.from_numpy(x)}, tmp_path / "one.safetensors")
    for name in ("one.npy", "one.npz", "one.safetensors"):
        batches = load_calibration(str(tmp_path / name), "")
        assert [len(batch) for batch in batches] == [32, 32, 6]
        assert torch.equal(torch.cat(batches), torch.from_numpy(x))
    pair = load_calibration(str(tmp_path / "two.npz"), "", batch=50)
    assert [batch["other"].shape for batch in pair] == [(50, 2), (20, 2)]
    np.savez(tmp_path / "uneven.npz", a=x, b=y[:3])
    with pytest.raises(ValueError, match=r"\[3, 70\]"):
        load_calibration(str(tmp_path / "uneven.npz"), "")


def test_folders_without_config_and_models_that_are_no_folder(tmp_path):
    with pytest.raises(ValueError, match=r"config\.json"):
        load_model(str(tmp_path))
    with pytest.raises(ValueError, match=r"\.safetensors or \.pt"):
        save_model(nn.Linear(2, 2), tmp_path / "folder")


def test_double_precision_files_become_single(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((3, 2)))
    assert load_calibration(str(tmp_path / "x.npy"), "")[0].dtype == torch.float32


def test_bad_calibration_files_are_explained(tmp_path):
    np.save(tmp_path / "scalar.npy", np.float32(1.0))
    np.save(tmp_path / "objects.npy", np.array([{}, {}]), allow_pickle=True)
    for name in ("cut.npy", "cut.npz", "cut.safetensors"):
        (tmp_path / name).write_bytes(b"PK not really")
    (tmp_path / "lines.txt").write_text("some text")
    expected = {
        "missing.npy": "no such file",
        "scalar.npy": "first dimension",
        "objects.npy": "cannot be read",
        "cut.npy": "cannot be read",
        "cut.npz": "cannot be read",
        "cut.safetensors": "cannot be read",
        "lines.txt": "Hugging Face folder",
    }
    for name, message in expected.items():
        with pytest.raises(ValueError, match=message):
            load_calibration(str(tmp_path / name), "nets:build")
