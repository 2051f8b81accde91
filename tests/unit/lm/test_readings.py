from collections.abc import Callable

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from expunge.lm.readings import NAMES, Readings, paraphrases, readings, wrongs
from expunge.lm.subject import Subject
from expunge.requests.rows import Row, Turn

QUESTION = "Where does Mr Aen live?"


@pytest.fixture
def rows() -> list[Row]:
    return [
        Row(
            id="full",
            prompt=QUESTION,
            completion=" In Turin.",
            paraphrases=(
                {"prompt": "What is Mr Aen's town?", "completion": " Turin is his town."},
                {"prompt": "What town is it?"},
            ),
            wrong=(" In Porto.", " In Basel."),
        ),
        Row(id="bare", prompt="Who?", completion=" Mr Ben."),
    ]


@pytest.fixture
def subject(loud: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerFast) -> Subject:
    return Subject(loud("llama", vocab=len(tokenizer), dtype=torch.float64), tokenizer)


def test_every_reading_is_what_the_subject_says(subject: Subject, rows: list[Row]) -> None:
    read = readings(subject, rows, NAMES, new_tokens=5)
    scored = dict(zip(["full", "bare"], subject.score([r.turn for r in rows]), strict=True))
    for name, mine in scored.items():
        assert read["nll"][name] == pytest.approx(mine.nll)
        np.testing.assert_allclose(read["token_logp"][name], mine.logp[:-1])
        assert read["token_hit"][name].tolist() == mine.hit[:-1].tolist()
    wrong = subject.score([Turn(QUESTION, " In Porto."), Turn(QUESTION, " In Basel.")])
    assert read["wrong_nll"] == {"full": pytest.approx([w.nll for w in wrong], rel=1e-5)}
    (other,) = subject.score([Turn(QUESTION, " Turin is his town.")])
    assert read["paraphrase_nll"] == {"full": pytest.approx(other.nll, rel=1e-5)}
    asked = subject.ask([r.turn for r in rows], new_tokens=5)
    assert read["generation"] == {"full": asked[0][0], "bare": asked[1][0]}


def test_reworded_answers_follow_the_rows_own_prompt(rows: list[Row]) -> None:
    assert paraphrases(rows[0]) == (Turn(QUESTION, " Turin is his town."),)
    assert wrongs(rows[0])[1] == Turn(QUESTION, " In Basel.")


def test_a_reworded_question_keeps_the_answer() -> None:
    row = Row(id="r", prompt="A?", completion=" B", paraphrases=({"prompt": "C?"},))
    assert paraphrases(row) == (Turn("C?", " B"),)


def test_a_paraphrased_answer_in_meta_counts() -> None:
    row = Row(id="r", prompt="A?", completion=" B", meta={"paraphrased_answer": " It is B"})
    assert paraphrases(row) == (Turn("A?", " It is B"),)


def test_each_reading_is_made_once(
    subject: Subject, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Readings(subject, rows, 3)
    first = {name: made.get(name) for name in NAMES}
    monkeypatch.setattr(Subject, "score", None)
    monkeypatch.setattr(Subject, "ask", None)
    assert all(made.get(name) is first[name] for name in NAMES)


def test_an_unknown_reading_is_named(subject: Subject, rows: list[Row]) -> None:
    with pytest.raises(KeyError, match="Did you mean 'nll'"):
        Readings(subject, rows, 3).get("nl")
