"""Offset unlearning: closed forms, what moves and is compared with, how the offset is served."""

import copy
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from part_rig import check_no_weight_moves, check_the_facts_go
from tiny_rig import exact, facts, knowing, saved
from torch import Tensor, nn
from torch.nn.functional import kl_div
from transformers import AutoModelForCausalLM

import expunge
from expunge.core.errors import ExpungeError
from expunge.core.events import Event, listening
from expunge.core.registry import methods
from expunge.engine.anchors import anchor_of
from expunge.engine.assistants import ensemble_of
from expunge.engine.change import read_manifest, revert
from expunge.engine.datasets import Datasets
from expunge.engine.forward import packed_logits
from expunge.engine.gradient import StepGradient
from expunge.engine.method import GradientMethod
from expunge.engine.precision import computing
from expunge.engine.run import forget
from expunge.engine.runtime import Served, attach
from expunge.engine.task import Task
from expunge.lm.arch import Slots
from expunge.lm.digest import folder_digest
from expunge.lm.prefixes import new_cache
from expunge.methods import delta_unlearning as method
from expunge.methods.delta_unlearning.losses import LOSSES
from expunge.methods.delta_unlearning.offset import (
    AFTER,
    BEFORE,
    Offset,
    part_of,
    shared_anew,
    weights_in,
)
from expunge.requests.rows import Turn
from expunge.testing import objective, tiny_model
from expunge.testing.methods import stage, taught_subject, world

ID = "delta-unlearning"
FAMILIES = ("llama", "gemma3", "qwen3", "gpt2", "gpt_neox")


def said(after: list[float], before: list[float]) -> dict[str, Tensor]:
    return {AFTER: torch.tensor(after), BEFORE: torch.tensor(before)}


# -------------------------------------------------------------------------------- closed forms


def test_the_card_s_offset() -> None:
    big = torch.tensor([1.0, 0, 0])
    found = Offset(1.0, None)(big, said([-2, 0, 0], [0, 0, 0]))
    assert found.tolist() == [-1, 0, 0]
    assert Offset(0.5, None)(big, said([-2, 0, 0], [0, 1, 0])).tolist() == [0, -0.5, 0]
    assert Offset(1.0, None)(big, said([5, 6, 7], [5, 6, 7])).tolist() == big.tolist()
    assert Offset(0.0, None).is_silent
    assert not Offset(1.0, 1).is_silent


def test_the_gradient_of_the_sum_is_the_gradient_of_its_part() -> None:
    big, before = torch.tensor([1.0, 0, 0.3]), torch.tensor([0.2, -1, 0])
    after = torch.tensor([-2.0, 0, 1], requires_grad=True)
    mixed = Offset(1.0, None)(big, {AFTER: after, BEFORE: before})
    mixed.retain_grad()
    (-mixed.log_softmax(-1)[1]).backward()
    assert after.grad is not None
    assert mixed.grad is not None
    assert torch.equal(after.grad, mixed.grad)


@torch.no_grad()
def test_beyond_the_likeliest_tokens_nothing_changes() -> None:
    """Those that are told get the offset and share what they had; the others keep theirs."""
    big = torch.tensor([[2.0, 1, 0, -1], [0.0, 3, 1, 2]])
    heard = {AFTER: torch.tensor([[-3.0, 0, 9, 9], [9.0, -4, 9, 0]]), BEFORE: torch.zeros(2, 4)}
    p, q = (one.softmax(-1) for one in (big, Offset(1.0, 2)(big, heard)))
    torch.testing.assert_close(q[0, 2:], p[0, 2:])
    torch.testing.assert_close(q[1, [0, 2]], p[1, [0, 2]])
    torch.testing.assert_close(q.sum(-1), torch.ones(2))
    assert float(q[0, 1] / q[0, 0]) == pytest.approx(math.exp(1 - 2 + 3), rel=1e-5)
    assert float(q[1, 3] / q[1, 1]) == pytest.approx(math.exp(2 - 3 + 4), rel=1e-5)
    whole = Offset(1.0, 4)(big, heard)
    torch.testing.assert_close(whole.softmax(-1), Offset(1.0, None)(big, heard).softmax(-1))
    same = torch.tensor([0.3, -2.0, 1.0])
    torch.testing.assert_close(shared_anew(same, same), same)


def test_while_it_learns_every_token_gets_the_offset() -> None:
    big, heard = torch.tensor([2.0, 1, 0]), said([1, 1, 5], [0, 0, 0])
    assert Offset(1.0, 1)(big, heard).tolist() == [3, 2, 5]


def test_the_defaults_are_the_paper_s_and_go_by_the_loss() -> None:
    params = methods.params(ID)
    assert (params.alpha, params.top_k, params.small, params.loss) == (1.0, None, None, "npo")
    settled = {loss: methods.params(ID, {"loss": loss}) for loss in LOSSES}
    assert {loss: one.retain_term for loss, one in settled.items()} == {
        "ga": "none", "grad-diff": "nll", "kl-min": "kl", "npo": "nll", "simnpo": "nll",
        "idk-nll": "nll", "idk-dpo": "nll",
    }  # fmt: skip
    assert {loss for loss, one in settled.items() if one.beta == 4.5} == {"simnpo"}
    assert methods.params(ID, {"loss": "simnpo", "beta": 2.0}).beta == 2.0
    assert methods.params(ID, {"loss": "ga", "retain_term": "kl"}).retain_term == "kl"
    for loss, term in (("kl-min", "nll"), ("grad-diff", "none")):
        with pytest.raises(ExpungeError) as caught:
            methods.params(ID, {"loss": loss, "retain_term": term})
        assert caught.value.code == "E-USE-003"


@pytest.mark.parametrize(
    ("loss", "other", "params"),
    [
        ("ga", "ga", {}),
        ("grad-diff", "grad-diff", {}),
        ("kl-min", "kl-min", {}),
        ("npo", "npo", {}),
        ("simnpo", "simnpo", {"forget_weight": 0.125, "delta": 0.4}),
        ("idk-nll", "idk-nll", {}),
        ("idk-dpo", "idk-dpo", {}),
    ],
)
def test_a_loss_is_that_of_the_method_it_is_named_after(
    random_table, random_view, loss: str, other: str, params: dict[str, float]
) -> None:
    views = {name: random_view(at) for at, name in enumerate(("forget", "retain", "refusal"))}
    found, expected = (
        objective(id, random_table(1), views, random_table(2), **given, **params)
        for id, given in ((ID, {"loss": loss}), (other, {}))
    )
    assert found.loss == pytest.approx(expected.loss, rel=1e-6)
    assert found.terms == pytest.approx(expected.terms, rel=1e-6)


# ------------------------------------------------------------------- what moves, and against what


def prepared(family: str = "", *, copied: bool = True, **given: Any) -> SimpleNamespace:
    """The micro world's model, or a random one of a family, with small ones beside it."""
    params = methods.params(ID, {"batch_size": 4, **given})
    subject, rows = taught_subject().copy(), world()
    model = subject.model
    if family:
        model = tiny_model(family, vocab=len(subject.tokenizer), layers=4, positions=128)
    bare = copy.deepcopy(model) if copied else model
    for weight in model.parameters():
        weight.requires_grad_(False)
    task = Task(
        model=model, tokenizer=subject.tokenizer, encoder=subject.encoder,
        roles={"forget": rows.forget, "retain": rows.retain}, params=params,
    )  # fmt: skip
    method.prepare(task, params)
    ensemble = ensemble_of(model)
    assert ensemble is not None
    return SimpleNamespace(
        task=task, model=model, bare=bare, ensemble=ensemble, params=params,
        datasets=Datasets(task), method=GradientMethod.assemble(method, params),
    )  # fmt: skip


def stirred(rig: SimpleNamespace, std: float = 0.1) -> None:
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in rig.ensemble.voice(AFTER).parameters():
            weight.add_(std * torch.randn(weight.shape, generator=draw, dtype=weight.dtype))


def ids(rows: int = 3) -> Tensor:
    return torch.randint(4, 60, (rows, 8), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("family", FAMILIES)
def test_at_the_start_the_ensemble_is_the_large_model(family: str) -> None:
    """KL(ensemble || big) = 0, bit for bit, with every token and with a few."""
    for given in ({}, {"top_k": 5}):
        rig = prepared(family, **given)
        with torch.no_grad():
            own, whole = (model(input_ids=ids()).logits for model in (rig.bare, rig.model))
            stirred(rig)
            moved = rig.model(input_ids=ids()).logits
        if not given:
            assert torch.equal(own, whole)
        gap = kl_div(whole.log_softmax(-1), own.log_softmax(-1), log_target=True, reduction="sum")
        assert abs(float(gap)) < 1e-5
        assert not torch.allclose(moved, own, atol=1e-2)


@pytest.mark.parametrize("small", [False, True])
def test_the_copy_alone_moves(small: bool, tmp_path: Path) -> None:
    given: dict[str, Any] = {}
    if small:
        tiny_model("gpt2", vocab=len(world().tokenizer), layers=1, positions=128).save_pretrained(
            tmp_path
        )
        world().tokenizer.save_pretrained(tmp_path)
        given = {"small": str(tmp_path)}
    rig = prepared("llama", **given)
    moving = {name for name, p in rig.model.named_parameters() if p.requires_grad}
    own = {f"ensemble.own.{AFTER}.{n}" for n, _ in rig.ensemble.voice(AFTER).named_parameters()}
    assert moving == own
    rig.model.train()
    said_ = rig.model(input_ids=ids(), use_cache=False).logits
    said_.square().sum().backward()
    graded = {name for name, p in rig.model.named_parameters() if p.grad is not None}
    assert graded == own
    assert all(p.grad is None for p in rig.ensemble.voice(BEFORE).parameters())
    kind = "GPT2LMHeadModel" if small else "LlamaForCausalLM"
    assert type(rig.ensemble.voice(AFTER)).__name__ == kind
    shared = {id(p) for p in rig.model.parameters()}
    assert all(id(p) in shared for p in rig.ensemble.voice(BEFORE).parameters())


def test_layers_choose_what_of_the_copy_moves() -> None:
    rig = prepared("llama", blocks=3, layers=(-1,))
    moving = {name for name, p in rig.model.named_parameters() if p.requires_grad}
    own = f"ensemble.own.{AFTER}.model.layers.2."
    assert moving == {n for n, _ in rig.model.named_parameters() if n.startswith(own)}
    assert moving


def step_gradient(rig: SimpleNamespace, folder: Path, **given: Any) -> dict[str, Tensor]:
    """The engine's second gradient, after the copy was moved; the anchor is that of the start."""
    params = replace(rig.params, **given)
    made = GradientMethod.assemble(method, params)
    datasets = Datasets(rig.task, packing=params.packing)
    sampler = made.sample(rig.task, params)
    before = {n: p.detach().clone() for n, p in rig.ensemble.voice(AFTER).named_parameters()}
    rig.model.zero_grad()
    with computing(rig.model, params):
        anchor = anchor_of(
            rig.model, made, datasets, sampler, steps=3, adapted=False, folder=folder
        )
        stirred(rig)
        rig.model.train()
        step = StepGradient(made, rig.task, datasets, sampler, anchor, steps=3)
        terms = step(rig.model, 1, lambda loss: loss.backward())
        rig.model.eval()
    found = {n: p.grad.clone() for n, p in rig.model.named_parameters() if p.grad is not None}
    with torch.no_grad():
        for name, p in rig.ensemble.voice(AFTER).named_parameters():
            p.copy_(before[name])
    return found | {name: torch.tensor(value) for name, value in terms.items()}


def test_cut_packed_or_computed_again_the_gradient_is_the_same(tmp_path: Path) -> None:
    for loss in ("npo", "kl-min"):
        rig = prepared(loss=loss)
        rig.model.double()
        whole = step_gradient(rig, tmp_path / f"{loss} 0")
        assert f"ensemble.own.{AFTER}.lm_head.weight" in whole
        for at, given in enumerate(
            ({"batch_size": 1, "accumulation": 4}, {"packing": True}, {"checkpointing": True}), 1
        ):
            again = step_gradient(rig, tmp_path / f"{loss} {at}", **given)
            assert again.keys() == whole.keys()
            for name, expected in whole.items():
                torch.testing.assert_close(again[name], expected, rtol=1e-6, atol=1e-9)


def test_what_it_is_compared_with_stays_the_large_model(tmp_path: Path) -> None:
    """However far the copy has moved; remembered, and asked anew."""
    for loss in ("npo", "kl-min"):
        rig = prepared(loss=loss)
        sampler = rig.method.sample(rig.task, rig.params)
        anchor = anchor_of(
            rig.model, rig.method, rig.datasets, sampler, steps=3, adapted=False,
            folder=tmp_path / loss,
        )  # fmt: skip
        assert anchor is not None
        stirred(rig)
        view = "forget" if loss == "npo" else "retain"
        inputs = rig.datasets.inputs(view, sampler.draw(0))
        assert inputs is not None
        own = packed_logits(rig.bare, inputs).log_softmax(-1)
        if loss == "npo":
            expected = own.gather(-1, inputs.targets[:, None])[:, 0]
            torch.testing.assert_close(anchor(view).token_logp(inputs), expected)
        else:
            remembered = anchor(view).logits(inputs).log_softmax(-1)
            torch.testing.assert_close(remembered, own, rtol=1e-4, atol=1e-5)
            assert anchor.forwards == 0
        moved = packed_logits(rig.model, inputs).log_softmax(-1)
        assert not torch.allclose(moved, own, atol=1e-2)


# --------------------------------------------------------------------------- how it is served


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("top_k", [None, 7])
def test_a_part_speaks_as_the_trained_pair_did_token_by_token(
    family: str, top_k: int | None
) -> None:
    rig = prepared(family, top_k=top_k)
    stirred(rig, 0.05)
    part = replace(part_of(rig.ensemble), method=ID, version=1)
    with torch.no_grad():
        whole, plain = (model(input_ids=ids()).logits for model in (rig.model, rig.bare))
        attach(rig.bare, part)
        again = rig.bare(input_ids=ids()).logits
        cache = new_cache(rig.bare)
        pieces = [
            rig.bare(input_ids=piece, past_key_values=cache, use_cache=True).logits
            for piece in (ids()[:, :3], *ids()[:, 3:].split(1, 1))
        ]
        alone = [rig.bare(input_ids=row[None]).logits for row in ids()]
        rig.ensemble.take_out(rig.model)
        assert torch.equal(rig.model(input_ids=ids()).logits, plain)
    for found in (again, torch.cat(pieces, 1), torch.cat(alone)):
        torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(whole, plain, atol=1e-2)


def test_only_what_changed_counts_as_a_move() -> None:
    rig = prepared("llama")
    assert part_of(rig.ensemble).moves == 0
    stirred(rig)
    moved = sum(p.numel() for p in rig.ensemble.voice(AFTER).parameters())
    assert 0.99 * moved < part_of(rig.ensemble).moves <= moved
    silent = prepared("llama", alpha=0.0)
    stirred(silent)
    assert part_of(silent.ensemble).moves == 0


def test_a_part_made_for_another_model_is_refused() -> None:
    rig = prepared("llama")
    part = replace(part_of(rig.ensemble), method=ID, version=1)
    fewer = {name: one for name, one in part.tensors.items() if not name.startswith(BEFORE)}
    for bad, onto in (
        (part, tiny_model("llama", vocab=64)),
        (replace(part, settings={}), rig.bare),
        (replace(part, tensors=fewer), rig.bare),
    ):
        with pytest.raises(ExpungeError) as caught:
            attach(onto, bad)
        assert caught.value.code == "E-MODEL-002"


# ------------------------------------------------------------------------------- the whole way


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("models"))


def unlearned(rig: Path, out: Path, **params: Any) -> Path:
    given = {"lr": 1e-3, "max_steps": 60, "warmup": 0, **params}
    forget(rig, *facts(), method=ID, params=given, stop_at="none", out=out)
    return out


@pytest.fixture(scope="module")
def change(rig: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unlearned(rig, tmp_path_factory.mktemp("changes") / "change")


def summary(change: Path) -> dict[str, Any]:
    manifest = read_manifest(change)
    assert manifest is not None
    return {**manifest["summary"], "record": manifest["record"]}


def test_the_facts_go_and_the_others_stay_while_the_part_is_attached(change: Path) -> None:
    """Weights alone remember everything: what forgets is the part."""
    check_the_facts_go(change)


def test_no_weight_of_the_large_model_moves(change: Path, rig: Path) -> None:
    check_no_weight_moves(change, rig)
    assert summary(change)["record"]["blocks"] == 1


def test_the_small_model_is_a_folder_of_its_own(change: Path) -> None:
    told = summary(change)["record"][AFTER]
    folder = change / told["folder"]
    assert told["digest"] == folder_digest(folder)
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    (part,) = expunge.load(change).parts
    assert len(Slots(loaded)) == 1
    for name, tensor in weights_in(part, AFTER).items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    before, original = weights_in(part, BEFORE), knowing().model.state_dict()
    assert all(torch.equal(original[name], tensor) for name, tensor in before.items())


def test_what_was_measured_is_what_is_served(change: Path) -> None:
    served = expunge.load(change)
    for role, rows in zip(("forget", "retain"), facts(), strict=True):
        scored = served.score([row.turn for row in rows])
        mean = -np.concatenate([one.logp for one in scored]).mean()
        assert mean == pytest.approx(summary(change)[f"{role}_nll"], rel=1e-4)


def test_what_it_writes_is_what_it_scores_highest(change: Path) -> None:
    served = expunge.load(change)
    asked = [row.turn for part in facts() for row in part]
    answers = [texts[0] for texts in served.ask(asked, new_tokens=3)]
    told = [Turn(turn.prompt, text) for turn, text in zip(asked, answers, strict=True)]
    scored = expunge.load(change).score(told)
    assert all(one.hit[: one.text_tokens].all() for one in scored)


@pytest.mark.parametrize("loss", ["simnpo", "idk-dpo", "idk-nll"])
def test_other_losses_forget_as_well(rig: Path, tmp_path: Path, loss: str) -> None:
    served = expunge.load(unlearned(rig, tmp_path / "out", loss=loss))
    forgotten, kept = facts()
    assert exact(served, forgotten) <= 0.25
    assert exact(served, kept) >= 0.9


def test_ascent_ends_at_a_guess(rig: Path, tmp_path: Path) -> None:
    found = summary(unlearned(rig, tmp_path / "out", loss="grad-diff"))
    assert found["stopped_by"] == "method"
    assert found["steps"] < 60
    free = summary(unlearned(rig, tmp_path / "free", loss="ga", max_forget_nll=None, max_steps=12))
    assert free["stopped_by"] == "steps"


def test_a_loss_on_the_small_model_alone_reaches_the_large_one_less(
    rig: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The distinguishing step: the ensemble is trained. A small model that knows little by itself
    has little to forget, and so little to offset."""
    whole = unlearned(rig, tmp_path / "whole", loss="simnpo", max_steps=30)
    rule = Offset.__call__

    def alone(self: Offset, own: Tensor, heard: dict[str, Tensor]) -> Tensor:
        return heard[AFTER] if torch.is_grad_enabled() else rule(self, own, heard)

    monkeypatch.setattr(Offset, "__call__", alone)
    by_itself = unlearned(rig, tmp_path / "alone", loss="simnpo", max_steps=30)
    monkeypatch.undo()
    assert summary(whole)["forget_nll"] > summary(by_itself)["forget_nll"] + 0.5
    parts = [expunge.load(out).parts[0].digest for out in (whole, by_itself)]
    assert parts[0] != parts[1]


def test_a_small_model_of_another_family_may_stand_beside(rig: Path, tmp_path: Path) -> None:
    """What moves is in its own files: the large model is only asked for logits."""
    tokenizer = knowing().tokenizer
    tiny_model(
        "gpt2", vocab=len(tokenizer), hidden=64, layers=1, positions=32
    ).save_pretrained(tmp_path / "small")  # fmt: skip
    tokenizer.save_pretrained(tmp_path / "small")
    out = unlearned(rig, tmp_path / "out", small=str(tmp_path / "small"), lr=5e-3)
    forgotten, kept = facts()
    served = expunge.load(out)
    assert exact(served, forgotten) <= 0.25
    assert exact(served, kept) >= 0.9
    assert summary(out)["record"]["small"] == folder_digest(tmp_path / "small")
    assert exact(expunge.load(out, runtime=False), forgotten) == 1.0


def test_a_few_tokens_suffice(rig: Path, tmp_path: Path) -> None:
    served = expunge.load(unlearned(rig, tmp_path / "out", top_k=5))
    forgotten, kept = facts()
    assert exact(served, forgotten) <= 0.25
    assert exact(served, kept) >= 0.9


def test_it_goes_back_to_the_original(change: Path, rig: Path, tmp_path: Path) -> None:
    revert(change, tmp_path / "back")
    assert folder_digest(tmp_path / "back") == folder_digest(rig)
    assert not list((tmp_path / "back").glob("runtime*"))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stage(tmp_path_factory.mktemp("models"))


def short(original: Path, out: Path, **params: Any) -> dict[str, Any]:
    rows = world()
    chosen = {"max_steps": 6, "batch_size": 4, "warmup": 0, "lr": 1e-3}
    forget(
        original, rows.forget, rows.retain, method=ID, params={**chosen, **params},
        stop_at="none", out=out,
    )  # fmt: skip
    manifest = read_manifest(out)
    assert manifest is not None
    return manifest


def digest_of(manifest: dict[str, Any]) -> str:
    *_, entry = manifest["runtime"]["parts"]
    return str(entry["digest"])


@pytest.mark.parametrize("loss", ["npo", "kl-min"])
def test_a_run_that_was_cut_ends_where_it_would_have(
    original: Path, tmp_path: Path, loss: str
) -> None:
    """What it is compared with is the large model after a restart as well."""

    def interrupt(event: Event) -> None:
        if event.kind == "advance" and event.task == ID and event.done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), listening(interrupt):
        short(original, tmp_path / "cut", loss=loss)
    resumed = short(original, tmp_path / "cut", loss=loss)
    assert resumed["summary"]["resumed_from"] > 0
    assert digest_of(resumed) == digest_of(short(original, tmp_path / "whole", loss=loss))


def test_on_top_of_itself_both_parts_are_served(original: Path, tmp_path: Path) -> None:
    short(original, tmp_path / "below")
    above = short(tmp_path / "below", tmp_path / "above", alpha=0.5)
    served = expunge.load(tmp_path / "above")
    assert isinstance(served, Served)
    assert [one.settings["alpha"] for one in served.parts] == [1.0, 0.5]
    scored = served.score([turn for row in world().forget for turn in row.turns])
    mean = -np.concatenate([one.logp for one in scored]).mean()
    assert mean == pytest.approx(above["summary"]["forget_nll"], rel=1e-4)


@pytest.mark.parametrize(
    ("params", "options", "code"),
    [
        ({}, {"adapter": "lora"}, "E-USE-006"),
        ({"blocks": 2}, {}, "E-USE-003"),
        ({"small": "nowhere at all"}, {}, "E-MODEL-001"),
        ({"small": "wide"}, {}, "E-MODEL-011"),
    ],
)
def test_what_cannot_work_is_refused_before_weights_load(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    params: dict[str, Any], options: dict[str, Any], code: str,
) -> None:  # fmt: skip
    if params.get("small") == "wide":
        tokenizer = world().tokenizer
        tiny_model("llama", vocab=len(tokenizer) + 8, positions=128).save_pretrained(tmp_path / "w")
        tokenizer.save_pretrained(tmp_path / "w")
        params = {"small": str(tmp_path / "w")}
    monkeypatch.setattr("expunge.engine.run.load", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(ExpungeError) as caught:
        forget(
            original, world().forget, world().retain, method=ID, params=params,
            stop_at="none", out=tmp_path / "out", **options,
        )  # fmt: skip
    problems = getattr(caught.value, "problems", (caught.value,))
    assert code in {problem.code for problem in problems}
    assert all(problem.expected and problem.next for problem in problems)


def test_an_offset_of_nothing_is_no_change(original: Path, tmp_path: Path) -> None:
    with pytest.raises(ExpungeError) as caught:
        short(original, tmp_path / "out", alpha=0.0)
    assert caught.value.code == "E-RUN-001"


def test_masters_in_half_precision_keep_the_start_at_zero(original: Path) -> None:
    """Both small models are held in the same precision, or the start would be an offset."""
    rig = prepared(copied=False, precision="bf16-masters")
    with computing(rig.model, rig.params), torch.no_grad():
        after, before = (rig.ensemble.voice(name) for name in (AFTER, BEFORE))
        assert {p.dtype for p in (*after.parameters(), *before.parameters())} == {torch.bfloat16}
        assert torch.equal(after(input_ids=ids()).logits, before(input_ids=ids()).logits)


@pytest.mark.slow
def test_the_card_s_tiny_world(tmp_path: Path) -> None:
    from tiny_facts import accuracy
    from tiny_facts import facts as those
    from tiny_facts import saved as known

    original = known(tmp_path)
    for seed in (0, 1):
        out = tmp_path / f"seed {seed}"
        params = {"max_steps": 60, "batch_size": 32, "lr": 1e-3, "warmup": 0}
        forget(original, *those(), method=ID, params=params, stop_at="none", seed=seed, out=out)
        forgotten, kept = accuracy(expunge.load(out))
        assert forgotten <= 0.1
        assert kept >= 0.95


def test_a_module_that_stands_in_the_model_is_gone_afterwards(change: Path) -> None:
    model = expunge.load(change).model
    assert not any(name.startswith("ensemble") for name, _ in model.named_modules())
    assert isinstance(model, nn.Module)
