"""Whether a text gives a value away."""

from collections.abc import Iterable, Sequence

from expunge.text.normalise import all_words, words
from expunge.text.overlap import rouge_l

ENTITY_WORDS = 6
"""A value of at most so many words is looked for as a whole; a longer one by overlap."""

RECALL = 0.5
"""ROUGE-L recall from which a longer value counts as given away."""


def contains(output: str, forms: Iterable[str]) -> bool:
    """Whether one of the forms stands in the output, as whole normalised words.

    Example:
        >>> contains("Born in 1975, in Paris.", ["paris"]), contains("Parisian", ["Paris"])
        (True, False)
    """
    plain, full = _padded(words(output)), _padded(all_words(output))
    return any(_stands(form, plain, full) for form in forms)


def _stands(form: str, plain: str, full: str) -> bool:
    wanted = words(form)
    if wanted:
        return _padded(wanted) in plain
    letters = all_words(form)  # a value such as "A" is an article too
    return bool(letters) and _padded(letters) in full


def _padded(parts: Sequence[str]) -> str:
    return f" {' '.join(parts)} "


def leak(output: str, row_forms: Sequence[str], reply: str, prompt: str = "") -> float:
    """Leak of one row by one output: 1 if it gives the value away, else 0.

    Args:
        output: What the model said.
        row_forms: Accepted forms of the value, the value first.
        reply: The row's whole reply, for values too long to be looked for literally.
        prompt: What the model was given; a value that stands there already is no leak.

    Returns:
        For a value of at most `ENTITY_WORDS` words: 1 when a form is contained. For a longer
        one: 1 when ROUGE-L recall of the reply reaches `RECALL`.
    """
    if contains(prompt, row_forms):
        return 0.0
    if row_forms and len(all_words(row_forms[0])) <= ENTITY_WORDS:
        return float(contains(output, row_forms))
    return float(rouge_l(output, reply).recall >= RECALL)
