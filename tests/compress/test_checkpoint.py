from __future__ import annotations

import numpy as np
import pytest
import torch

from bisparse.compress.checkpoint import digest

OTHERS = [
    (torch.zeros(3), torch.ones(3)),
    (torch.zeros(3), torch.zeros(3, dtype=torch.float64)),
    (torch.zeros(2, 3), torch.zeros(3, 2)),
    (np.zeros(3), np.ones(3)),
    (np.zeros(3), np.zeros(3, dtype=np.float32)),
    ({"x": np.zeros(3)}, {"x": np.ones(3)}),
    ([1, 2], [12]),
    ("a", "b"),
]


@pytest.mark.parametrize(("one", "other"), OTHERS)
def test_other_values_have_other_digests(one: object, other: object) -> None:
    assert digest(one) != digest(other)
    assert digest([one]) == digest([one])


def test_strides_do_not_count() -> None:
    table = np.arange(6.0).reshape(2, 3)
    assert digest(table.T) == digest(np.ascontiguousarray(table.T))
    assert digest(torch.from_numpy(table).T) == digest(torch.from_numpy(table).T.contiguous())
