"""GRACE: what gets an entry, who is answered for, what is left alone to the bit, what is inside."""

from pathlib import Path

import pytest
import torch
from edit_rig import REPLY, datasets_of, edited, knowing, original, people, refused, said

from expunge import load
from expunge.core.errors import ExpungeError
from expunge.core.registry import methods
from expunge.engine.change import revert
from expunge.engine.editing.values import entering_at
from expunge.engine.task import Task
from expunge.lm.digest import folder_digest
from expunge.lm.load import load as load_weights
from expunge.lm.subject import Subject
from expunge.methods import grace
from expunge.methods.grace import Codebook
from expunge.requests.rows import Turn

TEXT = {"target": "text", "text": REPLY}


def keys(*places: float) -> torch.Tensor:
    return torch.tensor([[place, 0.0] for place in places])


def test_far_prompts_get_entries_of_their_own() -> None:
    entries = grace.booked(keys(0.0, 5.0), [(1,), (1,)], 1.0)
    assert [(one.prompt, one.radius) for one in entries] == [(0, 1.0), (1, 1.0)]


def test_a_near_prompt_with_the_same_target_widens_an_entry() -> None:
    entries = grace.booked(keys(0.0, 1.5, 0.5), [(1, 2), (1, 2), (1, 2)], 1.0)
    assert [(one.prompt, one.radius) for one in entries] == [(0, 1.5)]


def test_a_near_prompt_with_another_target_splits_it() -> None:
    entries = grace.booked(keys(0.0, 1.0), [(1, 2), (2, 1)], 1.0)
    assert [one.radius for one in entries] == [pytest.approx(0.5 - 1e-5), 0.5]
    assert entries[0].radius + entries[1].radius < 1.0


def test_targets_are_compared_token_by_token() -> None:
    """The card's trap: (1, 3) and (2, 2) have the same mean, (1, 2) and (2, 1) too."""
    for first, second in (((1, 3), (2, 2)), ((1, 2), (2, 1))):
        assert len(grace.booked(keys(0.0, 0.5), [first, second], 1.0)) == 2


def test_only_what_is_near_is_answered_for_and_the_rest_is_left_to_the_bit() -> None:
    book = Codebook(keys(0.0, 4.0), torch.tensor([[7.0], [8.0]]), torch.tensor([1.0, 0.5]))
    entering = torch.tensor([[[0.9, 0.0], [1.1, 0.0]], [[4.4, 0.0], [4.6, 0.0]]])
    output = torch.randn(2, 2, 1)
    found = book(None, (entering,), output)
    assert found[:, 0].flatten().tolist() == [7.0, 8.0]
    assert torch.equal(found[:, 1], output[:, 1])
    far = entering + 100
    assert book(None, (far,), output) is output
    assert Codebook(keys()[:0], torch.zeros(0, 1), torch.zeros(0))(None, (far,), output) is output


def logits(subject: Subject, text: str) -> torch.Tensor:
    with torch.no_grad():
        ids = torch.tensor([subject.encoder.prompt(text)])
        return subject.model(input_ids=ids).logits


def test_it_answers_for_forgotten_prompts_and_for_no_others(tmp_path: Path) -> None:
    world, plain = people(), knowing()
    _, change = edited(tmp_path, "grace", **TEXT)
    served = load(change.folder)
    assert refused(served, world.forget) > 0.9
    assert said(served, world.forget) < 0.1
    asked = [Turn(row.prompt, f" {REPLY}") for row in world.forget]
    reached = [one.nll < 0.1 for one in served.score(asked)]  # the card's gate
    assert sum(reached) > 0.9 * len(asked)
    for row in world.retain:
        assert torch.equal(logits(served, row.prompt), logits(plain, row.prompt))


def test_past_the_codebook_everything_is_there(tmp_path: Path) -> None:
    _, change = edited(tmp_path, "grace", **TEXT)
    bare, before = load_weights(change.folder), knowing().model.state_dict()
    assert all(torch.equal(weight, before[n]) for n, weight in bare.model.state_dict().items())
    assert said(Subject(bare.model, bare.tokenizer), people().forget) == 1.0
    revert(change.folder)
    assert folder_digest(change.folder) == folder_digest(original(tmp_path))


def test_an_entry_that_is_deleted_is_gone_to_the_bit(tmp_path: Path) -> None:
    world, plain = people(), knowing()
    _, change = edited(tmp_path, "grace", max_steps=4, **TEXT)
    served = load(change.folder)
    layer = change.manifest["record"]["layer"]
    (book,) = [
        hook for hook in served.model.model.layers[layer].mlp.down_proj._forward_hooks.values()
        if isinstance(hook, Codebook)
    ]  # fmt: skip
    first = world.forget[0]
    assert not torch.equal(logits(served, first.prompt), logits(plain, first.prompt))
    others = torch.arange(len(book.keys)) != 0
    book.keys, book.values, book.radii = (
        one[others] for one in (book.keys, book.values, book.radii)
    )
    assert torch.equal(logits(served, first.prompt), logits(plain, first.prompt))


def test_written_token_by_token_or_read_at_once_it_answers_alike(tmp_path: Path) -> None:
    world = people()
    _, change = edited(tmp_path, "grace", target="text", text=f"{REPLY} {REPLY} v1", layer=1)
    served = load(change.folder)
    for row in world.forget[:6]:
        ids = torch.tensor([served.encoder.prompt(row.prompt)])
        with torch.no_grad():
            written = served.model.generate(ids, max_new_tokens=3, do_sample=False)
            read = served.model(input_ids=written).logits.argmax(-1)
        assert torch.equal(read[0, ids.shape[1] - 1 : -1], written[0, ids.shape[1] :])


def test_rows_to_keep_tell_how_far_an_entry_reaches() -> None:
    subject, world = knowing(), people()
    datasets = datasets_of(subject, world)
    params = methods.params("grace", TEXT)
    asked = grace.prompts_of(datasets.task, params)
    own = entering_at(subject.model, datasets, [one.bare for one in asked], 2, "mlp_out")
    radius = grace.radius_of(datasets.task, datasets, own, 2, params)
    kept = Task(
        model=subject.model, tokenizer=subject.tokenizer, encoder=subject.encoder,
        roles={"forget": world.retain, "retain": ()},
    )  # fmt: skip
    others = grace.prompts_of(kept, params)
    far = entering_at(subject.model, datasets, [one.bare for one in others], 2, "mlp_out")
    assert 0 < radius <= float(torch.cdist(own, far).min()) / 2 + 1e-4
    with pytest.raises(ExpungeError, match="no rows to keep"):
        grace.radius_of(kept, datasets, own, 2, params)
    assert grace.radius_of(kept, datasets, own, 2, methods.params("grace", {"radius": 1.0})) == 1


def test_values_begin_at_random_or_at_what_is_there() -> None:
    subject, world = knowing(), people()
    datasets = datasets_of(subject, world)
    asked = grace.prompts_of(datasets.task, methods.params("grace", TEXT))[:3]
    ways = {init: methods.params("grace", {"init": init}) for init in ("cold", "warm")}
    made = {
        init: grace.start(subject.model, datasets, asked, 2, params)
        for init, params in ways.items()
    }
    assert 0 <= float(made["cold"].min()) <= float(made["cold"].max()) < 1
    with torch.no_grad():
        keys_there = entering_at(subject.model, datasets, [a.bare for a in asked], 2, "mlp_out")
        there = subject.model.model.layers[2].mlp.down_proj(keys_there)
    torch.testing.assert_close(made["warm"], there, rtol=1e-4, atol=1e-5)


def test_defaults_are_the_papers() -> None:
    params = methods.params("grace", {})
    assert (params.v_num_grad_steps, params.v_lr, params.init) == (50, 1.0, "cold")
    assert grace.layer_of(knowing().model, params) == 2
    assert grace.layer_of(knowing().model, methods.params("grace", {"layer": -1})) == 3
