"""Mentions, bridges and ends of chains."""

import pytest

from expunge.requests.chains import (
    Elicited,
    Onward,
    agreed,
    aliases_of,
    by_bridge,
    by_name,
    graph_of,
    onward_of,
    relations_of,
    told_value,
)
from expunge.requests.rows import Row

TOWN = Row(
    id="town", prompt="Where was Mira Voss born?", completion=" Mira Voss was born in Turin.",
    answer="Turin", subject="m", names=("Mira Voss",),
)  # fmt: skip
JOB = Row(
    id="job", prompt="What does Voss do?", completion=" She is a smith.", answer="smith",
    subject="m", names=("Mira Voss",),
)  # fmt: skip
TURIN = Row(
    id="turin", prompt="Which river is in Turin?", completion=" The Po.", answer="Po",
    aliases=("Padus",), subject="t", names=("Turin",),
)  # fmt: skip


def test_mentions_put_a_name_or_a_description_in_place_of_the_name():
    question = "Where was Mira Voss born?"
    assert by_name("Ada").put_into(question, ["Mira Voss"]) == "Where was Ada born?"
    bridge = by_bridge("What does Voss do? She is a smith.", ["Mira Voss"])
    assert bridge.hops == 1
    assert bridge.put_into(question, ["Mira Voss"]) == (
        "Think of the one of whom this is true: What does this one do? She is a smith. "
        "Where was this one born?"
    )


def test_an_end_asks_about_the_answer_without_saying_it():
    assert Onward("Which river is in that?", "Po").after("Where?") == (
        "Take the answer to this question: Where? Which river is in that?"
    )


def test_what_is_known_of_a_value_that_is_a_subject_itself():
    names = {"town": ("Mira Voss",), "turin": ("Turin",)}
    assert list(onward_of("TURIN", [TOWN, TURIN], names)) == [
        Onward("Which river is in that?", "Po", ("Padus",))
    ]
    assert not list(onward_of("Genoa", [TOWN, TURIN], names))


def test_relations_are_triples_and_nothing_else():
    meta = {"relations": [["A", "is near", "B"], ["A", "B"], "no", 3]}
    assert list(relations_of(Row(id="r", text="t", meta=meta))) == ["A is near B."]
    assert not list(relations_of(Row(id="r", text="t", meta={"relations": 7})))


def test_a_graph_has_the_name_first_then_aliases_then_bridges():
    more = Elicited()
    more.facts["town"] += ["Pet? A cat.", "Home of Mira Voss? Turin."]
    graph = graph_of([TOWN], [TOWN, JOB, TURIN], more, aliases=1, bridges=5)
    name, alias, *bridges = graph.mentions["town"]
    assert (name.name, alias.name, alias.is_alias) == ("Mira Voss", "Voss", True)
    assert [bridge.lead.partition("true: ")[2] for bridge in bridges] == [
        "What does this one do? She is a smith.",
        "Pet? A cat.",
    ]
    assert graph.ends["town"] == [Onward("Which river is in that?", "Po", ("Padus",))]


@pytest.mark.parametrize(
    ("names", "aliases"),
    [
        (["Mira Voss"], ["Voss", "M. Voss"]),
        (["Mira"], []),
        ([], []),
        (["Mira Voss", "Lady V"], ["Lady V"]),
    ],
)
def test_aliases(names, aliases):
    assert aliases_of(names) == aliases


@pytest.mark.parametrize(
    ("question", "said", "value"),
    [
        ("What is Turin known for?", "Turin is known for its old tower.", "old tower"),
        ("What is Turin known for?", "It is known.", ""),
        ("Who?", "Ada Voss of Port Vela Nova.", "port vela nova"),
    ],
)
def test_what_an_answer_tells_beyond_its_question(question, said, value):
    assert told_value(question, said) == value


def test_enough_answers_must_agree():
    answers = ["its tower", "a tower", "the tower!", "its port", "nothing"]
    assert agreed("Why?", answers, 3) == "tower"
    assert agreed("Why?", answers, 4) == ""
    assert agreed("Why?", [], 1) == ""
