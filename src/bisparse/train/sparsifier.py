"""Sparse training in one line: masks that any training loop keeps, refreshed as the weights move."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Self

from bisparse.train.allocation import ALLOCATIONS, Allocation
from bisparse.train.attaching import check_gradients, group_weights, plain_name, rebind_
from bisparse.train.binding import Binding, bare_optimizer
from bisparse.train.by_name import by_name
from bisparse.train.masked_weight import MaskedWeight
from bisparse.train.refresher import Refresher
from bisparse.train.rules import RULES, Rule
from bisparse.train.schedule import Schedule
from bisparse.train.state import load_sparsifier_state, sparsifier_state
from bisparse.train.topology import TOPOLOGIES, Projection, Topology
from bisparse.weights import Layout, PatternChoice, Selectors, assign_patterns

__all__ = ["Sparsifier"]

_LOG = logging.getLogger(__name__)


class Sparsifier:
    """Keeps a model sparse while any training loop trains it.

    Parameters are *masked at rest*: outside of the optimizer's step they hold W*E, so that ``state_dict``,
    ``save_pretrained`` and evaluation see the sparse model under its ordinary names. The
    sparsifier keeps what is dropped. Around each optimizer step the parameters become W, the rule decides what
    gradients do to dropped entries, and every ``update_every`` steps new masks are chosen.

    Args:
        pattern: ``"2:4t"``, ``"4:8"``, ``"unstructured:0.9"``, a pattern, or a mapping from selectors to
            patterns, of which the first that matches a weight counts.
        rule: ``"sr-ste"``, ``"sr-ste-decoupled"``, ``"ste"``, ``"hard"``, ``"s-ste"``, ``"dst"``, or a ``Rule`` such
            as ``SrSte(decay=6e-5)``; ``None`` = what goes with the topology: ``"sr-ste"``, and ``"hard"`` where it
            evolves.
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
        topology: chooses masks in another way: ``"set"``, ``"rigl"``, ``"snfs"``, ``"static"``, or a ``Topology``;
            ``method``, ``hysteresis`` and ``average`` are then its own.
        allocation: divides unstructured sparsity among layers: ``"uniform"``, ``"er"``, ``"erk"``, or an
            ``Allocation``; ``None`` = every layer as its pattern says.
        window: refreshes over which ``sad_window`` counts.

    Raises:
        TypeError: a rule, topology, allocation or schedule of another type.
        ValueError: an unknown rule, or numbers out of range.

    Source: Zhou et al. 2021 (arXiv 2102.04010); transposable masks Hubara et al. 2021 (arXiv 2102.08124).
    """

    def __init__(
        self,
        pattern: PatternChoice,
        *,
        rule: str | Rule | None = None,
        update_every: int = 40,
        schedule: Schedule | None = None,
        targets: Selectors | None = None,
        ignore: Selectors | None = None,
        layouts: Mapping[str, Layout] | None = None,
        method: str = "exact",
        hysteresis: float = 0.0,
        average: float | None = None,
        topology: str | Topology | None = None,
        allocation: str | Allocation | None = None,
        window: int = 10,
    ) -> None:
        if isinstance(update_every, bool) or not isinstance(update_every, int) or update_every < 1:
            raise ValueError(f"update_every={update_every!r}: masks are refreshed every 1 or more steps")
        if schedule is not None and not isinstance(schedule, Schedule):
            raise TypeError(
                f"schedule={schedule!r}: expected a Schedule, such as Schedule(every=40, freeze=10_000) or "
                "Schedule.static()"
            )
        if window < 1:
            raise ValueError(f"window={window}: a window spans 1 or more refreshes")
        self.pattern = pattern
        schedule = (schedule or Schedule()).with_default(update_every)
        own = Projection(method=method, hysteresis=hysteresis, average=average)
        chosen = own if topology is None else by_name(topology, TOPOLOGIES, Topology)
        self.rule = by_name(chosen.rule if rule is None else rule, RULES, Rule)
        self.allocation = None if allocation is None else by_name(allocation, ALLOCATIONS, Allocation)
        self._refresher = Refresher(schedule, self.rule.topology(chosen).under(schedule), window)
        self.left_out: dict[str, str] = {}
        self._choice = (targets, ignore, layouts)
        self._bindings: list[Binding] = []
        self._model: nn.Module | None = None

    @property
    def schedule(self) -> Schedule:
        """When masks change."""
        return self._refresher.schedule

    @property
    def topology(self) -> Topology:
        """How masks are chosen."""
        return self._refresher.topology

    @property
    def weights(self) -> Mapping[str, MaskedWeight]:
        """The chosen weights by name."""
        return {weight.name: weight for weight in self._refresher.weights}

    @property
    def masks(self) -> dict[str, Tensor]:
        """Masks by parameter name, True = kept (of this process's part of a divided weight)."""
        return {weight.name: weight.mask for weight in self._refresher.weights}

    @torch.no_grad()
    def prepare(self, model: nn.Module, optimizer: Any = None) -> Self:
        """Choose weights and first masks; from now on the model is sparse.

        Args:
            model: any module, before or after ``DistributedDataParallel``, ``fully_shard``, ``torch.compile``.
            optimizer: what trains it; otherwise call :meth:`attach` when it exists.

        Raises:
            TypeError: ``model`` is no module.
            ValueError: already prepared; no weight to prune; a weight that cannot be pruned; NaN in a weight.
        """
        if not isinstance(model, nn.Module):
            raise TypeError(
                f"prepare(model, optimizer): model is no torch.nn.Module but {type(model).__name__}"
            )
        if self._refresher.weights:
            raise ValueError("this sparsifier has a model already: make a new one for another model")
        targets, ignore, layouts = self._choice
        chosen, patterns, self.left_out = assign_patterns(
            model, self.pattern, targets, ignore, layouts, sharded=True
        )
        check_gradients(chosen)
        if self.allocation is not None:
            patterns = self.allocation.assign(chosen, patterns)
        weights = [MaskedWeight.of(w, plain_name(w.name), patterns[w.name]) for w in chosen]
        for weight in weights:
            self.topology.check(weight, self.rule)
            self.rule.begin_(weight)
        self._refresher.choose_first(weights)
        for weight in weights:
            self.rule.check(weight)
        self._refresher.weights, self._model = tuple(weights), model
        self.rule.hide_(self._masked())
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
            ValueError: ``prepare`` comes first; it holds none of the weights, or one that has an optimizer; the rule
                cannot work with a weight as it has been divided since.
        """
        weights, record = self._refresher.weights, self._refresher.record
        if not weights:
            raise ValueError("call prepare(model) before attach(optimizer)")
        optimizer = bare_optimizer(optimizer)
        if not explicit and not hasattr(optimizer, "register_step_post_hook"):
            raise TypeError(
                f"{type(optimizer).__name__} has no step hooks: attach(optimizer, explicit=True), then call "
                "sparsifier.step() after each optimizer.step()"
            )
        for weight in weights:
            rebind_(weight, record)
            self.rule.check(weight)
        groups = group_weights(weights, optimizer, [b.optimizer for b in self._bindings])
        self._bindings.append(Binding(optimizer, groups, self.rule, self._refresher, explicit=explicit))
        self._refresher.lead = self._bindings[0].weights[0]
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

    def freeze(self) -> Self:
        """Masks stay as they are from now on, even inside a ramp; a resumed run has to call it again."""
        steps = max((weight.steps for weight in self._refresher.weights), default=0)
        self._refresher.schedule = replace(self._refresher.schedule, freeze=steps, ramp=None)
        return self

    def squash_mask(self) -> nn.Module:
        """End: the model stays as it is, sparse under its ordinary names; hooks and dropped values are gone.

        Raises:
            ValueError: ``prepare`` comes first.
        """
        if self._model is None:
            raise ValueError("there is no mask to squash: call prepare(model) first")
        for binding in self._bindings:
            binding.recover()
            binding.remove()
        self._bindings = []
        for weight in self._refresher.weights:
            weight.hidden = weight.hidden.new_empty(0)
            for parameter in weight.learned.values():
                parameter.grad = None
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
        for binding in self._bindings:
            binding.recover()
        weights, record = self._refresher.weights, self._refresher.record
        return sparsifier_state(weights, record, compact=compact, hides_all=self.rule.hides_all)

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state; load the model's and the optimizer's too, in any order.

        The model may have been loaded before ``prepare``, too: what ``prepare`` dropped from it comes back first.

        Raises:
            ValueError: the state belongs to other weights, shapes or patterns, or to a rule that keeps other things
                aside. Nothing is changed then.
        """
        weights, record = self._refresher.weights, self._refresher.record
        untouched = [weight for weight in self._masked() if weight.parameter._version == weight.version]
        hides_all = self.rule.hides_all
        load_sparsifier_state(
            weights, record, state, hides_all=hides_all, before=lambda: self.rule.reveal_(untouched)
        )
        if hides_all:  # what the forward pass sees follows from W alone
            self.rule.reveal_(self._masked())
            self.rule.hide_(self._masked())

    def metrics(self) -> dict[str, Any]:
        """What the last refresh changed, in total and by layer, and what refreshes cost; see docs/train.md."""
        figures = self._refresher.figures(diversity=True)
        for weight in self._refresher.weights:
            if own := self.rule.measure([weight]):
                figures["layers"].setdefault(weight.name, {}).update(own)
        return figures | (self.rule.measure(self._refresher.weights) if self._refresher.weights else {})

    @property
    def history(self) -> list[dict[str, float]]:
        """Totals of every refresh so far."""
        return list(self._refresher.record.history)

    def observe(self, callback: Callable[[Mapping[str, Any]], None]) -> Self:
        """Call back with :meth:`metrics` (without mask diversity, which never changes) after every refresh."""
        self._refresher.observers.append(callback)
        return self

    def _masked(self) -> list[MaskedWeight]:
        return [weight for weight in self._refresher.weights if not weight.is_dense]

    def __getstate__(self) -> dict[str, Any]:
        """A copy has its own model (copy both together) and no optimizer: attach one."""
        return {**self.__dict__, "_bindings": []}
