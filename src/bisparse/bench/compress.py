"""Accuracy after pruning pretrained networks, row by row.

Calibration: the first 1024 images of ``data_batch_1``, or the first half of the stories; test: all 10 000 test
images, or the other half of the stories. Where more stories are asked for than the first half has, the dense network
writes them. Nothing is chosen by the test data.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bisparse.bench.compress_cases import Case
from bisparse.bench.ledger import Row
from bisparse.compress import Alps, Distill, PruneReport, fit_nm_, prune_
from bisparse.machine import describe_machine
from bisparse.weights import find_weights
from bisparse.zoo.cifar import cifar10
from bisparse.zoo.llama import Llama, pretrained_llama
from bisparse.zoo.resnet_cifar import pretrained_resnet
from bisparse.zoo.tinystories import language_loss, tinystories
from bisparse.zoo.writer import write_stories

__all__ = ["SUBJECTS", "Subject", "run_case"]


_LONG = (Alps(), Distill(min_steps=1200, rate=5e-3))


@dataclass(frozen=True)
class Subject:
    """A pretrained model, its calibration data by (samples, seed), and its measure on test data."""

    model: nn.Module
    calibration: Callable[[int, int], list[Any]]
    measure: Callable[[nn.Module], float]


def _some(total: int, samples: int, seed: int) -> Tensor:
    """The first samples, or others for another seed."""
    count = samples or total
    if not seed:
        return torch.arange(count)
    return torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:count]


def _resnet(depth: int) -> Subject:
    images, _ = cifar10("data_batch_1", 4096)
    test_images, test_labels = cifar10("test_batch")
    test_images = test_images.contiguous(memory_format=torch.channels_last)

    def calibration(samples: int, seed: int) -> list[Any]:
        chosen = _some(4096, samples or 1024, seed)
        return list(torch.split(images[chosen], 128))

    @torch.no_grad()
    def accuracy(model: nn.Module) -> float:
        model = copy.deepcopy(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        batches = zip(torch.split(test_images, 250), torch.split(test_labels, 250), strict=True)
        return sum(int((model(x).argmax(1) == y).sum()) for x, y in batches) / 100.0

    return Subject(pretrained_resnet(depth), calibration, accuracy)


def _llama() -> Subject:
    ids, mask = tinystories()
    half = len(ids) // 2
    network = pretrained_llama()

    def calibration(samples: int, seed: int) -> list[Any]:
        chosen = _some(half, min(samples, half), seed)
        texts, valid = ids[chosen], mask[chosen]
        if samples > half:  # the dense network writes what is missing
            written = write_stories(network, samples - half, ids.shape[1], seed)
            texts, valid = torch.cat([texts, written[0]]), torch.cat([valid, written[1]])
        batches = zip(torch.split(texts, 8), torch.split(valid, 8), strict=True)
        return [{"input_ids": text, "attention_mask": real} for text, real in batches]

    def loss(model: nn.Module) -> float:
        assert isinstance(model, Llama)
        return language_loss(model, ids[half:], mask[half:])

    return Subject(network, calibration, loss)


SUBJECTS: dict[str, Callable[[], Subject]] = {
    "resnet20": lambda: _resnet(20),
    "resnet32": lambda: _resnet(32),
    "llama": _llama,
}


@torch.no_grad()
def _globally_pruned(model: nn.Module, sparsity: float) -> None:
    """Zero the smallest weights over all prunable layers together."""
    weights = [weight.parameter for weight in find_weights(model)]
    threshold = torch.cat([weight.abs().flatten() for weight in weights]).quantile(sparsity)
    for weight in weights:
        weight.mul_(weight.abs() > threshold)


def run_case(case: Case, subject: Subject) -> Row:
    """Compress a copy of the subject as the case says, and measure it.

    Returns:
        The case's columns, ``measure`` (accuracy in percent, or loss per token), ``seconds`` by the clock,
        ``cpu_seconds`` of all cores together, ``machine``, and of the report: ``density``, mean layer
        ``error``, ``patterns``, whether the last stage was kept, share of ``repaired`` groups.
    """
    model = copy.deepcopy(subject.model)
    if case.sparsity:
        _globally_pruned(model, case.sparsity)
    started, worked = time.perf_counter(), time.process_time()
    report = _compress(case, model, subject)
    seconds, worked = time.perf_counter() - started, time.process_time() - worked
    row: Row = case.row()
    row |= {
        "measure": subject.measure(model),
        "seconds": round(seconds, 1),
        "cpu_seconds": round(worked, 1),
        "machine": describe_machine(),
    }
    if report is not None:
        finite = [layer.error_after for layer in report.layers if layer.error_after == layer.error_after]
        row |= {
            "density": report.density,
            "error": sum(finite) / len(finite) if finite else None,
            "patterns": " ".join(sorted({layer.pattern for layer in report.layers})),
            "distill_kept": report.notes.get("distill_kept"),
        }
        repaired = report.notes.get("violating_groups")
        if repaired:
            row["repaired"] = sum(bad for bad, _ in repaired.values()) / sum(n for _, n in repaired.values())
    return row


def _compress(case: Case, model: nn.Module, subject: Subject) -> PruneReport | None:
    if case.pattern == "unstructured" or case.reconstruct == "dense":
        return None
    data = subject.calibration(case.samples, case.seed)
    if case.pattern.startswith("fit:"):
        blind = case.reconstruct == "none"
        return fit_nm_(
            model,
            8,
            transposable=case.pattern.endswith("t"),
            calibration=None if blind else data,
            seed=case.seed,
        )
    reconstruct = _LONG if case.reconstruct == "long" else case.reconstruct
    return prune_(
        model, case.pattern, scores=case.scores, reconstruct=reconstruct, calibration=data, seed=case.seed
    )
