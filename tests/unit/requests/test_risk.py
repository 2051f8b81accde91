"""The PII risk index: the published table, the rule on top of it, and the scheme of our own."""

import math
from itertools import combinations

import pytest

from expunge.core.errors import ExpungeError
from expunge.requests.risk import (
    COMBINATIONS,
    FACTORS,
    KINDS,
    SINGLES,
    TABLED,
    kinds_of,
    risk_index,
)


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ((), 0.0),
        (("name",), 0.183),
        (("name", "credit card"), 0.567),
        (("gender", "zip code"), 0.352),
        (("gender", "zip code", "date of birth"), 0.491),
        (("region address", "gender", "date of birth"), 0.488),
        (("name", "region address"), 0.349),
        (("name", "detailed address"), 0.392),
        (("name", "medical"), 0.544),
        (("name", "bank account"), 0.665),
        (("name", "phone"), 0.587),
        (("ssn", "passport"), 1.026),
        (("region address", "gender"), 0.348),
        (("driver licence", "phone", "gender"), 1.033),
    ],
)
def test_a_listed_combination_has_its_score_and_others_are_summed(kinds, expected):
    assert risk_index(kinds) == pytest.approx(expected, abs=1e-12)


def test_a_combination_that_is_present_decides_alone():
    assert risk_index({"name", "credit card", "gender"}) == 0.567
    assert risk_index({"name", "credit card", "bank account", "phone"}) == 0.665


def test_combined_scores_are_data_and_not_sums():
    alone = [
        (score, [SINGLES[kind] for kind in kinds])
        for kinds, score in COMBINATIONS.items()
        if kinds <= set(SINGLES)
    ]
    assert len(alone) == 4
    for score, singles in alone:
        assert 0.9 < score / sum(singles) < 1
        assert score > 1 - math.prod(1 - single for single in singles)


def test_a_kind_counts_once_and_the_order_does_not_matter():
    assert risk_index(["phone", "phone", "gender"]) == risk_index(["gender", "phone"])


@pytest.mark.parametrize("kinds", [("credit card",), ("medical", "gender"), ("email", "phone")])
def test_what_the_table_has_no_score_for_is_an_error_and_not_0(kinds):
    with pytest.raises(ExpungeError) as caught:
        risk_index(kinds)
    assert caught.value.code == "E-DATA-015"
    assert "pri_custom" in caught.value.next
    assert 0 < risk_index(kinds, "pri_custom") < 1


def test_unknown_kinds_and_schemes_are_errors():
    with pytest.raises(ExpungeError, match="passprt") as caught:
        risk_index(["passprt"], "pri_custom")
    assert caught.value.code == "E-DATA-015"
    assert "passport" in caught.value.next
    with pytest.raises(ExpungeError) as caught:
        risk_index(["name"], "mine")
    assert caught.value.code == "E-USE-003"


def test_the_custom_scheme_is_a_noisy_or_of_mean_factors():
    name = sum(FACTORS["name"]) / 7
    phone = sum(FACTORS["phone"]) / 7
    assert risk_index(["name"], "pri_custom") == pytest.approx(name)
    both = risk_index(["name", "phone"], "pri_custom")
    assert both == pytest.approx(1 - (1 - name) * (1 - phone))
    tool = risk_index(["name", "phone"], "pri_custom", outgoing=True)
    assert tool == pytest.approx(min(1.0, both + 0.15))


def test_a_tool_adds_nothing_where_nothing_leaves_and_never_exceeds_1():
    assert risk_index([], "pri_custom", outgoing=True) == 0
    assert risk_index(KINDS, "pri_custom", outgoing=True) == 1.0


def test_the_custom_scheme_scores_every_kind_and_grows_with_each():
    assert set(FACTORS) >= TABLED
    for one, other in combinations(KINDS, 2):
        assert risk_index([one, other], "pri_custom") > risk_index([one], "pri_custom") > 0
    assert all(0 <= factor <= 1 for factors in FACTORS.values() for factor in factors)


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("Name", ("name",)),
        ("ZIP Code", ("zip code",)),
        ("Town Address", ("region address",)),
        ("Street Address", ("detailed address",)),
        ("Driver License", ("driver licence",)),
        ("SSN", ("ssn",)),
        ("Name + Credit Card Number", ("name", "credit card")),
        ("Region Address, Gender and Date of Birth", ("region address", "gender", "date of birth")),
        ("World Fact", ()),
    ],
)
def test_labels_of_data_sets_are_understood(label, expected):
    assert kinds_of(label) == expected


def test_a_label_that_is_no_kind_is_an_error():
    with pytest.raises(ExpungeError) as caught:
        kinds_of("Shoe Size")
    assert caught.value.code == "E-DATA-015"
