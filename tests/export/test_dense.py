"""Dense copies of sparse models: equal values, ordinary layers, and ONNX."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import bisparse as bs
from bisparse.export import dense_state_dict, to_dense
from bisparse.nn import PackedLinear


def sparse_model() -> nn.Sequential:
    """A packed layer, used twice, between dense ones; and the masked model that it was made from."""
    torch.manual_seed(0)
    masked = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.Linear(64, 8))
    with torch.no_grad():
        masked[2].weight.masked_fill_(~bs.solve_mask(masked[2].weight.abs(), "4:8").mask, 0)
    return masked


def packed_model() -> nn.Sequential:
    model = sparse_model()
    packed = PackedLinear.from_linear(model[2])
    return nn.Sequential(model[0], model[1], packed, packed, model[3])


def test_a_dense_copy_has_ordinary_layers_and_the_same_values() -> None:
    packed = packed_model()
    dense = to_dense(packed)
    assert type(dense[2]) is nn.Linear
    assert dense[3] is dense[2]
    assert isinstance(packed[2], PackedLinear)
    assert torch.equal(dense[2].weight, sparse_model()[2].weight)
    x = torch.randn(3, 32)
    torch.testing.assert_close(dense(x), packed(x))
    assert dense_state_dict(packed).keys() == dense.state_dict().keys()
    assert all(
        torch.equal(tensor, dense.state_dict()[name]) for name, tensor in dense_state_dict(packed).items()
    )
    alone = to_dense(packed[2])
    assert type(alone) is nn.Linear


def test_a_dense_model_is_copied() -> None:
    model = sparse_model()
    dense = to_dense(model)
    assert dense[0].weight is not model[0].weight
    assert dense.state_dict().keys() == dense_state_dict(model).keys() == model.state_dict().keys()


def test_packed_layers_are_saved_under_the_names_of_dense_ones(tmp_path: Path) -> None:
    masked = sparse_model()
    packed = nn.Sequential(masked[0], masked[1], PackedLinear.from_linear(masked[2]), masked[3])
    bs.save_packed(masked, tmp_path / "masked.safetensors", durable=False)
    bs.save_packed(packed, tmp_path / "packed.safetensors", durable=False)
    assert (tmp_path / "masked.safetensors").read_bytes() == (tmp_path / "packed.safetensors").read_bytes()
    other = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), PackedLinear(64, 64, "4:8"), nn.Linear(64, 8))
    bs.load_packed_(other, tmp_path / "packed.safetensors")
    assert isinstance(other[2], PackedLinear)
    assert torch.equal(other[2].to_linear().weight, masked[2].weight)
    x = torch.randn(3, 32)
    torch.testing.assert_close(other(x), masked(x))


def test_onnx_keeps_the_zeros_and_computes_the_same(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
    runtime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    packed, x = packed_model(), torch.randn(3, 32)
    dense = to_dense(packed).eval()
    torch.onnx.export(dense, (x,), str(tmp_path / "model.onnx"), dynamo=True, verbose=False)
    session = runtime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(output, packed(x).detach().numpy(), atol=1e-5)
    weights = [
        onnx.numpy_helper.to_array(t) for t in onnx.load(str(tmp_path / "model.onnx")).graph.initializer
    ]
    stored = next(weight for weight in weights if weight.shape == (64, 64))
    expected = dense[2].weight.detach().numpy()
    assert np.array_equal(stored, expected) or np.array_equal(stored.T, expected)
    assert np.count_nonzero(stored) == 64 * 64 // 2


def test_the_dense_file_is_what_every_reader_knows(tmp_path: Path) -> None:
    model = sparse_model()
    bs.save_packed(model, tmp_path / "packed.safetensors", durable=False)
    bs.unpack_file(tmp_path / "packed.safetensors", tmp_path / "dense.safetensors", durable=False)
    plain = load_file(tmp_path / "dense.safetensors")
    assert all(torch.equal(plain[name], tensor) for name, tensor in model.state_dict().items())
