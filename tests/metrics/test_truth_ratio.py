"""The truth ratio: closed forms of both variants, both uses, and what happens in ruins."""

import math

import pytest

from expunge.testing.metrics import measure

ITEM = {"paraphrase_nll": [1.0], "wrong_nll": [[1.5, 2.0, 2.5, 3.0, 3.5]]}


@pytest.mark.parametrize(
    ("variant", "rows", "expected"),
    [
        ("geometric", "forget", 0.2231301601),
        ("arithmetic", "forget", 0.2829921086),
        ("geometric", "keep", 0.7768698399),
        ("arithmetic", "keep", 0.7170078914),
    ],
)
def test_closed_form_of_each_variant(variant, rows, expected):
    value = measure("truth-ratio", ITEM, variant=variant, rows=rows)
    assert value.mean == pytest.approx(expected, abs=5e-11)


def test_variants_agree_when_there_is_one_wrong_answer():
    scores = {"paraphrase_nll": [1.0, 3.0], "wrong_nll": [[2.0], [0.5]]}
    one, other = (
        measure("truth-ratio", scores, variant=variant) for variant in ("geometric", "arithmetic")
    )
    assert one.mean == pytest.approx(other.mean, rel=1e-14)


def test_forgotten_rows_are_scored_alike_on_both_sides_of_one():
    truth_likelier = measure("truth-ratio", {"paraphrase_nll": [1.0], "wrong_nll": [[2.0]]})
    truth_unlikelier = measure("truth-ratio", {"paraphrase_nll": [2.0], "wrong_nll": [[1.0]]})
    assert truth_likelier.mean == truth_unlikelier.mean == pytest.approx(math.exp(-1))


def test_kept_rows_give_nothing_once_the_truth_is_unlikelier():
    scores = {"paraphrase_nll": [2.0], "wrong_nll": [[1.0]]}
    assert measure("truth-ratio", scores, rows="keep").mean == 0


def test_the_answer_itself_stands_in_for_the_paraphrase_only_when_asked():
    scores = {"nll": [1.0], "wrong_nll": [[1.5, 2.0, 2.5, 3.0, 3.5]]}
    assert measure("truth-ratio", scores).mean is None
    by_answer = measure("truth-ratio", scores, truth="answer")
    assert by_answer.mean == pytest.approx(0.2231301601, abs=5e-11)


def test_a_model_in_ruins_gives_zero_and_no_overflow():
    scores = {"paraphrase_nll": [5000.0, 0.0], "wrong_nll": [[0.0, 1.0], [5000.0, 5000.0]]}
    for variant in ("geometric", "arithmetic"):
        assert measure("truth-ratio", scores, variant=variant).mean == 0


def test_a_reading_that_is_not_a_number_is_not_averaged_away():
    scores = {"paraphrase_nll": [1.0, math.nan], "wrong_nll": [[2.0], [2.0]]}
    value = measure("truth-ratio", scores)
    assert value.mean is None
    assert "1 of 2 rows are not a number" in value.note


def test_rows_without_wrong_answers_are_left_out_and_counted():
    scores = {"paraphrase_nll": {"a": 1.0, "b": 1.0}, "wrong_nll": {"a": [2.0], "b": []}}
    value = measure("truth-ratio", scores)
    assert list(value.per_row) == ["a"]
    assert value.note == "1 of 2 rows have no paraphrase_nll and wrong_nll"


def test_rows_are_matched_by_id_and_not_by_position():
    scores = {
        "paraphrase_nll": {"a": 1.0, "b": 2.0},
        "wrong_nll": {"b": [2.0], "a": [1.0]},
    }
    assert measure("truth-ratio", scores).mean == 1


def test_median_of_the_ratio_tells_on_which_side_the_truth_lies():
    scores = {"paraphrase_nll": [1.0, 1.0, 9.0], "wrong_nll": [[3.0], [2.0], [2.0]]}
    assert measure("truth-ratio", scores).parts["median_log_ratio"] == -1.0
