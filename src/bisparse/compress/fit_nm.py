"""Unstructured-sparse models to N:M: keep the zeros, repair the few groups that violate."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bisparse.compress.calibration import Calibration
from bisparse.compress.job import Job, JobOptions, Options
from bisparse.compress.prune import Pruned
from bisparse.compress.recipe import Reconstruct, resolve_recipe
from bisparse.compress.relax import choose_keep
from bisparse.compress.report import PruneReport
from bisparse.masks.solve import solve_mask
from bisparse.pattern import NM, TransposableNM
from bisparse.weights import Layout, Selectors, Weight, as_matrices, find_weights, from_matrices

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["fit_nm", "fit_nm_"]


@dataclass(frozen=True, slots=True, eq=False)
class _Fit:
    """One weight's pattern, mask and repairs."""

    pattern: NM | TransposableNM
    mask: Tensor
    groups: int
    violating: int


def _groups(matrices: Tensor, pattern: NM | TransposableNM) -> Tensor:
    """Non-zero counts that must not exceed ``keep``, summarised per group or tile: (B, ..., columns / M)."""
    block, used = pattern.block, (matrices != 0).float()
    used = F.pad(used, (0, -used.shape[2] % block, 0, -used.shape[1] % block))
    batch, rows, columns = used.shape
    by_row = used.reshape(batch, rows, columns // block, block).sum(3)
    if isinstance(pattern, NM):
        return by_row[:, : matrices.shape[1]]
    by_row = by_row.reshape(batch, rows // block, block, -1).amax(2)
    by_column = used.reshape(batch, rows // block, block, columns // block, block).sum(2).amax(3)
    return torch.maximum(by_row, by_column)


def _fit(weight: Weight, block: int, confidence: float, transposable: bool) -> _Fit | None:
    """Choose the pattern; cut only the groups that violate it. ``None`` where no pattern fits the density."""
    matrices = as_matrices(weight.parameter.detach(), weight.layout)
    density = float((matrices != 0).double().mean())
    keep = choose_keep(density, block, confidence, transposable=transposable)
    if keep == block:
        return None
    pattern = (TransposableNM if transposable else NM)(keep, block)
    violates = _groups(matrices, pattern) > keep
    solved = solve_mask(matrices.float(), pattern, magnitude=True).mask
    wide = violates.repeat_interleave(block, 2)[..., : matrices.shape[2]]
    if transposable:
        wide = wide.repeat_interleave(block, 1)[:, : matrices.shape[1]]
    mask = (matrices != 0) & (solved | ~wide)
    shaped = from_matrices(mask, weight.layout, weight.parameter.shape)
    return _Fit(pattern, shaped, violates.numel(), int(violates.sum()))


def fit_nm_(
    model: nn.Module,
    block: int = 8,
    confidence: float = 0.95,
    *,
    transposable: bool = False,
    targets: Selectors | None = None,
    ignore: Selectors | None = None,
    reconstruct: Reconstruct = "auto",
    calibration: Calibration | None = None,
    damping: float = 1e-4,
    layouts: Mapping[str, Layout] | None = None,
    evaluate: Callable[[nn.Module], float] | None = None,
    **options: Unpack[JobOptions],
) -> PruneReport:
    """Make an unstructured-sparse model N:M, in place, each layer with the N that its density needs.

    All zeros stay zeros. In a layer of density d the smallest N is taken for which a group (a tile when
    transposable) of randomly placed non-zeros obeys N:M with more than the given probability
    (:func:`choose_keep`). Groups that obey are left alone; those that do not keep their largest entries,
    exactly. Layers for which only N = M would do (dense ones) are left out.

    Args:
        model: with zeros in its weights.
        block: M.
        confidence: probability that a group needs no repair.
        transposable: fit tiles instead of groups of rows.
        targets: what to fit, as in :func:`bisparse.compress.prune_`.
        ignore: what to leave out, as there.
        reconstruct: how the kept weights are fitted; ``"auto"`` = not at all without calibration data, else
            least squares and distillation. Targets are the outputs of the model as it was given.
        calibration: as in ``prune_``, and so are all that follow.
        damping: of the Hessians.
        layouts: by parameter name, for unknown classes.
        evaluate: called before and after.
        options: ``sequential``, ``residual``, ``batch_norm``, ``checkpoint_dir``, ``progress``, ``seed``.

    Returns:
        PruneReport; ``notes["violating_groups"]`` maps each weight to (repaired, all) groups.

    Raises:
        ValueError: no weight is sparse enough, or as in ``prune_``. The model is then as it was.
    """
    selection = find_weights(model, targets, ignore, layouts=layouts)
    left_out = {item.name: item.reason for item in selection.left_out}
    fits: dict[str, _Fit] = {}
    for weight in selection:
        fit = _fit(weight, block, confidence, transposable)
        if fit is None:
            left_out[weight.name] = f"too dense for any N:{block} at confidence {confidence}"
        else:
            fits[weight.name] = fit
    if not fits:
        raise ValueError(
            f"no weight is sparse enough for N:{block} ({left_out}); is the model unstructured-sparse?"
        )
    parameters = sum(parameter.numel() for parameter in model.parameters())
    scores = "magnitude" if reconstruct == "auto" else "auto"
    recipe = resolve_recipe(
        scores, reconstruct, has_data=calibration is not None, parameters=parameters, damping=damping
    )
    weights = [weight for weight in selection if weight.name in fits]
    patterns = {name: fit.pattern for name, fit in fits.items()}
    masks = {name: fit.mask for name, fit in fits.items()}
    job = Job(model, weights, patterns, left_out, recipe, masks)
    report = job.run(calibration, Options(**options), evaluate)
    repairs = {name: (fit.violating, fit.groups) for name, fit in fits.items()}
    return replace(report, notes=report.notes | {"violating_groups": repairs})


def fit_nm(model: nn.Module, block: int = 8, confidence: float = 0.95, **options: Any) -> Pruned:
    """Like :func:`fit_nm_` (same arguments), but on a copy: returns the copy and its report."""
    duplicate = copy.deepcopy(model)
    report = fit_nm_(duplicate, block, confidence, **options)
    return Pruned(duplicate, report)
