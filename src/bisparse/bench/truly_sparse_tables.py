"""Tables of the benchmark of truly sparse layers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean, stdev

from bisparse.bench.documents import markdown_table
from bisparse.bench.ledger import Row
from bisparse.bench.paired import paired_interval
from bisparse.bench.truly_sparse_cases import ALL, KINDS, STUDIES, TASKS
from bisparse.report import format_bytes, plain_number

__all__ = ["truly_sparse_tables"]

_PICTURE = "![Time of a step over density and over the number of weights](images/truly_sparse.png)\n"
_TOLD = {"set": "sparse, SET", "static": "sparse, static", "dense": "dense"}


def truly_sparse_tables(layers: Sequence[Row], runs: Sequence[Row]) -> dict[str, str]:
    """Text by marker name."""
    return {
        "sparse_targets": _targets(layers),
        "sparse_target": _contenders(_of(layers, study="target")),
        "sparse_large": _contenders(_of(layers, study="large")),
        "sparse_sizes": _sizes(_of(layers, study="sizes")),
        "sparse_picture": _PICTURE if _of(layers, study="sizes") else "",
        "sparse_linear": _linear(layers),
        "sparse_runs": _runs(runs),
        "sparse_machine": "".join(
            f"{machine}\n"
            for machine in sorted({f"{row['machine']}, {row['threads']} threads" for row in layers})
        ),
    }


def _of(found: Iterable[Row], /, **wanted: object) -> list[Row]:
    return [row for row in found if all(row[key] == value for key, value in wanted.items())]


def _number(row: Row, column: str) -> float:
    return float(row[column] or 0.0)


def _contenders(rows: Sequence[Row]) -> str:
    """One line per layer and contender."""
    lines = []
    for row in rows:
        dense = _of(rows, contender="dense", density=row["density"], rows=row["rows"])
        ratio = f"{_number(dense[0], 'seconds') / _number(row, 'seconds'):.2f}x" if dense else ""
        lines.append(
            [
                f"{row['rows']:,} x {row['columns']:,}",
                f"{row['connections']:,} ({_number(row, 'density'):.2g})",
                str(row["batch"]),
                str(row["contender"]),
                plain_number(1e3 * _number(row, "seconds")),
                ratio,
                format_bytes(_number(row, "grown_bytes")),
                format_bytes(_number(row, "peak_bytes")),
            ]
        )
    head = [
        "layer",
        "weights (density)",
        "batch",
        "who",
        "step, ms",
        "dense / this",
        "memory taken on",
        "process",
    ]
    return markdown_table(head, lines)


def _sizes(rows: Sequence[Row]) -> str:
    """One line per size and density, the time of every contender."""
    lines = []
    for size in dict.fromkeys(group[0].rows for group in STUDIES["sizes"]):
        densities = sorted({_number(row, "density") for row in _of(rows, rows=size)})
        for density in densities:
            found = {str(row["contender"]): row for row in _of(rows, rows=size, density=density)}
            times = {name: _number(row, "seconds") for name, row in found.items()}
            ratio = ""
            if {"dense", "bisparse"} <= times.keys():
                ratio = f"{times['dense'] / times['bisparse']:.2f}x"
            cells = [plain_number(1e3 * times[name]) if name in times else "" for name in ALL]
            lines.append([f"{size:,}, {density:.1%}", *cells, ratio])
    return markdown_table(["neurons, density", *(f"{name}, ms" for name in ALL), "dense / bisparse"], lines)


def _linear(layers: Sequence[Row]) -> str:
    """Cost for each weight that exists."""
    lines = []
    for row in sorted(
        _of(layers, contender="bisparse"), key=lambda r: (_number(r, "rows"), _number(r, "connections"))
    ):
        work = _number(row, "connections") * _number(row, "batch")
        lines.append(
            [
                f"{row['rows']:,} x {row['columns']:,}",
                f"{row['connections']:,}",
                str(row["batch"]),
                plain_number(1e9 * _number(row, "seconds") / work),
                plain_number(_number(row, "grown_bytes") / _number(row, "connections")),
            ]
        )
    head = [
        "layer",
        "weights",
        "batch",
        "ns per weight and example",
        "bytes per weight, activations included",
    ]
    return markdown_table(head, lines)


def _targets(layers: Sequence[Row]) -> str:
    lines = []
    for density, target in ((0.05, 3.0), (0.01, 10.0)):
        times = {
            str(row["contender"]): _number(row, "seconds")
            for row in _of(layers, study="target", density=density)
        }
        what = f"training step of 4000 x 3072, batch 128, {1 - density:.0%} sparse, against dense"
        ratio = times["dense"] / times["bisparse"] if {"dense", "bisparse"} <= times.keys() else None
        lines.append([what, f"{target:g}x faster", *_verdict(ratio, target, "x")])
    found = _of(layers, study="large", contender="bisparse", rows=1_000_000, connections=4_000_000)
    peak = _number(found[0], "peak_bytes") / 1e9 if found else None
    outcome = ["", "not measured"]
    if peak is not None:
        outcome = [f"{peak:.2f} GB", "met" if peak < 1.0 else f"missed by {peak - 1.0:.2f} GB"]
    lines.append(
        ["1 000 000 x 1 000 000 with 4 000 000 weights trains, whole process", "under 1 GB", *outcome]
    )
    return markdown_table(["what", "target", "measured", "outcome"], lines)


def _verdict(ratio: float | None, target: float, unit: str) -> list[str]:
    if ratio is None:
        return ["", "not measured"]
    outcome = "met" if ratio >= target else f"missed: {ratio / target:.0%} of it"
    return [f"{ratio:.2f}{unit}", outcome]


def _runs(runs: Sequence[Row]) -> str:
    """One line per task and kind: means over the seeds, differences paired by seed."""
    lines = []
    for task in TASKS:
        for epochs in sorted({_number(row, "epochs") for row in _of(runs, task=task)}):
            for kind in KINDS:
                found = _of(runs, task=task, kind=kind, epochs=epochs)
                if found:
                    dense = _of(runs, task=task, kind="dense", epochs=epochs)
                    lines.append(_run_line(task, kind, int(epochs), found, dense))
    head = ["data", "network", "epochs", "seeds", "test accuracy, %", "minus dense, 95%", "weights"]
    return markdown_table([*head, "weights, places and optimizer", "process", "CPU seconds"], lines)


def _run_line(task: str, kind: str, epochs: int, rows: Sequence[Row], dense: Sequence[Row]) -> list[str]:
    accuracy = {row["seed"]: 100.0 * _number(row, "test_accuracy") for row in rows}
    others = {row["seed"]: 100.0 * _number(row, "test_accuracy") for row in dense}
    pairs = [value - others[seed] for seed, value in accuracy.items() if seed in others and kind != "dense"]
    values = list(accuracy.values())
    spread = f" (sd {stdev(values):.2f})" if len(values) > 1 else ""
    means = {name: fmean(_number(row, name) for row in rows) for name in ("weights", "cpu_seconds")}
    sizes = [
        format_bytes(fmean(_number(row, name) for row in rows)) for name in ("state_bytes", "peak_bytes")
    ]
    return [
        task,
        _TOLD[kind],
        str(epochs),
        str(len(rows)),
        f"{fmean(values):.2f}{spread}",
        str(paired_interval(pairs)) if pairs else "",
        f"{means['weights']:,.0f}",
        *sizes,
        plain_number(means["cpu_seconds"]),
    ]
