"""What a judge is shown."""

import random

from expunge.text.judging import cases, masked

READ = [
    ("b", "Where was Ada Birk born?", "Rome", "Birk was born in Bari.", ["Ada Birk"]),
    ("a", "where was Ada Birk born", "Rome", "In Rome.", ["Ada Birk"]),
    ("c", "Who is he?", "Jo", "Ada is.", ["Ada Birk"]),
]


def test_names_and_their_first_and_last_words_are_masked_as_whole_words():
    assert masked("Birk met Ada Birk in Birkenau, Ada's home.", ["Ada Birk"]) == (
        "XX met XX in Birkenau, XX's home."
    )


def test_without_names_nothing_is_masked():
    assert masked("Ada Birk", []) == "Ada Birk"


def test_a_question_that_stands_twice_is_judged_once():
    assert [case.id for case in cases(READ)] == ["a", "c"]


def test_which_one_is_kept_does_not_depend_on_the_order():
    turned = list(READ)
    random.Random(3).shuffle(turned)
    assert cases(turned) == cases(READ)


def test_quality_is_judged_without_names_and_privacy_with_them():
    case = next(case for case in cases(READ[:1]))
    assert case.question == "Where was Ada Birk born?"
    assert case.masked_question == "Where was XX born?"
    assert case.masked_answer == "XX was born in Bari."
