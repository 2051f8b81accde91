import torch

from expunge.lm.continuations import continuations, most_probable
from expunge.lm.subject import Subject
from expunge.requests.rows import Turn
from expunge.testing.tiny import tiny_model, tiny_tokenizer

NOTHING = Turn("", "", running=True)


def subject(**more):
    tokenizer = tiny_tokenizer(["a b c d e f"])
    return Subject(tiny_model("llama", vocab=len(tokenizer), positions=32), tokenizer, **more)


def drawn(model, turns=(NOTHING,), **more):
    settings = {"samples": 3, "new_tokens": 6, "top_k": 5, "seed": 0, **more}
    return continuations(model, turns, **settings)


def test_the_seed_decides_and_no_other_random_state() -> None:
    state = torch.get_rng_state()
    one = drawn(subject())
    assert one == drawn(subject()) != drawn(subject(), seed=1)
    assert torch.equal(state, torch.get_rng_state())


def test_every_turn_has_its_samples_and_they_differ() -> None:
    found = drawn(subject(), [NOTHING, Turn("a b", "")], samples=4)
    assert [len(own) for own in found] == [4, 4]
    assert len(set(found[0])) > 1
    assert drawn(subject(), ()) == []


def test_from_the_most_probable_token_alone_it_is_greedy() -> None:
    model = subject()
    turn = Turn("a b", "")
    (greedy,) = model.ask([turn], new_tokens=6)
    assert drawn(model, [turn], top_k=1)[0] == greedy * 3
    opened = model.ask([turn], new_tokens=6, openings=[" c"])[0]
    assert drawn(model, [turn], top_k=1, openings=[" c"])[0] == opened * 3


def test_no_more_tokens_than_positions(monkeypatch) -> None:
    asked = []

    def write(*_, new_tokens, **__):
        asked.append(new_tokens)
        return [[4]] * 3

    monkeypatch.setattr("expunge.lm.continuations.generate_together", write)
    drawn(subject(), new_tokens=500)
    drawn(subject(), new_tokens=5)
    assert asked == [31, 5]


def test_a_gate_has_its_say() -> None:
    class Gate:
        def before(self, turn):
            return "no" if turn.prompt else None

        def after(self, turn, text):
            return "seen"

    found = drawn(subject(gate=Gate()), [NOTHING, Turn("a", "")])
    assert found == [["seen"] * 3, ["no"] * 3]


def test_all_but_the_most_probable_tokens_are_impossible() -> None:
    logp = torch.tensor([[[0.1, 3.0, 2.0, -1.0]]])
    assert most_probable(logp, 2).tolist() == [[-torch.inf, 3.0, 2.0, -torch.inf]]
    assert torch.equal(most_probable(logp, 0), logp[0])
    assert torch.equal(most_probable(logp, 9), logp[0])
