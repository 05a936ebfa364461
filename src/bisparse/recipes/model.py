"""The section of a recipe that names a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from bisparse.compress.entry import load_entry, load_model
from bisparse.recipes.base import Section
from bisparse.recipes.errors import RecipeError

__all__ = ["MODELS", "ModelSection"]

# Name -> module, function and fixed arguments. To add one, add a line.
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "mlp": ("bisparse.zoo.mlp", "mlp", {}),
    "lenet-300-100": ("bisparse.zoo.lenet", "lenet_300_100", {}),
    "lenet5": ("bisparse.zoo.lenet", "lenet5", {}),
    "resnet20": ("bisparse.zoo.resnet_cifar", "resnet_cifar", {"depth": 20}),
    "resnet32": ("bisparse.zoo.resnet_cifar", "resnet_cifar", {"depth": 32}),
    "resnet56": ("bisparse.zoo.resnet_cifar", "resnet_cifar", {"depth": 56}),
    "sparse-mlp": ("bisparse.nn.sparse_mlp", "SparseMLP", {}),
    "lstm": ("bisparse.zoo.lstm", "lstm_classifier", {}),
    "gpt": ("bisparse.zoo.gpt", "gpt", {}),
}


class ModelSection(Section):
    """A model of the zoo, ``module:function``, or a local folder of ``transformers`` (with ``config.json``).

    Attributes:
        name: which.
        options: keyword arguments of the function.
        pretrained: take the weights in the folder, or those of the zoo's pretrained networks.
        weights: a file with a state dict to begin from.
    """

    name: str = Field(min_length=1)
    options: dict[str, Any] = Field(default={})
    pretrained: bool = False
    weights: str | None = None

    def build(self, seed: int) -> nn.Module:
        """The model, its random weights drawn with the seed; PyTorch's global generator is left as it was.

        Raises:
            RecipeError: no such model, wrong options, or weights that do not fit.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = self._make()
        if self.weights is not None:
            _load_weights(model, Path(self.weights))
        return model

    def _make(self) -> nn.Module:
        if self.name in MODELS:
            module, function, fixed = MODELS[self.name]
            if self.pretrained:
                return _pretrained(self.name, fixed)
            return self._call(getattr(import_module(module), function), fixed)
        if (folder := Path(self.name)).is_dir():
            return load_model(self.name) if self.pretrained else _from_config(folder, self.options)
        if ":" not in self.name:
            raise RecipeError(
                f"model.name: {self.name!r} is not one of {', '.join(MODELS)}, no module:function, and no folder"
            )
        try:
            entry = load_entry(self.name)
        except ValueError as error:
            raise RecipeError(f"model.name: {error}") from error
        model = entry if isinstance(entry, nn.Module) else self._call(entry, {})
        if not isinstance(model, nn.Module):
            raise RecipeError(
                f"model.name: {self.name!r} gives a {type(model).__name__}, not a torch.nn.Module"
            )
        return model

    def _call(self, function: Callable[..., nn.Module], fixed: Mapping[str, Any]) -> nn.Module:
        try:
            return function(**{**fixed, **self.options})
        except (TypeError, ValueError) as error:
            raise RecipeError(f"model.options: {error}") from error


def _pretrained(name: str, fixed: Mapping[str, Any]) -> nn.Module:
    from bisparse.zoo.resnet_cifar import pretrained_resnet

    if not name.startswith("resnet"):
        raise RecipeError(f"model.pretrained: the zoo has no pretrained {name}; give weights: FILE instead")
    return pretrained_resnet(fixed["depth"]).train()


def _from_config(folder: Path, options: Mapping[str, Any]) -> nn.Module:
    """A ``transformers`` model with random weights; options override its config."""
    try:
        transformers: Any = import_module("transformers")
    except ImportError as error:
        raise ImportError(
            'folders of models need transformers: pip install "bisparse[transformers]"'
        ) from error
    if not (folder / "config.json").is_file():
        raise RecipeError(f"model.name: {folder} has no config.json: it is not a Hugging Face model")
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, **options)
    name = (getattr(config, "architectures", None) or ["AutoModel"])[0]
    kind = getattr(transformers, name, None)
    model: nn.Module = transformers.AutoModel.from_config(config) if kind is None else kind(config)
    return model


def _load_weights(model: nn.Module, path: Path) -> None:
    try:
        model.load_state_dict(_state_dict(path))
    except (OSError, RuntimeError) as error:
        raise RecipeError(f"model.weights: {error}") from error


def _state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file or of a (nested) PyTorch checkpoint."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        found: dict[str, Tensor] = load_file(path)
        return found
    state: Any = torch.load(path, map_location="cpu", weights_only=True)
    for key in ("state_dict", "model"):
        state = state.get(key, state)
    return {name.removeprefix("module."): value for name, value in state.items()}
