"""Every bit comes back, whatever the type, shape and pattern; and the files are as small as promised."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import bisparse as bs
from bisparse.files import OutputError, inspect_file, open_checkpoint, pack_file, prune_file, unpack_file

DTYPES = [
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int8,
    torch.float8_e4m3fn,
    torch.float64,
    torch.int32,
]
PATTERNS = ["2:4", "1:4", "4:8", "6:8", "4:8t", "8:16", "16:32", "3:5", "7:17", "31:32", "1:2"]


def random_bits(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    """Any bits at all: also infinities, denormals, and NaNs with payloads."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.empty((), dtype=dtype).element_size()
    raw = torch.randint(0, 256, (*shape[:-1], shape[-1] * size), dtype=torch.uint8, generator=generator)
    return raw.view(dtype)


def zeroed(tensor: Tensor, mask: Tensor) -> Tensor:
    """Zero bits where the mask is False, for types that PyTorch cannot fill, too."""
    raw = tensor.contiguous().view(torch.uint8).reshape(*tensor.shape, -1)
    return (raw * mask[..., None]).reshape(*tensor.shape[:-1], -1).view(tensor.dtype)


def with_zeros(tensor: Tensor, pattern: str, axis: int = 1) -> Tensor:
    """Zeros where a random mask of the pattern is False; groups run along an axis."""
    moved = tensor.movedim(axis, -1)
    scores = torch.rand(
        moved.numel() // moved.shape[-1], moved.shape[-1], generator=torch.Generator().manual_seed(1)
    )
    return zeroed(tensor, bs.solve_mask(scores, pattern).mask.reshape(moved.shape).movedim(-1, axis))


def same_bits(a: Tensor, b: Tensor) -> bool:
    shaped = a.dtype == b.dtype and a.shape == b.shape
    return shaped and torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_type_and_pattern(tmp_path: Path, dtype: torch.dtype, pattern: str) -> None:
    weight = with_zeros(random_bits((64, 160), dtype, 0), pattern)
    report = bs.save_packed({"w": weight}, tmp_path / "x.safetensors", pattern=pattern, durable=False)
    assert same_bits(bs.load_packed(tmp_path / "x.safetensors")["w"], weight)
    keep, block = map(int, pattern.rstrip("t").split(":"))
    assert report.tensors[0].coding == (
        f"{keep}:{block}" if (keep, block) != (31, 32) else report.tensors[0].coding
    )


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(1, 23), min_size=1, max_size=4).map(tuple),
    dtype=st.sampled_from(DTYPES),
    density=st.sampled_from([0.0, 0.03, 0.3, 0.5, 0.9, 1.0]),
    pattern=st.sampled_from([None, "2:4", "4:8", "unstructured:0.5"]),
    seed=st.integers(0, 9),
)
def test_any_shape_and_density(
    tmp_path_factory: pytest.TempPathFactory, shape: tuple[int, ...], dtype: torch.dtype, density: float,
    pattern: str | None, seed: int,
) -> None:  # fmt: skip
    tensor = random_bits((*shape, 40), dtype, seed)
    tensor = zeroed(tensor, torch.rand(tensor.shape, generator=torch.Generator().manual_seed(seed)) < density)
    path = tmp_path_factory.mktemp("any") / "x.safetensors"
    names = {"x" * (1 + 150 * (seed % 2)): tensor, 'y"\u00e9': tensor.clone()}
    report = bs.save_packed(names, path, pattern=pattern, durable=False, threads=1)
    save_file(names, path.with_name("dense.safetensors"), metadata={"format": "pt"})
    assert report.nbytes <= path.with_name("dense.safetensors").stat().st_size
    assert path.stat().st_size == report.nbytes
    loaded = bs.load_packed(path, threads=1)
    assert all(same_bits(loaded[name], value) for name, value in names.items())


@pytest.mark.parametrize(
    ("dtype", "bound"),
    [(torch.float32, 0.57), (torch.bfloat16, 0.57), (torch.float16, 0.57), (torch.int8, 0.625)],
)
@pytest.mark.parametrize("pattern", ["2:4", "4:8", "4:8t", "8:16", "16:32t"])
def test_half_the_weights_take_little_more_than_half_the_file(
    tmp_path: Path, pattern: str, dtype: torch.dtype, bound: float
) -> None:
    weight = with_zeros(torch.randint(1, 100, (256, 512)).to(dtype), pattern)
    save_file({"w": weight}, tmp_path / "dense.safetensors")
    bs.save_packed({"w": weight}, tmp_path / "packed.safetensors", durable=False)
    dense, packed = ((tmp_path / f"{name}.safetensors").stat().st_size for name in ("dense", "packed"))
    assert packed <= bound * dense


@pytest.mark.parametrize("density", [0.001, 0.01, 0.05, 0.2, 0.8])
def test_unstructured_zeros_take_the_smaller_of_bitmask_and_csr(tmp_path: Path, density: float) -> None:
    weight = torch.randn(300, 1000)
    weight[torch.rand(300, 1000) >= density] = 0
    report = bs.save_packed({"w": weight}, tmp_path / "x.safetensors", durable=False)
    assert report.tensors[0].coding == ("csr" if density < 0.06 else "bitmask")
    kept = int((weight != 0).sum())
    assert report.tensors[0].nbytes == min(kept * 4 + 300 * 125, kept * 6 + 301 * 4)
    assert same_bits(bs.load_packed(tmp_path / "x.safetensors")["w"], weight)


def test_an_example_to_check_by_eye(tmp_path: Path) -> None:
    """2:4: the pair (first, second) is number 0, (first, third) 1, (second, third) 2, ..., 3 bits each."""
    weight = torch.tensor([[1, 2, 0, 0, 3, 0, 4, 0, 0, 5, 6, 0, 0, 0, 7, 8]]).repeat(64, 1).to(torch.int32)
    bs.save_packed({"w": weight}, tmp_path / "x.safetensors", pattern="2:4", durable=False)
    stored = load_file(tmp_path / "x.safetensors")
    assert stored["w.packed.values"][0].tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert stored["w.packed.index"][0].tolist() == [0 | 1 << 3 | (2 << 6) & 255, 2 >> 2 | 5 << 1]
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        described = json.loads(file.metadata()["bisparse.packed"])
    fields = {"dtype": "I32", "shape": [64, 16], "coding": "combination", "keep": 2, "block": 4, "axis": 1}
    assert described == {"version": 1, "tensors": {"w": fields}}


@pytest.mark.parametrize("shape", [(4, 4096 * 9, 72), (3, 70001), (2, 300, 5000), (70, 3, 3, 1000)])
@pytest.mark.parametrize("axis", [0, 1])
def test_tensors_of_many_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], axis: int
) -> None:
    """Pieces of 64 kB instead of 4 MB, so that rows are cut, too; blocks of 5 leave a tail in every row."""
    from bisparse.files.packed import pieces

    monkeypatch.setitem(pieces.pieces.__kwdefaults__ or {}, "limit", 1 << 16)
    monkeypatch.setattr(pieces.pieces, "__defaults__", (0, None, 1 << 16))
    for pattern in ("4:8", "3:5") if axis else ("4:8",):
        weight = with_zeros(torch.randint(1, 100, shape, dtype=torch.int8), pattern, axis)
        report = bs.save_packed(
            {"w": weight}, tmp_path / "x.safetensors", pattern=pattern, durable=False, force=True
        )
        assert report.tensors[0].coding == (pattern if shape[axis] > 4 else "dense")
        assert same_bits(bs.load_packed(tmp_path / "x.safetensors")["w"], weight)
        with open_checkpoint(tmp_path / "x.safetensors") as checkpoint:
            shard, entry = next(checkpoint.entries())
            for offset, size in ((0, 1), (70_001, 130_003), (entry.nbytes - 5, 5)):
                buffer = bytearray(size)
                shard.read_into(entry, offset, memoryview(buffer))
                assert bytes(buffer) == weight.reshape(-1)[offset : offset + size].numpy().tobytes()


def test_negative_zeros_keep_their_signs_unless_told_otherwise(tmp_path: Path) -> None:
    mask = bs.solve_mask(torch.rand(128, 256), "4:8").mask
    for dtype in (torch.float32, torch.bfloat16):
        weight = torch.randn(128, 256).to(dtype) * mask  # -0.0 where a negative weight was
        exact = bs.save_packed({"w": weight}, tmp_path / "a.safetensors", durable=False, force=True)
        small = bs.save_packed(
            {"w": weight}, tmp_path / "b.safetensors", signed_zeros=False, durable=False, force=True
        )
        assert same_bits(bs.load_packed(tmp_path / "a.safetensors")["w"], weight)
        loaded = bs.load_packed(tmp_path / "b.safetensors")["w"]
        assert torch.equal(loaded, weight)
        assert not torch.signbit(loaded[~mask]).any()
        assert small.tensors[0].nbytes < exact.tensors[0].nbytes < 0.6 * weight.nbytes
        assert exact.tensors[0].negative_zeros == int(torch.signbit(weight[~mask]).sum())


def test_a_model_comes_back_and_tied_weights_stay_one(tmp_path: Path) -> None:
    def tied() -> nn.Module:
        model = nn.Sequential(
            nn.Embedding(64, 32), nn.Linear(32, 32), nn.LayerNorm(32), nn.Linear(32, 64, bias=False)
        )
        model[3].weight = model[0].weight
        return model

    model = tied()
    with torch.no_grad():
        model[0].weight.copy_(with_zeros(model[0].weight.detach(), "4:8"))
    report = bs.save_packed(model, tmp_path / "m.safetensors", durable=False)
    assert [tensor.name for tensor in report.packed] == ["0.weight"]
    loaded = bs.load_packed(tmp_path / "m.safetensors")
    assert loaded["3.weight"] is loaded["0.weight"]
    other = bs.load_packed(tmp_path / "m.safetensors", tied())
    assert isinstance(other, nn.Sequential)
    for name, tensor in model.state_dict().items():
        assert same_bits(other.state_dict()[name], tensor)
    with pytest.raises(RuntimeError, match="size mismatch"):
        bs.load_packed_(nn.Sequential(nn.Embedding(64, 31)), tmp_path / "m.safetensors")


def test_conv1d_of_gpt2_and_convolutions_run_along_their_inputs(tmp_path: Path) -> None:
    tensors = {
        "transposed": with_zeros(torch.randn(64, 48), "2:4", axis=0),
        "conv": with_zeros(torch.randn(32, 16, 3, 3), "2:4", axis=1),
        "experts": with_zeros(torch.randn(4, 24, 32), "4:8", axis=2),
        "experts_transposed": with_zeros(torch.randn(4, 32, 24), "4:8", axis=1),
    }
    report = bs.save_packed(tensors, tmp_path / "x.safetensors", durable=False)
    assert {t.name: t.coding for t in report.tensors} == {
        "transposed": "2:4", "conv": "2:4", "experts": "4:8", "experts_transposed": "4:8"
    }  # fmt: skip
    loaded = bs.load_packed(tmp_path / "x.safetensors")
    assert all(same_bits(loaded[name], tensor) for name, tensor in tensors.items())


def test_file_to_file_and_back_gives_the_same_bytes(tmp_path: Path, mlp_file: Path) -> None:
    prune_file(mlp_file, tmp_path / "sparse.safetensors", "2:4", durable=False)
    report = pack_file(tmp_path / "sparse.safetensors", tmp_path / "packed.safetensors", durable=False)
    assert [tensor.name for tensor in report.packed] == ["fc2.weight", "fc1.weight"] or len(
        report.packed
    ) == 2
    unpack_file(tmp_path / "packed.safetensors", tmp_path / "again.safetensors", durable=False)
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "sparse.safetensors").read_bytes()
    pack_file(tmp_path / "packed.safetensors", tmp_path / "twice.safetensors", durable=False)
    assert (tmp_path / "twice.safetensors").read_bytes() == (tmp_path / "packed.safetensors").read_bytes()


def test_folders_keep_their_shards_and_other_files(tmp_path: Path, sharded: Callable[..., Path]) -> None:
    weights = [with_zeros(torch.randn(64, 64), "4:8t") for _ in range(2)]
    folder = sharded(
        "model", [{"a.weight": weights[0]}, {"b.weight": weights[1], "b.bias": torch.randn(64)}], {}
    )
    report = pack_file(folder, tmp_path / "packed", durable=False)
    assert len(report.packed) == 2
    names = {
        str(path.relative_to(tmp_path / "packed"))
        for path in (tmp_path / "packed").rglob("*")
        if path.is_file()
    }
    shards = {f"model-0000{i}-of-00002.safetensors" for i in (1, 2)}
    assert names == {
        "packed.safetensors.index.json",
        "config.json",
        "tokenizer.json",
        "extra/notes.txt",
        *shards,
    }
    loaded = bs.load_packed(tmp_path / "packed")
    assert same_bits(loaded["b.weight"], weights[1])
    unpack_file(tmp_path / "packed", tmp_path / "again", durable=False)
    for shard in shards:
        assert (tmp_path / "again" / shard).read_bytes() == (folder / shard).read_bytes()
    assert (tmp_path / "again" / "model.safetensors.index.json").exists()
    assert not (tmp_path / "again" / "packed.safetensors.index.json").exists()
    single = pack_file(folder, tmp_path / "one.safetensors", durable=False)
    assert single.nbytes == (tmp_path / "one.safetensors").stat().st_size
    assert same_bits(bs.load_packed(tmp_path / "one.safetensors")["a.weight"], weights[0])


def test_packed_files_are_read_like_any_other(tmp_path: Path) -> None:
    weight = with_zeros(torch.randn(64, 64), "2:4")
    bs.save_packed({"layer.weight": weight}, tmp_path / "x.safetensors", durable=False)
    found = inspect_file(tmp_path / "x.safetensors").tensors[0]
    assert (found.name, found.shape, found.density) == ("layer.weight", (64, 64), 0.5)
    prune_file(tmp_path / "x.safetensors", tmp_path / "y.safetensors", "2:4t", ignore=[], durable=False)
    mask = bs.solve_mask(weight.abs(), "2:4t").mask
    assert same_bits(load_file(tmp_path / "y.safetensors")["layer.weight"], zeroed(weight, mask))
    prune_file(tmp_path / "x.safetensors", tmp_path / "y.pt", "2:4t", ignore=[], durable=False)
    assert set(torch.load(tmp_path / "y.pt")) == {"layer.weight"}


def test_what_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"name a \.safetensors file"):
        bs.save_packed({"w": torch.ones(2)}, tmp_path / "x.pt")
    with pytest.raises(TypeError, match="'n' is a int"):
        bs.save_packed({"n": 3}, tmp_path / "x.safetensors")  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="the name 1 is a int"):
        bs.save_packed({1: torch.ones(2)}, tmp_path / "x.safetensors")  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="fits no safetensors file"):
        bs.save_packed({"s": torch.eye(3).to_sparse()}, tmp_path / "x.safetensors")
    bs.save_packed({"w": torch.ones(2)}, tmp_path / "x.safetensors")
    with pytest.raises(OutputError, match="exists"):
        bs.save_packed({"w": torch.ones(2)}, tmp_path / "x.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


def test_a_pattern_that_is_asked_for_and_not_obeyed_leaves_the_tensor_dense(tmp_path: Path) -> None:
    weight = with_zeros(torch.randn(64, 64), "4:8")
    report = bs.save_packed({"w": weight}, tmp_path / "x.safetensors", pattern="2:4", durable=False)
    assert (report.tensors[0].coding, report.tensors[0].reason) == ("dense", "does not obey 2:4")
    report = bs.save_packed({"w": weight}, tmp_path / "y.safetensors", pattern="4:8t", durable=False)
    assert report.tensors[0].coding == "4:8"


def test_names_that_look_like_parts_are_kept(tmp_path: Path) -> None:
    weight = with_zeros(torch.randn(64, 64), "4:8")
    tensors = {"w": weight, "w.packed.index": torch.arange(3), "v": weight.clone()}
    report = bs.save_packed(tensors, tmp_path / "x.safetensors", durable=False)
    assert [tensor.name for tensor in report.packed] == ["v"]
    loaded = bs.load_packed(tmp_path / "x.safetensors")
    assert loaded.keys() == tensors.keys()
    assert all(same_bits(loaded[name], tensor) for name, tensor in tensors.items())


def test_packed_layers_of_every_kind_take_dense_weights(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(16, 8, 3), nn.Flatten(), nn.Linear(32, 8))
    bs.prune_(model, "4:8", ignore=[])
    bs.save_packed(model, tmp_path / "x.safetensors", durable=False)
    packed = nn.Sequential(
        bs.nn.PackedConv2d.from_conv(model[0]), nn.Flatten(), bs.nn.PackedLinear.from_linear(model[2])
    )
    for layer in (packed[0], packed[2]):
        nn.init.zeros_(layer.values)
    bs.load_packed_(packed, tmp_path / "x.safetensors")
    x = torch.randn(2, 16, 4, 4)
    torch.testing.assert_close(packed(x), model(x))
    other = nn.Sequential(bs.nn.PackedConv2d(16, 8, (3, 3), "2:8"), nn.Flatten(), packed[2])
    with pytest.raises(ValueError, match=r"^0\.weight: .* does not obey 2:8"):
        bs.load_packed_(other, tmp_path / "x.safetensors")


def test_a_folder_of_transformers_comes_back_byte_for_byte_and_loads_into_a_tied_model(
    tmp_path: Path,
) -> None:
    transformers = pytest.importorskip("transformers", reason="needs the extra transformers")
    config = transformers.LlamaConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, vocab_size=128,
        tie_word_embeddings=True,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    bs.prune_(model, "4:8")
    model.save_pretrained(tmp_path / "plain", max_shard_size="100KB")
    bs.pack_file(tmp_path / "plain", tmp_path / "packed", durable=False)
    bs.unpack_file(tmp_path / "packed", tmp_path / "back", durable=False)
    names = sorted(path.name for path in (tmp_path / "plain").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "back").iterdir())
    for name in names:
        assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "back" / name).read_bytes()
    loaded = bs.load_packed(tmp_path / "packed", transformers.LlamaForCausalLM(config))
    tokens = torch.arange(8)[None]
    assert torch.equal(loaded(tokens).logits, model(tokens).logits)
