"""General ability: MMLU, ARC, GSM8K and TruthfulQA from local files, without any harness.

Definition (per test; the metrics say how):
    mmlu             accuracy of the letter, after examples of the same subject
    arc              accuracy of the likeliest option; also by likelihood a token
    gsm8k            exact match of the last number in a worked answer
    truthfulqa.mc1   accuracy of the likeliest answer, one of them true
    truthfulqa.mc2   share of probability that all true answers have

Reference: Measuring Massive Multitask Language Understanding (2021); Think you have Solved Question
Answering? Try ARC, the AI2 Reasoning Challenge (2018); Training Verifiers to Solve Math Word
Problems (2021); TruthfulQA: Measuring How Models Mimic Human Falsehoods (2022).

Departs from the paper: examples come from the tested file itself and are not asked (at most half of
a subject); the six questions before one of TruthfulQA are our own; questions of MMLU that reviewers
found unsound are left out where the file says so. Numbers compare between models measured here; for
numbers that compare with published ones use ``expunge bench lm-eval:TASK``.

Every test is optional, but one must be there. There is nothing to forget here: this is what a model
must keep, and ``--methods`` is refused for want of rows to forget.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expunge.core.errors import ExpungeError, nearest
from expunge.core.measuring import Measure
from expunge.core.params import param
from expunge.data.abilities import TESTS, abilities
from expunge.requests.rows import Row

if TYPE_CHECKING:
    from expunge.lm.readings import Asking

SPLITS = ("all", "mmlu", "arc", "gsm8k", "truthfulqa")

CARD = {
    "id": "general",
    "kind": "benchmark",
    "summary": "MMLU, ARC, GSM8K and TruthfulQA from local files.",
    "paper": "Measuring Massive Multitask Language Understanding (2021) and others",
    "needs": [],
    "access": "logits",
    "cost": "one forward pass an option and one generation of 256 tokens a problem",
    "maturity": "beta",
    "version": 1,
    "splits": ["all", "mmlu", "arc", "gsm8k", "truthfulqa"],
    "default_split": "all",
    "licence": "MMLU and GSM8K MIT, ARC CC-BY-SA-4.0, TruthfulQA Apache-2.0; files are not shipped",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """How much is asked, and how."""

    rows: int | None = param(None, help="most questions of a test; none: all", low=1)
    shots: int = param(
        5, help="most examples before a question", paper="5 (MMLU), 8 (GSM8K)", low=0
    )
    rotate: bool = param(
        False, help="show MMLU's options in all four orders and average", paper=False
    )
    new_tokens: int = param(256, help="longest worked answer, in tokens", paper=256, low=1)


def splits(data: Path, split: str, params: Params) -> dict[str, list[Row]]:
    """Nothing: these are rows to be kept, and no method should see them."""
    return {"forget": []}


def sets(data: Path, split: str, params: Params) -> dict[str, list[Row]]:
    """The questions of each test, with the examples before them.

    Args:
        data: Folder with the folders ``mmlu``, ``arc``, ``gsm8k``, ``truthfulqa``, or some of them.
        split: One of them, or ``all``.
        params: How much is asked.

    Raises:
        ExpungeError: E-USE-001 for an unknown split, E-DATA-001 when no test is there, and what
            is wrong with a file.
    """
    names = [*TESTS] if _known(split) == "all" else [split]
    found = abilities(data, shots=params.shots, most=params.rows, names=names)
    if not found:
        raise ExpungeError(
            "E-DATA-001",
            f"{data} has no folder {' or '.join(names)} with .json or .jsonl files.",
            f"one folder a test: {', '.join(TESTS)}.",
            "Point --data to the folder that holds them.",
        )
    return found


def measures(params: Params) -> dict[str, Measure]:
    """The numbers; those of tests that are not there say so."""
    likely, per_token = {"by": "likelihood"}, {"by": "mean-likelihood"}
    choices: dict[str, tuple[str, dict[str, Any]]] = {
        "mmlu": ("mmlu", {"rotate": params.rotate}),
        "arc": ("arc", likely),
        "arc.per_token": ("arc", per_token),
        "truthfulqa.mc1": ("truthfulqa_mc1", likely),
    }
    return {
        **{
            name: Measure(metric="choice-accuracy", on=on, params=how, better="high")
            for name, (on, how) in choices.items()
        },
        "truthfulqa.mc2": Measure(metric="choice-mass", on="truthfulqa_mc2", better="high"),
        "gsm8k": Measure(
            metric="exact-match", on="gsm8k", params={"final": "last-number"}, better="high"
        ),
    }


def asking(params: Params) -> "dict[str, Asking]":
    """A worked answer ends where the next question would begin."""
    from expunge.lm.readings import Asking

    return {"gsm8k": Asking(new_tokens=params.new_tokens, until=("\nQuestion:", "\n\n\n"))}


def references(split: str) -> str:
    """There is none: the original is what a model is compared with."""
    return "None is made: compare with the original model, whose ability is to be kept."


def _known(split: str) -> str:
    if split not in SPLITS:
        raise ExpungeError(
            "E-USE-001",
            f"There is no test {split!r}.",
            f"one of {', '.join(SPLITS)}.",
            nearest(split, SPLITS),
        )
    return split
