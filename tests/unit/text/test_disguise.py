"""Texts in disguise."""

import base64
import codecs
import re
import unicodedata
from collections import Counter

import pytest

from expunge.text.disguise import FORMS, disguise

TEXT = "Where was Mira Voss-Eedde born, and does Bo know it?"
WORDS = re.findall(r"\w+", TEXT)


@pytest.mark.parametrize("form", FORMS)
def test_the_name_no_longer_stands_there_and_the_seed_decides_how(form):
    hidden = disguise(TEXT, form, 3)
    assert hidden == disguise(TEXT, form, 3)
    assert "Mira Voss" not in hidden
    assert disguise("", form, 0) == ""


@pytest.mark.parametrize("form", ["slips", "typos", "shuffled", "zero_width", "markdown", "html"])
def test_another_seed_strikes_other_letters(form):
    assert len({disguise(TEXT, form, seed) for seed in range(5)}) > 1


@pytest.mark.parametrize(
    ("form", "restored"),
    [
        ("case", lambda hidden: (hidden.lower(), TEXT.lower())),
        ("spacing", lambda hidden: (hidden.replace(" ", ""), TEXT.replace(" ", ""))),
        ("markdown", lambda hidden: (hidden.replace("**", ""), TEXT)),
        ("html", lambda hidden: (re.sub("<.*?>", "", hidden), TEXT)),
        ("base64", lambda hidden: (base64.b64decode(hidden).decode(), TEXT)),
        ("rot13", lambda hidden: (codecs.decode(hidden, "rot13"), TEXT)),
        ("reversed", lambda hidden: (hidden[::-1], TEXT)),
    ],
)
def test_nothing_is_lost(form, restored):
    found, expected = restored(disguise(TEXT, form, 1))
    assert found == expected


def test_invisible_characters_show_nothing_and_split_every_word():
    hidden = disguise(TEXT, "zero_width", 1)
    assert "".join(c for c in hidden if unicodedata.category(c) != "Cf") == TEXT
    assert sum(unicodedata.category(c) == "Cf" for c in hidden) == len(WORDS)


def test_twins_are_letters_of_other_alphabets_that_no_normal_form_folds_back():
    hidden = disguise(TEXT, "homoglyphs", 0)
    assert len(hidden) == len(TEXT)
    changed = [c for c, plain in zip(hidden, TEXT, strict=True) if c != plain]
    assert len(changed) > len(TEXT) / 2
    assert all(unicodedata.normalize("NFKC", c) == c for c in changed)
    assert not any(unicodedata.name(c).startswith("LATIN SMALL LETTER A") for c in changed)
    for name in ("Ed Hill", "Liv Dunn", "Una Gow", "Jo Quay"):
        assert all(disguise(word, "homoglyphs", 0) != word for word in name.split())


def test_digits_take_the_place_of_letters_that_look_like_them():
    assert disguise("Isabel Tost", "leetspeak", 0) == "154b3l 7057"


def apart(hidden):
    return list(zip(re.findall(r"[^\W\d_]+", hidden), WORDS, strict=True))


def test_a_slip_is_one_key_beside_the_right_one_in_each_longer_word():
    for seed in range(20):
        for new, word in apart(disguise(TEXT, "slips", seed)):
            wrong = [(a, b) for a, b in zip(new, word, strict=True) if a != b]
            assert len(wrong) == (len(word) >= 3)
            assert all(a.isupper() == b.isupper() for a, b in wrong)
    struck = {disguise("sss", "slips", seed).replace("s", "") for seed in range(60)}
    assert struck == set("awedxz")


def test_a_typo_turns_two_letters_loses_one_or_doubles_one():
    lengths = set()
    for seed in range(30):
        for new, word in apart(disguise(TEXT, "typos", seed)):
            assert (new == word) == (len(word) < 3)
            assert new[0] == word[0]
            lengths.add(len(new) - len(word))
            surplus = (Counter(new) - Counter(word)) + (Counter(word) - Counter(new))
            assert surplus.total() == abs(len(new) - len(word)) <= 1
    assert lengths == {-1, 0, 1}


def test_only_inner_letters_are_shuffled_and_always_when_they_can_be():
    for seed in range(20):
        for new, word in apart(disguise(TEXT, "shuffled", seed)):
            assert Counter(new) == Counter(word)
            assert (new[0], new[-1]) == (word[0], word[-1])
            assert (new == word) == (len(set(word[1:-1])) < 2)


def test_words_lose_their_ends():
    assert disguise("Where was Mira Benedetto?", "truncated", 0) == "Wher was Mir Benede?"


def test_words_of_other_alphabets_and_numbers_pass():
    for form in FORMS:
        assert disguise("北京 1975 Москва É", form, 0)
    assert disguise("北京北 1975", "slips", 0) == "北京北 1975"
