"""Pruning a file against copying it: throughput of `prune_file` at 4:8t on a synthetic checkpoint of 2 GB.

Run from the repository root: ``python benchmarks/files.py [--gigabytes 2] [--folder DIR]``. Needs three times
that space there. Rows that this machine has measured are not measured again: delete the file to start over.

Contenders, in turn in one process: the system's own copy inside the kernel (`shutil.copyfile`), reading and
writing by pieces (`shutil.copyfileobj`, what any program that looks at the bytes must do), and pruning. Once
into the page cache, and once down to the disk: then every contender synchronises before it counts as done.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bisparse.bench.documents import fill_tables, markdown_table
from bisparse.bench.ledger import Ledger, Row
from bisparse.files import prune_file
from bisparse.files.safetensors_header import Header, encode_header, place_tensors
from bisparse.machine import describe_machine
from bisparse.report import plain_number
from bisparse.timing import interleave

ROOT = Path(__file__).resolve().parent.parent
KEY = ("machine", "pattern", "dtype", "gigabytes", "until", "contender")
CONTENDERS = ("kernel copy", "read and write", "prune")
PIECE = 4 << 20
WIDTH = 4096


def write_model(path: Path, dtype: str, size: int) -> None:
    """A checkpoint of square Gaussian matrices, about ``size`` bytes."""
    itemsize = 4 if dtype == "F32" else 2
    count = max(1, round(size / (WIDTH * WIDTH * itemsize)))
    entries = place_tensors((f"layers.{i}.linear.weight", dtype, (WIDTH, WIDTH)) for i in range(count))
    generator = np.random.default_rng(0)
    with path.open("wb") as file:
        file.write(encode_header(Header(entries, {"format": "pt"})))
        for _ in entries:
            values = generator.standard_normal((WIDTH, WIDTH), dtype=np.float32)
            bits = values.view(np.uint32)
            file.write(bits.tobytes() if dtype == "F32" else (bits >> 16).astype(np.uint16).tobytes())


def contenders(source: Path, folder: Path, pattern: str, durable: bool) -> dict[str, Callable[[], None]]:
    """What is timed; each writes a file and takes it away again."""
    target = folder / "out.safetensors"

    def finish() -> None:
        if durable:
            with target.open("rb") as file:
                os.fsync(file.fileno())
        target.unlink()

    def kernel_copy() -> None:
        shutil.copyfile(source, target)
        finish()

    def read_and_write() -> None:
        with source.open("rb") as reading, target.open("wb") as writing:
            shutil.copyfileobj(reading, writing, PIECE)
        finish()

    def prune() -> None:
        report = prune_file(source, target, pattern, ignore=[], durable=durable)
        if len(report.pruned) != len(report.tensors):
            raise RuntimeError("every tensor of the model should have been pruned")
        finish()

    return dict(zip(CONTENDERS, (kernel_copy, read_and_write, prune), strict=True))


def measure(ledger: Ledger, head: Row, folder: Path, repeats: int) -> None:
    """One row for every contender, unless all are there."""
    if all({**head, "contender": name} in ledger for name in CONTENDERS):
        return
    source = folder / "in.safetensors"
    write_model(source, str(head["dtype"]), int(float(head["gigabytes"] or 0) * 1e9))
    calls = contenders(source, folder, str(head["pattern"]), head["until"] == "disk")
    for name, samples in interleave(calls, repeats=repeats, seconds=300.0).items():
        seconds = statistics.median(samples)
        rate = source.stat().st_size / seconds / 1e9
        ledger.append({**head, "contender": name, "seconds": seconds, "gigabytes_per_second": rate})
    source.unlink()


def table(rows: list[Row]) -> str:
    """Seconds and ratios, one line for every type and place."""
    groups: dict[tuple[object, ...], dict[object, float]] = {}
    for row in rows:
        key = (row["machine"], row["pattern"], row["dtype"], row["gigabytes"], row["until"])
        groups.setdefault(key, {})[row["contender"]] = float(row["seconds"] or 0.0)
    lines = [
        [
            f"{dtype}, {gigabytes} GB at {pattern}, to the {until}",
            *(plain_number(times[name], 3) for name in CONTENDERS),
            *(plain_number(times["prune"] / times[name], 2) for name in CONTENDERS[:2]),
        ]
        for (_, pattern, dtype, gigabytes, until), times in groups.items()
        if len(times) == len(CONTENDERS)
    ]
    head = ("seconds", *CONTENDERS, "prune / kernel copy", "prune / read and write")
    machines = "; ".join(dict.fromkeys(str(row["machine"]) for row in rows))
    return markdown_table(head, lines) + f"\n{machines}. Medians of interleaved runs.\n"


def main() -> None:
    """Measure what is missing, then print and write everything."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--pattern", default="4:8t")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--folder", type=Path, help="where the files go; default: the system's temporary folder"
    )
    options = parser.parse_args()
    ledger = Ledger(ROOT / "benchmarks" / "results" / "files.json", KEY)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for dtype in ("F32", "BF16"):
            for until in ("page cache", "disk"):
                head: Row = {
                    "machine": describe_machine(),
                    "pattern": options.pattern,
                    "dtype": dtype,
                    "gigabytes": options.gigabytes,
                    "until": until,
                }
                measure(ledger, head, Path(folder), options.repeats if until == "page cache" else 3)
    print(table(ledger.rows))
    fill_tables([ROOT / "docs" / "files.md"], {"files": table(ledger.rows)})


if __name__ == "__main__":
    main()
