from __future__ import annotations

import pytest
import torch
from tests.kernel_theory.networks import problem, three_layer, two_layer
from torch import Tensor, nn

from bisparse.compress.prune import prune, prune_
from bisparse.kernel_theory import gradient_kernel, jacobian_scores, kernel_report, mask_quality
from bisparse.masks.solve import solve_mask
from bisparse.nn import PackedConv2d, PackedLinear, SparseLinear
from bisparse.report import render, to_json


def test_scores_of_a_linear_map_can_be_checked_by_eye() -> None:
    model = nn.Linear(4, 2, bias=False)
    model.weight.data = torch.tensor([[1.0, 2.0, 3.0, 4.0], [0.0, 1.0, 0.0, 1.0]])
    X = torch.tensor([[1.0, 0.0, 2.0, 0.0], [0.0, 3.0, 1.0, 0.0]])
    # J_ij = x_j for output i: |J_ij|² = sum of x_j² over the examples
    assert jacobian_scores(model, X)["weight"].tolist() == [[1.0, 9.0, 5.0, 0.0]] * 2
    saliency = jacobian_scores(model, X, kind="saliency")["weight"]
    assert saliency.tolist() == [[1.0, 36.0, 45.0, 0.0], [0.0, 9.0, 0.0, 0.0]]
    labels = jacobian_scores(model, X, torch.tensor([[1.0, 0.0], [1.0, -1.0]]), kind="labels")["weight"]
    assert labels.tolist() == [[1.0, 9.0, 9.0, 0.0], [0.0, 9.0, 1.0, 0.0]]


@pytest.mark.parametrize("memory", [2**29, 6000])
def test_scores_sum_to_the_trace_of_the_kernel(memory: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5, bias=False), nn.Tanh(),
        nn.Linear(5, 3, bias=False),
    )  # fmt: skip
    X = torch.randn(6, 2, 4, 4)
    scores = jacobian_scores(model, X, memory=memory, dtype=torch.float64)
    trace = float(gradient_kernel(model, X, dtype=torch.float64).trace())
    assert sum(float(s.sum()) for s in scores.values()) == pytest.approx(trace, rel=1e-5)
    assert {name: s.shape for name, s in scores.items()} == {n: p.shape for n, p in model.named_parameters()}


def test_the_exact_mask_keeps_the_largest_trace_of_a_linear_map() -> None:
    X, _, _ = problem(12, 8)
    model = nn.Linear(8, 8, bias=False).double()
    best = solve_mask(jacobian_scores(model, X)["weight"], "2:4").mask
    other = solve_mask(torch.rand(8, 8, generator=torch.Generator().manual_seed(0)), "2:4").mask
    traces = [float(gradient_kernel(model, X, masks={"weight": mask}).trace()) for mask in (best, other)]
    assert traces[0] > traces[1]


def test_scores_prune_a_model() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))
    X = torch.randn(20, 16)
    pruned = prune(model, "2:4t", scores=jacobian_scores(model, X), reconstruct="none").model
    mask = pruned[0].weight != 0
    expected = solve_mask(jacobian_scores(model, X)["0.weight"], "2:4t")
    assert torch.equal(mask, expected.mask)


def half() -> tuple[nn.Module, dict[str, Tensor], Tensor, Tensor]:
    X, y, _ = problem(30, 4)
    model = two_layer(4, 16)
    return model, {"0.weight": solve_mask(model[0].weight.detach().abs(), "2:4t").mask}, X, y


def test_mask_quality_is_what_the_report_says() -> None:
    model, masks, X, y = half()
    quality = mask_quality(model, masks, X, y)
    report = kernel_report(model, X, y, masks=masks)
    assert (quality.kept, quality.density) == (32, 0.5)
    assert (quality.rank, quality.size) == (report.K.rank, 30)
    assert quality.y_outside == pytest.approx(report.K.y_outside)
    assert quality.alignment == pytest.approx(report.K.alignment)
    size = model[0].weight.detach().abs()
    assert quality.kept_magnitude == pytest.approx(float((size * masks["0.weight"]).sum() / size.sum()))
    model[0].weight.data *= masks["0.weight"]
    kernels = [gradient_kernel(model, X, masks=m) for m in (masks, None)]
    assert quality.kept_trace == pytest.approx(float(kernels[0].trace() / kernels[1].trace()))
    K = kernels[0]
    ridge = 0.01 * float(K.trace()) / 30
    left = y - K @ torch.linalg.solve(K + ridge * torch.eye(30), y)
    assert quality.y_left == pytest.approx(float(left.square().sum() / y.square().sum()))


def test_masks_that_keep_all_or_nothing() -> None:
    model, masks, X, y = half()
    everything = mask_quality(model, {"0": torch.ones(16, 4)}, X, y)
    assert (everything.kept_magnitude, everything.kept_trace) == (1.0, pytest.approx(1.0))
    some = mask_quality(model, masks, X, y)
    nothing = mask_quality(model, {"0": torch.zeros(16, 4)}, X, y)
    assert everything.rank >= some.rank > nothing.rank == 0
    assert everything.y_left < some.y_left < nothing.y_left == 1.0
    assert "y_left" in "\n".join(render(some.to_table()))
    assert '"alignment"' in to_json(some)


def test_several_outputs_in_full_and_summed() -> None:
    X, _, _ = problem(12, 4)
    model = three_layer(outputs=3)
    masks = {"2": solve_mask(model[2].weight.detach().abs(), "2:4").mask}
    full, trace = (mask_quality(model, masks, X, torch.arange(12) % 3, outputs=o) for o in ("full", "trace"))
    assert (full.size, trace.size) == (36, 12)
    assert full.alignment == pytest.approx(trace.alignment)
    assert full.kept_trace == pytest.approx(trace.kept_trace)


def test_refusals() -> None:
    model, masks, X, y = half()
    with pytest.raises(ValueError, match="empty"):
        mask_quality(model, {}, X, y)
    with pytest.raises(ValueError, match="'full' or 'trace'"):
        mask_quality(model, masks, X, y, outputs=0)
    with pytest.raises(ValueError, match="kind"):
        jacobian_scores(model, X, kind="fisher")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="pass y"):
        jacobian_scores(model, X, kind="labels")


def test_packed_layers_count_by_their_kept_entries() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(8, 16)
    linear.weight.data *= solve_mask(linear.weight.detach().abs(), "2:4t").mask
    dense = nn.Sequential(linear, nn.ReLU(), nn.Linear(16, 3))
    packed = nn.Sequential(PackedLinear.from_linear(linear, "2:4t"), nn.ReLU(), dense[2])
    X = torch.randn(10, 8)
    expected = gradient_kernel(dense, X, masks="zeros", dtype=torch.float64)
    torch.testing.assert_close(gradient_kernel(packed, X, dtype=torch.float64), expected)
    report = kernel_report(packed, X, torch.arange(10) % 3)
    assert report.kept == report.parameters - 64
    assert "1 sparse layer" in " ".join(report.notes)


def test_packed_convolutions_and_sparse_layers_too() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 8, 3)
    prune_(conv, "2:4", ignore=[])
    head = nn.Linear(32, 2)
    dense = nn.Sequential(conv, nn.Flatten(), head)
    packed = nn.Sequential(PackedConv2d.from_conv(conv, "2:4"), nn.Flatten(), head)
    X = torch.randn(5, 8, 4, 4)
    expected = gradient_kernel(dense, X, masks="zeros", dtype=torch.float64)
    torch.testing.assert_close(gradient_kernel(packed, X, dtype=torch.float64), expected)
    sparse = nn.Sequential(SparseLinear(16, 8, density=0.25), nn.ReLU(), nn.Linear(8, 3))
    report = kernel_report(sparse, torch.randn(6, 16), torch.arange(6) % 3)
    assert report.kept == 16 * 8 // 4 + 8 + 27
    assert report.K.name == "K_M"
