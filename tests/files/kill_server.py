"""Kills pruning runs at every one of their calls to the file system, and at random times, and checks what
follows.

A program of its own: it imports once, then forks one child per run, and uses no threads itself.
Usage: python kill_server.py FOLDER RANDOM_KILLS MODE ...
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bisparse.files import pack_file, prune_file, stream
from bisparse.files.packed import stream as packed_stream

CALLS = (
    "open",
    "pwrite",
    "write",
    "fdatasync",
    "fsync",
    "rename",
    "unlink",
    "ftruncate",
    "posix_fallocate",
    "mkdir",
)
PWRITE = os.pwrite


def die_at_call(count: int) -> None:
    """From now on this process is killed just before its count-th call, or in the middle of it if it
    writes.
    """
    seen = 0

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            nonlocal seen
            seen += 1
            if seen == count:
                if call is PWRITE:
                    call(args[0], memoryview(args[1])[: len(args[1]) // 2], args[2])
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return wrapper

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))


def run(
    source: Path, output: Path, *, force: bool, packs: bool = False, die_at: int = 0, die_after: float = 0.0
) -> bool:
    """One pruning (or packing) run in a child; False where it was killed.

    Raises:
        AssertionError: it failed in any other way.
    """
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            if die_at:
                die_at_call(die_at)
            if packs:
                pack_file(source, output, force=force, threads=2)
            else:
                prune_file(source, output, "4:8t", force=force, threads=2)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    if die_after:
        time.sleep(die_after)
        os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL, status
        return False
    assert os.WEXITSTATUS(status) == 0, f"a run failed with {status}"
    return True


def digest(path: Path) -> str:
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    stamp = hashlib.sha256()
    for file in files:
        stamp.update(str(file.relative_to(path)).encode() + file.read_bytes())
    return stamp.hexdigest()


class Trial:
    """One way of running, tried again and again from the same start."""

    def __init__(self, mode: str, folder: Path) -> None:
        self.packs = mode.startswith("pack_")
        names = {"file": "in.safetensors", "over": "in.safetensors", "pickle": "in.pt"}
        names |= {"pack_file": "sparse.safetensors", "pack_folder": "sparse"}
        self.original = folder / names.get(mode, "in")
        self.source = self.original
        outputs = {"pickle": "out.pt"} | dict.fromkeys(("file", "over", "pack_file"), "out.safetensors")
        self.output = folder / outputs.get(mode, "out")
        self.old = b"old" if mode == "over" else b""
        self.in_place = mode == "in_place"
        if self.in_place:
            self.source = self.output
        self.force = mode in ("over", "in_place")
        self.reset()
        assert run(self.source, self.output, force=self.force, packs=self.packs)
        self.wanted = digest(self.output)

    def reset(self) -> None:
        for path in [self.output, *self.output.parent.glob("*.partial*")]:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        if self.in_place:
            shutil.copytree(self.original, self.output)
        elif self.old:
            self.output.write_bytes(self.old)

    def left(self) -> list[Path]:
        return list(self.output.parent.glob("*.partial*"))

    def done(self) -> bool:
        return not self.left() and self.output.exists() and digest(self.output) == self.wanted

    def survives(self, kills: list[dict[str, float]]) -> bool:
        """Run with these kills in turn, then undisturbed; check the result. True where the first kill came in
        time; a run that goes on from an earlier one has less to do, and may be done before it is killed.
        """
        self.reset()
        landed = killed = False
        for kill in kills:
            killed = not run(self.source, self.output, force=self.force, packs=self.packs, **kill)  # type: ignore[arg-type]
            landed |= killed
            if self.old and not self.output.is_dir():
                assert self.output.read_bytes() == self.old or digest(self.output) == self.wanted, kills
            if not killed or self.done():
                break
        if killed and not self.done():
            assert run(self.source, self.output, force=self.force, packs=self.packs), kills
        assert digest(self.output) == self.wanted, kills
        assert not self.left(), (kills, self.left())
        return landed

    def survives_for(self, seconds: float) -> None:
        """Kill a run after this time, and the next one too; where the first was done by then, after half of it.

        Raises:
            AssertionError: runs are always done too early.
        """
        for halvings in range(30):
            if self.survives([{"die_after": seconds / 2**halvings}] * 2):
                return
        raise AssertionError("no run could be killed in time")


def main(mode: str, folder: Path, random_kills: int) -> None:
    stream.write_stream.__kwdefaults__["interval"] = 0.0
    packed_stream.write_steps.__kwdefaults__["interval"] = 0.0
    trial = Trial(mode, folder)
    calls = 1
    while trial.survives([{"die_at": calls}]):
        calls += 1
    chance = random.Random(mode)
    for _ in range(random_kills):
        # Threads write in any order, so the number of calls varies a little: the first kill stays clear of the end.
        places = [chance.randint(1, calls // 2), *(chance.randint(1, calls) for _ in range(2))]
        assert trial.survives([{"die_at": place} for place in places]), places
        trial.survives_for(chance.uniform(0.001, 0.06))
    print(mode, calls - 1)


if __name__ == "__main__":
    for name in sys.argv[3:]:
        main(name, Path(sys.argv[1]), int(sys.argv[2]))
