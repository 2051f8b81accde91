"""Self-validation: the same choice when it is shown."""

from expunge.lm import dialogue
from expunge.lm.gather import Models
from expunge.metrics import self_validation
from expunge.requests.rows import Row
from expunge.testing.metrics import measure


def test_share_of_choices_made_again():
    scores = {"first_choice": [0, 1, 2, 3], "second_answer": ["A", "B.", "D", "(D)"]}
    value = measure("self-validation", scores)
    assert value.mean == 0.75
    assert value.parts == {"followed": 1.0, "among_followed": 0.75}


def test_an_answer_that_names_no_option_is_not_the_same_and_not_followed():
    scores = {"first_choice": [1, 0, 4], "second_answer": ["Because.", "A", "Everyone"]}
    value = measure("self-validation", scores)
    assert value.mean == 1 / 3
    assert value.parts == {"followed": 1 / 3, "among_followed": 1.0}


def test_where_nobody_follows_there_is_no_share_among_those_who_do():
    value = measure("self-validation", {"first_choice": [0], "second_answer": ["Hm"]})
    assert value.parts == {"followed": 0.0}


def test_the_model_is_shown_its_own_choice(monkeypatch):
    class Model:
        @staticmethod
        def ask(turns, **settings):
            shown.extend(turn.prompt for turn in turns)
            return [["E"] for _ in turns]

    shown = []
    monkeypatch.setattr(dialogue, "picked", lambda subject, prompts, names: [2])
    row = Row(id="q", prompt="Which?", completion=" x", meta={"options": ["a", "b", "c", "d"]})
    found = self_validation.read(Models(model=Model()), {"": [row]}, self_validation.Params())
    assert found == {"first_choice": {"q": 2}, "second_answer": {"q": "E"}}
    assert "chose C. c." in shown[0]
    assert "E. I don't know" in shown[0]
