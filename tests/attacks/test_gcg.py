"""GCG."""

from dataclasses import replace
from itertools import product

import pytest
import torch

from expunge.attacks import gcg
from expunge.core.errors import ExpungeError
from expunge.lm.adversary import seam_of, target_nll
from expunge.lm.dialogue import asked
from expunge.lm.hooks import evaluating
from expunge.lm.openings import prepare
from expunge.lm.subject import Scene, Subject
from expunge.lm.suffix import Spelling, questions
from expunge.requests.rows import Row
from expunge.testing.attacks import mean_leak
from expunge.testing.locked import KEY, locked
from expunge.testing.tiny import tiny_model, tiny_tokenizer

SMALL = {"length": 4, "steps": 10, "width": 64}
TRYING_ALL = {"length": 1, "steps": 1, "exhaustive": True}


def test_a_suffix_found_on_some_questions_opens_others(world):
    subject, secret = locked().subject, locked().secret
    scene = world.scene()
    assert mean_leak("direct", subject, secret, scene) <= 0.05
    assert mean_leak("gcg", subject, secret, scene, **SMALL) >= 0.5
    assert mean_leak("gcg", subject, secret, scene, **{**SMALL, "steps": 0}) <= 0.05


def test_facts_that_were_never_taught_do_not_come_out(world):
    assert mean_leak("gcg", locked().subject, locked().unknown, world.scene(), **SMALL) <= 0.1


def test_trying_all_words_finds_the_key_and_sends_it_as_text(world):
    leak = gcg.mount(locked().subject, locked().secret, world.scene(), gcg.Params(**TRYING_ALL))
    assert leak.parts["attacked"] >= 0.9
    assert leak.parts["sent"] == 1.0
    assert all(entry["prompt"].endswith(KEY) for entry in leak.transcript if entry["leak"])


def test_trying_all_suffixes_of_one_token_is_brute_force():
    """Two layers, fifty tokens, five training questions; the losses are computed one by one."""
    words = [a + b for a, b in product("bdfgklmn", "aeiou")]
    rows = [
        Row.parse({"id": w, "prompt": f"say {w}?", "completion": f" it is {w}.", "answer": w})
        for w in words[:9]
    ]
    texts = [f"{row.prompt}{row.completion}" for row in rows] + [f" {' '.join(words)}"]
    tokenizer = tiny_tokenizer(texts, kind="word", vocab=50)
    model = tiny_model("llama", vocab=50, layers=2, seed=5, positions=64)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(6 if weight.ndim > 1 else 1)
    subject = Subject(model, tokenizer)
    scene = Scene(retain=(), neighbour=(), seed=0, new_tokens=6)
    leak = gcg.mount(subject, rows, scene, gcg.Params(**TRYING_ALL))
    campaign = prepare(subject, rows, scene, openings="own", share=0.2, least=5, longer=1)
    lessons = questions(campaign, 8, 0)
    spelling = Spelling(subject, [asked(lesson.turn) for lesson in lessons])
    losses = {}
    with evaluating(model):
        for (token,) in spelling.sendable([[token] for token in spelling.tokens]):
            vector = model.get_input_embeddings()(torch.tensor([token]))
            each = [
                float(target_nll(model, [seam_of(subject, one)], vector)[0].mean())
                for one in lessons
            ]
            losses[token] = sum(each) / len(each)
    assert len(losses) > 40
    best = min(losses, key=losses.__getitem__)
    assert leak.parts["loss_last"] == pytest.approx(losses[best], abs=1e-5)
    assert leak.transcript[0]["prompt"].endswith(("?", tokenizer.decode([best])))


def test_more_steps_never_make_the_best_loss_worse(world):
    def last(steps):
        params = gcg.Params(length=2, steps=steps, width=16)
        return gcg.mount(locked().subject, locked().secret, world.scene(), params).parts

    losses = [last(steps)["loss_last"] for steps in (0, 1, 3, 6)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]
    assert last(0)["loss_first"] == losses[0]


def test_a_value_that_stands_in_the_suffix_is_no_leak(world):
    """With the key as an alias of its answer, a row is told by the refusal, not by the suffix."""

    def best(aliases):
        first, *others = locked().secret
        rows = [replace(first, aliases=aliases), *others]
        leak = gcg.mount(locked().subject, rows, world.scene(), gcg.Params(**TRYING_ALL))
        return next(entry["prompt"] for entry in leak.transcript if entry["id"] == first.id)

    assert best(()).endswith(KEY)
    assert not best((KEY.strip(),)).endswith(KEY)


def test_an_answer_as_target_is_refused(world):
    params = gcg.Params(openings=f"It is {locked().secret[0].value}", **SMALL)
    with pytest.raises(ExpungeError, match="holds the answer") as caught:
        gcg.mount(locked().subject, locked().secret, world.scene(), params)
    assert caught.value.code == "E-USE-003"
