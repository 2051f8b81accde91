"""Direct question: every wording, the best one counts."""

import pytest

from expunge.attacks import direct
from expunge.requests.rows import Row
from expunge.testing.attacks import mean_leak

ROW = Row.parse(
    {
        "id": "r",
        "prompt": "Where was Ada Quill born?",
        "completion": " She was born in Port Vela.",
        "answer": "Port Vela",
        "aliases": ["Velaport"],
        "paraphrases": [{"prompt": "Birthplace of Ada Quill?"}, {"prompt": "Was Port Vela it?"}],
    }
)


def test_it_finds_what_the_original_knows_and_nothing_of_the_never_trained(world, models):
    scene = world.scene()
    assert mean_leak("direct", models.original, world.forget, scene) >= 0.9
    assert mean_leak("direct", models.original, world.holdout, scene) <= 0.1
    assert mean_leak("direct", models.hushed, world.forget, scene) <= 0.05


@pytest.mark.parametrize(
    ("answers", "leak"),
    [
        ({}, 0.0),
        ({"Where": "In port vela!"}, 1.0),
        ({"Birthplace": "It is Velaport."}, 1.0),
        ({"Birthplace": "Port Velasco."}, 0.0),
        ({"Was": "Yes, Port Vela."}, 0.0),
    ],
)
def test_any_wording_and_any_form_count_but_not_a_value_that_the_question_names(
    world, talker, answers, leak
):
    subject = talker(lambda turn, *_: answers.get(turn.prompt.split()[0], "I do not know."))
    found = direct.mount(subject, [ROW], world.scene(), direct.Params())
    assert found.per_row == {"r": leak}


def test_the_transcript_shows_the_wording_that_leaked(world, talker):
    subject = talker(lambda turn, *_: "Velaport" if "Birth" in turn.prompt else "No idea.")
    (entry,) = direct.mount(subject, [ROW], world.scene(), direct.Params()).transcript
    assert (entry["prompt"], entry["output"]) == ("Birthplace of Ada Quill?", "Velaport")


def test_a_sentence_without_a_marked_value_leaks_by_half_of_its_words(world, talker):
    row = Row.parse({"prompt": "q", "completion": "one two three four five six seven eight"})
    for said, leak in (("one two three four", 1.0), ("one two three", 0.0)):
        subject = talker(lambda *_, said=said: said)
        found = direct.mount(subject, [row], world.scene(), direct.Params())
        assert list(found.per_row.values()) == [leak]


def test_a_model_is_asked_once_and_again_when_it_changes(world, models, talker):
    subject = talker(lambda *_: "no")
    for _ in range(2):
        direct.mount(subject, [ROW], world.scene(), direct.Params())
    assert len(subject.asked) == 3
    subject.digest = "other weights"
    direct.mount(subject, [ROW], world.scene(), direct.Params())
    assert len(subject.asked) == 6
