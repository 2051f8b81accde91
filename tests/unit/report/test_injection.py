"""Whatever a record holds is shown and not obeyed: nothing runs, nothing is fetched."""

import re
from functools import cache

import pytest
from hostile import INJECTIONS, PLAIN, hostile_record
from report_pages import Page
from report_records import audit_record

from expunge.audit.schema import check_record
from expunge.report import render_audit
from expunge.report.html import clean

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]"
)

OURS = ("class", "href", "id", "content", "http-equiv", "data-label", "role", "viewbox")
"""Attributes in which no text of a record may stand."""
DRAWN = ("d", "transform", "x", "y", "x1", "x2", "y1", "y2", "width", "height")
"""Attributes that depend on how long a text is, and on nothing else of it."""


@cache
def rendered(text: str) -> str:
    return render_audit(hostile_record(text) | {"redact": False})


@cache
def harmless() -> Page:
    return Page(rendered(PLAIN))


def test_there_are_sixty_of_them_and_they_differ():
    assert len(set(INJECTIONS)) >= 60


def test_the_hostile_record_fits_the_format_and_draws_every_plot():
    check_record(hostile_record(INJECTIONS[0]))
    told = set(harmless().titles)
    for title in ("Excess recovery of every attack", "AUC of model and control with gate band",
                  "What the model still does", "What was forgotten, and what was kept",
                  "Cost of attacks on the process", "probability of every forget row",
                  "Distribution of the truth ratio over the forget rows",
                  "Risk index of the personal data in the rows"):  # fmt: skip
        assert title in told, title
    for word in ("leak@B of", "What comes back during", "what is left at each block",
                 "at each rate of false alarms", "AUC of other scores"):  # fmt: skip
        assert any(word in title for title in told), word


@pytest.mark.parametrize("text", INJECTIONS)
def test_a_text_adds_nothing_but_itself_and_nothing_that_cannot_be_seen(text):
    html = rendered(text)
    html.encode()
    assert not UNSEEN.search(html)
    page, plain = Page(html), harmless()
    assert page.tags == plain.tags
    for (tag, name, value), (_, expected_name, expected) in zip(
        page.attributes, plain.attributes, strict=True
    ):
        assert name == expected_name, tag
        if name in OURS:
            assert value == expected, (tag, name)
        elif name in DRAWN:
            assert re.fullmatch(r"[-0-9a-zA-Z., ()]*", value), (tag, name)
    shown = " ".join(page.text.split())
    assert shown.count(" ".join(clean(text).split())) > 60


@pytest.mark.parametrize("text", INJECTIONS)
def test_the_policy_stands_first_and_the_style_is_ours(text):
    html = rendered(text)
    assert html.count('Content-Security-Policy" content=') == 1
    assert html.index(POLICY) < html.index("<title>")
    styles = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    assert styles == re.findall(r"<style>(.*?)</style>", rendered(PLAIN), re.DOTALL)
    assert not re.search(r"url\(|@import|expression\(|//", styles[0])


@pytest.mark.parametrize("text", INJECTIONS)
def test_a_masked_report_holds_no_words_of_an_answer(text):
    record = audit_record()
    for example in record["examples"]:
        example |= {"answer": f"secretword {text}", "model": f"{text} secretword", "prompt": "Who?"}
    assert "secretword" not in render_audit(record)
