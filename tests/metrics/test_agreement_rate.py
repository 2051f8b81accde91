"""Agreement rate: the model on its own answers."""

from expunge.lm.gather import Models
from expunge.metrics import agreement_rate
from expunge.requests.rows import Row
from expunge.testing.metrics import measure


def agreed(*verdicts):
    scores = {"own_answer": ["Rome"] * len(verdicts), "own_verdict": list(verdicts)}
    return measure("agreement-rate", scores)


def test_share_of_yes():
    value = agreed("Yes.", "yes", "No.", "Rome")
    assert value.mean == 0.5
    assert value.parts["followed"] == 0.75


def test_not_reasonable_is_no_agreement():
    assert agreed("No, it is not reasonable or correct.", "I know.").mean == 0


def test_the_model_judges_what_it_said():
    class Model:
        @staticmethod
        def ask(turns, **settings):
            asked.extend(turn.prompt for turn in turns)
            return [[" Rome.\nQuestion: more"] for _ in turns]

    asked = []
    row = Row(id="q", prompt="Where?", completion=" x")
    found = agreement_rate.read(Models(model=Model()), {"": [row]}, agreement_rate.Params())
    assert found["own_answer"] == {"q": "Rome."}
    assert "'Rome.' a reasonable answer to the question 'Where?'" in asked[1]
