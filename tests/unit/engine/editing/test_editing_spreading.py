"""Several blocks: each closes its share, the last one all that is left, also behind a norm."""

import pytest
import torch
from torch import Tensor

from expunge.engine.datasets import Datasets
from expunge.engine.editing import spreading
from expunge.engine.editing.associations import associations
from expunge.engine.editing.locating import Plan
from expunge.engine.editing.spreading import behind_norm, spread
from expunge.engine.editing.values import Search, values_at, wanted
from expunge.engine.task import Task
from expunge.lm.arch import Slots
from expunge.lm.subject import Subject
from expunge.testing import tiny_model
from expunge.testing.methods import world

SEARCH = Search(2, "block", steps=10, lr=0.5, weight_decay=0.0, kl_factor=0.0, clamp=0.75)


def rig(family: str, rows: int = 3) -> tuple[Subject, Plan]:
    tokenizer = world().tokenizer
    model = tiny_model(family, vocab=len(tokenizer), hidden=32, layers=3, positions=128)
    subject = Subject(model, tokenizer)
    task = Task(
        model=model, tokenizer=tokenizer, encoder=subject.encoder,
        roles={"forget": world().forget, "retain": world().retain},
    )  # fmt: skip
    few = world().forget[:rows]
    asked = associations(few, {row.id: "I" for row in few}, subject.encoder, place="last")
    return subject, Plan(asked, SEARCH, Datasets(task))


def exactly(layer: int, keys: Tensor, missing: Tensor) -> Tensor:
    """The smallest change that gives every key what it lacks."""
    return torch.linalg.lstsq(keys, missing, driver="gelsd").solution.T


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "qwen3", "gemma3"])
def test_every_block_closes_its_share(family: str) -> None:
    subject, plan = rig(family)
    model, bare = subject.model, [one.bare for one in plan.asked]
    values = wanted(model, plan.datasets, plan.asked, SEARCH).values
    start = values_at(model, plan.datasets, bare, 2, "block")
    left = []

    def solve(layer: int, keys: Tensor, missing: Tensor) -> Tensor:
        now = values_at(model, plan.datasets, bare, 2, "block")
        left.append(float((values - now).norm() / (values - start).norm()))
        return exactly(layer, keys, missing)

    spread(model, plan, [0, 1, 2], solve)
    now = values_at(model, plan.datasets, bare, 2, "block")
    left.append(float((values - now).norm() / (values - start).norm()))
    assert left[0] == pytest.approx(1.0)
    assert left[1] < 0.95
    assert left[2] < 0.75
    assert left[3] < (0.35 if family == "gemma3" else 0.02)  # a norm gives no length of its own


def test_what_is_missing_is_shared_among_the_blocks_that_are_left() -> None:
    subject, plan = rig("llama")
    bare = [one.bare for one in plan.asked]
    values = wanted(subject.model, plan.datasets, plan.asked, SEARCH).values
    now = values_at(subject.model, plan.datasets, bare, 2, "block")
    seen = []

    def solve(layer: int, keys: Tensor, missing: Tensor) -> Tensor:
        seen.append((layer, missing))
        return torch.zeros(missing.shape[1], keys.shape[1], dtype=torch.float64)

    spread(subject.model, plan, [1, 2], solve)
    assert [layer for layer, _ in seen] == [1, 2]
    torch.testing.assert_close(seen[0][1], ((values - now) / 2).double(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(seen[1][1], (values - now).double(), rtol=1e-4, atol=1e-5)


def test_behind_a_norm_the_direction_is_exact() -> None:
    model = tiny_model("gemma3", hidden=32)
    norm = Slots(model).mlp_norm(0)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        norm.weight.copy_(torch.rand(32, generator=draw))
        out, change = (torch.randn(4, 32, generator=draw) for _ in range(2))
        wanted_there = norm(out) + 0.1 * change
        found = norm(out + behind_norm(model, 0, out, 0.1 * change))
    cosine = torch.nn.functional.cosine_similarity(found, wanted_there, dim=-1)
    torch.testing.assert_close(cosine, torch.ones(4), rtol=0, atol=1e-5)
    assert ((found - wanted_there).norm(dim=1) < 0.5 * (wanted_there - norm(out)).norm(dim=1)).all()


def test_without_a_norm_nothing_is_changed() -> None:
    model = tiny_model("llama", hidden=32)
    change = torch.randn(2, 32)
    assert behind_norm(model, 0, torch.randn(2, 32), change) is change


def test_prompts_that_look_the_same_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    subject, plan = rig("llama", rows=1)
    said: list[str] = []
    monkeypatch.setattr(spreading, "note", lambda text, **_: said.append(text))
    spread(subject.model, plan, [2], exactly)
    assert not said
    twice = Plan([*plan.asked, *plan.asked], plan.search, plan.datasets)
    spread(subject.model, twice, [2], exactly)
    assert said[0].startswith("1 pairs of prompts look the same")
