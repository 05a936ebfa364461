"""A forked child must not wait for threads that only its parent has."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import os, torch
from bisparse.kernels import multiply, pack_matrix

weight = torch.randn(2048, 1024)
weight.view(-1, 2)[:, 1] = 0
packed = pack_matrix(weight, "2:4", threads=1)
x = torch.randn(2, 1024)

def product():
    return multiply(x, packed.values, packed.index, None, 1024, 2, 4, threads=2)

before = product()
child = os.fork()
if child == 0:
    os._exit(0 if product().equal(before) else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_products_run_in_forked_children() -> None:
    assert subprocess.run([sys.executable, "-c", CODE], timeout=120, check=False).returncode == 0
