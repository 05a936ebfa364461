"""Run as a script: compiles the kernels for compute capability 9.0, which needs no GPU, and prints facts as JSON."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from bisparse.masks.gpu.completion import complete_tiles
from bisparse.masks.gpu.network import selection_network
from bisparse.masks.gpu.row_wise import select_groups
from bisparse.masks.gpu.sweep_lines import sweep_lines
from bisparse.masks.gpu.sweep_tiles import sweep_tiles
from bisparse.masks.gpu.ties import settle_ties

POINTERS = {
    "scores": "*bf16", "row_duals": "*fp32", "column_duals": "*fp32", "start": "*fp32", "sums": "*fp64",
    "queue": "*i32", "slow": "*i32", "stuck": "*i32", "undecided": "*i32", "waiting": "*i32", "counters": "*i32",
}  # fmt: skip


def build(kernel: Any, word: str, warps: int, **constants: Any) -> dict[str, object]:
    types = {**POINTERS, "mask": word}
    constants = {"col_stride": 1, "MAGNITUDE": False, **constants}
    signature = {n: "constexpr" if n in constants else types.get(n, "i32") for n in kernel.arg_names}
    source = ASTSource(kernel, signature, constexprs=constants)
    options = {"num_warps": warps, "num_stages": 1, "enable_fp_fusion": False}
    built = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    return {
        **resources(built.asm["cubin"]),
        "flushes denormals": ".ftz" in built.asm["ptx"],
        "fuses multiply-add": "fma.rn.f32" in built.asm["ptx"],
    }


def resources(cubin: bytes) -> dict[str, int]:
    """Registers a thread, and bytes of its stack: what did not fit into them."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run(
            [tool, "-res-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", text)
    assert found is not None, text
    return {"registers": int(found[1]), "stack": int(found[2])}


def main() -> None:
    four = {"M": 4, "K": 2, "NETWORK": selection_network(4, (1, 2))}
    sixteen = {"M": 16, "K": 8, "NETWORK": selection_network(16, (7, 8))}
    found = {
        "sweep_tiles": build(sweep_tiles, "*i32", 4, TILES=128, WORD=4, **four),
        "sweep_lines": build(sweep_lines, "*u8", 1, TILES=2, LINES=16, **sixteen),
        "complete_tiles": build(complete_tiles, "*u8", 1, M=4, K=2, TILES=8, LINES=4),
        "settle_ties": build(settle_ties, "*i32", 4, TILES=128, WORD=4, **four),
        "select_groups": build(select_groups, "*i32", 4, GROUPS=256, WORD=4, **four),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
