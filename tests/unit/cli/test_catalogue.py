"""``expunge methods`` and its siblings."""

import pytest

from expunge.cli.catalogue import section
from expunge.core import registry
from expunge.core.errors import Exit

KINDS = ("methods", "guards", "metrics", "attacks", "benchmarks")


@pytest.mark.parametrize("kind", KINDS)
def test_the_list_is_one_json_value_with_a_card_for_each_component(run, kind):
    ran = run(kind, "--json")
    assert ran.code == 0
    assert [card["id"] for card in ran.value] == list(getattr(registry, kind).ids())
    for card in ran.value:
        promised = {"id", "kind", "summary", "paper", "maturity", "needs", "params"}
        assert promised <= set(card)
        for facts in card["params"].values():
            assert {"default", "help", "paper"} <= set(facts)


@pytest.mark.parametrize("kind", KINDS)
def test_people_see_every_id_in_the_table(run, kind):
    ran = run(kind)
    ids = [line.split()[0] for line in ran.out.splitlines()[1:] if line[:1].strip()]
    assert ids == list(getattr(registry, kind).ids())


@pytest.mark.parametrize("name", ["grad-diff", "grad_diff"])
def test_both_spellings_of_an_id_show_the_same_component(run, name):
    assert run("methods", name, "--json").value["id"] == "grad-diff"


def test_one_method_is_shown_with_formula_parameters_paper_and_departures(run):
    out = " ".join(run("methods", "npo").out.split())
    card = registry.methods.card("npo")
    for told in (
        " ".join(card.formula.split()),
        card.paper,
        card.maturity,
        "beta 0.1 0.1 sharpness",
        "needs forget, retain, anchor",
        "Departs from the paper The run stops at the level",
    ):
        assert told in out


def test_an_unknown_id_is_refused_with_the_nearest(run):
    ran = run("metrics", "truth-rati", "--json")
    assert ran.code == Exit.BAD_INPUT
    assert ran.value["error"]["code"] == "E-USE-001"
    assert "'truth-ratio'" in ran.value["error"]["next"]


@pytest.mark.parametrize(
    ("doc", "found"),
    [
        ("One line.", ""),
        ("S.\n\nDeparts: on the line.\n\nMore: x", "on the line."),
        ("S.\n\nDeparts: over\ntwo lines.\n\nMore: x", "over\ntwo lines."),
        ("S.\n\nDeparts:\n    indented\n\n    and spaced\n\nMore: x", "indented\n\nand spaced"),
    ],
)
def test_a_part_of_a_docstring_ends_where_the_next_begins(doc, found):
    assert section(doc, "Departs") == found
