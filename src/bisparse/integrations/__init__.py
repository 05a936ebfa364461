"""Callbacks for other people's training loops. Each module needs the package that it is named after."""

from __future__ import annotations

__all__: list[str] = []
