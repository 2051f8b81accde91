"""Judged efficacy and quality: a judge's three grades."""

import pytest

from expunge.testing.metrics import measure

METRICS = [("judged-efficacy", "privacy_rating"), ("judged-quality", "quality_rating")]


@pytest.mark.parametrize(("metric", "need"), METRICS)
def test_closed_form_of_the_paper(metric, need):
    assert measure(metric, {need: [3, 3, 1, 2]}).mean == 0.625


@pytest.mark.parametrize(("metric", "need"), METRICS)
def test_without_a_judge_it_says_so(metric, need):
    value = measure(metric, {"generation": ["x"]})
    assert value.mean is None
    assert f"it needs {need}, and no judge was asked" in value.note


def test_one_rating_is_not_taken_for_the_other():
    assert measure("judged-efficacy", {"quality_rating": [3]}).mean is None
