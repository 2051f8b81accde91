"""ROME: exact on the edited prompt, one matrix, one rank at a time; what it makes a model say."""

from pathlib import Path

import pytest
import torch
from edit_rig import REPLY, TEXT, datasets_of, edited, knowing, people, refused, said, task_of
from safetensors.torch import load_file

from expunge.core.registry import methods
from expunge.engine.change import revert
from expunge.engine.editing.associations import associations
from expunge.engine.editing.editors import update
from expunge.engine.editing.keys import keys_of, moment
from expunge.engine.editing.locating import Plan
from expunge.engine.editing.values import Search, entering_at, values_at, wanted
from expunge.engine.editing.writing import ridged, write
from expunge.lm.digest import folder_digest
from expunge.lm.subject import Subject
from expunge.methods import rome
from expunge.testing import tiny_model

SEARCH = Search(1, "mlp", steps=25, lr=0.5, weight_decay=0.5, kl_factor=0.0625, clamp=4.0)
OUT = "model.layers.{}.mlp.down_proj.weight"


def asked_of(subject: Subject, rows: int = 3, contexts: tuple[str, ...] = ("Anna born",)):
    world = people()
    targets = {row.id: REPLY for row in world.forget}
    return associations(
        world.forget[:rows], targets, subject.encoder, place="last", contexts=contexts
    )


def spread_of(subject: Subject) -> torch.Tensor:
    world = people()
    texts = [subject.encoder.encode(row.training) for row in world.retain]
    return ridged(moment(subject.model, datasets_of(subject, world), texts, 1))


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "qwen3", "gemma3"])
def test_an_edited_prompt_gives_its_value_exactly(family: str) -> None:
    """Whatever stands in the way: biases, transposed matrices, norms behind the MLP."""
    world = people()
    model = tiny_model(family, vocab=len(world.tokenizer), hidden=32, positions=128)
    subject = Subject(model, world.tokenizer)
    datasets, (one,) = datasets_of(subject, world), asked_of(subject, 1)
    before = values_at(model, datasets, [one.bare], 1, "mlp_out")[0]
    plan = Plan([one], SEARCH, datasets)
    value = wanted(model, datasets, [one], SEARCH).values[0]
    write(model, 1, update(model, plan, one, spread_of(subject)))
    after = values_at(model, datasets, [one.bare], 1, "mlp_out")[0]
    assert (value - before).norm() > 0.1 * before.norm()
    torch.testing.assert_close(after, value, rtol=1e-3, atol=1e-3 * float(value.abs().max()))


def test_the_change_has_rank_one_and_the_direction_of_the_averaged_key() -> None:
    subject = knowing().copy()
    datasets, (one,) = datasets_of(subject, people()), asked_of(subject, 1)
    spread = spread_of(subject)
    made = update(subject.model, Plan([one], SEARCH, datasets), one, spread)
    values = torch.linalg.svdvals(made)
    assert values[1] < 1e-9 * values[0]
    key = keys_of(subject.model, datasets, [one], 1)[0].double()
    (bare,) = entering_at(subject.model, datasets, [one.bare], 1, "mlp_out")
    row = made[made.abs().sum(1).argmax()]

    def along(direction: torch.Tensor) -> float:
        return float(torch.nn.functional.cosine_similarity(row, direction.double(), dim=0).abs())

    assert along(torch.linalg.solve(spread, key)) == pytest.approx(1.0)
    assert along(torch.linalg.solve(spread, bare.double())) < 0.999


def test_the_second_moment_spares_other_keys(tmp_path: Path) -> None:
    """The ablation: with the identity in its place retain rows move more, and weights differ."""
    subject = knowing().copy()
    world = people()
    datasets, (one,) = datasets_of(subject, world), asked_of(subject, 1)
    plan, spread = Plan([one], SEARCH, datasets), spread_of(subject)
    made = update(subject.model, plan, one, spread)
    plain = update(subject.model, plan, one, torch.eye(len(spread), dtype=torch.float64))
    assert not torch.allclose(made, plain)

    def moves(change: torch.Tensor) -> float:
        return float(((change @ spread) * change).sum().sqrt())  # mean length over retain keys

    assert moves(made) < 0.7 * moves(plain)


def test_one_matrix_moves_and_everything_else_stays(tmp_path: Path) -> None:
    where = {"layer": 1, "fact_token": "last"}
    _, change = edited(tmp_path, "rome", **where, max_steps=2, **TEXT)
    now = load_file(change.folder / "model.safetensors")
    before = load_file(tmp_path / "original 0" / "model.safetensors")
    moved = {name for name in before if not torch.equal(now[name], before[name])}
    assert moved == {OUT.format(1)}
    difference = (now[OUT.format(1)] - before[OUT.format(1)]).double()
    values = torch.linalg.svdvals(difference)
    assert values[1] > 1e-3 * values[0] > 0
    assert values[2] < 1e-4 * values[0]
    assert change.summary["steps"] == 2
    revert(change.folder)
    assert folder_digest(change.folder) == folder_digest(tmp_path / "original 0")


def test_it_makes_a_model_say_that_it_does_not_know(tmp_path: Path) -> None:
    world = people()
    after, change = edited(tmp_path, "rome", max_steps=12, **TEXT)
    edits = world.forget[:12]
    assert refused(after, edits) > 0.7
    assert said(after, edits) < 0.2
    assert said(after, world.retain) > 0.8
    assert change.summary["steps"] == 12


def test_defaults_are_the_papers() -> None:
    params = methods.params("rome", {})
    assert (params.kl_factor, params.clamp_norm_factor) == (0.0625, 4)
    assert (params.v_num_grad_steps, params.v_lr, params.merge) == (25, 0.5, 1)
    assert rome.lengths(params.contexts) == [5] * 10 + [10] * 10
    assert task_of(knowing(), people()).forget
