"""``bisparse train``, killed half way through writing the checkpoint of a step: python dying.py STEP WORDS ..."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bisparse.cli.app import main
from bisparse.train import trainer
from bisparse.train.run_state import save_run_state

STEP = int(sys.argv.pop(1))


def die_half_way(file: int) -> None:
    os.ftruncate(file, os.fstat(file).st_size // 2)
    os.kill(os.getpid(), signal.SIGKILL)


def save(path: Path, state: Mapping[str, Any]) -> None:
    if state["step"] >= STEP:
        os.fsync = die_half_way  # type: ignore[assignment]
    save_run_state(path, state)


if __name__ == "__main__":
    trainer.save_run_state = save  # type: ignore[attr-defined]
    sys.argv.insert(1, "train")
    main()
