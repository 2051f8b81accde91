"""The upstream files of MUSE, as its ``load_data.py`` writes them.

CORPUS/raw/{forget,retain1}.json           texts: what is forgotten, what a method may keep with
CORPUS/verbmem/forget.json                 {prompt, gt}: how a text to forget goes on
CORPUS/knowmem/{forget,retain}_qa.json     {question, answer}; worked examples in ..._qa_icl.json
CORPUS/privleak/{forget,retain,holdout}.json    texts to forget, kept, and never seen
news/{scal,sust}/forget_{1..4}.json        texts: growing requests, and requests in sequence
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from expunge.data.upstream import Record, records
from expunge.data.whole import json_texts

CORPORA = ("news", "books")
FOLDS = (1, 2, 3, 4)
SERIES = ("scal", "sust")

REQUESTS: Mapping[str, tuple[str, str]] = {
    **{corpus: (corpus, "raw/forget.json") for corpus in CORPORA},
    **{
        f"news-{series}-{fold}": ("news", f"{series}/forget_{fold}.json")
        for series in SERIES
        for fold in FOLDS
    },
}
"""Split -> (its corpus, the file of what is asked to be forgotten)."""

SIDES = ("forget", "retain")


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """What models are compared on.

    Attributes:
        verbatim: Beginnings of texts to forget, and how they go on.
        questions: Side -> questions with answers.
        examples: Side -> worked examples that stand before each question.
        texts: ``forget``, ``retain`` and ``holdout`` -> texts.
    """

    verbatim: Sequence[Record]
    questions: Mapping[str, Sequence[Record]]
    examples: Mapping[str, Sequence[tuple[str, str]]]
    texts: Mapping[str, Sequence[str]]


def read_requests(data: Path, split: str) -> dict[str, list[str]]:
    """The texts of a request: ``forget``, ``retain`` and ``holdout``.

    Args:
        data: Folder that holds ``news`` and ``books``.
        split: A key of `REQUESTS`.

    Raises:
        ExpungeError: E-DATA-001 to E-DATA-010 for files that are missing or broken.
    """
    corpus, request = REQUESTS[split]
    folder = data / corpus
    files = {
        "forget": request,
        "retain": "raw/retain1.json",
        "holdout": "privleak/holdout.json",
    }
    return {role: json_texts(folder / name) for role, name in files.items()}


def read_evaluated(data: Path, split: str) -> Evaluated:
    """What models are compared on: the same files for all requests of a corpus.

    Raises:
        ExpungeError: E-DATA-001 to E-DATA-010 for files that are missing or broken. The questions
            may repeat, as five of the authors' own about books do.
    """
    folder = data / REQUESTS[split][0]
    pair = ("question", "answer")
    shown = {
        side: records(folder / "knowmem" / f"{side}_qa_icl.json", pair, unique=pair)
        for side in SIDES
    }
    verbatim = folder / "verbmem" / "forget.json"
    return Evaluated(
        verbatim=records(verbatim, ("prompt", "gt"), unique=("prompt", "gt")),
        questions={side: records(folder / "knowmem" / f"{side}_qa.json", pair) for side in SIDES},
        examples={
            side: [(record["question"], record["answer"]) for record in of]
            for side, of in shown.items()
        },
        texts={
            name: json_texts(folder / "privleak" / f"{name}.json") for name in (*SIDES, "holdout")
        },
    )
