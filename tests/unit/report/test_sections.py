"""The sections of a full report: every plot says what it is, and keeps unlike numbers apart."""

import re
from xml.etree import ElementTree

import pytest
from report_pages import Page
from report_records import ROWS, audit_record
from rich_records import rich_record

from expunge.report import render_audit
from expunge.report.audit import attack_lines, recovery_chart
from expunge.report.audit.attacks import cost_chart, families
from expunge.report.audit.dynamics import budget_charts
from expunge.report.audit.examples import answers, asked
from expunge.report.audit.forgetting import truth_ratios
from expunge.report.audit.internal import layer_charts
from expunge.report.audit.kept import forgetting, scatter, worst_part
from expunge.report.audit.privacy import membership_chart, roc, score_chart
from expunge.report.audit.scope import units


def told(record) -> str:
    return " ".join(Page(render_audit(record)).text.split())


def figures(record) -> list[ElementTree.Element]:
    found = re.findall(r"<figure.*?</figure>", render_audit(record), re.DOTALL)
    return [ElementTree.fromstring(one) for one in found]  # noqa: S314


def attack_of(record, name):
    return next(one for one in attack_lines(record) if one.name == name)


def has_class(node, name) -> bool:
    return name in node.get("class", "").split()


def test_a_full_report_has_every_plot_of_its_kind():
    titles = [one.find("figcaption").text for one in figures(rich_record())]
    assert titles == [
        "Risk index of the personal data in the rows",
        "probability of every forget row",
        "Distribution of the truth ratio over the forget rows",
        "Excess recovery of every attack",
        "leak@B of sample",
        "Excess recovery, reported only",
        "Cost of attacks on the process",
        "AUC of model and control with gate band",
        "Members found by mia at each rate of false alarms",
        "AUC of other scores of mia",
        *(f"{name}: what is left at each block" for name in ("lens", "lens-exit", "patch", "cka")),
        "What the model still does",
        "What was forgotten, and what was kept",
        "What comes back during relearn-in",
        "What comes back during relearn-ood",
    ]


@pytest.mark.parametrize("make", [audit_record, rich_record])
def test_every_plot_has_title_text_axis_names_and_an_interval_or_why_there_is_none(make):
    for figure in figures(make()):
        title = figure.find("figcaption").text
        note = figure.find("p").text
        charts = list(figure.iter("svg"))
        assert charts
        for chart in charts:
            assert chart.get("role") == "img"
            assert chart.find("title").text == title
            assert len(chart.find("desc").text) > 20
            assert any(has_class(node, "axis") and node.text for node in chart.iter("text"))
            drawn = {part for node in chart.iter("path") for part in node.get("class").split()}
            assert drawn & {"whisker", "spread"} or "no interval" in note, title
        assert "95%" in note or "no interval" in note, title


def test_sections_stand_in_order_and_the_contents_lead_to_them():
    html = render_audit(rich_record())
    links = re.findall(r'href="#(\w+)"', html)
    places = [html.index(f'id="{name}"') for name in links]
    assert len(links) == 10
    assert places == sorted(places)


# ------------------------------------------------------------------- unlike numbers stay apart


def test_only_recoveries_that_decide_are_bars_among_the_others():
    html = render_audit(rich_record())
    chart = html[html.index("Excess recovery of every attack") :]
    chart = chart[: chart.index("</figure>")]
    for name in ("mia", "sa", "ununlearn", "cka"):
        assert f">{name}<" not in chart, name
    assert ">lens-exit<" in chart


def test_bars_stand_under_their_family():
    chart = str(recovery_chart(attack_lines(audit_record())))
    wide = chart[: chart.index('class="narrow"')]
    order = re.findall(r'class="(?:heading|label)"[^>]*>([^<]+)<', wide)
    assert order[:4] == ["direct: plain questions", "direct", "prompt: leading prompts", "prefix"]


def test_a_distance_is_drawn_on_the_scale_of_an_auc_before_the_band_of_its_gate():
    record = rich_record()
    chart = str(membership_chart(record, [attack_of(record, "mia")]))
    leak = record["attacks"]["mia"]["leak"]
    low, high = leak["control"] - 0.15, leak["control"] + 0.15
    assert f"this model {leak['model']:.2f} (" in chart
    assert f"gate {low:.2f} to {high:.2f}" in chart
    assert "This is no recovery" in chart


def test_without_a_reference_the_band_lies_around_chance_and_no_control_is_drawn():
    record = rich_record()
    mia = record["attacks"]["mia"]
    mia["leak"]["control"] = 0.5
    mia["per_row"]["control"], mia["beside"]["control"] = {}, {}
    chart = str(membership_chart(record, [attack_of(record, "mia")]))
    assert "gate 0.35 to 0.65" in chart
    assert "control 0." not in chart


def test_a_cost_is_drawn_beside_the_clean_request():
    record = rich_record()
    chart = str(cost_chart([attack_of(record, "sa")]))
    assert "share of bystanders" in chart
    assert ">the request as it is<" in chart


def test_a_family_without_an_attack_was_not_run_and_is_not_called_undecided():
    found = {name: plain.name for name, _, plain in families(audit_record())}
    assert found["perturbation"] == "not run"
    assert found["read-out"] == "undecided"


def test_what_is_reported_only_says_so_and_is_not_listed_as_undecided():
    record = rich_record()
    record["attacks"]["cka"]["outcome"] = "inconclusive"
    box = told(record).split("2 Scope")[0]
    assert "cka" not in box
    assert "reported only)" in told(record)


# ------------------------------------------------------------------------------ single plots


def test_a_roc_curve_steps_where_the_placements_say():
    record = rich_record()
    record["attacks"]["mia"]["per_row"] = {
        "original": {}, "control": {}, "model": {"a": 1.0, "b": 0.5, "c": 0.5, "d": 0.0},
    }  # fmt: skip
    record["attacks"]["mia"]["beside"] = {
        "original": {}, "control": {}, "model": {"holdout": dict.fromkeys("wxyz", 0.5)},
    }  # fmt: skip
    chart = str(roc(record, attack_of(record, "mia")))
    drawn = re.search(r'd="(M[^"]*)" class="line tone-model"', chart)[1]
    points = [tuple(map(float, one.split())) for one in drawn[1:].split("L")]
    left, right = points[0][0], points[-1][0]
    shares = [round((x - left) / (right - left), 2) for x, _ in points]
    # from 1/4 (the least that four rows show) to 1; at 1/2 two more are found, at 1 the last
    assert shares == [0.0, 0.5, 0.5, 0.5, 0.5, 1.0, 1.0, 1.0]
    heights = [round((points[0][1] - y) / (points[0][1] - points[-1][1]), 2) for _, y in points]
    assert heights == [0.0, 0.0, 0.5, 0.5, 0.79, 0.79, 1.0, 1.0]  # log of 1/4, 2/4, 3/4, 1


def test_a_membership_test_without_placements_has_no_roc_and_one_score_no_second_chart():
    record = rich_record()
    mia = record["attacks"]["mia"]
    mia["beside"] = {who: {} for who in mia["beside"]}
    mia["parts"]["model"] = {"auc_loss": 0.5}
    assert roc(record, attack_of(record, "mia")) is None
    assert score_chart(attack_of(record, "mia")) is None
    assert "needs more hold-out rows" in told(record)


def test_curves_over_answers_take_the_numbers_of_the_record_and_name_who_is_missing():
    record = rich_record()
    (chart,) = budget_charts(record, attack_lines(record))
    assert "no such curve" not in chart
    parts = record["attacks"]["sample"]["parts"]
    assert f"this model {parts['model']['leak@64']:.0%}" in chart
    parts["original"] = {}
    assert "no such curve of the original" in budget_charts(record, attack_lines(record))[0]


def test_a_single_budget_is_no_curve():
    record = rich_record()
    record["attacks"]["sample"]["parts"]["model"] = {"leak@1": 0.2, "leak@x": 1.0}
    assert budget_charts(record, attack_lines(record)) == []


def test_blocks_stand_in_their_order_and_names_that_are_none_are_left_out():
    record = rich_record()
    layers = {str(at): at / 20 for at in (10, 9, 2)} | {"x": 1.0, "nan": 0.5, "1e9": 0.5}
    record["attacks"] = {"patch": record["attacks"]["patch"] | {
        "layers": {"original": {}, "model": layers, "control": {}}}}  # fmt: skip
    (chart,) = layer_charts(record, attack_lines(record))
    assert "model: block 2 0.10, block 9 0.45, block 10 0.50." in chart


def test_intervals_count_subjects_where_the_audit_does():
    record = rich_record()
    assert units(record, ROWS) == len(ROWS)
    record["request"]["unit"] = "subject"
    assert units(record, ROWS) == 8
    assert units(record, [*ROWS, "an invented row"]) == 9


def test_the_truth_ratio_is_drawn_as_the_test_sees_it_where_there_is_a_reference():
    assert "D 0.35 (95% interval 0.25 to 0.47), p 0.014" in truth_ratios(rich_record())
    plain = truth_ratios(audit_record())
    assert "distance to a reference was not measured" in plain


def test_forgetting_is_the_least_of_what_decides_and_recovers():
    record = rich_record()
    value, (low, high) = forgetting(record)
    assert value == pytest.approx(1 - 0.52)  # patch; cka recovers more and is reported only
    assert low < value < high
    for attack in record["attacks"].values():
        attack["recovery"] = None
    assert forgetting(record) is None
    assert scatter(record) is None


def test_the_part_that_lost_most_is_named():
    assert worst_part(rich_record()) == "neighbour rows"
    assert "◂ least" in render_audit(rich_record())
    record = audit_record()
    for part in ("retain", "neighbour"):
        record["utility"][part] = {"model": 0.9, "original": 0.9}
    assert worst_part(record) is None
    assert "It lost most" not in told(record)


# --------------------------------------------------------------------------- what is not there


def test_what_the_record_does_not_hold_is_said_in_one_sentence():
    page = told(audit_record() | {"made": None})
    assert "made from the original by npo (checkpoint, seed 0)" in told(audit_record())
    for said in (
        "was not measured, so there is no histogram of it",
        "How the model was made from the original is not known",
        "Over-refusal and honesty were not measured.",
        "there is no curve over a sequence of requests",
        "No membership test was run.",
        "keeps no intervals of the parts",
    ):
        assert said in page, said


def test_every_stratum_stands_in_the_picture_with_its_interval():
    record = audit_record()
    part = {"original": 0.95, "rows": 20}
    record["utility"]["strata"] = {
        "retain": {"model": 0.9, "original": 0.97, "interval": [0.84, 0.95], "rows": 200},
        "neighbour/cousins": {"model": 0.71, "interval": [0.52, 0.87], **part},
        "neighbour/namesakes": {"model": 0.83, "interval": [0.66, 0.94], **part},
    }
    page = render_audit(record)
    assert "keeps no intervals" not in page
    assert "neighbour rows, cousins: original 0.95, this model 0.71 (0.52 to 0.87)" in page
    assert "neighbour rows, namesakes: original 0.95, this model 0.83 (0.66 to 0.94)" in page
    assert "0.71 of 0.95 ◂ least" in page
    assert "0.83 of 0.95 ◂ least" not in page


def test_a_long_prompt_is_content_and_is_cut_when_answers_are_masked():
    text = " ".join(f"word{at}" for at in range(60))
    record = audit_record()
    record["examples"][0] |= {"prompt": text, "model": "word3 word50 other"}
    assert "word7" in told(record)
    assert "word8" not in told(record)
    kinds = [piece.kind for piece in asked(record, record["examples"][0])]
    assert kinds == ["plain", "masked"]
    shown = dict(answers(record, record["examples"][0]))["this model"]
    assert [piece.text for piece in shown] == ["word3", ""]
    assert "word50" in told(record | {"redact": False})


def test_a_printed_page_breaks_between_plots_and_rows_and_stands_on_white():
    style = re.search(r"<style>(.*?)</style>", render_audit(audit_record()), re.DOTALL)[1]
    printed = style[style.index("@media print") :]
    assert "--paper: #fff" in printed
    whole = " ".join(re.findall(r"([^{}]*){[^{}]*break-inside: avoid", printed))
    for part in ("figure.plot", "tr", ".example", "p"):
        assert re.search(rf"(^|[\s,]){re.escape(part)}([\s,]|$)", whole), part
    assert not re.search(r"@media (?!screen|print|\(prefers)", style)
