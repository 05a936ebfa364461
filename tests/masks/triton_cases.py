"""Run as a script under Triton's interpreter: solves small cases on "the device" and prints what came out as JSON.

A program of its own, because the interpreter must be switched on before Triton is imported.
"""

from __future__ import annotations

import json
import os
from importlib import import_module

os.environ["TRITON_INTERPRET"] = "1"

import torch
from torch import Tensor

import bisparse as bs
from bisparse.masks.exact import ExactAnswer
from bisparse.masks.result import Duals
from bisparse.masks.triton_exact import solve_on_device

# Name -> pattern, shape, kind of scores, dtype. Shapes end in the middle of a tile where they can.
CASES = {
    "2:4t": ("2:4t", (8, 32), "gaussian", "float32"),
    "1:4t": ("1:4t", (12, 20), "gaussian", "float32"),
    "4:8t": ("4:8t", (16, 32), "gaussian", "float32"),
    "8:16t": ("8:16t", (16, 32), "gaussian", "float32"),
    "16:32t": ("16:32t", (32, 32), "gaussian", "float32"),
    "block 6": ("2:6t", (12, 18), "gaussian", "float32"),
    "block 12": ("5:12t", (12, 12), "gaussian", "float32"),
    "bfloat16": ("4:8t", (16, 16), "gaussian", "bfloat16"),
    "float16": ("2:4t", (8, 16), "gaussian", "float16"),
    "zeros 2:4t": ("2:4t", (8, 16), "80% zeros", "float32"),
    "zeros 4:8t": ("4:8t", (16, 16), "80% zeros", "float32"),
    "zeros 8:16t": ("8:16t", (16, 16), "80% zeros", "float32"),
    "all zero": ("2:4t", (4, 8), "zero", "float32"),
    "integers": ("2:4t", (4, 12), "integers", "float32"),
    "decades": ("2:4t", (8, 16), "decades", "float32"),
    "ragged 2:4t": ("2:4t", (7, 14), "gaussian", "float32"),
    "ragged 3:8t": ("3:8t", (8, 13), "gaussian", "float32"),
    "ragged zeros": ("2:4t", (7, 9), "80% zeros", "float32"),
    "small 8:16t": ("8:16t", (10, 12), "gaussian", "float32"),
    "batch": ("2:4t", (2, 3, 4, 8), "gaussian", "float32"),
    "row-wise 2:4": ("2:4", (6, 19), "gaussian", "float32"),
    "row-wise ties": ("3:8", (6, 32), "integers", "float32"),
    "row-wise bfloat16": ("1:4", (5, 16), "gaussian", "bfloat16"),
    "unstructured": ("unstructured:0.7", (9, 11), "integers", "float32"),
}
INVALID = {"nan": float("nan"), "infinity": float("inf"), "negative": -1.0}
REFUSED = [(name, pattern) for name in INVALID for pattern in ("2:4", "unstructured:0.5")]
REFUSED += [("nan", "2:4t"), ("negative", "2:4t"), ("infinity", "8:16t")]


def draw(kind: str, shape: tuple[int, ...], dtype: str) -> Tensor:
    random = torch.Generator().manual_seed(5)
    normal = torch.randn(shape, generator=random).abs()
    uniform = torch.rand(shape, generator=random)
    return {
        "gaussian": normal,
        "80% zeros": normal * (uniform > 0.8),
        "zero": torch.zeros(shape),
        "integers": (4 * uniform).floor(),
        "decades": 10 ** (24 * uniform - 12),
    }[kind].to(getattr(torch, dtype))


def compare(scores: Tensor, pattern: str, answer: ExactAnswer | None) -> dict[str, object]:
    """The device's answer beside the CPU's, and what the independent verifier says of it."""
    assert answer is not None
    expected = bs.solve_mask(scores, pattern)
    mask = answer.mask.reshape(scores.shape)
    duals = None
    if answer.duals is not None:
        lead = scores.shape[:-2]
        rows, columns = answer.duals.rows, answer.duals.columns
        duals = Duals(rows.reshape(*lead, *rows.shape[1:]), columns.reshape(*lead, *columns.shape[1:]))
    found = bs.verify_mask(mask, pattern, scores=scores, duals=duals)
    return {
        "violations": list(found.violations),
        "gap": found.gap if found.objective else 0.0,
        "stated gap": (answer.bound - answer.objective) / max(answer.objective, 1e-30),
        "objective": answer.objective,
        "expected": expected.objective,
        "same mask": torch.equal(mask, expected.mask),
        "rounds": answer.rounds,
        "expected rounds": expected.rounds,
        "repaired": answer.repaired_tiles,
    }


def solve(scores: Tensor, pattern: str, **options: object) -> ExactAnswer | None:
    matrices = scores.unsqueeze(0).flatten(0, -3)
    wants_duals = {"return_duals": True} if pattern.endswith("t") else {}
    return solve_on_device(matrices, bs.parse_pattern(pattern), **wants_duals, **options)  # type: ignore[arg-type]


def run_special() -> dict[str, dict[str, object]]:
    rows: dict[str, dict[str, object]] = {}
    scores = draw("gaussian", (16, 16), "float32")
    cold = solve(scores, "4:8t")
    assert cold is not None
    assert cold.duals is not None
    moved = scores * (1 + 1e-3 * torch.rand(scores.shape, generator=torch.Generator().manual_seed(1)))
    rows["warm"] = compare(moved, "4:8t", solve(moved, "4:8t", warm_columns=cold.duals.columns))
    wild = cold.duals.columns * float("inf")
    rows["warm, not finite"] = compare(scores, "4:8t", solve(scores, "4:8t", warm_columns=wild))
    signed = scores * torch.where(scores > 0.5, 1, -1)
    rows["magnitude"] = compare(scores, "4:8t", solve(signed, "4:8t", magnitude=True))
    turned = draw("gaussian", (12, 16), "float32").t()
    rows["transposed view"] = compare(turned, "2:4t", solve(turned, "2:4t"))
    for name, pattern in REFUSED:
        bad = draw("gaussian", (16, 16), "float32")
        bad[15, 3] = INVALID[name]
        rows[f"{name} {pattern}"] = {"refused": solve(bad, pattern) is None}
    empty = solve(torch.zeros(0, 8), "2:4t")
    rows["empty"] = {"objective": empty.objective if empty else None}
    return rows


def run_whole() -> dict[str, dict[str, object]]:
    """``solve_mask`` itself, told that scores are on a device: shapes, duals, warm start and errors all the way."""
    solve_module = import_module("bisparse.masks.solve")
    solve_module.on_device = lambda _: True  # type: ignore[attr-defined]
    scores = draw("gaussian", (2, 1, 4, 6), "float32")
    first = bs.solve_mask(scores, "2:4t", return_duals=True)
    again = bs.solve_mask(scores, "2:4t", warm_start=first)
    assert first.duals is not None
    found = bs.verify_mask(first.mask, "2:4t", scores=scores, duals=first.duals)
    scores[1, 0, 3, 5] = float("nan")
    try:
        bs.solve_mask(scores, "2:4t")
        message = ""
    except ValueError as error:
        message = str(error)
    return {
        "whole": {
            "optimal": found.optimal,
            "rounds": [first.rounds, again.rounds],
            "objectives": [first.objective, again.objective],
            "shapes": [list(first.mask.shape), list(first.duals.rows.shape), list(first.duals.columns.shape)],
            "message": message,
        }
    }


def main() -> None:
    torch.set_num_threads(1)
    rows = {}
    for name, (pattern, shape, kind, dtype) in CASES.items():
        scores = draw(kind, shape, dtype)
        rows[name] = compare(scores, pattern, solve(scores, pattern))
    print(json.dumps({**rows, **run_special(), **run_whole()}))


if __name__ == "__main__":
    main()
