"""DUSK: forget one of five accounts of the same people, and keep what the other four tell too.

Definition (QA: ROUGE-L F1 of at most 32 greedy tokens after worked examples; all in percent):
    VM     ROUGE-L F1 of 128 greedy tokens after the beginning of a passage to forget   lower
    UFK    QA on facts that only the account to forget tells                           lower
    SK     QA on facts that accounts to forget and to keep tell alike                  higher
    URK    QA on facts that only accounts to keep tell                                 higher
    DC     mean of standard benchmarks                                                 higher
    PL     100 (A - A_r) / A_r, A = P(hold-out looks more like a member than forget), Min-K%++ 40%
    RD     100 |A - A_r| / A_r, A = P(retain looks more like a member than hold-out), Min-K%++ 40%
    selective = mean(1 - UFK / UFK_o, SK / SK_o, URK / URK_o)      o: the original; INFERRED

Reference: DUSK: Do Not Unlearn Shared Knowledge (2025).

Departs from the paper: the selective score is ours. Passages for PL and RD are cut by words
(``words``), not into 1024 tokens, and a last shorter piece is left out as there. F1 is the reported
statistic (INFERRED: the log holds recall as well). The code's count of common words and its edit
distance are divided by the longer text. UFK has 20 rows, so one answer is 5 percent: read its exact
interval ``answered_low`` to ``answered_high`` among the parts. DC takes files of other benchmarks:
``expunge bench general`` measures it, and here it is said not to be measured. The verbatim file
repeats a passage, which counts twice as there. On a chat model prompts come as a user's turn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expunge.core.errors import ExpungeError, raise_all
from expunge.core.measuring import Measure
from expunge.core.params import param
from expunge.core.results import Value
from expunge.data.upstream import Record, record_id, records, text_of
from expunge.data.whole import distinct_ids
from expunge.requests.rows import Row, check_roles
from expunge.text.few_shot import STOPS, few_shot
from expunge.text.pieces import pieces

if TYPE_CHECKING:
    from expunge.lm.readings import Asking

CARD = {
    "id": "dusk",
    "kind": "benchmark",
    "summary": "Forget one source of facts, some of which other sources tell as well.",
    "paper": "DUSK: Do Not Unlearn Shared Knowledge (2025)",
    "needs": ["forget", "retain", "holdout", "reference"],
    "access": "logits",
    "cost": "128 greedy tokens on 47 rows, 32 on 273, one forward pass on some 280 long passages",
    "maturity": "paper",
    "version": 1,
    "splits": ["chronological"],
    "default_split": "chronological",
    "licence": "the authors state none; the files are not shipped",
}

SPLIT = "chronological"
FORGET = "Chronological"
RETAIN = ("Feature_Story", "Interview", "Inverted_Pyramid", "Listicle")
TITLE = "Title:"
"""How the account of one person begins."""

QUESTIONS = {"ufk": "SpecificForgetQA", "sk": "GeneralQA", "urk": "SpecificRetainQA"}
PAIR = ("question", "answer")
NOT_HERE = "not measured here: 'expunge bench general' gives it from the standard benchmarks' files"


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """How much is evaluated, and how long passages are."""

    rows: int = param(400, help="most rows of a set that are evaluated", low=1)
    verbatim_tokens: int = param(128, help="longest greedy continuation", paper=128, low=1)
    answer_tokens: int = param(32, help="longest greedy answer", paper=32, low=1)
    words: int = param(
        700, help="length of a passage for PL and RD, in words", paper="1024 tokens", low=1
    )


def splits(data: Path, split: str, params: Params) -> dict[str, list[Row]]:
    """The accounts to forget and to keep, one row a person, and accounts that no model saw.

    Args:
        data: Folder with the five accounts and ``eval``.
        split: ``chronological``, the account for which the questions were made.
        params: Not used.

    Raises:
        ExpungeError: E-USE-001 for an unknown split; E-DATA-001 to E-DATA-010 for files that are
            missing or broken; E-DATA-006 when an account is both to be forgotten and to be kept.
    """
    _known(split)
    files = {
        "forget": [f"{FORGET}.txt"],
        "retain": [f"{name}.txt" for name in RETAIN],
        "holdout": ["eval/holdout.txt"],
    }
    roles = {
        role: _text_rows([one for name in names for one in _accounts(data / name)], role)
        for role, names in files.items()
    }
    raise_all(check_roles(**roles))
    return roles


def sets(data: Path, split: str, params: Params) -> dict[str, list[Row]]:
    """What models are compared on.

    Returns:
        ``verbatim``, the questions ``ufk``, ``sk`` and ``urk``, and the passages ``forget``,
        ``retain`` and ``holdout``.

    Raises:
        ExpungeError: As `splits`; E-DATA-007 for a question that stands twice.
    """
    _known(split)
    folder = data / "eval"
    shown = [_pair(record) for record in records(folder / "icl.jsonl", PAIR, unique=PAIR)]
    verbatim = records(folder / "verbatim.json", ("prompt", "gt"))
    asked = {
        name: records(folder / f"{file}.jsonl", PAIR, unique=PAIR)
        for name, file in QUESTIONS.items()
    }
    texts = {
        "forget": [data / f"{FORGET}.txt"],
        "retain": [data / f"{name}.txt" for name in RETAIN],
        "holdout": [folder / "holdout.txt"],
    }
    given = {
        "verbatim": _rows([(record["prompt"], record["gt"]) for record in verbatim]),
        **{
            name: _rows([(few_shot(shown, asked), told) for asked, told in map(_pair, of)])
            for name, of in asked.items()
        },
        **{
            name: _text_rows([p for path in paths for p in _passages(path, params.words)], name)
            for name, paths in texts.items()
        },
    }
    return {name: rows[: params.rows] for name, rows in given.items()}


def measures(params: Params) -> dict[str, Measure]:
    """The numbers, but DC."""
    recited = {"tokens": params.verbatim_tokens}
    return {
        "vm": Measure(metric="verbatim-memorisation", on="verbatim", params=recited),
        **{
            name: Measure(
                metric="knowledge-memorisation",
                on=name,
                better="low" if name == "ufk" else "high",
            )
            for name in QUESTIONS
        },
        "pl": Measure(metric="privleak", params={"score": "min-k-plus-plus"}),
        "rd": Measure(metric="retain-deviation", on="retain"),
        "selective": Measure(
            metric="selective-score",
            of={
                **{name: name for name in QUESTIONS},
                **{f"{name}_original": f"original:{name}" for name in QUESTIONS},
            },
        ),
    }


def references(split: str) -> str:
    """How the reference of a split is made, in words."""
    _known(split)
    return (
        f"Fine-tune the base model on the four accounts {', '.join(RETAIN)} alone, with the recipe "
        "that made the original from all five; the authors' settings are learning rate 1e-5, "
        "weight decay 0.01, batches of 4 accumulated over 4, pieces of 1024 tokens."
    )


def asking(params: Params) -> dict[str, "Asking"]:
    """How rows are put to a model: passages go on, answers end where the next question begins."""
    from expunge.lm.readings import Asking

    answer = Asking(new_tokens=params.answer_tokens, until=STOPS)
    return {
        "verbatim": Asking(new_tokens=params.verbatim_tokens),
        **dict.fromkeys(QUESTIONS, answer),
    }


def present(values: Mapping[str, Value]) -> dict[str, Any]:
    """The seven numbers, the one that is not measured here with its reason."""
    notes = {name: value.note for name, value in values.items() if value.note}
    means = {name: value.mean for name, value in values.items()}
    return {**means, "dc": None, "notes": {**notes, "dc": NOT_HERE}}


def cells(summary: Mapping[str, Any]) -> dict[str, float | None]:
    """The columns of the benchmark's table."""
    columns = ("vm", "ufk", "sk", "urk", "dc", "pl", "rd", "selective")
    return {name.upper() if len(name) < 4 else name: summary[name] for name in columns}


def _accounts(path: Path) -> list[str]:
    """The accounts of one file, one a person, none longer than what stands about him."""
    before, *bodies = text_of(path).split(TITLE)
    if before.strip() or not bodies:
        raise ExpungeError(
            "E-DATA-003",
            f"{path.name}: it does not begin with {TITLE!r}.",
            f"accounts that each begin with {TITLE!r}.",
            "Use the upstream file unchanged.",
        )
    return [f"{TITLE}{body}".strip() for body in bodies]


def _passages(path: Path, words: int) -> list[str]:
    """One file in passages of so many words; the last, shorter one only where it is alone."""
    cut = pieces(text_of(path).strip(), words)
    whole = [piece for piece in cut if len(piece.split()) == words]
    if not cut:
        raise ExpungeError(
            "E-DATA-005", f"{path} has no words.", "running text.", "Fetch the file again."
        )
    return whole or cut


def _text_rows(texts: Sequence[str], role: str) -> list[Row]:
    names = distinct_ids(record_id(text) for text in texts)
    return [Row(id=name, role=role, text=text) for name, text in zip(names, texts, strict=True)]


def _rows(pairs: Sequence[tuple[str, str]]) -> list[Row]:
    """Rows of prompts and completions; a pair that stands twice is two rows of one subject."""
    subjects = [record_id(prompt, completion) for prompt, completion in pairs]
    return [
        Row(id=name, role="probe", prompt=prompt, completion=completion, subject=subject)
        for name, subject, (prompt, completion) in zip(
            distinct_ids(subjects), subjects, pairs, strict=True
        )
    ]


def _pair(record: Record) -> tuple[str, str]:
    return record["question"], record["answer"]


def _known(split: str) -> None:
    if split != SPLIT:
        raise ExpungeError(
            "E-USE-001",
            f"DUSK has no split {split!r}.",
            f"{SPLIT}, the account that the questions to forget were made for.",
            "Leave the split out.",
        )
