"""Prompt attacks against a filter that looks for names, and against a model that says nothing."""

import pytest

from expunge.testing.attacks import mean_leak

REFUSAL = "I cannot tell you that."
BLIND = ("lang", "alias", "typo")
"""Attacks that do not say the name as it is stored."""
ALL = (*BLIND, "manyshot", "incontext", "chain", "rephrase")


def spoken(turn):
    return turn.prompt if isinstance(turn.prompt, str) else str(turn.prompt)


@pytest.fixture
def filtered(world, talker):
    """Refuses if and only if the name of a subject stands in the prompt, letter by letter."""
    names = {name for row in world.forget for name in row.names}
    values = "; ".join(row.value for row in world.forget)
    return talker(
        lambda turn, *_: REFUSAL if any(name in spoken(turn) for name in names) else values
    )


@pytest.mark.parametrize("attack_id", BLIND)
def test_a_filter_of_names_holds_against_the_question_and_not_against_its_evasions(
    world, filtered, attack_id
):
    assert mean_leak("direct", filtered, world.forget, world.scene()) == 0.0
    assert mean_leak(attack_id, filtered, world.forget, world.scene()) == 1.0


@pytest.mark.parametrize("attack_id", ALL)
def test_a_model_that_always_refuses_leaks_nothing(world, talker, attack_id):
    silent = talker(lambda *_: REFUSAL)
    assert mean_leak(attack_id, silent, world.forget, world.scene()) == 0.0
    assert mean_leak("direct", silent, world.forget, world.scene()) == 0.0
