"""One removal of filters, step by step: trace, score, allocate, check, install."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from bisparse.compress.calibration import Call
from bisparse.filters.allocator import Allocator
from bisparse.filters.baselines import norm_scores, random_scores, taylor_scores
from bisparse.filters.budget import Budget
from bisparse.filters.collect import running_readers
from bisparse.filters.cost import Costs, costs_of
from bisparse.filters.elimination import elimination_errors
from bisparse.filters.evaluated import Evaluate, evaluated
from bisparse.filters.families import Family, find_families, frozen_layers
from bisparse.filters.latency import measure_latency
from bisparse.filters.options import FilterOptions
from bisparse.filters.plan import FilterPlan, apply_plan, apply_plan_
from bisparse.filters.proof import family_report
from bisparse.filters.refit import refit_
from bisparse.filters.removal import make_plan, scale_inputs_
from bisparse.filters.report import FamilyReport, FilterReport, Totals
from bisparse.filters.samples import call_size, few
from bisparse.filters.scored import Sensitivities, scored, sensitivities
from bisparse.filters.trace import trace
from bisparse.filters.verify import IncomparableError, removal_error
from bisparse.filters.widths import Choice, Scored, choose
from bisparse.weights import Selectors, matches
from bisparse.weights.select import as_selectors, check_names

__all__ = ["FilterJob"]

_LOG = logging.getLogger(__name__)
_ROUNDING = 1e-3  # of float32 networks; wrong surgery changes outputs by their own size


class FilterJob:
    """The state of one call of ``prune_filters_``; the model is touched by :meth:`install` alone.

    Args:
        model: to prune.
        calls: calibration data.
        options: validated.
        targets: see :func:`bisparse.prune_filters_`.
        ignore: likewise.
    """

    def __init__(
        self,
        model: nn.Module,
        calls: Sequence[Call],
        options: FilterOptions,
        targets: Selectors | None,
        ignore: Selectors | None,
    ) -> None:
        self.model, self.options = model, options
        self.calls = [call for call in calls if call_size(call)]
        self.sample = few(self.calls, 2)
        self.trace = trace(model, self.sample, _protected(model, targets, ignore))
        self.left_out = frozen_layers(self.trace)
        self.families = self._that_work(find_families(self.trace))
        self.sensitivities: Sensitivities | None = None
        self.scored: list[Scored] = []
        self.kappas: list[float | None] = []
        self.choices: list[Choice] = []
        self.level = 0.0

    def on(self, model: nn.Module, options: FilterOptions | None = None) -> FilterJob:
        """The same trace and scores for another copy of the model, e.g. for the next of many budgets."""
        twin = copy.copy(self)
        twin.model, twin.options = model, options or self.options
        return twin

    def _that_work(self, families: list[Family]) -> list[Family]:
        """Leave out families whose channels the code divides in a way that fails when one of them goes."""
        divided = np.unique(
            np.concatenate([self.trace.units[s.ids] for s in self.trace.splits] or [self.trace.units[:0]])
        )
        doubtful = [family for family in families if np.isin(family.units, divided).any() and len(family) > 1]
        if not doubtful or self._works(doubtful):
            return families
        failing = [family for family in doubtful if not self._works([family])]
        for family in failing:
            self.left_out[family.name] = "its code divides these channels by fixed numbers"
        return [family for family in families if family not in failing]

    def _works(self, families: Sequence[Family]) -> bool:
        """Whether the network computes the same with one to three units of each family removed as with these at zero.

        The numbers differ between neighbours, and fall, so that no two pieces of a ``chunk`` pass that must stay equal.
        """
        counts = [min(3 - place % 3, len(family) - 1) for place, family in enumerate(families)]
        removed = [
            unit for family, n in zip(families, counts, strict=True) for unit in family.units[:n].tolist()
        ]
        plan = make_plan(self.model, self.trace, removed)
        try:
            return removal_error(self.model, plan, self.sample) < _ROUNDING
        except Exception as error:  # whatever a user's code raises when a size has changed
            _LOG.info("a smaller network does not run: %s", error)
            return False

    def score(self, batches: Any, loss: Callable[[nn.Module, Any], Tensor] | None) -> None:
        """Find what every unit is worth."""
        values: list[npt.NDArray[np.float64]]
        match self.options.scores:
            case "pfp":
                values = self._sensitivities()
            case "obs":
                values = self._eliminations()
            case "l1" | "l2":
                values = norm_scores(self.model, self.trace, self.families, int(self.options.scores[1]))
            case "random":
                values = random_scores(self.families, self.options.seed)
            case "taylor":
                assert loss is not None
                values = taylor_scores(self.model, self.trace, self.families, batches, loss)
        if not self.families:
            raise ValueError(f"no filter can be removed ({self._reasons() or 'the model has no layers'})")
        self.scored = scored(self.families, values)

    def _reasons(self) -> str:
        """Why the first few of what stays whole does."""
        return "; ".join(f"{name}: {reason}" for name, reason in list(self.left_out.items())[:6])

    def _sensitivities(self) -> list[npt.NDArray[np.float64]]:
        found = sensitivities(
            self.model,
            self.trace,
            self.calls,
            samples=self.options.samples,
            reduction=self.options.kernel_reduction,
        )
        self._keep_watched({product.weight for product in found.layers})
        self.sensitivities = found
        pairs = [found.of(family) for family in self.families]
        self.kappas = [kappa for _, kappa in pairs]
        return [values for values, _ in pairs]

    def _eliminations(self) -> list[npt.NDArray[np.float64]]:
        self._keep_watched(running_readers(self.model, self.trace.products, self.sample))
        return elimination_errors(self.model, self.trace, self.families, self.calls)

    def _keep_watched(self, readers: set[str]) -> None:
        """Leave out families that are read by layers whose inputs were not seen."""
        unseen = [
            family
            for family in self.families
            if not family.read or any(product.weight not in readers for product in family.read)
        ]
        self.left_out |= {family.name: "no layer that reads it was seen to run" for family in unseen}
        self.families = [family for family in self.families if family not in unseen]

    @property
    def costs(self) -> Costs:
        """Parameters and multiply-adds as functions of the widths."""
        return costs_of(self.model, self.trace, self.families)

    def allocate(self, budget: Budget) -> None:
        """Find the level that meets the budget, and choose the units that stay."""
        costs = self.costs
        cost = costs.parameters if budget.resource == "params" else costs.operations
        allocator = Allocator(self.scored, self.options, cost)
        try:
            if budget.resource == "latency":
                widths = allocator.timed(budget.keep, self._latency)
            else:
                widths = allocator.within(budget.keep)
        except ValueError as error:
            raise ValueError(f"{error} (whole: {self._reasons() or 'nothing'})") from None
        self.level = widths.level
        self.choices = self._choose(widths.counts)

    def _choose(self, widths: Sequence[int]) -> list[Choice]:
        generator = np.random.default_rng(self.options.seed)
        rescale = self.options.reconstructed == "rescale"
        return [
            choose(family, width, self.options.selection, rescale=rescale, generator=generator)
            for family, width in zip(self.scored, widths, strict=True)
        ]

    def _latency(self, widths: Sequence[int]) -> float:
        """Time of the network of these widths as a share of the original's."""
        if list(widths) == [len(family) for family in self.families]:
            return 1.0
        plan = self._plan(self._choose(widths))
        pair = {"before": self.model, "after": apply_plan(self.model, plan)}
        times = measure_latency(pair, self.calls[0], repeats=5, seconds=3.0)
        return times["after"] / times["before"]

    def _plan(self, choices: Sequence[Choice]) -> FilterPlan:
        removed = [
            int(unit)
            for family, choice in zip(self.families, choices, strict=True)
            for unit in family.units[~choice.kept]
        ]
        return make_plan(self.model, self.trace, removed)

    def install(
        self,
        budget: Budget,
        *,
        latency: bool,
        seconds: float,
        evaluate: Evaluate | None = None,
    ) -> FilterReport:
        """Check, time and evaluate the smaller network as a copy, then change the model; returns the report.

        Raises:
            ValueError: the smaller network does not run, or computes something else.
        """
        plan = self._plan(self.choices)
        trial = self._compensated(plan)
        deviation = self._deviation(trial, plan)
        small = apply_plan(trial, plan) if latency or evaluate else trial
        times = measure_latency({"before": self.model, "after": small}, self.calls[0]) if latency else {}
        pair = {"before": self.model, "after": small}
        results = {name: evaluated(evaluate, network) for name, network in pair.items()} if evaluate else {}
        widths = {
            "before": [len(family) for family in self.families],
            "after": [int(choice.kept.sum()) for choice in self.choices],
        }
        costs = self.costs
        before, after = (
            Totals(costs.parameters(now), costs.operations(now), times.get(name))
            for name, now in widths.items()
        )
        self.model.load_state_dict(trial.state_dict())
        apply_plan_(self.model, plan)
        return FilterReport(
            settings={"budget": str(budget), **self.options.as_settings()},
            families=tuple(self._families()),
            left_out=self.left_out,
            before=before,
            after=after,
            level=math.exp(self.level) if self.options.allocated in ("eps", "error") else self.level,
            deviation=deviation,
            plan=plan,
            seconds=seconds,
            notes=self._notes() | results,
        )

    def _deviation(self, trial: nn.Module, plan: FilterPlan) -> float:
        """Difference between the smaller network and the masked one, if it is rounding."""
        try:
            deviation = removal_error(trial, plan, self.sample)
        except IncomparableError:
            raise
        except Exception as error:
            raise ValueError(
                f"the code of {type(self.model).__name__} works at its original size only: {error}; take sizes from "
                "tensors (flatten(1), -1) instead of numbers, or name the layer in ignore="
            ) from error
        if not deviation < _ROUNDING:
            raise ValueError(
                f"the smaller network differs from the masked one by {deviation:.2g}: its code uses a size that is "
                "not visible in its tensors; name the layers in ignore="
            )
        return deviation

    def _compensated(self, plan: FilterPlan) -> nn.Module:
        """A copy at full size whose layers make up for what the plan removes."""
        trial = copy.deepcopy(self.model)
        if self.options.reconstructed in ("rescale", "none"):
            scale_inputs_(trial, self.trace, self._scales())
        else:
            method = self.options.reconstructed
            refit_(trial, self.trace, plan, self.calls, method, seed=self.options.seed)
        return trial

    def _scales(self) -> dict[int, float]:
        return {
            int(unit): float(scale)
            for family, choice in zip(self.families, self.choices, strict=True)
            for unit, scale in zip(family.units, choice.scales, strict=True)
            if scale != 1.0
        }

    def _families(self) -> list[FamilyReport]:
        kappas = self.kappas or [None] * len(self.families)
        parts = zip(self.families, self.scored, self.choices, kappas, strict=True)
        return [family_report(*part, self.options.delta) for part in parts]

    def _notes(self) -> dict[str, Any]:
        if self.sensitivities is None:
            return {}
        return {"samples": self.sensitivities.samples, "samples_set_apart": self.sensitivities.checked}


def _protected(model: nn.Module, targets: Selectors | None, ignore: Selectors | None) -> dict[str, str]:
    """Weights whose outputs stay as the user says, with the reason."""
    modules = dict(model.named_modules())
    owners: dict[str, nn.Module | None] = {
        name: modules[name.rpartition(".")[0]] for name, p in model.named_parameters() if p.dim() > 1
    }
    wanted = None if targets is None else as_selectors(targets)
    unwanted = () if ignore is None else as_selectors(ignore)
    check_names(wanted or (), owners, "targets")
    check_names(unwanted, owners, "ignore")
    reasons: dict[str, str] = {}
    for name, owner in owners.items():
        if any(matches(selector, name, owner) for selector in unwanted):
            reasons[name] = "in ignore"
        elif wanted is not None and not any(matches(selector, name, owner) for selector in wanted):
            reasons[name] = "not in targets"
    return reasons
