"""Calibration data: any iterable of batches, normalised to calls of the model."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

__all__ = ["Calibration", "Call", "calibration_calls", "evaluation_state"]

Calibration: TypeAlias = "Iterable[Any] | Callable[..., Any]"


@dataclass(frozen=True, slots=True)
class Call:
    """One forward call of the model.

    Attributes:
        args: positional arguments.
        kwargs: keyword arguments.
        valid: (batch, tokens) boolean, False at padding tokens; ``None`` where every position counts.
    """

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    valid: Tensor | None = None

    def run(self, model: nn.Module) -> Any:
        """Call the model.

        Raises:
            ValueError: the model cannot run on it (shapes, dtypes, token ids out of range).
        """
        try:
            return model(*self.args, **self.kwargs)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, TypeError, IndexError) as error:
            values = ", ".join(map(_described, (*self.args, *self.kwargs.values())))
            raise ValueError(f"the model cannot run on a calibration batch ({values}): {error}") from error


def _described(value: Any) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"


def _to(value: Any, device: torch.device) -> Any:
    """Move the tensors in nested tuples, lists and mappings to a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {key: _to(item, device) for key, item in value.items()}
    if isinstance(value, (tuple, list)) and not hasattr(value, "_fields"):
        return type(value)(_to(item, device) for item in value)
    return value


def _valid_tokens(kwargs: Mapping[str, Any]) -> Tensor | None:
    """Which tokens are real, from the masks under their customary names."""
    mask = kwargs.get("attention_mask")
    if isinstance(mask, Tensor) and mask.dim() == 2:
        return mask.bool()
    for name in ("src_key_padding_mask", "key_padding_mask"):
        padding = kwargs.get(name)
        if isinstance(padding, Tensor) and padding.dtype == torch.bool:
            return ~padding
    return None


def _as_call(batch: Any, model: nn.Module, device: torch.device) -> Call:
    """One batch as a call: a tensor is the only argument, a mapping gives keywords, a tuple leading
    positionals.
    """
    batch = _to(batch, device)
    if isinstance(batch, Call):
        return batch
    parameters = list(inspect.signature(model.forward).parameters.values())
    if isinstance(batch, Mapping):
        open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters)
        names = {p.name for p in parameters}
        kwargs = {key: value for key, value in batch.items() if open_ended or key in names}
        if not kwargs:
            raise ValueError(
                f"no key of the batch ({', '.join(batch)}) is an argument of {type(model).__name__}"
            )
        return Call((), kwargs, _valid_tokens(kwargs))
    if isinstance(batch, (tuple, list)):
        kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        required = sum(p.kind in kinds and p.default is p.empty for p in parameters)
        if any(p.kind is p.VAR_POSITIONAL for p in parameters):
            required = len(batch)
        return Call(tuple(batch[: max(required, 1)]))
    return Call((batch,))


def _is_empty(call: Call) -> bool:
    """Whether a call has tensors, and all of them are without entries."""
    tensors = [value for value in (*call.args, *call.kwargs.values()) if isinstance(value, Tensor)]
    return bool(tensors) and all(tensor.numel() == 0 for tensor in tensors)


def _recorded(run: Callable[[nn.Module], Any], model: nn.Module) -> list[Call]:
    """The calls that a user's function makes of the model."""
    calls: list[Call] = []

    def record(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.append(Call(args, dict(kwargs), _valid_tokens(kwargs)))

    handle = model.register_forward_pre_hook(record, with_kwargs=True)
    try:
        with torch.no_grad():
            run(model)
    finally:
        handle.remove()
    return calls


def _returned(function: Callable[[], Any]) -> Iterable[Any]:
    """The batches that a user's function returns."""
    batches = function()
    if isinstance(batches, (Tensor, Mapping, str)) or not isinstance(batches, Iterable):
        raise ValueError(
            f"the calibration function returned one {type(batches).__name__}: return an iterable of batches, e.g. "
            "images.split(128) for a tensor of images or [batch] for one batch"
        )
    return batches


def calibration_calls(calibration: Calibration, model: nn.Module) -> list[Call]:
    """Normalise calibration data to calls of the model.

    Args:
        calibration: an iterable of batches, or a callable. A batch is a tensor (the only argument), a mapping
            (keyword arguments; keys that ``forward`` does not know are dropped; ``attention_mask`` marks
            padding), or a tuple or list, of which as many leading entries are passed as ``forward`` has
            required arguments, so that the labels of a ``DataLoader`` are dropped. A callable without
            arguments returns such an iterable; a callable with one argument is given the model and runs it
            (this costs one forward pass).
        model: the model; its first parameter names the device that tensors are moved to.

    Raises:
        ValueError: no batch at all, only empty ones, a batch without a usable key, or a callable that returns no
            iterable of batches.
        TypeError: the data are a tensor, a mapping or nothing at all instead of an iterable of batches.
    """
    if isinstance(calibration, (Tensor, Mapping, str)) or not (
        callable(calibration) or isinstance(calibration, Iterable)
    ):
        raise TypeError(
            f"calibration must be an iterable of batches, got one {type(calibration).__name__}: pass a list, "
            "e.g. images.split(128) for a tensor of images or [batch] for one batch"
        )
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    if callable(calibration) and not isinstance(calibration, Iterable):
        if any(p.default is p.empty for p in inspect.signature(calibration).parameters.values()):
            calls = _recorded(calibration, model)
        else:
            calls = [_as_call(batch, model, device) for batch in _returned(calibration)]
    else:
        calls = [_as_call(batch, model, device) for batch in calibration]
    if not calls:
        raise ValueError("calibration holds no batch (is it a generator that was used up?)")
    if all(_is_empty(call) for call in calls):
        raise ValueError("every batch of the calibration data is empty: there is no sample to learn from")
    return calls


def _eager() -> AbstractContextManager[object]:
    """Compiled modules run as they were written: compilers do not bear hooks and recorders."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


@contextmanager
def evaluation_state(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradient, caches, compilation and fused inference paths; everything is restored at
    the end.

    The fused path of ``nn.TransformerEncoderLayer`` never calls its submodules, so that no hook would see
    their inputs.

    Raises:
        ValueError: inside ``torch.inference_mode()``, where parameters cannot be changed and fitted.
    """
    if torch.is_inference_mode_enabled():
        raise ValueError(
            "call it outside torch.inference_mode(): what it computes is written into parameters"
        )
    training = {module: module.training for module in model.modules()}
    config = getattr(model, "config", None)
    use_cache = getattr(config, "use_cache", None)
    fast = torch.backends.mha.get_fastpath_enabled()
    try:
        model.eval()
        if config is not None and use_cache is not None:
            config.use_cache = False
        torch.backends.mha.set_fastpath_enabled(False)
        with _eager(), torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        if config is not None and use_cache is not None:
            config.use_cache = use_cache
        for module, mode in training.items():
            module.training = mode
