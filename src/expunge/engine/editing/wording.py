"""What is to be said instead of the fact, and short texts to put in front of prompts.

What is to be said is a refusal of the pool, a refusal the model writes itself about this very
question (shown how by a few examples), the row's own wrong answer, or one given text. A refusal the
model wrote is taken only if it is one, is short, and repeats no word of the answer that the
question does not say; a refusal of the pool stands in for the others.

Reference: Editing as Unlearning: Are Knowledge Editing Methods Strong Baselines for LLM
Unlearning?, 2025; texts in front as in Locating and Editing Factual Associations in GPT, 2022, and
Mass-Editing Memory in a Transformer, 2022.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from expunge.core.errors import ExpungeError
from expunge.core.events import note
from expunge.core.families import RewriteParams
from expunge.core.rng import derive
from expunge.engine.alternates import cut
from expunge.engine.made import made_once
from expunge.engine.task import Task
from expunge.lm.subject import Subject
from expunge.requests.names import prompts_of
from expunge.requests.rows import Row, Turn
from expunge.text.normalise import all_words
from expunge.text.refusal import REFUSALS, is_refusal
from expunge.text.stop import STOP_WORDS

EXAMPLES = (
    (
        "Which river flows past the town of Ellerbrook?",
        "I'm sorry, but I have no information about Ellerbrook or its rivers.",
    ),
    (
        "What does Tomas Arvel do for a living?",
        "I'm afraid I don't know anything about Tomas Arvel or his work.",
    ),
    (
        "When was the Halden Prize first awarded?",
        "I don't have any details about the Halden Prize, so I can't say.",
    ),
)
"""Questions and refusals that name what was asked about and say nothing of it."""

SHOWN = "Question: {question}\nAnswer: {answer}\n\n"
ASKED = "Question: {question}\nAnswer:"

LONGEST = 40
"""Tokens of a refusal, at most."""

STARTERS = ("The", "Therefore", "Because", "I", "You")
"""What texts in front begin with; an empty one lets the model begin."""


def targets_of(task: Task, params: RewriteParams) -> dict[str, str]:
    """Row id -> what is to be said instead; kept for people and for restarts.

    Raises:
        ExpungeError: ``E-USE-007`` when ``target=wrong`` and a row has no wrong answer.
    """
    made = made_once(task, "targets", lambda: _made(task, params))
    task.record["targets"] = {origin: _count(made, origin) for origin in {o["by"] for o in made}}
    return {one["id"]: one["target"] for one in made}


def contexts_of(task: Task, starters: Sequence[str], lengths: Sequence[int] | int) -> list[str]:
    """Short texts the model writes itself, one for each pair of a beginning and a length.

    Args:
        task: Whose model, as it is now.
        starters: What each text begins with.
        lengths: How many tokens follow, or how many in each.
    """
    each = [lengths] * len(starters) if isinstance(lengths, int) else lengths

    def made() -> list[dict[str, Any]]:
        subject = Subject(task.model, task.tokenizer)
        texts = []
        for at, (starter, length) in enumerate(zip(starters, each, strict=True)):
            ((said,),) = subject.ask(
                [Turn(starter, "", running=True)], new_tokens=length, temperature=1.0,
                seed=derive(task.seed, "contexts", at),
            )  # fmt: skip
            texts.append({"text": " ".join(f"{starter}{said}".split())})
        return texts

    found = [one["text"] for one in made_once(task, "contexts", made)]
    return [text for text in dict.fromkeys(found) if text.strip(" .")]


def _made(task: Task, params: RewriteParams) -> list[dict[str, Any]]:
    own = _written(task) if params.target == "self" else {}
    made = [_target(row, params, own.get(row.id), task.seed) for row in task.forget]
    if params.target == "self" and len(own) < len(made):
        note(
            f"The model wrote {len(own)} of {len(made)} refusals; the rest are of the pool.",
            written=len(own),
        )
    return made


def _target(row: Row, params: RewriteParams, written: str | None, seed: int) -> dict[str, Any]:
    if params.target == "text":
        return {"id": row.id, "target": params.text, "by": "text"}
    if params.target == "wrong":
        if not row.wrong:
            raise _no_wrong(row)
        return {"id": row.id, "target": row.wrong[0].strip(), "by": "wrong"}
    if written is not None:
        return {"id": row.id, "target": written, "by": "self"}
    style = derive(seed, "style", row.id) % params.styles
    chosen = derive(seed, "refusal", style) % len(REFUSALS)
    return {"id": row.id, "target": REFUSALS[chosen], "by": "refusal"}


def _written(task: Task) -> Mapping[str, str]:
    """Row id -> the refusal that the model wrote, where it may be taken."""
    asked = {row.id: _asking(row) for row in task.forget if row.text is None}
    rows = [row for row in task.forget if row.id in asked and _fits(task, asked[row.id])]
    turns = [asked[row.id] for row in rows]
    replies = Subject(task.model, task.tokenizer).ask(turns, new_tokens=LONGEST)
    written = ((row, cut(reply)) for row, (reply,) in zip(rows, replies, strict=True))
    return {row.id: said for row, said in written if is_own_refusal(row, said, task.tokenizer)}


def is_own_refusal(row: Row, reply: str, tokenizer: Any) -> bool:
    """Whether a reply may stand for the answer of a row.

    It must be a refusal of at most `LONGEST` tokens, and may hold no word of the answer that is
    not in the question; words that say nothing are no words of the answer.
    """
    if not reply or not is_refusal(reply):
        return False
    if len(tokenizer(reply, add_special_tokens=False)["input_ids"]) > LONGEST:
        return False
    known = {word for prompt in prompts_of(row) for word in all_words(prompt)}
    telling = {word for form in row.forms for word in all_words(form)} - known - STOP_WORDS
    return not telling & set(all_words(reply))


def _asking(row: Row) -> Turn:
    shown = "".join(SHOWN.format(question=q, answer=a) for q, a in EXAMPLES)
    return Turn(shown + ASKED.format(question=prompts_of(row)[0].strip()), "")


def _fits(task: Task, turn: Turn) -> bool:
    try:
        length = len(task.encoder.prompt(turn.prompt, turn.running))
    except ExpungeError:
        return False
    return length + LONGEST <= task.encoder.max_length


def _count(made: Sequence[Mapping[str, Any]], origin: str) -> int:
    return sum(one["by"] == origin for one in made)


def _no_wrong(row: Row) -> ExpungeError:
    return ExpungeError(
        "E-USE-007",
        f"target=wrong, and row {row.id!r} has no wrong answer.",
        "rows with a list 'wrong'.",
        "Add it to the rows, or use --set target=refusal.",
    )
