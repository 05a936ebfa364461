"""Sparse tensor cores: what is refused and why; forward and gradients against dense, with emulated kernels."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import semi_structured_emulation as emulation
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import bisparse as bs
from bisparse.kernels import semi_structured_ops as ops
from bisparse.kernels.semi_structured import complete_mask, pack_mask, semi_structured_linear
from bisparse.kernels.semi_structured_limits import BACKENDS, choose_backend, device_misfit, misfit, supports
from bisparse.kernels.semi_structured_linear import SemiStructuredLinear
from bisparse.pattern import NM, TransposableNM

BOTH, ROWS = TransposableNM(2, 4), NM(2, 4)
WAYS = [("cutlass", "2:4t"), ("cusparselt", "2:4t"), ("compress", "2:4t"), ("compress", "2:4")]


@pytest.fixture(scope="module", autouse=True)
def emulated() -> Iterator[None]:
    emulation.install()
    with torch.backends.mkldnn.flags(
        enabled=False
    ):  # its bfloat16 products end the process on some virtual machines
        yield


def masked_linear(
    pattern: str = "2:4t", dtype: torch.dtype = torch.bfloat16, bias: bool = True
) -> tuple[nn.Linear, Tensor]:
    torch.manual_seed(3)
    linear = nn.Linear(128, 256, bias=bias, dtype=dtype)
    mask = bs.solve_mask(linear.weight.detach(), pattern, magnitude=True).mask
    with torch.no_grad():
        linear.weight *= mask
    return linear, mask


def gradients(layer: nn.Module, x: Tensor) -> list[Tensor]:
    leaf = x.clone().requires_grad_()
    y = layer(leaf)
    y.backward(torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape))
    assert leaf.grad is not None
    found = [y.detach(), leaf.grad, *(p.grad for p in layer.parameters() if p.grad is not None)]
    for parameter in layer.parameters():
        parameter.grad = None
    return found


def close(ours: list[Tensor], theirs: list[Tensor], tolerance: float = 2e-2) -> bool:
    pairs = zip([a.detach() for a in ours], [b.detach() for b in theirs], strict=True)
    return all(float((a - b).float().norm()) <= tolerance * float(b.float().norm()) for a, b in pairs)


@pytest.mark.parametrize(("backend", "pattern"), WAYS)
@pytest.mark.parametrize("bias", [True, False])
def test_forward_and_every_gradient_are_the_dense_ones(backend: str, pattern: str, bias: bool) -> None:
    linear, _ = masked_linear(pattern, bias=bias)
    sparse = SemiStructuredLinear.from_linear(linear, pattern=pattern, backend=backend)
    x = torch.randn(3, 5, 128, dtype=torch.bfloat16)
    assert close(gradients(sparse, x), gradients(linear, x))


@pytest.mark.parametrize(("backend", "pattern"), WAYS)
def test_values_are_repacked_at_every_forward(backend: str, pattern: str) -> None:
    linear, mask = masked_linear(pattern)
    sparse = SemiStructuredLinear.from_linear(linear, mask, pattern=pattern, backend=backend)
    x = torch.randn(8, 128, dtype=torch.bfloat16)
    with torch.no_grad():
        linear.weight.copy_(torch.randn_like(linear.weight) * mask)
    assert close([sparse(x)], [linear(x)])


@pytest.mark.parametrize(("backend", "pattern"), WAYS)
def test_a_kept_entry_that_is_zero_keeps_its_place(backend: str, pattern: str) -> None:
    linear, mask = masked_linear(pattern)
    with torch.no_grad():
        linear.weight.zero_()
    sparse = SemiStructuredLinear.from_linear(linear, mask, pattern=pattern, backend=backend)
    with torch.no_grad():
        linear.weight.copy_(torch.randn_like(linear.weight) * mask)
    x = torch.randn(8, 128, dtype=torch.bfloat16)
    assert close([sparse(x)], [linear(x)])


@pytest.mark.parametrize(("backend", "pattern"), WAYS)
def test_a_new_mask_counts_from_the_refresh_on(backend: str, pattern: str) -> None:
    linear, old = masked_linear(pattern)
    sparse = SemiStructuredLinear.from_linear(linear, old, pattern=pattern, backend=backend)
    new = bs.solve_mask(torch.rand(256, 128), pattern).mask
    with torch.no_grad():
        linear.weight.copy_(torch.randn_like(linear.weight) * new)
    x = torch.randn(8, 128, dtype=torch.bfloat16)
    only_common = nn.functional.linear(x, linear.weight * old, linear.bias)
    assert close([sparse(x)], [only_common])
    assert close([sparse.refresh(new)(x)], [linear(x)])
    assert sparse.backend == backend


def test_autocast_multiplies_in_its_type_and_gives_gradients_in_the_parameters() -> None:
    linear, _ = masked_linear(dtype=torch.float32)
    sparse = SemiStructuredLinear.from_linear(linear, backend="cutlass")
    x = torch.randn(8, 128)
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = gradients(sparse, x), gradients(linear, x)
    assert [t.dtype for t in ours] == [t.dtype for t in theirs]
    assert ours[2].dtype == torch.float32
    assert close(ours, theirs)


@pytest.mark.parametrize("backend", ["cutlass", "cusparselt", "compress"])
def test_it_compiles_as_one_graph(backend: str) -> None:
    linear, _ = masked_linear()
    sparse = SemiStructuredLinear.from_linear(linear, backend=backend)
    compiled = torch.compile(sparse, backend="aot_eager", fullgraph=True)
    x = torch.randn(16, 128, dtype=torch.bfloat16)
    assert close(gradients(compiled, x), gradients(sparse, x), tolerance=0.0)


@pytest.mark.parametrize("backend", ["cutlass", "cusparselt"])
def test_fake_kernels_describe_the_real_ones(backend: str) -> None:
    linear, mask = masked_linear()
    packing = pack_mask(mask, torch.bfloat16, backend=backend)
    weight, x = linear.weight.detach(), torch.randn(16, 128, dtype=torch.bfloat16)
    tests = ("test_schema", "test_faketensor")
    if backend == "cutlass":
        torch.library.opcheck(ops.pattern, (mask.bfloat16(),), test_utils=tests)
    arguments = (weight, mask, packing.threads, backend)
    torch.library.opcheck(ops.values, arguments, test_utils=tests)
    packed, _ = ops.values(*arguments)
    torch.library.opcheck(ops.product, (x, packed, packing.meta, linear.bias, 256, backend), test_utils=tests)
    torch.library.opcheck(ops.compressed_product, (x, weight, mask, None, False), test_utils=tests)


def test_shapes_are_known_without_a_gpu() -> None:
    with FakeTensorMode():
        weight = torch.empty(256, 128, dtype=torch.float16, device="cuda")
        mask = torch.empty(256, 128, dtype=torch.bool, device="cuda")
        packing = pack_mask(mask, torch.float16, backend="cutlass")
        y = semi_structured_linear(torch.empty(7, 128, dtype=torch.float16, device="cuda"), weight, packing)
    assert y.shape == (7, 256)
    assert y.device.type == "cuda"
    assert packing.meta.shape == (256, 2, 4)
    assert packing.threads.numel() == 256 * 128 // 8


def test_the_layer_is_a_linear_layer_with_the_same_state() -> None:
    linear, _ = masked_linear()
    expected = {name: value.clone() for name, value in linear.state_dict().items()}
    sparse = SemiStructuredLinear.from_linear(linear.eval(), backend="cutlass")
    assert isinstance(sparse, nn.Linear)
    assert sparse.weight is linear.weight
    assert not sparse.training
    assert list(sparse.state_dict()) == list(expected)
    assert all(torch.equal(value, expected[name]) for name, value in sparse.state_dict().items())
    assert "2:4t" in repr(sparse)
    again = copy.deepcopy(sparse).to_linear()
    x = torch.randn(8, 128, dtype=torch.bfloat16)
    assert torch.equal(again(x), linear(x))


@pytest.mark.parametrize(
    ("shape", "dtype", "backend", "words"),
    [
        ((256, 128), torch.float16, "cutlass", None),
        ((256, 128), torch.bfloat16, "cusparselt", None),
        ((48, 16), torch.float16, "compress", None),
        ((256, 128), torch.float32, "cutlass", "type float32"),
        ((256, 96), torch.float16, "cutlass", "multiples of 64"),
        ((192, 128), torch.float16, "cusparselt", "multiples of 128"),
        ((24, 16), torch.float16, "compress", "multiples of 16"),
        ((0, 64), torch.float16, "cutlass", "positive"),
        ((2, 64, 64), torch.float16, "cutlass", "two dimensions"),
    ],
)
def test_limits_are_named(
    shape: tuple[int, ...], dtype: torch.dtype, backend: str, words: str | None
) -> None:
    reason = misfit(shape, dtype, backend)
    assert reason is None if words is None else words in str(reason)


def test_a_cpu_is_refused_with_the_remedy() -> None:
    linear, _ = masked_linear()
    assert "NVIDIA GPU" in str(supports(linear, 16))
    assert "no tokens" in str(supports(linear, 0))
    assert "type float32" in str(supports(linear.float(), 16))
    assert choose_backend((64, 64), torch.float16, torch.device("cpu"))[0] is None
    assert all(device_misfit(torch.device("cpu"), backend) for backend in BACKENDS)
    with pytest.raises(ValueError, match="stays dense"):
        SemiStructuredLinear.from_linear(masked_linear()[0])


def test_wrong_patterns_weights_and_types_are_refused() -> None:
    linear, _ = masked_linear()
    with pytest.raises(ValueError, match="know 2:4 and 2:4t only"):
        SemiStructuredLinear.from_linear(linear, pattern="4:8t", backend="cutlass")
    with pytest.raises(ValueError, match="know 2:4 and 2:4t only"):
        SemiStructuredLinear.from_linear(linear, pattern="unstructured:0.5", backend="cutlass")
    with pytest.raises(ValueError, match="do not fit into 2:4t"):
        SemiStructuredLinear.from_linear(nn.Linear(64, 64), backend="cutlass")
    with pytest.raises(ValueError, match="unknown backend"):
        misfit((64, 64), torch.float16, "magic")
    with pytest.raises(ValueError, match="multiples of 4"):
        SemiStructuredLinear.from_linear(nn.Linear(6, 8), backend="cutlass")
    sparse = SemiStructuredLinear.from_linear(linear, backend="cutlass")
    with pytest.raises(TypeError, match="autocast"):
        sparse(torch.randn(4, 128))
    with pytest.raises(RuntimeError, match="no mask is packed"):
        SemiStructuredLinear(linear, BOTH)(torch.randn(4, 128))


def test_missing_entries_are_filled_in_by_eye() -> None:
    # The last row lost both entries and the columns 2 and 3 one each: only they have room.
    kept = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0]]).bool()
    expected = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]).bool()
    assert torch.equal(complete_mask(kept, BOTH), expected)
    assert complete_mask(expected, BOTH) is expected
    assert torch.equal(complete_mask(kept, ROWS)[:3], kept[:3])
    assert complete_mask(kept, ROWS)[3].sum() == 2


def test_three_of_four_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"bisparse\.prune"):
        complete_mask(torch.tensor([[1, 1, 1, 0]]).bool(), ROWS)


needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 0),
    reason="needs an NVIDIA GPU with sparse tensor cores (capability 8.0); none is visible here",
)


@needs_gpu
@pytest.mark.parametrize(("backend", "pattern"), WAYS)
@pytest.mark.parametrize("tokens", [64, 61])
def test_on_a_gpu_products_and_gradients_are_the_dense_ones(backend: str, pattern: str, tokens: int) -> None:
    reason = device_misfit(torch.device("cuda"), backend)
    if reason:
        pytest.skip(reason)
    linear, _ = masked_linear(pattern)
    linear = linear.cuda()
    sparse = SemiStructuredLinear.from_linear(linear, pattern=pattern, backend=backend)
    x = torch.randn(tokens, 128, dtype=torch.bfloat16, device="cuda")
    up = torch.randn(tokens, 256, dtype=torch.bfloat16, device="cuda")
    for module in (sparse, torch.compile(sparse)):
        leaves = [x.clone().requires_grad_() for _ in range(2)]
        ours, theirs = module(leaves[0]), linear(leaves[1])
        of_ours = torch.autograd.grad(ours, [leaves[0], linear.weight, linear.bias], up)
        of_theirs = torch.autograd.grad(theirs, [leaves[1], linear.weight, linear.bias], up)
        assert close([ours, *of_ours], [theirs, *of_theirs])
