"""Remove filters from a pretrained network in one call."""

from __future__ import annotations

import copy
import inspect
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from bisparse.compress.calibration import Calibration, calibration_calls
from bisparse.filters.budget import Budget, parse_budget
from bisparse.filters.evaluated import check_evaluate
from bisparse.filters.job import FilterJob
from bisparse.filters.options import FilterOptions
from bisparse.filters.report import FilterReport
from bisparse.weights import Selectors

__all__ = ["FilterPruned", "prune_filters", "prune_filters_"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class FilterPruned:
    """A smaller copy and its report."""

    model: nn.Module
    report: FilterReport


def prune_filters_(
    model: nn.Module,
    budget: str | Budget,
    *,
    calibration: Calibration,
    targets: Selectors | None = None,
    ignore: Selectors | None = None,
    loss: Callable[[nn.Module, Any], Tensor] | None = None,
    evaluate: Callable[[nn.Module], float] | None = None,
    latency: bool = True,
    **options: Any,
) -> FilterReport:
    """Remove filters, heads and hidden units from a network until a budget is met, in place.

    Channels are scored by their empirical sensitivity: the largest share that a channel has in any output of the layers
    that read it, for any of a few samples. One error for all layers then fixes how many channels each keeps. The result
    is an ordinary, smaller network: no masks, no wrappers. Parameters are replaced: make optimizers afterwards.

    Args:
        model: any module that ``torch.export`` can trace, in any mode. Whatever is raised, it is unchanged.
        budget: what may remain: ``"params:0.6"`` keeps at most 60% of the parameters, ``"flops:0.5"`` half of the
            multiply-adds, ``"latency:0.5"`` half of the time (measured here, with the first calibration batch).
        calibration: an iterable of batches, or a callable, see
            :func:`bisparse.compress.calibration.calibration_calls`. No labels are used, except by ``scores="taylor"``.
        targets: remove outputs of these weights only: names, globs, ``re:``, classes, callables; ``None`` = all.
        ignore: leave the outputs of these alone. The network's inputs and outputs are never touched.
        loss: ``loss(model, batch)`` for ``scores="taylor"``.
        evaluate: called with the model, then with the smaller network; results in ``report.notes``.
        latency: measure the time of one call before and after.
        **options: of :class:`bisparse.filters.options.FilterOptions`:

            - ``scores``: ``"pfp"``; ``"obs"``: units are eliminated one by one, each time the one that refitting makes
              up for best (no guarantee, the best accuracy); or for comparison
              ``"l1"``, ``"l2"`` (norms of filters), ``"taylor"``, ``"random"``;
            - ``selection``: ``"top"`` keeps the most sensitive, ``"random"`` draws and reweights, ``"hybrid"`` does
              both. What is drawn has the right widths on average, so it may miss the budget by a few channels;
            - ``allocation``: ``"eps"`` (one error for all layers; default for ``pfp``), ``"error"`` (one price of a
              parameter or multiply-add in errors; default for ``obs``), ``"uniform"`` (the same share of every layer),
              ``"global"`` (one ranking of all units);
            - ``kernel_reduction`` (``pfp`` only): ``"sum"`` over kernel positions, or ``"max"`` as in the published
              code;
            - ``reconstruct``: how the layers behind make up for what is missing: ``"rescale"``, with ``pfp`` (its
              default) and ``"top"`` by one factor for each family; ``"none"`` (default of the norms, ``taylor`` and
              ``random``); or fitted to the calibration data by the machinery of :func:`bisparse.prune_`:
              ``"least_squares"`` (default of ``obs``), ``"bias"``, each with ``"+distill"`` if wanted. The guarantee
              holds for the first two;
            - ``samples`` (``pfp`` only): that decide; default: the paper's formula, at most half of the calibration
              data;
            - ``multiple``: round widths up to a multiple, e.g. of the tile of an N:M pattern that follows;
            - ``delta`` (``pfp`` only): probability of failure in the guarantee, and through it in ``"eps"``; the
              default is the published code's 1e-16, at which the widths follow S and hardly the number of outputs;
            - ``seed``: of random choices.

    Returns:
        FilterReport, with the plan that makes a freshly built model fit the smaller checkpoint.

    Raises:
        ValueError: the model cannot be traced, nothing can be removed, the budget cannot be met, the code of the model
            contradicts a smaller size, or options that contradict each other.
        TypeError: an unknown option, or no module.

    Source: Liebenwein, Baykal, Lang, Feldman, Rus, "Provable Filter Pruning for Efficient Neural Networks", 2020.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model is a {type(model).__name__}: pass the torch.nn.Module, with its weights loaded"
        )
    chosen, wanted = FilterOptions.of(options), parse_budget(budget)
    check_evaluate(evaluate)
    if chosen.scores == "taylor" and loss is None:
        raise ValueError("scores='taylor' needs loss=: a function of the model and a labelled batch")
    batches = calibration
    if chosen.scores == "taylor":
        batches = calibration = _labelled(calibration)
    calls = calibration_calls(calibration, model)
    begin = time.perf_counter()
    job = FilterJob(model, calls, chosen, targets, ignore)
    job.score(batches, loss)
    job.allocate(wanted)
    seconds = time.perf_counter() - begin
    report = job.install(wanted, latency=latency, seconds=seconds, evaluate=evaluate)
    _LOG.info("%.1f%% of the parameters removed", 100 * report.parameters_removed)
    return report


def _labelled(calibration: Calibration) -> list[Any]:
    """Batches as they come, with their labels."""
    if not callable(calibration) or isinstance(calibration, Iterable):
        return list(calibration)
    if any(p.default is p.empty for p in inspect.signature(calibration).parameters.values()):
        raise ValueError(
            "scores='taylor' needs labelled batches: pass an iterable of them, or a callable without arguments"
        )
    return list(calibration())


def prune_filters(model: nn.Module, budget: str | Budget, **options: Any) -> FilterPruned:
    """Like :func:`prune_filters_` (same arguments), but on a copy: returns the smaller copy and its report."""
    duplicate = copy.deepcopy(model)
    report = prune_filters_(duplicate, budget, **options)
    return FilterPruned(duplicate, report)
