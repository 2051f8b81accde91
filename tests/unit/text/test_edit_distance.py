"""Edit distance against the table that defines it."""

import pytest

from expunge.core.rng import generator
from expunge.text.edit_distance import levenshtein, likeness


def by_table(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        above, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (x != y))
    return row[-1]


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [("", "", 0), ("", "abc", 3), ("abc", "", 3), ("abc", "abc", 0), ("flaw", "lawn", 2)],
)
def test_known_distances(a, b, distance):
    assert levenshtein(a, b) == distance


def test_it_equals_the_table_on_texts_of_all_lengths():
    draw = generator(0, "edit distance")
    for _ in range(300):
        a, b = ("".join(draw.choice(list("abcé"), int(draw.integers(0, 90)))) for _ in range(2))
        assert levenshtein(a, b) == by_table(a, b) == levenshtein(b, a)


def test_likeness_is_a_share_of_the_longer_text():
    assert likeness("abcd", "xyz") == 0
    assert likeness("ab", "abcd") == 0.5
