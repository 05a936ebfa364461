"""The section of a recipe that removes filters before training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field
from torch import nn

from bisparse.filters import FilterPlan, parse_budget, prune_filters_, save_plan
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
    parse_budget(text)
    return text


class FiltersSection(Section):
    """Filters are removed from the (pretrained) model, then what is left is trained; with a pattern, sparsely.

    Attributes:
        budget: what remains: ``params:0.6``, ``flops:0.5``.
        calibration: training examples for the sensitivities and fits; no labels are used.
        scores: ``pfp``, ``obs``, ``l1``, ``l2`` or ``random``.
        selection: ``top``, ``random`` or ``hybrid``.
        reconstruct: ``rescale``, ``none``, ``bias``, ``least_squares``.
        multiple: widths are rounded up to a multiple, e.g. the block of the pattern.
        targets: outputs that may be removed; ``None`` = all.
        ignore: outputs that stay.
    """

    budget: Annotated[str, AfterValidator(_budget)]
    calibration: int = Field(default=512, ge=4)
    scores: str = "pfp"
    selection: str = "top"
    reconstruct: str = "rescale"
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
        options: dict[str, Any] = {
            "scores": self.scores,
            "selection": self.selection,
            "reconstruct": self.reconstruct,
            "multiple": self.multiple,
            "seed": seed,
        }
        try:
            FilterOptions(**options)
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
        return PlanFile(report.plan)


class PlanFile(Callback):
    """Writes ``filters.plan.json``, which makes a freshly built model fit the trained weights."""

    def __init__(self, plan: FilterPlan) -> None:
        self._plan = plan

    def on_end(self, trainer: Trainer, report: TrainReport) -> None:  # noqa: ARG002
        """Write it next to the model."""
        if trainer.output is not None and trainer.processes.first:
            save_plan(self._plan, trainer.output / "filters.plan.json")
