"""What --force replaces: a checkpoint, and nothing else that may lie under that name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bisparse.files import OutputError, prune_file

Tree = dict[str, bytes]


def _tree(folder: Path) -> Tree:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_of_other_things_is_never_replaced(tmp_path: Path, mlp_file: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "notes.txt").write_text("mine")
    with pytest.raises(
        OutputError, match=r"without model\.safetensors or its index: --force does not delete it"
    ):
        prune_file(mlp_file, project, "2:4", force=True)
    assert _tree(project) == {"notes.txt": b"mine"}
    assert not list(tmp_path.glob("*.partial*"))


def test_the_folder_around_the_input_is_never_replaced(tmp_path: Path, mlp_file: Path) -> None:
    model = tmp_path / "model"
    prune_file(mlp_file, model, "2:4")
    (model / "config.json").write_text("{}")
    before = _tree(model)
    for source in (model / "model.safetensors", tmp_path / "link" / "model.safetensors"):
        if not source.exists():
            (tmp_path / "link").symlink_to(model)
        with pytest.raises(OutputError, match="holds the input"):
            prune_file(source, model, "2:4t", force=True)
    assert _tree(model) == before
    prune_file(model, model, "2:4t", force=True)  # the folder itself is pruned in place
    assert _tree(model).keys() == before.keys()


def test_a_repository_is_never_replaced(tmp_path: Path, mlp_file: Path) -> None:
    prune_file(mlp_file, tmp_path / "clone", "2:4")
    (tmp_path / "clone" / ".git").mkdir()
    with pytest.raises(OutputError, match=r"holds a \.git repository"):
        prune_file(mlp_file, tmp_path / "clone", "2:4", force=True)


@pytest.mark.parametrize("name", ["pipe", "pipe.pt", "pipe.safetensors"])
def test_a_pipe_or_device_is_never_replaced(tmp_path: Path, mlp_file: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(OutputError, match="neither a file nor a folder"):
        prune_file(mlp_file, tmp_path / name, "2:4", force=True)
    assert (tmp_path / name).is_fifo()


def test_models_files_and_links_are_replaced(
    tmp_path: Path, mlp_file: Path, sharded: Callable[..., Path]
) -> None:
    folder = sharded("old", [{"a.weight": torch.ones(8, 8)}], {})
    (tmp_path / "link.safetensors").symlink_to(tmp_path / "nowhere")
    (tmp_path / "file").write_text("a file where a folder goes")
    (tmp_path / "empty").mkdir()
    for name in (folder.name, "link.safetensors", "file", "empty"):
        prune_file(mlp_file, tmp_path / name, "2:4", force=True)
    assert load_file(tmp_path / "link.safetensors").keys() == load_file(folder / "model.safetensors").keys()
    assert (tmp_path / "file" / "model.safetensors").is_file()
    assert [path.name for path in (tmp_path / "empty").iterdir()] == ["model.safetensors"]
