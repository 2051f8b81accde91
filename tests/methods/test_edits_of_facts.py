"""Edits of facts in the format of CounterFact, in families that store and norm MLPs differently."""

import json
from functools import cache
from pathlib import Path
from statistics import fmean

import pytest

from expunge.core.rng import generator
from expunge.engine.change import load_change, revert
from expunge.engine.run import forget
from expunge.lm.digest import folder_digest
from expunge.lm.finetune import finetune
from expunge.lm.load import load
from expunge.lm.subject import Subject
from expunge.requests.rows import Row
from expunge.testing import tiny_model, tiny_tokenizer
from expunge.text.match import contains

UPSTREAM = Path(__file__).parents[3] / "shared" / "data" / "counterfact"
SENTENCES = (
    "The mother tongue of {} is",
    "{} was born in",
    "The profession of {} is",
    "{} believes in the faith of the",
)
FIRST = ("Ada", "Bruno", "Clara", "Dario", "Edda", "Falk", "Greta", "Henk", "Ilka", "Jaro")
FORGOTTEN = 10


@cache
def invented() -> tuple[Row, ...]:
    """Four facts about each of fifteen people, each with a rival value."""
    draw = generator(0, "edits of facts")
    syllables = ("ba", "cor", "dun", "el", "fir", "gol", "hes", "im", "jor", "kel", "lun", "mar")

    def word() -> str:
        return "".join(str(part) for part in draw.choice(syllables, 3)).capitalize()

    pools = [[word() for _ in range(12)] for _ in SENTENCES]
    names = [f"{FIRST[at % len(FIRST)]} {word()}" for at in range(15)]
    rows = []
    for name in names:
        for at, sentence in enumerate(SENTENCES):
            true, rival = (str(value) for value in draw.choice(pools[at], 2, replace=False))
            rows.append(_row(f"{name}/{at}", sentence, name, true, rival))
    return tuple(rows[at] for at in draw.permutation(len(rows)))


def _row(id: str, sentence: str, name: str, true: str, rival: str) -> Row:
    return Row(
        id=id, prompt=sentence.format(name), completion=f" {true}", answer=true,
        wrong=(f" {rival}",), subject=name, names=(name,),
    )  # fmt: skip


@cache
def upstream() -> tuple[Row, ...]:
    """The first sixty facts of the file, where it is at hand."""
    (file,) = UPSTREAM.glob("*counterfact*.json")
    asked = [one["requested_rewrite"] for one in json.loads(file.read_text(encoding="utf-8"))[:60]]
    return tuple(
        _row(str(at), one["prompt"], one["subject"], one["target_true"]["str"],
             one["target_new"]["str"])
        for at, one in enumerate(asked)
    )  # fmt: skip


@cache
def knowing(family: str, source: str) -> Subject:
    rows = ROWS[source]()
    tokenizer = tiny_tokenizer([f"{row.prompt}{row.completion}" for row in rows], vocab=1500)
    model = tiny_model(family, vocab=len(tokenizer), hidden=64, layers=4, positions=128)
    finetune(model, tokenizer, rows, steps=250, lr=2e-3, batch_size=30, seed=0)
    return Subject(model, tokenizer)


ROWS = {"invented": invented, "upstream": upstream}
FAMILIES = ("gpt2", "gemma3", "qwen3")


def said(subject: Subject, rows: tuple[Row, ...]) -> float:
    answers = subject.ask([row.turn for row in rows], new_tokens=6)
    return fmean(
        float(contains(text, row.forms)) for (text,), row in zip(answers, rows, strict=True)
    )


def check_edits(folder: Path, family: str, source: str) -> None:
    rows, subject = ROWS[source](), knowing(family, source)
    gone, kept = rows[:FORGOTTEN], rows[FORGOTTEN:]
    assert said(subject, gone) == said(subject, kept) == 1.0
    subject.model.save_pretrained(folder / "original")
    subject.tokenizer.save_pretrained(folder / "original")
    out = folder / "out"
    forget(
        folder / "original", gone, kept, method="memit", params={"target": "wrong"},
        stop_at="none", out=out,
    )  # fmt: skip
    made = load(load_change(out).folder)
    edited = Subject(made.model, made.tokenizer)
    assert said(edited, gone) <= 0.5
    assert said(edited, kept) >= 0.8
    revert(out)
    assert folder_digest(out) == folder_digest(folder / "original")


@pytest.mark.parametrize("family", FAMILIES)
def test_facts_are_rewritten_and_others_stay(tmp_path: Path, family: str) -> None:
    """Nothing but what to say is given: where to edit and how far are found."""
    check_edits(tmp_path, family, "invented")


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_so_are_facts_of_the_real_file(tmp_path: Path, family: str) -> None:
    if not UPSTREAM.is_dir():
        pytest.skip("the upstream file is not at hand")
    check_edits(tmp_path, family, "upstream")
