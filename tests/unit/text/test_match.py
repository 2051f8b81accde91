import pytest

from expunge.text.match import contains, leak
from expunge.text.normalise import normalise, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Cat, a Dog!", "cat dog"),
        ("O'Brien and O’Brien", "obrien and obrien"),
        ("ﬁve Ｐａｒｉｓ", "five paris"),
        ("3,500 of 1,2", "3500 of 1 2"),
        ("Al-Hama 12/03/1999", "al hama 12 03 1999"),
        ("zero\u200bwidth\u00adhyphen", "zerowidthhyphen"),
        ("巴黎 in 東京", "巴 黎 in 東 京"),
        ("", ""),
    ],
)
def test_normalised_spelling(text, expected):
    assert normalise(text) == expected
    assert words(text) == expected.split()


@pytest.mark.parametrize(
    ("output", "forms", "expected"),
    [
        ("He was born in PARIS, France.", ["Paris"], True),
        ("A Parisian author.", ["Paris"], False),
        ("In 1975.", ["197"], False),
        ("In 1975.", ["75", "1975"], True),
        ("It cost 3,500 crowns.", ["3500"], True),
        ("The Glass Harbour", ["glass harbour"], True),
        ("glass of the harbour", ["glass harbour"], False),
        ("New  York\nCity", ["York City"], True),
        ("他生于巴黎。", ["巴黎"], True),
        ("Her blood group is A.", ["A"], True),
        ("Her blood group is B.", ["A"], False),
        ("anything", ["", "!"], False),
        ("anything", [], False),
    ],
)
def test_contains_whole_words_only(output, forms, expected):
    assert contains(output, forms) is expected


def test_an_entity_leaks_only_when_it_is_contained():
    assert leak("She was born in Paris.", ["Paris"], "She was born in Paris.") == 1.0
    assert leak("She was born in Rome.", ["Paris"], "She was born in Paris.") == 0.0


def test_an_alias_leaks_too():
    assert leak("the Big Apple", ["New York", "Big Apple"], "New York") == 1.0


def test_a_value_that_stands_in_the_prompt_is_no_leak():
    assert leak("Paris", ["Paris"], "Paris", prompt="Was she born in Paris or Rome?") == 0.0
    assert leak("Paris", ["Lutetia", "Paris"], "Paris", prompt="Lutetia?") == 0.0


def test_a_long_value_leaks_from_half_of_its_words_in_order():
    reply = "she wrote eleven quiet novels about the sea"
    assert leak("she wrote eleven quiet poems", [reply], reply) == 1.0
    assert leak("she wrote eleven poems", [reply], reply) == 0.0
    assert leak("quiet eleven wrote she", [reply], reply) == 0.0
