"""The log of a training run: every row as a JSON line, every epoch as a CSV line."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bisparse.train.callback import Callback, LogRow

if TYPE_CHECKING:
    from bisparse.train.train_report import TrainReport
    from bisparse.train.trainer import Trainer

__all__ = ["RunLog", "read_log"]


class RunLog(Callback):
    """Writes ``metrics.jsonl`` (epochs, and every ``every``-th step) and ``metrics.csv`` (epochs) into a folder.

    A resumed run first drops the rows behind its checkpoint: the file ends up as if it had never been stopped.
    """

    def __init__(self, folder: Path, *, every: int = 50) -> None:
        self._lines, self._table = folder / "metrics.jsonl", folder / "metrics.csv"
        self._every = every

    def on_start(self, trainer: Trainer) -> None:
        """Keep the rows up to the checkpoint."""
        if not trainer.processes.first:
            return
        self._lines.parent.mkdir(parents=True, exist_ok=True)
        kept = [row for row in read_log(self._lines) if row["step"] <= trainer.step and row["kind"] != "end"]
        self._lines.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        self._write_table(row for row in kept if row["kind"] == "epoch")

    def on_step(self, trainer: Trainer, row: LogRow) -> None:
        """Log some of the steps."""
        if trainer.step % self._every == 0:
            self._add(trainer, {"kind": "step", **row})

    def on_epoch(self, trainer: Trainer, row: LogRow) -> None:
        """Log every epoch, in both files."""
        self._add(trainer, {"kind": "epoch", **row})
        if trainer.processes.first:
            self._write_table(row for row in read_log(self._lines) if row["kind"] == "epoch")

    def on_end(self, trainer: Trainer, report: TrainReport) -> None:
        """Log the final numbers."""
        self._add(trainer, {"kind": "end", "step": trainer.step, **report.final})

    def _add(self, trainer: Trainer, row: LogRow) -> None:
        if trainer.processes.first:
            with self._lines.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")

    def _write_table(self, rows: Iterable[dict[str, Any]]) -> None:
        rows = list(rows)
        names = list(dict.fromkeys(name for row in rows for name in row if name != "kind"))
        with self._table.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, names, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)


def read_log(path: Path) -> list[dict[str, Any]]:
    """All complete rows of a ``metrics.jsonl``; none where there is no such file."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]
