"""One weight from dense to compressed: problem, solution, values, report."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from bisparse.compress.problem import LayerProblem, Solution
from bisparse.compress.recipe import Recipe
from bisparse.compress.reconstruct import NoReconstruction
from bisparse.compress.report import LayerReport
from bisparse.pattern import NM, Pattern
from bisparse.scores import LayerStatistics, needs_data, score_rows
from bisparse.weights import Weight, as_rows, from_rows

__all__ = ["SolvedLayer", "bias_of", "solve_layer"]


@dataclass(frozen=True, slots=True, eq=False)
class SolvedLayer:
    """New values of one weight, in the weight's own shape and dtype."""

    values: Tensor
    mask: Tensor
    bias: Tensor | None
    report: LayerReport


def bias_of(weight: Weight) -> nn.Parameter | None:
    """The bias that is added to this weight's product and nothing else; ``None`` where there is no such
    bias.
    """
    module = weight.module
    if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
        return None
    if isinstance(module, nn.MultiheadAttention):
        return module.in_proj_bias if weight.parameter_name == "in_proj_weight" else None
    bias = getattr(module, "bias", None)
    return bias if isinstance(bias, nn.Parameter) and weight.parameter_name == "weight" else None


def _problem(
    weight: Weight, pattern: Pattern, recipe: Recipe, statistics: LayerStatistics | None, mask: Tensor | None
) -> LayerProblem:
    rows = as_rows(weight.parameter.detach(), weight.layout).double()
    if not bool(torch.isfinite(rows).all()):
        raise ValueError(f"{weight.name} contains NaN or infinity: it cannot be pruned")
    bias = bias_of(weight)
    scores = "magnitude" if statistics is None and needs_data(recipe.scores) else recipe.scores
    return LayerProblem(
        rows=rows,
        statistics=statistics,
        pattern=pattern,
        layout=weight.layout,
        shape=tuple(weight.parameter.shape),
        score=lambda: score_rows(scores, weight, rows, statistics),
        fit_bias=bias is not None
        and statistics is not None
        and bias.numel() == rows.shape[0] * rows.shape[1],
        damping=recipe.damping,
        name=weight.name,
        given_mask=None if mask is None else as_rows(mask, weight.layout),
    )


def solve_layer(
    weight: Weight,
    pattern: Pattern,
    recipe: Recipe,
    statistics: LayerStatistics | None,
    mask: Tensor | None = None,
) -> SolvedLayer:
    """Compress one weight.

    With a given mask only the kept weights are fitted. Without statistics (no calibration data, or a weight
    that is used in no product) the weight is masked only.

    Raises:
        ValueError: weights or scores that are not finite, or a row-wise pattern on a weight whose orientation
            is unknown.
    """
    if isinstance(pattern, NM) and not weight.layout.oriented:
        raise ValueError(
            f"{weight.name}: {pattern} must know which axis of {tuple(weight.parameter.shape)} is the input; "
            f"pass layouts={{{weight.name!r}: ...}} or use the transposable {pattern}t"
        )
    started = time.perf_counter()
    problem = _problem(weight, pattern, recipe, statistics, mask)
    method = recipe.layerwise if statistics is not None else NoReconstruction()
    solution = method(problem)
    seconds = time.perf_counter() - started
    note = "" if method is recipe.layerwise else "no statistics: masked only"
    return _values(weight, problem, solution, seconds, note)


def _values(
    weight: Weight, problem: LayerProblem, solution: Solution, seconds: float, note: str
) -> SolvedLayer:
    mask = solution.projection.mask
    if bool(mask.all()):
        note = "unchanged: the pattern allows this shape to stay wholly dense"
        solution = replace(solution, rows=problem.rows, bias=None)
    parameter = weight.parameter
    size = problem.rows.abs()
    report = LayerReport(
        name=weight.name,
        pattern=str(problem.pattern),
        shape=tuple(parameter.shape),
        density=float(mask.double().mean()),
        kept_magnitude=float((size * mask).sum() / size.sum().clamp_min(1e-300)),
        error_before=_error(problem, problem.rows * mask, None),
        error_after=_error(problem, solution.rows, solution.bias),
        gap=solution.projection.gap,
        seconds=seconds,
        note=note,
    )
    bias, change = bias_of(weight), solution.bias
    return SolvedLayer(
        # Filled, as a product leaves -0.0 where a negative weight was.
        values=from_rows(solution.rows.masked_fill(~mask, 0), weight.layout, parameter.shape).to(
            parameter.dtype
        ),
        mask=from_rows(mask, weight.layout, parameter.shape),
        bias=None
        if bias is None or change is None
        else (bias.double() + change.reshape(bias.shape)).to(bias.dtype),
        report=report,
    )


def _error(problem: LayerProblem, rows: Tensor, bias: Tensor | None) -> float:
    return math.nan if problem.statistics is None else problem.statistics.relative_error(rows, bias)
