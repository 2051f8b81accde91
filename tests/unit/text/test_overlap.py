import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expunge.text.overlap import lcs_length, rouge_1, rouge_l
from expunge.text.stem import stem

REFERENCE, GENERATED = "the cat sat on the mat", "on the mat the cat"
LOGS = Path(__file__).resolve().parents[4] / "shared" / "data" / "tofu_eval_logs" / "original"
short_lists = st.lists(st.integers(0, 4), max_size=12)


def test_rouge_l_of_the_swapped_halves():
    overlap = rouge_l(GENERATED, REFERENCE)
    assert overlap.recall == 0.5
    assert overlap.precision == 0.6
    assert overlap.f1 == pytest.approx(0.5454545, abs=1e-7)


def test_rouge_1_does_not_see_the_order():
    assert rouge_1(GENERATED, REFERENCE).recall == pytest.approx(0.8333333, abs=1e-7)
    assert rouge_1(GENERATED, REFERENCE).precision == 1.0


def test_rouge_1_counts_a_word_only_as_often_as_it_stands_in_both():
    assert rouge_1("the the the the", REFERENCE).recall == pytest.approx(2 / 6)


def test_case_and_punctuation_do_not_count():
    assert rouge_l("Paris; FRANCE!", "paris, france").f1 == 1.0


def test_empty_texts_overlap_with_nothing():
    for prediction, reference in (("", "a"), ("a", ""), ("", "")):
        assert rouge_l(prediction, reference) == rouge_1(prediction, reference)
        assert rouge_l(prediction, reference).f1 == 0.0


def test_stemming_joins_forms_and_leaves_three_letters_alone():
    assert rouge_l("he was writing", "he wrote; writes", stem=True).recall == pytest.approx(2 / 3)
    assert rouge_l("he was writing", "he wrote; writes").recall == pytest.approx(1 / 3)
    assert rouge_l("gas", "ga", stem=True).recall == 0.0


def test_a_reference_in_another_script_is_compared_by_its_words():
    assert rouge_l("Она родилась в Москве.", "в Москве").recall == 1.0
    assert rouge_l("She was born in Moscow.", "в Москве").recall == 0.0


@given(short_lists, short_lists)
def test_lcs_equals_the_table_of_the_textbook(a, b):
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1][j + 1] = (
                table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
            )
    assert lcs_length(a, b) == table[-1][-1]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("caresses", "caress"),
        ("ponies", "poni"),
        ("ties", "tie"),
        ("cats", "cat"),
        ("agreed", "agre"),
        ("feed", "feed"),
        ("plastered", "plaster"),
        ("motoring", "motor"),
        ("sing", "sing"),
        ("conflated", "conflat"),
        ("hopping", "hop"),
        ("falling", "fall"),
        ("filing", "file"),
        ("happy", "happi"),
        ("enjoy", "enjoy"),
        ("relational", "relat"),
        ("rationally", "ration"),
        ("vietnamization", "vietnam"),
        ("hopefulness", "hope"),
        ("formality", "formal"),
        ("electriciti", "electr"),
        ("adoption", "adopt"),
        ("controlling", "control"),
        ("probate", "probat"),
        ("dying", "die"),
        ("geology", "geolog"),
        ("y" * 3000, "y" * 2999 + "i"),
    ],
)
def test_stems(word, expected):
    assert stem(word) == expected


@pytest.mark.skipif(not LOGS.is_dir(), reason="the published logs are not here")
def test_published_scores_are_reproduced_exactly():
    scored = 0
    for path in sorted(LOGS.glob("*/*.json")):
        for log in json.loads(path.read_text(encoding="utf-8")).values():
            for item, (_, generated, reference) in log["generated_text"].items():
                scored += 1
                overlap = rouge_l(generated, reference, stem=True)
                assert overlap.recall == log["rougeL_recall"][item]
                single = rouge_1(generated, reference, stem=True)
                assert single.recall == log["rouge1_recall"][item]
    assert scored > 1000
