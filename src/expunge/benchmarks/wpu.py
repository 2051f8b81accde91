"""WPU: forget real people from encyclopedia pages, and keep everybody else those pages name.

Definition (five axes; ratings 1 to 3 by a judge where there are any, as (mean - 1) / 2):
    efficacy          privacy ratings of the answers on forget rows; without a judge the proxy
    quality           ratings of their fitness, names masked; without a judge 1 - gibberish
    hallucination     rejection rate: answers that say the information is not available
    utility           ROUGE-L recall on hard retain (people of the same pages) and general retain
    robustness        efficacy after up to 100 questions with their answers put in front
    diversity         share of 4-grams that stand once in an answer: 1 - repetition

Ratings are added to a stored log as ``privacy_rating`` and ``quality_rating`` of a set (row -> 1,
2 or 3); `cases` gives what the judge must see: each question once, names masked for quality. Pin
the judge: ratings of two judges do not compare. The attack with a trained soft prompt is an attack
on the weights and belongs to the audit's attacks, not to this benchmark.

Reference: Revisiting Who's Harry Potter: Towards Targeted Unlearning from a Causal Intervention
Perspective (2024).

Departs from the paper: its judge is not called, see above, and the proxies stand beside it under
names of their own. Duplicate questions are taken out for every number, not only before judging.
Examples of the many-shot prompt come from the authors' file if it is there, else from general
retain rows; they are cut to a number of characters, since tokens differ from model to model.
Files that hold the questions alone (with ``answers`` and ``wrong_answers``) are read as
well; the person is then told from the question (INFERRED).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from expunge.core.errors import ExpungeError, nearest
from expunge.core.measuring import Measure
from expunge.core.params import param
from expunge.data.upstream import Record, record_id, records
from expunge.lm.readings import Asking
from expunge.requests.names import names_of
from expunge.requests.rows import Row
from expunge.text.judging import Case
from expunge.text.judging import cases as each_once
from expunge.text.normalise import normalise

CARD = {
    "id": "wpu",
    "kind": "benchmark",
    "summary": "Forget 2, 20 or 100 people, and keep those who stand beside them.",
    "paper": "Revisiting Who's Harry Potter: Towards Targeted Unlearning (2024)",
    "needs": ["forget", "retain", "neighbour"],
    "access": "text",
    "cost": "two generations a forget row, one of them after a long prompt; one a retain row",
    "maturity": "paper",
    "version": 1,
    "splits": ["forget_2", "forget_20", "forget_100"],
    "default_split": "forget_100",
    "licence": "code MIT; the data state no licence, are about real people and are not shipped",
}

SPLITS = ("forget_2", "forget_20", "forget_100")
QUESTIONS = "forget_questions_with_random_labels"
"""A file of the forget questions alone, taken where that of the split is not there."""
SHOTS = "msj_attack"
SUFFIXES = (".jsonl", ".json", ".csv")
STYLES = {"plain": ("Question: {}\nAnswer:", " {}"), "chat": ("{}", "{}")}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """Which people, how questions are put, and how long the attack's prompt is."""

    style: str = param(
        "plain",
        help="plain: 'Question: ... Answer: ...'; chat: the question alone, for chat templates",
        paper="chat",
        choices=("plain", "chat"),
    )
    index: int = param(1, help="which of the sets of 2 or 20 people", paper="several", low=1)
    rows: int = param(1000, help="most rows of a set that are evaluated", low=1)
    new_tokens: int = param(200, help="longest greedy answer, in tokens", paper=200, low=1)
    shots: int = param(100, help="questions in front, in the many-shot attack", paper=100, low=0)
    shot_characters: int = param(
        12_000, help="longest many-shot prompt, in characters", paper="3896 tokens", low=0
    )


def fitting(has_template: bool) -> dict[str, Any]:
    """Parameters that fit a model, by whether its tokenizer has a chat template."""
    return {"style": "chat" if has_template else "plain"}


def splits(data: Path, split: str, params: Params) -> dict[str, list[Row]]:
    """The people to forget, those of the same pages and others to keep; what is there of them.

    Raises:
        ExpungeError: E-USE-001 for an unknown split; what `upstream.records` raises.
    """
    found = _rows_of(data, split, params)
    roles = {"forget": "forget", "neighbour": "hard_retain", "retain": "general_retain"}
    gone = {row.turn.prompt for row in found["forget"]}
    return {
        role: [
            replace(row, role=role, wrong=())
            for row in found[name]
            if role == "forget" or row.turn.prompt not in gone
        ]
        for role, name in roles.items()
        if name in found
    }


def sets(data: Path, split: str, params: Params) -> dict[str, list[Row]]:
    """The rows models are compared on: ``forget``, ``many_shot``, and the retain sets given.

    Raises:
        ExpungeError: As `splits`.
    """
    found = {name: rows[: params.rows] for name, rows in _rows_of(data, split, params).items()}
    examples = _examples(data, found, params)
    if examples:
        found["many_shot"] = [_after(examples, row, params) for row in found["forget"]]
    return {name: rows for name, rows in found.items() if rows}


def measures(params: Params) -> dict[str, Measure]:
    """The numbers; what a judge must rate is not measurable until the ratings are in the log."""
    told = {"counts": "unavailable"}
    kept = {
        f"{of}.{name}": each
        for of in ("hard_retain", "general_retain")
        for name, each in {
            "rouge": Measure(metric="rouge", on=of, better="high"),
            "quality": Measure(metric="judged-quality", on=of),
            "gibberish": Measure(metric="gibberish", on=of),
        }.items()
    }
    return {
        "forget.efficacy": Measure(metric="judged-efficacy"),
        "forget.efficacy_proxy": Measure(metric="proxy-efficacy"),
        "forget.quality": Measure(metric="judged-quality"),
        "forget.gibberish": Measure(metric="gibberish"),
        "forget.rejection": Measure(metric="rejection-rate", params=told),
        "forget.rouge": Measure(metric="rouge"),
        "forget.repetition": Measure(metric="repetition"),
        **kept,
        "many_shot.efficacy": Measure(metric="judged-efficacy", on="many_shot"),
        "many_shot.efficacy_proxy": Measure(metric="proxy-efficacy", on="many_shot"),
    }


def asking(params: Params) -> dict[str, Asking]:
    """Written-out questions end where the model begins to ask itself."""
    until = ("\nQuestion:",) if params.style == "plain" else ()
    usual = Asking(new_tokens=params.new_tokens, until=until)
    return dict.fromkeys(("forget", "hard_retain", "general_retain", "many_shot"), usual)


def references(split: str) -> str:
    """How the reference of a split is made, in words."""
    _known(split)
    return (
        "There is none upstream: the people are real and every base model has read of them. Where "
        "a retrained model is wanted, continue the training of a base model on the pages of the "
        "split with the recipe of the original, without the pages of the people to forget."
    )


def cases(log: Mapping[str, Any], rows: Sequence[Row], on: str = "forget") -> list[Case]:
    """What a judge is to see of one set.

    Args:
        log: What a model said.
        rows: The rows of the set.
        on: Its name.

    Returns:
        Each question once, with names masked beside the plain texts.
    """
    said = log[on]["generation"]
    names = names_of(rows)
    return each_once(
        (row.id, str(row.meta["question"]), row.reply.strip(), said[row.id], names[row.id])
        for row in rows
        if row.id in said
    )


def cells(summary: Mapping[str, Any]) -> dict[str, float | None]:
    """The columns of the benchmark's table."""
    means = {name: value["mean"] for name, value in summary["values"].items()}
    repeated = means["forget.repetition"]
    return {
        "efficacy": means["forget.efficacy"],
        "efficacy, proxy": means["forget.efficacy_proxy"],
        "quality": means["forget.quality"],
        "rejection": means["forget.rejection"],
        "hard retain ROUGE": means["hard_retain.rouge"],
        "general retain ROUGE": means["general_retain.rouge"],
        "many-shot, proxy": means["many_shot.efficacy_proxy"],
        "diversity": None if repeated is None else 1 - repeated,
    }


def _known(split: str) -> str:
    if split not in SPLITS:
        raise ExpungeError(
            "E-USE-001",
            f"WPU has no split {split!r}.",
            f"one of {', '.join(SPLITS)}.",
            nearest(split, SPLITS),
        )
    return split


def _rows_of(data: Path, split: str, params: Params) -> dict[str, list[Row]]:
    """Name of a set -> its rows, each question once."""
    name = _known(split) if split == "forget_100" else f"{_known(split)}_{params.index}"
    wanted = {
        "forget": (name, QUESTIONS) if split == "forget_100" else (name,),
        "hard_retain": (f"{name}_hard_retain", "hard_retain"),
        "general_retain": ("general_retain",),
    }
    found = {of: _first(data, names) for of, names in wanted.items()}
    if found["forget"] is None:
        found["forget"] = data / f"{name}.jsonl"  # named in the error of whoever reads it
    return {of: _rows(path, of, params) for of, path in found.items() if path is not None}


def _first(data: Path, names: Sequence[str]) -> Path | None:
    paths = (data / f"{name}{suffix}" for name in names for suffix in SUFFIXES)
    return next((path for path in paths if path.is_file()), None)


def _rows(path: Path, of: str, params: Params) -> list[Row]:
    rows: dict[str, Row] = {}
    for record in records(path, ("question",)):
        row = _row(record, path, of, params)
        kept = rows.setdefault(normalise(record["question"]), row)
        if row.id < kept.id:  # whatever the order of the file
            rows[normalise(record["question"])] = row
    named = names_of(list(rows.values()))
    return [  # ordered by id, so that a cut after so many rows takes the same of any order
        row if row.subject else replace(row, subject=next(iter(named[row.id]), None))
        for row in sorted(rows.values(), key=lambda row: row.id)
    ]


def _row(record: Record, path: Path, of: str, params: Params) -> Row:
    question, answer = (part.format for part in STYLES[params.style])
    first, *others = _answers(record, path)
    title = record.get("title")
    return Row(
        id=record_id(of, record["question"], first),
        role="forget" if of == "forget" else "probe",
        prompt=question(record["question"]),
        completion=answer(first),
        answer=first,
        aliases=tuple(others),
        subject=title or None,
        names=(title,) if title else (),
        wrong=tuple(answer(each) for each in record.get("wrong_answers") or ()),
        meta={"question": record["question"]},
    )


def _answers(record: Record, path: Path) -> list[str]:
    """The true answer and its other forms."""
    given = record.get("answer", record.get("answers"))
    answers = [given] if isinstance(given, str) else given
    if isinstance(answers, list) and answers and all(isinstance(each, str) for each in answers):
        return answers
    raise ExpungeError(
        "E-DATA-003",
        f"{path}: no 'answer' or 'answers' for {record['question']!r}.",
        "a text, or a list of texts.",
        "Use the upstream file unchanged.",
    )


def _examples(
    data: Path, found: Mapping[str, Sequence[Row]], params: Params
) -> list[tuple[str, str]]:
    """Questions with answers to put in front: the last ones that fit, as upstream takes them."""
    path = _first(data, (SHOTS,))
    if path is not None:
        given = records(path, ("question", "generated"))
        pairs = [(one["question"], _said(one["generated"])) for one in given]
    else:
        asked = found.get("general_retain") or found.get("hard_retain") or ()
        pairs = sorted((str(row.meta["question"]), row.reply.strip()) for row in asked)
    kept: list[tuple[str, str]] = []
    room = params.shot_characters
    for pair in reversed(pairs[len(pairs) - min(params.shots, len(pairs)) :]):
        room -= len(pair[0]) + len(pair[1]) + len("Question: \nAnswer: \n\n")
        if room < 0:
            break
        kept.insert(0, pair)
    return kept


def _said(generated: str) -> str:
    """The answer alone, out of what the authors' file keeps of a generation."""
    return generated.split("\n\n", maxsplit=1)[0].rsplit("[/INST]", maxsplit=1)[-1].strip()


def _after(examples: Sequence[tuple[str, str]], row: Row, params: Params) -> Row:
    """A row that is asked after the examples: as turns of a conversation, or written out."""
    meta = {**row.meta, "shots": len(examples)}
    row = replace(row, id=record_id("many_shot", row.id), role="probe", wrong=(), meta=meta)
    if params.style == "plain":
        shown = "".join(f"Question: {asked}\nAnswer: {told}\n\n" for asked, told in examples)
        return replace(row, prompt=f"{shown}{row.prompt}")
    said = [
        {"role": who, "content": text}
        for pair in examples
        for who, text in zip(("user", "assistant"), pair, strict=True)
    ]
    said += [
        {"role": "user", "content": str(row.prompt)},
        {"role": "assistant", "content": str(row.completion)},
    ]
    return replace(row, prompt=None, completion=None, messages=tuple(said))
