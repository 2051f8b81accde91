"""MEMO: where rows are broken off, what is asked, and how the rest is scored."""

from types import SimpleNamespace

import pytest

from expunge.core.errors import ExpungeError
from expunge.core.measuring import Measure
from expunge.lm.gather import Gathered, Models
from expunge.lm.subject import Subject
from expunge.metrics.memo import Params, read, windows
from expunge.requests.rows import Row
from expunge.testing.metrics import check_metric, measure
from expunge.testing.tiny import tiny_model, tiny_tokenizer

ROW = Row(id="a", prompt="Where is it?", completion=" in the mill")


class Reciter:
    """Knows one text by heart and goes on with it; counts how often it is asked."""

    def __init__(self, whole, has_template=False):
        self.whole, self.calls = whole, []
        self.encoder = SimpleNamespace(has_template=has_template)

    def ask(self, turns, *, new_tokens, openings):
        self.calls.append((turns, openings, new_tokens))
        given = [str(turn.prompt) + start for turn, start in zip(turns, openings, strict=True)]
        return [[self.whole[len(text) :] if self.whole.startswith(text) else ""] for text in given]


def asked(row, has_template=False, **params):
    reciter = Reciter("Where is it? in the mill", has_template)
    scores = read(Models(model=reciter), {"": [row]}, Params(**params))
    return scores, reciter


def test_an_answer_of_eleven_characters_is_broken_off_twice():
    scores, reciter = asked(ROW)
    ((turns, openings, new_tokens),) = reciter.calls
    assert [turn.prompt for turn in turns] == ["Where is it? i", "Where is it? in the"]
    assert openings == ["", ""]
    assert new_tokens == 200
    assert scores["window_label"]["a"] == ["n the mill", " mill"]


@pytest.mark.parametrize(("length", "breaks"), [(1, 0), (2, 1), (6, 1), (7, 2), (11, 2), (12, 3)])
def test_breaks_lie_five_characters_apart_and_below_the_length(length, breaks):
    assert len(windows("q", "x" * length, "suffix")) == breaks
    assert len(windows("x" * length, "a", "prefix")) == breaks


def test_a_question_is_broken_off_with_its_answer_in_the_label():
    assert windows("Where is", "here", "prefix") == [
        ("W", "here is here"),
        ("Where ", "is here"),
    ]


@pytest.mark.parametrize("mode", ["prefix", "suffix"])
def test_a_model_that_goes_on_as_the_row_does_scores_one(mode):
    scores, _ = asked(ROW, mode=mode)
    assert measure("memo", scores, mode=mode).mean == 1.0


def test_all_breaks_of_all_rows_are_asked_for_at_once():
    rows = [ROW, Row(id="b", prompt="Who is it?", completion=" nobody at all")]
    reciter = Reciter("")
    read(Models(model=reciter), {"": rows}, Params())
    assert len(reciter.calls) == 1
    assert len(reciter.calls[0][0]) == 2 + 3


def test_precision_is_the_default_and_the_others_are_there():
    scores = {"window_said": [["mill and well and"]], "window_label": [["the mill"]]}
    assert measure("memo", scores).mean == 0.25
    assert measure("memo", scores, rouge="recall").mean == 0.5
    assert measure("memo", scores, rouge="f1").mean == pytest.approx(1 / 3)


def test_stems_are_compared_unless_turned_off():
    scores = {"window_said": [["mills"]], "window_label": [["mill"]]}
    assert measure("memo", scores).mean == 1.0
    assert measure("memo", scores, stem=False).mean == 0.0


def test_breaks_of_a_row_weigh_alike_and_rows_weigh_alike():
    scores = {
        "window_said": {"a": ["mill", "", "", ""], "b": ["mill"]},
        "window_label": {"a": ["mill"] * 4, "b": ["mill"]},
    }
    value = measure("memo", scores)
    assert value.per_row == {"a": 0.25, "b": 1.0}
    assert value.mean == 0.625


def test_rows_too_short_to_be_broken_off_are_left_out_and_counted():
    scores = {"window_said": {"a": ["mill"], "b": []}, "window_label": {"a": ["mill"], "b": []}}
    value = measure("memo", scores)
    assert list(value.per_row) == ["a"]
    assert value.note.startswith("1 of 2 rows have no")


def test_a_truncated_list_of_answers_is_refused():
    with pytest.raises(ExpungeError) as raised:
        measure("memo", {"window_said": [["mill"]], "window_label": [["mill", "well"]]})
    assert raised.value.code == "E-DATA-013"


def test_behind_a_chat_template_the_answer_is_begun_and_the_question_stays_whole():
    _, reciter = asked(ROW, has_template=True)
    ((turns, openings, _),) = reciter.calls
    assert [turn.prompt for turn in turns] == ["Where is it?"] * 2
    assert openings == ["i", "in the"]
    _, reciter = asked(ROW, has_template=True, mode="prefix")
    assert all(turn.running for turn in reciter.calls[0][0]), "half a question is no turn"


def test_a_conversation_is_broken_off_in_its_answer_or_its_last_question():
    row = Row(
        id="c",
        messages=(
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": "Hello."},
            {"role": "user", "content": "Where?"},
            {"role": "assistant", "content": "in the mill"},
        ),
    )
    _, reciter = asked(row, has_template=True)
    assert reciter.calls[0][1] == ["i", "in the"]
    scores, reciter = asked(row, has_template=True, mode="prefix")
    assert [turn.prompt for turn in reciter.calls[0][0]] == ["W"]
    assert scores["window_label"]["c"] == ["here? in the mill"]


@pytest.mark.parametrize("chat", [False, True])
def test_a_real_model_is_read_and_scored(chat):
    tokenizer = tiny_tokenizer(["Where is it? in the mill"], vocab=300, chat=chat)
    subject = Subject(tiny_model("llama", vocab=len(tokenizer)), tokenizer)
    scores = Gathered(Models(model=subject), {"forget": [ROW]}).scores(
        Measure(metric="memo", params={"new_tokens": 8})
    )
    assert len(scores["window_said"]["a"]) == len(scores["window_label"]["a"]) == 2
    assert 0.0 <= measure("memo", scores).mean <= 1.0


def test_memo_conforms():
    check_metric("memo")
