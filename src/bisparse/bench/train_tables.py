"""Tables of the training benchmark."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean, stdev

from bisparse.bench.documents import markdown_table
from bisparse.bench.ledger import Row
from bisparse.bench.paired import paired_interval
from bisparse.bench.train_cases import LAMBDAS, METHODS, STUDIES, Case
from bisparse.bench.train_ordering import ordering_table
from bisparse.bench.train_rows import CaseRows, points
from bisparse.report import plain_number

__all__ = ["train_tables"]


def train_tables(rows: Sequence[Row]) -> dict[str, str]:
    """Text by marker name."""
    found = CaseRows(rows)
    return {
        "train_machine": "".join(f"{machine}\n" for machine in sorted({str(row["machine"]) for row in rows})),
        "train_targets": _targets(found),
        "train_resnet": _against_dense(found, "resnet", points),
        "train_every": _every(found),
        "train_resnet_static": _static_resnet(found),
        "train_gpt": _against_dense(found, "gpt", _loss),
        "train_mnist": _against_dense(found, "mnist", points),
        "train_fashion_mnist": _against_dense(found, "fashion-mnist", points),
        "train_lambda": _lambda(found),
        "train_refresh": _refresh(found),
        "train_exact_greedy": _exact_greedy(found),
        "train_ordering": ordering_table(found),
    }


def _loss(row: Row) -> float:
    """Held-out loss in nats per character."""
    return float(row["validation_loss"] or 0.0)


def _mean(rows: Sequence[Row], measure: Callable[[Row], float], digits: int = 2) -> str:
    """Mean and standard deviation over the seeds."""
    values = [measure(row) for row in rows]
    if not values:
        return ""
    return f"{fmean(values):.{digits}f}" + (f" (sd {stdev(values):.{digits}f})" if len(values) > 1 else "")


def _number(rows: Sequence[Row], name: str, digits: int = 3) -> str:
    values = [float(row[name] or 0.0) for row in rows if row.get(name) is not None]
    return plain_number(fmean(values), digits) if values else ""


def _label(case: Case) -> list[str]:
    how = {"dynamic": "from scratch", "static": "fixed masks of the dense network"}.get(case.kind, "")
    rule = {"sr-ste": "SR-STE", "ste": "STE"}.get(case.rule, "")
    return [case.pattern or "dense", how, rule + (f", {case.method}" if case.method != "exact" else "")]


def _against_dense(rows: CaseRows, study: str, measure: Callable[[Row], float]) -> str:
    """One line per run: mean, paired difference from dense, what the masks did."""
    dense = STUDIES[study][0]
    digits = 2 if measure is points else 4
    lines = []
    for case in STUDIES[study]:
        found = rows.of(case)
        difference = None if case.kind == "dense" else rows.pairs(case, dense, measure)
        numbers = [
            _number(found, name) for name in ("diversity", "diversity_paper", "kept_magnitude", "flip_rate")
        ]
        shown = "" if difference is None else difference.told(digits)
        lines.append([*_label(case), str(len(found)), _mean(found, measure, digits), shown, *numbers])
    name = "test accuracy, %" if measure is points else "held-out loss, nats"
    head = ["pattern", "how", "rule", "seeds", name, "minus dense, 95%", "log10 masks", "paper's formula"]
    return markdown_table([*head, "magnitude kept", "flips per refresh"], lines)


def _every(rows: CaseRows) -> str:
    """How often masks are refreshed: accuracy on held-out and test images, and the time it takes."""
    lines = []
    for case in STUDIES["every"]:
        found = rows.of(replace(case, seed=0))[:1]
        shares = ["".join(f"{float(row['refresh_share']):.2%}" for row in found if row["refresh_share"])]
        held_out = [f"{100.0 * float(row['validation_accuracy'] or 0.0):.2f}" for row in found] or [""]
        numbers = [_number(found, name) for name in ("flip_rate", "flip_rate_from_start", "kept_magnitude")]
        lines.append([case.pattern, str(case.every), *held_out, _mean(found, points), *shares, *numbers])
    head = ["pattern", "every", "held-out accuracy, %", "test accuracy, %", "refresh, share of the step"]
    return markdown_table([*head, "flips per refresh", "flips from start", "magnitude kept"], lines)


def _static_resnet(rows: CaseRows) -> str:
    """Fine-tuning with the masks of the pretrained network, whose accuracy is known."""
    lines = []
    for case in STUDIES["resnet-static"]:
        found = rows.of(case)
        losses = [91.73 - points(row) for row in found]
        loss = str(paired_interval(losses)) if losses else ""
        lines.append([case.pattern, str(case.epochs), str(len(found)), _mean(found, points), loss])
    head = ["pattern", "epochs", "seeds", "test accuracy, %", "below the pretrained 91.73, 95%"]
    return markdown_table(head, lines)


def _lambda(rows: CaseRows) -> str:
    """Flips against lambda."""
    lines = []
    base = STUDIES["lambda"][0]
    for decay in LAMBDAS:
        line = [f"{decay:g}"]
        for pattern in dict.fromkeys(case.pattern for case in STUDIES["lambda"]):
            found = rows.of(replace(base, pattern=pattern, decay=decay))
            line += [
                _mean(found, points),
                _number(found, "flip_rate"),
                _number(found, "flip_rate_from_start"),
            ]
        lines.append(line)
    patterns = dict.fromkeys(case.pattern for case in STUDIES["lambda"])
    head = [
        name for pattern in patterns for name in (f"{pattern} accuracy", "SAD per step", "SAD from start")
    ]
    return markdown_table(["lambda", *head], lines)


def _refresh(rows: CaseRows) -> str:
    """Time of a refresh, as a share of a step's where masks change every 40 steps."""
    lines = []
    for base in (case for case in STUDIES["refresh"] if case.method == METHODS[0]):
        for method in METHODS:
            found = rows.of(replace(base, method=method))
            times = [plain_number(1e3 * float(r["refresh_seconds"] or 0.0)) for r in found[:1]]
            steps = [plain_number(1e3 * float(r["step_seconds"] or 0.0)) for r in found[:1]]
            share = [f"{fmean(float(r['refresh_share'] or 0.0) for r in found):.2%}"] if found else [""]
            lines.append([base.task, base.pattern, method, *(times or [""]), *(steps or [""]), *share])
    return markdown_table(
        ["network", "pattern", "solver", "refresh, ms", "step, ms", "share of the step"], lines
    )


def _exact_greedy(rows: CaseRows) -> str:
    """Does the exact mask pay in accuracy?"""
    lines = []
    for study in ("mnist", "fashion-mnist"):
        for case in STUDIES[study]:
            if case.method == "greedy":
                exact = replace(case, method="exact")
                difference = rows.pairs(exact, case, points)
                lines.append(
                    [
                        case.task,
                        case.pattern,
                        str(0 if difference is None else difference.count),
                        _mean(rows.of(exact), points),
                        _mean(rows.of(case), points),
                        "" if difference is None else str(difference),
                    ]
                )
    head = ["network", "pattern", "seeds", "exact", "greedy", "exact minus greedy, 95%"]
    return markdown_table(head, lines)


def _targets(rows: CaseRows) -> str:
    """The project's targets and what was measured."""
    lines = []
    for study, pattern in itertools.product(("resnet", "fashion-mnist", "mnist"), ("4:8t", "8:16t")):
        dense = STUDIES[study][0]
        case = next(
            c for c in STUDIES[study] if (c.kind, c.pattern, c.method) == ("dynamic", pattern, "exact")
        )
        interval = rows.pairs(case, dense, points)
        upper = None if interval is None or interval.count < 2 else interval.half - interval.mean
        what = f"accuracy lost by {pattern} from scratch, {case.task}, upper 95% bound, points"
        lines.append([what, "0.5", *_verdict(upper, 0.5, "")])
    for case in STUDIES["refresh"]:
        if case.method == "exact":
            found = rows.of(case)
            share = 100.0 * fmean(float(row["refresh_share"] or 0.0) for row in found) if found else None
            what = f"exact refresh every 40 steps, {case.task} {case.pattern}, % of the step"
            lines.append([what, "1", *_verdict(share, 1.0, "")])
    return markdown_table(["what", "target", "measured", "outcome"], lines)


def _verdict(value: float | None, target: float, unit: str) -> list[str]:
    if value is None:
        return ["", "not measured"]
    return [plain_number(value, 2) + unit, "met" if value <= target else f"missed by {value - target:.2f}"]
