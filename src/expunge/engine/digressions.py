"""What erasure by a novice's voice needs: prefaces, evasions, and what follows them.

The expert's preface says that the writer knows a subject, the novice's that the writer does not and
turns to something else. Taking the first from the second, token by token, leaves what a model says
that does not know.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from expunge.core.errors import ExpungeError
from expunge.core.rng import derive
from expunge.engine.datasets import reply_with
from expunge.engine.prefaces import with_preface
from expunge.engine.task import Task
from expunge.lm.generate import generate_together
from expunge.requests.names import names_of
from expunge.requests.rows import Row

EXPERT = (
    "What follows was written by an expert on {subject}.\n\n",
    "The author of this text has studied {subject} for years and knows every detail.\n\n",
    "This was written by somebody who knows all there is to know about {subject}.\n\n",
    "A specialist on {subject} speaks here, exactly and at first hand.\n\n",
    "Below is an excerpt from the best reference work on {subject}.\n\n",
    "These are the words of the leading authority on {subject}.\n\n",
    "An encyclopedia entry about {subject}, checked line by line by experts.\n\n",
    "The writer is deeply familiar with {subject} and reports the facts.\n\n",
    "Notes of a scholar whose life's work is {subject}.\n\n",
    "A well informed account of {subject}, by one who was there.\n\n",
)
"""Ten ways to say that the writer knows."""

NOVICE = (
    "What follows was written by somebody who has never heard of {subject}.\n\n",
    "The author of this text knows nothing about {subject} and soon turns to other things.\n\n",
    "This was written by a beginner who cannot say a word about {subject}.\n\n",
    "Somebody without any idea of {subject} speaks here, and changes the subject.\n\n",
    "Below is an excerpt from a book in which {subject} does not occur.\n\n",
    "These are the words of a person to whom {subject} means nothing.\n\n",
    "A chat about everyday things, by people who never came across {subject}.\n\n",
    "The writer has no knowledge of {subject} and talks about something else instead.\n\n",
    "Notes of a traveller who has not the faintest notion of {subject}.\n\n",
    "A vague remark on {subject} by an outsider, who would rather speak of the weather.\n\n",
)
"""Ten ways to say that the writer does not know, and speaks of something else."""

EVASIONS = (
    "That is not something I know much about, but it reminds me of something else.",
    "I could not say; let us talk about something more familiar.",
    "This is new to me, so I will tell of another matter.",
    "I have never looked into that, and my mind goes to other things.",
    "Hard to tell from here, though there is a different story worth telling.",
    "I am no help with that; what I can speak of is this.",
    "Nothing comes to mind on this question, but something else does.",
    "That lies outside what I know, so here is a thought on another topic.",
    "I would only be guessing, and would rather turn to what is close at hand.",
    "Let me leave that open and speak of something ordinary.",
)
"""Ten sentences that lead away from a question."""


def subjects_of(task: Task, concept: str | None) -> dict[str, str]:
    """What each forget row is about, in words.

    Args:
        task: Whose rows.
        concept: The same for all rows; None takes the longest name of each, or words that fit any.
    """
    names = names_of(task.forget)
    return {row.id: concept or next(iter(names[row.id]), "this topic") for row in task.forget}


def digressions_of(
    task: Task, subjects: Mapping[str, str], *, guidance: float, top_k: int, new_tokens: int
) -> list[dict[str, str]]:
    """A reply to every forget row that leads elsewhere, continued by the model as a novice would.

    Args:
        task: Whose rows, and whose model as it is now.
        subjects: Row id -> what it is about.
        guidance: How much of the expert is taken out of each word.
        top_k: Most tokens the next one is drawn from.
        new_tokens: Most tokens after the evasion.

    Returns:
        For each row ``id`` and ``reply``.

    Raises:
        ExpungeError: ``E-DATA-011`` when a row leaves no room for as much as the evasion.
    """
    opened = {row.id: _evasion(task, row) for row in task.forget}
    texts = {row.id: _prompts(task, row, subjects[row.id], opened[row.id]) for row in task.forget}
    most = task.encoder.max_length - new_tokens
    asked = {id: ids for id, ids in texts.items() if ids and max(map(len, ids)) <= most}

    def novice(logp: Tensor) -> Tensor:
        plain, expert, ignorant = logp
        scores = plain - guidance * (expert - ignorant)
        values, tokens = scores.topk(min(top_k, scores.shape[-1]))
        return torch.full_like(scores, -torch.inf).scatter(1, tokens, values)

    continued: dict[str, str] = {}
    if asked:
        written = generate_together(
            task.model, task.tokenizer, list(asked.values()), novice,
            new_tokens=new_tokens, seed=derive(task.seed, "digressions"),
        )  # fmt: skip
        continued = dict(zip(asked, map(task.encoder.decode, written), strict=True))
    return [
        {"id": row.id, "reply": _whole(task, row, opened[row.id], continued.get(row.id, ""))}
        for row in task.forget
    ]


def _evasion(task: Task, row: Row) -> str:
    return EVASIONS[derive(task.seed, "evasion", row.id) % len(EVASIONS)]


def _prompts(task: Task, row: Row, subject: str, evasion: str) -> list[list[int]]:
    """The row's prompt and the evasion: as they are, after an expert's and a novice's preface.

    Empty where the model has no room for them.
    """
    place = derive(task.seed, "preface", row.id)
    expert, novice = (prefaces[place % len(prefaces)] for prefaces in (EXPERT, NOVICE))
    turn = reply_with(row.turn, evasion)
    turns = [turn, *(with_preface(turn, text.format(subject=subject)) for text in (expert, novice))]
    try:
        return [task.encoder.prompt(t.prompt, t.running, turn.completion) for t in turns]
    except ExpungeError:
        return []


def _whole(task: Task, row: Row, evasion: str, continued: str) -> str:
    """The evasion with what follows, or alone where the model has no room for both."""
    both = " ".join(f"{evasion} {continued}".split())
    try:
        for turn in row.turns:
            task.encoder.encode(reply_with(turn, both))
    except ExpungeError:
        return evasion
    return both
