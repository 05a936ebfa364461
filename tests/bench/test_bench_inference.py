"""The benchmark of token-by-token inference on a model small enough for a test: what is built, measured, written."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bisparse.bench.inference import VARIANTS, Contender, build, masked, row_of, time_decoding
from bisparse.bench.inference_tables import inference_tables
from bisparse.zoo.generation import generate
from bisparse.zoo.llama import Llama, LlamaConfig


@pytest.fixture(scope="module")
def contenders() -> dict[str, Contender]:
    """Every float32 variant, two layers made of one."""
    torch.manual_seed(0)
    dense = Llama(
        LlamaConfig(dim=64, hidden_dim=96, n_layers=1, n_heads=4, n_kv_heads=2, vocab_size=50)
    ).eval()

    def source(name: str) -> Llama:
        pattern, _, dtype = name.rpartition(" ")
        assert dtype == "float32"
        return masked(dense, pattern) if pattern else dense

    return {v: build(v, source, 2) for v in VARIANTS if "bfloat16" not in v}


def test_layers_are_copies_with_memory_of_their_own(contenders: dict[str, Contender]) -> None:
    for name, contender in contenders.items():
        first, second = contender.model.layers
        assert first is not second
        assert (
            contender.model.tok_embeddings.weight is contenders["dense float32"].model.tok_embeddings.weight
        )
        pointers = {p.data_ptr() for p in contender.model.layers.parameters()}
        assert len(pointers) == len(list(contender.model.layers.parameters())), name


def test_sizes_are_those_of_the_tensors(contenders: dict[str, Contender]) -> None:
    weights = 2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 96)
    assert contenders["dense float32"].layer_bytes == 4 * weights
    assert contenders["packed 4:8 float32"].layer_bytes == contenders["packed 2:4 float32"].layer_bytes
    assert 0.53 < contenders["packed 4:8 float32"].layer_bytes / (4 * weights) < 0.57
    assert contenders["int8 dynamic"].layer_bytes < 0.5 * 4 * weights
    assert contenders["int8 dynamic"].file_bytes is None
    assert (contenders["packed 2:4 float32"].file_bytes or 0) < (contenders["dense float32"].file_bytes or 0)


def test_packed_models_write_what_the_masked_ones_write(contenders: dict[str, Contender]) -> None:
    ids = torch.tensor([[1, 2, 3]])
    packed = contenders["packed 4:8 float32"].model
    assert not any(isinstance(module, nn.Linear) for module in packed.modules())
    text = torch.cat([ids, generate(packed, ids, 4)], 1)
    for place in range(3, 7):
        assert int(packed(text[:, :place])[0, -1].argmax()) == int(text[0, place])


def test_times_become_rows_and_rows_become_tables(contenders: dict[str, Contender]) -> None:
    times = time_decoding({v: c.model for v, c in contenders.items()}, batch=2, tokens=2, rounds=1)
    assert times.keys() == contenders.keys()
    assert all(seconds > 0 for seconds in times.values())
    fixed = dict(zip(contenders, (0.2, 0.1, 0.125, 0.4), strict=True))
    rows = [row_of("wide", v, c, 2, fixed[v], None, 1) for v, c in contenders.items()]
    lines = inference_tables(rows)["inference_wide"].splitlines()
    assert lines[0].startswith("| layers | tokens/s, batch 2 | layers in memory |")
    assert lines[3].startswith("| packed 4:8 float32 | 20.0 (2.00x) |")
    assert lines[-1] == "Batch 2: packed 4:8 float32 is fastest, 1.25x of packed 2:4 float32."
    assert "loss" not in lines[0]
    tiny = [row_of("tiny", v, c, 2, fixed[v], 1.25, 1) for v, c in contenders.items()]
    assert inference_tables(tiny)["inference_tiny"].splitlines()[2].endswith("| 1.250 |")
