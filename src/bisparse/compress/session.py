"""State of one compression: patterns, recipe, solved layers, and where their values go."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from torch import Tensor, nn

from bisparse.compress.batch_norm import BatchNorm, NormTrial, batch_norms
from bisparse.compress.checkpoint import LayerStore
from bisparse.compress.layer import SolvedLayer, bias_of, solve_layer
from bisparse.compress.overlay import Overlay
from bisparse.compress.recipe import Recipe
from bisparse.pattern import Pattern
from bisparse.scores import LayerStatistics
from bisparse.weights import Weight

__all__ = ["Session"]

_LOG = logging.getLogger(__name__)


class Session:
    """Solves weights one by one and keeps their values in an overlay; the model keeps its own until the end.

    Args:
        patterns: by weight name.
        recipe: how to solve.
        store: solved layers on disk, or ``None``.
        on_layer: called after each layer (progress).
        given_masks: masks by weight name, where they are not to be chosen.
    """

    def __init__(
        self,
        patterns: Mapping[str, Pattern],
        recipe: Recipe,
        store: LayerStore | None,
        on_layer: Callable[[str], None],
        given_masks: Mapping[str, Tensor],
    ) -> None:
        self.overlay = Overlay()
        self.layers: list[SolvedLayer] = []
        self.masks: dict[Tensor, Tensor] = {}
        self.values: dict[Tensor, Tensor] = {}
        self.norm_decisions: dict[str, str] = {}
        self._patterns, self._recipe, self._store, self._on_layer = patterns, recipe, store, on_layer
        self._given_masks = given_masks
        self._known: dict[str, SolvedLayer] = {}

    def known(self, weights: list[Weight]) -> list[str]:
        """Names of the weights that the store has solutions of."""
        for weight in weights:
            found = self._store and self._store.load(weight, str(self._patterns[weight.name]))
            if found:
                self._known[weight.name] = found
        return list(self._known)

    def put(self, tensor: Tensor, value: Tensor) -> None:
        """Set a new value of a parameter or buffer."""
        self.overlay.put(tensor, value)
        self.values[tensor] = value

    def solve(self, weight: Weight, statistics: LayerStatistics | None) -> None:
        """Solve one weight, or take its stored solution."""
        pattern = self._patterns[weight.name]
        solved = self._known.get(weight.name)
        if solved is None:
            mask = self._given_masks.get(weight.name)
            solved = solve_layer(weight, pattern, self._recipe, statistics, mask)
            if self._store is not None:
                self._store.save(weight, str(pattern), solved)
        self.layers.append(solved)
        self.masks[weight.parameter] = solved.mask
        self.put(weight.parameter, solved.values)
        bias = bias_of(weight)
        if bias is not None and solved.bias is not None:
            self.put(bias, solved.bias)
        report = solved.report
        _LOG.info("%s: error %.4f -> %.4f", weight.name, report.error_before, report.error_after)
        self._on_layer(weight.name)

    def norm_trials(self, model: nn.Module) -> dict[BatchNorm, Callable[[NormTrial], None]]:
        """What to do at each batch norm: keep new statistics where the trial says that they help."""

        def decide(name: str, norm: BatchNorm, trial: NormTrial) -> None:
            if trial.helps:
                self.put(norm.get_buffer("running_mean"), trial.mean)
                self.put(norm.get_buffer("running_var"), trial.variance)
            verdict = "re-estimated" if trial.helps else "kept"
            self.norm_decisions[name] = (
                f"{verdict}: held-out error {trial.error_old:.4g} with the old statistics, "
                f"{trial.error_new:.4g} with new ones"
            )

        def bound(name: str, norm: BatchNorm) -> Callable[[NormTrial], None]:
            return lambda trial: decide(name, norm, trial)

        return {norm: bound(name, norm) for name, norm in batch_norms(model).items()}
