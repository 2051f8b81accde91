"""Models between two models: every weight a share of the way from one to the other.

Definition:    theta(a) = a theta_o + (1 - a) theta_u     every parameter; buffers are those of u
"""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from expunge.core.errors import ExpungeError
from expunge.lm.int4 import Int4Linear
from expunge.lm.scoring import at_least_float32
from expunge.lm.subject import Subject


class Mixture:
    """All models on the way from one to the other, one at a time; neither of the two is touched.

    Adapters are merged, on a copy. Sums are formed in float32 (float64 for such models) and
    rounded to the models' own precision.

    Args:
        original: Its weights are those of ``at(1)``, bit for bit.
        unlearned: Its weights are those of ``at(0)``, and its buffers those of all.

    Raises:
        ExpungeError: ``E-USE-006`` when one is quantised, or when the two have not the same
            parameters in the same precision.
    """

    def __init__(self, original: Subject, unlearned: Subject) -> None:
        first, last = _merged(unlearned.model), _merged(original.model)
        for model in (first, last):
            _check_plain(model)
        self._unlearned = dict(first.named_parameters())
        self._original = dict(last.named_parameters())
        _check_alike(self._original, self._unlearned)
        self._mixed = copy.deepcopy(first)
        self._subject = unlearned

    def at(self, share: float) -> Subject:
        """The model that holds ``share`` of the original; void once the next one is asked for.

        What stands in front of the unlearned model does not stand in front of it.
        """
        with torch.no_grad():
            for name, weight in self._mixed.named_parameters():
                weight.copy_(_between(self._unlearned[name], self._original[name], share))
        return Subject(
            self._mixed,  # type: ignore[arg-type]
            self._subject.tokenizer,
            batch_size=self._subject.batch_size,
        )


def _between(unlearned: Tensor, original: Tensor, share: float) -> Tensor:
    if share in (0.0, 1.0):
        return original if share else unlearned
    there = at_least_float32(original.to(unlearned.device))
    return share * there + (1.0 - share) * at_least_float32(unlearned)


def _merged(model: nn.Module) -> nn.Module:
    """The model itself, or a copy with its adapter in its weights."""
    if not hasattr(model, "merge_and_unload"):
        return model
    merged: nn.Module = copy.deepcopy(model).merge_and_unload()  # type: ignore[operator]
    return merged


def _check_plain(model: nn.Module) -> None:
    is_quantised = (
        getattr(model, "is_quantized", False)
        or any(isinstance(module, Int4Linear) for module in model.modules())
        or not all(weight.is_floating_point() for weight in model.parameters())
    )
    if is_quantised:
        raise ExpungeError(
            "E-USE-006",
            "A quantised model whose weights are to be mixed with another one's.",
            "weights that are numbers: codes of two models have no sum.",
            "Load both models as they were before quantising.",
        )


def _check_alike(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    kinds = [{name: (w.shape, w.dtype) for name, w in each.items()} for each in (one, other)]
    odd = sorted(name for name, _ in kinds[0].items() ^ kinds[1].items())
    if odd:
        raise ExpungeError(
            "E-USE-006",
            f"Two models that are to be mixed differ in name, shape or type of {odd[0]}.",
            "the same parameters in the same precision on both sides.",
            "Give the model that the unlearned one was made from, loaded in the same precision.",
        )
