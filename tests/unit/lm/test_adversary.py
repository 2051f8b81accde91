"""Vectors behind a question: where they go, what they do, and what they leave alone."""

from dataclasses import replace

import pytest
import torch

from expunge.lm.adversary import (
    Seam,
    aligned,
    found,
    hear,
    mean_nll,
    no_vectors,
    seam_of,
    slope,
    spread,
    target_nll,
)
from expunge.lm.elicit import Heard, Probe, elicit, plain
from expunge.lm.hooks import evaluating, intervene
from expunge.lm.prompted import prompt_ids
from expunge.lm.subject import Subject
from expunge.requests.rows import Row, Turn
from expunge.testing.tiny import tiny_model, tiny_tokenizer


@pytest.fixture
def subject(family, loud, tokenizer):
    return Subject(loud(family, vocab=len(tokenizer)), tokenizer)


@pytest.fixture(scope="module")
def llama(loud, tokenizer):
    return Subject(loud("llama", vocab=len(tokenizer)), tokenizer)


def lessons(people, opening=" In"):
    return [replace(probe, opening=opening) for probe in plain(people)]


def vectors_of(subject, text):
    ids = subject.tokenizer(text, add_special_tokens=False)["input_ids"]
    return subject.model.get_input_embeddings()(torch.tensor(ids)).detach()


@pytest.mark.parametrize(("chat", "said"), [(False, "text"), (True, "text"), (True, "messages")])
def test_a_seam_is_the_end_of_what_the_user_says(people, chat, said):
    texts = [f"{row.prompt}{row.completion}" for row in people]
    tokenizer = tiny_tokenizer(texts, chat=chat, vocab=400)
    subject = Subject(tiny_model("llama", vocab=400), tokenizer)
    opening = "In" if chat else " In"  # the template of the tests ends with a space
    for row in people:
        message = ({"role": "user", "content": row.prompt},)
        prompt = message if said == "messages" else row.prompt
        probe = Probe(row, Turn(prompt, row.completion), opening, "")
        seam = seam_of(subject, probe)
        assert [*seam.before, *seam.after, *seam.target] == prompt_ids(subject, probe)
        assert tokenizer.decode(seam.before).endswith(probe.row.prompt)
        assert tokenizer.decode(seam.target) == " In"
        assert tokenizer.decode(seam.after) == ("\n[assistant]" if chat else "")


def test_without_vectors_the_target_is_as_likely_as_scoring_says(subject, people):
    probes = lessons(people)
    with evaluating(subject.model):
        found_nll = target_nll(
            subject.model, [seam_of(subject, probe) for probe in probes], no_vectors(subject.model)
        )
    scored = subject.score([replace(probe.turn, completion=" In") for probe in probes])
    for nll, score in zip(found_nll, scored, strict=True):
        assert nll.tolist() == pytest.approx((-score.logp[: score.text_tokens]).tolist(), abs=1e-3)


def test_vectors_of_words_do_what_the_words_do(subject, people):
    words = " Mr live"
    probes = plain(people)
    asked = [replace(p, turn=replace(p.turn, prompt=f"{p.turn.prompt}{words}")) for p in probes]
    heard = hear(subject, probes, vectors_of(subject, words), new_tokens=8)
    assert [one.outputs for one in heard] == [
        one.outputs for one in elicit(subject, asked, new_tokens=8)
    ]


def test_without_vectors_the_answers_are_those_of_the_plain_question(subject, people):
    nothing = no_vectors(subject.model)
    heard = hear(subject, plain(people), nothing, new_tokens=8)
    assert heard == elicit(subject, plain(people), new_tokens=8)


def test_other_rows_of_a_batch_change_nothing(llama, people):
    seams = [seam_of(llama, probe) for probe in lessons(people)]
    vectors = torch.randn(len(seams), 3, 32, generator=torch.Generator().manual_seed(0))
    with evaluating(llama.model):
        together = target_nll(llama.model, seams, vectors)
        for at, seam in enumerate(seams):
            (alone,) = target_nll(llama.model, [seam], vectors[at])
            assert together[at].tolist() == pytest.approx(alone.tolist(), abs=1e-4)


def test_the_slope_is_the_slope_of_the_mean_whatever_the_batches(loud, tokenizer, people):
    subject = Subject(loud("llama", vocab=len(tokenizer), dtype=torch.float64), tokenizer)
    seams = [seam_of(subject, probe) for probe in lessons(people[:5])]
    here = torch.randn(2, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def loss(some, vectors):
        return mean_nll(subject.model, some, vectors)

    value, gradient = slope(subject.model, loss, seams, here, 2)
    whole, same = slope(subject.model, loss, seams, here, 5)
    assert value == pytest.approx(whole)
    assert torch.allclose(gradient, same)
    nudge = 1e-3 * gradient / gradient.norm()  # norms are computed in 32 bits
    with evaluating(subject.model):
        up, down = (float(loss(seams, here + sign * nudge)) for sign in (1, -1))
    assert (up - down) / 2e-3 == pytest.approx(float(gradient.norm()), rel=1e-3)


def test_no_weight_gets_a_gradient_and_every_flag_stays(llama, people):
    weights = list(llama.model.parameters())
    weights[0].requires_grad_(False)
    flags = [weight.requires_grad for weight in weights]
    llama.model.train()
    seams = [seam_of(llama, probe) for probe in lessons(people[:3])]
    slope(llama.model, lambda some, v: mean_nll(llama.model, some, v), seams, torch.ones(2, 32), 2)
    assert [weight.requires_grad for weight in weights] == flags
    assert all(weight.grad is None for weight in weights)
    assert llama.model.training
    llama.model.eval()
    weights[0].requires_grad_(True)


def test_a_gate_sees_the_question_and_the_answer(loud, tokenizer, people):
    class Gate:
        def before(self, turn):
            return "no" if turn.prompt == people[0].prompt else None

        def after(self, turn, text):
            return f"<{text}>"

    model = loud("llama", vocab=len(tokenizer))
    probes, nothing = plain(people[:2]), no_vectors(model)
    guarded = hear(Subject(model, tokenizer, gate=Gate()), probes, nothing, new_tokens=4)
    bare = hear(Subject(model, tokenizer), probes, nothing, new_tokens=4)
    assert [one.outputs for one in guarded] == [("no",), (f"<{bare[1].outputs[0]}>",)]


def test_a_question_without_positions_for_the_vectors_is_left_out(tokenizer, people):
    subject = Subject(tiny_model("llama", vocab=len(tokenizer), positions=40), tokenizer)
    kept = hear(subject, plain(people[:2]), torch.zeros(4, 32), new_tokens=4)
    assert len(kept) == 2
    assert not hear(subject, plain(people[:2]), torch.zeros(40, 32), new_tokens=4)


def test_a_delta_stands_at_the_end_of_each_prompt():
    delta = torch.tensor([[1.0], [2.0]])
    hidden = torch.zeros(3, 4, 1)
    edited = aligned(delta, [4, 2, 1])(hidden)[..., 0]
    assert edited.tolist() == [[0, 0, 1, 2], [1, 2, 0, 0], [2, 0, 0, 0]]


def test_what_is_changed_while_reading_is_not_changed_while_writing(llama, people):
    calls = []

    def edit(hidden):
        calls.append(hidden.shape[1])
        return hidden

    hear(
        llama,
        plain(people),
        no_vectors(llama.model),
        new_tokens=6,
        reading=lambda model: intervene(model, 0, edit),
    )
    assert len(calls) == 1
    assert calls[0] == max(seam_of(llama, probe).length() for probe in plain(people))


def test_of_each_row_the_better_of_question_and_attack_counts():
    first, second = (Row.parse({"id": name, "prompt": "q", "completion": " V"}) for name in "ab")

    def one(row, output, leak):
        return Heard(Probe(row, row.turn, "", " V"), (output,), (leak,))

    asked = [one(first, "V", 1.0), one(second, "no", 0.0)]
    attacked = [one(first, "hm", 0.0), one(second, "V", 1.0)]
    fields = found(asked, attacked)
    assert fields["per_row"] == {"a": 1.0, "b": 1.0}
    assert fields["parts"] == {"plain": 0.5, "attacked": 0.5}
    assert [entry["output"] for entry in fields["transcript"]] == ["V", "V"]


@pytest.mark.parametrize(("family", "scale"), [("llama", 1.0), ("gemma3", 32**0.5)])
def test_the_spread_is_of_what_enters_the_model(family, scale):
    model = tiny_model(family, vocab=200)
    table = model.get_input_embeddings().weight.detach()
    assert spread(model) == pytest.approx(scale * float(table.std()), rel=1e-4)


def test_a_seam_counts_what_is_put_in():
    assert Seam((1, 2), (3,), (4, 5)).length(20) == 23
