"""Which training runs are compared: rows of the training benchmark, in order of need."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

from bisparse.bench.ledger import Row

__all__ = ["EPOCHS", "HALVED", "KEY", "LAMBDAS", "METHODS", "SEEDS", "STUDIES", "Case", "cases"]

# Epochs of training from scratch, and of what starts from a dense network.
EPOCHS = {
    "cifar10-resnet20": 6,
    "mnist-lenet5": 2,
    "fashion-mnist-lenet5": 2,
    "shakespeare-gpt": 3,
    "digits": 40,
}
TUNING = {"mnist-lenet5": 1, "fashion-mnist-lenet5": 1}
# Steps between refreshes, 40 elsewhere: with that, LeNet-5 on MNIST diverges at 2:8t.
EVERY = {"mnist-lenet5": 10}
LAMBDAS = (-2e-4, 0.0, 2e-4, 2e-3, 2e-2)
METHODS = ("exact", "greedy", "two_approx", "flow")
SEEDS = {"refresh": 1, "every": 1}
# Studies under bfloat16 autocast, about twice as fast where the processor has such instructions; masks, weights and
# optimizer stay float32.
HALVED = ("resnet", "resnet-static", "mnist", "fashion-mnist")
_ROW_WISE = ("2:4", "4:8", "1:4")
_BOTH_WAYS = ("2:4t", "4:8t", "8:16t", "1:4t", "2:8t")


@dataclass(frozen=True, slots=True)
class Case:
    """One training run.

    Attributes:
        study: which question it belongs to.
        task: data and network, as the shipped recipes name them.
        kind: ``dense``, ``dynamic`` (from scratch) or ``static`` (fixed masks of a dense network).
        pattern: as text; empty for dense runs.
        rule: ``sr-ste``, ``ste`` or ``hard``; empty for dense runs.
        decay: lambda of ``sr-ste``.
        method: mask solver.
        every: steps between refreshes.
        epochs: passes over the training data.
        seed: of weights, order and random changes.
    """

    study: str
    task: str
    kind: str
    pattern: str = ""
    rule: str = ""
    decay: float = 0.0
    method: str = "exact"
    every: int = 40
    epochs: int = 1
    seed: int = 0

    def row(self) -> Row:
        """The case as key columns."""
        return asdict(self)

    @property
    def name(self) -> str:
        """Of the run's folder."""
        return "-".join(str(value).replace(":", "_") for value in self.row().values() if value != "")


KEY = tuple(Case.__dataclass_fields__)


def cases(study: str, seeds: int | None = None) -> Iterator[Case]:
    """The runs of one study, seed by seed, so that what has been measured is always paired.

    Args:
        study: one of ``STUDIES``.
        seeds: how many; ``None`` = as many as the question needs (``SEEDS``, else 3).
    """
    count = seeds or SEEDS.get(study, 3)
    yield from (replace(case, seed=seed) for seed in range(count) for case in STUDIES[study])


def _dense(study: str, task: str, epochs: int | None = None) -> Case:
    return Case(study, task, "dense", epochs=epochs or EPOCHS[task])


def _dynamic(study: str, task: str, pattern: str, rule: str = "sr-ste", method: str = "exact") -> Case:
    decay = 2e-4 if rule == "sr-ste" else 0.0
    return Case(study, task, "dynamic", pattern, rule, decay, method, EVERY.get(task, 40), EPOCHS[task])


def _static(study: str, task: str, pattern: str, epochs: int) -> Case:
    return Case(study, task, "static", pattern, "hard", epochs=epochs)


def _resnet() -> tuple[Case, ...]:
    task = "cifar10-resnet20"
    return (_dense("resnet", task), *(_dynamic("resnet", task, pattern) for pattern in ("4:8t", "8:16t")))


def _every() -> tuple[Case, ...]:
    """One run of the ``resnet`` study, its masks refreshed more often, too."""
    return tuple(replace(_dynamic("resnet", "cifar10-resnet20", "4:8t"), every=every) for every in (1, 5, 40))


def _resnet_static() -> tuple[Case, ...]:
    return tuple(_static("resnet-static", "cifar10-resnet20", "4:8t", epochs) for epochs in (1, 3))


def _gpt() -> tuple[Case, ...]:
    task = "shakespeare-gpt"
    return (_dense("gpt", task), *(_dynamic("gpt", task, pattern) for pattern in ("2:4t", "4:8t", "8:16t")))


def _lenet(task: str) -> tuple[Case, ...]:
    """Dense first: static runs start from it."""
    study = task.replace("-lenet5", "")
    return (
        _dense(study, task),
        *(_dynamic(study, task, pattern, rule) for pattern in _ROW_WISE for rule in ("ste", "sr-ste")),
        *(_dynamic(study, task, pattern) for pattern in _BOTH_WAYS),
        *(_static(study, task, pattern, TUNING[task]) for pattern in (*_ROW_WISE, *_BOTH_WAYS)),
        *(_dynamic(study, task, pattern, method="greedy") for pattern in ("2:4t", "4:8t", "8:16t")),
    )


def _lambda() -> tuple[Case, ...]:
    base = _dynamic("lambda", "digits", "2:4")
    return tuple(
        replace(base, pattern=pattern, decay=decay, every=1)
        for pattern in ("2:4", "1:4", "4:8t")
        for decay in LAMBDAS
    )


def _refresh() -> tuple[Case, ...]:
    return tuple(
        replace(_dynamic("refresh", task, pattern, method=method), every=40, epochs=1)
        for task in ("cifar10-resnet20", "shakespeare-gpt")
        for pattern in ("4:8t", "8:16t")
        for method in METHODS
    )


STUDIES: dict[str, tuple[Case, ...]] = {
    "refresh": _refresh(),
    "resnet-static": _resnet_static(),
    "lambda": _lambda(),
    "gpt": _gpt(),
    "resnet": _resnet(),
    "every": _every(),
    "fashion-mnist": _lenet("fashion-mnist-lenet5"),
    "mnist": _lenet("mnist-lenet5"),
}
