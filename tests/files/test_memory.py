"""Streaming: resident memory, PyTorch included, stays below twice the largest tensor plus 200 MB."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bisparse.files.safetensors_header import Header, encode_header, place_tensors

LARGEST = 96 << 20
COUNT = 6

# Peak resident memory of the whole process, PyTorch and all.
PROGRAM = """
import re, sys
from pathlib import Path
from bisparse.files import inspect_file, prune_file
peak = lambda: 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
start = peak()
if sys.argv[3] == "inspect":
    assert inspect_file(sys.argv[1], pattern="4:8t").tensors
else:
    report = prune_file(sys.argv[1], sys.argv[2], sys.argv[3], ignore=[], durable=False, threads=2)
    assert len(report.pruned) == int(sys.argv[4])
print(peak(), start)
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 MB: bfloat16 and float32, matrices and convolutions, of 96 MiB each."""
    path = tmp_path_factory.mktemp("large") / "in.safetensors"
    shapes = {
        0: ("BF16", (12288, 4096)),
        1: ("F32", (6144, 4096)),
        2: ("BF16", (16384, 3072)),
        3: ("F32", (2048, 1344, 3, 3)),
    }
    listed = [(f"layers.{i}.w.weight", *shapes[i % 4]) for i in range(COUNT)]
    entries = place_tensors(listed)
    noise = np.random.default_rng(0).integers(0x3C00, 0x4000, LARGEST // 2, dtype=np.uint16).tobytes()
    with path.open("wb") as file:
        file.write(encode_header(Header(entries, {})))
        for entry in entries:
            file.write(noise[: entry.nbytes])
    return path


@pytest.mark.parametrize("job", ["4:8t", "unstructured:0.5", "inspect"])
def test_resident_memory_is_capped(large: Path, job: str) -> None:
    assert large.stat().st_size > 5 * LARGEST
    output = large.with_name("out.safetensors")
    command = [sys.executable, "-c", PROGRAM, str(large), str(output), job, str(COUNT)]
    if not Path("/proc/self/status").exists():
        pytest.skip("resident memory is read from /proc")
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    output.unlink(missing_ok=True)
    assert done.returncode == 0, done.stderr
    peak, start = map(int, done.stdout.split())
    if job.startswith("unstructured"):
        # one tensor and its mask, the one before still being written, and what the allocators hold
        assert peak - start <= 3 * LARGEST + 64_000_000
    else:
        assert peak <= 2 * LARGEST + 200_000_000, f"{peak / 1e6:.0f} MB, {start / 1e6:.0f} of it PyTorch"
