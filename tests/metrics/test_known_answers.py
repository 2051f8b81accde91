"""Known answers: whole words, every form, and honest silence apart from wrong answers."""

from expunge.testing.metrics import measure


def rate(*pairs):
    said, forms = zip(*pairs, strict=True)
    return measure("known-answers", {"generation": list(said), "forms": list(forms)})


def test_any_form_counts():
    assert rate(("It is Roma.", ["Rome", "Roma"]), ("Seven", ["7", "seven"])).mean == 1


def test_figures_and_words_are_found_whole():
    assert rate(("in 1975", ["197"]), ("Parisian", ["Paris"]), ("I know", ["no"])).mean == 0


def test_wrong_answers_and_refusals_are_told_apart():
    value = rate(
        ("Rome", ["Rome"]), ("Bari", ["Rome"]), ("I do not know.", ["Rome"]), ("Oslo", ["Rome"])
    )
    assert value.mean == 0.25
    assert value.parts["refused"] == 0.25


def test_a_right_answer_in_the_manner_of_a_refusal_is_right():
    value = rate(("I'm not sure, perhaps Rome", ["Rome"]))
    assert (value.mean, value.parts["refused"]) == (1, 0)
