"""Time of refreshes as a share of training time."""

from __future__ import annotations

import statistics
import time
from collections import deque
from dataclasses import dataclass, field

__all__ = ["Clock"]


@dataclass(slots=True)
class Clock:
    """Seconds between steps, and seconds of refreshes.

    Attributes:
        intervals: seconds between the last steps, without what refreshes took of them.
        refreshes: how many refreshes were timed (that of ``prepare`` is not one of them).
        refresh_seconds: of all of them.
    """

    intervals: deque[float] = field(default_factory=lambda: deque(maxlen=200))
    refreshes: int = 0
    refresh_seconds: float = 0.0
    _last: float | None = None

    def tick(self, refresh_seconds: float) -> None:
        """A step is complete."""
        now = time.perf_counter()
        if refresh_seconds:
            self.refreshes += 1
            self.refresh_seconds += refresh_seconds
        if self._last is not None:
            self.intervals.append(now - self._last - refresh_seconds)
        self._last = now

    def figures(self, every: int) -> dict[str, float]:
        """Mean seconds of a refresh, median seconds of a step, and what share of the steps' time refreshes add."""
        refresh = self.refresh_seconds / self.refreshes if self.refreshes else 0.0
        step = statistics.median(self.intervals) if self.intervals else 0.0
        share = refresh / (every * step) if step else 0.0
        return {"refresh_seconds": refresh, "step_seconds": step, "refresh_share": share}
