"""Known to unknown: its loss by hand, its prompts and names, the linear probe before and after.

The world is that of `edit_rig`: eight people to be forgotten, sixteen to be kept, and eight of whom
the model says that they are unknown.
"""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import torch
from edit_rig import knowing, original, people, refused, said, task_of
from hidden_views import Held, held_view

from expunge.core.errors import ExpungeError
from expunge.core.events import listening
from expunge.core.registry import methods
from expunge.data.encode import Encoder, collate
from expunge.engine.change import load_change, revert
from expunge.engine.check import check_forget
from expunge.engine.datasets import Datasets
from expunge.engine.forward import Inputs
from expunge.engine.run import forget
from expunge.engine.sources import Live
from expunge.engine.step import Step
from expunge.engine.task import Task
from expunge.engine.view import View
from expunge.lm.digest import folder_digest
from expunge.lm.load import load
from expunge.lm.sae import Autoencoder
from expunge.lm.subject import Subject
from expunge.methods import sae_unknown
from expunge.methods.sae_unknown import entities, recognition
from expunge.methods.sae_unknown.recognition import Probe, Recognition, entity_places, probe
from expunge.requests.rows import Row
from expunge.testing import objective, tiny_model, tiny_tokenizer

QUICK = {"sae_steps": 150, "warmup": 0, "lr": 4e-3, "layer": 1, "features": 128}


def settings(**given: Any) -> Any:
    return methods.params("sae-unknown", given)


def with_all(**roles: Any) -> Task:
    """A task with hold-out rows."""
    task = task_of(knowing(), people())
    return replace(task, roles={**task.roles, "holdout": people().holdout, **roles})


def two(**more: Any) -> Recognition:
    """Two latents that are two channels; known at (3, 1), unknown at (1, 1): D = 4."""
    one, zero = torch.eye(2), torch.zeros(2)
    coder = Autoencoder(one, zero, one, zero, **{"activation": "relu", **more})
    return Recognition(coder, torch.tensor([3.0, 1.0]), torch.tensor([1.0, 1.0]))


def test_the_closed_forms_of_the_card() -> None:
    """At m_K the pull is 1 and the push margin + 1; at m_N nothing, for margins up to 1."""
    found = two()
    at_known, at_unknown = found.known[None], found.unknown[None]
    assert found.loss(at_known, 0.5, 0.0).item() == pytest.approx(1.0)
    assert found.loss(at_known, 0.5, 1.0).item() == pytest.approx(1 + 1.5)
    assert found.loss(at_known, 0.25, 2.0).item() == pytest.approx(1 + 2 * 1.25)
    for margin in (0.0, 0.5, 1.0):
        assert found.loss(at_unknown, margin, 1.0).item() == 0.0
    assert found.loss(at_unknown, 1.5, 1.0).item() == pytest.approx(0.5)
    between = torch.tensor([[2.0, 2.0]])  # 2 / 4 from both, and as far from either
    assert found.loss(between, 0.5, 3.0).item() == pytest.approx(0.5 + 3 * 0.5)


def test_latents_below_a_threshold_or_outdone_still_get_a_gradient() -> None:
    """The card's trap: top-k and JumpReLU have no slope where they are off."""
    jump = two(activation="jumprelu", threshold=torch.tensor([5.0, 5.0]))
    state = torch.tensor([[2.0, 0.5]], requires_grad=True)
    loss = jump.loss(state, 0.5, 0.0)
    assert loss.item() == pytest.approx((1 + 1) / 4)  # the code is 0
    loss.backward()
    assert state.grad.tolist() == [[-0.5, -0.5]]
    one, zero = torch.eye(3), torch.zeros(3)
    topk = Autoencoder(one, zero, one, zero, 1)
    known = torch.tensor([[4.0, 1.0, 0.0], [4.0, 1.2, 0.0]])
    found = recognition.told_apart(topk, known, known * 0.5, 3)
    assert found.known.tolist() == pytest.approx([4.0, 1.1])  # ReLU before the largest are chosen
    state = torch.tensor([[4.0, 1.0, 0.0]], requires_grad=True)
    found.loss(state, 0.5, 0.0).sum().backward()
    assert (state.grad[0, :2] > 0).all()


def test_the_latents_that_tell_best_are_chosen() -> None:
    """By the difference of means in standard deviations: not by the difference."""
    one, zero = torch.eye(4), torch.zeros(4)
    coder = Autoencoder(one, zero, one, zero, activation="relu")
    known = torch.tensor([[9.0, 2.0, 3.0, 1.0], [1.0, 2.2, 3.2, 1.0]])
    unknown = torch.tensor([[1.0, 1.0, 3.0, 1.0], [3.0, 1.2, 3.2, 1.0]])
    found = recognition.told_apart(coder, known, unknown, 1)
    assert found.coder.encoder.tolist() == [[0.0, 1.0, 0.0, 0.0]]
    assert (found.known.item(), found.unknown.item()) == pytest.approx((2.1, 1.1))
    both = recognition.told_apart(coder, known, unknown, 9)
    assert both.coder.encoder.argmax(1).tolist() == [1, 0]  # the others tell nothing
    assert torch.equal(Recognition.of(both.kept()).known, both.known)
    assert Recognition.of({}) is None


def test_the_term_looks_at_the_last_token_of_the_name_alone() -> None:
    """Rows of other lengths in one batch, padded on either side."""
    draw = torch.Generator().manual_seed(0)
    states = torch.randn(2, 6, 4, generator=draw)
    for side, begins, ends in (("right", (0, 0), (6, 4)), ("left", (0, 2), (6, 6))):
        mask, labels = torch.zeros(2, 6, dtype=torch.long), torch.full((2, 6), -100)
        for row, (first, last) in enumerate(zip(begins, ends, strict=True)):
            mask[row, first:last] = 1
            labels[row, first + 3 : last] = 7  # the name ends at the third token
        ids = torch.zeros(2, 6, dtype=torch.long)
        now = Held({0: states})
        view = held_view(now, tensors={"input_ids": ids, "attention_mask": mask, "labels": labels})
        assert entity_places(view).nonzero().tolist() == [[0, 2], [1, 2 + begins[1]]], side
        step = Step({"target": view}, state={sae_unknown.LAYER: 0})
        loss = sae_unknown.forget(step, settings())
        loss.value.backward()
        assert float(loss.den) == 2
        assert torch.equal(now.states[0].grad.abs().sum(-1) > 0, entity_places(view)), side


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gemma3", "qwen3"])
def test_a_batch_gives_what_single_rows_give(family: str) -> None:
    names = ["Ada Lovelace", "Bo", "Miriam van der Berg"]
    tokenizer = tiny_tokenizer([*entities.OWN, *names], kind="bpe", vocab=400)
    model = tiny_model(family, vocab=len(tokenizer), hidden=16, layers=2)
    task = replace(
        task_of(knowing(), people()), model=model, tokenizer=tokenizer,
        encoder=Encoder(tokenizer, 200),
    )  # fmt: skip
    turns = [entities.told(text, name) for name in names for text in entities.OWN[:3]]
    batch = recognition.entity_states(task, turns, 1)
    for turn, state in zip(turns, batch, strict=True):
        (alone,) = recognition.entity_states(task, [turn], 1)
        torch.testing.assert_close(state, alone, rtol=1e-4, atol=1e-5)
        item = task.encoder.encode(turn)
        at = task.encoder.last_token_of(turn, str(turn.prompt))
        with torch.no_grad():
            whole = View(
                Inputs.from_labels(
                    *(getattr(collate([item], 0), n) for n in
                      ("input_ids", "attention_mask", "labels", "rows"))
                ), Live(model),
            ).hidden(1)[0]  # fmt: skip
        torch.testing.assert_close(whole[at], alone, rtol=1e-4, atol=1e-5)


def test_a_name_is_cut_into_the_same_tokens_in_every_template(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The card's trap: without a space before it, or joined to what follows, it is another word."""
    names = ("Anna L0", "Bela L1")
    texts = ["They asked Anna L0 now", "Bela L1 was", "about Anna L0", "about Bela L1"]
    tokenizer = tiny_tokenizer([*texts, *entities.OWN], kind="bpe", vocab=330)
    encoder = Encoder(tokenizer, 200)
    first = entities.cut(encoder, "{} was born", "Anna L0")
    after = entities.cut(encoder, "They asked {} now", "Anna L0")
    assert first != after
    assert tokenizer.decode(after) == " Anna L0"
    assert entities.cut(encoder, "xx{}", "Anna L0") is not None
    task = replace(task_of(knowing(), people()), tokenizer=tokenizer, encoder=encoder)
    kept = entities._templates(task, settings(), names)
    assert {entities.cut(encoder, text, names[0]) for text in kept} == {
        entities.cut(encoder, kept[0], names[0])
    }
    file = tmp_path / "templates.jsonl"
    lines = ["They asked {} now", "What of {} then", "{} was born", "no name", "Ask {} or {} now"]
    file.write_text("\n".join(json.dumps({"text": text}) for text in lines))
    with pytest.raises(ExpungeError, match="E-DATA-003"):
        entities._templates(task, settings(templates=str(file)), names)
    monkeypatch.setattr(entities, "FEWEST", 2)
    assert entities._templates(task, settings(templates=str(file)), names) == lines[:2]


def test_prompts_of_rows_give_templates_and_other_ones_are_judged_by() -> None:
    who = entities.entities_of(with_all(), settings())
    assert set(who.training) | set(who.judging) == {
        f"{{}} {what}" for what in ("born", "works", "likes", "drives")
    }
    assert who.training
    assert who.judging
    assert not set(who.training) & set(who.judging)
    assert set(who.all_targets) == {row.names[0] for row in people().forget}
    assert set(who.known) == {row.names[0] for row in people().retain}
    assert not set(who.trained) & set(who.judged)
    assert len(who.judged) == 4


def test_unknown_are_hold_out_rows_that_the_model_does_not_answer() -> None:
    who = entities.entities_of(with_all(), settings())
    assert set(who.unknown) == {row.names[0] for row in people().holdout}
    moved = tuple(people().holdout) + tuple(people().retain[:8])
    task = with_all(holdout=moved, retain=people().retain[8:])
    again = entities.entities_of(task, settings())
    assert set(again.unknown) == set(who.unknown)  # two of these it does know


def test_invented_names_are_drawn_alike_and_tried_on_the_model() -> None:
    drawn = [entities.entities_of(task_of(knowing(), people()), settings()).unknown for _ in "ab"]
    other = replace(task_of(knowing(), people()), seed=1)
    assert drawn[0] == drawn[1] != entities.entities_of(other, settings()).unknown
    everybody = " ".join(row.names[0] for part in people()[:3] for row in part).lower()
    for name in drawn[0]:
        assert len(name.split()) == 2
        assert not set(name.lower().split()) & set(everybody.split())


def test_names_the_model_is_sure_about_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of(knowing(), people())
    taken = ["Anna L0", "Bela L1", "Carl L2"]

    def sureness(_: Any, names: Any, questions: Any) -> list[float]:
        return [-1.0] * len(taken) + [-0.5 if at % 2 else -3.0 for at in range(len(names) - 3)]

    monkeypatch.setattr(entities, "_sureness", sureness)
    made = entities._invented(task, taken)
    assert entities._unknown(task, settings(), taken, ["{} born"]) == made[::2]
    assert task.record["invented_names_refused"] == 3
    monkeypatch.setattr(entities, "_sureness", lambda _, names, __: [-1.0] * len(names))
    heard: list[str] = []
    with listening(lambda event: heard.append(event.text)):
        entities._unknown(task, settings(), taken, ["{} born"])
    assert "as sure" in heard[0]


def test_a_refusal_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of(knowing(), people())
    monkeypatch.setattr(Subject, "ask", lambda *_, **__: [["I do not know that."], ["v3"]])
    found = entities._sureness(task, ["Anna L0"], ["{} born", "{} works"])
    assert found[0] < -49


def test_a_probe_tells_two_kinds_apart() -> None:
    draw = torch.Generator().manual_seed(0)
    shift = torch.tensor([2.0, 0.0, 0.0])
    known, unknown = (torch.randn(60, 3, generator=draw) + s * shift for s in (1, -1))
    fitted = probe(known, unknown[:20])
    assert fitted(known).mean() > 0.8 > 0.2 > fitted(unknown).mean()
    again = Probe.of(fitted.kept())
    assert again(known).tolist() == fitted(known).tolist()
    assert fitted(torch.zeros(1, 3))[0] == pytest.approx(0.5, abs=0.2)  # both kinds weigh the same


def test_known_names_are_kept_in_distribution_and_in_state() -> None:
    """KL of retain rows and templates as one mean; the states at names beside it."""
    model, anchor = (tiny_model("llama", vocab=32, hidden=32, seed=seed) for seed in (0, 1))
    draw = torch.Generator().manual_seed(0)
    views = {}
    for name, rows in (("forget", 2), ("target", 2), ("known", 3), ("retain", 2)):
        ids = torch.randint(3, 30, (rows, 7), generator=draw)
        labels = ids.clone()
        labels[:, :4] = -100
        views[name] = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    shared = {"layer": 1, "state": {sae_unknown.LAYER: 1}}
    whole = objective("sae-unknown", model, views, anchor, **shared)
    alone = {
        name: objective(
            "sae-unknown", model, {**without(views), "retain": views[name]}, anchor, **shared
        )
        for name in ("known", "retain")
    }
    pooled = (3 * alone["known"].terms["retain"] + 2 * alone["retain"].terms["retain"]) / 5
    assert whole.terms["retain"] == pytest.approx(pooled, rel=1e-5)
    more = objective("sae-unknown", model, views, anchor, beta=3.0, **shared)
    assert more.terms["states"] == pytest.approx(3 * whole.terms["states"], rel=1e-5)
    none = objective("sae-unknown", model, views, anchor, beta=0.0, **shared)
    assert whole.loss - none.loss == pytest.approx(whole.terms["states"], rel=1e-4)


def without(views: dict) -> dict:
    return {name: view for name, view in views.items() if name in ("forget", "target")}


def test_templates_stand_beside_the_rows_they_belong_to() -> None:
    task = with_all()
    sae_unknown.prepare(task, settings(**{**QUICK, "sae_steps": 5}))
    who = entities.entities_of(task, settings())
    target, known = task.paired["target"], task.paired["known"]
    for row in people().forget[:5]:
        turns = [target.make(row, 0, at) for at in range(target.count)]
        assert {str(turn.prompt) for turn in turns} == {row.names[0]}
        assert {f"{{}}{turn.completion}" for turn in turns} == set(who.training)
    shown = {str(known.make(people().retain[0], 0, at).prompt) for at in range(known.count)}
    assert shown == set(who.trained)
    assert json.loads(json.dumps(task.state)) is not None
    assert Datasets(task).knows("target")


@cache
def folder() -> Path:
    return Path(mkdtemp())


@cache
def made(adapter: str | None = None, **more: Any) -> tuple[Subject, dict]:
    """What the method makes of the model, and its manifest; made once."""
    out = folder() / f"out {len(list(folder().iterdir()))}"
    world = people()
    forget(
        original(folder()), world.forget, world.retain, holdout=world.holdout,
        method="sae-unknown", params={**QUICK, **more}, adapter=adapter, stop_at="none", out=out,
    )  # fmt: skip
    loaded = load(out)
    return Subject(loaded.model, loaded.tokenizer), {**load_change(out).manifest, "at": out}


def test_targets_are_unknown_to_a_probe_and_the_known_stay_known() -> None:
    """The card's check, in templates that were not trained on; recall falls with it."""
    subject, manifest = made()
    record = manifest["record"]
    assert record["target_known_before"] > 0.9
    assert record["target_known_after"] < 0.5
    assert record["known_still_known"] >= 0.9
    assert said(subject, people().forget) <= 0.6
    assert refused(subject, people().forget) > refused(knowing(), people().forget) + 0.2
    assert said(subject, people().retain) >= 0.95


@pytest.mark.slow
def test_so_the_probe_says_with_another_seed() -> None:
    """Measured: .89 before, .10 after, 1.0. The answers survive in this world: .94."""
    out, world = folder() / "seed 1", people(1)
    forget(
        original(folder(), 1), world.forget, world.retain, holdout=world.holdout, seed=1, out=out,
        method="sae-unknown", stop_at="none",
        params={"warmup": 0, "lr": 4e-3, "layer": 1, "features": 128, "batch_size": 16},
    )  # fmt: skip
    record = load_change(out).manifest["record"]
    assert record["target_known_before"] > 0.8
    assert record["target_known_after"] < 0.5
    assert record["known_still_known"] >= 0.9


def test_without_the_terms_that_move_them_targets_stay_known() -> None:
    """Ablation: no latents that tell, or none of the push; the weights differ as well."""
    whole, _ = made()
    still, manifest = made(forget_weight=0.0, max_steps=40)
    assert manifest["record"]["target_known_after"] > 0.9
    assert said(still, people().forget) == 1.0
    pulled, other = made(eta=0.0)
    assert other["record"]["target_known_after"] < 0.5
    name = "model.layers.1.mlp.down_proj.weight"
    weights = [dict(one.model.named_parameters())[name] for one in (whole, pulled)]
    assert not torch.equal(*weights)


def test_only_matrices_up_to_the_block_move() -> None:
    subject, manifest = made()
    before = dict(knowing().model.named_parameters())
    after = dict(subject.model.named_parameters())
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"model.layers.{at}.mlp.down_proj.weight" for at in (0, 1)}
    revert(manifest["at"])
    assert folder_digest(manifest["at"]) == folder_digest(original(folder()))
    made.cache_clear()


def test_an_adapter_moves_them_as_well() -> None:
    _, manifest = made(adapter="lora", max_steps=120)
    assert manifest["record"]["target_known_after"] < 0.5
    assert manifest["record"]["known_still_known"] >= 0.9


def test_rows_without_names_are_refused_before_weights_load(tmp_path: Path) -> None:
    rows = [Row(id="a", prompt="born?", completion=" v1")]
    report = check_forget(
        original(folder()), rows, people().retain, method="sae-unknown", out=tmp_path / "out",
        stop_at="none",
    )  # fmt: skip
    assert [problem.code for problem in report.problems] == ["E-DATA-003"]
    assert "'a'" in str(report.problems[0])
    task = with_all(retain=(Row(id="b", text="nothing here has any name"),))
    with pytest.raises(ExpungeError, match="E-USE-007"):
        entities.entities_of(task, settings())
    with pytest.raises(ExpungeError, match="E-DATA-001"):
        settings(known="nowhere.jsonl")


def test_defaults_are_the_card_s() -> None:
    params = settings()
    assert (params.features, params.eta, params.margin, params.beta) == (64, 1.0, 0.5, 1.0)
    assert (params.retain_weight, params.retain_term, params.max_steps) == (1.0, "kl", 200)
