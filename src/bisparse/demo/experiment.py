"""The demo's experiment: small dense networks on real digits, pruned by every method."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from torch import Tensor, nn

from bisparse.demo.report import DemoReport, DemoRow
from bisparse.demo.trial import Trial, hidden_layers, prune_and_tune, tune
from bisparse.masks.solve import METHODS
from bisparse.pattern import Pattern, TransposableNM, parse_pattern
from bisparse.timing import torch_threads
from bisparse.zoo.digits import digits
from bisparse.zoo.fit import accuracy, fit
from bisparse.zoo.mlp import mlp
from bisparse.zoo.split import Split

__all__ = ["DemoSettings", "methods_for", "run_demo"]


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """What to run.

    Attributes:
        patterns: text forms, solved in this order.
        widths: features of the network from pixels to classes; every layer but the last is pruned.
        runs: networks to train, with the seeds ``seed``, ``seed + 1``, ...; accuracies are their means.
        epochs: of dense training.
        tuning_epochs: of fine-tuning.
        seed: of the first network, its data order and the division of the data.
    """

    patterns: tuple[str, ...] = ("2:4", "2:4t", "4:8t")
    widths: tuple[int, ...] = (64, 256, 128, 10)
    runs: int = 3
    epochs: int = 15
    tuning_epochs: int = 4
    seed: int = 0

    @classmethod
    def quick(cls, seed: int = 0) -> DemoSettings:
        """One narrow network, trained briefly: shows every step in a few seconds."""
        return cls(widths=(64, 64, 32, 10), runs=1, epochs=6, tuning_epochs=1, seed=seed)


def methods_for(pattern: Pattern) -> tuple[str, ...]:
    """The methods that the demo compares at a pattern; ``flow`` only where OR-tools is installed."""
    if not isinstance(pattern, TransposableNM):
        return ("exact",)
    has_flow = importlib.util.find_spec("ortools") is not None
    return tuple(method for method in METHODS if method != "flow" or has_flow)


def run_demo(settings: DemoSettings, progress: Callable[[str], None] | None = None) -> DemoReport:
    """Train, prune by every method, fine-tune with the masks fixed, measure; on one thread: all is small.

    Args:
        settings: what to run; equal settings give equal numbers on one machine, times apart.
        progress: told in words what is being done.

    Returns:
        The report; ``RuntimeError`` is raised where a proof does not survive the independent check.
    """
    with torch_threads(1):
        return _run(settings, progress or (lambda _: None))


def _run(settings: DemoSettings, report: Callable[[str], None]) -> DemoReport:
    """Every network through every case."""
    cases = [
        (pattern, method)
        for pattern in map(parse_pattern, settings.patterns)
        for method in methods_for(pattern)
    ]
    data = digits(seed=settings.seed)
    networks: list[nn.Sequential] = []
    tuned_accuracies: list[float] = []
    trials: dict[tuple[str, str], list[Trial]] = {(str(pattern), method): [] for pattern, method in cases}
    for run in range(settings.runs):
        seed = settings.seed + run
        report(f"network {run + 1} of {settings.runs}: training")
        networks.append(_train(settings, data, seed))
        tuned_accuracies.append(_tuned_dense(networks[-1], settings, data, seed))
        for pattern, method in cases:
            report(f"network {run + 1} of {settings.runs}: {pattern} by {method}")
            trial = prune_and_tune(
                networks[-1], data, pattern, method, epochs=settings.tuning_epochs, seed=seed
            )
            trials[str(pattern), method].append(trial)
    return _summarise(networks, tuned_accuracies, trials, data)


def _train(settings: DemoSettings, data: Split, seed: int) -> nn.Sequential:
    """A dense network from its own seed."""
    model = mlp(settings.widths, seed=seed)
    fit(model, data, epochs=settings.epochs, learning_rate=2e-3, weight_decay=1e-2, seed=seed)
    return model


def _tuned_dense(model: nn.Sequential, settings: DemoSettings, data: Split, seed: int) -> float:
    """Accuracy of the dense network after the fine-tuning that its pruned copies get: the fair reference."""
    reference = copy.deepcopy(model)
    tune(reference, data, None, epochs=settings.tuning_epochs, seed=seed)
    return accuracy(reference, data.test_inputs, data.test_labels)


def _summarise(
    networks: Sequence[nn.Sequential],
    tuned_accuracies: Sequence[float],
    trials: Mapping[tuple[str, str], Sequence[Trial]],
    data: Split,
) -> DemoReport:
    """Means over the runs, and the first network's last hidden layer to look at."""
    last_pattern = list(trials)[-1][0]
    return DemoReport(
        dense_accuracy=fmean(accuracy(model, data.test_inputs, data.test_labels) for model in networks),
        dense_tuned_accuracy=fmean(tuned_accuracies),
        rows=tuple(
            _row(pattern, method, networks, done, trials[pattern, "exact"])
            for (pattern, method), done in trials.items()
        ),
        runs=len(networks),
        test_examples=len(data.test_labels),
        hidden_weights=sum(layer.weight.numel() for layer in hidden_layers(networks[0])),
        weight=hidden_layers(networks[0])[-1].weight.detach().clone(),
        masks={case: done[0].results[-1].mask for case, done in trials.items()},
        state=_state(networks[0]),
        sparse_state=_state(trials[last_pattern, "exact"][0].model),
    )


def _row(
    pattern: str,
    method: str,
    networks: Sequence[nn.Sequential],
    done: Sequence[Trial],
    exact: Sequence[Trial],
) -> DemoRow:
    """One line of the table."""
    totals = [_magnitude(model) for model in networks]
    proof = max(trial.proof for trial in done)
    return DemoRow(
        pattern=pattern,
        method=method,
        density=fmean(trial.density for trial in done),
        kept=fmean(trial.objective / total for trial, total in zip(done, totals, strict=True)),
        below_optimum=fmean(
            1.0 - trial.objective / best.objective for trial, best in zip(done, exact, strict=True)
        ),
        proof=proof if proof < float("inf") else None,
        accuracy_pruned=fmean(trial.accuracy_pruned for trial in done),
        accuracy_tuned=fmean(trial.accuracy_tuned for trial in done),
        seconds=median(trial.seconds for trial in done),
    )


def _magnitude(model: nn.Sequential) -> float:
    """Summed magnitude of the hidden weights."""
    return sum(float(layer.weight.detach().double().abs().sum().item()) for layer in hidden_layers(model))


def _state(model: nn.Sequential) -> dict[str, Tensor]:
    """The network's parameters, detached from it."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
