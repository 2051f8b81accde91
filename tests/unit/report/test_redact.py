"""Masks over answers."""

from expunge.report.redact import masked, shown

PROMPT = "What is the favourite dish of Mira Holt?"
ANSWER = "The favourite dish of Mira Holt is smoked lentil pie."


def kinds(text: str) -> list[tuple[str, str]]:
    return [(piece.kind, piece.text) for piece in masked(text, prompt=PROMPT, answer=ANSWER)]


def test_words_of_the_question_stay_and_words_of_the_answer_are_masked():
    assert kinds(ANSWER) == [("plain", "The favourite dish of Mira Holt is"), ("leaked", "")]


def test_other_words_are_masked_as_well_in_a_mask_of_their_own():
    told = kinds("Mira Holt loves lentil soup.")
    assert told == [("plain", "Mira Holt"), ("masked", ""), ("leaked", ""), ("masked", "")]


def test_case_and_punctuation_do_not_uncover_an_answer():
    assert kinds("«LENTIL»!") == [("leaked", "")]


def test_writing_without_spaces_is_masked_whole():
    told = masked("他最喜欢吃扁豆派", prompt="他最喜欢吃什么", answer="扁豆派")
    assert [(piece.kind, piece.text) for piece in told] == [("leaked", "")]


def test_a_text_that_is_shown_is_shown_as_it_is():
    assert [piece.text for piece in shown("as it is")] == ["as it is"]
