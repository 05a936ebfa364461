"""The machine that a number belongs to, in words."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

__all__ = ["bfloat16_fault", "busy_note", "describe_machine"]

_PRODUCT = """
import torch
with torch.no_grad():
    torch.nn.Linear(256, 256).bfloat16()(torch.zeros(2, 256).bfloat16())
"""


def describe_machine() -> str:
    """Processor, usable cores and PyTorch version; equal text means comparable numbers."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return f"{_processor()}, {cores} cores, torch {torch.__version__}"


def busy_note() -> str:
    """A warning where other processes compete for the cores, so that times cannot be trusted; else ``""``."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        load = os.getloadavg()[0]
    except (AttributeError, OSError):
        return ""
    if load < 1.5 * cores:
        return ""
    return f"the machine is busy (load {load:.1f} on {cores} cores): repeat this when it is not, times are unreliable"


def bfloat16_fault() -> str:
    """Why PyTorch's own bfloat16 products cannot be timed here, with the remedy; ``""`` where they work.

    Some virtual machines announce matrix instructions and then kill the process that uses them. So this is tried in a
    process of its own: a few seconds.
    """
    code = subprocess.run([sys.executable, "-c", _PRODUCT], capture_output=True, check=False).returncode
    if code == 0:
        return ""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "unset")
    return (
        f"PyTorch's own bfloat16 product ends the process here (exit code {code}, ONEDNN_MAX_CPU_ISA {limit}): "
        "set ONEDNN_MAX_CPU_ISA=AVX512_CORE_FP16, or AVX2, and run this again"
    )


def _processor() -> str:
    """The processor's name as Linux states it, else what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
