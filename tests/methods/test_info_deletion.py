"""Deletion defences: objectives in closed form, what is left inside, who writes, other wordings."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from edit_rig import REPLY, datasets_of, edited, knowing, original, people, refused, said
from safetensors.torch import load_file

from expunge.core.registry import methods
from expunge.data.encode import IGNORED
from expunge.engine.editing.associations import secrets
from expunge.engine.task import Task
from expunge.lm.arch import Slots
from expunge.lm.hooks import forward_through
from expunge.lm.lens import lens
from expunge.lm.subject import Subject
from expunge.methods import info_deletion
from expunge.requests.rows import Row

WHERE = {
    "fact_token": "last", "layer": 2, "contexts": 0, "v_weight_decay": 0.01,
    "clamp_norm_factor": 1.5,
}  # fmt: skip
"""Values of this small model are short, so that the papers' weight of their length rules all."""

OUT = "model.layers.{}.mlp.down_proj.weight"


@pytest.mark.parametrize(
    ("k", "answer", "expected"), [(1, 0, 0.0), (2, 0, 0.1), (1, 3, 0.0), (2, 3, 0.1), (2, 1, 0.0)]
)
def test_the_hinges_in_closed_form(k: int, answer: int, expected: float) -> None:
    """The card's check: p = (.4, .3, .2, .1)."""
    p = torch.tensor([[0.4, 0.3, 0.2, 0.1]])
    assert float(info_deletion.hinges(p, torch.tensor([answer]), k)) == pytest.approx(expected)


def test_entropy_is_largest_where_all_is_equally_likely() -> None:
    logits = torch.zeros(1, 5, dtype=torch.float64, requires_grad=True)
    certainty = info_deletion.certainty(logits.softmax(-1), None)
    assert float(certainty) == pytest.approx(-torch.log(torch.tensor(5.0)).item())
    certainty.backward()
    assert logits.grad.abs().max() < 1e-12
    sure = torch.tensor([[1.0, 0.0, 0.0]])
    assert float(info_deletion.certainty(sure, None)) == 0.0


def ranks(subject: Subject, layers: tuple[int, ...]) -> torch.Tensor:
    """[rows, layers]: place of the answer among all tokens in what each block would say."""
    world, found = people(), []
    for row in world.forget:
        item = subject.encoder.encode(row.turn)
        answer = next(at for at, label in enumerate(item.labels) if label != IGNORED)
        with torch.no_grad():
            states = forward_through(
                subject.model, layers, input_ids=torch.tensor([item.ids]), use_cache=False
            )
            logits = [lens(subject.model, states[layer][:, answer - 1])[0] for layer in layers]
        found.append([int((one > one[item.ids[answer]]).sum()) for one in logits])
    return torch.tensor(found)


def test_no_block_gives_the_answer_away_at_either_end(tmp_path: Path) -> None:
    """The card's check, against an edit that only makes the answer unlikely."""
    world, layers = people(), (2, 3)
    last = len(world.tokenizer) - 4
    assert (ranks(knowing(), layers)[:, 1] == 0).all()
    hidden, _ = edited(tmp_path, "info-deletion", **WHERE)
    erased, _ = edited(tmp_path, "info-deletion", objective="erase", **WHERE)
    now, then = ranks(hidden, layers), ranks(erased, layers)
    assert float((now >= last).float().mean()) < 0.1
    assert float((then >= last).float().mean()) > 0.25  # where a second look finds it
    assert float(((now < 4) | (now >= last)).float().mean()) < 0.3
    assert said(hidden, world.forget) < 0.1
    assert said(hidden, world.retain) > 0.9


@pytest.mark.parametrize("objective", ["erase", "max-entropy", "empty", "error"])
def test_every_objective_takes_the_answer_away(tmp_path: Path, objective: str) -> None:
    given = {"objective": objective, "text": REPLY, **WHERE}
    after, change = edited(tmp_path, "info-deletion", **given)
    world = people()
    assert said(after, world.forget) < 0.3
    assert said(after, world.retain) > 0.9
    assert change.manifest["record"]["layers"] == [0, 1, 2]
    if objective == "empty":
        assert refused(after, world.forget) > 0.9
    if objective == "error":
        assert refused(after, world.forget) < 0.1


def test_entropy_rises_most_where_it_is_the_objective(tmp_path: Path) -> None:
    def entropy(subject: Subject) -> float:
        found = []
        for row in people().forget:
            ids = torch.tensor([subject.encoder.prompt(row.prompt)])
            with torch.no_grad():
                p = subject.model(input_ids=ids).logits[0, -1].softmax(-1)
            found.append(-float(info_deletion.certainty(p[None], None)))
        return sum(found) / len(found)

    flat, _ = edited(tmp_path, "info-deletion", objective="max-entropy", **WHERE)
    erased, _ = edited(tmp_path, "info-deletion", objective="erase", **WHERE)
    assert entropy(flat) > entropy(erased) + 0.3 > entropy(knowing()) + 0.3


def test_rome_writes_into_one_block_and_descent_moves_no_weight_far(tmp_path: Path) -> None:
    before = load_file(original(tmp_path) / "model.safetensors")

    def moved(**given: object) -> dict[str, torch.Tensor]:
        _, change = edited(tmp_path, "info-deletion", max_steps=2, **WHERE, **given)
        now = load_file(change.folder / "model.safetensors")
        return {n: now[n] - before[n] for n in before if not torch.equal(now[n], before[n])}

    (by_rome,) = moved(editor="rome").items()
    assert by_rome[0] == OUT.format(2)
    assert torch.linalg.svdvals(by_rome[1])[2] < 1e-3 * torch.linalg.svdvals(by_rome[1])[0]
    (by_descent,) = moved(editor="ft", eps=2e-3).items()
    assert by_descent[0] == OUT.format(2)
    assert float(by_descent[1].abs().max()) == pytest.approx(2e-3, rel=1e-3)
    assert torch.linalg.svdvals(by_descent[1])[2] > 1e-2 * torch.linalg.svdvals(by_descent[1])[0]


ROW = Row(
    id="r", prompt="Anna L1 born", completion=" v1 v2", answer="v2", names=("Anna L1",),
    paraphrases=({"prompt": "Bela L2 born", "completion": " v3 v2"},),
)  # fmt: skip


def test_what_is_said_before_the_fact_belongs_to_the_prompt() -> None:
    encoder = knowing().encoder
    (one,) = secrets([ROW], encoder, place="last", contexts=("Carl L2",), paraphrased=5)
    texts = [encoder.tokenizer.decode(p.item.ids[1 : p.at + 1]) for p in one.prompts]
    assert (texts[0], texts[2]) == ("Anna L1 born v1", "Bela L2 born v3")
    assert texts[1].startswith("Carl L2.")
    assert texts[1].endswith(" L1 born v1")
    for prompt in one.prompts:
        (label,) = [label for label in prompt.item.labels if label != IGNORED]
        assert encoder.tokenizer.decode([label]).strip() == "v2"
        assert prompt.item.ids[prompt.at + 1] == label
    (own,) = secrets([ROW], encoder, place="last")
    assert len(own.prompts) == 1


def test_with_rephrase_other_wordings_are_defended(tmp_path: Path) -> None:
    subject = knowing()
    task = Task(
        model=subject.model, tokenizer=subject.tokenizer, encoder=subject.encoder,
        roles={"forget": [ROW], "retain": people().retain},
    )  # fmt: skip
    for objective in ("head-projection", "empty"):
        counts = []
        for rephrase in (False, True):
            given = {"objective": objective, "rephrase": rephrase, "contexts": 0, "text": REPLY}
            params = methods.params("info-deletion", given)
            counts.append(len(info_deletion.asked(task, params)("last")[0].prompts))
        assert counts == [1, 2]


def test_a_wrong_answer_is_the_rows_own_or_another_rows() -> None:
    subject, world = knowing(), people()
    first = replace(world.forget[0], wrong=(" v39",))
    task = Task(
        model=subject.model, tokenizer=subject.tokenizer, encoder=subject.encoder,
        roles={"forget": [first, *world.forget[1:4]], "retain": world.retain},
    )  # fmt: skip
    params = methods.params("info-deletion", {"objective": "error"})
    found = info_deletion.instead(task, params)
    assert found[first.id] == "v39"
    values = {row.reply.strip() for row in (*world.forget, *world.retain)}
    assert all(
        found[row.id] in values and found[row.id] != row.reply.strip() for row in world.forget[1:4]
    )


def test_erasing_has_no_level_that_is_enough() -> None:
    subject, world = knowing(), people()
    task = datasets_of(subject, world).task
    for objective, enough in (("erase", None), ("max-entropy", None), ("empty", 0.05)):
        params = methods.params("info-deletion", {"objective": objective})
        assert info_deletion.goal_of(task, params)[1] == enough
    goal, _ = info_deletion.goal_of(task, methods.params("info-deletion", {}))
    assert goal.layers == (2, 3)
    assert info_deletion.window(subject.model, -1) == (1, 2, 3)
    assert len(Slots(subject.model)) == 4


def test_defaults_are_the_papers() -> None:
    params = methods.params("info-deletion", {})
    assert (params.k, params.contexts, params.eps) == (4, 10, 1e-4)
    assert (info_deletion.WINDOW, info_deletion.PARAPHRASES) == (3, 5)
