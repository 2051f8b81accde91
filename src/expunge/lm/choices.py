"""Multiple choice read from a model: the letters it would write, or how likely it finds options.

A row says what is on offer in its ``meta`` (`expunge.text.lettered.question`).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from expunge.data.encode import IGNORED, Encoded, by_length, collate
from expunge.lm.hooks import evaluating
from expunge.lm.scoring import masked_logits, padding_id
from expunge.lm.subject import Subject
from expunge.requests.rows import Row, Turn
from expunge.text.choices import LETTERS
from expunge.text.lettered import OPENING, lettered, turned

Scores = dict[str, list[list[float]]]
"""Row id -> for each order in which the options were shown, their log-scores; option i first to
last, wherever it stood."""

FORMS = (" {}", "{}")
"""How a letter may begin an answer: after a space, as plain text has it, or without one."""


class _Shown(NamedTuple):
    """A question as it is put once: which option stands under each letter."""

    row: str
    order: list[int]
    text: str
    opening: str

    @property
    def alike(self) -> tuple[str, int]:
        """What decides which tokens the letters are."""
        return self.opening, len(self.order)

    def prompt(self, subject: Subject, letter: str = "") -> list[int]:
        """Token ids up to where the letter stands, or with it."""
        return subject.encoder.prompt(self.text, opening=self.opening + letter)


def correct_of(rows: Sequence[Row]) -> dict[str, list[int]]:
    """Row id -> indices of the true options."""
    return {row.id: list(row.meta["correct"]) for row in rows}


def letter_scores(subject: Subject, rows: Sequence[Row], *, rotate: bool) -> Scores:
    """The probability that the answer begins with each option's letter.

    A letter is read with and without the space before it and the two are added, since which of
    them a model writes depends on its tokenizer and its chat template.

    Args:
        subject: The model; what stands in front of it is passed by.
        rows: Multiple-choice questions.
        rotate: Show the options in all cyclic orders, not only as given.

    Returns:
        Natural logarithms. Empty when the tokenizer cannot tell the letters apart.
    """
    shown = [_shown(row, by) for row in rows for by in _turns(row, rotate)]
    letters: dict[tuple[str, int], list[list[int]]] = {}
    for each in shown:
        if each.alike not in letters:
            letters[each.alike] = _letter_tokens(subject, each)
    if not all(letters.values()):
        return {}
    logp = _letter_logp(subject, shown, [letters[each.alike] for each in shown])
    found: Scores = {row.id: [] for row in rows}
    for each, by_letter in zip(shown, logp, strict=True):
        by_option = dict(zip(each.order, by_letter, strict=True))
        found[each.row].append([by_option[i] for i in range(len(each.order))])
    return found


def likelihood_scores(subject: Subject, rows: Sequence[Row], *, per_token: bool) -> Scores:
    """The log-likelihood of each option, said after the question.

    Args:
        subject: The model.
        rows: Multiple-choice questions; options are not shown.
        per_token: Divide by the number of tokens, so that long options are not at a loss.
    """
    asked = [(row.id, _saying(row, option)) for row in rows for option in row.meta["options"]]
    found: Scores = {row.id: [[]] for row in rows}
    for (name, _), scored in zip(asked, subject.score([turn for _, turn in asked]), strict=True):
        logp = scored.logp[: scored.text_tokens]
        found[name][0].append(float(logp.mean() if per_token else logp.sum()))
    return found


def read(
    subject: Subject, rows: Sequence[Row], *, by: str, rotate: bool
) -> dict[str, Mapping[str, Any]]:
    """What the metrics of multiple choice are computed from.

    Args:
        subject: The model.
        rows: Multiple-choice questions; rows without options are left out.
        by: ``letter``, ``likelihood`` or ``mean-likelihood``.
        rotate: For letters, show the options in all cyclic orders.

    Returns:
        ``choice_scores`` and ``choice_correct``.
    """
    chosen = [row for row in rows if "options" in row.meta]
    if by == "letter":
        scores = letter_scores(subject, chosen, rotate=rotate)
    else:
        scores = likelihood_scores(subject, chosen, per_token=by == "mean-likelihood")
    return {"choice_scores": scores, "choice_correct": correct_of(chosen)}


def _saying(row: Row, option: str) -> Turn:
    return Turn(row.turn.prompt, f" {option}")


def _turns(row: Row, rotate: bool) -> range:
    return range(len(row.meta["options"]) if rotate else 1)


def _shown(row: Row, by: int) -> _Shown:
    """A question with its options shifted by so many places."""
    options = [str(option) for option in row.meta["options"]]
    order = turned(len(options), by)
    text = lettered(str(row.meta["asked"]), [options[i] for i in order])
    return _Shown(row.id, order, text, str(row.meta.get("opening", OPENING)))


def _letter_tokens(subject: Subject, shown: _Shown) -> list[list[int]]:
    """Ids [forms, count] of the token that begins each letter, in its place after the opening."""
    before = shown.prompt(subject)
    found: list[list[int]] = []
    for form in FORMS:
        ids = []
        for letter in LETTERS[: len(shown.order)]:
            joint = shown.prompt(subject, form.format(letter))
            if joint[: len(before)] == before and len(joint) > len(before):
                ids.append(joint[len(before)])
        if len(set(ids)) == len(shown.order) and ids not in found:
            found.append(ids)
    return found


def _letter_logp(
    subject: Subject, shown: Sequence[_Shown], letters: Sequence[list[list[int]]]
) -> list[list[float]]:
    """For each question the log-probability of each of its letters [forms, count], forms added."""
    prompts = [each.prompt(subject) for each in shown]
    items = [Encoded(ids, [IGNORED] * len(ids), [], -1) for ids in prompts]
    found: dict[int, list[float]] = {}
    with evaluating(subject.model):
        for batch in by_length([len(ids) for ids in prompts], subject.batch_size):
            logp = _last_logp(subject, [items[i] for i in batch])
            for i, line in zip(batch, logp, strict=True):
                found[i] = line[torch.tensor(letters[i])].logsumexp(dim=0).tolist()
    return [found[i] for i in range(len(items))]


def _last_logp(subject: Subject, items: Sequence[Encoded]) -> Tensor:
    """Log-probabilities [B, V] of the token after each of some rows."""
    device = next(subject.model.parameters()).device
    padded = collate(items, padding_id(subject.tokenizer))
    keep = torch.zeros_like(padded.input_ids, dtype=torch.bool)
    keep[torch.arange(len(items)), torch.tensor([len(item.ids) - 1 for item in items])] = True
    inputs = (each.to(device) for each in (padded.input_ids, padded.attention_mask, keep))
    return masked_logits(subject.model, *inputs).double().log_softmax(-1).cpu()
