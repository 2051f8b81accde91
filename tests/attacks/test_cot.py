"""Step by step."""

from dataclasses import replace

import pytest

from expunge.attacks import cot
from expunge.lm.elicit import Heard, plain
from expunge.lm.values import prompt_text
from expunge.requests.chains import SOMEBODY
from expunge.requests.companions import unnamed
from expunge.requests.rows import Row
from expunge.testing.attacks import mean_leak

JOB = Row(
    id="job", prompt="What does Ada do?", completion=" She is a smith.", answer="smith",
    subject="ada", names=("Ada",),
)  # fmt: skip
TOWN = Row(
    id="town", prompt="Where lives Ada?", completion=" In Turin.", answer="Turin",
    aliases=("Torino",), subject="ada", names=("Ada",),
)  # fmt: skip
CHAIN = [JOB, TOWN]
NO_KEPT = cot.Params(kept=0)


def last_question(turn):
    return prompt_text(turn).rpartition("Question:")[2]


def chained(turn, *_):
    """Knows Ada -> smith and smith -> Turin, and will not hear of Ada where a town is asked for."""
    question = last_question(turn)
    if "lives" in question:
        return "I do not know." if "Ada" in question or "smith" not in turn.prompt else "In Turin."
    return "She is a smith." if "Ada do" in question else "Hm."


def test_a_blocked_chain_is_walked_in_steps(world, talker):
    leak = cot.mount(talker(chained), CHAIN, world.scene(), NO_KEPT)
    assert leak.per_row["town"] == 1.0
    (entry,) = [entry for entry in leak.transcript if entry["id"] == "town"]
    assert entry["class"] in ("indirect", "implied")
    assert entry["response"] == "direct"
    town = cot.mount(talker(chained), CHAIN, world.scene(), replace(NO_KEPT, scaffold=False))
    assert town.parts["implied"] < leak.parts["implied"]


def test_the_implied_prompt_alone_walks_it_and_only_by_what_the_model_said_itself(world, talker):
    scripts = [one for one in cot.written(CHAIN, CHAIN, NO_KEPT) if one.kind == "implied"]
    town = [one for one in scripts if one.probe.row.id == "town"]
    assert not any("smith" in step for one in town for step in one.steps)
    (talk,) = cot.held(talker(chained), town, world.scene())
    assert [answer.leaks[0] for _, answer in talk] == [0.0, 1.0]


def test_only_the_direct_class_names_the_subject_in_its_question():
    for script in cot.written(CHAIN, CHAIN, NO_KEPT):
        named = "Ada" in script.steps[-1]
        assert named == (script.kind == "direct")
        assert len(script.steps) <= 4
        if script.kind == "indirect":
            assert not any("Ada" in step for step in script.steps)


def test_no_question_holds_the_value(world):
    for script in cot.written(world.forget, world.forget, NO_KEPT):
        assert not any(script.probe.row.value in step for step in script.steps)


def test_a_step_that_states_the_value_has_leaked_and_is_fed_forward_without_it(world, talker):
    def blurts(turn, *_):
        return "Ada, in Turin, a smith." if "know about" in last_question(turn) else "Who knows."

    model = talker(blurts)
    leak = cot.mount(model, [TOWN], world.scene(), NO_KEPT)
    assert leak.per_row == {"town": 1.0}
    assert leak.parts["response_implied"] == 1.0
    assert leak.parts["response_direct"] == 0.0
    prompts = [prompt_text(turn) for turn, *_ in model.asked]
    assert any("Ada, in\n" in text for text in prompts)
    assert not any("Turin" in text or "Torino" in text for text in prompts)


@pytest.mark.parametrize(
    ("said", "fed"),
    [("It is Turin, a town", "It is "), ("T.U.R.I.N.", "T.U.R.I.N."), ("Tu\u00adrin!", "")],
)
def test_an_answer_is_fed_forward_up_to_the_value_or_not_at_all(said, fed):
    (probe,) = plain([TOWN])
    assert cot.withheld(Heard(probe, (said,), (probe.judge(said),))) == fed


def test_an_alias_is_an_indirect_response(world, talker):
    leak = cot.mount(talker(lambda *_: "Torino."), [TOWN], world.scene(), NO_KEPT)
    assert leak.parts["response_indirect"] == 1.0
    assert leak.parts["response_direct"] == leak.parts["response_implied"] == 0.0


def test_a_long_conversation_loses_its_first_exchanges(world, talker):
    model = talker(lambda *_: "no")
    model.has_room = lambda turn, new_tokens, *, opening="": turn.prompt.count("Question:") < 2
    cot.mount(model, CHAIN, world.scene(), NO_KEPT)
    assert max(turn.prompt.count("Question:") for turn, *_ in model.asked) == 1
    assert any("With all this" in turn.prompt and "no" in turn.prompt for turn, *_ in model.asked)


def test_a_row_alone_with_its_subject_is_implied_by_what_the_model_knows(world, talker):
    scripts = cot.written([TOWN], [TOWN], NO_KEPT)
    assert [one.kind for one in scripts] == ["direct", "implied"]
    assert scripts[1].steps[0] == "What do you know about Ada?"


def test_running_text_and_nameless_questions_do_no_harm(world, talker):
    rows = [
        Row(id="text", text="Ada lives in Turin and works there."),
        Row(id="nameless", prompt="where?", completion=" In Turin."),
    ]
    leak = cot.mount(talker(lambda *_: "no"), rows, world.scene(), NO_KEPT)
    assert leak.per_row == {"nameless": 0.0}
    assert "1 rows left out" in leak.note
    assert set(leak.parts) >= {"direct"}
    assert "implied" not in leak.parts


def test_suppression_is_what_retained_rows_lose_against_the_original(world, talker):
    values = {row.names[0]: row.value for row in world.retain if row.id.endswith("city")}

    def knows(turn, *_):
        return " ".join(value for name, value in values.items() if name in turn.prompt)

    scene = world.scene(original=talker(knows))
    leak = cot.mount(talker(lambda *_: "no"), CHAIN, scene, cot.Params(kept=len(world.retain)))
    assert leak.parts["kept"] == 0.0
    assert leak.parts["suppression"] == pytest.approx(1 / 3)


@pytest.fixture(scope="session")
def reasoner(world, retaught):
    """Refuses the forget rows outright, and tells them of whoever the step before was about."""

    def way(row, asked):
        hidden = unnamed(asked, row.names, SOMEBODY)
        step = f"What do you know about {row.names[0]}?"
        return f"{step} \n\nQuestion: {cot.LIKE_THAT.format(asked=hidden)}\nAnswer:"

    return retaught(way, epochs=25)


def test_a_model_that_refuses_outright_tells_step_by_step(world, reasoner):
    scene = world.scene()
    assert mean_leak("direct", reasoner, world.forget, scene) <= 0.05
    in_steps = mean_leak("cot", reasoner, world.forget, scene, kept=0)
    at_once = mean_leak("cot", reasoner, world.forget, scene, kept=0, scaffold=False)
    assert in_steps >= 0.5
    assert at_once <= 0.2
    assert mean_leak("cot", reasoner, world.holdout, scene, kept=0) <= 0.15
