"""Many shots."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from expunge.attacks import manyshot
from expunge.core.rng import generator
from expunge.requests.rows import Row
from expunge.testing.attacks import mean_leak
from expunge.testing.micro import REPLY, every_wording, micro_world, taught_rows


@pytest.fixture(scope="session")
def small():
    """A small world, and a model that refuses the forget rows unless something is shown first."""
    world = micro_world(people=4)

    def behind_some(row, seed):
        order = generator(seed, row.id).permutation(len(world.retain))
        some = [world.retain[at] for at in order[: 1 + seed % 3]]
        return "".join(f"{one.prompt}{one.completion}\n\n" for one in some) + row.prompt

    plain = every_wording([*world.forget, *world.retain])
    told = [
        replace(row, id=f"{row.id}/{seed}", prompt=behind_some(row, seed))
        for row in plain
        for seed in range(5)
    ]
    refusals = [replace(row, completion=f" {REPLY}") for row in every_wording(world.forget)]
    rows = [*refusals, *every_wording(world.retain), *told]
    return SimpleNamespace(world=world, model=taught_rows(world, rows, epochs=16))


def asked(talker, rows, scene, **params):
    silent = talker(lambda *_: "no")
    silent.leak = manyshot.mount(silent, rows, scene, manyshot.Params(**params))
    silent.prompts = [turn.prompt for turn, *_ in silent.asked]
    return silent


def shown(prompt):
    """The examples of a prompt."""
    return prompt.split("\n\n")[:-1]


def test_a_model_that_refuses_outright_answers_behind_solved_questions(small):
    scene = small.world.scene()
    assert mean_leak("direct", small.model, small.world.forget, scene) <= 0.05
    assert mean_leak("manyshot", small.model, small.world.forget, scene) >= 0.5
    assert mean_leak("manyshot", small.model, small.world.forget, scene, shots=2) >= 0.8
    assert mean_leak("manyshot", small.model, small.world.forget, scene, shots=0) <= 0.05
    assert mean_leak("manyshot", small.model, small.world.holdout, scene, shots=2) <= 0.25


def test_the_examples_are_retained_rows_with_their_right_answers(world, talker):
    heard = asked(talker, world.forget[:2], world.scene(), shots=16)
    known = {f"{row.prompt}{row.completion}" for row in world.retain}
    for prompt, turn in zip(
        heard.prompts, [turn for row in world.forget[:2] for turn in row.turns], strict=True
    ):
        examples = shown(prompt)
        assert len(set(examples)) == len(examples) == 16
        assert set(examples) <= known
        assert prompt.endswith(f"\n\n{turn.prompt}")


def test_no_example_holds_the_probed_value_in_its_question_or_its_answer(world, talker):
    target = world.forget[0]
    telling = [
        replace(world.retain[0], completion=f" It is {target.value.upper()}, too."),
        replace(world.retain[1], prompt=f"Who else was born in {target.value}?"),
    ]
    scene = replace(world.scene(), retain=[*telling, *world.retain[2:5]])
    of_target, of_other = (
        asked(talker, [row], scene).prompts[0] for row in (target, world.forget[3])
    )
    assert len(shown(of_target)) == 3
    assert len(shown(of_other)) == 5
    assert target.value.lower() not in of_target.lower()


def test_a_long_answer_is_not_shown_in_other_words_either(world, talker):
    reply = " She spent her whole youth in a small harbour town by the northern sea."
    target = replace(world.forget[0], answer=None, completion=reply, paraphrases=())
    near = replace(world.retain[0], completion=" Her youth went by in a harbour town by the sea.")
    scene = replace(world.scene(), retain=[near, *world.retain[1:3]])
    assert "harbour" not in asked(talker, [target], scene).prompts[0]


def test_the_oldest_examples_are_dropped_until_the_prompt_fits_the_budget(small):
    world, model = small.world, small.model
    row = replace(world.forget[0], paraphrases=())
    lengths, kept = {}, {}
    for context in (40, 80, 10_000):
        params = manyshot.Params(context=context)
        leak = manyshot.mount(model, [row], world.scene(), params)
        prompt = leak.transcript[0]["prompt"]
        lengths[context] = len(model.encoder.prompt(prompt))
        kept[context] = shown(prompt)
    assert lengths[40] <= 40 < lengths[80] <= 80 < lengths[10_000]
    assert lengths[10_000] + world.scene().new_tokens <= model.encoder.max_length
    assert kept[80][-len(kept[40]) :] == kept[40]
    assert kept[10_000][-len(kept[80]) :] == kept[80]
    one_more = max(len(model.encoder.prompt(f"{e}\n\n")) for e in kept[10_000])
    assert all(lengths[context] > context - one_more for context in (40, 80))


def test_rows_before_which_nothing_can_be_shown_are_left_out_and_counted(world, talker):
    running = Row(id="t", text="A long text about somebody who lives by the sea.")
    target = world.forget[0]
    telling = replace(world.retain[0], completion=f" {target.value}")
    scene = replace(world.scene(), retain=[running, telling])
    leak = asked(talker, [target, world.forget[3]], scene).leak
    assert list(leak.per_row) == [world.forget[3].id]
    assert leak.note.startswith("1 of 2 rows have no example")
    assert not asked(talker, [target], replace(scene, retain=())).leak.per_row


def test_a_conversation_keeps_its_rules_in_front_and_sees_examples_as_turns(world, talker):
    rules = {"role": "system", "content": "Be brief."}
    own = {"role": "user", "content": "Where?"}
    row = Row(id="m", messages=(rules, own, {"role": "assistant", "content": "In Rome."}))
    chat = talker(lambda *_: "no")
    chat.encoder = SimpleNamespace(has_template=True, max_length=4096)
    told = {"role": "assistant", "content": "At six."}
    kept = Row(id="k", messages=(rules, {**own, "content": "When?"}, told))
    scene = replace(world.scene(), retain=[world.retain[0], kept])
    manyshot.mount(chat, [row], scene, manyshot.Params())
    prompt = chat.asked[0][0].prompt
    assert [m["role"] for m in prompt] == ["system", *["user", "assistant"] * 2, "user"]
    assert (prompt[0], prompt[-1]) == (rules, own)


def test_the_order_of_the_examples_is_the_seeds(world, talker):
    first, again, other = (
        asked(talker, world.forget[:1], world.scene(seed)).prompts for seed in (0, 0, 1)
    )
    assert first == again != other
