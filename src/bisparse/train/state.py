"""The sparsifier's state as plain data and tensors, and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple
from typing import Any

import torch
from torch import Tensor

from bisparse.masks.result import Duals
from bisparse.pattern import TransposableNM, parse_pattern
from bisparse.train.masked_weight import MaskedWeight
from bisparse.train.measures.bits import pack, unpack
from bisparse.train.measures.record import LayerFigures, Record
from bisparse.train.sharding import Sharding
from bisparse.weights import as_matrices

__all__ = ["load_sparsifier_state", "sparsifier_state"]

_VERSION = 1
_ENTRIES = {"pattern", "shape", "steps", "refreshes", "is_dense", "figures", "mask", "first", "opening"}


def sparsifier_state(
    weights: Sequence[MaskedWeight], record: Record, *, compact: bool, hides_all: bool
) -> dict[str, Any]:
    """See :meth:`bisparse.Sparsifier.state_dict`; ``hides_all`` is that of the rule."""
    compact = compact and not hides_all
    keys = ["step", *LayerFigures().to_dict()]
    return {
        "version": _VERSION,
        "hides_all": hides_all,
        "weights": {weight.name: _weight_state(weight, record, compact) for weight in weights},
        # rows of a state that is older than a figure do not have it
        "history": {key: [row.get(key, math.nan) for row in record.history] for key in keys},
    }


def _weight_state(weight: MaskedWeight, record: Record, compact: bool) -> dict[str, Any]:
    sharding, dropped = weight.sharding, weight.mask.logical_not()
    state: dict[str, Any] = {
        "pattern": str(weight.prepared),
        "now": str(weight.pattern),
        "shape": list(weight.shape),
        "steps": weight.steps,
        "refreshes": weight.refreshes,
        "is_dense": weight.is_dense,
        "figures": list(astuple(record.layers.get(weight.name, LayerFigures()))),
        "mask": _packed(pack(weight.mask), weight),
        "first": _packed(record.first.get(weight.name, pack(weight.mask)), weight),
        "opening": _packed(record.opening.get(weight.name, pack(weight.mask)), weight),
        "fired": _packed(_fired(weight), weight),
    }
    if compact and sharding is None:
        if weight.hidden.any():  # a topology that forgets what it drops hides nothing
            state["values"] = weight.hidden[dropped]
    else:
        state["hidden"] = weight.hidden.clone() if sharding is None else sharding.wrap(weight.hidden.clone())
    if weight.average is not None:
        average = weight.average.clone()
        state["average"] = average if sharding is None else sharding.wrap(average)
    if isinstance(weight.pattern, TransposableNM):
        state["duals"] = _duals_state(weight, weight.pattern)
    if weight.learned:
        state["learned"] = {key: tensor.detach().clone() for key, tensor in weight.learned.items()}
    if weight.extra:
        state["extra"] = {key: _divided(tensor.clone(), weight) for key, tensor in weight.extra.items()}
    return state


def _fired(weight: MaskedWeight) -> Tensor:
    """Bits of what masks have kept; none before the first mask (masks may follow a ramp before they are measured)."""
    return pack(torch.zeros_like(weight.mask)) if weight.fired is None else weight.fired


def _divided(tensor: Tensor, weight: MaskedWeight) -> Tensor:
    """A tensor of the weight's shape is divided like it."""
    if weight.sharding is None or tensor.shape != weight.mask.shape:
        return tensor
    return weight.sharding.wrap(tensor)


def _dual_shardings(weight: MaskedWeight, pattern: TransposableNM) -> tuple[Sharding, Sharding] | None:
    return None if weight.sharding is None else weight.sharding.of_duals(weight.layout, pattern)


def _duals_state(weight: MaskedWeight, pattern: TransposableNM) -> dict[str, Tensor]:
    """Potentials, or zeros (a cold start): the state's form does not depend on what was solved so far."""
    shardings = _dual_shardings(weight, pattern)
    duals = weight.duals
    if duals is None:
        whole = torch.empty(weight.shape if shardings is None else weight.mask.shape, device="meta")
        batch, rows, columns = as_matrices(whole, weight.layout).shape
        down, across = -(-rows // pattern.block), -(-columns // pattern.block)
        duals = Duals(torch.zeros(batch, rows, across), torch.zeros(batch, down, columns))
    parts = (duals.rows.clone(), duals.columns.clone())
    if shardings is not None:
        parts = (shardings[0].wrap(parts[0]), shardings[1].wrap(parts[1]))
    return {"rows": parts[0], "columns": parts[1]}


def _load_duals(weight: MaskedWeight, state: Mapping[str, Tensor]) -> Duals | None:
    if not isinstance(weight.pattern, TransposableNM):
        return None
    shardings = _dual_shardings(weight, weight.pattern) or (None, None)
    rows, columns = (_part(state[key], s) for key, s in zip(("rows", "columns"), shardings, strict=True))
    return Duals(rows.clone(), columns.clone())


def _packed(bits: Tensor, weight: MaskedWeight) -> Tensor:
    """Bits of a mask, divided among processes like the weight; as bytes where its rows are cut."""
    sharding = weight.sharding
    if sharding is None:
        return bits
    if sharding.by_rows:
        return sharding.wrap_rows(bits)
    return sharding.wrap(unpack(bits, weight.mask.shape).byte())


def load_sparsifier_state(
    weights: Sequence[MaskedWeight],
    record: Record,
    state: Mapping[str, Any],
    *,
    hides_all: bool,
    before: Callable[[], None],
) -> None:
    """See :meth:`bisparse.Sparsifier.load_state_dict`; ``before`` runs once the state is known to fit."""
    _check(weights, state, hides_all)
    before()
    for weight in weights:
        _load_weight(weight, record, state["weights"][weight.name])
    columns: Mapping[str, Sequence[float]] = state["history"]
    rows = zip(*columns.values(), strict=True)
    record.history = [dict(zip(columns, row, strict=True)) for row in rows]


def _check(weights: Sequence[MaskedWeight], state: Mapping[str, Any], hides_all: bool) -> None:
    """Raise before anything is changed."""
    if state.get("version") != _VERSION:
        raise ValueError(
            f"this is no state of a sparsifier of version {_VERSION}: its keys are {sorted(state)[:5]}, its version "
            f"is {state.get('version')!r}"
        )
    _check_keys("the state", state, {"weights", "history"})
    if state.get("hides_all", hides_all) != hides_all:
        what = ("what is dropped", "all of W")
        raise ValueError(
            f"the state was saved by a rule that keeps {what[not hides_all]} aside, this sparsifier's keeps "
            f"{what[hides_all]}: prepare with the same rule"
        )
    saved, own = state["weights"], {weight.name: weight for weight in weights}
    if saved.keys() != own.keys():
        raise ValueError(
            f"the state has other weights than the model: missing {sorted(own.keys() - saved.keys())[:3]}, "
            f"unexpected {sorted(saved.keys() - own.keys())[:3]}; prepare with the same targets and ignore"
        )
    for name, weight in own.items():
        entry = saved[name]
        _check_keys(f"the state of {name}", entry, _ENTRIES)
        if tuple(entry["shape"]) != weight.shape or entry["pattern"] != str(weight.prepared):
            raise ValueError(
                f"{name}: the state was saved for {entry['pattern']} on shape {tuple(entry['shape'])}, the model "
                f"has {weight.prepared} on {weight.shape}; prepare the same model with the same pattern"
            )
        _check_learned(weight, entry)


def _check_keys(what: str, state: Mapping[str, Any], needed: set[str]) -> None:
    if missing := needed - state.keys():
        raise ValueError(
            f"{what} lacks {sorted(missing)}: it was cut or edited; load what state_dict() returned"
        )


def _check_learned(weight: MaskedWeight, state: Mapping[str, Any]) -> None:
    own = {key: tuple(tensor.shape) for key, tensor in weight.learned.items()}
    saved = {key: tuple(tensor.shape) for key, tensor in state.get("learned", {}).items()}
    if own != saved:
        raise ValueError(
            f"{weight.name}: the state holds {saved or 'nothing'} that was trained along with the weight, the "
            f"sparsifier has {own or 'nothing'}; prepare with the same rule"
        )


def _load_weight(weight: MaskedWeight, record: Record, state: Mapping[str, Any]) -> None:
    mask = _mask(weight, state["mask"])
    weight.set_mask(None if state["is_dense"] else mask)
    if "values" in state:
        weight.hidden.copy_(_expanded(weight, state))
    elif "hidden" not in state:
        weight.hidden.zero_()
    else:
        weight.hidden.copy_(_part(state["hidden"], weight.sharding))
    weight.checked = False
    weight.steps, weight.refreshes = int(state["steps"]), int(state["refreshes"])
    weight.average = _part(state["average"], weight.sharding).clone() if "average" in state else None
    weight.duals = _load_duals(weight, state["duals"]) if "duals" in state else None
    device = weight.values.device
    for key, parameter in weight.learned.items():
        parameter.copy_(state["learned"][key])
    weight.extra = {
        key: _part(extra, weight.sharding if extra.shape == weight.shape else None).to(device, copy=True)
        for key, extra in state.get("extra", {}).items()
    }
    weight.pattern = parse_pattern(state.get("now", state["pattern"]))
    weight.fired = pack(_mask(weight, state.get("fired", state["mask"])))
    if weight.refreshes:
        record.first[weight.name] = pack(_mask(weight, state["first"]))
        record.opening[weight.name] = pack(_mask(weight, state["opening"]))
        record.layers[weight.name] = LayerFigures(*state["figures"])


def _expanded(weight: MaskedWeight, state: Mapping[str, Any]) -> Tensor:
    """Hidden values of dropped entries in their places."""
    mask = unpack(state["mask"], weight.shape)
    whole = torch.zeros(weight.shape, dtype=state["values"].dtype, device=mask.device)
    whole[mask.logical_not()] = state["values"].to(mask.device)
    whole = whole.to(weight.values.device)
    return _part(whole, weight.sharding)


def _mask(weight: MaskedWeight, bits: Tensor) -> Tensor:
    """This process's part of a mask: packed, or as bytes; whole, or divided in whatever way."""
    sharding = weight.sharding
    if bits.shape == weight.shape:
        return _part(bits, sharding).bool()
    if sharding is not None and sharding.by_rows and hasattr(bits, "placements"):
        return unpack(sharding.unwrap(bits), weight.values.shape)
    return _part(unpack(_whole(bits), weight.shape).to(weight.values.device), sharding)


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def _part(tensor: Tensor, sharding: Sharding | None) -> Tensor:
    """This process's part of a tensor, whole or divided in whatever way."""
    if sharding is None:
        return _whole(tensor)
    return sharding.unwrap(tensor) if hasattr(tensor, "placements") else sharding.scatter(tensor)
