"""One compression from start to end: everything is computed first, and installed last."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypedDict

from torch import Tensor, nn

from bisparse.compress.calibration import Calibration, Call, calibration_calls, evaluation_state
from bisparse.compress.checkpoint import LayerStore, digest
from bisparse.compress.image_layout import images_channels_last
from bisparse.compress.recipe import Recipe
from bisparse.compress.report import PruneReport
from bisparse.compress.session import Session
from bisparse.compress.walk import Walk
from bisparse.pattern import Pattern
from bisparse.weights import Weight

__all__ = ["Job", "JobOptions", "Options"]


@dataclass(frozen=True, slots=True)
class Options:
    """How a job runs; see :func:`bisparse.compress.prune_`."""

    sequential: bool = True
    residual: bool = True
    batch_norm: bool = True
    checkpoint_dir: str | os.PathLike[str] | None = None
    progress: bool = False
    seed: int = 0


class JobOptions(TypedDict, total=False):
    """The fields of :class:`Options` as keyword arguments."""

    sequential: bool
    residual: bool
    batch_norm: bool
    checkpoint_dir: str | os.PathLike[str] | None
    progress: bool
    seed: int


@contextmanager
def _progress(total: int, show: bool) -> Iterator[Callable[[str], None]]:
    """A progress bar on the error stream, or nothing."""
    if not show:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("pruning", total=total)
        yield lambda name: bar.update(task, advance=1, description=name)


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """What is compressed, and how.

    Attributes:
        model: the model, changed only by the last statement of a successful run.
        weights: to be compressed.
        patterns: by weight name.
        left_out: weight name to reason, for the report.
        recipe: scores and reconstruction.
        masks: given masks by weight name, in the weights' shapes, instead of chosen ones.
    """

    model: nn.Module
    weights: list[Weight]
    patterns: Mapping[str, Pattern]
    left_out: dict[str, str]
    recipe: Recipe
    masks: Mapping[str, Tensor] = field(default_factory=dict)

    def run(
        self,
        calibration: Calibration | None,
        options: Options,
        evaluate: Callable[[nn.Module], float] | None = None,
    ) -> PruneReport:
        """Compress and report."""
        started = time.perf_counter()
        model = self.model
        settings = self.recipe.describe() | {
            "sequential": options.sequential,
            "residual": options.residual,
            "batch_norm": options.batch_norm,
            "seed": options.seed,
        }
        notes: dict[str, Any] = {} if evaluate is None else {"evaluate_before": evaluate(model)}
        with evaluation_state(model), _progress(len(self.weights), options.progress) as on_layer:
            calls = [] if calibration is None else calibration_calls(calibration, model)
            calls = images_channels_last(calls, model)
            store = self._store(options.checkpoint_dir, settings, calls)
            session = Session(self.patterns, self.recipe, store, on_layer, self.masks)
            self._solve(session, calls, options)
            notes |= self._distil(session, calls, options.seed)
            session.overlay.commit()
        if evaluate is not None:
            notes["evaluate_after"] = evaluate(model)
        return PruneReport(
            layers=tuple(layer.report for layer in session.layers),
            left_out=self.left_out,
            settings=settings | {"batches": len(calls)},
            batch_norms=session.norm_decisions,
            seconds=time.perf_counter() - started,
            notes=notes,
        )

    def _store(
        self, folder: str | os.PathLike[str] | None, settings: Mapping[str, Any], calls: list[Call]
    ) -> LayerStore | None:
        """Where solved layers are kept; what they depend on is all that they depend on."""
        if folder is None:
            return None
        depends = {
            "patterns": {name: str(pattern) for name, pattern in self.patterns.items()},
            "model": digest(self.model.state_dict()),
            "calibration": digest([(call.args, call.kwargs, call.valid) for call in calls]),
            "scores": digest(self.recipe.scores),
            "masks": digest(self.masks),
        }
        return LayerStore(folder, dict(settings) | depends)

    def _solve(self, session: Session, calls: list[Call], options: Options) -> None:
        """Layer by layer."""
        known = session.known(self.weights)
        if not calls:
            for weight in self.weights:
                session.solve(weight, None)
            return
        norms = session.norm_trials(self.model) if options.batch_norm else {}
        walk = Walk(
            self.model,
            self.weights,
            session.overlay,
            session.solve,
            sequential=options.sequential,
            residual=options.residual,
            known=known,
            norms=norms,
        )
        walk.run(calls)

    def _distil(self, session: Session, calls: list[Call], seed: int) -> dict[str, Any]:
        """All layers together."""
        distill = self.recipe.distill
        if distill is None or not distill.epochs:
            return {}
        started = time.perf_counter()
        result = distill(self.model, session.values, session.masks, calls, seed)
        for tensor, value in result.values.items():
            session.put(tensor, value)
        return {
            "distill_loss_before": result.loss_before,
            "distill_loss_after": result.loss_after,
            "distill_kept": result.kept,
            "distill_seconds": time.perf_counter() - started,
        }
