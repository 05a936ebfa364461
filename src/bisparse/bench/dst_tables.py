"""Tables and the picture of the benchmark of trained thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bisparse.bench.documents import markdown_table
from bisparse.bench.dst_cases import NETWORKS, STUDIES, Network
from bisparse.bench.ledger import Row
from bisparse.plots import ACCENT, INK, PALE, save_figure
from bisparse.report import plain_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_curve", "dst_tables"]


def dst_tables(rows: Sequence[Row]) -> dict[str, str]:
    """Text by marker name."""
    return {
        "dst_targets": _targets(rows),
        "dst_digits": _sweep(rows, "digits", ("granularity", "alpha")),
        "dst_curve": _sweep(rows, "curve", ("kind", "alpha", "density")),
        "dst_cifar": _sweep(rows, "cifar", ("kind", "density")),
    }


def _of(rows: Sequence[Row], study: str) -> list[Row]:
    """The rows of a study in the order of its cases."""
    cases = [case.row() for case in STUDIES[study]]
    found = [row for row in rows if row["study"] == study]
    return sorted(found, key=lambda row: _place(cases, row))


def _place(cases: Sequence[Row], row: Row) -> tuple[int, int]:
    bare = {key: row[key] for key in cases[0] if key != "seed"}
    places = [i for i, case in enumerate(cases) if bare.items() <= case.items()]
    return (places[0] if places else len(cases)), int(row["seed"] or 0)


def _number(row: Row, name: str) -> float:
    return float(row.get(name) or 0.0)


def _percent(share: float) -> str:
    return f"{100 * share:.2f}%"


def _targets(rows: Sequence[Row]) -> str:
    """Each network of the published table, and what was reached."""
    head = [
        "network",
        "printed: left",
        "accuracy",
        "here: left",
        "accuracy",
        "held out",
        "epochs",
        "seed",
        "reached",
    ]
    lines = []
    for network in NETWORKS.values():
        printed = [network.title, _percent(network.remaining), _percent(network.accuracy)]
        found = _of(rows, network.task)
        if not found:
            lines.append([*printed, *(["-"] * 5), "not run yet"])
        for row in found:
            here = [
                _percent(_number(row, name)) for name in ("remaining", "test_accuracy", "validation_accuracy")
            ]
            lines.append([*printed, *here, str(row["epochs"]), str(row["seed"]), _reached(row, network)])
    return markdown_table(head, lines)


def _reached(row: Row, network: Network) -> str:
    sparse = _number(row, "remaining") <= network.remaining
    accurate = _number(row, "test_accuracy") >= network.accuracy
    return {(True, True): "yes", (True, False): "density only", (False, True): "accuracy only"}.get(
        (sparse, accurate), "no"
    )


def _sweep(rows: Sequence[Row], study: str, columns: Sequence[str]) -> str:
    """The runs of a study, or how to measure them."""
    rows = _of(rows, study)
    if not rows:
        return f"Not measured yet: `python benchmarks/dst.py --only {study}`.\n"
    head = [*columns, "left", "test accuracy", "held out", "resets"]
    lines = [
        [
            *(_told(row[column]) for column in columns),
            *(_percent(_number(row, name)) for name in ("remaining", "test_accuracy", "validation_accuracy")),
            plain_number(_number(row, "resets"), 3),
        ]
        for row in rows
    ]
    return markdown_table(head, lines)


def _told(value: object) -> str:
    return plain_number(value, 3) if isinstance(value, float) else str(value)


def draw_curve(rows: Sequence[Row], path: Path) -> Path:
    """Draw test accuracy over the share of weights that is left, for LeNet-300-100.

    Raises:
        ImportError: matplotlib is missing; the message names the extra.
        ValueError: no run of the curve is measured.
    """
    found = [row for row in rows if row["task"] == "mnist-lenet-300-100"]
    if not found:
        raise ValueError("no run of LeNet-300-100 is measured yet: there is nothing to draw")
    network = NETWORKS["mnist-lenet-300-100"]

    def panel(axes: Axes) -> None:
        for kind, colour, label in (
            ("target", INK, "density asked for"),
            ("alpha", ACCENT, "constant alpha"),
        ):
            points = sorted(
                (_number(r, "remaining"), _number(r, "test_accuracy")) for r in found if r["kind"] == kind
            )
            if points:
                axes.plot(*zip(*points, strict=True), "o-", color=colour, label=label)
        for row in found:
            if row["kind"] == "dense":
                axes.axhline(
                    _number(row, "test_accuracy"), color=ACCENT, linestyle=":", label="dense, as long"
                )
        axes.plot([network.remaining], [network.accuracy], "x", color="black", label="printed")
        axes.set_xscale("log")
        axes.set_xlabel("share of weights that is left")
        axes.set_ylabel("test accuracy")
        axes.grid(color=PALE)
        axes.legend(fontsize=7)

    return save_figure(path, (5.0, 3.6), [panel], title="LeNet-300-100 on MNIST")
