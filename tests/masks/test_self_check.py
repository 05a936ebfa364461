"""A device solver is used only after it agreed with the CPU."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial

import pytest
import torch

from bisparse.masks.exact import solve_exact
from bisparse.masks.gpu import self_check
from bisparse.masks.gpu.self_check import agrees_with_cpu, device_is_trusted
from bisparse.pattern import parse_pattern

CPU = torch.device("cpu")
RIGHT = partial(solve_exact, threads=1)


def not_best(scores, pattern):
    answer = RIGHT(scores.flip(-1), pattern)
    return replace(answer, mask=answer.mask)


def lies(scores, pattern):
    answer = RIGHT(scores, pattern)
    return replace(answer, objective=answer.objective * 1.001)


def infeasible(scores, pattern):
    answer = RIGHT(scores, pattern)
    return replace(answer, mask=torch.ones_like(answer.mask))


@pytest.mark.parametrize("pattern", ["2:4t", "4:8t", "16:32t", "1:4", "unstructured:0.9"])
def test_the_same_masks_are_trusted_and_others_are_not(pattern):
    parsed = parse_pattern(pattern)
    assert agrees_with_cpu(RIGHT, parsed, CPU)
    for wrong in (not_best, lies, infeasible, lambda *_: None):
        assert not agrees_with_cpu(wrong, parsed, CPU)


def test_a_solver_that_fails_is_said_once_and_not_used(monkeypatch, caplog):
    def broken(*_):
        raise RuntimeError("no such instruction")

    monkeypatch.setattr("bisparse.masks.triton_exact.solve_on_device", broken)
    self_check.device_is_trusted.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert not device_is_trusted(parse_pattern("2:4t"), CPU)
        assert not device_is_trusted(parse_pattern("2:4t"), CPU)
    self_check.device_is_trusted.cache_clear()
    assert len(caplog.records) == 1
    assert "RuntimeError: no such instruction" in caplog.text
    assert "solved on the CPU" in caplog.text
