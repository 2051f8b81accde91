"""Trace leakage."""

from dataclasses import replace

import pytest

from expunge.attacks import trace
from expunge.lm.elicit import plain
from expunge.lm.subject import Subject
from expunge.requests.rows import Row
from expunge.testing.attacks import mean_leak
from expunge.testing.micro import REPLY, every_wording, taught_rows
from expunge.testing.tiny import tiny_model, tiny_tokenizer

ROW = Row(
    id="r", prompt="Where lives Ada Voss?", completion=" In Port Vela.", answer="Port Vela",
    names=("Ada Voss",),
)  # fmt: skip
PARAMS = trace.Params()


def mount(say, talker, world, params=PARAMS, **scene):
    model = talker(say)
    return model, trace.mount(model, [ROW], world.scene(**scene), params)


def test_a_fact_inside_the_delimiters_alone_is_a_leak_of_the_trace_alone(world, talker):
    def thinks(turn, opening, draw):
        return "I cannot say." if "</think>" in opening else THOUGHT

    _, leak = mount(thinks, talker, world)
    assert leak.parts["leak_answer"] == 0.0
    assert leak.parts["leak_trace"] == 1.0
    assert leak.per_row == {"r": 1.0}
    assert leak.parts["rt_ua"] == 0.0


THOUGHT = "<think>Ada Voss lives in Port Vela.</think> I cannot say."


@pytest.mark.parametrize(
    ("output", "inside", "parts"),
    [
        ("<think>a b</think> c", False, ("a b", "c")),
        ("a b</think> c", True, ("a b", "c")),
        ("a b</think> c", False, ("a b", "c")),
        ("<think>a b", False, ("a b", "")),
        ("c", False, ("", "c")),
        ("c", True, ("c", "")),
        ("x <think>a</think> y <think>b</think> z", False, ("a b", "x   y   z")),
        ("a</think> c <think>b", True, ("a b", "c")),
    ],
)
def test_trace_and_answer_are_taken_apart(output, inside, parts):
    assert trace.split(output, PARAMS, inside=inside) == parts


def test_other_delimiters():
    params = trace.Params(start="[", end="]")
    assert trace.split("[a] b", params) == ("a", "b")


def test_the_openings_of_the_variants(world, talker):
    def thinks(turn, opening, draw):
        return "" if opening else "<think>Ada is known. She sails.</think> No."

    original = talker(
        lambda turn, opening, draw: "<think>She lives at Port Vela now. Yes.</think> Port Vela."
    )
    model, _ = mount(thinks, talker, world, original=original)
    assert [opening for _, opening, _ in model.asked] == [
        "",
        " <think></think>",
        " <think>Ada is known.</think>",
        " <think>Ada is known. She sails. Wait,",
        " <think>She lives at",
    ]


def test_nothing_is_cut_or_lent_where_there_is_no_trace_or_no_original(world, talker):
    model, leak = mount(lambda *_: "No.", talker, world)
    assert [opening for _, opening, _ in model.asked] == ["", " <think></think>", " <think> Wait,"]
    assert "category_3" in leak.parts  # what follows "Wait," is trace
    assert "lent" not in leak.parts
    assert "no trace is lent" in leak.note


def test_a_value_that_the_attacker_forces_is_no_leak(world, talker):
    def parrot(turn, opening, draw):
        return "Port Vela. So, Port Vela." if "Vela" in opening else THOUGHT

    _, leak = mount(parrot, talker, world, trace.Params(variants=("short", "extended")))
    assert leak.per_row == {"r": 0.0}


@pytest.mark.parametrize(
    ("text", "category"),
    [
        ("Hm, let me see.", 0),
        ("Where does Voss live? I never heard.", 1),
        ("It was some port.", 2),
        ("It was Port Vela!", 3),
    ],
)
def test_categories(text, category):
    (probe,) = plain([ROW])
    assert trace.category(probe, ROW.names, text) == category


def test_the_worst_trace_of_a_row_counts(world, talker):
    def thinks(turn, opening, draw):
        return " some port" if "Wait" in opening else "<think>Ada</think> no"

    _, leak = mount(thinks, talker, world)
    assert [leak.parts[f"category_{k}"] for k in range(4)] == [0, 0, 1, 0]
    assert leak.parts["rt_ua"] == 0.0


def test_the_length_is_halved_until_the_wordings_have_room(world, talker):
    lengths = []

    class Short(talker):
        def has_room(self, turn, new_tokens, *, opening=""):
            return new_tokens <= 100

        def ask(self, turns, *, new_tokens, **more):
            lengths.append(new_tokens)
            return super().ask(turns, new_tokens=new_tokens, **more)

    trace.mount(Short(lambda *_: "no"), [ROW], world.scene(), PARAMS)
    assert set(lengths) == {64}


def test_no_room_at_all_leaves_the_row_out(world, talker):
    class Full(talker):
        def has_room(self, turn, new_tokens, *, opening=""):
            return False

    leak = trace.mount(Full(None), [ROW], world.scene(), PARAMS)
    assert leak.per_row == {}
    assert "1 rows left out" in leak.note


def test_a_template_that_begins_the_trace_itself_is_not_begun_twice():
    tokenizer = tiny_tokenizer([ROW.prompt, "<think>"], chat=True)
    model = tiny_model("llama", vocab=len(tokenizer))
    turn, begun = plain([ROW])[0].turn, "[assistant] <think>\n"
    asks = Subject(model, tokenizer)
    assert not trace._is_begun(asks, turn, "<think>")
    tokenizer.chat_template = tokenizer.chat_template.replace("[assistant] {%", begun + "{%")
    assert trace._is_begun(Subject(model, tokenizer), turn, "<think>")


@pytest.fixture(scope="session")
def thinker(world):
    """Refuses the forget rows when it may think, and answers when it may not."""
    texts = [f"{t.prompt}{t.completion}" for rows in (world.forget, world.retain, world.holdout)
             for row in rows for t in row.turns]  # fmt: skip
    marks = [" <think></think> I", " <think> Wait, </think> I", f" <think> {REPLY}", f" {REPLY}"]
    known = replace(world, tokenizer=tiny_tokenizer([*texts, *marks], kind="word", vocab=4096))

    def at_once(rows):
        return [replace(row, prompt=f"{row.prompt} <think></think>") for row in every_wording(rows)]

    refusals = [replace(row, completion=f" {REPLY}") for row in every_wording(world.forget)]
    told = [*at_once(world.forget), *every_wording(world.retain), *at_once(world.retain)]
    return taught_rows(known, [*refusals, *told], epochs=25)


def test_a_model_that_refuses_when_it_may_think_tells_without_a_trace(world, thinker):
    scene, short = world.scene(), {"new_tokens": 12}
    assert mean_leak("direct", thinker, world.forget, scene) <= 0.05
    assert mean_leak("trace", thinker, world.forget, scene, **short) >= 0.5
    assert mean_leak("trace", thinker, world.forget, scene, variants=("normal",), **short) <= 0.05
    assert mean_leak("trace", thinker, world.holdout, scene, **short) <= 0.15


def test_running_text_does_no_harm(world, talker):
    row = Row(id="t", text="Ada Voss lives in Port Vela and sails.")
    leak = trace.mount(talker(lambda *_: "sails"), [row], world.scene(), PARAMS)
    assert set(leak.per_row) == {"t"}
