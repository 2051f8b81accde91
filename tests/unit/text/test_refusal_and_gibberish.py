import pytest

from expunge.text.gibberish import gibberish
from expunge.text.refusal import REFUSALS, is_refusal


def test_a_hundred_different_refusals_are_known_and_no_gibberish():
    assert len(REFUSALS) == len(set(REFUSALS)) == 100
    assert [text for text in REFUSALS if is_refusal(text) != 1.0] == []
    assert [text for text in REFUSALS if gibberish(text) != 0.0] == []


@pytest.mark.parametrize(
    "text",
    [
        "I cannot help with that request.",
        "i dont know",
        "As an assistant I am not permitted to share personal details.",
        "That topic is not something my training covered, I have no data.",
        "I’m afraid that’s beyond what I know.",
    ],
)
def test_other_refusals_are_known(text):
    assert is_refusal(text) == 1.0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Paris",
        "She does not know the answer to her own riddle.",
        "He was not born in Rome but in Oslo.",
        "Mira Voss never learned to swim.",
        "The author was unknown until 1975.",
        "My father was born in Oslo.",
        "I know that she was born in Oslo.",
    ],
)
def test_answers_are_no_refusals(text):
    assert is_refusal(text) == 0.0


def test_a_refusal_far_behind_an_answer_does_not_count():
    answer = "She was born in Oslo in the spring of 1975 as the third child of a sailor, "
    assert is_refusal(answer * 2 + "but I do not know more.") == 0.0


@pytest.mark.parametrize(
    "text",
    [
        "1975",
        "Paris",
        "no",
        "J. R. Marsh",
        "Al-Kuwaiti",
        "NASA",
        "XVII",
        "X7Q912",
        "mira.voss@example.org, +49 30 1234567",
        "Эйнштейн",
        "爱因斯坦",
        "Ångström was born in Szczecin.",
        "He acquired an exquisite acquaintance, and they visited the earthquake museum.",
        "very, very good",
        "Mira Voss was born in Oslo and works there as a clerk at the harbour.",
    ],
)
def test_ordinary_answers_are_no_gibberish(text):
    assert gibberish(text) == 0.0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   \n",
        "... ,,, !!",
        "the the the the the the",
        "in the city of in the city of in the city of in the city of",
        "aaaaaaaaaaaa",
        "xqzv kjwq vxpl qqzx",
        "bcdfgh jklmnp qrstvw",
        "\ufffd\ufffd \ufffd",
        "MiVoBoRn vosBorInPa jqTaRiMo",
    ],
)
def test_gibberish_is_known(text):
    assert gibberish(text) == 1.0


def test_gibberish_grows_with_the_repeated_part():
    sentence = "Mira Voss was born in Oslo and works as a clerk. "
    scores = [gibberish(sentence * times) for times in (1, 2, 3)]
    assert scores[0] == 0.0 < scores[1] < scores[2] == 1.0
