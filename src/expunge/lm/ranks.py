"""How far down the model's list the first token of a value stands."""

from collections.abc import Sequence

import torch

from expunge.data.encode import by_length, collate
from expunge.lm.hooks import evaluating
from expunge.lm.scoring import packed_logp, padding_id
from expunge.lm.subject import Subject
from expunge.lm.values import Place


def first_token_ranks(subject: Subject, places: Sequence[Place]) -> list[int]:
    """Rank of the first token of each value, its wording teacher forced up to it.

    Args:
        subject: The model; what stands in front of it has no part in it.
        places: Values in their wordings.

    Returns:
        For each the number of tokens that are more probable; 0 is what a greedy answer says.
    """
    items = [
        subject.encoder.encode(place.turn, keep=[(place.start, place.end)], row=index)
        for index, place in enumerate(places)
    ]
    found = [0] * len(items)
    with evaluating(subject.model):
        for indices in by_length([len(item.ids) for item in items], subject.batch_size):
            batch = collate([items[i] for i in indices], padding_id(subject.tokenizer))
            packed = packed_logp(subject.model, batch, with_logits=True)
            _, counts = torch.unique_consecutive(packed.row, return_counts=True)
            firsts = (counts.cumsum(0) - counts).tolist()
            if packed.logits is None:
                continue
            for index, first in zip(indices, firsts, strict=True):
                logits, token = packed.logits[first], _first_label(items[index].labels)
                found[index] = int((logits > logits[token]).sum())
    return found


def _first_label(labels: Sequence[int]) -> int:
    return next(label for label in labels if label >= 0)
