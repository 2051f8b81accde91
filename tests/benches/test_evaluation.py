"""The bench compares two ways to the same values, and would notice if they were others."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benches"))
import evaluation
import evaluation_page
from evaluation_plain import Plain
from evaluation_world import Sets, sets_of, taught

from expunge.lm.subject import Subject

MOST = 12
"""Rows of a set."""


@pytest.fixture(scope="module")
def sets() -> Sets:
    return sets_of(None, 20)


@pytest.fixture(scope="module")
def subject(sets: Sets) -> Subject:
    few = {name: rows[:MOST] for name, rows in sets.items()}
    return taught(few, hidden=32, layers=2, epochs=2, seed=0)


def test_both_ways_give_the_same_values_and_ours_takes_fewer_passes(
    subject: Subject, sets: Sets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "NEW_TOKENS", 12)
    few = {name: rows[:MOST] for name, rows in sets.items()}
    found = evaluation.compare(subject, few, repeats=1)
    assert len(found["differences"]) == 10
    assert max(found["differences"].values()) < 1e-5
    assert found["texts"] == {"rows": 44, "different": 0, "largest_gap": 0.0}
    assert found["work"]["ours"]["passes"] * 5 < found["work"]["plain"]["passes"]
    holds = {words: held for words, _, _, held in evaluation_page.bars(found)}
    del holds["times faster, CPU time"]  # a test does not time
    assert all(holds.values())


def test_other_values_and_texts_are_noticed(subject: Subject, sets: Sets) -> None:
    rows = {"forget": sets["forget"][:2]}
    plain = Plain(subject, 4)
    values, texts = evaluation.plainly(plain, rows)
    row = rows["forget"][0].id
    other = {"forget": {metric: dict(of) for metric, of in values["forget"].items()}}
    other["forget"]["probability"][row] += 0.25
    assert evaluation.differences(values, other)["forget probability"] == pytest.approx(0.25)
    wrong = {"forget": texts["forget"] | {row: texts["forget"][row] + " bees"}}
    found = evaluation.text_differences(subject, plain, rows, texts, wrong)
    assert (found["different"], found["rows"]) == (1, 2)
    assert found["largest_gap"] > 0
    del other["forget"]["probability"][row]
    with pytest.raises(ValueError, match="not the same rows"):
        evaluation.differences(values, other)


def test_the_plain_way_scores_as_a_row_alone(subject: Subject, sets: Sets) -> None:
    row = sets["forget"][0]
    item = subject.encoder.encode(row.turn)
    with torch.no_grad():
        loss = subject.model(
            torch.tensor([item.ids]), labels=torch.tensor([item.labels])
        ).loss.item()
    assert Plain(subject, 4).readings([row], ["nll"])["nll"][row.id] == pytest.approx(
        loss, abs=1e-6
    )
