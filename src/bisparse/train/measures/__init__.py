"""What changes while masks are trained: flips, kept magnitude, time."""

from __future__ import annotations

__all__: list[str] = []
