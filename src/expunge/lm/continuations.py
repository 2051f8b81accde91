"""What a model goes on to say when nobody tells it what to talk about."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from expunge.lm.generate import generate_together
from expunge.lm.subject import Subject
from expunge.requests.rows import Turn


def continuations(
    subject: Subject,
    turns: Sequence[Turn],
    *,
    samples: int,
    new_tokens: int,
    top_k: int,
    seed: int,
    openings: Sequence[str] | None = None,
) -> list[list[str]]:
    """Draw continuations at temperature 1 from the most probable tokens.

    Args:
        subject: The model; what stands in front of it has its say.
        turns: What stands before; an empty running text for nothing at all.
        samples: Continuations of each turn.
        new_tokens: Longest one, in tokens; no more than the model has positions for.
        top_k: Tokens the next one is drawn from; 0 draws from all.
        seed: Of the draws.
        openings: Forced beginning of each continuation.

    Returns:
        For each turn its continuations, without the opening.
    """
    gate, encoder = subject.gate, subject.encoder
    let = subject.let_in(turns, new_tokens)
    asked = {at: turn for at, turn in enumerate(let) if isinstance(turn, Turn)}
    opened = openings or [""] * len(turns)
    prompts = [encoder.prompt(turn.prompt, turn.running, opened[at]) for at, turn in asked.items()]
    room = encoder.max_length - max(map(len, prompts), default=0)
    written = (
        []
        if not prompts
        else generate_together(
            subject.model,
            subject.tokenizer,
            [[prompt] for prompt in prompts for _ in range(samples)],
            partial(most_probable, k=top_k),
            new_tokens=min(new_tokens, room),
            seed=seed,
            batch_size=subject.batch_size,
        )
    )
    texts = iter(map(encoder.decode, written))
    said = [[one] * samples if isinstance(one, str) else [] for one in let]
    for at in asked:
        drafts = [next(texts) for _ in range(samples)]
        said[at] = [gate.after(turns[at], draft) for draft in drafts] if gate else drafts
    return said


def most_probable(logp: Tensor, k: int) -> Tensor:
    """Leave the ``k`` most probable tokens.

    Args:
        logp: [1, B, V], log-probabilities of the next token.
        k: How many; 0 leaves all.

    Returns:
        [B, V], minus infinity for all others.
    """
    scores: Tensor = logp[0]
    if not 0 < k < scores.shape[-1]:
        return scores
    values, tokens = scores.topk(k)
    return torch.full_like(scores, -torch.inf).scatter(-1, tokens, values)
