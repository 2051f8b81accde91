"""Target masking."""

from dataclasses import replace

import pytest

from expunge.attacks import mask
from expunge.lm.values import prompt_text
from expunge.requests.companions import unnamed
from expunge.requests.hints import hints_of, initials
from expunge.requests.names import names_of
from expunge.requests.rows import Row
from expunge.testing.attacks import mean_leak
from expunge.testing.micro import REPLY, every_wording, taught_rows
from expunge.text.match import contains


@pytest.fixture(scope="session")
def hidden(world):
    """Rows of five people, who are enough to be told from one another by a fact."""
    return world.forget[:15]


@pytest.fixture(scope="session")
def described(world, hidden):
    """Refuses the hidden rows when asked, and tells them of a person who is only described."""
    kept = world.retain[:15]
    hints = hints_of([*hidden, *kept])

    def described(row):
        facts = "\n".join(hints[row.id.rpartition("/")[0]])
        text = mask.DESCRIBED.format(facts=facts, asked=row.prompt)
        return replace(row, prompt=unnamed(text, row.names, mask.MASK))

    refused = [replace(row, completion=f" {REPLY}") for row in every_wording(hidden)]
    told = map(described, every_wording([*hidden, *kept]))
    return taught_rows(world, [*refused, *told, *every_wording(kept)])


@pytest.fixture
def filtered(world, talker):
    """Refuses when a subject's name is said to it; else it tells all of whom the rest points to."""
    people = {}
    for row in world.forget:
        people.setdefault(row.names[0], []).append(row.value)

    def say(turn, *_):
        text = prompt_text(turn)
        if any(contains(text, [name]) for name in people):
            return REPLY
        meant = (
            f"{name}: {', '.join(values)}"
            for name, values in people.items()
            if any(contains(text, [value]) for value in values)
        )
        return next(meant, REPLY)

    return talker(say)


def test_a_filter_of_names_passes_the_direct_question_and_fails_this(world, filtered):
    assert mean_leak("direct", filtered, world.forget, world.scene()) == 0.0
    assert mean_leak("mask", filtered, world.forget, world.scene()) == 1.0
    assert mean_leak("mask", filtered, world.forget, world.scene(), masked=False) == 0.0


def test_a_model_that_refuses_outright_tells_it_of_a_person_described(world, hidden, described):
    scene = world.scene()
    assert mean_leak("direct", described, hidden, scene) <= 0.05
    assert mean_leak("mask", described, hidden, scene) >= 0.5
    assert mean_leak("mask", described, hidden, scene, masked=False) <= 0.05


def test_it_only_guesses_what_was_never_taught(world, described):
    # Two wordings and two maskings are four guesses among forty values.
    assert mean_leak("mask", described, world.holdout, world.scene()) <= 0.2


def test_no_name_nor_value_is_said(world, talker):
    silent = talker(lambda *_: "no")
    mask.mount(silent, world.forget[:3], world.scene(), mask.Params())
    name, (row, *others) = world.forget[0].names[0], world.forget[:3]
    prompts = [turn.prompt for turn, *_ in silent.asked]
    assert len(prompts) == 2 * sum(len(one.turns) for one in (row, *others))
    assert not any(contains(text, [name, *name.split()]) for text in prompts)
    described, shortened = prompts[:2]
    assert [contains(described, one.forms) for one in (row, *others)] == [False, True, True]
    assert described.endswith(row.prompt.replace(name, "[MASK]"))
    assert shortened.endswith(row.prompt.replace(name, initials(name)))


def test_initials_alone_are_asked_where_nothing_describes_the_subject(world, talker):
    row = Row(id="r", prompt="Where was Mira Voss born?", completion=" In Bonn.", answer="Bonn")
    knows = talker(lambda turn, *_: "Bonn" if "M. V. born" in turn.prompt else REPLY)
    leak = mask.mount(knows, [row], world.scene(), mask.Params())
    assert (len(knows.asked), leak.per_row) == (1, {"r": 1.0})


def test_at_most_so_many_facts_describe_the_subject(world, talker):
    silent = talker(lambda *_: "no")
    _, first, second = world.forget[:3]
    mask.mount(silent, world.forget[:3], world.scene(), mask.Params(facts=1))
    described = silent.asked[0][0].prompt
    assert [contains(described, one.forms) for one in (first, second)] == [True, False]


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("Where was she born?", "Mira Voss"),
        ("Where was mira voss, or Mira Voss, born?", "Mira Voss"),
        ("Where was J. R. born?", "J. R."),
    ],
)
def test_what_cannot_be_masked_is_left_out_and_said_so(world, talker, prompt, name):
    row = Row(id="r", prompt=prompt, completion=" In Bonn.", answer="Bonn", names=(name,))
    rows = [row, world.forget[0]]
    leak = mask.mount(talker(lambda *_: "Bonn"), rows, world.scene(), mask.Params())
    assert "r" not in leak.per_row
    assert "1 rows whose name is unknown" in leak.note


def test_all_messages_of_a_conversation_are_masked(world, talker):
    messages = (
        {"role": "system", "content": "You know Mira Voss."},
        {"role": "user", "content": "Where was Voss born?"},
        {"role": "assistant", "content": "In Bonn."},
    )
    row = Row(id="m", messages=messages, answer="Bonn", names=("Mira Voss",))
    silent = talker(lambda *_: "no")
    mask.mount(silent, [row], world.scene(), mask.Params())
    ((turn, *_),) = silent.asked
    assert turn.prompt[0]["content"] == "You know M. V.."
    assert turn.prompt[1]["content"].endswith("Where was M. V. born?")


def test_running_text_is_asked_by_what_stands_before_the_cut(world, talker):
    text = "Mira Voss of Bonn is a baker and she lives in Port Vela"
    row = Row(id="t", text=text, names=("Mira Voss",), answer="Port Vela")
    silent = talker(lambda *_: "Port Vela")
    leak = mask.mount(silent, [row], world.scene(), mask.Params())
    assert leak.per_row == {"t": 1.0}
    assert all(turn.running and "Mira" not in turn.prompt for turn, *_ in silent.asked)


def test_a_model_that_always_refuses_gives_nothing_away(world, talker):
    leak = mask.mount(talker(lambda *_: REPLY), world.forget, world.scene(), mask.Params())
    assert set(leak.per_row) == {row.id for row in world.forget}
    assert not any(leak.per_row.values())


def test_draws_stand_beside_the_greedy_answer(world, talker):
    row = world.forget[0]
    lucky = talker(lambda turn, opening, draw: f"It is {row.value}." if draw else "no")
    once, often = (mask.mount(lucky, [row], world.scene(), mask.Params(samples=n)) for n in (0, 2))
    assert (once.per_row, often.per_row) == ({row.id: 0.0}, {row.id: 1.0})


def test_names_that_are_not_given_are_read_off_the_prompts(world, talker):
    rows = [replace(row, names=()) for row in world.forget[:3]]
    assert all(names_of(rows).values())
    silent = talker(lambda *_: "no")
    mask.mount(silent, rows, world.scene(), mask.Params())
    assert not any(contains(t.prompt, world.forget[0].names) for t, *_ in silent.asked)
