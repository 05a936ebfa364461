"""Tables: divided by classes, standardised by the training part alone, the real ones as their source describes them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bisparse.zoo.folder import data_file
from bisparse.zoo.tabular import TABLES, stratified, tabular

SIZES = {  # inputs, classes, train + validation, test
    "madelon": (500, 2, 2000, 600),
    "higgs": (28, 2, 10000, 5000),
    "isolet": (617, 26, 1170, 390),
    "leukemia": (7070, 2, 54, 18),
    "colon": (2000, 2, 46, 16),
}
FILES = {
    "madelon": "madelon.npz", "higgs": "higgs_10k_5k.npz", "isolet": "Isolet.mat", "leukemia": "leukemia.mat",
    "colon": "colon.mat",
}  # fmt: skip


def real(name):
    try:
        data_file(f"tabular/{FILES[name]}")
    except FileNotFoundError as error:
        pytest.skip(f"real data: {error}")
    return tabular(name)


def write_madelon(folder, scale=1.0):
    (folder / "tabular").mkdir()
    inputs = np.arange(40, dtype=np.int16).reshape(20, 2)
    inputs[:, 1] = 7  # constant
    labels = np.array([-1, 1] * 10, dtype=np.int8)
    np.savez(
        folder / "tabular" / "madelon.npz",
        x_train=inputs,
        y_train=labels,
        x_valid=scale * inputs,
        y_valid=labels,
    )


def test_a_division_takes_the_same_share_of_every_class():
    labels = torch.tensor([0] * 8 + [1] * 4 + [2] * 20)
    stay, taken = stratified(labels, 0.25, seed=3)
    assert labels[taken].bincount().tolist() == [2, 1, 5]
    assert torch.cat([stay, taken]).sort().values.tolist() == list(range(32))
    assert torch.equal(taken, stratified(labels, 0.25, seed=3)[1])
    assert not torch.equal(taken, stratified(labels, 0.25, seed=4)[1])


@pytest.mark.parametrize(
    ("share", "message"), [(0.0, "between 0 and 1"), (0.1, "class 1 leaves one part empty")]
)
def test_impossible_divisions_are_refused(share, message):
    with pytest.raises(ValueError, match=message):
        stratified(torch.tensor([0] * 10 + [1] * 2), share)


def test_only_the_training_part_decides_how_numbers_are_standardised(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    write_madelon(tmp_path / "a")
    write_madelon(tmp_path / "b", scale=100.0)
    one, other = (tabular("madelon", folder=tmp_path / name, held_out=0.2) for name in "ab")
    assert torch.equal(one.train.inputs, other.train.inputs)
    assert one.train.inputs[:, 0].mean().item() == pytest.approx(0.0, abs=1e-6)
    assert one.train.inputs[:, 0].std(correction=0).item() == pytest.approx(1.0, rel=1e-6)
    assert not one.train.inputs[:, 1].any()  # constant: only centred
    assert other.test.inputs.abs().max() > 50
    assert (len(one.train), len(one.validation), len(one.test)) == (16, 4, 20)
    assert one.validation.targets.bincount().tolist() == [2, 2]


@pytest.mark.parametrize("name", TABLES)
def test_real_tables_are_as_their_source_says(name):
    parts = real(name)
    inputs, classes, learnt, tested = SIZES[name]
    everything = (parts.train, parts.validation, parts.test)
    assert {part.inputs.shape[1] for part in everything} == {inputs}
    assert (len(parts.train) + len(parts.validation), len(parts.test)) == (learnt, tested)
    assert all(part.targets.unique().tolist() == list(range(classes)) for part in everything)
    spread = parts.train.inputs.std(0, correction=0)
    torch.testing.assert_close(spread[spread > 0.5], torch.ones_like(spread[spread > 0.5]), rtol=1e-4, atol=0)
    assert all(part.inputs.isfinite().all() for part in everything)


def test_other_divisions_share_the_test_part_only_where_it_is_official():
    real("colon"), real("madelon")
    first, second = (tabular("colon", division=seed) for seed in (0, 1))
    assert not torch.equal(first.test.targets, second.test.targets) or not torch.equal(
        first.test.inputs, second.test.inputs
    )
    first, second = (tabular("madelon", division=seed) for seed in (0, 1))
    assert torch.equal(first.test.targets, second.test.targets)


def test_what_is_unknown_or_absent_is_said(tmp_path):
    with pytest.raises(ValueError, match="none of the tables madelon"):
        tabular("iris")
    with pytest.raises(FileNotFoundError, match="set BISPARSE_DATA"):
        tabular("colon", folder=tmp_path)
