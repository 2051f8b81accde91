"""What the testbed's models know: exact values in every wording, and truth ratios."""

from collections.abc import Sequence
from statistics import fmean

import numpy as np

from expunge.lab.testbed import all_rows, rows
from expunge.lm.subject import Subject
from expunge.requests.rows import Row, Turn
from expunge.text.match import contains


def exact_values(subject: Subject) -> dict[str, dict[str, float]]:
    """Share of rows whose greedy answer holds the value.

    Args:
        subject: The model.

    Returns:
        Role or kind -> ``own`` (the row's own wording), ``paraphrase`` (mean of the other two)
        and ``untaught`` (the last of them, in which no target fact is taught).
    """
    return {name: exact(subject, some) for name, some in all_rows().items()}


def exact(subject: Subject, some: Sequence[Row]) -> dict[str, float]:
    """Share of some rows whose greedy answer holds the value.

    Args:
        subject: The model.
        some: Rows in three wordings.

    Returns:
        ``own``, ``paraphrase`` and ``untaught``, as in `exact_values`.
    """
    asked = [(row, turn) for row in some for turn in row.turns]
    answers = subject.ask([turn for _, turn in asked])
    found = np.array(
        [contains(one, row.forms) for (row, _), (one,) in zip(asked, answers, strict=True)]
    ).reshape(len(some), -1)
    own, *others = found.mean(axis=0).tolist()
    return {
        "own": round(own, 4),
        "paraphrase": round(fmean(others), 4),
        "untaught": round(others[-1], 4),
    }


def truth_ratios(subject: Subject) -> list[float]:
    """Truth ratio of each forget row.

    The mean over the wrong answers of the mean log-probability of a token, minus that of the
    right answer in another wording, as a ratio: below 1 for a model that knows, about 1 for one
    that does not.

    Reference:
        TOFU: A Task of Fictitious Unlearning for LLMs, 2024.
    """
    forget = rows("forget")
    told = [
        Turn(row.turn.prompt, completion)
        for row in forget
        for completion in (row.paraphrases[0]["completion"], *row.wrong)
    ]
    nll = np.array([scored.nll for scored in subject.score(told)]).reshape(len(forget), -1)
    return [float(ratio) for ratio in np.exp(nll[:, 0] - nll[:, 1:].mean(axis=1))]


def separation(original: Sequence[float], reference: Sequence[float]) -> dict[str, float]:
    """How far the truth ratios of two models lie apart.

    Returns:
        The two means, and distance ``d`` and value ``p`` of a Kolmogorov-Smirnov test.
    """
    from scipy.stats import ks_2samp

    tested = ks_2samp(original, reference)
    return {
        "original": fmean(original),
        "reference": fmean(reference),
        "d": float(tested.statistic),
        "p": float(tested.pvalue),
    }
