"""The filter benchmark: its rows, and what its tables say about made-up ones."""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib.image import imread
from torch import nn

from bisparse.bench.filters_cases import KEEPS, KEY, METHODS, MODELS, Case, cases
from bisparse.bench.filters_latency import KEY as LATENCY_KEY
from bisparse.bench.filters_latency import LatencyCase, latency_cases, latency_row, latency_table
from bisparse.bench.filters_subjects import FilterSubject
from bisparse.bench.filters_tables import draw_filters, filter_tables
from bisparse.bench.ledger import Row
from bisparse.train.examples import DataParts, Pairs


def test_cases_are_distinct_and_the_most_telling_come_first() -> None:
    found = cases(retrained=False)
    assert len({tuple(case.row()[k] for k in KEY) for case in found}) == len(found)
    assert len(found) == len(MODELS) * (1 + 5 * len(METHODS))
    telling = found[len(MODELS) : len(MODELS) + 3]
    assert [(case.model, case.scores, case.keep) for case in telling] == [
        ("resnet20", "obs", 0.6),
        ("resnet20", "pfp", 0.6),
        ("resnet20", "l1", 0.6),
    ]
    retrained = cases(retrained=True)
    assert [case.model for case in retrained[:3]] == ["resnet20"] * 3
    assert all(case.rounds == 1 and case.epochs for case in retrained)


def made_up(model: str, scores: str, fit: str, keep: float, accuracy: float) -> Row:
    removed = {"parameters_removed": 1 - keep, "operations_removed": 0.3, "pruned_accuracy": accuracy}
    return Case(model, scores, fit, keep).row() | {"accuracy": accuracy} | removed


def test_tables_compare_and_pictures_are_drawn(tmp_path: Path) -> None:
    rows = [made_up("resnet20", "dense", "none", 1.0, 92.0)]
    for place, keep in enumerate(sorted(KEEPS["resnet"])):
        rows.append(made_up("resnet20", "obs", "least_squares", keep, 80.0 + place))
        rows.append(made_up("resnet20", "l1", "none", keep, 81.0 - place))
    tables = filter_tables(rows)
    assert "resnet20, dense 92.00" in tables["filters_resnet20"]
    assert tables["filters_resnet20"].splitlines()[4] == "| 10% | **84.00** | 77.00 |"
    assert "| elimination, fitted against l1 | 4 of 5 | -1.00 | +7.00 |" in tables["filters_compared"]
    assert filter_tables([])["filters_compared"] == "Not measured yet.\n"
    retrained = made_up("resnet20", "obs", "least_squares", 0.55, 91.5) | {"rounds": 1, "epochs": 3}
    line = filter_tables([*rows, retrained])["filters_retrained"].splitlines()[2]
    assert line == "| resnet20, elimination, fitted | 45.0% | 30.0% | 91.50 | 91.50 (-0.50) | 1 x 3 epochs |"
    assert draw_filters(rows, tmp_path / "filters.png") is not None
    assert draw_filters([], tmp_path / "none.png") is None


def test_many_networks_are_drawn_in_two_rows(tmp_path: Path) -> None:
    rows = [
        made_up(model, *method, keep, 80.0)
        for model in MODELS[:5]
        for method in (("dense", "none"), ("obs", "least_squares"), ("l1", "none"))
        for keep in (1.0, 0.6, 0.5)
    ]
    few, many = (
        draw_filters([row for row in rows if row["model"] in models], tmp_path / f"{len(models)}.png")
        for models in (MODELS[:3], MODELS[:5])
    )
    assert few is not None
    assert many is not None
    sizes = [imread(path).shape[:2] for path in (few, many)]
    assert sizes[1][1] == sizes[0][1]
    assert sizes[1][0] == 2 * sizes[0][0]


def test_times_before_and_after_and_their_table() -> None:
    found = latency_cases(2)
    assert len({tuple(case.row()[k] for k in LATENCY_KEY) for case in found}) == len(found) == 18
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 8, 3), nn.Flatten(), nn.Linear(512, 4)
    )
    examples = Pairs(torch.randn(1024, 3, 12, 12), torch.zeros(1024, dtype=torch.int64))
    subject = FilterSubject(model.eval(), DataParts(examples, examples))
    case = LatencyCase("resnet20", "flops:0.3", 8, 128, 1)
    row = latency_row(case, subject)
    assert float(row["operations_removed"] or 0) >= 0.7
    assert min(float(row[name] or 0) for name in ("before_ms", "after_ms")) > 0
    made_up = [
        case.row()
        | {"parameters_removed": 0.4, "operations_removed": 0.7, "before_ms": 10.0, "after_ms": after}
        | {"batch": batch}
        for batch, after in ((1, 8.0), (128, 5.0))
    ]
    line = "| resnet20, flops:0.3, widths of 8 | 1 | 40% | 70% | 1.25x (8 of 10 ms) | 2.00x (5 of 10 ms) |"
    assert latency_table(made_up).splitlines()[2] == line
    assert latency_table([]) == "Not measured yet.\n"
