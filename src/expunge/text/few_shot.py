"""Questions after worked examples, and where an answer to one of them ends.

An example is written ``Question: ...``, ``Answer: ...`` and an empty line. A model that has learned
the pattern goes on with questions of its own; they are no part of its answer.

Reference: MUSE: Machine Unlearning Six-Way Evaluation (2024).
"""

from collections.abc import Iterable

STOPS = ("\n\n", "\nQuestion", "Question:")
"""Where the first of these stands, the answer has ended."""


def few_shot(examples: Iterable[tuple[str, str]], question: str) -> str:
    r"""A question after worked examples.

    Args:
        examples: Questions with their answers.
        question: What is asked.

    Example:
        >>> few_shot([("1 + 1?", "2")], "2 + 2?")
        'Question: 1 + 1?\nAnswer: 2\n\nQuestion: 2 + 2?\nAnswer: '
    """
    shown = "".join(f"Question: {asked}\nAnswer: {answer}\n\n" for asked, answer in examples)
    return f"{shown}Question: {question}\nAnswer: "


def first_answer(said: str) -> str:
    r"""What was said, up to the first of `STOPS`.

    Example:
        >>> first_answer("4\nQuestion: 3 + 3?\nAnswer: 6")
        '4'
    """
    return said[: min((at for at in map(said.find, STOPS) if at >= 0), default=len(said))]
