"""The same tests give the same answer: whatever ran before them, and however busy the machine is."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, settings

# Examples are those of the test's own text, and may take their time; --hypothesis-profile=default searches on.
settings.register_profile(
    "repeatable", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("repeatable")


def seed() -> None:
    torch.manual_seed(20_271)


def pytest_collectstart() -> None:
    seed()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    seed()
