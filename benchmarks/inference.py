"""Language models that write token by token: rows to results/inference.json, tables into docs/inference.md.

Run from the repository root with ``python benchmarks/inference.py``. ``--only tiny`` (the pretrained 260 000-parameter
Llama) or ``--only wide`` (dimension 2048, random weights); ``--tables`` only rewrites the tables. What is there is not
measured again. Data come from the folder that the environment variable BISPARSE_DATA names.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console

from bisparse.bench.documents import fill_tables
from bisparse.bench.inference import (
    KEY,
    VARIANTS,
    Contender,
    build,
    masked,
    row_of,
    time_decoding,
    wide_llama,
)
from bisparse.bench.inference_tables import inference_tables
from bisparse.bench.ledger import Ledger
from bisparse.compress import prune
from bisparse.machine import bfloat16_fault
from bisparse.zoo.llama import Llama, pretrained_llama
from bisparse.zoo.tinystories import language_loss, tinystories

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
BATCHES = {"wide": (1, 4, 8), "tiny": (1, 8)}


Source = Callable[[str], Llama]


def wide_source() -> Source:
    """One layer of random weights, masked by magnitude when that is asked for."""
    dense = wide_llama()
    both = {"float32": dense, "bfloat16": copy.deepcopy(dense).bfloat16()}

    def source(name: str) -> Llama:
        pattern, _, dtype = name.rpartition(" ")
        return masked(both[dtype], pattern) if pattern else both[dtype]

    return source


def tiny_source() -> Source:
    """The pretrained model, pruned with calibration data by ALPS."""
    dense = pretrained_llama()
    ids, mask = tinystories()
    half = len(ids) // 2
    batches = zip(torch.split(ids[:half], 16), torch.split(mask[:half], 16), strict=True)
    calibration = [{"input_ids": tokens, "attention_mask": valid} for tokens, valid in batches]
    models = {"": dense} | {
        p: prune(dense, p, calibration=calibration, reconstruct="alps").model for p in ("4:8", "2:4")
    }

    def source(name: str) -> Llama:
        pattern, _, dtype = name.rpartition(" ")
        model = models[pattern]
        assert isinstance(model, Llama)
        return model if dtype == "float32" else copy.deepcopy(model).bfloat16()

    return source


def tiny_loss() -> Callable[[Llama], float]:
    """Loss per token on the half of the stories that was not used to calibrate."""
    ids, mask = tinystories()
    half = len(ids) // 2
    return lambda model: language_loss(model, ids[half:], mask[half:])


def measure(name: str, ledger: Ledger, console: Console, layers: int, rounds: int) -> None:
    """All contenders of one model, at every batch."""
    threads = torch.get_num_threads()
    keys = [
        {"model": name, "variant": v, "batch": b, "threads": threads} for b in BATCHES[name] for v in VARIANTS
    ]
    missing = [int(str(key["batch"])) for key in keys if key not in ledger]
    if not missing:
        return
    source = wide_source() if name == "wide" else tiny_source()
    contenders: dict[str, Contender] = {
        variant: build(variant, source, layers if name == "wide" else 5) for variant in VARIANTS
    }
    losses = {v: tiny_loss()(c.model) for v, c in contenders.items()} if name == "tiny" else {}
    for batch in dict.fromkeys(missing):
        console.print(f"{name}, batch {batch}")
        times = time_decoding({v: c.model for v, c in contenders.items()}, batch=batch, rounds=rounds)
        for variant, seconds in times.items():
            contender = contenders[variant]
            ledger.append(row_of(name, variant, contender, batch, seconds, losses.get(variant), threads))
            console.print(f"  {variant}: {batch / seconds:.1f} tokens/s")


def main() -> None:
    """Measure what is missing, then write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=sorted(BATCHES), help="measure one model")
    parser.add_argument("--layers", type=int, default=8, help="of the wide model")
    parser.add_argument("--rounds", type=int, default=5, help="samples of each contender")
    parser.add_argument("--tables", action="store_true", help="only rewrite the tables")
    options = parser.parse_args()
    ledger, console = Ledger(RESULTS / "inference.json", KEY), Console()
    if not options.tables and (fault := bfloat16_fault()):
        raise SystemExit(fault)
    for name in [] if options.tables else [options.only] if options.only else list(BATCHES):
        measure(name, ledger, console, options.layers, options.rounds)
    tables = inference_tables(ledger.rows)
    fill_tables([ROOT / "README.md", ROOT / "docs" / "inference.md"], tables)


if __name__ == "__main__":
    main()
