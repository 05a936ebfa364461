"""Tables and the picture of the filter benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bisparse.bench.documents import markdown_table
from bisparse.bench.filters_cases import KEEPS, METHODS, MODELS, Case
from bisparse.bench.ledger import Row
from bisparse.plots import ACCENT, INK, PALE, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_filters", "filter_tables"]

_NAMES = {
    ("dense", "none", ""): "nothing removed",
    ("obs", "least_squares", ""): "elimination, fitted",
    ("pfp", "least_squares", ""): "sensitivity, fitted",
    ("pfp", "rescale", ""): "sensitivity, rescaled",
    ("pfp", "none", ""): "sensitivity",
    ("l1", "none", ""): "l1",
    ("l1", "least_squares", ""): "l1, fitted",
    ("l1", "none", "global"): "l1 across layers",
    ("l1", "least_squares", "global"): "l1 across layers, fitted",
    ("l2", "none", ""): "l2",
    ("taylor", "none", ""): "Taylor",
    ("random", "none", ""): "random",
}
_PRINTED = (
    ["printed for the method (ALDS paper)", "40.3%", "30.1%", "", "91.39 - 0.28", "full recipe"],
    ["printed for l1 filters (ALDS paper)", "39.7%", "39.6%", "", "91.39 - 0.32", "full recipe"],
)


def _case(model: str, method: tuple[str, str, str], keep: float) -> Case:
    """Without retraining."""
    scores, reconstruct, allocation = method
    return Case(model, scores, reconstruct, keep, allocation=allocation)


def _find(rows: Sequence[Row], case: Case) -> Row | None:
    wanted = case.row()
    return next((row for row in rows if all(row[key] == value for key, value in wanted.items())), None)


def _number(row: Row | None, column: str) -> float | None:
    value = None if row is None else row.get(column)
    return float(value) if isinstance(value, (int, float)) else None


def _text(value: float | None, form: str = "{:.2f}") -> str:
    return "" if value is None else form.format(value)


def _keeps(model: str) -> list[float]:
    """Shares of the parameters, from many to few."""
    return sorted(KEEPS[Case(model, "dense").kind], reverse=True)


def _one_shot(rows: Sequence[Row], model: str) -> str:
    """One line per share of parameters, one column per method; the best in bold."""
    keeps = _keeps(model)
    used = [m for m in METHODS if any(_find(rows, _case(model, m, keep)) is not None for keep in keeps)]
    lines = []
    for keep in keeps:
        found = [_find(rows, _case(model, method, keep)) for method in used]
        values = [_number(row, "accuracy") for row in found]
        best = max((value for value in values if value is not None), default=None)
        cells = [f"**{_text(v)}**" if v is not None and v == best else _text(v) for v in values]
        removed = next((_number(row, "parameters_removed") for row in found if row is not None), None)
        if removed is not None:
            lines.append([f"{1 - keep:.0%}", *cells])
    dense = _number(_find(rows, Case(model, "dense")), "accuracy")
    if not lines:
        return "Not measured yet.\n"
    table = markdown_table(["parameters removed", *(_NAMES[method] for method in used)], lines)
    return f"{model}, dense {_text(dense)}:\n\n{table}"


def _retrained(rows: Sequence[Row]) -> str:
    lines = []
    for row in sorted(
        (r for r in rows if r["rounds"]), key=lambda r: (str(r["model"]), -float(r["keep"] or 0))
    ):
        method = _NAMES[str(row["scores"]), str(row["reconstruct"]), str(row["allocation"])]
        dense = _number(_find(rows, Case(str(row["model"]), "dense")), "accuracy")
        accuracy = _number(row, "accuracy")
        change = None if dense is None or accuracy is None else accuracy - dense
        lines.append(
            [
                f"{row['model']}, {method}",
                _text(_number(row, "parameters_removed"), "{:.1%}"),
                _text(_number(row, "operations_removed"), "{:.1%}"),
                _text(_number(row, "pruned_accuracy")),
                f"{_text(accuracy)} ({_text(change, '{:+.2f}')})",
                _retraining(row),
            ]
        )
    head = [
        "network, method",
        "parameters removed",
        "multiply-adds removed",
        "pruned",
        "retrained",
        "retraining",
    ]
    return markdown_table(head, [*lines, *_PRINTED])


def _retraining(row: Row) -> str:
    parts = [f"{row['rounds']} x {row['epochs']} epochs"]
    if row["images"]:
        parts.append(f"{row['images']} images")
    if row["distilled"]:
        parts.append("distilled")
    if row["hidden"]:
        parts.append("all layers")
    return ", ".join(parts)


_PAIRS = (
    (("obs", "least_squares", ""), ("l1", "none", "")),
    (("obs", "least_squares", ""), ("l1", "least_squares", "")),
    (("obs", "least_squares", ""), ("l1", "none", "global")),
    (("obs", "least_squares", ""), ("l1", "least_squares", "global")),
    (("pfp", "rescale", ""), ("l1", "none", "")),
    (("pfp", "least_squares", ""), ("l1", "least_squares", "")),
)


def _compared(rows: Sequence[Row]) -> str:
    """How often one method is ahead of another before retraining, and by how many points at least and at most."""
    lines = []
    for first, second in _PAIRS:
        gains = [
            one - other
            for model in MODELS
            for keep in _keeps(model)
            if (one := _number(_find(rows, _case(model, first, keep)), "accuracy")) is not None
            and (other := _number(_find(rows, _case(model, second, keep)), "accuracy")) is not None
        ]
        if gains:
            ahead = f"{sum(gain > 0 for gain in gains)} of {len(gains)}"
            lines.append(
                [
                    f"{_NAMES[first]} against {_NAMES[second]}",
                    ahead,
                    f"{min(gains):+.2f}",
                    f"{max(gains):+.2f}",
                ]
            )
    if not lines:
        return "Not measured yet.\n"
    return markdown_table(["before retraining", "ahead", "least gain", "largest gain"], lines)


_WIDTHS = (("obs", "least_squares", ""), ("pfp", "rescale", ""), ("l1", "none", ""), ("l1", "none", "global"))


def _operations(rows: Sequence[Row]) -> str:
    """Share of the multiply-adds that goes with a share of the parameters, by what finds the widths."""
    lines = []
    for model in (m for m in MODELS if m.startswith("resnet")):
        for keep in _keeps(model):
            found = [_number(_find(rows, _case(model, m, keep)), "operations_removed") for m in _WIDTHS]
            if any(value is not None for value in found):
                lines.append([f"{model}, {1 - keep:.0%}", *(_text(value, "{:.0%}") for value in found)])
    if not lines:
        return "Not measured yet.\n"
    return markdown_table(
        ["parameters removed", "elimination", "sensitivity", "l1", "l1 across layers"], lines
    )


def filter_tables(rows: Sequence[Row]) -> dict[str, str]:
    """Markdown by the name of its place in the documents."""
    one_shot = {f"filters_{model.replace('-', '_')}": _one_shot(rows, model) for model in MODELS}
    return one_shot | {
        "filters_compared": _compared(rows),
        "filters_operations": _operations(rows),
        "filters_retrained": _retrained(rows),
    }


def draw_filters(rows: Sequence[Row], path: Path) -> Path | None:
    """Accuracy against the share of parameters removed, without retraining; one panel for each network measured."""
    models = [m for m in MODELS if sum(1 for r in rows if r["model"] == m and not r["rounds"]) > 3]
    if not models:
        return None
    panels = [partial(_draw_model, rows=rows, model=model, names=model == models[0]) for model in models]
    lines = 1 + (len(models) > 3)
    size = (4.2 * -(-len(models) // lines), 3.4 * lines)
    return save_figure(path, size, panels, title="before retraining", rows=lines)


def _draw_model(axes: Axes, *, rows: Sequence[Row], model: str, names: bool) -> None:
    styles = {("obs", "least_squares", ""): ("#8a4f9e", "-"), ("pfp", "least_squares", ""): (INK, "-")}
    styles |= {("pfp", "rescale", ""): (ACCENT, "-")}
    styles |= {("l1", "none", ""): ("#c8452d", "-"), ("l1", "least_squares", ""): ("#c8452d", "--")}
    styles |= {
        ("l1", "none", "global"): ("#d9a03f", "-"),
        ("l1", "least_squares", "global"): ("#d9a03f", "--"),
    }
    styles |= {("taylor", "none", ""): ("#5b9c6a", "-"), ("random", "none", ""): ("#999999", ":")}
    dense = _number(_find(rows, Case(model, "dense")), "accuracy")
    for method, (colour, style) in styles.items():
        found = [_find(rows, _case(model, method, keep)) for keep in _keeps(model)]
        points = [
            (100 * removed, accuracy)
            for row in found
            if (removed := _number(row, "parameters_removed")) is not None
            and (accuracy := _number(row, "accuracy")) is not None
        ]
        if dense is not None:
            points = [(0.0, dense), *points]
        if len(points) > 1:
            axes.plot(
                *zip(*points, strict=True),
                style,
                color=colour,
                marker="o",
                markersize=3,
                label=_NAMES[method],
            )
    axes.set_xlabel("parameters removed, %")
    axes.set_ylabel("test accuracy, %")
    axes.set_title(model, fontsize=9)
    axes.grid(color=PALE)
    if names:
        axes.legend(fontsize=6)
