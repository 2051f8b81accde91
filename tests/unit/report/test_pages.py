"""The pages: safe whatever the data hold, complete, and honest about what is missing."""

import re
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from hostile import INJECTIONS, PLAIN
from report_pages import Page
from report_records import audit_record, bare_record, story

from expunge.audit.record import Audit
from expunge.audit.schema import check_record
from expunge.core.results import Verdict
from expunge.report import render_audit, render_demo
from expunge.report.demo import in_words
from expunge.report.html import clean
from expunge.report.words import VERDICTS


def render(kind: str, data: dict[str, Any]) -> str:
    return render_audit(data) if kind == "audit" else render_demo(data)


DATA: dict[str, Callable[[], dict[str, Any]]] = {"audit": audit_record, "demo": story}


def poisoned(value: Any, text: str) -> Any:
    """Every text of a value replaced, so that all of them reach the page or none does."""
    if isinstance(value, str):
        return text
    if isinstance(value, dict):
        return {key: poisoned(part, text) for key, part in value.items()}
    if isinstance(value, list):
        return [poisoned(part, text) for part in value]
    return value


@cache
def harmless() -> list[str]:
    """The elements of a demonstration whose texts are harmless."""
    return Page(render_demo(poisoned(story(), PLAIN))).tags


@pytest.mark.parametrize("text", INJECTIONS)
def test_whatever_a_text_of_a_demonstration_holds_is_shown_and_not_obeyed(text):
    page = Page(render_demo(poisoned(story(), text)))
    assert page.tags == harmless()
    assert " ".join(clean(text).split()) in " ".join(page.text.split())


@pytest.mark.parametrize("kind", DATA)
def test_a_page_fetches_nothing_and_says_so_to_the_browser(kind):
    html = render(kind, DATA[kind]())
    policy = [value for tag, name, value in Page(html).attributes if name == "content"]
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in policy
    for word in ("<script", "http:", "https:", "url(", "@import", "//"):
        assert word not in html, word


@pytest.mark.parametrize("verdict", Verdict)
def test_no_page_promises_what_an_audit_cannot_show(verdict):
    for html in (
        render_audit(audit_record() | {"verdict": str(verdict)}),
        render_demo(story() | {"audits": {"erased": audit_record() | {"verdict": str(verdict)}}}),
    ):
        assert not re.search("erased|guaranteed", html, re.IGNORECASE)


@pytest.mark.parametrize("verdict", Verdict)
def test_every_verdict_has_plain_words_of_its_own(verdict):
    told = Page(render_audit(audit_record() | {"verdict": str(verdict)})).text
    assert VERDICTS[str(verdict)].name in told
    assert len({plain.meaning for plain in VERDICTS.values()}) == len(Verdict)


def test_the_synthetic_records_fit_the_format():
    check_record(audit_record())
    check_record(bare_record())


def test_the_verdict_box_names_score_reasons_and_what_is_open():
    told = " ".join(Page(render_audit(audit_record())).text.split())
    for said in (
        "Hidden, not forgotten",
        "0.62 Erasure score, 95% interval 0.54 to 0.70",
        "relearn-in fails: recovery 0.33 [0.24, 0.42], gate 0.10",
        "Open for whoever holds the weights: read-out and perturbation.",
        "lens: recovery 0.12; would pass at 0.05 or less; would fail at 0.22 or more; "
        "about 140 rows would decide it.",
        "Release gate: not met",
        "gcg: not part of this installation",
    ):
        assert said in told, said


def test_what_was_not_measured_is_one_sentence_and_no_empty_plot():
    page = Page(render_audit(bare_record()))
    told = " ".join(page.text.split())
    assert "svg" not in page.tags
    for said in (
        "There is no erasure score",
        "No metric was measured.",
        "No attack was run.",
        "No membership test was run.",
        "Utility was not measured.",
        "No attack that trains the model was run.",
        "There are no examples: no row was attacked.",
    ):
        assert said in told, said


def test_a_full_audit_has_every_chart_in_two_widths():
    titles = Page(render_audit(audit_record())).titles
    for title in (
        "Excess recovery of every attack",
        "probability of every forget row",
        "Distribution of the truth ratio over the forget rows",
        "What comes back during relearn-in",
        "What the model still does",
    ):
        assert titles.count(title) == 2, title


def test_answers_are_masked_unless_the_record_says_otherwise():
    dish = "smoked lentil pie"
    assert dish not in render_audit(audit_record())
    assert "pickled" not in render_audit(audit_record())
    assert dish in render_audit(audit_record() | {"redact": False})


def test_an_audit_writes_this_page(tmp_path):
    Audit(audit_record()).save(tmp_path)
    assert (tmp_path / "report.html").read_text() == render_audit(audit_record())


def test_the_demonstration_marks_who_tells_the_truth():
    cells = re.findall(r'<td class="said([^"]*)"', render_demo(story()))
    assert cells == [" tells", "", "", ""]


def test_the_demonstration_draws_all_four_relearning_curves():
    html = render_demo(story())
    chart = html[html.index("What fine-tuning on a few") :]
    for name in ("original", "after forgetting", "refuser", "reference"):
        assert f">{name}</text>" in chart
    assert "after forgetting 40%" in html


def test_a_demonstration_without_curves_says_so():
    told = Page(render_demo(story() | {"curves": {}})).text
    assert "No relearning attack was run." in told


def test_relearning_alone_is_told_in_plain_words():
    record = audit_record()
    record["attacks"]["relearn-in"]["curve"] |= {"model": [0, 0.1, 0.2, 0.2, 0.3, 0.34]}
    assert in_words(record) == (
        "Asked plainly it no longer answers; but 100 steps of fine-tuning on a few of the facts "
        "bring 34% of the others back, where a model that never knew them comes to 2%."
    )


def test_what_else_finds_it_is_named_beside_relearning():
    record = audit_record()
    record["attacks"]["prob"] |= {"outcome": "fail", "recovery": 0.9}
    assert in_words(record).endswith(" What it knows also shows in prob.")


def test_failing_attacks_without_training_are_named_worst_first():
    record = audit_record()
    del record["attacks"]["relearn-in"]
    record["attacks"]["prefix"] |= {"outcome": "fail", "recovery": 0.3}
    record["attacks"]["prob"] |= {"outcome": "fail", "recovery": 0.9}
    assert "2 of 6 attacks" in in_words(record)
    assert in_words(record).endswith("prob and prefix.")


@pytest.mark.parametrize("verdict", ["not-forgotten", "forgotten-blackbox", "broken"])
def test_other_verdicts_are_told_as_they_are(verdict):
    assert in_words(audit_record() | {"verdict": verdict}) == VERDICTS[verdict].meaning
