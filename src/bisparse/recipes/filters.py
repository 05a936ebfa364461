"""The section of a recipe that removes filters before training."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field, model_validator
from torch import nn

from bisparse.compress.write_report import replace_text
from bisparse.filters import FilterPlan, FilterReport, parse_budget, prune_filters_, save_plan
from bisparse.filters.options import FilterOptions
from bisparse.recipes.base import Section
from bisparse.recipes.errors import RecipeError
from bisparse.train.callback import Callback
from bisparse.train.examples import Examples, in_order

if TYPE_CHECKING:
    from bisparse.train.train_report import TrainReport
    from bisparse.train.trainer import Trainer

__all__ = ["FiltersSection", "PlanFile"]


def _budget(text: str) -> str:
    if parse_budget(text).resource == "latency":
        raise ValueError(
            "a recipe gives the same network again wherever it is resumed, and measured times differ: choose params "
            "or flops"
        )
    return text


class FiltersSection(Section):
    """Filters are removed from the (pretrained) model, then what is left is trained; with a pattern, sparsely.

    Attributes:
        budget: what remains: ``params:0.6``, ``flops:0.5``.
        calibration: training examples for the sensitivities and fits; no labels are used.
        scores: ``pfp``, ``obs``, ``l1``, ``l2`` or ``random``.
        selection: ``top``, ``random`` or ``hybrid``.
        reconstruct: ``rescale``, ``none``, ``bias``, ``least_squares``; ``None`` = what belongs to the scores.
        multiple: widths are rounded up to a multiple, e.g. the block of the pattern.
        targets: outputs that may be removed; ``None`` = all.
        ignore: outputs that stay.
    """

    budget: Annotated[str, AfterValidator(_budget)]
    calibration: int = Field(default=512, ge=4)
    scores: str = "pfp"
    selection: str = "top"
    reconstruct: str | None = None
    multiple: int = Field(default=1, ge=1)
    targets: list[str] | None = None
    ignore: list[str] | None = None

    def remove(self, model: nn.Module, examples: Examples, seed: int) -> PlanFile:
        """Remove filters in place; the same model, data and seed give the same network again.

        Returns:
            A callback that writes the plan into the run's folder, where the trained weights need it.

        Raises:
            RecipeError: the model or the options do not allow it; says why.
        """
        options = {**self._options, "seed": seed}
        try:
            count = min(self.calibration, len(examples))
            batches = [examples.batch(chosen, None) for chosen in in_order(count, 64)]
            report = prune_filters_(
                model,
                self.budget,
                calibration=batches,
                targets=self.targets,
                ignore=self.ignore,
                latency=False,
                **options,
            )
        except ValueError as error:
            raise RecipeError(f"filters: {error}") from error
        return PlanFile(report)

    @property
    def _options(self) -> dict[str, Any]:
        names = ("scores", "selection", "reconstruct", "multiple")
        return {name: getattr(self, name) for name in names}

    @model_validator(mode="after")
    def _options_agree(self) -> FiltersSection:
        FilterOptions.of(self._options)
        if self.scores == "taylor":
            raise ValueError("scores='taylor' needs a loss, which a recipe has no key for: choose another")
        return self


class PlanFile(Callback):
    """Writes what was removed: ``filters.plan.json``, which makes a freshly built model fit the trained weights, and
    ``filters.report.json``.
    """

    def __init__(self, report: FilterReport) -> None:
        self._report = report

    @property
    def plan(self) -> FilterPlan:
        """What was kept."""
        return self._report.plan

    def on_end(self, trainer: Trainer, report: TrainReport) -> None:  # noqa: ARG002
        """Write both next to the model."""
        if trainer.output is not None and trainer.processes.first:
            save_plan(self._report.plan, trainer.output / "filters.plan.json")
            content = json.dumps(self._report.to_dict(), indent=1)
            replace_text(trainer.output / "filters.report.json", content)
