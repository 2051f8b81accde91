"""Latin letters in other alphabets."""

import string
import unicodedata

import pytest

from expunge.text.transliterate import SCRIPTS, transliterate


@pytest.mark.parametrize(
    ("text", "script", "written"),
    [
        ("Mira Voss", "cyrillic", "Мира Восс"),
        ("Sasha Zhukov", "cyrillic", "Саша Жуков"),
        ("Schmidt", "cyrillic", "Шмидт"),
        ("Jules Xu", "cyrillic", "Джулес Ксу"),
        ("Thales", "greek", "Θαλες"),
        ("ALEXIS", "greek", "ΑΛΕΞΙΣ"),
        ("Nino", "georgian", "ნინო"),
        ("Ani", "armenian", "Անի"),
    ],
)
def test_names_are_written_as_they_sound(text, script, written):
    assert transliterate(text, script) == written


@pytest.mark.parametrize("script", SCRIPTS)
def test_no_latin_letter_is_left_and_all_else_stays(script):
    new = transliterate(f"{string.ascii_letters} É 1975, (ж)!", script)
    letters = [c for c in new if c.isalpha()]
    assert not any("LATIN" in unicodedata.name(c) for c in letters)
    assert new.endswith("1975, (ж)!")
    assert transliterate("", script) == ""


def test_accents_and_compatible_forms_do_not_hide_a_letter():
    assert transliterate("Ａndré", "cyrillic") == "Андре"
