"""The demo: exact masks with their proofs on small networks and real digits, offline, in seconds."""

from __future__ import annotations

from bisparse.demo.experiment import DemoSettings, run_demo
from bisparse.demo.report import DemoReport, DemoRow

__all__ = ["DemoReport", "DemoRow", "DemoSettings", "run_demo"]
