"""The packed layer: the same function as the masked dense one, in half the memory, and never dense."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import bisparse as bs
from bisparse.kernels import pack_matrix
from bisparse.nn import PackedLinear
from bisparse.nn.find_pattern import find_pattern


def masked_linear(rows: int, columns: int, pattern: str, *, bias: bool = True) -> nn.Linear:
    torch.manual_seed(rows)
    linear = nn.Linear(columns, rows, bias)
    with torch.no_grad():
        linear.weight.mul_(bs.solve_mask(linear.weight.detach().abs(), pattern).mask)
    return linear


@pytest.mark.parametrize("pattern", ["2:4", "4:8t", "1:4", "8:16t"])
@pytest.mark.parametrize("bias", [True, False])
def test_it_computes_and_learns_what_the_masked_layer_does(pattern: str, bias: bool) -> None:
    linear = masked_linear(40, 72, pattern, bias=bias)
    packed = PackedLinear.from_linear(linear, pattern)
    x = torch.randn(2, 5, 72, requires_grad=True)
    grad = torch.randn(2, 5, 40)
    torch.testing.assert_close(packed(x), linear(x))
    found = torch.autograd.grad(packed(x), [x, *packed.parameters()], grad)
    wanted = torch.autograd.grad(linear(x), [x, *linear.parameters()], grad)
    torch.testing.assert_close(found[0], wanted[0])
    mask = linear.weight != 0
    torch.testing.assert_close(found[1], pack_matrix(wanted[1], pattern, mask).values)
    assert len(found) == len(wanted) == 2 + bias
    if bias:
        torch.testing.assert_close(found[2], wanted[2])


def test_training_it_is_training_on_a_fixed_mask() -> None:
    linear = masked_linear(24, 32, "2:4")
    mask = linear.weight.detach() != 0
    packed = PackedLinear.from_linear(linear, "2:4")
    x, target = torch.randn(16, 32), torch.randn(16, 24)
    for layer in (linear, packed):
        optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-2)
        for _ in range(5):
            optimizer.zero_grad()
            nn.functional.mse_loss(layer(x), target).backward()  # type: ignore[no-untyped-call]
            if layer is linear:
                assert linear.weight.grad is not None
                linear.weight.grad.mul_(mask)
            optimizer.step()
    torch.testing.assert_close(packed.to_linear().weight, linear.weight * mask, rtol=1e-4, atol=1e-5)


class Shapes(TorchDispatchMode):
    """Notes the size of every tensor that any operator makes."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.largest = max(self.largest, leaf.numel())
        return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("batch", [1, 3, 40, 100])
def test_no_tensor_of_the_dense_shape_exists_in_either_pass(batch: int, dtype: torch.dtype) -> None:
    rows, columns = 128, 256
    packed = PackedLinear.from_linear(masked_linear(rows, columns, "4:8t").to(dtype), "4:8t")
    x = torch.randn(batch, columns, requires_grad=True, dtype=dtype)
    with Shapes() as shapes:
        packed(x).sum().backward()
    assert packed.values.grad is not None
    assert x.grad is not None
    assert shapes.largest == max(rows * columns // 2, batch * columns)


def test_half_the_memory_is_really_given_back() -> None:
    code = """
import psutil, torch
from bisparse.nn import PackedLinear
from torch import nn

def resident():
    return psutil.Process().memory_info().rss / 2**20

torch.set_num_threads(1)
PackedLinear.from_linear(nn.Linear(8, 8).requires_grad_(False).apply(lambda m: m.weight.zero_()), "2:4")
before = resident()
layers = nn.Sequential(*(nn.Linear(2048, 2048, bias=False) for _ in range(6)))  # 96 MiB
for layer in layers:
    layer.weight.data.view(-1, 2)[:, 1] = 0.0
dense = resident() - before
for number in range(len(layers)):
    layers[number] = PackedLinear.from_linear(layers[number], "2:4")
del layer
print(dense, resident() - before)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    dense, packed = map(float, run.stdout.split())
    assert dense > 90
    assert packed < 0.6 * dense


def test_the_state_dict_is_the_packed_form_and_comes_back() -> None:
    packed = PackedLinear.from_linear(masked_linear(40, 72, "4:8"), "4:8")
    state = packed.state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == {
        "values": (40, 36),
        "index": (40, 12),
        "bias": (40,),
    }
    other = PackedLinear(72, 40, "4:8")
    assert other.to_linear().weight.eq(0).all()
    other.load_state_dict(state)
    x = torch.randn(4, 72)
    assert other(x).equal(packed(x))


def test_free_slots_are_saved_and_stay_zero() -> None:
    linear = masked_linear(8, 16, "1:4")
    packed = PackedLinear.from_linear(linear, "2:4")
    assert packed.free is not None
    other = PackedLinear(16, 8, "2:4")
    other.load_state_dict(packed.state_dict())
    other(torch.randn(4, 16)).square().sum().backward()
    torch.optim.SGD(other.parameters(), lr=0.1).step()
    assert other.to_linear().weight.ne(0).eq(linear.weight.ne(0)).all()
    plain = PackedLinear.from_linear(masked_linear(8, 16, "2:4"), "2:4")
    other.load_state_dict(plain.state_dict())
    assert other.free is None


def test_a_damaged_index_is_refused() -> None:
    packed = PackedLinear.from_linear(masked_linear(40, 72, "4:8"), "4:8")
    state = packed.state_dict()
    state["index"] = torch.full_like(state["index"], 255)
    with pytest.raises(RuntimeError, match="row 0 of the index"):
        PackedLinear(72, 40, "4:8").load_state_dict(state)


@pytest.mark.parametrize("way", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_compute_the_same(way: Callable[[PackedLinear], PackedLinear]) -> None:
    packed = PackedLinear.from_linear(masked_linear(40, 72, "4:8t"))
    other = way(packed)
    x = torch.randn(4, 72)
    assert other(x).equal(packed(x))
    assert other.values.data_ptr() != packed.values.data_ptr()
    assert str(other) == str(packed)


def test_a_mode_sees_the_operator_also_without_gradients() -> None:
    packed = PackedLinear.from_linear(masked_linear(40, 72, "4:8"))
    x = torch.randn(4, 72)
    with torch.no_grad():
        alone = packed(x)
        with Shapes() as shapes:
            watched = packed(x)
    assert alone.equal(watched)
    assert shapes.largest == 4 * 40


@pytest.mark.parametrize("learns", [False, True])
def test_transforms_see_the_operator(learns: bool) -> None:
    """Their tensors have no memory to hand to the core; the same goes for the meta device."""
    linear = masked_linear(40, 72, "4:8")
    packed, x = PackedLinear.from_linear(linear), torch.randn(4, 72)
    with torch.set_grad_enabled(learns):
        torch.testing.assert_close(torch.func.vmap(packed)(x), linear(x))
        assert packed.to("meta")(x.to("meta")).shape == (4, 40)


@pytest.mark.parametrize("shape", [(72,), (5, 72), (2, 5, 72)])
def test_activations_may_work_in_place(shape: tuple[int, ...]) -> None:
    packed, x = PackedLinear.from_linear(masked_linear(40, 72, "4:8")), torch.randn(shape)
    wanted = torch.autograd.grad(packed(x).relu().square().sum(), packed.values)[0]
    found = torch.autograd.grad(
        torch.nn.Sequential(packed, torch.nn.ReLU(inplace=True))(x).square().sum(), packed.values
    )
    assert found[0].equal(wanted)


@pytest.mark.parametrize("learns", [False, True])
def test_forward_mode_is_refused_and_not_taken_for_zero(learns: bool) -> None:
    packed, x = PackedLinear.from_linear(masked_linear(40, 72, "4:8")), torch.randn(4, 72)
    one = torch.tensor(1.0)
    refusal = pytest.raises(NotImplementedError, match=r"no forward-mode derivative.*to_dense")
    with torch.set_grad_enabled(learns):
        with refusal:
            torch.func.jvp(packed, (x,), (x,))
        with refusal:
            torch.func.jacfwd(packed)(x)
        with forward_ad.dual_level():
            assert packed(x).shape == (4, 40)
            with refusal:
                packed(forward_ad.make_dual(x, x))
        with refusal:  # a tangent of the derivative around
            torch.func.jvp(lambda x: torch.func.jvp(lambda a: packed(x) * a, (one,), (one,))[1], (x,), (x,))


def test_a_tangent_that_comes_with_the_gradient_is_refused() -> None:
    packed, x = PackedLinear.from_linear(masked_linear(40, 72, "4:8")), torch.randn(4, 72, requires_grad=True)
    y = packed(x)
    with (
        forward_ad.dual_level(),
        pytest.raises(NotImplementedError, match=r"no forward-mode derivative.*to_dense"),
    ):
        torch.autograd.grad(y, x, forward_ad.make_dual(torch.ones_like(y), torch.ones_like(y)))


def test_it_compiles_in_one_graph_with_gradients() -> None:
    packed = PackedLinear.from_linear(masked_linear(40, 72, "4:8t"))
    compiled = torch.compile(packed, backend="aot_eager", fullgraph=True)
    x = torch.randn(4, 72)
    assert compiled(x).equal(packed(x))
    found = torch.autograd.grad(compiled(x).square().sum(), packed.values)[0]
    assert found.equal(torch.autograd.grad(packed(x).square().sum(), packed.values)[0])


def test_bfloat16_and_autocast_keep_the_dtypes_that_dense_layers_have() -> None:
    linear = masked_linear(40, 72, "4:8").bfloat16()
    packed = PackedLinear.from_linear(linear, "4:8")
    x = torch.randn(4, 72)
    assert packed.values.dtype == packed(x.bfloat16()).dtype == torch.bfloat16
    wanted = x.bfloat16().double() @ linear.weight.double().T + linear.bias.double()
    torch.testing.assert_close(packed(x.bfloat16()).double(), wanted, rtol=1e-2, atol=1e-2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert packed.float()(x).dtype == torch.bfloat16


def test_frozen_parameters_stay_frozen_and_modes_stay() -> None:
    linear = masked_linear(8, 16, "2:4").eval()
    linear.weight.requires_grad_(False)
    packed = PackedLinear.from_linear(linear)
    assert not packed.values.requires_grad
    assert packed.bias is not None
    assert packed.bias.requires_grad
    assert not packed.training
    assert packed.to_linear().weight.equal(linear.weight)


def test_the_pattern_is_found_where_none_is_named() -> None:
    for pattern, found in [
        ("2:4", "2:4"),
        ("4:8t", "4:8"),
        ("1:4", "1:4"),
        ("8:16", "8:16"),
        ("2:8t", "2:8"),
    ]:
        assert str(PackedLinear.from_linear(masked_linear(64, 128, pattern)).pattern) == found
    with pytest.raises(ValueError, match=r"8 x 8 weight is not N:M sparse: .* 4 of 4"):
        find_pattern(torch.ones(8, 8))


class Conv1D(nn.Module):
    """The layout of ``transformers``' layer of that name."""

    def __init__(self, outputs: int, inputs: int) -> None:
        super().__init__()
        self.nf = outputs
        self.weight = nn.Parameter(torch.randn(inputs, outputs))
        self.bias = nn.Parameter(torch.randn(outputs))


def test_transposed_weights_are_packed_along_their_inputs() -> None:
    layer = Conv1D(24, 32)
    layer.weight.data *= bs.solve_mask(layer.weight.detach().abs().t(), "2:4").mask.t()
    x = torch.randn(5, 32)
    torch.testing.assert_close(PackedLinear.from_linear(layer, "2:4")(x), x @ layer.weight + layer.bias)


@pytest.mark.parametrize(
    ("layer", "pattern", "error", "message"),
    [
        (nn.Conv2d(4, 4, 1), "2:4", TypeError, "takes a linear layer, got Conv2d"),
        (nn.Linear(8, 4, device="meta"), "2:4", TypeError, "meta device"),
        (nn.Linear(8, 4), "2:4", ValueError, r"4 x 8 weight does not obey 2:4: row 0, columns 0 to 3"),
        (nn.Linear(8, 4), "unstructured:0.5", ValueError, "keep:block"),
    ],
)
def test_what_cannot_be_packed_is_refused(
    layer: nn.Module, pattern: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        PackedLinear.from_linear(layer, pattern)


def test_float16_inputs_are_refused_with_a_remedy() -> None:
    packed = PackedLinear.from_linear(masked_linear(8, 16, "2:4"))
    with pytest.raises(ValueError, match="bfloat16"):
        packed(torch.zeros(1, 16, dtype=torch.float16))
