"""Batch norm after pruning: statistics that are re-estimated only where that helps, and folding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from bisparse.compress.inputs import flat_samples

__all__ = ["BatchNorm", "NormTrial", "batch_norms", "fold_batch_norm_", "real_positions", "trial_statistics"]

BatchNorm: TypeAlias = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d
_Foldable: TypeAlias = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear


class NormTrial:
    """Running statistics tried on one batch norm.

    Attributes:
        mean, variance: (C,), re-estimated on the samples for fitting.
        error_old, error_new: squared error on held-out samples against what the dense network's batch norm
        returns.
    """

    __slots__ = ("error_new", "error_old", "mean", "variance")

    def __init__(self, mean: Tensor, variance: Tensor, error_old: float, error_new: float) -> None:
        self.mean, self.variance = mean, variance
        self.error_old, self.error_new = error_old, error_new

    @property
    def helps(self) -> bool:
        """Whether the new statistics come closer to the dense network on held-out samples."""
        return self.error_new < self.error_old


def batch_norms(model: nn.Module) -> dict[str, BatchNorm]:
    """All batch norms of a model that keep running statistics, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, BatchNorm) and module.running_mean is not None
    }


def _normalised(norm: BatchNorm, inputs: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    return nn.functional.batch_norm(inputs, mean, variance, norm.weight, norm.bias, False, 0.0, norm.eps)


def _moments(batches: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and variance per channel of (n, C, ...) batches, in float64."""
    flat = [x.double().transpose(0, 1).flatten(1) for x in batches]
    count = max(sum(x.shape[1] for x in flat), 1)
    mean = torch.stack([x.sum(1) for x in flat]).sum(0) / count
    variance = torch.stack([(x - mean[:, None]).square().sum(1) for x in flat]).sum(0) / count
    return mean, variance


def real_positions(inputs: Tensor, valid: Tensor | None) -> Tensor:
    """(n, C, ...) inputs of a batch norm without padding: (tokens, C) where they have ``valid``'s token axis."""
    if valid is None or inputs.dim() > 3:
        return inputs
    return flat_samples(inputs if inputs.dim() == 2 else inputs.movedim(1, -1), valid).reshape(
        -1, inputs.shape[1]
    )


@torch.no_grad()
def trial_statistics(
    norm: BatchNorm, inputs: Sequence[Tensor], dense_inputs: Sequence[Tensor], held_out: float = 0.25
) -> NormTrial:
    """Re-estimate running statistics on some samples, and compare both on the others.

    The new statistics give the pruned network's normalised outputs the mean and variance that the dense
    network's have on the same samples. (Where the running statistics are those of the calibration data, this
    is plain re-estimation; where they are not, for a small or shifted sample, plain re-estimation would undo
    what the dense network makes of the difference.)

    Re-estimation can hurt: after least squares the variance of a layer's output is smaller than the dense one
    for good reason, and scaling it up again amplifies the error.

    Args:
        norm: a batch norm that holds the dense network's statistics.
        inputs: its inputs (n, C, ...) in the pruned network, by batch.
        dense_inputs: its inputs in the dense network, for the same samples.
        held_out: share of the samples, at the end of every batch, that decide.
    """
    assert norm.running_mean is not None
    assert norm.running_var is not None
    old_mean, old_variance = norm.running_mean, norm.running_var
    cuts = [len(x) - round(held_out * len(x)) if len(x) > 1 else len(x) for x in inputs]
    mean_x, variance_x = _moments([x[:cut] for x, cut in zip(inputs, cuts, strict=True)])
    mean_y, variance_y = _moments([y[:cut] for y, cut in zip(dense_inputs, cuts, strict=True)])
    scale = torch.where(variance_y > 0, variance_x / variance_y, 1.0)
    variance = (old_variance * scale).to(old_variance.dtype)
    mean = (mean_x - (mean_y - old_mean) * scale.sqrt()).to(old_mean.dtype)
    old_error = new_error = 0.0
    for x, dense, cut in zip(inputs, dense_inputs, cuts, strict=True):
        goal = _normalised(norm, dense[cut:], old_mean, old_variance)
        old_error += float(
            (_normalised(norm, x[cut:], old_mean, old_variance) - goal).double().square().sum()
        )
        new_error += float((_normalised(norm, x[cut:], mean, variance) - goal).double().square().sum())
    return NormTrial(mean, variance, old_error, new_error)


@torch.no_grad()
def fold_batch_norm_(model: nn.Module, sample: Tensor) -> list[str]:
    """Fold every batch norm that directly follows a convolution or Linear into it; masks stay as they are.

    A pair is recognised while ``sample`` runs: the very tensor that the layer returned is the batch norm's
    input. Folding scales whole rows of the weight, so zeros stay zeros. The folded batch norm becomes
    ``nn.Identity``. If the output on the sample then differs (the layer's output is also used elsewhere),
    that pair is undone.

    Args:
        model: in evaluation mode.
        sample: one input batch.

    Returns:
        Names of the folded batch norms.

    Raises:
        ValueError: the model is in training mode.
    """
    if model.training:
        raise ValueError("folding is for evaluation: call model.eval() first")
    pairs = _pairs(model, sample)
    expected = model(sample)
    folded = []
    for name, (layer, norm) in pairs.items():
        before = layer.weight, layer.bias
        layer.weight, layer.bias = _fused(layer, norm)
        _replace(model, name, nn.Identity())
        if torch.allclose(model(sample), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max())):
            folded.append(name)
        else:
            layer.weight, layer.bias = before
            _replace(model, name, norm)
    return folded


def _fused(layer: _Foldable, norm: BatchNorm) -> tuple[nn.Parameter, nn.Parameter]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    fuse = fuse_linear_bn_weights if isinstance(layer, nn.Linear) else fuse_conv_bn_weights
    scale = norm.weight if norm.affine else torch.ones_like(norm.running_mean)
    shift = norm.bias if norm.affine else torch.zeros_like(norm.running_mean)
    return fuse(layer.weight, layer.bias, norm.running_mean, norm.running_var, norm.eps, scale, shift)


def _pairs(model: nn.Module, sample: Tensor) -> dict[str, tuple[_Foldable, BatchNorm]]:
    """Batch-norm name to (layer, batch norm) for all direct successions while the sample runs."""
    makers: dict[int, tuple[_Foldable, Tensor]] = {}
    found: dict[str, tuple[_Foldable, BatchNorm]] = {}

    def made(module: _Foldable, _: object, output: Tensor) -> None:
        makers[id(output)] = (module, output)  # holding the tensor keeps its id from being reused

    layers = [module for module in model.modules() if isinstance(module, _Foldable)]
    handles = [layer.register_forward_hook(made) for layer in layers]
    for name, norm in batch_norms(model).items():

        def used(module: BatchNorm, args: tuple[Tensor, ...], name: str = name) -> None:
            if id(args[0]) in makers:
                found[name] = (makers[id(args[0])][0], module)

        handles.append(norm.register_forward_pre_hook(used))
    try:
        model(sample)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    path, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(path), leaf, module)
