"""DTO: closed forms, the score and its traps, selectors, the stop, resuming, and TINY."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest_methods import Z0, assert_same, slow_nll, three
from micro_task import prepared
from tiny_rig import exact, facts, saved
from torch import Tensor, nn
from transformers import PreTrainedModel

from expunge.core.errors import ExpungeError
from expunge.core.events import Event, listening
from expunge.core.registry import methods
from expunge.data.encode import Encoder
from expunge.engine.change import read_manifest
from expunge.engine.check import check_forget
from expunge.engine.datasets import Datasets
from expunge.engine.forward import Inputs
from expunge.engine.gradient import StepGradient
from expunge.engine.method import GradientMethod
from expunge.engine.projection import grad_cos, length
from expunge.engine.run import forget
from expunge.engine.slots.combine import Gradients
from expunge.engine.slots.stop import Measured
from expunge.engine.sources import Frozen, Live
from expunge.engine.step import Step
from expunge.engine.task import Task
from expunge.engine.view import View
from expunge.lm.digest import folder_digest
from expunge.lm.load import load
from expunge.lm.subject import Subject
from expunge.methods import dto
from expunge.requests.rows import Row
from expunge.testing import objective, tiny_model, tiny_tokenizer
from expunge.testing.methods import stage, taught_subject, world

ALL, NONE, FIRST = [[0, 1, 2]], [[]], [[0]]
NLL = [0.440190, 0.210998, 0.743668]
KL = [0.085960, 0.048567, 0.114150]


def loss(t3, chosen: list[list[int]], **params: Any) -> SimpleNamespace:
    """The method on T3 with these targets."""
    state = {dto.TARGETS: chosen}
    return objective("dto", t3.model, {"forget": t3.view}, t3.anchor, state=state, **params)


def test_with_every_token_a_target_it_is_gradient_ascent(t3) -> None:
    found = loss(t3, ALL)
    assert found.loss == pytest.approx(-0.464952, abs=1e-5)
    assert found.terms["rest"] == 0.0
    plain = three([[2.0, 1, 0, -1], [0, 3, 1, 0], [1, 1, 1, 2]])
    objective("ga", plain, {"forget": t3.view})
    torch.testing.assert_close(t3.model.gradient, plain.gradient, rtol=1e-9, atol=1e-12)


def test_without_a_target_it_is_the_kl_to_the_anchor_in_that_direction(t3) -> None:
    found = loss(t3, NONE, rest_weight=2.0)
    assert found.terms == {"forget": 0.0, "rest": pytest.approx(2 * 0.082892, abs=2e-5)}
    turned = SimpleNamespace(model=t3.anchor, anchor=t3.model, view=t3.view)
    assert loss(turned, NONE).loss != pytest.approx(0.082892, abs=1e-3)  # KL(model || anchor)


def test_without_a_target_the_anchor_is_at_rest(t3) -> None:
    start = SimpleNamespace(model=three(Z0), anchor=t3.anchor, view=t3.view)
    assert loss(start, NONE).loss == pytest.approx(0.0, abs=1e-12)
    assert start.model.gradient.abs().max() < 1e-12


def test_targets_are_ascended_and_only_the_others_are_held(t3) -> None:
    found = loss(t3, FIRST)
    assert found.terms["forget"] == pytest.approx(-NLL[0], abs=1e-5)
    assert found.terms["rest"] == pytest.approx((KL[1] + KL[2]) / 2, abs=1e-5)
    assert found.terms["rest"] != pytest.approx(sum(KL) / 3, abs=1e-3)


def test_the_preference_sums_the_targets_of_a_row(t3) -> None:
    found = loss(t3, [[0, 2]], loss="npo", beta=0.1)
    ratio = -(NLL[0] + NLL[2]) + (0.1851825 + 0.340753)
    assert found.terms["forget"] == pytest.approx(
        20 * math.log(1 + math.exp(0.1 * ratio)), abs=1e-4
    )
    assert loss(t3, ALL, loss="npo").terms["forget"] == pytest.approx(13.092352, abs=1e-5)  # npo
    assert loss(t3, NONE, loss="npo").terms["forget"] == 0.0  # no row is in the mean


@pytest.mark.parametrize("form", ["ga", "npo"])
def test_it_equals_a_slow_sum_over_tokens(random_table, random_view, form: str) -> None:
    model, anchor, view = random_table(1), random_table(2), random_view(3)
    lengths = [len(row) for row in slow_nll(model, view)]
    table = [[at for at in range(n) if (row + at) % 3 == 0] for row, n in enumerate(lengths)]
    table[1] = []
    found = objective(
        "dto", model, {"forget": view}, anchor, state={dto.TARGETS: table}, loss=form, beta=0.7,
        rest_weight=0.4,
    )  # fmt: skip
    twin, frozen = random_table(1), random_table(2)
    held, targets, ratios = [], [], []
    for row, named in enumerate(table):
        place, ratio = 0, torch.zeros(())
        for at in range(1, 9):
            label = int(view["labels"][row, at])
            if label == -100:
                continue
            logp, logp0 = (
                one.table[view["input_ids"][row, at - 1]].log_softmax(-1) for one in (twin, frozen)
            )
            if place in named:
                targets.append(logp[label])
                ratio = ratio + logp[label] - logp0[label].detach()
            else:
                held.append((logp0.exp() * (logp0 - logp)).sum().float())
            place += 1
        ratios += [ratio] if named else []
    pushed = torch.stack(targets).mean()
    if form == "npo":
        pushed = torch.stack([-2 / 0.7 * torch.log(torch.sigmoid(-0.7 * r)) for r in ratios]).mean()
    slow = pushed + 0.4 * torch.stack(held).mean()
    frozen.table.requires_grad_(False)
    slow.backward()
    assert_same((found.loss, model.table.grad), (slow, twin.table.grad))


class Copying(nn.Module):
    """Says the first answer token again and again, is sure of it, and knows no other token.

    ``cue`` tokens stand before the answer. Of the answer's own first tokens it finds the third the
    most surprising.
    """

    def __init__(self, vocabulary: int, cue: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.vocabulary, self.cue, self.rows = vocabulary, cue, 0

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> Any:
        self.rows += len(input_ids)
        rows, width = input_ids.shape
        logits = torch.zeros(rows, width, self.vocabulary)
        if width > self.cue:
            first = input_ids[:, self.cue]
            logits[torch.arange(rows), self.cue + 3 :, first] = 8.0
            if width > self.cue + 2:
                logits[torch.arange(rows), self.cue + 1, input_ids[:, self.cue + 2]] = -8.0
        return SimpleNamespace(logits=logits + 0 * self.weight)


ROW = Row(id="a", prompt="q", completion=" x b c k x x x x")


def scene(model: Callable[..., Any], row: Row = ROW, **more: Any) -> Task:
    """A task of one row under a model made for its tokenizer."""
    tokenizer = tiny_tokenizer([f"{row.prompt}{row.completion} the of"], kind="word", vocab=64)
    encoder = Encoder(tokenizer, 64)
    return Task(
        model=model(len(tokenizer)), tokenizer=tokenizer, encoder=encoder,
        roles={"forget": [row], "retain": []}, **more,
    )  # fmt: skip


def chosen(task: Task, **params: Any) -> dict[str, Any]:
    """What becomes of the first wording of the only row."""
    settings = methods.params("dto", params)
    ((item, *_),) = Datasets(task).items("forget")
    with torch.no_grad():
        return dto.targets(task, settings, task.forget[0], 0, item)


def test_the_token_that_the_suffix_copies_ranks_first_and_not_the_most_surprising() -> None:
    task = scene(lambda size: Copying(size, cue=2))
    found = chosen(task, suffix=0.5, replacements=3)
    scores = dict(found["scores"])
    assert sorted(scores) == [0, 1, 2, 3]  # the other four and the end are the suffix
    assert max(scores, key=scores.__getitem__) == 0
    assert scores[0] > 3
    assert all(abs(scores[at]) < 1e-6 for at in (1, 2, 3))
    assert (found["by"], found["targets"]) == ("delta", [0])
    with torch.no_grad():
        own = View(Datasets(task).batch(Datasets(task).items("forget")[0]), Live(task.model))
        assert own.token_logp[:4].argmin() == 2  # what a token's own NLL would have named


def test_a_score_is_the_loss_of_the_suffix_with_the_token_replaced() -> None:
    """By hand, one changed copy after another, on a real model."""
    task = scene(lambda size: tiny_model("llama", vocab=size, seed=3))
    scores = dict(chosen(task, suffix=0.4, replacements=2)["scores"])
    ((item, *_),) = Datasets(task).items("forget")
    said = [at for at, label in enumerate(item.labels) if label != -100]
    cut = 8 - round(0.4 * 8)  # what ends the answer is in the suffix, and not in its share

    def suffix_nll(ids: list[int]) -> float:
        with torch.no_grad():
            logp = task.model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
        return -sum(float(logp[at - 1, ids[at]]) for at in said[cut:]) / (len(said) - cut)

    settings = methods.params("dto", {"replacements": 2})
    for place in range(cut):
        others = dto._others(task, settings, 0, place, item.ids[said[place]])
        assert len(others) == 2
        assert not {item.ids[said[place]], *task.tokenizer.all_special_ids} & {*others}
        changed = [
            suffix_nll([*item.ids[: said[place]], other, *item.ids[said[place] + 1 :]])
            for other in others
        ]
        expected = sum(changed) / 2 - suffix_nll(item.ids)
        assert scores[place] == pytest.approx(expected, abs=2e-4)


def test_every_token_of_the_prefix_costs_a_pass_and_the_suffix_none() -> None:
    task = scene(lambda size: Copying(size, cue=2))
    assert len(chosen(task)["scores"]) == 4
    assert task.model.rows == 1 + 4
    task.model.rows = 0
    assert sorted(dict(chosen(task, two_sided=True)["scores"])) == [0, 1, 2, 3, 4, 5]
    assert task.model.rows == (1 + 4) + (1 + 2)
    assert dict(chosen(task, replace_by="pad")["scores"])[0] > 3


@pytest.mark.parametrize(("share", "count"), [(1e-6, 1), (0.2, 1), (0.5, 2), (1.0, 4)])
def test_at_least_one_token_is_a_target(share: float, count: int) -> None:
    task = scene(lambda size: tiny_model("llama", vocab=size, seed=3))
    assert len(chosen(task, share=share)["targets"]) == count


def test_function_words_are_left_out_unless_there_is_nothing_else() -> None:
    row = replace(ROW, completion=" the b c k the the the the")
    task = scene(lambda size: Copying(size, cue=2), row)
    assert chosen(task, stop_list=False)["targets"] == [0]
    assert chosen(task)["targets"] != [0]
    idle = replace(ROW, completion=" the of the of the the the the")
    assert chosen(scene(lambda size: Copying(size, cue=2), idle))["targets"] == [0]


@pytest.mark.parametrize(("words", "by"), [(3, "information"), (4, "delta")])
def test_short_answers_are_scored_by_what_the_prompt_tells_of_them(words: int, by: str) -> None:
    row = replace(ROW, completion=" x b c k"[: 2 * words])
    found = chosen(scene(lambda size: tiny_model("llama", vocab=size), row))
    assert found["by"] == by


def test_prompt_information_is_the_gain_of_the_prompt() -> None:
    task = scene(lambda size: tiny_model("llama", vocab=size, seed=3))
    found = chosen(task, selector="information")
    ((item, *_),) = Datasets(task).items("forget")
    gains = {}
    with torch.no_grad():
        whole = task.model(input_ids=torch.tensor([item.ids])).logits[0].log_softmax(-1)
        bare = [item.ids[0], *item.ids[2:]]  # without the one token of the prompt
        alone = task.model(input_ids=torch.tensor([bare])).logits[0].log_softmax(-1)
    for place in range(8):
        token = item.ids[2 + place]
        gains[place] = float(whole[1 + place, token] - alone[place, token])
    assert dict(found["scores"]) == pytest.approx(gains, abs=1e-5)  # and not the end of the answer
    best = sorted(gains, key=lambda place: -gains[place])[:2]
    assert found["targets"] == sorted(best)


def test_names_and_figures_or_the_spans_of_a_row_are_taken_whole() -> None:
    row = Row(id="a", prompt="q", completion=" said Ada Birk in 1931 to us", answer="to us")
    task = scene(lambda size: tiny_model("llama", vocab=size), row)
    assert chosen(task, selector="entity")["targets"] == [1, 2, 4]
    assert chosen(task, selector="spans")["targets"] == [5, 6]
    bare = scene(lambda size: tiny_model("llama", vocab=size))
    for selector in ("entity", "spans"):
        assert chosen(bare, selector=selector)["by"] == "information"


def test_with_the_spans_as_targets_the_rest_of_the_answer_is_held() -> None:
    """A row's spans alone would leave nothing to hold."""
    row = replace(ROW, spans=((2, 4),))
    for selector, supervised, target in (("spans", 8, 1), ("delta", 1, 0)):
        task = scene(lambda size: tiny_model("llama", vocab=size), row)
        params = methods.params("dto", {"selector": selector})
        tokens = dto.select(task, params).tokens or {}
        task = replace(task, tokens=tokens)
        ((item, *_),) = Datasets(task).items("forget")
        assert len(item.spans) == supervised
        assert chosen(task, selector=selector)["targets"] == [target]


def test_every_wording_has_targets_of_its_own_and_a_resumed_run_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, method = prepared("dto")
    items = [item for own in Datasets(task).items("forget") for item in own]
    assert len(task.state[dto.TARGETS]) == len(items) == 24
    for item, targets in zip(items, task.state[dto.TARGETS], strict=True):
        assert targets
        assert all(item.spans[place][0] < item.spans[place][1] for place in targets)
    kept = replace(task, folder=tmp_path, state={}, record={})
    method.prepare(kept, method.params)
    monkeypatch.setattr(dto, "score_all", None)
    again = replace(task, folder=tmp_path, state={}, record={})
    method.prepare(again, method.params)
    assert again.state == kept.state == {dto.TARGETS: task.state[dto.TARGETS]}
    assert json.loads(json.dumps(again.state)) == again.state


def told(value: float, guessing: float = 4.0) -> list[Measured]:
    return [Measured(1, 0.1, False, {dto.NLL: value}, guessing)]


def test_the_run_ends_where_the_targets_are_as_unlikely_as_a_guess() -> None:
    params = methods.params("dto", {})
    assert not dto.stop(told(3.5), params)
    assert dto.stop(told(3.7), params)
    assert dto.stop(told(3.5), methods.params("dto", {"max_forget_nll": 3.6}))
    assert not dto.stop(told(1e9), methods.params("dto", {"max_forget_nll": None}))


def test_a_few_far_targets_do_not_hide_one_that_is_known(t3) -> None:
    """The mean that ends a run counts no target above its bound."""
    logits = three([[-90.0, 1, 0, -1], [0, 9, 1, 0], [1, 1, 1, 2]])
    tensors = [t3.view[name] for name in ("input_ids", "attention_mask", "labels")]
    view = View(Inputs.from_labels(*tensors, torch.arange(1)), Live(logits))
    step = Step({"forget": view}, state={dto.TARGETS: ALL})
    dto.forget(step, methods.params("dto", {}))
    expected = (math.log(4) + 0.0006 + 0.7437) / 3
    assert float(step.reported[dto.NLL].value) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    "given", [{"share": 0}, {"suffix": 1}, {"loss": "simnpo"}, {"selector": "noun"}, {"beta": 0}]
)
def test_other_values_are_refused(given: dict) -> None:
    with pytest.raises(ExpungeError) as caught:
        methods.params("dto", given)
    assert caught.value.code == "E-USE-003"


def combined(ascent: list[float], held: list[float], **params: Any) -> list[float]:
    """The step of two parameters with one entry each, so that products run over parameters."""
    sides = [[torch.tensor([x], dtype=torch.float64) for x in side] for side in (ascent, held)]
    none = [torch.zeros(1, dtype=torch.float64)] * 2
    given = Gradients(sides[0], none, {}, beside={"rest": sides[1]})
    made = dto.combine(given, {}, dto.Params(orthogonal=True, **params))
    return [float(d + b) for d, b in zip(made, sides[1], strict=True)]


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_projected_it_has_the_closed_form_of_blur(gamma: float) -> None:
    """What the KL asks for along the ascent is gone, whatever the ascent weighs."""
    c = 3.0 / 25
    found = combined([3.0, 4.0], [1.0, 0.0], forget_weight=gamma)
    assert found == pytest.approx([1.0 + (gamma - c) * 3, (gamma - c) * 4])
    assert found[0] * 3 + found[1] * 4 == pytest.approx(gamma * 25)


def test_an_ascent_without_a_direction_leaves_the_sum() -> None:
    assert combined([0.0, 9e-13], [1.0, 2.0]) == pytest.approx([1.0, 2.0])
    assert combined([0.0, 2e-12], [1.0, 2.0]) == pytest.approx([1.0, 0.0], abs=1e-11)


@pytest.fixture(scope="module")
def moved() -> tuple[PreTrainedModel, PreTrainedModel]:
    """A model in float64 that has left its anchor, so that the KL has a gradient; the anchor."""
    model, anchor = (taught_subject().copy().model.double() for _ in range(2))
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            noise = torch.randn(weight.shape, generator=draw, dtype=weight.dtype)
            weight.add_(noise, alpha=0.3 * float(weight.std()))
    return model, anchor


def stepped(
    moved: tuple[PreTrainedModel, PreTrainedModel], module: Any = dto, parts: int = 1, **params: Any
) -> SimpleNamespace:
    """One step of the engine.

    Returns:
        ``gradient`` as it is left, ``seen`` what combiners were given, ``rows`` that were run.
    """
    given = {"batch_size": 8 // parts, "accumulation": parts, "selector": "entity", **params}
    settings = methods.params("dto", given)
    method = GradientMethod.assemble(module, settings)
    combine, seen, rows, (model, anchor) = method.combine, [], [], moved
    task = Task(
        model=model, tokenizer=world().tokenizer, encoder=taught_subject().encoder,
        roles={"forget": world().forget, "retain": world().retain},
    )  # fmt: skip
    method.prepare(task, settings)

    def spy(gradients: Gradients, *given: Any) -> list[Tensor]:
        seen.append(gradients)
        return combine(gradients, *given)

    def note(module: nn.Module, given: Any, named: dict[str, Any]) -> None:
        rows.append(len(named["input_ids"]))

    step = StepGradient(
        method if combine is None else replace(method, combine=spy), task, Datasets(task),
        method.sample(task, settings), lambda _: Frozen(anchor), steps=5,
    )  # fmt: skip
    model.zero_grad()
    with model.register_forward_pre_hook(note, with_kwargs=True):
        step(model, 0, lambda loss: loss.backward())
    gradient = [p.grad.clone() for p in model.parameters()]
    return SimpleNamespace(gradient=gradient, seen=seen, rows=sum(rows))


def apart(one: list[Tensor], other: list[Tensor]) -> float:
    """How long the difference of two gradients is, as a share of the first."""
    return length([a - b for a, b in zip(one, other, strict=True)]) / length(one)


@pytest.mark.parametrize("form", ["ga", "npo"])
@pytest.mark.parametrize("retain_term", ["none", "nll"])
def test_what_is_held_is_at_right_angles_to_the_ascent(moved, form: str, retain_term: str) -> None:
    """Before Adam; retain rows, where there is a term for them, are not projected."""
    given = {
        "loss": form, "retain_term": retain_term,
        "rest_weight": 30.0, "forget_weight": 0.7, "retain_weight": 0.5,
    }  # fmt: skip
    projected = stepped(moved, orthogonal=True, **given)
    (seen,) = projected.seen
    rest = seen.beside["rest"]
    others = [0.7 * f + 0.5 * r for f, r in zip(seen.forget, seen.retain, strict=True)]
    held = [d - o for d, o in zip(projected.gradient, others, strict=True)]
    assert abs(grad_cos(held, seen.forget)) < 1e-9
    assert abs(grad_cos(rest, seen.forget)) > 0.05  # there was something to take
    left, whole, along = (torch.cat([g.flatten() for g in x]) for x in (held, rest, seen.forget))
    torch.testing.assert_close(left, whole - (whole @ along) / (along @ along) * along)
    assert (length(seen.retain) > 0) is (retain_term == "nll")

    plain = stepped(moved, **given)
    summed = [o + b for o, b in zip(others, rest, strict=True)]
    assert apart(plain.gradient, summed) < 1e-6  # norms compute in float32
    assert apart(plain.gradient, projected.gradient) > 0.02
    assert projected.rows / plain.rows == dto.effort(dto.Params(orthogonal=True, **given))


def test_projected_or_not_how_a_step_is_cut_changes_nothing(moved) -> None:
    given = {"orthogonal": True, "rest_weight": 30.0}
    whole, parts = stepped(moved, **given), stepped(moved, parts=4, **given)
    for one, other in zip(whole.gradient, parts.gradient, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("form", ["ga", "npo"])
def test_unasked_a_step_is_that_of_a_method_without_a_combiner(moved, form: str) -> None:
    """Bit for bit: both parts share one pass, as ever."""
    bare = {n: v for n, v in vars(dto).items() if n not in ("combine", "combines", "effort")}
    off, plain = stepped(moved, loss=form), stepped(moved, SimpleNamespace(**bare), loss=form)
    pairs = zip(off.gradient, plain.gradient, strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert (off.seen, off.rows) == ([], plain.rows)
    assert dto.effort(methods.params("dto", {})) == 1


def test_a_term_of_a_wrapper_is_left_as_it_is() -> None:
    """Only the KL gives way, not what else stands beside."""
    one, other = ([torch.tensor([x])] for x in (1.0, 5.0))
    given = Gradients(one, [torch.zeros(1)], {}, beside={"rest": one, "scope": other})
    assert dto.combine(given, {}, dto.Params(orthogonal=True)) == [torch.tensor([0.0])]


def test_deepspeed_refuses_it_only_where_gradients_are_combined(
    rig: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    for is_asked in (True, False):
        report = check_forget(
            rig, *facts(), method="dto", params={"orthogonal": is_asked}, stop_at="none",
            out=tmp_path / "out",
        )  # fmt: skip
        assert [one.code for one in report.problems] == ["E-USE-006"] * is_asked


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("rig"))


def unlearned(original: Path, out: Path, **params: Any) -> tuple[Subject, dict[str, Any]]:
    options = {"max_steps": 60, "warmup": 0, "lr": 1e-3, "batch_size": 32, **params}
    told = forget(original, *facts(), method="dto", params=options, stop_at="none", out=out)
    loaded = load(out)
    return Subject(loaded.model, loaded.tokenizer), told


def test_tiny_forgets_by_its_first_tokens(rig: Path, tmp_path: Path) -> None:
    """Three words are too few for a suffix; what the prompt tells most of is the first one."""
    changed, told = unlearned(rig, tmp_path / "a", max_forget_nll=None)
    lines = (tmp_path / "a" / "made" / "targets.jsonl").read_text(encoding="utf-8").splitlines()
    assert {tuple(json.loads(line)["targets"]) for line in lines} == {(0,)}
    assert exact(changed, facts()[0]) == 0.0
    assert told["steps"] == 60
    assert told["details"]["target_tokens"] == 8


def test_what_is_held_keeps_more_than_ascent_alone(rig: Path, tmp_path: Path) -> None:
    _, told = unlearned(rig, tmp_path / "held", max_steps=20)
    _, alone = unlearned(rig, tmp_path / "free", max_steps=20, rest_weight=0.0)
    assert told["forget_nll"] < alone["forget_nll"] - 0.3
    assert told["retain_nll"] < alone["retain_nll"]
    manifest = read_manifest(tmp_path / "held")
    assert manifest is not None
    assert manifest["history"][-1]["terms"]["rest"] < 0.5


def test_projected_what_is_held_no_longer_slows_the_ascent(rig: Path, tmp_path: Path) -> None:
    """With much weight on the KL a plain sum moves the targets little in a few steps."""
    ascended = {}
    for name, is_projected in (("plain", False), ("projected", True)):
        few = {"max_steps": 12, "rest_weight": 30.0, "orthogonal": is_projected}
        unlearned(rig, tmp_path / name, **few)
        manifest = read_manifest(tmp_path / name)
        assert manifest is not None
        ascended[name] = -manifest["history"][-1]["terms"]["forget"]
    assert ascended["projected"] > ascended["plain"] + 1.0
    assert folder_digest(tmp_path / "plain") != folder_digest(tmp_path / "projected")


def test_the_targets_end_a_run_that_has_no_level(rig: Path, tmp_path: Path) -> None:
    changed, told = unlearned(rig, tmp_path / "a", max_steps=120)
    assert told["stopped_by"] == "method"
    assert told["steps"] < 120
    assert exact(changed, facts()[0]) <= 0.25


@pytest.mark.parametrize("is_projected", [False, True])
def test_a_resumed_run_ends_with_the_same_weights(tmp_path: Path, is_projected: bool) -> None:
    original, rows = stage(tmp_path), world()
    options = {
        "max_steps": 8, "lr": 1e-3, "batch_size": 6, "loss": "npo", "orthogonal": is_projected
    }  # fmt: skip

    def run(name: str) -> str:
        forget(
            original, rows.forget, rows.retain, method="dto", params=options, stop_at="none",
            out=tmp_path / name,
        )  # fmt: skip
        return folder_digest(tmp_path / name)

    def interrupt(event: Event) -> None:
        if event.kind == "advance" and event.task == "dto" and event.done >= 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), listening(interrupt):
        run("cut")
    assert run("cut") == run("whole")
