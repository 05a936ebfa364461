"""What inspect says: patterns that hold, violations, kept magnitude, diversity; from examples checked by
eye.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import bisparse as bs
from bisparse.files import InspectedTensor, OutputError, inspect_file, inspect_plot, prune_file
from bisparse.files.inspect_plot import plot_inspection
from bisparse.files.inspection import read_corner
from bisparse.files.structure import BLOCK_SIZES, Structure


def _one(path: Path, name: str, **options: object):
    report = inspect_file(path, **options)  # type: ignore[arg-type]
    return next(tensor for tensor in report.tensors if tensor.name == name)


ROWS_ONLY = [
    [1, 1, 0, 0, 0, 1, 1, 0],
    [1, 1, 0, 0, 0, 1, 1, 0],
    [1, 1, 0, 0, 0, 1, 1, 0],
    [1, 0, 1, 0, 0, 1, 1, 0],
]


def test_an_example_to_check_by_eye(tmp_path: Path) -> None:
    save_file({"a.weight": torch.tensor(ROWS_ONLY, dtype=torch.float32)}, tmp_path / "x.safetensors")
    row = _one(tmp_path / "x.safetensors", "a.weight", pattern="2:4t")
    # Every row has two in each group of four; columns 0, 5 and 6 have four, column 1 has three.
    assert row.inputs == ("2:4",)
    assert row.outputs == ()
    assert row.transposable == ()
    assert row.patterns == "2:4 in"
    assert row.density == 0.5
    assert row.check is not None
    assert not row.check.satisfied
    assert (row.check.groups, row.check.violations) == (8, 0)
    assert (row.check.transposed_groups, row.check.transposed_violations) == (8, 4)
    # Of the sixteen ones a 2:4t mask keeps at most two per column: 2 + 2 + 1 + 0 left, 0 + 2 + 2 + 0 right.
    assert row.check.kept_magnitude == pytest.approx(9 / 16)
    assert row.check.log10_diversity == pytest.approx(2 * np.log10(90))
    assert _one(tmp_path / "x.safetensors", "a.weight", pattern="2:4").check.satisfied


def test_smaller_blocks_imply_larger_ones() -> None:
    structure = Structure()
    flags = np.zeros((1, 32, 32), dtype=bool)
    flags[0, :, ::2] = True
    structure.add(flags)
    assert structure.inputs() == ("2:4",)  # 4:8, 8:16 and 16:32 follow
    assert structure.outputs() == ()  # full columns
    structure = Structure()
    flags[0, :, ::4] = False
    flags[0, :, 0] = True
    structure.add(flags)
    assert structure.inputs() == ("2:4", "3:8", "5:16", "9:32")


def test_the_sparsest_pattern_comes_first() -> None:
    found = {"inputs": ("2:4",), "outputs": ("6:8",), "transposable": ("7:8t", "13:16t")}
    row = InspectedTensor("a", (8, 8), "F32", 256, "linear", "2-D", "", 0.5, **found)  # type: ignore[arg-type]
    assert row.patterns == "2:4 in, 6:8 out, 13:16t, 7:8t"


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.floats(0.05, 0.9), st.integers(0, 10**6))
def test_counts_equal_a_plain_loop(rows: int, columns: int, density: float, seed: int) -> None:
    flags = np.random.default_rng(seed).random((1, rows, columns)) < density
    structure = Structure(keep=2, block=6)
    structure.add(flags)
    over = groups = 0
    for row in flags[0]:
        for start in range(0, columns, 6):
            groups += 1
            over += row[start : start + 6].sum() > 2
    assert (structure.asked_inputs.groups, structure.asked_inputs.over) == (groups, over)
    for block in BLOCK_SIZES:
        most = max(
            int(flags[0, :, start : start + block].sum(axis=1).max()) for start in range(0, columns, block)
        )
        assert structure._inputs[block].most == most
        most = max(int(flags[0, start : start + block].sum(axis=0).max()) for start in range(0, rows, block))
        assert structure._outputs[block].most == most


@pytest.mark.parametrize("pattern", ["2:4", "1:4t", "4:8t", "8:16t", "16:32t", "unstructured:0.5"])
def test_what_prune_wrote_inspect_finds(tmp_path: Path, mlp_file: Path, pattern: str) -> None:
    prune_file(mlp_file, tmp_path / "out.safetensors", pattern, ignore=[])
    report = inspect_file(tmp_path / "out.safetensors", pattern=pattern)
    for tensor in report.tensors:
        if tensor.name.endswith("weight"):
            assert tensor.check is not None
            assert tensor.check.satisfied
            assert tensor.check.kept_magnitude == pytest.approx(1.0, rel=1e-5)
    assert report.weight_density == pytest.approx(
        sum(t.density * torch.Size(t.shape).numel() for t in report.tensors if t.check) / report.weights
    )
    before = inspect_file(mlp_file, pattern=pattern)
    assert not any(tensor.check and tensor.check.satisfied for tensor in before.tensors)
    name = "fc2.weight"
    weight = load_file(mlp_file)[name]
    kept = bs.solve_mask(weight.abs(), pattern).objective / float(weight.abs().sum())
    assert _one(mlp_file, name, pattern=pattern).check.kept_magnitude == pytest.approx(kept, rel=1e-5)


def test_everything_else_it_says(tmp_path: Path) -> None:
    weight = torch.randn(8, 8)
    weight[0, 0], weight[0, 1] = float("inf"), float("nan")
    tensors = {
        "a.weight": weight,
        "h.0.attn.c_attn.weight": torch.randn(8, 24),
        "q": torch.tensor([[0, 3], [0, 0]], dtype=torch.int8),
        "flags": torch.ones(2, 2, dtype=torch.bool),
        "minus": torch.tensor([-0.0, 0.0, 1.0]),
    }
    save_file(tensors, tmp_path / "x.safetensors", metadata={"k": "v"})
    report = inspect_file(tmp_path / "x.safetensors", pattern="2:4")
    rows = {tensor.name: tensor for tensor in report.tensors}
    assert rows["a.weight"].not_finite == 2
    assert rows["a.weight"].check is not None
    assert rows["a.weight"].check.kept_magnitude is None
    assert rows["h.0.attn.c_attn.weight"].undecided == "transposed"
    assert rows["q"].density == 0.25
    assert rows["flags"].density is None
    assert rows["minus"].density == pytest.approx(1 / 3)
    assert report.metadata == {"k": "v"}
    assert json.dumps(report.to_dict(), allow_nan=False)
    assert any("NaN or infinite" in note for note in report.to_table().notes)


def test_a_folder_and_a_pickle(tmp_path: Path, sharded: Callable[..., Path]) -> None:
    folder = sharded("m", [{"a.weight": torch.ones(4, 4)}, {"b.weight": torch.zeros(4, 4)}], {})
    report = inspect_file(folder)
    assert (report.kind, report.parameters, report.bytes, report.weight_density) == ("folder", 32, 128, 0.5)
    tied = torch.ones(4, 4)
    torch.save({"a.weight": tied, "b.weight": tied, "s": torch.eye(3).to_sparse()}, tmp_path / "x.pt")
    report = inspect_file(tmp_path / "x.pt")
    assert "tied: b.weight = a.weight" in report.notes
    assert any("s: sparse" in note for note in report.notes)


def test_a_picture(tmp_path: Path, mlp_file: Path) -> None:
    pytest.importorskip("matplotlib")
    prune_file(mlp_file, tmp_path / "out.safetensors", "4:8t")
    report = inspect_file(tmp_path / "out.safetensors")
    assert plot_inspection(report, tmp_path / "x.png").read_bytes()[1:4] == b"PNG"
    save_file({"n": torch.ones(3)}, tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="no weight to draw"):
        plot_inspection(inspect_file(tmp_path / "none.safetensors"), tmp_path / "y.png")
    with pytest.raises(OutputError, match=r"cannot write .*x\.png: No such file or directory"):
        plot_inspection(report, tmp_path / "missing" / "x.png")


def test_a_picture_shows_weights_whose_orientation_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    drawn: list[list[str]] = []
    monkeypatch.setattr(inspect_plot, "draw_shares", lambda axes, names, shares, label: drawn.append(names))
    save_file({"experts.down_proj": torch.ones(2, 8, 8)}, tmp_path / "moe.safetensors")
    plot_inspection(inspect_file(tmp_path / "moe.safetensors"), tmp_path / "x.png")  # densities only
    save_file(
        {"experts.down_proj": torch.ones(2, 8, 8), "a.weight": torch.ones(8, 8)}, tmp_path / "moe.safetensors"
    )
    plot_inspection(inspect_file(tmp_path / "moe.safetensors"), tmp_path / "x.png")
    assert drawn == [["experts.down_proj"], ["a.weight", "experts.down_proj"]]


def test_a_report_prints_as_its_table(tmp_path: Path, mlp_file: Path) -> None:
    pruned = prune_file(mlp_file, tmp_path / "out.safetensors", "4:8t")
    assert f"2 of {len(pruned.tensors)} tensors pruned to 4:8t (exact, proven optimal" in str(pruned)
    assert str(inspect_file(mlp_file)).startswith(f"{mlp_file} (safetensors)\ntensor ")
    assert json.loads(json.dumps(pruned.to_dict()))["pattern"] == "4:8t"


def test_a_corner_is_the_top_left_of_the_matrix(tmp_path: Path) -> None:
    weight = torch.arange(200, dtype=torch.float32).reshape(10, 20)
    save_file({"a.weight": weight}, tmp_path / "x.safetensors")
    assert torch.equal(read_corner(tmp_path / "x.safetensors", "a.weight", size=3), weight[:3, :3])
    turned = read_corner(tmp_path / "x.safetensors", "a.weight", size=3, layout="a=transposed")
    assert torch.equal(turned, weight.t()[:3, :3])
    with pytest.raises(KeyError):
        read_corner(tmp_path / "x.safetensors", "b.weight")


def test_real_networks(real_data: Callable[[str], Path]) -> None:
    report = inspect_file(real_data("resnet_cifar10/resnet20-12fca82f.th"), pattern="4:8t")
    assert report.weights == 268336
    assert report.parameters == 271098  # the published 269722, and running statistics of the batch norms
    checks = [tensor.check for tensor in report.tensors if tensor.check]
    assert all(check.kept_magnitude is not None and 0.7 < check.kept_magnitude < 0.9 for check in checks)
