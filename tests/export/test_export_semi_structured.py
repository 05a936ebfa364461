"""PyTorch's own 2:4 tensors: what fits is checked on any machine, what runs needs CUDA."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import bisparse as bs
from bisparse.export import to_dense, to_semi_structured
from bisparse.export.semi_structured import semi_structured_misfit


def model_24(dtype: torch.dtype = torch.float16) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 100)).to(dtype)
    with torch.no_grad():
        model[0].weight.masked_fill_(~bs.solve_mask(model[0].weight.float().abs(), "2:4").mask, 0)
    return model


def test_what_does_not_fit_is_said_with_rule_and_remedy() -> None:
    dense = torch.ones(128, 128, dtype=torch.float16)
    assert "a group of 4 holds 4 non-zeros; prune it first" in semi_structured_misfit(dense)
    assert semi_structured_misfit(model_24()[0].weight.detach()) == ""
    assert "type float64: convert it to one of" in semi_structured_misfit(dense.double())
    odd = semi_structured_misfit(torch.zeros(100, 130, dtype=torch.float16))
    assert "shape (100, 130): rows must be a multiple of" in odd
    assert "pad it with zeros to (" in odd


def test_without_a_gpu_the_error_says_so() -> None:
    with pytest.raises(RuntimeError, match="need a CUDA device, the model is on cpu"):
        to_semi_structured(model_24())
    with pytest.raises(ValueError, match=r"2\.weight: shape \(100, 128\)"):
        to_semi_structured(model_24(), targets="2")
    with pytest.raises(ValueError, match=r"0\.weight: type float64.*1 more"):
        to_semi_structured(model_24(torch.float64))
    with pytest.raises(ValueError, match="no linear layer"):
        to_semi_structured(nn.Sequential(nn.ReLU()))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="semi-structured tensors need a CUDA device")
def test_on_a_gpu_the_model_computes_the_same() -> None:
    model = model_24().cuda()
    sparse = to_semi_structured(model)
    x = torch.randn(64, 128, dtype=torch.float16, device="cuda")
    torch.testing.assert_close(sparse(x), model(x), atol=2e-2, rtol=2e-2)
    assert torch.equal(to_dense(sparse)[0].weight, model[0].weight)
