"""How probable a model finds each of several labels behind a prompt."""

import math
from collections.abc import Sequence

from expunge.lm.subject import Subject
from expunge.requests.rows import Turn


def label_probabilities(
    subject: Subject, prompts: Sequence[str], labels: Sequence[str], *, running: bool = True
) -> list[dict[str, float]]:
    """The probability of each label as what follows a prompt and one space.

    Args:
        subject: The model; a gate in front of it is passed by.
        prompts: Texts that end before the space.
        labels: The labels; one of several tokens has the product of theirs.
        running: Whether the prompts are plain running text, never wrapped in a chat template.

    Returns:
        For each prompt label -> probability. They need not add up to 1: what is left is all else
        the model may say there. It stands under the empty label.
    """
    turns = [Turn(prompt, f" {label}", running) for prompt in prompts for label in labels]
    scored = iter(subject.score(turns))
    found = []
    for _ in prompts:
        own = {
            label: math.exp(float(one.logp[: one.text_tokens].sum()))
            for label, one in zip(labels, scored, strict=False)
        }
        found.append({**own, "": max(0.0, 1.0 - math.fsum(own.values()))})
    return found
