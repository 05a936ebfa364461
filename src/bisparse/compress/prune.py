"""Pretrained to sparse in one call."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from bisparse.compress.calibration import Calibration
from bisparse.compress.job import Job, Options
from bisparse.compress.recipe import Reconstruct, resolve_recipe
from bisparse.compress.report import PruneReport
from bisparse.scores import Scores
from bisparse.weights import Layout, PatternChoice, Selectors, assign_patterns

__all__ = ["PatternChoice", "Pruned", "prune", "prune_"]


@dataclass(frozen=True, slots=True, eq=False)
class Pruned:
    """A pruned copy and its report."""

    model: nn.Module
    report: PruneReport


def prune_(
    model: nn.Module,
    pattern: PatternChoice,
    *,
    targets: Selectors | None = None,
    ignore: Selectors | None = None,
    scores: Scores = "auto",
    reconstruct: Reconstruct = "auto",
    calibration: Calibration | None = None,
    sequential: bool = True,
    residual: bool = True,
    batch_norm: bool = True,
    damping: float = 1e-4,
    layouts: Mapping[str, Layout] | None = None,
    evaluate: Callable[[nn.Module], float] | None = None,
    checkpoint_dir: str | os.PathLike[str] | None = None,
    progress: bool = False,
    seed: int = 0,
) -> PruneReport:
    """Make a pretrained model sparse, in place.

    Args:
        model: any module; on any device, of any floating-point dtype. Its mode and gradient flags stay as
            they are.
        pattern: ``"4:8t"``, ``"2:4"``, ``"unstructured:0.5"``, a pattern, or a mapping from selectors (see
            ``targets``) to patterns, of which the first that matches a weight counts.
        targets: what to prune: dotted names, globs, ``re:`` expressions, module classes, callables; ``None``
            = every weight of a known kind.
        ignore: what to leave dense; ``None`` protects the first convolution, the last classifier or output
            embedding, and embeddings; a list replaces that; ``[]`` protects nothing.
        scores: what entries are worth: ``"magnitude"``, ``"wanda"``, ``"obs"``, ``"ria"``, a mapping from
            weight names to tensors, or a callable ``(weight, statistics) -> tensor``.
        reconstruct: ``"none"``, ``"bias"``, ``"least_squares"``, ``"adaprune"``, ``"sparsegpt"``, ``"alps"``,
            each with ``"+distill"`` if wanted, or option objects, e.g. ``(Alps(), Distill(epochs=5))``.
            ``sparsegpt`` and ``alps`` choose their own mask and refuse ``scores``. ``"auto"``: magnitude
            without reconstruction when there is no calibration data, else ALPS and (up to 50 million
            parameters) distillation.
        calibration: an iterable of batches or a callable, see
            :func:`bisparse.compress.calibration.calibration_calls`. A few hundred samples suffice; no
            labels are used. The data run through the model twice, plus one batch, for all layers
            together; then as often as the last stage asks for.
        sequential: gather inputs from the network pruned so far (targets always come from the dense one);
            otherwise from the dense network, which is cheaper and less accurate.
        residual: where a layer's output is added to another tensor, aim at the dense network's sum, so that
            the layer also makes good the other summand's error. Needs ``sequential``.
        batch_norm: try re-estimated running statistics at every batch norm; keep them where held-out
            calibration samples come closer to the dense network (see ``report.batch_norms``).
        damping: share of the mean of a Hessian's diagonal that is added to it; raised tenfold, with a warning
            in the log, while a Hessian is singular all the same (constant or too few inputs).
        layouts: layouts by parameter name, for classes that the library does not know.
        evaluate: called with the model before and after; results in ``report.notes``.
        checkpoint_dir: where every solved layer is stored, so that the same call goes on where it was
            interrupted. Layers of another model, other settings or other data (a loader that shuffles with
            another seed) are solved anew; callables count by their names.
        progress: show a progress bar on the error stream.
        seed: of the last stage's shuffling; layer-wise methods are deterministic.

    Returns:
        PruneReport.

    Raises:
        ValueError: no matching weight, a layer that calibration never reaches, NaN activations, unknown
            names, or options that contradict each other. Whatever is raised, the model is as it was before.
    """
    weights, patterns, left_out = assign_patterns(model, pattern, targets, ignore, layouts)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    recipe = resolve_recipe(
        scores, reconstruct, has_data=calibration is not None, parameters=parameters, damping=damping
    )
    job = Job(model, weights, patterns, left_out, recipe)
    options = Options(sequential, residual, batch_norm, checkpoint_dir, progress, seed)
    return job.run(calibration, options, evaluate)


def prune(model: nn.Module, pattern: PatternChoice, **options: Any) -> Pruned:
    """Like :func:`prune_` (same arguments), but on a copy: returns the pruned copy and its report."""
    duplicate = copy.deepcopy(model)
    report = prune_(duplicate, pattern, **options)
    return Pruned(duplicate, report)
