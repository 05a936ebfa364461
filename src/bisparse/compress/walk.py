"""Through the network in the order of its real forward: gather, solve, go on with the new weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn

from bisparse.compress.batch_norm import BatchNorm, NormTrial, real_positions, trial_statistics
from bisparse.compress.calibration import Call
from bisparse.compress.gather import Gatherer, products
from bisparse.compress.inputs import Features, Stage, flat_samples, stages, visited_module
from bisparse.compress.overlay import Overlay
from bisparse.compress.pieces import pieces, same_routes
from bisparse.compress.residual import Residual, find_residuals
from bisparse.compress.streams import Stream, run_streams
from bisparse.scores import LayerStatistics
from bisparse.weights import Weight, as_rows

__all__ = ["Solve", "Walk"]

_SUMMABLE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.MultiheadAttention)

Solve = Callable[[Weight, "LayerStatistics | None"], None]
"""Solve one weight from its statistics and put the result into the overlay."""


class Walk:
    """One compression of the chosen weights of a model.

    A probe with the first batch finds the order and the number of calls of every module. Then all batches run
    side by side (see :mod:`bisparse.compress.streams`), once through the dense network, for targets, and,
    when sequential, once through the network pruned so far, for inputs. A weight that is used several times
    in one forward pass (shared layers, tied weights) is solved at its last use from the samples of all uses.
    """

    def __init__(
        self,
        model: nn.Module,
        weights: Iterable[Weight],
        overlay: Overlay,
        solve: Solve,
        *,
        sequential: bool = True,
        residual: bool = True,
        known: Iterable[str] = (),
        norms: Mapping[BatchNorm, Callable[[NormTrial], None]] | None = None,
    ) -> None:
        self._model, self._overlay, self._solve, self._sequential = model, overlay, solve, sequential
        self._known, self._norms = frozenset(known), dict(norms or {})
        self._residual = residual and sequential
        self._residuals: dict[nn.Module, Residual] = {}
        self._gatherer = Gatherer()
        self._weights = {weight.name: weight for weight in weights}
        self._stages = self._plan()
        self._rank: dict[nn.Module, int] = {}
        self._remaining: Counter[str] = Counter()
        self._solved: set[str] = set()
        self._seen: set[str] = set()

    def _plan(self) -> dict[nn.Module, list[Stage]]:
        """Stages of every module at which the streams pause."""
        owners = dict(self._model.named_modules(remove_duplicate=False))
        visits: dict[nn.Module, list[Weight]] = {}
        for weight in self._weights.values():
            visits.setdefault(visited_module(weight, self._model), []).append(weight)
            for alias in weight.aliases:
                path, _, leaf = alias.rpartition(".")
                if owners[path] is not weight.module:
                    other = replace(weight, module_name=path, parameter_name=leaf, module=owners[path])
                    visits.setdefault(visited_module(other, self._model), []).append(other)
        return {module: stages(module, found) for module, found in visits.items()}

    def run(self, calls: Sequence[Call]) -> None:
        """Solve every weight.

        Raises:
            ValueError: a module that no batch reaches, NaN activations, or whatever the model itself raises.
        """
        modules: list[nn.Module] = [module for module, found in self._stages.items() if found]
        modules += list(self._norms) if self._sequential else []
        self._probe(calls[0], modules)
        streams = [self._stream(number, call, dense=True) for number, call in enumerate(calls)]
        if self._sequential:
            streams += [self._stream(number, call, dense=False) for number, call in enumerate(calls)]
        last = len(self._rank)
        spots = [residual.spot for residual in self._residuals.values()]
        run_streams(streams, modules, self._at, lambda module: self._rank.get(module, last), spots)
        for name in self._gatherer.waiting():
            self._finish(self._weights[name])
        self._finish_unseen()

    def _probe(self, call: Call, modules: Sequence[nn.Module]) -> None:
        calls: Counter[nn.Module] = Counter()

        def count(module: nn.Module, _: Any) -> None:
            self._rank.setdefault(module, len(self._rank))
            calls[module] += 1

        handles = [module.register_forward_pre_hook(count) for module in modules]
        try:
            if self._residual:
                followed = [module for module in modules if self._is_summable(module)]
                self._residuals = find_residuals(self._model, lambda: call.run(self._model), followed)
            else:
                call.run(self._model)
        finally:
            for handle in handles:
                handle.remove()
        for module in modules:
            if calls[module] > 1:
                self._residuals.pop(module, None)
        for module in modules:
            for stage in self._stages.get(module, []):
                self._remaining.update({weight.name: calls[module] for weight in stage.weights})

    def _is_summable(self, module: nn.Module) -> bool:
        """Whether the module's output is one product, so that what is added to it can be aimed at."""
        found = self._stages.get(module)
        return isinstance(module, _SUMMABLE) or bool(
            found and found[-1].weights[-1].layout.kind == "transposed"
        )

    def _stream(self, number: int, call: Call, *, dense: bool) -> Stream:
        def nothing() -> None:
            return None

        enter, leave = (nothing, nothing) if dense else (self._overlay.enter, self._overlay.leave)
        return Stream(partial(call.run, self._model), enter, leave, number, dense, call.valid)

    def _at(self, module: nn.Module, group: list[Stream]) -> None:
        """All streams that are going to call this module wait here."""
        if isinstance(module, BatchNorm) and module in self._norms:
            if all(residual.norm is not module for residual in self._residuals.values()):
                self._try_norm(module, group)
            return
        plan = [
            stage for stage in self._stages[module] if any(w.name not in self._solved for w in stage.weights)
        ]
        names = [weight.name for stage in plan for weight in stage.weights]
        self._seen.update(names)
        once = all(self._remaining[name] <= 1 for name in names)
        for stage in plan:
            self._gather(stage, group)
            if once:
                self._finish_stage(stage)
        if not once:
            self._remaining.subtract(names)
            for stage in plan:
                if all(self._remaining[weight.name] <= 0 for weight in stage.weights):
                    self._finish_stage(stage)

    def _gather(self, stage: Stage, group: list[Stream]) -> None:
        weights = [weight for weight in stage.weights if weight.name not in self._known | self._solved]
        if not weights:
            return
        dense = {stream.number: stream for stream in group if stream.dense}
        for stream in group:
            if stream.visit is None or (stream.dense and self._sequential):
                continue
            partner = stream if stream.dense else dense.get(stream.number)
            if partner is not None and not same_routes(stream.visit, partner.visit):
                partner = None
            targets = {} if partner is None else self._targets(stage, partner)
            if partner is not None:
                self._aim_at_sums(stage, targets, stream, partner)
            for args, part in pieces(stream.visit, targets):
                self._gatherer.add(weights, self._features(stage, stream, args), part)

    def _targets(self, stage: Stage, stream: Stream) -> dict[str, Features]:
        """What the dense weights make of a dense stream's inputs."""
        visit = stream.visit
        assert visit is not None
        if stage.targets is not None:
            return stage.targets(visit.args, visit.kwargs, stream.valid)
        found = self._features(stage, stream)
        targets: dict[str, Features] = {}
        for weight in stage.weights:
            if weight.name in found:
                rows = as_rows(weight.parameter.detach(), weight.layout)
                pairs = zip(found[weight.name], rows, strict=True)
                targets[weight.name] = [products(x, group) for x, group in pairs]
        return targets

    def _aim_at_sums(
        self, stage: Stage, targets: dict[str, Features], stream: Stream, partner: Stream
    ) -> None:
        """Where the module's output is added to something, also make good that summand's error, in place."""
        assert stream.visit is not None
        module = stream.visit.module
        residual, weight = self._residuals.get(module), stage.weights[-1]
        if residual is None or stage is not self._stages[module][-1] or weight.name not in targets:
            return
        pair = [one.memory.get(residual.spot) for one in (partner, stream)]
        if pair[0] is None or pair[1] is None or pair[0].shape != pair[1].shape:
            return
        change = residual.correction(pair[0], pair[1])
        change = change.movedim(1, -1) if weight.layout.kind == "conv" else change
        parts = change.chunk(len(targets[weight.name]), -1)
        flat = [flat_samples(part, stream.valid) for part in parts]
        if all(a.shape == b.shape for a, b in zip(flat, targets[weight.name], strict=True)):
            targets[weight.name] = [a + b for a, b in zip(flat, targets[weight.name], strict=True)]

    def _features(
        self, stage: Stage, stream: Stream, args: tuple[Any, ...] | None = None
    ) -> dict[str, Features]:
        """Of a stream's visit, or of some of its samples: then ``args`` stand for the visit's."""
        visit = stream.visit
        assert visit is not None
        args = visit.args if args is None else args
        if stream.dense:
            return stage.features(args, visit.kwargs, stream.valid)
        with self._overlay.worn():
            return stage.features(args, visit.kwargs, stream.valid)

    def _try_norm(self, norm: BatchNorm, group: list[Stream]) -> None:
        inputs = {
            (s.number, s.dense): real_positions(s.visit.args[0], s.valid)
            for s in group
            if s.visit is not None
        }
        numbers = [number for number, dense in inputs if dense and (number, False) in inputs]
        decide = self._norms.pop(norm)
        if numbers:
            pruned, dense = ([inputs[number, kind] for number in numbers] for kind in (False, True))
            decide(trial_statistics(norm, pruned, dense))

    def _finish_stage(self, stage: Stage) -> None:
        for weight in stage.weights:
            if weight.name not in self._solved:
                self._finish(self._weights[weight.name])

    def _finish(self, weight: Weight) -> None:
        self._solved.add(weight.name)
        self._solve(weight, self._gatherer.take(weight.name))

    def _finish_unseen(self) -> None:
        """Weights without any statistics: unreachable modules are an error, embeddings have no inputs to
        speak of.
        """
        for weight in self._weights.values():
            if weight.name in self._solved:
                continue
            if weight.name in self._remaining and weight.name not in self._seen:
                where = weight.module_name or "the model itself"
                raise ValueError(
                    f"no calibration batch reaches {where}: pass data that does, or leave it out by ignore="
                )
            self._finish(weight)
