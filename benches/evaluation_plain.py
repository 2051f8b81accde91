"""The plain way to evaluate: one row at a time, and every metric makes its own passes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from expunge.lm.readings import paraphrases, wrongs
from expunge.lm.subject import Subject
from expunge.requests.rows import Row, Turn


class Plain:
    """Reads a model as a metric by itself would.

    Args:
        subject: The model; only its weights, its tokenizer and its encoder are used.
        new_tokens: Longest greedy answer, in tokens.
    """

    def __init__(self, subject: Subject, new_tokens: int) -> None:
        self.model: Any = subject.model
        self.encoder = subject.encoder
        self.pad, self.new_tokens = subject.tokenizer.pad_token_id, new_tokens
        self.passes = self.written = 0

    def readings(self, rows: Sequence[Row], names: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Some readings of one metric, as `expunge.lm.readings.readings` gives them."""
        return {name: dict(getattr(self, f"_{name}")(rows)) for name in names}

    def top_two(self, ids: Sequence[int]) -> float:
        """How far the most probable next token is above the second, as a logit."""
        with torch.no_grad():
            best = self.model(torch.tensor([ids])).logits[0, -1].topk(2).values
        return float(best[0] - best[1])

    def _nll(self, rows: Sequence[Row]) -> Iterator[tuple[str, float]]:
        for row in rows:
            yield row.id, self._mean(row.turn)

    def _paraphrase_nll(self, rows: Sequence[Row]) -> Iterator[tuple[str, float]]:
        for row in rows:
            if found := [self._mean(turn) for turn in paraphrases(row)]:
                yield row.id, sum(found) / len(found)

    def _wrong_nll(self, rows: Sequence[Row]) -> Iterator[tuple[str, list[float]]]:
        for row in rows:
            if found := [self._mean(turn) for turn in wrongs(row)]:
                yield row.id, found

    def _token_hit(self, rows: Sequence[Row]) -> Iterator[tuple[str, list[bool]]]:
        for row in rows:
            logits, labels = self._logits(row.turn)
            yield row.id, (logits.argmax(-1) == labels)[:-1].tolist()  # the end is no text

    def _generation(self, rows: Sequence[Row]) -> Iterator[tuple[str, str]]:
        for row in rows:
            ids = torch.tensor([self.encoder.prompt(row.turn.prompt)])
            with torch.no_grad():
                written = self.model.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=self.new_tokens,
                    do_sample=False,
                    pad_token_id=self.pad,
                )[0, ids.shape[1] :].tolist()
            self.passes += len(written)
            self.written += len(written)
            yield row.id, self.encoder.decode(written)

    def _mean(self, turn: Turn) -> float:
        logits, labels = self._logits(turn)
        return float(torch.nn.functional.cross_entropy(logits, labels))

    def _logits(self, turn: Turn) -> tuple[Tensor, Tensor]:
        """Logits at the supervised tokens of one row, and the tokens."""
        item = self.encoder.encode(turn)
        self.passes += 1
        with torch.no_grad():
            logits: Tensor = self.model(torch.tensor([item.ids])).logits[0].float()
        places = torch.tensor([at for at, label in enumerate(item.labels) if label != -100])
        return logits[places - 1], torch.tensor(item.labels)[places]


Read = Mapping[str, Mapping[str, Any]]
