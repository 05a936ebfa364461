"""Prune, retrain, prune further: a little at a time, each round on disk before the next begins."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import nn

from bisparse.compress.calibration import Calibration
from bisparse.compress.prune import prune_
from bisparse.compress.report import PruneReport
from bisparse.compress.write_report import replace_text
from bisparse.filters.budget import Budget, parse_budget
from bisparse.filters.evaluated import Evaluate, check_evaluate, evaluated
from bisparse.filters.options import with_block
from bisparse.filters.plan import FilterPlan, apply_plan_
from bisparse.filters.prune import prune_filters_
from bisparse.filters.report import FilterReport
from bisparse.filters.signature import call_fault
from bisparse.pattern import Pattern, parse_pattern
from bisparse.report import Column, Table, to_plain

__all__ = ["CascadeReport", "CascadeRound", "Retrain", "prune_and_retrain_"]

Retrain: TypeAlias = "Callable[[nn.Module, Path | None, FilterPlan], object]"
"""Trains a model in place; the folder is for its own checkpoints, so that it can go on where it stopped; the plan leads
from the original model to this one."""


@dataclass(frozen=True, slots=True)
class CascadeRound:
    """One round.

    Attributes:
        keep: share of the original resource that was to remain.
        parameters: after the round.
        operations: multiply-adds per sample after the round.
        pruned: what ``evaluate`` said before retraining; ``None`` without it.
        retrained: likewise after retraining.
    """

    keep: float
    parameters: int
    operations: float
    pruned: float | None = None
    retrained: float | None = None


@dataclass(frozen=True, slots=True)
class CascadeReport:
    """Result of ``prune_and_retrain_``.

    Attributes:
        rounds: in order.
        plans: of every round; applied one after the other they make a freshly built model fit.
        pattern: report of the N:M pattern at the end, if there was one.
    """

    rounds: tuple[CascadeRound, ...]
    plans: tuple[FilterPlan, ...]
    pattern: PruneReport | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; the plans have files of their own."""
        content: dict[str, Any] = to_plain(
            {"rounds": self.rounds, "pattern": None if self.pattern is None else self.pattern.to_dict()}
        )
        return content

    def to_table(self) -> Table:
        """One line per round."""
        columns = (
            Column("keep", "kept at most", "share"),
            Column("parameters", "parameters", "count"),
            Column("operations", "multiply-adds", "count"),
            Column("pruned", "pruned", "number"),
            Column("retrained", "retrained", "number"),
        )
        rows = [
            {c.key: getattr(step, c.key) for c in columns} | {"operations": round(step.operations)}
            for step in self.rounds
        ]
        return Table(f"{len(rows)} rounds of pruning and retraining", columns, rows)


def prune_and_retrain_(
    model: nn.Module,
    budget: str | Budget,
    retrain: Retrain,
    *,
    calibration: Calibration,
    rounds: int = 1,
    then: str | Pattern | None = None,
    evaluate: Evaluate | None = None,
    folder: str | os.PathLike[str] | None = None,
    **options: Any,
) -> CascadeReport:
    """Remove filters in rounds with geometric shares, retrain after each, and go on where an earlier call stopped.

    Args:
        model: pretrained; changed in place.
        budget: of the end, see :func:`bisparse.prune_filters_`. In round i of n the share is its (i/n)-th power.
        retrain: called with the model, its round's folder (``None`` without ``folder``) and the plan that leads from
            the original model to it, whose ``kept`` a :class:`bisparse.train.distillation.Distillation` takes.
        calibration: for the sensitivities of every round, taken from the network as it is then.
        rounds: 1 is one-shot; more are the paper's cascade.
        then: an N:M pattern for what is left. Widths are rounded up to its block, and it is applied, with weights
            fitted to the calibration data, after the last round; no retraining follows.
        evaluate: called after every pruning and retraining.
        folder: where the network after every step is stored. The same call then continues; a folder of another
            model or other settings is refused.
        **options: of :func:`bisparse.prune_filters_`.

    Raises:
        ValueError: fewer than one round, widths that do not fit the pattern, or a folder that belongs to something
            else; else as ``prune_filters_``.
        TypeError: ``retrain`` cannot be called with model, folder and plan.
    """
    wanted = parse_budget(budget)
    pattern = None if then is None else parse_pattern(then)
    if rounds < 1:
        raise ValueError(f"rounds={rounds}: at least one is needed")
    _check_retrain(retrain)
    check_evaluate(evaluate)
    options = with_block(options, pattern)
    store = _Store(folder, model, {"budget": str(wanted), "rounds": rounds, "options": options})
    original: float | None = None
    steps: list[CascadeRound] = []
    plans: list[FilterPlan] = []
    so_far = FilterPlan()
    for number in range(1, rounds + 1):
        keep = wanted.keep ** (number / rounds)
        content = store.load(number, "pruned")
        if content is None:
            share = keep / (wanted.keep ** ((number - 1) / rounds))
            if original is not None and wanted.resource != "latency":
                share = min(1.0, keep * original / _cost(steps[-1], wanted))
            report = prune_filters_(
                model, Budget(wanted.resource, share), calibration=calibration, latency=False, **options
            )
            content = _measured(report, keep, wanted, original, evaluate, model)
            store.save(model, number, "pruned", content)
            plan = report.plan
        else:
            plan = FilterPlan.from_dict(content["plan"])
            apply_plan_(model, plan)
            store.fill(model, number, "pruned")
        original = content["original"] if original is None else original
        plans.append(plan)
        so_far = so_far.then(plan)
        done = store.load(number, "retrained")
        if done is None:
            retrain(model, store.folder(number), so_far)
            model.eval()
            done = {"retrained": None if evaluate is None else evaluated(evaluate, model)}
            store.save(model, number, "retrained", done)
        else:
            store.fill(model, number, "retrained")
        steps.append(CascadeRound(**content["round"], retrained=done["retrained"]))
    final = None if pattern is None else prune_(model, pattern, calibration=calibration)
    return CascadeReport(tuple(steps), tuple(plans), final)


def _check_retrain(retrain: Retrain) -> None:
    if not callable(retrain):
        raise TypeError(
            f"retrain is a {type(retrain).__name__}: pass a function of a model, a folder and a plan"
        )
    fault = call_fault(retrain, nn.Identity(), None, FilterPlan())
    if fault is not None:
        raise TypeError(
            f"retrain is called with a model, a folder and a plan: {fault}; let it take all three"
        )


def _cost(step: CascadeRound, budget: Budget) -> float:
    return step.parameters if budget.resource == "params" else step.operations


def _measured(
    report: FilterReport,
    keep: float,
    budget: Budget,
    original: float | None,
    evaluate: Evaluate | None,
    model: nn.Module,
) -> dict[str, Any]:
    """What a later call must know of a round."""
    before = report.before.parameters if budget.resource == "params" else report.before.operations
    return {
        "round": {
            "keep": keep,
            "parameters": report.after.parameters,
            "operations": report.after.operations,
            "pruned": None if evaluate is None else evaluated(evaluate, model),
        },
        "original": before if original is None else original,
        "plan": report.plan.to_dict(),
    }


class _Store:
    """Networks after every step; each file appears complete or not at all. Without a folder nothing is stored."""

    def __init__(
        self, folder: str | os.PathLike[str] | None, model: nn.Module, settings: dict[str, Any]
    ) -> None:
        self._root = None if folder is None else Path(folder)
        if self._root is None:
            return
        self._root.mkdir(parents=True, exist_ok=True)
        stamp = self._root / "cascade.json"
        fingerprint = _fingerprint(model, settings)
        if stamp.is_file():
            if json.loads(stamp.read_text(encoding="utf-8")).get("fingerprint") != fingerprint:
                raise ValueError(
                    f"{self._root} holds another cascade (other weights or settings): name another folder"
                )
        else:
            replace_text(stamp, json.dumps({"fingerprint": fingerprint, "settings": _text(settings)}))

    def folder(self, number: int) -> Path | None:
        """Of a round."""
        if self._root is None:
            return None
        path = self._root / f"round-{number}"
        path.mkdir(exist_ok=True)
        return path

    def load(self, number: int, step: str) -> dict[str, Any] | None:
        """What was stored about a step."""
        path = self.folder(number)
        if path is None or not (path / f"{step}.json").is_file():
            return None
        content: dict[str, Any] = json.loads((path / f"{step}.json").read_text(encoding="utf-8"))
        return content

    def fill(self, model: nn.Module, number: int, step: str) -> None:
        """Put a step's weights into a model of its sizes."""
        path = self.folder(number)
        assert path is not None
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        model.load_state_dict(torch.load(path / f"{step}.pt", map_location=device, weights_only=True))
        model.eval()

    def save(self, model: nn.Module, number: int, step: str, content: dict[str, Any]) -> None:
        """Weights first, then what is known of them: a step with a JSON file is complete."""
        path = self.folder(number)
        if path is None:
            return
        partial = path / f"{step}.partial"
        torch.save(model.state_dict(), partial)
        partial.replace(path / f"{step}.pt")
        partial.write_text(json.dumps(content), encoding="utf-8")
        partial.replace(path / f"{step}.json")


def _text(settings: dict[str, Any]) -> str:
    """Settings in words that are the same in the next process: functions by their names, not by their addresses."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(sorted(settings.items(), key=lambda item: item[0])))


def _fingerprint(model: nn.Module, settings: dict[str, Any]) -> str:
    digest = hashlib.sha256(_text(settings).encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
