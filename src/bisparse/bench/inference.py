"""A language model that writes token by token: dense, packed, and quantised to int8, in one process and in turn."""

from __future__ import annotations

import copy
import ctypes
import gc
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, cast

import torch
from torch import Tensor, nn

from bisparse.bench.ledger import Row
from bisparse.export.dense import dense_state_dict
from bisparse.files.checkpoint import SINGLE_NAME, Checkpoint
from bisparse.files.packed.plan import decide, packed_files
from bisparse.files.shards import MemoryShard
from bisparse.machine import describe_machine
from bisparse.masks.solve import solve_mask
from bisparse.nn import PackedLinear
from bisparse.zoo.generation import Decoder
from bisparse.zoo.llama import Llama, LlamaConfig

__all__ = ["KEY", "VARIANTS", "Contender", "build", "masked", "quantised", "time_decoding", "wide_llama"]

KEY = ("model", "variant", "batch", "threads")
VARIANTS = (
    "dense float32",
    "packed 4:8 float32",
    "packed 2:4 float32",
    "int8 dynamic",
    "dense bfloat16",
    "packed 4:8 bfloat16",
    "packed 2:4 bfloat16",
)
_PAGE = 4096
Change = Callable[[nn.Linear], nn.Module]


@dataclass(frozen=True, slots=True)
class Contender:
    """A model that is ready to write.

    Attributes:
        model: it; embeddings and norms are shared with the others of its type.
        layer_bytes: memory of its linear layers, from their tensors.
        resident_bytes: by how much the process grew when all its layers were made; ``None`` where they were there.
        file_bytes: its file, with embeddings; ``None`` for what no safetensors file holds.
    """

    model: Llama
    layer_bytes: int
    resident_bytes: int | None
    file_bytes: int | None


def wide_llama() -> Llama:
    """One layer of a Llama of realistic width (2048, feed-forward 5632, vocabulary 32000), weights random."""
    config = LlamaConfig(
        dim=2048, hidden_dim=5632, n_layers=1, n_heads=32, n_kv_heads=4, vocab_size=32000, max_seq_len=2048
    )
    torch.manual_seed(0)
    return Llama(config).eval().requires_grad_(False)


def _repeated(model: Llama, layers: int) -> Llama:
    """The model with its first layer so many times, each with memory of its own; the rest is shared."""
    if layers == len(model.layers):
        return model
    memo: dict[int, Any] = {id(parameter): parameter for parameter in model.parameters()}
    memo |= {id(layer): layer for layer in model.layers}
    repeated = copy.deepcopy(model, memo)
    repeated.layers = nn.ModuleList([copy.deepcopy(model.layers[0]) for _ in range(layers)])
    return repeated


def masked(model: Llama, pattern: str) -> Llama:
    """The model with linear weights masked by magnitude; embeddings and norms are shared."""

    def mask(layer: nn.Linear) -> nn.Linear:
        kept = solve_mask(layer.weight, pattern, magnitude=True).mask
        copied = nn.Linear(
            layer.in_features, layer.out_features, bias=False, device="meta", dtype=layer.weight.dtype
        )
        copied.weight = nn.Parameter(layer.weight.masked_fill(~kept, 0.0), requires_grad=False)
        return copied

    return _changed(model, mask)


def quantised(layer: nn.Linear) -> nn.Module:
    """PyTorch's dynamic int8 form of a layer: int8 weights, activations quantised as they come."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # announces that it will move to another package
        quantise: Any = torch.ao.quantization.quantize_dynamic  # Any: not typed
        dynamic: nn.Module = quantise(nn.Sequential(layer), {nn.Linear})[0]
    return dynamic


def _changed(model: Llama, change: Change) -> Llama:
    """The model with every linear layer changed, everything else shared."""
    memo: dict[int, Any] = {id(parameter): parameter for parameter in model.parameters()}
    memo |= {id(layer): change(layer) for layer in model.modules() if isinstance(layer, nn.Linear)}
    return copy.deepcopy(model, memo)


def _resident() -> int:
    """Bytes of the process in memory, after everything that is free went back to the system."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE


def build(variant: str, source: Callable[[str], Llama], layers: int) -> Contender:
    """Make one contender.

    Args:
        variant: one of :data:`VARIANTS`.
        source: gives models by ``"float32"``, ``"bfloat16"``, and ``"4:8 float32"`` ... for masked ones.
        layers: how many it is to have; a model of one layer gets copies of it.

    Returns:
        The contender.
    """
    kind, _, rest = variant.partition(" ")
    model = source("float32" if kind == "int8" else rest)
    if kind == "int8":
        model = _changed(model, quantised)
    elif kind == "packed":
        model = _changed(model, PackedLinear.from_linear)
    before, single = _resident(), model  # kept until the end, or its memory would be counted as given back
    model = _repeated(single, layers)
    grown = _resident() - before
    return Contender(
        model, _layer_bytes(model), grown or None, None if kind == "int8" else _file_bytes(model)
    )


def _file_bytes(model: nn.Module) -> int:
    """Size of the file that :func:`bisparse.save_packed` writes; it is planned, not written."""
    shard = MemoryShard(SINGLE_NAME, dense_state_dict(model), {"format": "pt"})
    checkpoint = Checkpoint(Path("model"), "pickle", (shard,), {}, "", (), None, (), (), ())
    threads = torch.get_num_threads()
    rulings = decide(checkpoint, pattern=None, signed_zeros=True, threads=threads)
    codings = {name: ruling.coding for name, ruling in rulings.items()}
    return packed_files(checkpoint, codings, {SINGLE_NAME: SINGLE_NAME}).files[0].size


def _layer_bytes(model: Llama) -> int:
    """Memory of the linear layers."""
    total = 0
    for module in model.modules():
        if isinstance(module, (nn.Linear, PackedLinear)):
            total += sum(tensor.nbytes for tensor in [*module.parameters(), *module.buffers()])
        elif isinstance(module, torch.ao.nn.quantized.dynamic.Linear):
            weight: Tensor = cast(Any, module).weight()
            total += weight.numel() + 12 * weight.shape[0]  # int8, and scale, zero point and sum per row
    return total


def time_decoding(
    models: Mapping[str, Llama], *, batch: int, tokens: int = 8, rounds: int = 5, prompt: int = 4
) -> dict[str, float]:
    """Median seconds per step of each model; a step writes one token for each text of the batch.

    The models write in turn, ``tokens`` steps at a time, after a short prompt. Each touches all of its weights at every
    step, so that none stays in the caches unless the whole model fits.
    """
    samples: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(rounds + 1):
        for name, model in models.items():
            decoder = Decoder(model, prompt + tokens, batch)
            ids: Tensor = decoder.step(torch.full((batch, prompt), 1)).argmax(-1, keepdim=True)
            begin = perf_counter()
            for _ in range(tokens):
                ids = decoder.step(ids).argmax(-1, keepdim=True)
            if turn:  # the first is to warm up
                samples[name].append((perf_counter() - begin) / tokens)
    return {name: median(found) for name, found in samples.items()}


def row_of(
    name: str,
    variant: str,
    contender: Contender,
    batch: int,
    seconds: float,
    loss: float | None,
    threads: int,
) -> Row:
    """One line of the ledger."""
    return {
        "model": name,
        "variant": variant,
        "batch": batch,
        "threads": threads,
        "tokens_per_second": batch / seconds,
        "ms_per_step": 1e3 * seconds,
        "layer_bytes": contender.layer_bytes,
        "resident_bytes": contender.resident_bytes,
        "file_bytes": contender.file_bytes,
        "loss": loss,
        "machine": describe_machine(),
    }
