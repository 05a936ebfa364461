"""What the removal of filters does to the time of a call, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from bisparse.bench.documents import markdown_table
from bisparse.bench.filters_subjects import FilterSubject
from bisparse.bench.ledger import Row
from bisparse.compress.calibration import Call
from bisparse.filters.latency import measure_latency
from bisparse.filters.prune import prune_filters
from bisparse.machine import describe_machine

__all__ = ["KEY", "LatencyCase", "latency_cases", "latency_row", "latency_table"]


@dataclass(frozen=True, slots=True)
class LatencyCase:
    """One row.

    Attributes:
        model: a network of the filter benchmark.
        budget: as :func:`bisparse.prune_filters_` takes it.
        multiple: of the widths.
        batch: images per call, 1 or 128.
        threads: that PyTorch has.
    """

    model: str
    budget: str
    multiple: int
    batch: int
    threads: int

    def row(self) -> dict[str, str | int | float | bool | None]:
        """The case as key columns."""
        return asdict(self)


KEY = tuple(LatencyCase.__dataclass_fields__)
_BUDGETS = (("params:0.6", 1), ("params:0.6", 8), ("flops:0.5", 1), ("flops:0.5", 8), ("latency:0.6", 1))


def latency_cases(threads: int) -> list[LatencyCase]:
    """ResNets, by parameters, multiply-adds and time; widths as they come, or multiples of eight.

    A budget in time is measured with the first calibration batch: 128 images.
    """
    return [
        LatencyCase(model, budget, multiple, batch, threads)
        for model in ("resnet20", "resnet32")
        for budget, multiple in _BUDGETS
        for batch in (1, 128)
        if batch == 128 or not budget.startswith("latency")
    ]


def latency_row(case: LatencyCase, subject: FilterSubject) -> Row:
    """Remove filters by sensitivity, and time the two networks in turn, in float32, with PyTorch's threads as they are.

    Returns:
        The case's columns, ``parameters_removed``, ``operations_removed`` (shares), ``before_ms``, ``after_ms``
        (medians of nine rounds), ``machine``.
    """
    inputs = [images for images, _ in subject.calibration()]
    pruned = prune_filters(
        subject.model,
        case.budget,
        calibration=inputs,
        reconstruct="none",
        multiple=case.multiple,
        latency=False,
    )
    networks = {"before": subject.model, "after": pruned.model}
    times = measure_latency(networks, Call((inputs[0][: case.batch],)), repeats=9, seconds=20.0)
    return {
        **case.row(),
        "parameters_removed": pruned.report.parameters_removed,
        "operations_removed": pruned.report.operations_removed,
        **{f"{name}_ms": round(1000 * seconds, 3) for name, seconds in times.items()},
        "machine": describe_machine(),
    }


def latency_table(rows: Sequence[Row]) -> str:
    """One line per network, budget, multiple and threads; how many times as fast, by batch."""
    lines: dict[tuple[str, ...], dict[int, Row]] = {}
    for row in sorted(
        rows, key=lambda row: (str(row["model"]), str(row["budget"]), int(row["multiple"] or 0))
    ):
        name = f"{row['model']}, {row['budget']}" + (
            f", widths of {row['multiple']}" if row["multiple"] != 1 else ""
        )
        lines.setdefault((name, str(row["threads"])), {})[int(row["batch"] or 0)] = row
    if not lines:
        return "Not measured yet.\n"
    cells = []
    for (name, threads), found in lines.items():
        one = next(iter(found.values()))
        removed = [
            f"{float(one[column] or 0.0):.0%}" for column in ("parameters_removed", "operations_removed")
        ]
        speed = [_speed(found[batch]) if batch in found else "" for batch in (1, 128)]
        cells.append([name, threads, *removed, *speed])
    head = [
        "network, budget",
        "threads",
        "parameters removed",
        "multiply-adds removed",
        "batch 1",
        "batch 128",
    ]
    return markdown_table(head, cells)


def _speed(row: Row) -> str:
    before, after = float(row["before_ms"] or 0.0), float(row["after_ms"] or 0.0)
    return f"{before / after:.2f}x ({after:.3g} of {before:.3g} ms)"
