"""Sparse training in one line: masks that any training loop keeps, refreshed as the weights move."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Self

from bisparse.train.attaching import check_gradients, group_weights, plain_name, rebind_
from bisparse.train.binding import Binding, bare_optimizer
from bisparse.train.masked_weight import MaskedWeight
from bisparse.train.measures.clock import Clock
from bisparse.train.measures.record import Record
from bisparse.train.measures.summary import summary
from bisparse.train.rules import Rule, resolve_rule
from bisparse.train.schedule import Schedule
from bisparse.train.state import load_sparsifier_state, sparsifier_state
from bisparse.train.topology import Projection, Topology
from bisparse.weights import Layout, PatternChoice, Selectors, assign_patterns

__all__ = ["Sparsifier"]

_LOG = logging.getLogger(__name__)


class Sparsifier:
    """Keeps a model sparse while any training loop trains it.

    Parameters are *masked at rest*: outside of the optimizer's step they hold W*E, so that ``state_dict``,
    ``save_pretrained``, moving averages and evaluation see the sparse model under its ordinary names. The
    sparsifier keeps what is dropped. Around each optimizer step the parameters become W, the rule decides what
    gradients do to dropped entries, and every ``update_every`` steps new masks are chosen.

    Args:
        pattern: ``"2:4t"``, ``"4:8"``, ``"unstructured:0.9"``, a pattern, or a mapping from selectors to
            patterns, of which the first that matches a weight counts.
        rule: ``"sr-ste"``, ``"sr-ste-decoupled"``, ``"ste"``, ``"hard"``, or a ``Rule`` such as
            ``SrSte(decay=6e-5)``.
        update_every: optimizer steps between two choices of masks.
        schedule: when masks change and how dense they are, see :class:`bisparse.train.Schedule`.
            ``Schedule.static()`` keeps the masks of ``prepare``.
        targets: which weights: dotted names, globs, ``re:`` expressions, module classes, callables; ``None``
            = every weight of a known kind.
        ignore: what stays dense; ``None`` protects the first convolution, the last classifier or output
            embedding, and embeddings; a list replaces that; ``[]`` protects nothing.
        layouts: layouts by parameter name, for classes that the library does not know.
        method: mask solver, see :func:`bisparse.solve_mask`.
        hysteresis: bonus for kept entries: they count 1 + ``hysteresis`` times when masks are chosen.
        average: learn masks from a moving average of W with this weight of the past.
        topology: chooses masks in another way; ``method``, ``hysteresis`` and ``average`` are then its own.
        window: refreshes over which ``sad_window`` counts.

    Raises:
        TypeError: a rule or pattern of another type.
        ValueError: an unknown rule, or numbers out of range.

    Source: Zhou et al. 2021 (arXiv 2102.04010); transposable masks Hubara et al. 2021 (arXiv 2102.08124).
    """

    def __init__(
        self,
        pattern: PatternChoice,
        *,
        rule: str | Rule = "sr-ste",
        update_every: int = 40,
        schedule: Schedule | None = None,
        targets: Selectors | None = None,
        ignore: Selectors | None = None,
        layouts: Mapping[str, Layout] | None = None,
        method: str = "exact",
        hysteresis: float = 0.0,
        average: float | None = None,
        topology: Topology | None = None,
        window: int = 10,
    ) -> None:
        if isinstance(update_every, bool) or not isinstance(update_every, int) or update_every < 1:
            raise ValueError(f"update_every={update_every!r}: masks are refreshed every 1 or more steps")
        if window < 1:
            raise ValueError(f"window={window}: a window spans 1 or more refreshes")
        self.pattern = pattern
        self.rule = resolve_rule(rule)
        self.schedule = (schedule or Schedule()).with_default(update_every)
        self.topology = topology or Projection(method=method, hysteresis=hysteresis, average=average)
        self.left_out: dict[str, str] = {}
        self._choice = (targets, ignore, layouts)
        self._weights: tuple[MaskedWeight, ...] = ()
        self._bindings: list[Binding] = []
        self._window = window
        self._record = Record(window)
        self._observers: list[Callable[[dict[str, Any]], None]] = []
        self._model: nn.Module | None = None
        self._clock = Clock()

    @property
    def weights(self) -> Mapping[str, MaskedWeight]:
        """The chosen weights by name."""
        return {weight.name: weight for weight in self._weights}

    @property
    def masks(self) -> dict[str, Tensor]:
        """Masks by parameter name, True = kept (of this process's part of a divided weight)."""
        return {weight.name: weight.mask for weight in self._weights}

    @torch.no_grad()
    def prepare(self, model: nn.Module, optimizer: Any = None) -> Self:
        """Choose weights and first masks; from now on the model is sparse.

        Args:
            model: any module, before or after ``DistributedDataParallel``, ``fully_shard``, ``torch.compile``.
            optimizer: what trains it; otherwise call :meth:`attach` when it exists.

        Raises:
            ValueError: already prepared; no weight to prune; a weight that cannot be pruned; NaN in a weight.
        """
        if self._weights:
            raise ValueError("this sparsifier has a model already: make a new one for another model")
        targets, ignore, layouts = self._choice
        chosen, patterns, self.left_out = assign_patterns(
            model, self.pattern, targets, ignore, layouts, sharded=True
        )
        check_gradients(chosen)
        self._record = Record(self._window)
        weights = [MaskedWeight.of(w, plain_name(w.name), patterns[w.name]) for w in chosen]
        for weight in weights:
            self.topology.observe_(weight)
        self._refresh(weights, None)
        self._weights, self._model = tuple(weights), model
        self._hide(weights)
        for weight in weights:
            weight.version = weight.parameter._version
        return self if optimizer is None else self.attach(optimizer)

    @torch.no_grad()
    def attach(self, optimizer: Any, *, explicit: bool = False) -> Self:
        """Follow an optimizer. Call it once for each of several optimizers.

        Args:
            optimizer: a ``torch.optim.Optimizer`` that holds some of the prepared weights.
            explicit: put no hooks into it; you call :meth:`step` after each of its steps. For optimizers
                without hooks: anything with ``param_groups``.

        Raises:
            TypeError: the optimizer has no step hooks.
            ValueError: ``prepare`` comes first; it holds none of the weights, or one that has an optimizer.
        """
        if not self._weights:
            raise ValueError("call prepare(model) before attach(optimizer)")
        optimizer = bare_optimizer(optimizer)
        if not explicit and not hasattr(optimizer, "register_step_post_hook"):
            raise TypeError(
                f"{type(optimizer).__name__} has no step hooks: attach(optimizer, explicit=True), then call "
                "sparsifier.step() after each optimizer.step()"
            )
        for weight in self._weights:
            rebind_(weight, self._record)
        groups = group_weights(self._weights, optimizer, [b.optimizer for b in self._bindings])
        self._bindings.append(
            Binding(optimizer, groups, self.rule, self._after_step, self._before_step, explicit=explicit)
        )
        bound = {weight.name for binding in self._bindings for weight in binding.weights}
        for name in self.weights.keys() - bound:
            _LOG.info("%s has no optimizer yet: its mask stays as it is", name)
        return self

    def step(self) -> None:
        """The explicit form: call it right after the step of every optimizer attached with ``explicit=True``.

        Optimizers with hooks need no call, and it does nothing for them. As the optimizer has then run on
        W*E, momentum and Adam's normalisation do not see the rule's decay: it acts like decoupled weight
        decay. Leave it out after a step that a ``GradScaler`` skipped; hooks see that themselves.

        Raises:
            ValueError: no optimizer is attached.
        """
        if not self._bindings:
            raise ValueError("step() needs the learning rate: attach(optimizer, explicit=True) first")
        for binding in self._bindings:
            if binding.explicit:
                binding.finish()

    def squash_mask(self) -> nn.Module:
        """End: the model stays as it is, sparse under its ordinary names; hooks and dropped values are gone.

        Raises:
            ValueError: ``prepare`` comes first.
        """
        if self._model is None:
            raise ValueError("there is no mask to squash: call prepare(model) first")
        self._detach()
        for weight in self._weights:
            weight.hidden = weight.hidden.new_empty(0)
            weight.duals = weight.average = None
        return self._model

    def state_dict(self, *, compact: bool = True) -> dict[str, Any]:
        """Everything that a resumed run needs, next to the model's and the optimizer's own.

        Args:
            compact: store dropped values only. ``False`` stores them in the weight's shape, which does not
                change as masks change; ``torch.distributed.checkpoint`` needs that. Weights that are divided
                among processes are always stored in their shape, divided alike.

        Returns:
            Plain data and tensors (``torch.save``, ``weights_only=True``): masks as bits, dropped values,
            column potentials, counters, history.
        """
        compact = compact and not self.rule.hides_all
        return sparsifier_state(self._weights, self._record, compact=compact)

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state; load the model's and the optimizer's too, in any order.

        The model may have been loaded before ``prepare``, too: what ``prepare`` dropped from it comes back first.

        Raises:
            ValueError: the state belongs to other weights, shapes or patterns. Nothing is changed then.
        """
        untouched = [w for w in self._weights if not w.is_dense and w.parameter._version == w.version]
        load_sparsifier_state(self._weights, self._record, state, lambda: self.rule.reveal_(untouched))
        if self.rule.hides_all:  # what the forward pass sees follows from W alone
            masked = [weight for weight in self._weights if not weight.is_dense]
            self.rule.reveal_(masked)
            self.rule.hide_(masked)

    def metrics(self) -> dict[str, Any]:
        """What the last refresh changed, in total and by layer, and what refreshes cost; see docs/train.md."""
        return summary(self._weights, self._record, self._times(), diversity=True)

    @property
    def history(self) -> list[dict[str, float]]:
        """Totals of every refresh so far."""
        return list(self._record.history)

    def observe(self, callback: Callable[[dict[str, Any]], None]) -> Self:
        """Call back with :meth:`metrics` (without mask diversity, which never changes) after every refresh."""
        self._observers.append(callback)
        return self

    def _before_step(self, weights: Sequence[MaskedWeight]) -> None:
        for weight in weights:
            self.topology.look_(weight, due=self.schedule.due(weight.steps + 1))

    def _after_step(self, weights: Sequence[MaskedWeight], optimizer: Any) -> None:
        """Count a completed step and refresh what is due; parameters hold W."""
        for weight in weights:
            weight.steps, weight.version = weight.steps + 1, None
            self.topology.observe_(weight)
        due = [w for w in weights if self.schedule.due(w.steps)]
        started = time.perf_counter()
        if due:
            self._refresh(due, optimizer)
        if self._bindings and optimizer is self._bindings[0].optimizer:
            self._clock.tick(time.perf_counter() - started if due else 0.0)
        if due and self._observers:
            figures = summary(self._weights, self._record, self._times(), diversity=False)
            for callback in self._observers:
                callback(figures)

    def _refresh(self, weights: Sequence[MaskedWeight], optimizer: Any) -> None:
        for weight in weights:
            pattern = self.schedule.pattern(weight.pattern, weight.steps)
            try:
                chosen = self.topology.choose(weight, pattern)
            except ValueError as error:
                raise ValueError(f"{weight.name}, step {weight.steps}: {error}") from error
            new = torch.ones_like(weight.mask) if chosen.mask is None else chosen.mask
            if pattern is not None:
                self._record.add(weight, new, chosen.forced)
                weight.refreshes += 1
            self.topology.settle_(weight, weight.mask, new, optimizer)
            weight.duals = chosen.duals or weight.duals
            weight.set_mask(chosen.mask)
        self._record.close(max(weight.steps for weight in weights))

    def _times(self) -> dict[str, float]:
        return self._clock.figures(self.schedule.every or 1)

    def _hide(self, weights: Sequence[MaskedWeight]) -> None:
        self.rule.hide_([weight for weight in weights if not weight.is_dense])

    def _detach(self) -> None:
        for binding in self._bindings:
            binding.remove()
        self._bindings = []

    def __getstate__(self) -> dict[str, Any]:
        """A copy has its own model (copy both together) and no optimizer: attach one."""
        return {**self.__dict__, "_bindings": [], "_observers": []}
