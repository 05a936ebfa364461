"""What the benchmark of truly sparse layers measures: steps of single layers, and whole training runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

from bisparse.bench.ledger import Row

__all__ = [
    "KINDS",
    "LAYER_KEY",
    "RUN_KEY",
    "STUDIES",
    "TASKS",
    "LayerCase",
    "RunCase",
    "layer_groups",
    "run_cases",
]

ALL = ("bisparse", "dense", "masked dense", "torch CSR", "SciPy")
DENSITIES = (0.01, 0.001, 0.1, 0.2, 0.05, 0.005)


@dataclass(frozen=True, slots=True)
class LayerCase:
    """One training step of one layer.

    Attributes:
        study: which question it belongs to.
        contender: who computes.
        rows: outputs.
        columns: inputs.
        density: share of the weights that exist.
        batch: examples.
    """

    study: str
    contender: str
    rows: int
    columns: int
    density: float
    batch: int

    def row(self) -> Row:
        """The case as key columns."""
        return asdict(self)

    @property
    def connections(self) -> int:
        """Weights that exist."""
        return round(self.density * self.rows * self.columns)


@dataclass(frozen=True, slots=True)
class RunCase:
    """One training run of a shipped recipe.

    Attributes:
        task: data, as the recipes name them.
        kind: ``set`` (connections evolve), ``static`` (they stay) or ``dense`` (the same shape without zeros).
        epochs: passes over the training data.
        seed: of weights, connections, order, dropout and, where the data have no official test part, the division.
    """

    task: str
    kind: str
    epochs: int
    seed: int

    def row(self) -> Row:
        """The case as key columns."""
        return asdict(self)

    @property
    def name(self) -> str:
        """Of the run's folder."""
        return "-".join(map(str, self.row().values()))


LAYER_KEY = tuple(LayerCase.__dataclass_fields__)
RUN_KEY = tuple(RunCase.__dataclass_fields__)
KINDS = ("set", "static", "dense")


def _group(
    study: str, size: tuple[int, int], density: float, batch: int, who: tuple[str, ...] = ALL
) -> list[LayerCase]:
    return [LayerCase(study, contender, *size, density, batch) for contender in who]


# Groups are timed together, in turn; the most telling come first.
STUDIES: dict[str, list[list[LayerCase]]] = {
    "target": [_group("target", (4000, 3072), density, 128) for density in (0.05, 0.01)],
    "large": [
        _group("large", (size, size), connections / size**2, batch, ("bisparse", "SciPy"))
        for size, connections, batch in (
            (1_000_000, 4_000_000, 4),
            (100_000, 4_000_000, 4),
            (100_000, 1_000_000, 4),
            (1_000_000, 1_000_000, 4),
        )
    ],
    "sizes": [
        _group("sizes", (size, size), density, 32, ALL if density in DENSITIES[:3] else ("bisparse", "dense"))
        for density in DENSITIES
        for size in (1000, 4000, 10_000)
    ],
}

# Epochs and seeds, cheap runs first.
TASKS = {
    "colon": (40, 5),
    "leukemia": (40, 5),
    "madelon": (100, 3),
    "isolet": (100, 3),
    "higgs": (30, 3),
    "fashion-mnist": (12, 1),
}


def layer_groups(study: str) -> list[list[LayerCase]]:
    """The layers of one study, in groups that are timed together."""
    return STUDIES[study]


def run_cases(task: str, epochs: int | None = None, seeds: int | None = None) -> Iterator[RunCase]:
    """The runs of one task, seed by seed, so that what has been measured is always paired."""
    known = TASKS[task]
    base = RunCase(task, "", epochs or known[0], 0)
    for seed in range(seeds or known[1]):
        yield from (replace(base, kind=kind, seed=seed) for kind in KINDS)
