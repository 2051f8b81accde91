"""ReVa: where the vector comes from, what is pushed onto it, its start, what it is not."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edit_rig import REPLY, knowing, original, people, said, task_of
from hidden_views import Held, held_view

from expunge.core.registry import methods
from expunge.data.encode import Encoder
from expunge.engine import steering
from expunge.engine.run import forget
from expunge.engine.step import Step
from expunge.lm.hooks import forward_to
from expunge.lm.load import load
from expunge.lm.subject import Subject
from expunge.methods import reva, rmu
from expunge.requests.rows import Turn
from expunge.testing import tiny_tokenizer


def settings(**given: Any) -> Any:
    return methods.params("reva", given)


def pushed(progress: float, vector: torch.Tensor | None, **params: Any) -> tuple[float, dict]:
    now = Held({0: torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])})
    tensors = {} if vector is None else {reva.VECTOR: vector}
    step = Step({"forget": held_view(now)}, progress=progress, tensors=tensors, state={})
    loss = reva.forget(step, settings(layer=0, include_bos=True, **params))
    return loss.value.item(), step.state


def test_activations_are_pushed_onto_the_vector_as_it_is() -> None:
    """Neither normalised nor stretched to a steering length; c is a plain factor."""
    vector = torch.tensor([3.0, 4.0])
    loss, state = pushed(0.0, vector)
    assert loss == pytest.approx(((1 - 3) ** 2 + 16 + 9 + (1 - 4) ** 2) / 4)
    assert state[reva.AIMED]
    assert pushed(0.0, vector, scale=0.5)[0] == pytest.approx((0.25 + 4 + 2.25 + 1) / 4)


def test_with_rmus_vector_it_is_rmu() -> None:
    """The card's check: c u for the refusal vector gives the same loss."""
    states = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    unit = steering.direction(0, "", 8)
    losses = []
    for method, more, tensors in (
        (rmu, {"steering": 6.5}, {}), (reva, {}, {reva.VECTOR: 6.5 * unit})
    ):  # fmt: skip
        view = held_view(Held({0: states.clone()}))
        params = methods.params(method.CARD["id"], {"layer": 0, **more})
        losses.append(
            method.forget(Step({"forget": view}, tensors=tensors, state={}), params).value
        )
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-6)


def test_a_model_that_is_not_randomised_is_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steering, "direction", lambda *_: torch.tensor([0.6, 0.8]))
    vector, rmu = torch.tensor([3.0, 4.0]), 1.10  # the closed form of rmu at c = 2
    given = {"start": "rmu", "steering": 2.0, "start_share": 0.5}
    assert pushed(0.49, vector, **given) == (pytest.approx(rmu, abs=1e-6), {})
    assert pushed(0.9, None, **given) == (pytest.approx(rmu, abs=1e-6), {})
    loss, state = pushed(0.5, vector, **given)
    assert loss == pytest.approx(38 / 4)
    assert state[reva.AIMED]


def test_the_vector_is_the_mean_at_the_last_token_of_twenty_questions() -> None:
    subject = knowing()
    task = task_of(subject, people())
    found = reva.refusal_vector(task, settings(layer=2))
    assert len(reva.UNKNOWN) == len(set(reva.UNKNOWN)) == 20
    states = []
    for question in reva.UNKNOWN:
        ids = torch.tensor([reva.asked(subject.encoder, question)])
        with torch.no_grad():
            states.append(forward_to(subject.model, 2, input_ids=ids)[0, -1])
    torch.testing.assert_close(found, torch.stack(states).mean(0), rtol=1e-5, atol=1e-6)


def test_questions_stand_behind_the_instruction_where_there_is_room() -> None:
    question = reva.UNKNOWN[0]
    texts = [reva.HONEST, *reva.UNKNOWN, "Question: Answer: [system] [user] [assistant]"]
    for chat in (False, True):
        tokenizer = tiny_tokenizer(texts, kind="bpe", chat=chat, vocab=600)
        asked = tokenizer.decode(reva.asked(Encoder(tokenizer, 400), question))
        assert reva.HONEST in asked
        assert question in asked
        assert asked.rstrip().endswith("[assistant]" if chat else "Answer:")
        assert ("[system]" in asked) is chat
        room = len(tokenizer(question)["input_ids"]) + 20
        short = tokenizer.decode(reva.asked(Encoder(tokenizer, room), question))
        assert question in short
        assert reva.HONEST not in short


def test_the_vector_is_read_anew_until_the_second_part_begins() -> None:
    task, params = task_of(knowing().copy(), people()), settings(start="rmu", layer=1)
    reva.prepare(task, params)
    assert reva.VECTOR not in task.tensors
    reva.refresh(task, params)
    first = task.tensors[reva.VECTOR].clone()
    with torch.no_grad():
        for parameter in task.model.parameters():
            parameter.mul_(1.5)
    reva.refresh(task, params)
    second = task.tensors[reva.VECTOR].clone()
    assert not torch.allclose(first, second)
    task.state[reva.AIMED] = True
    reva.refresh(task, params)
    assert torch.equal(task.tensors[reva.VECTOR], second)
    given = task_of(knowing(), people())
    reva.prepare(given, settings(layer=1))
    kept = given.tensors[reva.VECTOR]
    reva.refresh(given, settings(layer=1))
    assert given.tensors[reva.VECTOR] is kept


def test_a_randomised_model_comes_to_say_that_it_does_not_know(tmp_path: Path) -> None:
    """The card's check: the vector from people the model says it does not know, after rmu."""
    world = people()
    file = tmp_path / "questions.jsonl"
    lines = [{"prompt": row.prompt, "completion": " unknown"} for row in world.holdout[:20]]
    file.write_text("\n".join(map(json.dumps, lines)) + "\n")
    shared = {"layer": 2, "lr": 4e-3, "warmup": 0, "retain_weight": 30.0, "positions": "answer"}
    found = [original(tmp_path)]
    for method, more in (("rmu", {}), ("reva", {"questions": str(file)})):
        forget(
            found[-1], world.forget, world.retain, method=method, stop_at="none",
            params={**shared, "max_steps": 80, **more}, out=tmp_path / method,
        )  # fmt: skip
        found.append(tmp_path / method)
    randomised, led = (Subject(one.model, one.tokenizer) for one in map(load, found[1:]))

    def unknown(subject: Subject) -> float:
        turns = [Turn(row.prompt, f" {REPLY}") for row in world.forget]
        return sum(float(np.exp(one.logp[0])) for one in subject.score(turns)) / len(turns)

    assert unknown(led) > unknown(randomised) + 0.3
    assert said(led, world.forget) < 0.1
    assert said(led, world.retain) >= 0.95


def test_a_model_that_still_knows_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The card's trap: only its surface would learn to refuse."""
    told: list[str] = []
    monkeypatch.setattr(reva, "note", lambda text, **_: told.append(text))
    task = task_of(knowing(), people())
    reva.prepare(task, settings(start="rmu"))
    assert not told
    reva.prepare(task, settings())
    assert f"still says {len(people().forget)} of the forget answers" in told[0]


def test_defaults_are_the_papers() -> None:
    params = settings()
    assert (params.scale, params.start, params.layer) == (1.0, "given", None)
    assert reva.layer_of(params, 32) == 18
