"""Recipes whose masks evolve: they run, end verified, and go on where they stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bisparse.recipes import load_recipe, train_recipe

QUICK = ["epochs=2", "loop.threads=1", "loop.device=cpu", "loop.steps_per_epoch=12", "schedule.every=4"]


def run(name: str, output: Path, *changes: str, **options: Any) -> Any:
    return train_recipe(load_recipe(name, [*QUICK, f"output={output}", *changes]), **options)


@pytest.mark.parametrize("name", ["digits-mlp-set", "digits-mlp-rigl", "digits-mlp-rigl-tiles"])
def test_they_run_and_end_verified(name: str, tmp_path: Path) -> None:
    report = run(name, tmp_path)
    assert all(mask.holds for mask in report.masks)
    measures = report.measures
    assert measures["density"] == pytest.approx(0.5 if "tiles" in name else 0.1, abs=1e-4)
    assert measures["explored"] > measures["density"]
    assert measures["edge_distance_from_start"] > 0.0
    assert report.rows[-1]["explored"] == measures["explored"]


@pytest.mark.parametrize(
    "topology", ["snfs", "{name: set, neurons: {start: 2, every: 1, share: 0.2}}", "static"]
)
def test_other_topologies_by_one_key(topology: str, tmp_path: Path) -> None:
    report = run("digits-mlp-set", tmp_path, f"topology={topology}")
    assert all(mask.holds for mask in report.masks)
    measures = report.measures
    assert (measures["explored"] > 0.1001) is (topology != "static")
    assert (measures["density"] < 0.0999) is ("neurons" in topology)


class Stop(Exception):  # noqa: N818
    """Stands for a kill."""


def test_a_stopped_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    from bisparse.train.callback import Callback

    class Kill(Callback):
        def on_step(self, trainer: Any, row: Any) -> None:
            if trainer.step == 15:
                raise Stop

    changes = ["loop.checkpoint_every=5", "topology.grow=momentum", "topology.redistribute=momentum"]
    run("digits-mlp-set", tmp_path / "through", *changes)
    with pytest.raises(Stop):
        run("digits-mlp-set", tmp_path / "stopped", *changes, callbacks=[Kill()])
    run("digits-mlp-set", tmp_path / "stopped", *changes, resume=True)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("through", "stopped"))
    assert all(torch.equal(one[key], two[key]) for key in one)
