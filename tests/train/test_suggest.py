"""From densities to N of M, and from trained thresholds to other forms of the same network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import bisparse as bs
from bisparse.train import Dst
from bisparse.train.thresholds import Reset


def kept(shape: tuple[int, int], share: float) -> torch.Tensor:
    """Weights of which exactly so many are not zero, spread evenly."""
    values = torch.ones(shape[0] * shape[1])
    values[round(share * values.numel()) :] = 0.0
    return values[torch.randperm(values.numel(), generator=torch.Generator().manual_seed(0))].reshape(shape)


def network(*shares: float) -> nn.Sequential:
    layers = [nn.Linear(32, 32) for _ in shares]
    with torch.no_grad():
        for layer, share in zip(layers, shares, strict=True):
            layer.weight.copy_(kept((32, 32), share))
    return nn.Sequential(*layers)


def as_text(model: nn.Module | bs.Sparsifier, *blocks: int, **options: object) -> dict[object, str]:
    return {name: str(p) for name, p in bs.suggest_patterns(model, blocks, **options).items()}  # type: ignore[arg-type]


def test_the_nearest_density() -> None:
    model = network(0.02, 0.30, 0.40, 0.86, 0.9)
    assert as_text(model, 4) == {
        "0.weight": "1:4t",
        "1.weight": "1:4t",
        "2.weight": "2:4t",
        "3.weight": "3:4t",
    }
    assert as_text(model, 4, 8, 16)["0.weight"] == "1:16t"
    assert as_text(model, 4, 8, 16)["1.weight"] == "5:16t"
    assert as_text(model, 4, transposable=False)["2.weight"] == "2:4"


def test_rounding_up() -> None:
    assert as_text(network(0.26, 0.5, 0.76), 4, rounding="up") == {"0.weight": "2:4t", "1.weight": "2:4t"}
    assert as_text(network(0.26), 4, 8, rounding="up") == {"0.weight": "3:8t"}


def test_the_first_of_equally_near_blocks() -> None:
    assert as_text(network(0.5), 8, 4) == {"0.weight": "4:8t"}
    assert as_text(network(0.5), 4, 8) == {"0.weight": "2:4t"}


def test_a_suggestion_is_a_pattern_to_prune_and_to_train_with() -> None:
    model = network(0.1, 0.5, 1.0)
    suggested = bs.suggest_patterns(model, (4, 8))
    pruned = bs.prune(model, suggested, ignore=[]).model
    assert bs.verify_mask(pruned[0].weight.detach() != 0, "1:8t", at_most=True).feasible
    sparse = bs.Sparsifier(suggested, ignore=[]).prepare(network(0.1, 0.5, 1.0))
    assert sorted(sparse.weights) == ["0.weight", "1.weight"]
    assert "no pattern" in sparse.left_out["2.weight"]


def test_what_cannot_be_suggested() -> None:
    with pytest.raises(ValueError, match="blocks is empty"):
        bs.suggest_patterns(network(0.5), ())
    for wrong in (128, 1, 0, -4):
        with pytest.raises(ValueError, match=rf"1:{wrong}t: block must be between 2 and 64"):
            bs.suggest_patterns(network(0.5), (4, wrong, 8))
    with pytest.raises(TypeError, match="block must be an integer"):
        bs.suggest_patterns(network(0.5), (4, 8.0))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="choose"):
        bs.suggest_patterns(network(0.5), rounding="down")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="prepare the sparsifier first"):
        bs.suggest_patterns(bs.Sparsifier("2:4"))
    with pytest.raises(ValueError, match="no weight to look at"):
        bs.suggest_patterns(nn.ReLU())


def trained(pattern: str, share: float) -> tuple[nn.Sequential, bs.Sparsifier]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 16))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rule = Dst(alpha=0.05, start=share, reset=Reset("off"))
    sparse = bs.Sparsifier(pattern, rule=rule, ignore=[]).prepare(model, optimizer)
    for _ in range(5):
        optimizer.zero_grad()
        model(torch.randn(32, 64)).square().mean().backward()
        optimizer.step()
    return model, sparse


def test_densities_of_thresholds_choose_patterns() -> None:
    _, sparse = trained("unstructured:0", 0.05)
    found = bs.suggest_patterns(sparse, (8,))
    for name, pattern in found.items():
        density = sparse.masks[str(name)].float().mean().item()
        assert abs(pattern.density - density) <= 1 / 16
    assert found


def test_the_same_function_packed() -> None:
    model, sparse = trained("2:8t", 0.02)
    sparse.squash_mask()
    inputs = torch.randn(5, 64)
    packed = bs.nn.PackedLinear.from_linear(model[0], "2:8t")
    torch.testing.assert_close(packed(inputs), model[0](inputs), rtol=1e-5, atol=1e-6)
    assert not bs.verify_mask(model[0].weight.detach() != 0, "2:8t").feasible  # fewer than 2 in some lines


def test_the_same_function_as_compressed_rows() -> None:
    model, sparse = trained("unstructured:0", 0.05)
    mask = sparse.masks["0.weight"]
    sparse.squash_mask()
    inputs = torch.randn(5, 64)
    layer = bs.nn.SparseLinear.from_linear(model[0], mask)
    assert layer.nnz == int(mask.sum()) < mask.numel() / 2
    torch.testing.assert_close(layer(inputs), model[0](inputs), rtol=1e-5, atol=1e-6)


def test_a_packed_file_gives_the_same_network(tmp_path: Path) -> None:
    model, sparse = trained("unstructured:0", 0.05)
    sparse.squash_mask()
    bs.save_packed(model, tmp_path / "model.safetensors")
    state = bs.load_packed(tmp_path / "model.safetensors")
    for name, value in model.state_dict().items():
        assert torch.equal(state[name], value)
