"""Ascent on the answers, descent on random ones, and the anchor on retain rows: the terms of LLMU.

Definition:
    L = w_b * -tokenmean_F( nll ) + w_r * tokenmean( nll of a_k after forget prompt i )
        + w_n * KL(anchor || model)
"""

from collections.abc import Sequence
from typing import Any

from expunge.core.errors import ExpungeError
from expunge.engine.datasets import reply_with
from expunge.engine.mean import Mean
from expunge.engine.slots.stop import Measured
from expunge.engine.step import Step
from expunge.engine.task import Paired, Task
from expunge.requests.rows import Row, Turn


def random_answers(task: Task, count: int) -> Paired:
    """Answers of retain rows, put beside the forget prompts.

    Args:
        task: Has both.
        count: Different answers to a prompt at a time (K).

    Raises:
        ExpungeError: ``E-USE-007`` when no retain row has an answer that fits.
    """
    replies = answers_that_fit(task)
    if not replies:
        raise ExpungeError(
            "E-USE-007",
            "No retain row has an answer that fits behind the forget prompts.",
            "retain rows with answers of their own.",
            "Give retain rows with shorter answers.",
        )

    def beside(row: Row, wording: int, candidate: int) -> Turn:
        return reply_with(row.turns[wording], replies[candidate])

    return Paired(beside, count=len(replies), take=min(count, len(replies)))


def answers_that_fit(task: Task) -> list[str]:
    """Different replies of retain rows, without those too long for the longest forget prompt."""
    encoder, tokenize = task.encoder, task.encoder.tokenizer.tokenize
    turns = [turn for row in task.forget for turn in row.turns]
    room = encoder.max_length - max(len(encoder.prompt(t.prompt, t.running)) for t in turns)
    replies = dict.fromkeys(row.reply.strip() for row in task.retain)
    # Four tokens are left for what a template or the tokenizer puts around an answer.
    return [reply for reply in replies if reply and len(tokenize(reply)) + 4 < room]


def away(step: Step, params: Any) -> Mean:
    """The negated token-mean negative log-likelihood of the forget answers."""
    return -step.forget.nll


def elsewhere(step: Step, params: Any) -> Mean:
    """Token-mean negative log-likelihood of random answers to the forget prompts, weighted."""
    weight: float = params.random_weight
    return weight * step.random.nll


def too_unlikely(history: Sequence[Measured], params: Any) -> bool:
    """Whether the forget answers are already less likely than anyone asked for."""
    return bool(history[-1].forget_nll > params.max_forget_nll)
