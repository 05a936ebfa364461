"""Which runs with trained thresholds are measured, and the table that they are held against."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

from bisparse.bench.ledger import Row

__all__ = ["KEY", "NETWORKS", "STUDIES", "Case", "Network", "cases"]


@dataclass(frozen=True, slots=True)
class Network:
    """A network of the published table.

    Attributes:
        title: its name there.
        task: of the shipped recipe, without ``-dst``.
        remaining: share of weights, printed.
        accuracy: printed test accuracy of the sparse network.
    """

    title: str
    task: str
    remaining: float
    accuracy: float


# Liu et al. 2020 (arXiv 2005.06870), table 1.
NETWORKS: dict[str, Network] = {
    network.task: network
    for network in (
        Network("LeNet-300-100", "mnist-lenet-300-100", 0.0248, 0.9769),
        Network("LeNet-5", "mnist-lenet5", 0.0164, 0.9911),
        Network("LSTM-a", "mnist-lstm-a", 0.0193, 0.9870),
        Network("LSTM-b", "mnist-lstm-b", 0.0098, 0.9889),
    )
}


@dataclass(frozen=True, slots=True)
class Case:
    """One training run.

    Attributes:
        study: which question it belongs to.
        task: data and network, as the shipped recipes name them.
        kind: ``dense``, ``alpha`` (a constant penalty), ``target`` (alpha adapted until a density is reached).
        alpha: strength of the penalty, or what its adaptation starts from; 0 for dense runs.
        density: share of weights that is aimed at; 1 where there is no target.
        granularity: of thresholds.
        epochs: passes over the training data.
        seed: of weights, order and random changes.
    """

    study: str
    task: str
    kind: str
    alpha: float = 0.0
    density: float = 1.0
    granularity: str = "vector"
    epochs: int = 20
    seed: int = 0

    def row(self) -> Row:
        """The case as key columns."""
        return asdict(self)

    @property
    def name(self) -> str:
        """Of the run's folder."""
        return "-".join(str(value).replace(":", "_") for value in self.row().values())


KEY = tuple(Case.__dataclass_fields__)


def cases(study: str, seeds: int = 1) -> Iterator[Case]:
    """The runs of one study, seed by seed."""
    yield from (replace(case, seed=seed) for seed in range(seeds) for case in STUDIES[study])


def _target(task: str, alpha: float, density: float, epochs: int) -> Case:
    return Case(task, task, "target", alpha, density, epochs=epochs)


def _digits() -> tuple[Case, ...]:
    """Penalties by granularity: 40 epochs at a constant rate."""
    sweeps = {"vector": (0.0, 1e-4, 5e-4, 2e-3), "scalar": (5e-4, 2e-2), "matrix": (5e-6, 2e-5)}
    sweeps["tile:8"] = (1e-4, 5e-4)
    return tuple(
        Case("digits", "digits", "alpha", alpha, granularity=granularity, epochs=40)
        for granularity, alphas in sweeps.items()
        for alpha in alphas
    )


def _curve() -> tuple[Case, ...]:
    """LeNet-300-100: constant penalties, and densities that are asked for; in order of need."""
    task = "mnist-lenet-300-100"
    asked = tuple(replace(_target(task, 5e-4, d, 12), study="curve") for d in (0.1, 0.05, 0.025, 0.0125))
    plain = tuple(Case("curve", task, "alpha", alpha, epochs=12) for alpha in (1e-4, 5e-4, 2e-3))
    return (Case("curve", task, "dense", epochs=12), *asked, *plain)


STUDIES: dict[str, tuple[Case, ...]] = {
    "digits": _digits(),
    "mnist-lenet-300-100": (_target("mnist-lenet-300-100", 5e-4, 0.0245, 20),),
    "mnist-lenet5": (_target("mnist-lenet5", 5e-4, 0.0162, 20),),
    "mnist-lstm-a": (_target("mnist-lstm-a", 1e-3, 0.0192, 20),),
    "mnist-lstm-b": (_target("mnist-lstm-b", 1e-3, 0.0097, 20),),
    "curve": _curve(),
    "cifar": (
        Case("cifar", "cifar10-resnet20", "dense", epochs=6),
        replace(_target("cifar10-resnet20", 5e-5, 0.1, 6), study="cifar"),
        replace(_target("cifar10-resnet20", 5e-5, 0.05, 6), study="cifar"),
    ),
}
