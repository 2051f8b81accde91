"""Rejection rate: refusals by whole words."""

from expunge.testing.metrics import measure


def test_share_of_refusals():
    said = ["I do not know."] * 4 + ["In Rome."] * 6
    assert measure("rejection-rate", {"generation": said}).mean == 0.4


def test_no_inside_a_word_is_no_refusal():
    said = ["Another note on knowledge.", "He does not know her.", "I know it: Rome.", "Nothing."]
    assert measure("rejection-rate", {"generation": said}).mean == 0


def test_impersonal_refusals_count_only_where_asked_for():
    scores = {"generation": ["Her birthplace is unknown.", "I do not know.", "Rome."]}
    assert measure("rejection-rate", scores).mean == 1 / 3
    assert measure("rejection-rate", scores, counts="unavailable").mean == 2 / 3


def test_silence_is_no_refusal_and_is_counted():
    value = measure("rejection-rate", {"generation": ["", "I do not know."]})
    assert (value.mean, value.n) == (0.5, 2)
