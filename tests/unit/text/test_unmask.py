"""Readings of a text under a disguise."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expunge.text.disguise import FORMS, disguise
from expunge.text.normalise import words
from expunge.text.unmask import readings, spelled, squeezed

UNMASKED = ("case", "leetspeak", "homoglyphs", "zero_width", "markdown", "html", "base64", "rot13",
            "reversed")  # fmt: skip
TEXT = "Where was Mira Voss born?"


def stands(needle: list[str], hay: list[str]) -> bool:
    return any(hay[at : at + len(needle)] == needle for at in range(len(hay)))


@pytest.mark.parametrize("form", UNMASKED)
@pytest.mark.parametrize("seed", range(4))
def test_a_name_is_read_under_every_disguise_that_can_be_undone(form, seed):
    hidden = disguise(TEXT, form, seed)
    assert any(stands(["mira", "voss"], read) for read in readings(hidden))


def test_the_first_reading_is_the_text_as_it_stands():
    assert next(readings(TEXT)) == words(TEXT)


@given(st.text(max_size=200))
def test_any_text_can_be_read_and_no_reading_comes_twice(text):
    found = [tuple(read) for read in readings(text)]
    assert found[0] == tuple(words(text))
    assert len(found[1:]) == len(set(found[1:]))


def test_plain_words_have_only_the_readings_that_no_sign_tells():
    found = [" ".join(read) for read in readings(TEXT)]
    assert found == [
        "where was mira voss born",
        "jurer jnf zven ibff obea",
        "nrob ssov arim saw erehw",
        "erehw saw arim ssov nrob",
    ]


@pytest.mark.parametrize(
    "hidden",
    [
        "Wh3r3 w@s M!r4 V0$$ born?",
        "M&#105;ra V&#x6f;ss",
        "M%69ra%20Voss",
        r"M\u0069ra V\x6fss",
        "4d 69 72 61 20 56 6f 73 73",
        "4d69726120566f7373",
        "Μіrа Vоѕѕ",
        "𝓜𝓲𝓻𝓪 𝐕𝐨𝐬𝐬",
        "Mıra Vøss",
        "M\u0301i\u0301r\u0301a\u0301 V\u0308o\u0308s\u0308s\u0308",
        "ariM ssoV",
        "M*i*r*a V_o_s_s",
        "<i>Mi</i>ra <b>V</b>oss",
    ],
)
def test_what_the_suite_of_evasions_does_not_hold_is_read_as_well(hidden):
    assert any(stands(["mira", "voss"], read) for read in readings(hidden))


def test_letters_one_by_one_are_joined_and_words_are_not():
    assert list(spelled(disguise("Where was Mira Voss born?", "spacing", 0))) == [
        "wherewasmiravossborn"
    ]
    assert list(spelled("M.i.r.a V-o-s-s")) == ["miravoss"]
    assert list(spelled("Plan B is a go")) == []


def test_squeezing_leaves_letters_and_digits():
    assert squeezed("Ｍira  Voss-Hale, 3rd") == "miravosshale3rd"


@pytest.mark.parametrize("text", ["A1/B2 c3po", "deadbeef" * 2, "x" * 9000, "=" * 50, "<" * 300])
def test_odd_texts_are_read_without_harm(text):
    assert isinstance(list(readings(text)), list)


def test_what_cannot_be_undone_is_known():
    assert set(FORMS) - set(UNMASKED) == {"slips", "typos", "shuffled", "truncated", "spacing"}
