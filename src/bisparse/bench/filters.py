"""Accuracy after filters are removed, before and after retraining, row by row."""

from __future__ import annotations

import copy
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bisparse.bench.filters_cases import Case
from bisparse.bench.filters_subjects import FilterSubject
from bisparse.bench.ledger import Row
from bisparse.compress.calibration import calibration_calls
from bisparse.filters.budget import Budget
from bisparse.filters.cascade import prune_and_retrain_
from bisparse.filters.job import FilterJob
from bisparse.filters.options import FilterOptions
from bisparse.filters.plan import FilterPlan
from bisparse.machine import describe_machine
from bisparse.train.distillation import Distillation
from bisparse.train.objective import CrossEntropy, Objective

__all__ = ["FilterBench"]

_MIXUP = 0.5
"""Largest share of the second image of a pair."""


class FilterBench:
    """Runs the cases of one network; scores are found once for each measure.

    Args:
        subject: the network.
        folder: for checkpoints of runs that are not finished.
    """

    def __init__(self, subject: FilterSubject, folder: Path) -> None:
        self.subject, self._folder = subject, folder
        self._jobs: dict[str, FilterJob] = {}

    def run(self, case: Case) -> Row:
        """Remove filters from a copy as the case says, and measure it.

        Returns:
            The case's columns, ``accuracy`` (percent), ``parameters_removed``, ``operations_removed`` (shares),
            ``pruned_accuracy`` (before retraining; the same where there is none), ``seconds``, ``machine``.
        """
        model = copy.deepcopy(self.subject.model)
        begin = time.perf_counter()
        if case.scores == "dense":
            values = self._whole(case, model)
        elif case.rounds:
            values = self._retrained(case, model)
        else:
            values = self._once(case, model)
        seconds = time.perf_counter() - begin
        accuracy = self.subject.accuracy(model)
        row: Row = {**case.row(), "accuracy": accuracy, "pruned_accuracy": accuracy}
        return row | values | {"seconds": round(seconds, 1), "machine": describe_machine()}

    def _whole(self, case: Case, model: nn.Module) -> dict[str, float]:
        """Nothing is removed; retraining shows what it does to the network by itself."""
        values = {"parameters_removed": 0.0, "operations_removed": 0.0}
        if case.rounds:
            folder = self._folder_of(case)
            self._retrain(model, folder, FilterPlan(), case)
            shutil.rmtree(folder)
            values["pruned_accuracy"] = self.subject.accuracy(self.subject.model)
        return values

    def _folder_of(self, case: Case) -> Path:
        return self._folder / "-".join(str(value) for value in case.row().values())

    def _once(self, case: Case, model: nn.Module) -> dict[str, float]:
        options = _options(case)
        if case.scores not in self._jobs:
            data = self.subject.calibration()
            job = FilterJob(self.subject.model, calibration_calls(data, model), options, None, None)
            job.score(data, _loss)
            self._jobs[case.scores] = job
        job = self._jobs[case.scores].on(model, options)
        budget = Budget("params", case.keep)
        job.allocate(budget)
        report = job.install(budget, latency=False, seconds=0.0)
        return {
            "parameters_removed": report.parameters_removed,
            "operations_removed": report.operations_removed,
        }

    def _retrained(self, case: Case, model: nn.Module) -> dict[str, float]:
        folder = self._folder_of(case)
        data: Any = self.subject.calibration()
        report = prune_and_retrain_(
            model,
            Budget("params", case.keep),
            lambda net, place, plan: self._retrain(net, place, plan, case),
            calibration=data,
            rounds=case.rounds,
            evaluate=self.subject.accuracy,
            folder=folder,
            scores=case.scores,
            reconstruct=case.reconstruct,
            allocation=case.allocation or None,
            seed=case.seed,
        )
        last, before = report.rounds[-1], self.subject.model
        operations = self._operations(before)
        shutil.rmtree(folder)
        return {
            "parameters_removed": 1 - last.parameters / sum(p.numel() for p in before.parameters()),
            "operations_removed": 1 - last.operations / operations,
            "pruned_accuracy": last.pruned if last.pruned is not None else float("nan"),
        }

    def _retrain(self, net: nn.Module, place: Path | None, plan: FilterPlan, case: Case) -> None:
        objective: Objective = CrossEntropy()
        if case.distilled:
            objective = Distillation(self.subject.model, mixup=_MIXUP, hidden=case.hidden, kept=plan.kept)
        self.subject.train(net, case.epochs, case.rate, place, case.seed, objective, case.images)

    def _operations(self, model: nn.Module) -> float:
        calls = calibration_calls(self.subject.calibration()[:1], model)
        job = FilterJob(model, calls, FilterOptions(scores="l1"), None, None)
        return job.costs.operations([len(family) for family in job.families])


def _options(case: Case) -> FilterOptions:
    values: dict[str, Any] = {"scores": case.scores, "reconstruct": case.reconstruct, "seed": case.seed}
    return FilterOptions(**values, allocation=case.allocation or None)  # type: ignore[arg-type]


def _loss(model: nn.Module, batch: Any) -> Tensor:
    inputs, labels = batch
    with torch.enable_grad():
        return F.cross_entropy(model(inputs), labels)
