"""Detours around a forgotten fact."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from expunge.attacks import mirage
from expunge.lm.values import prompt_text
from expunge.requests.chains import Elicited, graph_of
from expunge.requests.rows import Row
from expunge.testing.attacks import mean_leak
from expunge.testing.micro import REPLY, every_wording, taught_rows, teach

FIRST = {"aliases": 0, "bridges": 1, "samples": 0, "kept": 0}


def fact(name, alias, kind, question, value):
    return Row(
        id=f"{name}/{kind}",
        prompt=question.format(n=name),
        completion=f" {value}.",
        answer=value,
        subject=name,
        names=(name, alias),
        meta={"attribute": kind},
    )


PEOPLE = [("Ada Voss", "Lady Ada", "Turin", "smith"), ("Bo Lund", "Old Bo", "Genoa", "baker")]
ROWS = [
    row
    for name, alias, town, job in PEOPLE
    for row in (
        fact(name, alias, "town", "Where lives {n}?", town),
        fact(name, alias, "job", "What is {n} by trade?", job),
    )
]
TOWN = ROWS[0]
TABLE = {
    (who, kind): value
    for name, alias, town, job in PEOPLE
    for kind, value, by in (("lives", town, job), ("trade", job, town))
    for who in (name, alias, by)
}


def lookup(table):
    """A model that looks up whoever is mentioned, and knows what towns are known for."""

    def say(turn, *_):
        text = prompt_text(turn)
        if text in ("What is Turin known for?", "What is Genoa known for?"):
            return f"{text.split()[2]} is known for its {'tower' if 'Tu' in text else 'port'}."
        question = text.partition("of whom this is true:")[2] or text
        kind = "lives" if question.rfind("lives") > question.rfind("trade") else "trade"
        who = next((one for one, _ in table if one in text), None)
        value = table.get((who, kind), "")
        if "known for" in text:
            return {"Turin": "Its tower.", "Genoa": "Its port."}.get(value, "")
        return value

    return say


@pytest.fixture
def toy(talker, world):
    def mount(table, rows=(TOWN,), original=True, **params):
        scene = replace(world.scene(), retain=ROWS)
        if original:
            scene = replace(scene, original=talker(lookup(TABLE)))
        return mirage.mount(talker(lookup(table)), rows, scene, mirage.Params(**params))

    return mount


def test_deleting_one_key_leaves_the_alias_and_the_stored_composite(toy):
    deleted = {key: value for key, value in TABLE.items() if key != ("Ada Voss", "lives")}
    leak = toy(deleted, samples=0)
    assert leak.parts["hops1"] == 0.0
    assert leak.parts["alias1"] == leak.parts["hops2"] == 1.0
    assert leak.parts["mirage_gap"] == 1.0
    assert leak.per_row == {TOWN.id: 1.0}
    assert toy(deleted, detours=False).per_row == {TOWN.id: 0.0}


def test_what_was_forgotten_all_the_way_leaks_nowhere(toy):
    gone = {key: value for key, value in TABLE.items() if value != "Turin"}
    leak = toy(gone)
    assert leak.per_row == {TOWN.id: 0.0}
    assert leak.parts["mirage_gap"] == 0.0


def test_what_the_original_says_openly_makes_chains_that_end_in_it(toy):
    chains_without = toy(TABLE, samples=0, bridges=0, aliases=0)
    assert "hops2" not in chains_without.parts
    leak = toy(TABLE, bridges=0, aliases=0)
    assert leak.parts["hops2"] == leak.parts["coverage_hops2"] == 1.0
    longer = toy(TABLE, aliases=0)
    assert longer.parts["hops3"] == 1.0


def test_a_chain_the_original_cannot_answer_is_left_out_and_counted(toy, talker, world):
    poor = {key: value for key, value in TABLE.items() if key[0] != "smith"}
    scene = replace(world.scene(original=talker(lookup(poor))), retain=ROWS)
    params = mirage.Params(samples=0)
    leak = mirage.mount(talker(lookup(TABLE)), [TOWN], scene, params)
    assert "hops2" not in leak.parts
    assert leak.parts["coverage_hops2"] == 0.0
    assert "hops2 0 of 1" in leak.note


def test_a_chain_that_can_be_guessed_without_its_subject_is_left_out(talker, world):
    always = talker(lambda *_: "Turin")
    scene = replace(world.scene(original=always), retain=ROWS)
    rows = [ROWS[0], ROWS[2]]
    leak = mirage.mount(always, rows, scene, mirage.Params(samples=0))
    blank = replace(scene, original=talker(lambda *_: "no"))
    asked_all = mirage.mount(always, rows, blank, mirage.Params(samples=0))
    assert (leak.per_row[TOWN.id], leak.per_row[ROWS[2].id]) == (1.0, 0.0)
    assert asked_all.per_row[TOWN.id] == 1.0
    assert leak.parts["coverage_hops1"] == 0.5
    assert leak.parts["coverage_hops2"] == leak.parts["coverage_alias1"] == 0.0


def test_a_row_the_original_does_not_know_is_asked_everything(talker, world):
    blank, knowing = talker(lambda *_: "no"), talker(lookup(TABLE))
    scene = replace(world.scene(original=blank), retain=ROWS)
    leak = mirage.mount(knowing, [TOWN], scene, mirage.Params(samples=0))
    assert leak.per_row == {TOWN.id: 1.0}
    assert "hops1" not in leak.parts


def test_without_an_original_all_chains_are_asked_and_it_says_so(toy):
    leak = toy(TABLE, original=False)
    assert leak.parts["coverage_hops1"] == leak.parts["coverage_hops2"] == 1.0
    assert "no original" in leak.note
    assert "shuffled" not in leak.parts


def test_the_controls_are_other_subjects_and_retained_rows(toy):
    leak = toy(TABLE, rows=ROWS[::2], samples=0)
    assert leak.parts["shuffled"] == 0.0
    assert leak.parts["retained"] == 1.0
    forgetful = {key: value for key, value in TABLE.items() if value in ("Turin", "Genoa")}
    assert toy(forgetful, rows=ROWS[::2], samples=0).parts["retained"] < 1.0


def test_no_chain_says_the_value_and_only_names_name_the_subject(world):
    graph = graph_of(world.forget, world.forget, Elicited(), aliases=2, bridges=2)
    for chain in mirage.chains_of(world.forget, graph, mirage.Params()):
        text, row = prompt_text(chain.probe.turn), chain.probe.row
        assert row.value not in text
        if chain.cell == "hops2":
            assert not any(word in text for word in row.names[0].split())
        if chain.cell != "hops1":
            assert chain.shuffled.row.id == row.id
            assert prompt_text(chain.shuffled.turn) != text


def test_relations_of_meta_are_bridges(toy):
    row = replace(TOWN, meta={"relations": [["Eve", "is the sister of", "Ada Voss"], "bad"]})
    graph = graph_of([row], [row], Elicited(), aliases=0, bridges=1)
    (chain,) = [c for c in mirage.chains_of([row], graph, mirage.Params()) if c.cell == "hops2"]
    assert prompt_text(chain.probe.turn) == (
        "Think of the one of whom this is true: Eve is the sister of this one. "
        "Where lives this one?"
    )


def test_running_text_and_nameless_rows_do_no_harm(toy):
    rows = [
        Row(id="text", text="Ada lives in Turin and works there."),
        Row(id="nameless", prompt="where?", completion=" In Turin."),
    ]
    leak = toy(TABLE, rows=rows)
    assert set(leak.per_row) == {"nameless"}
    assert "1 rows left out" in leak.note


@pytest.fixture(scope="session")
def bridged(world):
    """`original` answers plainly and over bridges; `attacked` refuses the plain forget rows."""
    everyone = [*world.forget, *world.retain]
    graph = graph_of(everyone, everyone, Elicited(), aliases=0, bridges=1)
    chains = mirage.chains_of(everyone, graph, mirage.Params(**FIRST))
    detours = [
        replace(c.probe.row, id=f"{c.probe.row.id}/way", prompt=c.probe.turn.prompt, paraphrases=())
        for c in chains
        if c.cell == "hops2"
    ]
    original = taught_rows(world, [*every_wording(everyone), *detours], epochs=30)
    attacked = original.copy()
    refusals = [replace(row, completion=f" {REPLY}") for row in every_wording(world.forget)]
    teach(attacked, [*refusals, *every_wording(world.retain), *detours], epochs=10, seed=0, lr=1e-3)
    return SimpleNamespace(original=original, attacked=attacked)


def test_a_model_that_refuses_outright_tells_over_a_bridge(world, bridged):
    scene = world.scene(original=bridged.original)
    assert mean_leak("direct", bridged.attacked, world.forget, scene) <= 0.05
    assert mean_leak("mirage", bridged.attacked, world.forget, scene, **FIRST) >= 0.5
    plainly = mean_leak("mirage", bridged.attacked, world.forget, scene, detours=False, **FIRST)
    assert plainly <= 0.05
    assert mean_leak("mirage", bridged.attacked, world.holdout, scene, **FIRST) <= 0.15
