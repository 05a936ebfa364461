"""The section of a recipe that lets the model learn from itself as it was before pruning."""

from __future__ import annotations

from pydantic import Field
from torch import nn

from bisparse.recipes.base import Section
from bisparse.recipes.errors import RecipeError
from bisparse.train.distillation import Distillation
from bisparse.train.examples import Batch
from bisparse.train.hidden_hints import KeptIndices

__all__ = ["DistillationSection"]


class DistillationSection(Section):
    """The teacher is the (pretrained) model as it was before filters were removed or masks put on; see
    :class:`bisparse.train.distillation.Distillation`.

    Attributes:
        weight: share of the divergence, the rest is cross-entropy.
        temperature: of the predictions compared.
        mixup: largest share of the second input of a pair; 0 = inputs as they are.
        hidden: weight of what the layers receive; 0 = the outputs alone.
    """

    weight: float = Field(default=0.9, ge=0.0, le=1.0)
    temperature: float = Field(default=4.0, gt=0.0)
    mixup: float = Field(default=0.0, ge=0.0, le=1.0)
    hidden: float = Field(default=0.0, ge=0.0)

    def check(self, sample: Batch) -> None:
        """Refuse data that cannot be learnt from a teacher, before anything is done to the model.

        Args:
            sample: a batch of the data.

        Raises:
            RecipeError: it is no pair of inputs and class numbers, or its inputs cannot be mixed.
        """
        if not isinstance(sample, tuple):
            raise RecipeError(
                f"distillation: needs inputs with class numbers, and these data are {', '.join(sample)} of a model "
                "that returns its own loss"
            )
        if self.mixup and not sample[0].is_floating_point():
            raise RecipeError(f"distillation.mixup: inputs of {sample[0].dtype} cannot be mixed; set it to 0")

    def objective(self, teacher: nn.Module, kept: KeptIndices) -> Distillation:
        """What is minimised.

        Args:
            teacher: in evaluation mode, where the model will be trained.
            kept: what is left of its tensors; empty where no filters were removed.
        """
        return Distillation(teacher, **self.model_dump(), kept=kept)
