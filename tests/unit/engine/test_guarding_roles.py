"""Who plays the roles of guards."""

import pytest

from expunge.core.errors import ExpungeError, Problems
from expunge.core.registry import guards
from expunge.engine.guarding.desk import ANY
from expunge.engine.guarding.roles import cast, needed, unplayed
from expunge.lm.subject import Subject
from expunge.testing.chats import Scripted
from expunge.testing.tiny import tiny_model, tiny_tokenizer

SOMEBODY = Scripted([])


def of(guard, decider=None, **params):
    return needed(guards.load(guard), guards.params(guard, params), decider)


@pytest.mark.parametrize(
    ("guard", "params", "roles"),
    [
        ("lexical", {}, ()),
        ("pii-fe", {}, ()),
        ("pii-fe", {"deidentify": True}, ("deidentifier",)),
        ("ipi-guard", {}, ()),
        ("ipi-guard", {"detector": "either"}, ("detector",)),
        ("ipi-guard", {"removal": "extraction"}, ("extractor",)),
        ("dragon", {}, ()),
        ("agent-mu", {}, ()),
        ("agent-mu", {"converter": "model"}, ("converter",)),
        ("rag-mu", {}, ("helper", "target")),
        ("rag-mu", {"mode": "sample"}, ()),
        ("alu", {}, ("checker", "eraser", "critic", "composer")),
    ],
)
def test_only_roles_that_nothing_stands_in_for_must_be_played(guard, params, roles):
    assert of(guard, **params) == roles


def test_typed_decisions_take_the_place_of_two_agents():
    decider = Scripted([])
    assert of("alu", decider) == ("eraser", "composer")
    assert len(of("alu", decider, faithful=True)) == 4


@pytest.mark.parametrize("guard", guards.ids())
def test_a_guard_needs_no_role_that_its_card_does_not_name(guard):
    assert set(of(guard)) <= set(guards.card(guard).extra.get("roles", ()))


def test_whoever_plays_all_plays_what_is_left():
    assert unplayed(("a", "b"), {"a": SOMEBODY}) == ["b"]
    assert unplayed(("a", "b"), {ANY: SOMEBODY}) == []


def test_all_that_nobody_plays_is_named_at_once():
    with pytest.raises(Problems) as caught:
        cast(("a", "b", "c"), {"b": SOMEBODY})
    assert [problem.code for problem in caught.value.problems] == ["E-SERVE-002"] * 2
    assert "'a'" in str(caught.value)
    assert "'c'" in str(caught.value)


def test_a_chat_model_plays_what_must_be_played_and_nothing_else():
    subject = Subject(tiny_model("llama"), tiny_tokenizer(["a b"], chat=True))
    found = cast(("a", "b"), {"b": SOMEBODY}, subject)
    assert set(found) == {"a", "b"}
    assert found["b"] is SOMEBODY
    assert cast((), {}, subject) == {}


def test_a_model_that_knows_no_conversations_plays_nothing():
    subject = Subject(tiny_model("llama"), tiny_tokenizer(["a b"]))
    with pytest.raises(ExpungeError) as caught:
        cast(("a",), {}, subject)
    assert caught.value.code == "E-SERVE-002"
