"""Values: where they are added, the parts of the objective, when a search ends."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from expunge.engine.datasets import Datasets
from expunge.engine.editing.associations import associations
from expunge.engine.editing.values import (
    Search,
    adding,
    entering_at,
    mean_over,
    values_at,
    wanted,
)
from expunge.engine.sources import Live
from expunge.engine.task import Task
from expunge.engine.view import View
from expunge.lm.arch import Slots
from expunge.lm.hooks import forward_through
from expunge.lm.subject import Subject
from expunge.testing import tiny_model
from expunge.testing.methods import taught_subject, world

SEARCH = Search(layer=0, slot="mlp", steps=6, lr=0.1, weight_decay=0.5, kl_factor=0.0625, clamp=4.0)
ROWS = world().forget[:3]


def rig(
    subject: Subject | None = None, place: Any = "subject_last", said: str = "I do not know."
) -> Any:
    subject = subject or taught_subject()
    task = Task(
        model=subject.model, tokenizer=subject.tokenizer, encoder=subject.encoder,
        roles={"forget": world().forget, "retain": world().retain},
    )  # fmt: skip
    targets = {row.id: said for row in ROWS}
    return (
        subject.model,
        Datasets(task),
        associations(ROWS, targets, subject.encoder, place=place, contexts=("It is",)),
    )


def random_subject(family: str) -> Subject:
    tokenizer = world().tokenizer
    return Subject(tiny_model(family, vocab=len(tokenizer), hidden=32, positions=128), tokenizer)


def block_outputs(model: Any, inputs: Any) -> Any:
    given = {"input_ids": inputs.input_ids, "attention_mask": inputs.attention_mask}
    return forward_through(model, [0, 1], use_cache=False, **given)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gemma3", "qwen3"])
@pytest.mark.parametrize("slot", ["mlp", "block"])
def test_a_value_is_added_at_its_place_and_nowhere_else(family: str, slot: str) -> None:
    model, datasets, asked = rig(random_subject(family))
    prompts = [prompt for one in asked for prompt in one.prompts]
    inputs = datasets.batch([prompt.item for prompt in prompts])
    at = torch.tensor([prompt.at for prompt in prompts])
    shift = torch.randn(len(prompts), 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = block_outputs(model, inputs)[0]
        with adding(0, slot, at, lambda: shift)(model):
            moved = block_outputs(model, inputs)[0] - plain
    here = moved[torch.arange(len(at)), at]
    if slot == "block" or family != "gemma3":  # which normalises what its MLPs put out
        torch.testing.assert_close(here, shift, rtol=1e-4, atol=1e-5)
    assert here.abs().sum(1).min() > 1e-3
    moved[torch.arange(len(at)), at] = 0
    assert not moved.any()


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
def test_what_goes_in_gives_what_comes_out(family: str) -> None:
    """Keys are the inputs of the output matrix, values what it makes of them, biases included."""
    model, datasets, asked = rig(random_subject(family))
    prompts = [one.bare for one in asked]
    keys = entering_at(model, datasets, prompts, 1, "mlp_out")
    out = Slots(model).module(1, "mlp_out")
    torch.testing.assert_close(
        out(keys), values_at(model, datasets, prompts, 1, "mlp_out"), rtol=1e-5, atol=1e-6
    )
    assert keys.shape[1] != out(keys).shape[1]


def test_padding_moves_no_place() -> None:
    model, datasets, asked = rig()
    prompts = [prompt for one in asked for prompt in one.prompts]
    together = values_at(model, datasets, prompts, 1, "block")
    alone = torch.cat([values_at(model, datasets, [one], 1, "block") for one in prompts])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_the_objective_in_closed_form() -> None:
    """Against a second, slow way: one prompt at a time, the value added by a hook of its own."""
    model, datasets, asked = rig()
    one = asked[0]
    found = wanted(model, datasets, [one], replace(SEARCH, steps=3, enough=None))
    delta, before = found.values - found.before, found.before

    def logits(prompt: Any, shift: Tensor) -> Tensor:
        with torch.no_grad(), adding(0, "mlp", torch.tensor([prompt.at]), lambda: shift)(model):
            return View(datasets.batch([prompt.item]), Live(model)).logits.log_softmax(-1)

    nll = []
    for prompt in one.prompts:
        labels = torch.tensor([label for label in prompt.item.labels if label != -100])
        said = logits(prompt, delta)
        nll.append(-said[torch.arange(len(labels)), labels].mean())
    told, still = logits(one.drift, delta), logits(one.drift, 0 * delta)
    drift = (told.exp() * (told - still)).sum()  # KL(p || p0), the order of the original code
    stay = delta.norm() / before.norm() ** 2
    expected = torch.stack(nll).mean() + 0.0625 * drift + 0.5 * stay
    assert drift > 1e-4
    torch.testing.assert_close(found.loss[0], expected, rtol=1e-4, atol=1e-5)


def test_no_steps_find_the_value_that_is_there() -> None:
    model, datasets, asked = rig()
    found = wanted(model, datasets, asked, replace(SEARCH, steps=0))
    assert torch.equal(found.values, found.before)


def test_a_search_lowers_the_objective_and_leaves_the_weights() -> None:
    model, datasets, asked = rig(place="last", said="know")
    weights = [parameter.detach().clone() for parameter in model.parameters()]
    free = replace(SEARCH, layer=1, slot="block", weight_decay=0.0, clamp=50.0, steps=20)
    start = wanted(model, datasets, asked, replace(free, steps=0)).loss
    assert (wanted(model, datasets, asked, free).loss < start - 0.5).all()
    assert all(map(torch.equal, model.parameters(), weights))
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("clamp", [0.1, 0.75])
def test_additions_are_no_longer_than_allowed(clamp: float) -> None:
    model, datasets, asked = rig()
    found = wanted(model, datasets, asked, replace(SEARCH, lr=5.0, clamp=clamp, enough=None))
    share = (found.values - found.before).norm(dim=1) / found.before.norm(dim=1)
    torch.testing.assert_close(share, torch.full_like(share, clamp), rtol=1e-4, atol=0)


def test_what_is_good_enough_stays_where_it_is() -> None:
    model, datasets, asked = rig()
    path = [wanted(model, datasets, asked, replace(SEARCH, steps=n, enough=None)).loss
            for n in range(7)]  # fmt: skip
    bar = float(path[3][0]) + 1e-4
    early = wanted(model, datasets, asked, replace(SEARCH, enough=bar))
    first = next(n for n in range(7) if path[n][0] < bar)
    assert first < 6
    torch.testing.assert_close(early.loss[0], path[first][0], rtol=1e-5, atol=1e-6)
    same = wanted(model, datasets, asked, replace(SEARCH, steps=first, enough=None))
    torch.testing.assert_close(early.values[0], same.values[0], rtol=1e-5, atol=1e-6)


def test_together_and_alone_the_same_is_found() -> None:
    model, datasets, asked = rig()
    together = wanted(model, datasets, asked, SEARCH)
    for at, one in enumerate(asked):
        alone = wanted(model, datasets, [one], SEARCH)
        torch.testing.assert_close(together.values[at], alone.values[0], rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(together.loss[at], alone.loss[0], rtol=1e-3, atol=1e-4)


def test_another_goal_may_be_made_small() -> None:
    """How likely an answer is: the search turns away from it."""
    model, datasets, asked = rig(place="last", said="know")

    def away(view: View, owner: Tensor, count: int) -> Tensor:
        return mean_over(view.logp_mean, owner, count)

    none = replace(
        SEARCH, layer=1, slot="block", weight_decay=0.0, clamp=50.0, steps=20, goal=away,
        enough=None,
    )  # fmt: skip
    before = wanted(model, datasets, asked, replace(none, steps=0)).loss
    after = wanted(model, datasets, asked, none).loss
    assert (after < before - 0.1).all()
