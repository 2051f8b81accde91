"""What people are called besides."""

import pytest

from expunge.requests.called import called, short_names


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("Mira Voss", ("Voss", "M. Voss")),
        ("Dr. Ludwig Emil van Dorn Jr.", ("van Dorn", "L. E. van Dorn")),
        ("M. Voss", ("Voss",)),
        ("Al Rashid", ("Rashid", "A. Rashid")),  # what begins a name is no small word in it
        ("Jean-Luc O'Hara", ("O'Hara", "J. O'Hara")),
        ("Mira Voss, PhD", ("Voss", "M. Voss")),
        ("Mira", ()),
        ("Dr. Voss", ()),
        ("", ()),
    ],
)
def test_the_surname_alone_and_behind_initials(name, short):
    assert short_names(name) == short


def test_the_longest_name_is_said_otherwise_wherever_it_stands_as_a_word():
    text = "Was VOSS, Mira Voss, ever in Vossberg? mira voss was."
    assert called(text, ["Voss", "Mira Voss"], lambda name: "x" * len(name)) == (
        "Was VOSS, xxxxxxxxx, ever in Vossberg? xxxxxxxxx was."
    )
    assert called(text, ["Voss"], lambda _: r"\1") == (
        r"Was \1, Mira \1, ever in Vossberg? mira \1 was."
    )


@pytest.mark.parametrize("names", [(), ("",), ("Vos",), ("Mira  Voss",)])
def test_a_text_without_the_name_stays(names):
    assert called("Mira Voss was here.", names, str.upper) == "Mira Voss was here."
