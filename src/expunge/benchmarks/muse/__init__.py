"""MUSE: six demands on a model that should forget a corpus of news or of books.

Definition (all four in percent):
    VerbMem      ROUGE-L F1 of 128 greedy tokens after the beginning of a text to forget
    KnowMem F    ROUGE-L F1 of answers to questions about the texts to forget, worked examples first
    PrivLeak     100 (A - A_r) / A_r, A = P(a hold-out text looks more like a member), Min-40%
    KnowMem R    utility: KnowMem on questions about the texts to keep
    scalability      the four for requests of growing size, each from the original (news-scal-k)
    sustainability   the four after k requests in sequence (news-sust-k)

For sustainability run the splits in order and give each the model that the one before it left:
``expunge bench muse:news-sust-2 --model OUT1/changes/METHOD-seed0 ...``. Within each ``bench.json``
the line ``original`` is then the model before that request, and the curve over k is made of the
lines of the method. For scalability every split is given the original.

Reference: MUSE: Machine Unlearning Six-Way Evaluation (2024); extraction strength, exact
memorisation and the membership attacks beside PrivLeak as in OpenUnlearning: Accelerating LLM
Unlearning via Unified Benchmarking (2025).

Departs from the paper: texts are trained on in pieces of whole words, not of 2048 tokens. The
released script looks up its table of reference AUCs without the corpus and fails; here the
reference is a retrained model, or, when ``against`` says so, that table's value for the corpus, and
the number says which. A text too short for 40 percent of its tokens to be one is scored by one
token. A question that the authors' file repeats counts as often as it stands, as in their numbers,
and is one subject to the intervals. The evaluation files are the same for every request of a series
(INFERRED). On a chat model prompts come as a user's turn. Published logs hold a ROUGE-L of stems,
so their numbers are not those of the original script.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expunge.benchmarks.muse.files import REQUESTS, SIDES, read_evaluated, read_requests
from expunge.benchmarks.muse.published import read_log as published
from expunge.core.errors import ExpungeError, nearest, raise_all
from expunge.core.measuring import Measure
from expunge.core.params import param
from expunge.data.open_unlearning import MEMBERSHIP, MEMORISATION, Readings
from expunge.data.upstream import record_id
from expunge.data.whole import distinct_ids
from expunge.requests.rows import Row, check_roles
from expunge.text.few_shot import STOPS, few_shot
from expunge.text.pieces import pieces

if TYPE_CHECKING:
    from expunge.lm.readings import Asking

CARD = {
    "id": "muse",
    "kind": "benchmark",
    "summary": "Forget news articles or books: text, knowledge, privacy, utility, scale, sequence.",
    "paper": "MUSE: Machine Unlearning Six-Way Evaluation (2024)",
    "needs": ["forget", "retain", "holdout", "reference"],
    "access": "logits",
    "cost": "128 greedy tokens on 100 rows, 32 on 200, two forward passes on 300 long texts",
    "maturity": "paper",
    "version": 1,
    "splits": [
        "news",
        "books",
        "news-scal-1",
        "news-scal-2",
        "news-scal-3",
        "news-scal-4",
        "news-sust-1",
        "news-sust-2",
        "news-sust-3",
        "news-sust-4",
    ],
    "default_split": "news",
    "licence": "the authors state none; the texts are others' copyright and are not shipped",
}

RETRAINED = {"news": 0.4772, "books": 0.5393, "half": 0.5}
"""Choice of ``against`` -> A_r of the authors' retrained models, Min-40%; half: the successor's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """What PrivLeak is compared with, and how much is evaluated."""

    against: str = param(
        "reference",
        help="A_r of PrivLeak: of the retrained reference given, or .4772 and .5393 of the "
        "authors' retrained models of that corpus, or .5, the fallback of OpenUnlearning",
        paper="reference",
        choices=("reference", "news", "books", "half"),
    )
    statistic: str = param(
        "f1", help="overlap of answers that KnowMem reports", paper="f1", choices=("f1", "recall")
    )
    stem: bool = param(False, help="compare stems, as OpenUnlearning does", paper=False)
    rows: int = param(400, help="most rows of a set that are evaluated", paper=100, low=1)
    verbatim_tokens: int = param(128, help="longest greedy continuation", paper=128, low=1)
    answer_tokens: int = param(32, help="longest greedy answer", paper=32, low=1)
    words: int = param(
        1200,
        help="longest piece of a text that is trained on, in words",
        paper="2048 tokens",
        low=1,
    )


def splits(data: Path, split: str, params: Params) -> dict[str, list[Row]]:
    """The texts to forget and to keep, cut into pieces, and texts that no model saw.

    Args:
        data: Folder that holds ``news`` and ``books``, as the authors' ``load_data.py`` writes it.
        split: A corpus, or a request of one of the two series.
        params: How long a piece may be.

    Raises:
        ExpungeError: E-USE-001 for an unknown split; what `files.read_requests` raises; E-DATA-006
            when a text is both to be forgotten and to be kept.
    """
    texts = read_requests(data, _known(split))
    # Whole texts are compared: short pieces of two reports may well be the same sentence.
    whole = {role: [_text(text, role) for text in of] for role, of in texts.items()}
    raise_all(check_roles(**whole))
    return {
        role: [row for text in of for row in _pieces(text, role, params.words)]
        for role, of in texts.items()
    }


def sets(data: Path, split: str, params: Params) -> dict[str, list[Row]]:
    """What models are compared on.

    Returns:
        ``verbmem``, ``knowmem_forget``, ``knowmem_retain``, and the texts ``forget``, ``retain``
        and ``holdout``.

    Raises:
        ExpungeError: As `splits`.
    """
    found = read_evaluated(data, _known(split))
    given = {
        "verbmem": _rows([(record["prompt"], record["gt"]) for record in found.verbatim]),
        **{
            f"knowmem_{side}": _rows(
                [
                    (few_shot(found.examples[side], record["question"]), record["answer"])
                    for record in found.questions[side]
                ]
            )
            for side in SIDES
        },
        **{name: [_text(text, name) for text in texts] for name, texts in found.texts.items()},
    }
    return {name: rows[: params.rows] for name, rows in given.items()}


def measures(params: Params) -> dict[str, Measure]:
    """The numbers: the four of the paper first."""
    answers = {"statistic": params.statistic, "stem": params.stem}
    recited = {"tokens": params.verbatim_tokens, "stem": params.stem}
    knowledge = "knowledge-memorisation"
    return {
        "verbmem": Measure(metric="verbatim-memorisation", on="verbmem", params=recited),
        "knowmem_forget": Measure(metric=knowledge, on="knowmem_forget", params=answers),
        "privleak": Measure(metric="privleak", params=_compared(params)),
        "knowmem_retain": Measure(
            metric=knowledge, on="knowmem_retain", params=answers, better="high"
        ),
        **{name: Measure(metric=name.replace("_", "-"), on="verbmem") for name in MEMORISATION},
        **{
            name: Measure(metric=name.replace("_", "-"))
            for name in MEMBERSHIP
            if name != "privleak"
        },
    }


def references(split: str) -> str:
    """How the reference of a split is made, in words."""
    corpus, request = REQUESTS[_known(split)]
    return (
        f"Fine-tune the base model on the texts of {corpus} without those of {request}, with the "
        "recipe that made the original from all of them. The authors publish the two models and "
        "not that recipe; their scripts forget with learning rate 1e-5, batches of 4 a device and "
        "pieces of 2048 tokens."
    )


def asking(params: Params) -> dict[str, "Asking"]:
    """How rows are put to a model: texts go on, answers end where the next question begins."""
    from expunge.lm.readings import Asking

    answer = Asking(new_tokens=params.answer_tokens, until=STOPS)
    return {
        "verbmem": Asking(new_tokens=params.verbatim_tokens),
        **{f"knowmem_{side}": answer for side in SIDES},
    }


def cells(summary: dict[str, Any]) -> dict[str, float | None]:
    """The columns of the benchmark's table: the four numbers of the paper."""
    names = {
        "verbmem": "VerbMem",
        "knowmem_forget": "KnowMem F",
        "privleak": "PrivLeak",
        "knowmem_retain": "KnowMem R",
    }
    return {column: summary["values"][name]["mean"] for name, column in names.items()}


def details(summary: dict[str, Any]) -> dict[str, float | None]:
    """The columns of the second table: what the successor adds."""
    names = [*MEMORISATION, *(name for name in MEMBERSHIP if name != "privleak")]
    return {name.replace("_", " "): summary["values"][name]["mean"] for name in names}


def read_log(path: Path, params: Params) -> dict[str, Readings]:
    """A published log, or one that ``expunge bench`` stored; see `published.read_log`."""
    return published(path, params.statistic)


def _compared(params: Params) -> dict[str, Any]:
    if params.against == "reference":
        return {}
    return {"against": "constant", "constant": RETRAINED[params.against]}


def _text(text: str, role: str) -> Row:
    return Row(id=record_id(text), role=role, text=text)


def _pieces(text: str, role: str, words: int) -> list[Row]:
    whole = record_id(text)
    return [
        Row(id=record_id(whole, number), role=role, text=piece, subject=f"text {whole}")
        for number, piece in enumerate(pieces(text, words))
    ]


def _rows(pairs: Sequence[tuple[str, str]]) -> list[Row]:
    """Rows of prompts and completions; a pair that stands twice is two rows of one subject."""
    subjects = [record_id(prompt, completion) for prompt, completion in pairs]
    return [
        Row(id=name, role="probe", prompt=prompt, completion=completion, subject=subject)
        for name, subject, (prompt, completion) in zip(
            distinct_ids(subjects), subjects, pairs, strict=True
        )
    ]


def _known(split: str) -> str:
    if split not in REQUESTS:
        raise ExpungeError(
            "E-USE-001",
            f"MUSE has no split {split!r}.",
            f"one of {', '.join(REQUESTS)}.",
            nearest(split, REQUESTS),
        )
    return split
