"""The page of a comparison: safe whatever names hold, complete, honest about what is missing."""

import re
from typing import Any

import pytest
from hostile import INJECTIONS, PLAIN
from report_pages import Page

from expunge.report import render_comparison
from expunge.report.beside import side_by_side
from expunge.report.compare import trade_off
from expunge.report.html import clean

UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2060-\u2069]")


def measured(value: float | None, spread: float = 0.1) -> dict[str, Any]:
    interval = None if value is None else [value - spread, value + spread]
    return {"value": value, "interval": interval, "note": "" if value is not None else "no rows"}


def gate(family: str, statistic: str, value: float | None) -> dict[str, Any]:
    told = {"family": family, "statistic": statistic, "decides": True, "gate": 0.1}
    bounds = None if value is None else [value - 0.1, value + 0.1]
    return {**told, "recovery": value, "interval": bounds, "outcome": "fail"}


def run(name: str, x: float | None, y: float | None, role: str = "run") -> dict[str, Any]:
    return {
        "name": name,
        "role": role,
        "method": "npo" if role == "run" else None,
        "seed": 0 if role == "run" else None,
        "verdict": "hidden",
        "attacks": {
            "prob": gate("prob", "recovery", 0.3),
            "mia": gate("privacy", "difference", 0.2),
            "sa": gate("pipeline", "cost", 0.4) | {"decides": False},
        },
        "families": {"prob": "fail", "privacy": "pass", "training": "inconclusive"},
        "erasure_score": 0.5,
        "erasure_interval": None,
        "numbers": {"gone": measured(x), "kept": measured(y), "also": measured(0.5)},
    }


def difference(significant: bool | None) -> dict[str, Any]:
    told = {"run": "one", "against": "original", "number": "gone", "difference": -0.5}
    found = None if significant is None else 0.01
    return {
        **told,
        "interval": None if significant is None else [-0.6, -0.4],
        "p": found,
        "holm": found,
        "significant": significant,
        "seeds": [1, 1],
        "note": "" if significant is not None else "its rows were not kept",
    }


def comparison(kind: str = "bench", **changed: Any) -> dict[str, Any]:
    group = {
        **{"kind": kind, "title": "tofu forget10", "setting": {}},
        **{"forgetting": "gone", "utility": "kept", "metrics": ["gone", "kept", "also"]},
        "better": {"gone": "low", "kept": "high", "also": "high"},
        **{"rows": {"forget": 40}, "entities": 8, "replicates": 1000, "against": "original"},
        "runs": [run("original", 0.9, 0.9, "original"), run("one", 0.2, 0.8)],
        "seeds": [],
        "differences": [difference(True), difference(False), difference(None)],
        "notes": ["what to know"],
    }
    return {"groups": [{**group, **changed}], "unmatched": False}


@pytest.mark.parametrize("text", INJECTIONS)
def test_the_page_is_safe_whatever_names_hold(text):
    page, plain = (Page(render_comparison(full_of(one))) for one in (text, PLAIN))
    assert page.tags == plain.tags
    shown = " ".join(page.text.split())
    assert shown.count(" ".join(clean(text).split())) > 10
    assert not UNSEEN.search(page.text)


def full_of(text: str) -> dict[str, Any]:
    """A comparison of two audits with a text in every place that holds text or a name."""
    runs = [{**run(f"{text}{at}", 0.2, 0.8), "method": text} for at in range(2)]
    for one in runs:
        one["attacks"] = {f"{text}{at}": of for at, of in enumerate(one["attacks"].values())}
        one["families"] = {text: "pass"}
        one["numbers"][text] = measured(0.5)
    notes = {**difference(None), "run": text, "number": text, "note": text}
    group = {"title": text, "runs": runs, "notes": [text], "against": text, "differences": [notes]}
    return comparison("audit", **group, metrics=["gone", "kept", text], rows={text: 1})


@pytest.mark.parametrize("kind", ["bench", "audit", "change"])
def test_the_page_shows_every_run_every_difference_and_every_note(kind):
    page = Page(render_comparison(comparison(kind)))
    for told in ("original", "one", "stands", "may be chance", "not tested", "what to know"):
        assert told in page.text
    assert "3 differences are shown, 2 of them with an interval; 1 stand" in page.text


def test_the_policy_lets_nothing_in():
    html = render_comparison(comparison())
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in html
    assert not re.search(r"https?://", html)


def test_the_plot_tells_its_data_in_words_and_marks_anchors_by_shape():
    chart = str(trade_off(comparison()["groups"][0]))
    assert "original: forgetting 0.900 (0.800 to 1.000), utility 0.900 (0.800 to 1.000)" in chart
    assert "low is better" in chart
    assert {"tone-original", "tone-model"} <= set(re.findall(r"tone-\w+", chart))


def test_audits_have_their_original_where_it_is_by_definition():
    runs = [run("one", 0.7, 0.8)]
    chart = str(trade_off(comparison("audit", runs=runs)["groups"][0]))
    assert "original: forgetting 0.000, utility 1.000" in chart
    assert "original" not in str(trade_off(comparison("bench", runs=runs)["groups"][0]))
    assert ">1<" in chart  # a model that never knew is on the axis


def test_runs_of_a_group_of_seeds_are_small_and_their_mean_is_named():
    numbers = {"gone": {**measured(0.2), "spread": 0.02}, "kept": {**measured(0.8), "spread": 0.1}}
    seeds = [{"name": "npo", "runs": ["one"], "over": "entities and seeds", "numbers": numbers}]
    group = comparison(seeds=seeds)["groups"][0]
    names = re.findall(r'class="name tone-\w+">([^<]+)<', str(trade_off(group)))
    assert set(names) == {"original", "npo (mean)"}
    assert "mean of 1 seeds, intervals over entities and seeds" in render_comparison(
        {"groups": [group], "unmatched": False}
    )


def test_without_numbers_there_is_no_plot_and_the_page_says_why():
    html = render_comparison(comparison(runs=[run("one", None, 0.8)], metrics=["kept"]))
    assert "No plot" in html
    assert "no rows" in html
    assert '<svg class="chart"' not in html


def test_unmatched_rows_are_said_at_the_top():
    told = {**comparison(), "unmatched": True}
    assert "measured different rows" in render_comparison(told)
    assert "measured different rows" not in render_comparison(comparison())


def test_one_run_alone_is_drawn_though_it_spans_nothing():
    lone = run("one", 0.0, 0.0)
    for number in lone["numbers"].values():
        number["interval"] = None
    assert trade_off(comparison(runs=[lone])["groups"][0]) is not None


def test_audits_show_families_and_every_attack_with_its_interval():
    html = render_comparison(comparison("audit"))
    told = " ".join(Page(html).text.split())
    for said in (
        "answer probabilities✕ fails ✕ fails",
        "training a little more– not run – not run",
        "0.30 0.20 to 0.40 ✕ fails",
        "Distance of AUC: from the control's, on either side; this is no recovery",
        "mia0.20 0.10 to 0.30",
        "Reported only: these decide nothing sa (cost)0.40",
    ):
        assert said in told, said
    assert "Families" not in Page(render_comparison(comparison("bench"))).text


def test_only_recoveries_are_drawn_on_the_scale_of_recoveries():
    chart = side_by_side(comparison("audit")["groups"][0])["recoveries"]
    assert "prob: original 0.30 (0.20 to 0.40), one 0.30 (0.20 to 0.40)." in chart
    assert "mia" not in chart
    assert {"tone-original", "tone-model"} <= set(re.findall(r"tone-\w+", chart))


def test_an_attack_that_looked_at_something_else_is_not_put_beside():
    runs = [run("one", 0.2, 0.8), run("two", 0.3, 0.8)]
    runs[1]["attacks"]["prob"] = gate("prob", "difference", 0.9)
    told = side_by_side(comparison("audit", runs=runs)["groups"][0])
    assert "0.90" not in told["recoveries"]
    row = next(cells for kind in told["kinds"] for name, cells in kind.rows if name == "prob")
    assert [one and one["recovery"] for one, _ in row] == [0.3, None]


def test_more_runs_than_shapes_are_a_table_and_no_plot():
    runs = [run(name, 0.2, 0.8) for name in ("one", "two", "three")]
    told = side_by_side(comparison("audit", runs=runs)["groups"][0])
    assert told["recoveries"] is None
    assert told["kinds"]
