"""Margins: by how much the right token beats all others together."""

from collections.abc import Sequence

import torch
from torch import Tensor

from expunge.data.encode import IGNORED, by_length, collate
from expunge.lm.hooks import evaluating
from expunge.lm.scoring import packed_logp, padding_id
from expunge.lm.subject import Subject
from expunge.requests.rows import Row


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """The right label's logit less the log-sum-exp of all others.

    Args:
        logits: [N, V].
        labels: [N], the right ones.

    Returns:
        [N], nats: the log-odds of the right label. From the logits, since a probability that
        rounds to 1 has lost them.
    """
    right = logits.gather(1, labels[:, None])[:, 0]
    return right - logits.scatter(1, labels[:, None], -torch.inf).logsumexp(1)


def answer_margins(subject: Subject, rows: Sequence[Row]) -> dict[str, list[float]]:
    """Row id -> the margins of its answer's tokens, the end of the answer included.

    Args:
        subject: The model; what stands in front of it has no part in it.
        rows: The rows, ids distinct.
    """
    items = [subject.encoder.encode(row.turn, row=index) for index, row in enumerate(rows)]
    found: dict[int, list[float]] = {}
    with evaluating(subject.model):
        for indices in by_length([len(item.ids) for item in items], subject.batch_size):
            batch = collate([items[i] for i in indices], padding_id(subject.tokenizer))
            packed = packed_logp(subject.model, batch, with_logits=True)
            labels = batch.labels[:, 1:][batch.labels[:, 1:] != IGNORED]
            if packed.logits is not None:
                of_token = margins(packed.logits, labels.to(packed.logits.device)).tolist()
                for place, margin in zip(packed.row.tolist(), of_token, strict=True):
                    found.setdefault(indices[place], []).append(margin)
    return {row.id: found[index] for index, row in enumerate(rows)}
