"""From file to file: right masks, nothing else changed, every kind of input and output."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import bisparse as bs
from bisparse.files import CheckpointError, OutputError, SafetensorsFile, prune_file
from bisparse.files import blocks as blocks_module
from bisparse.weights import Layout, as_matrices

PATTERNS = ["2:4", "2:4t", "4:8t", "1:4", "6:8", "unstructured:0.75"]


def _check(weight: Tensor, before: Tensor, pattern: str, layout: Layout | None = None) -> None:
    """The weight is the original under the best mask of the pattern: same objective, kept entries
    untouched.
    """
    layout = layout or Layout()
    matrices = as_matrices(weight, layout)
    scores = as_matrices(before.abs().double(), layout)
    assert torch.equal(weight[weight != 0], before[weight != 0])
    if bool((before != 0).all()):  # otherwise a kept zero cannot be told from a pruned one
        assert bs.verify_mask(matrices != 0, pattern).feasible
    assert float(weight.abs().double().sum()) == pytest.approx(
        bs.solve_mask(scores, pattern).objective, rel=1e-12
    )
    assert not bool(torch.signbit(weight[weight == 0]).any())


@pytest.mark.parametrize("pattern", PATTERNS)
def test_chosen_weights_get_the_best_mask_and_nothing_else_changes(
    mlp_file: Path, tmp_path: Path, mlp: dict[str, Tensor], pattern: str
) -> None:
    report = prune_file(mlp_file, tmp_path / "out.safetensors", pattern)
    out = load_file(tmp_path / "out.safetensors")
    for name in ("fc1.weight", "fc2.weight"):
        _check(out[name], mlp[name], pattern)
    for name in mlp.keys() - {"fc1.weight", "fc2.weight"}:
        assert torch.equal(out[name], mlp[name])
    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "note": "kept"}
    assert [tensor.name for tensor in report.pruned] == ["fc1.weight", "fc2.weight"]
    assert all(tensor.gap is not None and tensor.gap <= 1e-7 for tensor in report.pruned)
    assert report.density == pytest.approx(bs.parse_pattern(pattern).density)
    whole = sum(float(mlp[n].abs().sum()) for n in ("fc1.weight", "fc2.weight"))
    kept = sum(float(out[n].abs().sum()) for n in ("fc1.weight", "fc2.weight"))
    assert report.kept_magnitude == pytest.approx(kept / whole, rel=1e-5)


def test_an_example_to_check_by_eye(tmp_path: Path) -> None:
    weight = torch.tensor([[9.0, -8, 1, 2], [7, 1, -9, 2], [1, 9, 2, 8], [2, 1, 8, -7]])
    save_file({"a.weight": weight, "b.weight": torch.ones(4, 4)}, tmp_path / "in.safetensors")
    prune_file(tmp_path / "in.safetensors", tmp_path / "out.safetensors", "2:4t")
    expected = [[9, -8, 0, 0], [7, 0, -9, 0], [0, 9, 0, 8], [0, 0, 8, -7]]
    assert load_file(tmp_path / "out.safetensors")["a.weight"].tolist() == expected


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_float_types_keep_their_type(tmp_path: Path, dtype: torch.dtype) -> None:
    weight = torch.randn(24, 40, generator=torch.Generator().manual_seed(1)).to(dtype)
    weight[0, :8] = 0
    save_file({"a.weight": weight, "z.weight": weight.clone()}, tmp_path / "in.safetensors")
    report = prune_file(tmp_path / "in.safetensors", tmp_path / "out.safetensors", "4:8t")
    out = load_file(tmp_path / "out.safetensors")["a.weight"]
    assert out.dtype == dtype
    _check(out, weight, "4:8t")
    (row,) = report.pruned
    assert row.density_before == pytest.approx(1 - 8 / 960)
    assert row.density == pytest.approx(int((out != 0).sum()) / 960)
    assert row.kept_magnitude == pytest.approx(
        float(out.double().abs().sum() / weight.double().abs().sum()), rel=1e-4
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_sums_do_not_overflow(tmp_path: Path, dtype: torch.dtype) -> None:
    weight = torch.full((16, 16), 3e38).to(dtype)
    save_file({"a.weight": weight, "z.weight": weight.clone()}, tmp_path / "in.safetensors")
    report = prune_file(tmp_path / "in.safetensors", tmp_path / "out.safetensors", "2:4t")
    assert report.kept_magnitude == pytest.approx(0.5)


def test_other_types_pass_through(tmp_path: Path) -> None:
    tensors = {
        "a.weight": torch.randn(8, 8),
        "q.weight": torch.randint(-9, 9, (8, 8), dtype=torch.int8),
        "f.weight": torch.randn(8, 8).to(torch.float8_e4m3fn),
        "m": torch.ones(3, dtype=torch.bool),
        "z.weight": torch.ones(4, 4),
    }
    save_file(tensors, tmp_path / "in.safetensors")
    report = prune_file(tmp_path / "in.safetensors", tmp_path / "out.safetensors", "2:4")
    out = load_file(tmp_path / "out.safetensors")
    assert [tensor.name for tensor in report.pruned] == ["a.weight"]
    for name in ("q.weight", "f.weight", "m"):
        assert torch.equal(out[name].view(torch.uint8), tensors[name].view(torch.uint8))


LAYOUTS = {
    "linear": ((20, 12), Layout()),
    "linear:3": ((3 * 10, 12), Layout("linear", 3)),
    "transposed": ((12, 20), Layout("transposed")),
    "conv": ((20, 12, 3, 3), Layout("conv")),
    "conv:2": ((20, 6, 3), Layout("conv", 2)),
    "conv_transpose": ((12, 20, 2, 2), Layout("conv_transpose")),
    "conv_transpose:2": ((12, 20, 2), Layout("conv_transpose", 2)),
    "experts": ((3, 20, 12), Layout("experts")),
    "experts_transposed": ((3, 12, 20), Layout("experts_transposed")),
}


@pytest.mark.parametrize("limit", [100, 1 << 20], ids=["strips", "whole"])
@pytest.mark.parametrize("pattern", ["2:4", "4:8t"])
@pytest.mark.parametrize("text", LAYOUTS)
def test_every_layout_in_strips_and_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, pattern: str, limit: int
) -> None:
    """Ragged edges, parts and groups: strips of whole tiles give the mask of the whole tensor."""
    monkeypatch.setattr(blocks_module.matrix_blocks, "__defaults__", (limit,))
    shape, layout = LAYOUTS[text]
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    save_file({"a.weight": weight, "z.weight": torch.ones(4, 4)}, tmp_path / "in.safetensors")
    prune_file(
        tmp_path / "in.safetensors", tmp_path / "out.safetensors", pattern, layout={"a": text}, ignore=["z"]
    )
    _check(load_file(tmp_path / "out.safetensors")["a.weight"], weight, pattern, layout)


def test_blocks_cover_a_tensor_once() -> None:
    from bisparse.files.safetensors_header import place_tensors

    for shape, layout in LAYOUTS.values():
        (entry,) = place_tensors([("a", "F32", shape)])
        for limit in (1, 200, 1000, 10**9):
            position = 0
            for block in blocks_module.matrix_blocks(entry, layout, 8, limit):
                assert block.offset == position
                assert block.nbytes == 4 * torch.Size(block.shape).numel()
                position += block.nbytes
            assert position == entry.nbytes


@pytest.mark.parametrize("output", ["out.safetensors", "out.pt", "out.bin", "out"])
def test_every_output_kind_holds_the_same(mlp_file: Path, tmp_path: Path, output: str) -> None:
    prune_file(mlp_file, tmp_path / "reference.safetensors", "4:8t")
    prune_file(mlp_file, tmp_path / output, "4:8t")
    path = tmp_path / output / "model.safetensors" if output == "out" else tmp_path / output
    out = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    reference = load_file(tmp_path / "reference.safetensors")
    assert out.keys() == reference.keys()
    assert all(torch.equal(out[name], reference[name]) for name in reference)
    assert not list(tmp_path.glob("*.partial*"))


@pytest.mark.parametrize("legacy", [False, True])
def test_pickles_keep_their_shape(tmp_path: Path, mlp: dict[str, Tensor], legacy: bool) -> None:
    tied = mlp["fc1.weight"]
    state = {f"module.{name}": tensor.clone() for name, tensor in mlp.items()}
    state["module.copy.weight"] = state["module.fc1.weight"]
    state["module.turned.weight"] = torch.randn(16, 24).t()
    content = {"state_dict": state, "epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.ones(4, 4)}}}}
    source = tmp_path / "in.pth"
    torch.save(content, source, _use_new_zipfile_serialization=not legacy)
    before = source.read_bytes()
    report = prune_file(source, tmp_path / "out.pth", "4:8t")
    out = torch.load(tmp_path / "out.pth", weights_only=True)
    assert out["epoch"] == 3
    assert torch.equal(out["optimizer"]["state"][0]["exp_avg"], torch.ones(4, 4))
    _check(out["state_dict"]["module.fc1.weight"], tied, "4:8t")
    assert (
        out["state_dict"]["module.copy.weight"].data_ptr()
        == out["state_dict"]["module.fc1.weight"].data_ptr()
    )
    assert out["state_dict"]["module.turned.weight"].stride() == (1, 24)
    assert any("tied: module.copy.weight = module.fc1.weight" in note for note in report.notes)
    assert any("old format" in note for note in report.notes) == legacy
    assert source.read_bytes() == before


def test_from_pickle_to_safetensors_and_back(tmp_path: Path, mlp: dict[str, Tensor]) -> None:
    state = dict(mlp) | {"again.weight": mlp["fc1.weight"]}
    content = {
        "model": state,
        "epoch": 3,
        "args": {"lr": 0.1},
        "rng": torch.ones(4, dtype=torch.uint8),
        "o": {1: 2},
    }
    torch.save(content, tmp_path / "in.pt")
    report = prune_file(tmp_path / "in.pt", tmp_path / "out.safetensors", "2:4")
    assert any("not carried over" in note and "rng" in note for note in report.notes)
    with SafetensorsFile(tmp_path / "out.safetensors") as file:
        assert file.header.metadata == {
            "format": "pt",
            "epoch": "3",
            "args": '{"lr": 0.1}',
            "o": '{"1": 2}',
            "again.weight": "fc1.weight",
        }
    prune_file(tmp_path / "out.safetensors", tmp_path / "back.pt", "2:4")
    back = torch.load(tmp_path / "back.pt", weights_only=True)
    assert back["again.weight"].data_ptr() == back["fc1.weight"].data_ptr()
    assert torch.equal(back["fc1.weight"], load_file(tmp_path / "out.safetensors")["fc1.weight"])


def test_a_sharded_folder(tmp_path: Path, sharded: Callable[..., Path]) -> None:
    first = {
        "model.embed_tokens.weight": torch.randn(64, 16),
        "model.layers.0.q_proj.weight": torch.randn(16, 16),
    }
    second = {"model.layers.1.q_proj.weight": torch.randn(16, 16), "lm_head.weight": torch.randn(64, 16)}
    folder = sharded("llama", [first, second], {"model_type": "llama", "vocab_size": 64})
    (folder / "pytorch_model.bin").write_bytes(b"dense")
    report = prune_file(folder, tmp_path / "sparse", "2:4t")
    assert [tensor.name for tensor in report.pruned] == list(
        map("model.layers.{}.q_proj.weight".format, (0, 1))
    )
    names = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    out = tmp_path / "sparse"
    assert {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()} == names - {"pytorch_model.bin"}
    assert any("pytorch_model.bin" in note for note in report.notes)
    for name in ("config.json", "tokenizer.json", "extra/notes.txt", "model.safetensors.index.json"):
        assert (out / name).read_bytes() == (folder / name).read_bytes()
    _check(
        load_file(out / "model-00002-of-00002.safetensors")["model.layers.1.q_proj.weight"],
        second["model.layers.1.q_proj.weight"],
        "2:4t",
    )
    # All in one file, from the folder or from its index.
    prune_file(folder / "model.safetensors.index.json", tmp_path / "one.safetensors", "2:4t")
    one = load_file(tmp_path / "one.safetensors")
    assert one.keys() == first.keys() | second.keys()
    assert torch.equal(
        one["model.layers.1.q_proj.weight"],
        load_file(out / "model-00002-of-00002.safetensors")["model.layers.1.q_proj.weight"],
    )
    # In place, over the input.
    prune_file(folder, folder, "2:4t", force=True)
    assert (folder / "model-00001-of-00002.safetensors").read_bytes() == (
        out / "model-00001-of-00002.safetensors"
    ).read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["llama", "one.safetensors", "sparse"]


def test_a_layer_that_stays_dense_is_not_called_pruned(tmp_path: Path) -> None:
    tensors = {
        "thin.weight": torch.randn(8, 2),
        "wide.weight": torch.randn(8, 8),
        "z.weight": torch.ones(4, 4),
    }
    save_file(tensors, tmp_path / "in.safetensors")
    report = prune_file(tmp_path / "in.safetensors", tmp_path / "out.safetensors", "2:4")
    status = {tensor.name: tensor.status for tensor in report.tensors}
    assert status == {"thin.weight": "unchanged", "wide.weight": "pruned", "z.weight": "left"}
    assert torch.equal(load_file(tmp_path / "out.safetensors")["thin.weight"], tensors["thin.weight"])


def test_the_bytes_do_not_depend_on_threads(tmp_path: Path) -> None:
    weight = torch.randn(1500, 1024, generator=torch.Generator().manual_seed(3)).round(decimals=1)
    save_file({"a.weight": weight, "z.weight": torch.ones(4, 4)}, tmp_path / "in.safetensors")
    for threads in (1, 3):
        prune_file(tmp_path / "in.safetensors", tmp_path / f"{threads}.safetensors", "4:8t", threads=threads)
    assert (tmp_path / "1.safetensors").read_bytes() == (tmp_path / "3.safetensors").read_bytes()
    seen: list[tuple[int, int]] = []
    prune_file(
        tmp_path / "in.safetensors",
        tmp_path / "p.safetensors",
        "2:4",
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[-1] == (1500 * 1024 * 4 + 64, 1500 * 1024 * 4 + 64)
    assert seen == sorted(seen)


def test_nan_is_named_and_nothing_is_left(tmp_path: Path, mlp: dict[str, Tensor]) -> None:
    mlp["fc2.weight"][3, 1] = float("nan")
    save_file(mlp, tmp_path / "in.safetensors")
    torch.save(mlp, tmp_path / "in.pt")
    for source in ("in.safetensors", "in.pt"):
        for output in ("out.safetensors", "out.pt", "out"):
            with pytest.raises(CheckpointError, match=r"fc2\.weight holds nan at \(3, 1\): mend it"):
                prune_file(tmp_path / source, tmp_path / output, "2:4")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.pt", "in.safetensors"]
    report = prune_file(tmp_path / "in.safetensors", tmp_path / "out.safetensors", "2:4", ignore=["fc2"])
    assert len(report.pruned) == 2
    wide = torch.ones(2000, 1024)
    wide[1999, 5] = float("-inf")
    save_file({"a.weight": wide, "z.weight": torch.ones(4, 4)}, tmp_path / "wide.safetensors")
    with pytest.raises(CheckpointError, match=r"a\.weight holds -inf at \(1999, 5\)"):
        prune_file(tmp_path / "wide.safetensors", tmp_path / "wide_out.safetensors", "2:4t")


def test_refusals(mlp_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown suffix '\.npz'"):
        prune_file(mlp_file, tmp_path / "out.npz", "2:4")
    with pytest.raises(ValueError, match="cannot read the pattern"):
        prune_file(mlp_file, tmp_path / "out.safetensors", "half")
    with pytest.raises(ValueError, match="unknown method"):
        prune_file(mlp_file, tmp_path / "out.safetensors", "2:4t", method="best")
    with pytest.raises(ValueError, match="transposable patterns only"):
        prune_file(mlp_file, tmp_path / "out.safetensors", "2:4", method="greedy")
    with pytest.raises(CheckpointError, match="does not exist"):
        prune_file(tmp_path / "missing.safetensors", tmp_path / "out.safetensors", "2:4")
    with pytest.raises(OutputError, match="exists: choose another name, or replace it with --force"):
        prune_file(mlp_file, mlp_file, "2:4")
    shutil.copy(mlp_file, tmp_path / "copy.safetensors")
    prune_file(tmp_path / "copy.safetensors", tmp_path / "copy.safetensors", "2:4", force=True)
    overlap = torch.randn(16, 8)
    torch.save(
        {"a.weight": overlap[:12], "b.weight": overlap[4:], "z.weight": torch.ones(2, 2)}, tmp_path / "o.pt"
    )
    with pytest.raises(CheckpointError, match="share part of their memory"):
        prune_file(tmp_path / "o.pt", tmp_path / "p.pt", "2:4")
    assert not list(tmp_path.glob("*.partial*"))


def test_greedy_proves_nothing(mlp_file: Path, tmp_path: Path) -> None:
    report = prune_file(mlp_file, tmp_path / "out.safetensors", "2:4t", method="greedy")
    assert all(tensor.gap == float("inf") for tensor in report.pruned)
    assert json.loads(json.dumps(report.to_dict()))["tensors"][0]["gap"] in ("inf", None)
    assert any("no proof" in note for note in report.to_table().notes)


def test_real_networks_to_every_kind(tmp_path: Path, real_data: Callable[[str], Path]) -> None:
    for name, key in (
        ("resnet_cifar10/resnet20-12fca82f.th", "module.layer1.0.conv1.weight"),
        ("resnet_cifar10/resnet32-d509ac18.th", "module.layer3.4.conv2.weight"),
        ("tinyllama/stories260K.pt", "layers.4.feed_forward.w1.weight"),
    ):
        source = real_data(name)
        before = torch.load(source, weights_only=True, map_location="cpu")["state_dict"][key]
        layout = Layout("conv") if before.dim() == 4 else Layout()
        out = tmp_path / f"{source.stem}.pt"
        report = prune_file(source, out, "4:8t")
        _check(torch.load(out, weights_only=True)["state_dict"][key], before, "4:8t", layout)
        prune_file(source, tmp_path / f"{source.stem}.safetensors", "4:8t")
        assert torch.equal(
            load_file(tmp_path / f"{source.stem}.safetensors")[key],
            torch.load(out, weights_only=True)["state_dict"][key],
        )
        assert 0.7 < report.kept_magnitude < 0.8
