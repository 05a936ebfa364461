"""The truly sparse layer: equal to the masked dense one, in memory that follows the non-zeros."""

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
from bisparse.kernels.sparse_index import check_rows
from bisparse.nn import SparseLinear


def sparse(inputs: int = 30, outputs: int = 20, density: float = 0.2, **options: Any) -> SparseLinear:
    return SparseLinear(inputs, outputs, density=density, **options)


def dense_twin(layer: SparseLinear) -> tuple[nn.Linear, Tensor]:
    """The dense layer, and the mask of its connections."""
    linear = layer.to_linear()
    mask = torch.zeros_like(linear.weight, dtype=torch.bool)
    mask[layer.index.rows(), layer.col] = True
    return linear, mask


@pytest.mark.parametrize("shape", [(30,), (1, 30), (7, 30), (2, 3, 30), (0, 30), (2, 0, 30), (130, 30)])
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_equal_those_of_the_masked_dense_layer(
    shape: tuple[int, ...], bias: bool
) -> None:
    layer = sparse(bias=bias)
    linear, mask = dense_twin(layer)
    x = torch.randn(shape, requires_grad=True)
    grad = torch.randn(*shape[:-1], 20)
    torch.testing.assert_close(layer(x), linear(x))
    found = torch.autograd.grad(layer(x), [x, *layer.parameters()], grad)
    wanted = torch.autograd.grad(linear(x), [x, *linear.parameters()], grad)
    torch.testing.assert_close(found[0], wanted[0])
    torch.testing.assert_close(found[1], wanted[1][mask])
    assert len(found) == 2 + bias
    if bias:
        torch.testing.assert_close(found[2], wanted[2])


@pytest.mark.parametrize("shape", [(30,), (5, 30), (2, 5, 30)])
def test_activations_may_work_in_place(shape: tuple[int, ...]) -> None:
    layer, x = sparse(), torch.randn(shape)
    wanted = torch.autograd.grad(layer(x).relu().square().sum(), layer.values)[0]
    found = torch.autograd.grad(nn.Sequential(layer, nn.ReLU(inplace=True))(x).square().sum(), layer.values)[
        0
    ]
    assert found.equal(wanted)


def test_non_contiguous_inputs_and_gradients() -> None:
    layer = sparse()
    linear, mask = dense_twin(layer)
    x = torch.randn(30, 8).t().requires_grad_()
    found = torch.autograd.grad(layer(x).t().sum(), [x, layer.values])  # its gradient is expanded
    wanted = torch.autograd.grad(linear(x).sum(), [x, linear.weight])
    torch.testing.assert_close(found[0], wanted[0])
    torch.testing.assert_close(found[1], wanted[1][mask])


def test_gradients_of_both_orders_are_exact() -> None:
    layer = sparse(7, 5, 0.4, dtype=torch.float64)
    x = torch.randn(3, 7, dtype=torch.float64, requires_grad=True)

    def run(x: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"values": values, "bias": bias}, x)

    assert layer.bias is not None
    inputs = (x, layer.values, layer.bias)
    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs)


@pytest.mark.parametrize("make", [lambda p: torch.optim.SGD(p, 0.05, momentum=0.9), torch.optim.Adam])
def test_twenty_steps_equal_twenty_steps_on_a_fixed_mask(make: Callable[..., torch.optim.Optimizer]) -> None:
    layer = sparse(dtype=torch.float64)
    linear, mask = dense_twin(layer)
    linear = linear.double()
    x, target = torch.randn(16, 30, dtype=torch.float64), torch.randn(16, 20, dtype=torch.float64)
    for module in (layer, linear):
        optimizer = make(module.parameters())
        for _ in range(20):
            optimizer.zero_grad()
            nn.functional.mse_loss(module(x), target).backward()
            if module is linear:
                assert linear.weight.grad is not None
                linear.weight.grad.mul_(mask)
            optimizer.step()
    torch.testing.assert_close(layer.to_linear().weight, linear.weight * mask, rtol=1e-6, atol=1e-9)


class Sizes(TorchDispatchMode):
    """Notes the size of every tensor that any operator makes."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        leaves = [
            leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor) and leaf.layout == torch.strided
        ]
        self.largest = max([self.largest, *(leaf.numel() for leaf in leaves)])
        return result


def test_no_tensor_is_larger_than_the_non_zeros_ask_for() -> None:
    inputs, outputs = 3000, 2000
    with Sizes() as sizes:
        layer = SparseLinear(inputs, outputs, density=1e-3)
        optimizer = torch.optim.Adam(layer.parameters())
        x = torch.randn(2, inputs, requires_grad=True)
        for candidates in ("exact", 10):
            with bs.nn.GradientRecorder([layer]) as recorder:
                layer(x).square().sum().backward()
            optimizer.step()
            generator = torch.Generator().manual_seed(0)
            bs.nn.rigl_step_(
                layer, recorder, 0.3, candidates=candidates, generator=generator, optimizer=optimizer
            )
        bs.nn.set_step_(layer, generator=generator, optimizer=optimizer)
        bs.nn.prune_neurons_(layer, 0.1, optimizer=optimizer)
        layer.load_state_dict(layer.state_dict())
    assert sizes.largest <= 10 * (layer.nnz + inputs + outputs) < inputs * outputs / 10


def run_python(code: str) -> list[float]:
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [float(word) for word in run.stdout.split()]


def test_a_layer_of_200_000_by_200_000_trains_in_less_than_a_gigabyte() -> None:
    code = """
import re
from pathlib import Path
import torch
from bisparse.nn import SparseLinear, set_step_
layer = SparseLinear(200_000, 200_000, epsilon=2)
optimizer = torch.optim.SGD(layer.parameters(), 0.1, momentum=0.9)
x = torch.randn(4, 200_000, requires_grad=True)
layer(x).square().mean().backward()
optimizer.step()
set_step_(layer, generator=torch.Generator().manual_seed(0), optimizer=optimizer)
peak = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())  # ru_maxrss would count the parent's
print(layer.nnz, int(peak[1]) / 2**20)
"""
    nnz, gigabytes = run_python(code)
    assert nnz == 800_000
    assert gigabytes < 1


def test_the_memory_of_a_layer_is_that_of_its_connections() -> None:
    layer = sparse(1000, 500, 0.05)
    parts = [*layer.parameters(), *layer.buffers()]
    nbytes = sum(part.numel() * part.element_size() for part in parts)
    assert nbytes == 16 * layer.nnz + 4 * (1000 + 1 + 500 + 1) + 4 * 500


def test_the_count_is_exact_and_degrees_are_binomial() -> None:
    layer = SparseLinear(1000, 800, epsilon=20, seed=3)
    assert layer.nnz == 20 * 1800
    for starts, others in ((layer.crow, 1000), (layer.ccol, 800)):
        degrees = starts.diff().double()
        p = layer.nnz / 800_000
        deviation = (others * p * (1 - p)) ** 0.5
        assert (degrees - others * p).abs().max() < 6 * deviation
        assert 0.8 * deviation < degrees.std() < 1.2 * deviation
    assert SparseLinear(10, 5, epsilon=20).density == 1.0


def test_the_seed_decides() -> None:
    one, same, other = (sparse(seed=seed) for seed in (1, 1, 2))
    assert one.values.equal(same.values)
    assert one.index.keys().equal(same.index.keys())
    assert not one.index.keys().equal(other.index.keys())


def test_the_orders_agree() -> None:
    index = sparse(40, 25, 0.3).index
    row, col = index.rows(), index.col.long()
    assert row[index.perm.long()].equal(index.row_t.long())
    assert col[index.perm.long()].equal(col.sort(stable=True).values)
    assert index.ccol.diff().long().equal(torch.bincount(col, minlength=40))


def test_dense_layers_become_sparse_and_come_back() -> None:
    linear = nn.Linear(12, 9).eval()
    mask = torch.rand(9, 12) < 0.4
    linear.weight.data.mul_(mask)
    linear.weight.data[mask.nonzero()[0][0], mask.nonzero()[0][1]] = 0.0
    by_value, by_mask = SparseLinear.from_linear(linear), SparseLinear.from_linear(linear, mask)
    assert (by_value.nnz, by_mask.nnz) == (int(mask.sum()) - 1, int(mask.sum()))
    assert not by_value.training
    for layer in (by_value, by_mask):
        assert layer.to_linear().weight.equal(linear.weight)
    with pytest.raises(TypeError, match=r"nn\.Linear, got Conv2d"):
        SparseLinear.from_linear(nn.Conv2d(3, 3, 1))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"mask \(3, 3\) does not fit"):
        SparseLinear.from_linear(linear, mask[:3, :3])
    with pytest.raises(ValueError, match=r"takes 37\.3 GiB: keep it sparse"):
        SparseLinear(100_000, 100_000, epsilon=1).to_linear()


def test_a_state_dict_brings_other_connections() -> None:
    layer, other = sparse(seed=1), sparse(density=0.3, seed=2)
    identity = other.values
    optimizer = torch.optim.SGD(other.parameters(), 0.1)
    kept = other(torch.ones(30)).sum()  # a graph that knows the old number of connections
    kept.backward()
    other.load_state_dict(layer.state_dict())
    x = torch.randn(3, 30)
    assert other(x).equal(layer(x))
    assert other.values is identity
    assert other.row_t.equal(layer.row_t)
    other(x).sum().backward()
    optimizer.step()
    assert not other.values.equal(layer.values)


@pytest.mark.parametrize(
    ("name", "place", "value", "message"),
    [("col", 0, 30, "not in 0 to 29"), ("col", 1, 0, "increase within"), ("crow", 1, -1, "grow from 0")],
)
def test_damaged_indices_are_refused(name: str, place: int, value: int, message: str) -> None:
    state = sparse(density=0.5).state_dict()
    state[name] = state[name].clone()
    state[name][place] = value
    with pytest.raises(RuntimeError, match=message):
        sparse().load_state_dict(state)


@pytest.mark.parametrize("missing", ["crow", "col", "values"])
def test_half_an_index_is_refused_even_where_keys_may_miss(missing: str) -> None:
    layer = sparse()
    state = {name: part for name, part in layer.state_dict().items() if name != missing}
    with pytest.raises(RuntimeError, match="load all three, or values alone"):
        layer.load_state_dict(state, strict=False)
    layer.load_state_dict({"values": torch.ones(layer.nnz)}, strict=False)
    assert bool((layer.values == 1).all())


def test_row_starts_that_wrap_around_are_refused() -> None:
    crow = torch.tensor([0, 2**31 - 1, -2, 0], dtype=torch.int32)
    with pytest.raises(ValueError, match="grow from 0"):
        check_rows(crow, torch.empty(0, dtype=torch.int32), 5)


@pytest.mark.parametrize("learns", [False, True])
def test_forward_mode_is_refused_and_not_taken_for_zero(learns: bool) -> None:
    layer, x = sparse(), torch.randn(4, 30)
    values = layer.values.detach()
    refusal = pytest.raises(
        NotImplementedError, match=r"SparseLinear has no forward-mode derivative.*to_linear"
    )
    with torch.set_grad_enabled(learns):
        with refusal:
            torch.func.jvp(layer, (x,), (x,))
        with refusal:
            torch.func.jacfwd(layer)(x)
        with refusal:
            torch.func.jvp(
                lambda v: torch.func.functional_call(layer, {"values": v}, x), (values,), (values,)
            )
        with forward_ad.dual_level():
            assert layer(x).shape == (4, 20)
            with refusal:
                layer(forward_ad.make_dual(x, x))


def _around(inner: Callable[[Callable[[Tensor], Tensor]], Tensor]) -> Callable[[SparseLinear, Tensor], Any]:
    """A derivative along the layer's input, taken around a transform of a scale that its output is multiplied with."""
    return lambda layer, x: torch.func.jvp(lambda x: inner(lambda scale: layer(x) * scale), (x,), (x,))


ONE = torch.tensor(1.0)
NESTED: dict[str, Callable[[SparseLinear, Tensor], Any]] = {
    "jvp of jvp": _around(lambda scaled: torch.func.jvp(scaled, (ONE,), (ONE,))[1]),
    "jvp of grad": _around(lambda scaled: torch.func.grad(lambda scale: scaled(scale).sum())(ONE)),
    "jvp of functionalize": _around(lambda scaled: torch.func.functionalize(scaled)(ONE)),
    "jvp of vmap": lambda layer, x: torch.func.jvp(torch.func.vmap(layer), (x,), (x,)),
    "vmap of jvp": lambda layer, x: torch.func.vmap(lambda v: torch.func.jvp(layer, (v,), (v,)))(x),
}


@pytest.mark.parametrize("way", NESTED)
def test_nested_forward_mode_is_refused(way: str) -> None:
    layer = sparse().requires_grad_(False)
    with pytest.raises(NotImplementedError, match="no forward-mode derivative"):
        NESTED[way](layer, torch.randn(4, 30))


def test_derivatives_along_other_things_are_not_refused() -> None:
    layer, x = sparse().requires_grad_(False), torch.randn(4, 30)

    def twice(scale: Tensor) -> Tensor:
        return torch.func.jvp(lambda other: layer(x.relu()) * scale * other, (ONE,), (ONE,))[1]  # type: ignore[no-any-return]

    torch.testing.assert_close(torch.func.jvp(twice, (ONE,), (ONE,))[1], layer(x.relu()))
    each = torch.func.vmap(lambda v: torch.func.jvp(lambda scale: layer(v) * scale, (ONE,), (ONE,))[1])(x)
    torch.testing.assert_close(each, layer(x))


def test_a_tangent_that_comes_with_the_gradient_is_refused() -> None:
    layer, x = sparse(), torch.randn(4, 30, requires_grad=True)
    y = layer(x)
    (of_x,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    of_values = torch.autograd.grad(layer(x).square().sum(), layer.values, create_graph=True)[0]
    with forward_ad.dual_level():
        for output, wanted in ((y, x), (of_x, layer.values), (of_values, x)):
            dual = forward_ad.make_dual(torch.ones_like(output), torch.ones_like(output))
            with pytest.raises(NotImplementedError, match="no forward-mode derivative"):
                torch.autograd.grad(output, wanted, dual, retain_graph=True)


def test_the_gradient_of_inputs_too_narrow_is_refused() -> None:
    layer = sparse()
    with pytest.raises(ValueError, match="does not end in the matrix's 30 columns"):
        torch.ops.bisparse.sparse_gradient(
            torch.ones(2, 20), torch.ones(2, 5), layer.values.detach(), *layer.index.parts
        )


@pytest.mark.parametrize("way", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_compute_the_same(way: Callable[[SparseLinear], SparseLinear]) -> None:
    layer = sparse()
    other = way(layer)
    x = torch.randn(4, 30)
    assert other(x).equal(layer(x))
    assert other.values.data_ptr() != layer.values.data_ptr()
    assert str(other) == str(layer)


def test_it_compiles_in_one_graph_with_gradients() -> None:
    layer = sparse()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    x = torch.randn(4, 30)
    assert compiled(x).equal(layer(x))
    found = torch.autograd.grad(compiled(x).square().sum(), layer.values)[0]
    torch.testing.assert_close(found, torch.autograd.grad(layer(x).square().sum(), layer.values)[0])


def test_low_precision_and_autocast_keep_the_dtypes_that_dense_layers_have() -> None:
    layer = sparse(dtype=torch.bfloat16)
    linear, mask = dense_twin(layer)
    x = torch.randn(4, 30).bfloat16().requires_grad_()
    y = layer(x)
    assert y.dtype == torch.bfloat16
    wanted = nn.functional.linear(x.double(), linear.weight.double())
    torch.testing.assert_close(y.double(), wanted, rtol=1e-2, atol=1e-2)
    of_x, of_values = torch.autograd.grad(y.sum(), [x, layer.values])
    assert of_x.dtype == of_values.dtype == torch.bfloat16
    column = torch.zeros_like(linear.weight, dtype=torch.float64) + x.detach().double().sum(0)
    torch.testing.assert_close(of_values.double(), column[mask], rtol=1e-2, atol=1e-2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer.float()(x.float()).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SparseLinear(3, 4), "either density="),
        (lambda: SparseLinear(3, 4, density=0.5, epsilon=1), "either density="),
        (lambda: SparseLinear(3, 4, density=1.5), "between 0 and 1"),
        (lambda: SparseLinear(3, 4, epsilon=-1), "not be negative"),
        (lambda: SparseLinear(0, 4, density=0.5), "at least 1"),
        (lambda: SparseLinear(3, 4, density=0.5, init="he"), "choose one of"),  # type: ignore[arg-type]
        (lambda: sparse()(torch.zeros(2, 29)), "does not end in the 30 features"),
        (lambda: sparse()(torch.zeros(2, 30).half()), r"bfloat16\) or \.float"),
        (lambda: sparse()(torch.zeros(2, 30).double()), "convert one"),
    ],
)
def test_what_cannot_work_is_refused_with_the_rule(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_operators_are_registered_rightly() -> None:
    layer = sparse()
    x, y = torch.randn(3, 30, requires_grad=True), torch.randn(3, 20, requires_grad=True)
    parts = layer.index.parts
    calls: dict[Any, tuple[Any, ...]] = {
        torch.ops.bisparse.sparse_linear.default: (x, layer.values, layer.bias, *parts),
        torch.ops.bisparse.sparse_transposed.default: (y, layer.values, *parts),
        torch.ops.bisparse.sparse_gradient.default: (y, x, layer.values, *parts),
    }
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    for operator, arguments in calls.items():
        outcome = torch.library.opcheck(operator, arguments, test_utils=checks)
        assert set(outcome.values()) == {"SUCCESS"}


def test_layers_without_memory_weights_or_zeros() -> None:
    with torch.device("meta"):
        layer = sparse()
        assert layer(torch.empty(3, 30)).shape == (3, 20)
    layer = sparse(density=0.0)
    x = torch.randn(3, 30, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert y.eq(0).all()
    assert x.grad is not None
    assert x.grad.eq(0).all()
    layer = sparse(density=1.0)
    torch.testing.assert_close(layer(x), layer.to_linear()(x))


def test_a_state_dict_may_be_assigned() -> None:
    layer, other = sparse(seed=1), sparse(density=0.3, seed=2)
    other.load_state_dict(layer.state_dict(), assign=True)
    x = torch.randn(3, 30)
    assert other(x).equal(layer(x))
    with torch.device("meta"):
        empty = sparse(density=0.3)
    empty.load_state_dict(layer.state_dict(), assign=True)
    assert empty(x).equal(layer(x))
    with pytest.raises(RuntimeError, match="20 rows and 119 values"):
        other.load_state_dict({**layer.state_dict(), "values": layer.values[1:]})
