"""Callbacks in real runs of the real packages: killed, resumed, compared with runs that were not."""

from __future__ import annotations

import builtins
import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

import bisparse as bs
from bisparse.timing import torch_threads

from .together import work

HERE = Path(__file__).parent


def killed_run(script: str, output: Path, step: int) -> None:
    """Run the script in a process of its own until it kills itself."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(HERE / script), str(output), str(step)]
    answer = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=250, check=False
    )
    assert answer.returncode == -signal.SIGKILL, answer.stderr


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    one, two = first.state_dict(), second.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.fixture(autouse=True)
def one_thread():
    with torch_threads(1):
        yield


def test_transformers_killed_and_resumed(tmp_path):
    pytest.importorskip("transformers")
    from .hugging_face import SaveEveryStep, check_sparse, train

    killed_run("hugging_face.py", tmp_path / "b", 7)  # the last checkpoint is that of step 4
    assert (tmp_path / "b" / "checkpoint-4" / "bisparse.pt").is_file()
    assert not (tmp_path / "b" / "checkpoint-8").exists()
    saving = SaveEveryStep(tmp_path / "now")
    whole, ours = train(tmp_path / "a", [saving])
    resumed, again = train(tmp_path / "b", [], resume=True)
    assert saving.checked == 3
    assert same(whole.model, resumed.model)
    assert all(
        torch.equal(ours.sparsifier.masks[name], mask) for name, mask in again.sparsifier.masks.items()
    )
    check_sparse(whole.model)
    assert "bisparse/flip_rate" in whole.state.log_history[0]
    assert "bisparse/flip_rate" in saving.logs
    (tmp_path / "b" / "checkpoint-4" / "bisparse.pt").unlink()
    (tmp_path / "b" / "checkpoint-8" / "bisparse.pt").unlink()
    (tmp_path / "b" / "checkpoint-12" / "bisparse.pt").unlink()
    with pytest.raises(ValueError, match=r"no bisparse.pt: it was written without this callback"):
        train(tmp_path / "b", [], resume=True)


def test_lightning_killed_and_resumed(tmp_path):
    pytest.importorskip("lightning")
    from .lightning_run import train

    killed_run("lightning_run.py", tmp_path / "b", 10)  # 4 steps an epoch: killed in the third
    assert {path.name for path in (tmp_path / "b").iterdir()} == {"epoch=0.ckpt", "epoch=1.ckpt"}
    whole, ours = train(tmp_path / "a", [])
    resumed, again = train(tmp_path / "b", [], resume=tmp_path / "b" / "epoch=1.ckpt")
    assert same(whole, resumed)
    assert all(
        torch.equal(ours.sparsifier.masks[name], mask) for name, mask in again.sparsifier.masks.items()
    )
    for name, mask in again.sparsifier.masks.items():
        assert bs.verify_mask(mask, "2:4t").feasible
        assert not resumed.get_parameter(name)[~mask].any()
    checkpoint = torch.load(tmp_path / "b" / "epoch=0.ckpt", weights_only=True)
    assert bs.verify_mask(checkpoint["state_dict"]["body.0.weight"] != 0, "2:4t").feasible


def start_two(module: str, folder: Path, step: int, resume: bool) -> None:
    """Two processes that meet at a store that listens already: a port merely known to be free may be taken."""
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    mp.start_processes(work, (module, str(folder), store.port, step, resume), nprocs=2, start_method="spawn")


@pytest.mark.timeout(900)  # half a minute of work, on a machine that may be busy
@pytest.mark.parametrize(
    ("package", "module", "step"), [("transformers", "hugging_face", 7), ("lightning", "lightning_run", 5)]
)
def test_two_processes_killed_and_resumed(package, module, step, tmp_path):
    """Checkpoints are at step 4, and the run has 8: what follows the kill equals a run of two that was not killed."""
    pytest.importorskip(package)
    with pytest.raises(mp.ProcessExitedException, match="SIGKILL"):
        start_two(module, tmp_path, step, resume=False)
    start_two(module, tmp_path, step, resume=True)
    found = {
        (name, rank): torch.load(tmp_path / f"{name}.{rank}.pt", weights_only=True)
        for name in ("whole", "resumed")
        for rank in range(2)
    }
    assert not list(tmp_path.glob("killed.*.pt"))
    expected = found["whole", 0]
    for state in found.values():
        for part in ("model", "masks"):
            assert state[part].keys() == expected[part].keys()
            assert all(torch.equal(state[part][name], value) for name, value in expected[part].items())
    for mask in expected["masks"].values():
        assert bs.verify_mask(mask, "2:4t").feasible


@pytest.mark.parametrize("package", ["transformers", "lightning"])
def test_a_missing_package_is_named_with_its_extra(package, monkeypatch):
    real = builtins.__import__

    def without(name: str, *given: Any, **more: Any) -> ModuleType:
        if name.partition(".")[0] == package:
            raise ImportError(name)
        return real(name, *given, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.delitem(sys.modules, f"bisparse.integrations.{package}", raising=False)
    with pytest.raises(ImportError, match=rf"bisparse\[{package}\]"):
        importlib.import_module(f"bisparse.integrations.{package}")
