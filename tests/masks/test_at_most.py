"""Patterns as upper limits: complete lines may keep less, never more."""

from __future__ import annotations

import pytest
import torch

import bisparse as bs

SPARSER = torch.tensor([[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0], [1, 1, 0, 0]]).bool()


@pytest.mark.parametrize("pattern", ["2:4t", "2:4", "unstructured:0.5", "unstructured:0"])
def test_less_is_allowed_on_request_only(pattern: str) -> None:
    assert bs.verify_mask(SPARSER, pattern, at_most=True).feasible
    assert not bs.verify_mask(SPARSER, pattern).feasible


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("1:4t", "columns of tiles break 1:4t"),
        ("1:4", "row 1, columns 0..3 keep 2, must keep at most 1"),
        ("unstructured:0.9", "keeps at most 2"),
    ],
)
def test_more_is_not(pattern: str, words: str) -> None:
    found = bs.verify_mask(SPARSER, pattern, at_most=True)
    assert not found.feasible
    assert any(words in sentence for sentence in found.violations)
    assert "exactly" not in " ".join(found.violations)
