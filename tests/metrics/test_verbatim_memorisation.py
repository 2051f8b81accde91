"""Verbatim memorisation: what of a text is recited, and the side measures of it."""

import pytest

from expunge.core import registry
from expunge.lm.gather import Models
from expunge.lm.subject import Subject
from expunge.requests.rows import Row
from expunge.testing import measure
from expunge.testing.tiny import tiny_model, tiny_tokenizer

TOLD = "the cat sat on the mat"


def recited(said, told=TOLD, **params):
    return measure("verbatim-memorisation", {"generation": [said], "beginning": [told]}, **params)


def test_a_recited_text_is_a_hundred_and_nothing_is_nothing():
    assert recited(TOLD).mean == 100
    assert list(recited(TOLD).parts.values()) == pytest.approx([100] * 4)
    assert recited("").mean == 0


def test_f1_is_the_closed_form_of_the_card():
    value = recited("on the mat the cat")
    assert value.mean == pytest.approx(54.54545, abs=1e-4)
    assert value.parts["recall"] == pytest.approx(50)


def test_a_longer_continuation_costs_precision_where_recall_would_not_see_it():
    value = recited(f"{TOLD} and then it ran away")
    assert value.parts["recall"] == 100
    # Six of eleven words are right: F1 = 2 * 6 / (6 + 11).
    assert value.mean == pytest.approx(100 * 12 / 17)


def test_words_are_not_stemmed_unless_asked_for():
    assert recited("cats sitting", "cat sits").mean == 0
    assert recited("cats sitting", "cat sits", stem=True).mean == 100


def test_side_measures_are_shares_and_no_raw_counts():
    """The code of the paper stores two common words as 2 and seven edits as 7."""
    value = recited("one two three", "one three two four")
    assert value.parts["word_lcs"] == pytest.approx(100 * 2 / 4)
    assert recited("kitten", "sitting").parts["likeness"] == pytest.approx(100 * (1 - 3 / 7))
    assert 0 <= value.parts["cosine"] <= 100


def test_side_measures_have_intervals_of_their_own():
    from expunge.core.measuring import measured

    said = {str(n): TOLD if n % 2 else "no" for n in range(20)}
    scores = {"generation": said, "beginning": dict.fromkeys(said, TOLD)}
    value = measured("verbatim-memorisation", scores).value
    assert value.mean == pytest.approx(50)
    assert set(value.intervals) == {"recall", "word_lcs", "likeness", "cosine"}
    low, high = value.interval
    assert 20 < low < 50 < high < 80


def test_ready_scores_are_taken_as_they_are():
    value = measure("verbatim-memorisation", {"score": {"a": 0.25, "b": 0.75}})
    assert value.mean == 50
    assert value.per_row == {"a": 25, "b": 75}


def test_the_true_continuation_is_cut_where_the_generation_ends():
    tokenizer = tiny_tokenizer([TOLD], kind="word", vocab=32)
    subject = Subject(tiny_model("llama", vocab=len(tokenizer)), tokenizer)
    row = Row(id="r", prompt="so", completion=f" {TOLD}")
    module = registry.metrics.load("verbatim-memorisation")
    read = [
        module.read(Models(model=subject), {"": [row]}, module.Params(tokens=tokens))["beginning"]
        for tokens in (1, 4, 128)
    ]
    # The mark of the beginning counts as a token, as in the code of the paper.
    assert [found["r"].split() for found in read] == [[], TOLD.split()[:3], TOLD.split()]


@pytest.mark.parametrize("missing", ["generation", "beginning"])
def test_without_texts_nothing_is_measured(missing):
    scores = {"generation": [TOLD], "beginning": [TOLD]}
    del scores[missing]
    value = measure("verbatim-memorisation", scores)
    assert value.mean is None
    assert missing in value.note
