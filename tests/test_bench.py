from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from bisparse.bench import Ledger, describe_machine, interleave, torch_threads
from bisparse.bench.documents import fill_tables, markdown_table
from bisparse.bench.mask_cases import Group, MaskCase, custom_grid, full_grid, quick_grid
from bisparse.bench.mask_contenders import product90_mask, topk_mask
from bisparse.bench.mask_plots import draw_cost, draw_methods
from bisparse.bench.mask_scores import DATA_KINDS, data_folder, make_weights, perturb
from bisparse.bench.mask_tables import mask_tables
from bisparse.bench.mask_targets import judge
from bisparse.bench.masks import open_ledger, run_masks
from bisparse.masks.solve import solve_mask
from bisparse.pattern import parse_pattern
from bisparse.report import plain_number

TINY: list[Group] = [
    (
        MaskCase("exact", "4:8t", 64, threads=1),
        MaskCase("greedy", "4:8t", 64, threads=1),
        MaskCase("exact", "4:8t", 64, start="warm 0.001", threads=1),
    ),
    (
        MaskCase("exact", "2:4", 64, "zeros80", "bfloat16", threads=1),
        MaskCase("topk", "2:4", 64, "zeros80", "bfloat16", threads=1),
        MaskCase("exact", "2:4t", 64, "student", "float64", threads=1),
        MaskCase("product90", "2:4t", 64, "student", "float64", threads=1),
    ),
]


def test_ledger_keeps_rows_across_an_interruption(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "rows.json"
    ledger = Ledger(path, ("a", "b"))
    ledger.append({"a": 1, "b": "x", "value": 0.5})
    ledger.append({"a": 2, "b": "x", "value": 1.5})
    ledger.append({"a": 1, "b": "x", "value": 2.5})
    again = Ledger(path, ("a", "b"))
    assert again.rows == [{"a": 1, "b": "x", "value": 2.5}, {"a": 2, "b": "x", "value": 1.5}]
    assert {"a": 2, "b": "x"} in again
    assert {"a": 3, "b": "x"} not in again
    assert again.find([{"a": 2, "b": "x"}, {"a": 9, "b": "x"}, {"a": 2, "b": "x"}]) == [again.rows[1]]
    assert list(tmp_path.rglob("*.part")) == []


def test_two_ledgers_fill_one_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    first, second = Ledger(path, ("a",)), Ledger(path, ("a",))
    first.append({"a": 1, "value": 1.0})
    assert {"a": 1} not in second
    second.refresh()
    assert {"a": 1} in second
    first.append({"a": 3, "value": 3.0})
    second.append({"a": 2, "value": 2.0})
    assert [row["a"] for row in Ledger(path, ("a",)).rows] == [1, 3, 2]


@pytest.mark.parametrize("text", ["{", '{"rows": []}', "[1]", '[{"a": 1}]'])
def test_ledger_refuses_a_file_that_is_not_its_own(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"JSON|key column"):
        Ledger(path, ("a", "b"))
    assert path.read_text() == text


def test_interleave_takes_turns() -> None:
    order: list[str] = []
    samples = interleave({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, repeats=4)
    assert [len(times) for times in samples.values()] == [4, 4]
    assert min(min(times) for times in samples.values()) > 0
    turns = [name for name, before in zip(order, ["", *order], strict=False) if name != before]
    assert turns == ["a", "b"] * 5  # the warm-up, then four samples
    with pytest.raises(ValueError, match="repeats=0"):
        interleave({}, repeats=0)


def test_interleave_stops_after_three_samples_when_time_is_up() -> None:
    assert len(interleave({"a": lambda: None}, repeats=9, seconds=0.0)["a"]) == 3


def test_torch_threads_are_restored() -> None:
    before = torch.get_num_threads()
    with torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_weights_have_the_named_properties() -> None:
    for kind in ("gaussian", "student", "zeros80", "zeros95"):
        weights = make_weights(kind, 96)
        assert weights.shape == (96, 96)
        assert torch.equal(weights, make_weights(kind, 96))
    assert (make_weights("zeros80", 96) == 0).float().mean() == pytest.approx(0.8, abs=1e-3)
    assert (make_weights("zeros95", 96) == 0).float().mean() == pytest.approx(0.95, abs=1e-3)
    assert make_weights("student", 512).abs().max() > 8 > make_weights("gaussian", 512).abs().max()
    change = perturb(make_weights("gaussian", 256), 0.01) - make_weights("gaussian", 256)
    assert change.std() == pytest.approx(0.01, rel=0.05)
    with pytest.raises(ValueError, match="'cauchy' is unknown"):
        make_weights("cauchy", 8)


def test_real_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if (data_folder() / "tinyllama").exists():
        weights = make_weights("real", 100)
        assert weights.shape == (100, 100)
        assert 0.01 < weights.std() < 1.0
    monkeypatch.setenv("BISPARSE_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="BISPARSE_DATA"):
        make_weights("real", 100)


def test_topk_mask_by_eye() -> None:
    scores = torch.tensor([[1.0, 5.0, 2.0, 4.0], [9.0, 3.0, 7.0, 8.0]])
    assert topk_mask(scores, parse_pattern("2:4")).int().tolist() == [[0, 1, 0, 1], [1, 0, 0, 1]]
    assert topk_mask(scores, parse_pattern("unstructured:0.5")).int().tolist() == [[0, 1, 0, 0], [1, 0, 1, 1]]
    with pytest.raises(ValueError, match="transposable"):
        topk_mask(scores, parse_pattern("2:4t"))
    with pytest.raises(ValueError, match="multiple of 8"):
        topk_mask(scores, parse_pattern("2:8"))


def test_product90_agrees_with_the_exact_solver() -> None:
    scores = torch.rand(48, 64, generator=torch.Generator().manual_seed(5))
    mask = product90_mask(scores, parse_pattern("2:4t"))
    assert torch.equal(mask, solve_mask(scores, "2:4t").mask)
    with pytest.raises(ValueError, match="whole 4 x 4 tiles"):
        product90_mask(scores[:3], parse_pattern("2:4t"))


def test_run_masks_measures_saves_and_skips_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "masks.json"
    rows = run_masks(TINY, open_ledger(path), repeats=1)
    assert [row["method"] for row in rows] == [
        "exact",
        "greedy",
        "exact",
        "exact",
        "topk",
        "exact",
        "product90",
    ]
    assert all(row["gap"] <= 1e-7 for row in rows if row["method"] != "greedy")  # type: ignore[operator]
    assert rows[1]["gap"] > 1e-3  # type: ignore[operator]
    assert all(row["seconds"] > 0 and row["passes"] > 0 for row in rows)  # type: ignore[operator]
    told: list[str] = []
    again = run_masks(TINY, open_ledger(path), repeats=1, progress=told.append)
    assert again == rows == json.loads(path.read_text())
    assert told == []


def test_an_interrupted_run_measures_only_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "masks.json"
    first = run_masks(TINY[:1], open_ledger(path), repeats=1)
    told: list[str] = []
    rows = run_masks(TINY, open_ledger(path), repeats=1, progress=told.append)
    assert rows[:3] == first
    assert len(told) == 1
    assert told[0].startswith("group 2 of 2: 4 cases")


def test_what_the_machine_lacks_is_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("BISPARSE_DATA", str(tmp_path))
    grid: list[Group] = [(MaskCase("exact", "2:4t", 64, "real"), MaskCase("exact", "2:4t", 64))]
    rows = run_masks(grid, open_ledger(None), repeats=1)
    assert [row["data"] for row in rows] == ["gaussian"]
    assert "left out" in caplog.text


def test_grids_hold_each_case_of_the_design() -> None:
    cases = [case for group in full_grid() for case in group]
    assert {case.size for case in cases} == {512, 1024, 2048, 4096, 8192}
    assert {case.data for case in cases} == set(DATA_KINDS)
    assert {case.threads for case in cases} == {1, 2}
    assert {"exact", "greedy", "two_approx", "entropic", "flow", "topk", "product90"} == {
        case.method for case in cases
    }
    assert all(case.threads == 1 and case.size == 512 for group in quick_grid(1) for case in group)
    for group in full_grid():
        assert len({(case.size, case.threads) for case in group}) == 1


def test_custom_grid_leaves_out_what_does_not_exist_and_refuses_unknown_names() -> None:
    def grid(**change: list[str]) -> list[Group]:
        base = {"data": ["gaussian"], "dtypes": ["float32"], "starts": ["cold", "warm 0.01"]}
        return custom_grid(
            methods=["exact", "greedy", "topk", "product90"],
            patterns=["2:4", "4:8t"],
            sizes=[64, 128],
            threads=[1],
            **{**base, **change},
        )

    first, second = grid()
    assert [(case.method, case.pattern, case.start) for case in first] == [
        ("exact", "2:4", "cold"),
        ("topk", "2:4", "cold"),
        ("exact", "4:8t", "cold"),
        ("greedy", "4:8t", "cold"),
        ("exact", "4:8t", "warm 0.01"),
    ]
    assert len(first) == len(second)
    for wrong in ({"data": ["cauchy"]}, {"dtypes": ["int3"]}, {"starts": ["hot"]}):
        with pytest.raises(ValueError, match=next(iter(wrong.values()))[0]):
            grid(**wrong)


def test_targets_are_judged_from_rows() -> None:
    base = MaskCase("exact", "4:8t", 4096).key("here")
    rows = [
        {**base, "passes": 7.0, "seconds": 0.05},
        {**base, "data": "zeros80", "passes": 40.0, "seconds": 0.25},
        {**base, "start": "warm 0.001", "passes": 1.0, "seconds": 0.01},
    ]
    outcomes = {verdict.what: verdict.outcome for verdict in judge(rows)}
    assert outcomes["4:8t exact, in memory passes"] == "met"
    assert outcomes["4:8t 80% zeros / Gaussian"] == "missed by 1.25x"
    assert outcomes["4:8t warm 0.001 / cold"] == "stretch"
    assert outcomes["2:4t exact, in memory passes"] == "not measured"


def test_plots_and_tables_are_made_from_rows(tmp_path: Path) -> None:
    patterns = ("2:4t", "4:8t")
    rows = [
        {**MaskCase(method, pattern, size).key("here"), **_measured(size)}
        for pattern in patterns
        for size in (1024, 4096)
        for method in ("exact", "entropic")
    ]
    assert draw_cost(rows, tmp_path / "cost.png").stat().st_size > 5000
    assert draw_methods(rows, tmp_path / "methods.png").stat().st_size > 5000
    tables = mask_tables(rows)
    assert "| 4:8t | 41.0 | 4.10 | 8.19 | 0 | 1.00x |" in tables["masks_headline"]
    assert all(table.count("\n|") >= 1 for table in tables.values())


def _measured(size: int) -> dict[str, float | None]:
    return {
        "seconds": size / 1e5, "passes": size / 500, "ns_per_weight": size / 1e3, "gap": 0.0, "rounds": 4,
        "repaired_tiles": 0, "pass_seconds": 1e-3, "samples": 7, "extrapolated_from": None,
    }  # fmt: skip


def test_documents_are_filled_between_their_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- table: one -->\nold\n<!-- end -->\nb\n<!-- table: two -->\nkept\n<!-- end -->\n")
    fill_tables([page], {"one": markdown_table(["x", "y"], [["1", "2"]])})
    assert page.read_text() == (
        "a\n<!-- table: one -->\n| x | y |\n| --- | ---: |\n| 1 | 2 |\n<!-- end -->\n"
        "b\n<!-- table: two -->\nkept\n<!-- end -->\n"
    )


def test_the_machine_is_described() -> None:
    assert torch.__version__ in describe_machine()


def test_plain_numbers_have_no_exponent() -> None:
    values = [0.0, 0.012345, 1.0, 345.6, 67890.2, float("inf"), -2.5]
    assert [plain_number(value) for value in values] == [
        "0",
        "0.0123",
        "1.00",
        "346",
        "67890",
        "inf",
        "-2.50",
    ]
