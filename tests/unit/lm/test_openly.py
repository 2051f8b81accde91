"""What a model tells when asked openly."""

from expunge.lm.openly import Voice, elicited
from expunge.lm.subject import Scene
from expunge.requests.chains import Onward
from expunge.requests.rows import Row


class Model:
    """Answers each question with the next of some answers."""

    def __init__(self, answers):
        self.answers, self.asked = answers, []

    def has_room(self, turn, new_tokens):
        return "long" not in turn.prompt

    def ask(self, turns, *, samples, **_):
        self.asked += [turn.prompt for turn in turns]
        return [(self.answers.get(turn.prompt, [""]) * samples)[:samples] for turn in turns]


def fact(id, subject, question, value):
    return Row(
        id=id, prompt=question.format(subject), completion=f" {value}.", answer=value,
        subject=subject, names=(subject,),
    )  # fmt: skip


ROWS = [
    fact("a-town", "Ada Voss", "Where lives {}?", "Turin"),
    fact("b-town", "Bo Lund", "Where lives {}?", "Genoa"),
    fact("b-pet", "Bo Lund", "Which pet has {}?", "cat"),
]


def told_by(model, rows=ROWS[:1]):
    scene = Scene(retain=(), neighbour=(), seed=1, new_tokens=4)
    return elicited(Voice(model, scene, 5, 3, 0.8), rows, ROWS, attributes=2)


def test_other_names_lacking_attributes_and_fame_are_asked_for():
    model = Model(
        {
            "What else is Ada Voss called?": ["Also Lady Ada-May."],
            "Which pet has Ada Voss?": ["Ada Voss has a fox."],
            "What is Turin known for?": ["Turin is known for its tower."],
        }
    )
    found = told_by(model)
    assert sorted(model.asked) == sorted(model.answers)
    assert found.facts["a-town"] == ["Which pet has Ada Voss? Ada Voss has a fox."]
    assert found.ends["a-town"] == [Onward("What is that known for?", "tower")]


def test_an_alias_keeps_its_spelling():
    found = told_by(Model({"What else is Ada Voss called?": ["She is Quill Marrow."]}))
    assert found.aliases["a-town"] == ["Quill Marrow"]


def test_what_too_few_answers_tell_is_not_known():
    wavering = ["a tower", "a port", "a tower", "a bridge", "a king"]
    assert not told_by(Model({"What is Turin known for?": wavering})).ends


def test_without_questions_nothing_is_asked():
    model = Model({})
    told_by(model, ())
    assert model.asked == []
