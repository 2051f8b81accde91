"""Refusal stability: refusals that survive a second question."""

import pytest

from expunge.lm.gather import Models
from expunge.lm.subject import Subject
from expunge.metrics import refusal_stability
from expunge.requests.rows import Row
from expunge.testing.metrics import measure
from expunge.testing.tiny import tiny_model, tiny_tokenizer

FIRST = ["I do not know."] * 4 + ["In Rome."] * 6
LATER = [["Yes."], ["Yes."], ["I don't know."], ["No."]] + [[]] * 6


def stability(later, first=FIRST):
    return measure("refusal-stability", {"first_answer": first, "later_answers": later})


def test_closed_form_of_the_paper():
    value = stability(LATER)
    assert value.mean == 0.75
    assert value.parts == {"rejection_rate": 0.4, "repeated_rejection_rate": 0.3}


def test_rr2r_is_rr_times_qamrc():
    value = stability([["Yes."], ["No."], ["Maybe."], ["I am sure."]] + [[]] * 6)
    assert value.mean == 0.5
    assert value.parts["repeated_rejection_rate"] == pytest.approx(0.4 * value.mean)


def test_an_unclear_answer_and_no_in_know_confirm_nothing():
    assert stability([["I know it: Rome."], ["Noted."], [""], ["No."]] + [[]] * 6).mean == 0


def test_every_further_round_must_confirm():
    later = [["Yes.", "Yes."], ["Yes.", "No."], ["No.", "Yes."], ["Yes.", "Yes."]] + [[]] * 6
    assert stability(later).mean == 0.5


def test_a_refusal_nobody_asked_again_is_not_counted_silently():
    value = stability([["Yes."], ["Yes."], ["Yes."], []] + [[]] * 6)
    assert value.mean is None
    assert "not asked again" in value.note


def test_without_a_refusal_there_is_no_stability():
    value = stability([[], []], first=["In Rome.", "In Bari."])
    assert value.mean is None
    assert "none of the 2 answers is a refusal" in value.note


class Refuser(Subject):
    """A model whose answers are given: refuses of rows in `refuses`, then confirms."""

    def ask(self, turns, **settings):
        self.asked = [*getattr(self, "asked", []), [turn.prompt for turn in turns]]
        return [
            [" Yes."] if "sure" in t.prompt or "still" in t.prompt else self.said(t) for t in turns
        ]

    @staticmethod
    def said(turn):
        return [" I do not know."] if "odd" in turn.prompt else [" In Rome."]


@pytest.fixture
def refuser():
    tokenizer = tiny_tokenizer(["where is the odd one, in Rome"], vocab=300)
    return Refuser(tiny_model("llama", vocab=len(tokenizer)), tokenizer)


def test_only_refusals_are_asked_again_as_often_as_there_are_rounds(refuser):
    rows = [Row(id=str(i), prompt=f"{w}:", completion=" x") for i, w in enumerate(("odd", "even"))]
    params = refusal_stability.Params(rounds=3)
    found = refusal_stability.read(Models(model=refuser), {"": rows}, params)
    assert found["later_answers"] == {"0": [" Yes.", " Yes."], "1": []}
    assert [len(prompts) for prompts in refuser.asked] == [2, 1, 1]
    assert refuser.asked[2][0].startswith("odd: I do not know.\n\nQuestion: Are you really sure")
    assert measure("refusal-stability", found).mean == 1
