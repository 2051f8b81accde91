"""ELM: the target's closed form, a slow second loss, prefaces, digressions, what moves."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest_methods import Fixed, Table, assert_same, flat, slow_nll
from micro_task import prepared
from torch import Tensor

from expunge.core.errors import ExpungeError
from expunge.core.registry import methods
from expunge.engine.datasets import Datasets, wordings_of
from expunge.engine.digressions import EVASIONS, EXPERT, digressions_of, subjects_of
from expunge.engine.forward import Inputs
from expunge.engine.run import forget
from expunge.engine.slots.sample import one_to_one
from expunge.engine.sources import Counting, Frozen
from expunge.engine.step import Step
from expunge.engine.task import Task
from expunge.engine.view import View
from expunge.lm.generate import generate, generate_together
from expunge.lm.load import load
from expunge.lm.subject import Subject
from expunge.methods import elm
from expunge.requests.rows import Row
from expunge.testing import objective
from expunge.testing.methods import taught_subject, world
from expunge.testing.micro import micro_world, taught

a_task = partial(prepared, "elm")
EXACT = {"eta_max": 1.0, "temperature": 1.0, "top_k": 100, "retain_weight": 0.0}


class Prefaced:
    """An anchor that says something else of each view, told apart by the first token."""

    def __init__(self, *logits: Tensor) -> None:
        self._logits = [one.double() for one in logits]

    def __call__(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self._logits[int(input_ids[0, 0])])


def one_token(first: int, label: int = 2) -> dict[str, Tensor]:
    """A row of one supervised token, after the token ``first``."""
    ids = torch.tensor([[first, label]])
    labels = torch.tensor([[-100, label]])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def says(*probabilities: float) -> Tensor:
    """[1, 2, V]: logits of a distribution at the first position, and anything at the last."""
    row = torch.tensor(probabilities, dtype=torch.float64).log()
    return torch.stack([row, torch.zeros_like(row)])[None]


def scene() -> dict[str, dict[str, Tensor]]:
    """The three views of one token, first tokens 0, 1 and 2."""
    return {"forget": one_token(0), "expert": one_token(1), "novice": one_token(2),
            "fluency": one_token(0, label=1)}  # fmt: skip


def test_the_target_has_the_closed_form_of_the_card() -> None:
    anchor = Prefaced(says(0.5, 0.3, 0.2), says(0.7, 0.2, 0.1), says(0.35, 0.4, 0.25))
    model = Fixed(says(0.2, 0.3, 0.5))
    found = objective("elm", model, scene(), anchor, fluency_weight=0.0, **EXACT)
    q = torch.tensor([0.1852, 0.4444, 0.3704], dtype=torch.float64)
    p = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    assert found.terms["forget"] == pytest.approx(float(-(q * p.log()).sum()), abs=2e-4)
    torch.testing.assert_close(model.gradient[0, 0], p - q, rtol=0, atol=1e-4)


@pytest.mark.parametrize("eta", [1.0, 10.0, 1000.0])
def test_with_equal_prefaces_the_start_has_no_gradient(eta) -> None:
    start = says(0.5, 0.3, 0.2)
    anchor = Prefaced(start, says(0.7, 0.2, 0.1), says(0.7, 0.2, 0.1))
    model = Fixed(start)
    options = {**EXACT, "eta_max": eta, "fluency_weight": 0.0}
    objective("elm", model, scene(), anchor, **options)
    assert model.gradient.abs().max() < 1e-12


def test_only_the_top_tokens_of_the_target_are_kept() -> None:
    anchor = Prefaced(says(0.5, 0.3, 0.2), says(0.7, 0.2, 0.1), says(0.35, 0.4, 0.25))
    model = Fixed(says(0.2, 0.3, 0.5))
    objective("elm", model, scene(), anchor, **{**EXACT, "top_k": 2, "fluency_weight": 0.0})
    q = torch.tensor([0.0, 0.4444, 0.3704], dtype=torch.float64)
    p = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    torch.testing.assert_close(model.gradient[0, 0], p - q / q.sum(), rtol=0, atol=1e-4)


def test_what_model_or_anchor_rule_out_gives_no_nan() -> None:
    """0 times minus infinity, and infinity less infinity, are the traps of soft targets."""
    anchor = Prefaced(says(0.6, 0.4, 0.0), says(0.7, 0.3, 0.0), says(0.35, 0.65, 0.0))
    model = Fixed(says(0.4, 0.6, 0.0))
    found = objective("elm", model, scene(), anchor, **{**EXACT, "eta_max": 1000.0})
    assert 0 < found.loss < 10
    assert not model.gradient.isnan().any()
    assert float(model.gradient[0, 0, 2]) == 0.0


def test_eta_rises_from_one_to_the_largest_over_the_answer() -> None:
    ids = torch.tensor([[0, 3, 4, 5], [0, 3, 4, 5], [0, 3, 4, 5]])
    labels = torch.tensor([[-100, -100, 4, 5], [-100, 3, 4, 5], [-100, -100, 4, -100]])
    inputs = Inputs.from_labels(ids, torch.ones_like(ids), labels, torch.arange(3))
    step = Step({"forget": View(inputs, Counting(11, 4, 1))})
    assert elm.etas(step, 1000.0).tolist() == [1.0, 1000.0, 1.0, 500.5, 1000.0, 1.0]


def test_it_equals_a_slow_target_written_out(random_table, random_view) -> None:
    forgets = random_view(3)
    views = {
        "forget": forgets, "fluency": random_view(4), "retain": random_view(5),
        "expert": _behind(forgets, 1), "novice": _behind(forgets, 2),
    }  # fmt: skip
    model, anchor, twin = random_table(1), random_table(2), random_table(1)
    options = {"eta_max": 7.0, "temperature": 1.2, "top_k": 4, "fluency_weight": 0.6,
               "kl_scope": "answer", "retain_weight": 0.8}  # fmt: skip
    found = objective("elm", model, views, anchor, **options)
    erased, kept = [], []
    for row in range(5):
        places = [t for t in range(1, 9) if forgets["labels"][row, t] != -100]
        for number, at in enumerate(places):
            eta = 1.0 if len(places) == 1 else 1 + 6.0 * number / (len(places) - 1)
            plain, expert, novice = (
                (
                    anchor.table[views[name]["input_ids"][row, at - 1]].detach().double() / 1.2
                ).log_softmax(0)
                for name in ("forget", "expert", "novice")
            )
            log_q = plain - eta * (expert - novice)
            least = log_q.sort(descending=True).values[3]
            q = torch.where(log_q >= least, log_q.exp(), 0.0)
            logp = twin.table[forgets["input_ids"][row, at - 1]].log_softmax(0)
            erased.append(-(q / q.sum() * logp).sum())
    retain = views["retain"]
    for ids, labels in zip(retain["input_ids"], retain["labels"], strict=True):
        for at in range(1, 9):
            if labels[at] != -100:
                choice = int(anchor.table[ids[at - 1]].argmax())
                kept.append(-twin.table[ids[at - 1]].log_softmax(0)[choice])
    slow = (
        torch.stack(erased).mean()
        + 0.8 * torch.stack(kept).mean()
        + 0.6 * flat(slow_nll(twin, views["fluency"])).mean()
    )
    slow.backward()
    assert_same((found.loss, model.table.grad), (slow, twin.table.grad))


def _behind(view: dict[str, Tensor], shift: int) -> dict[str, Tensor]:
    """Other tokens in front of the same supervised ones: the anchor says something else there."""
    ids = torch.where(view["labels"] == -100, (view["input_ids"] + shift) % 11, view["input_ids"])
    return {**view, "input_ids": ids}


def test_soft_labels_have_the_gradient_of_kl(random_table, random_view) -> None:
    views = {name: random_view(3) for name in ("forget", "expert", "novice", "fluency")}
    views["retain"] = random_view(5)
    only = {"forget_weight": 0.0, "fluency_weight": 0.0, "retain_term": "kl", "kl_scope": "answer"}
    model, anchor, twin = random_table(1), random_table(2), random_table(1)
    objective("elm", model, views, anchor, **only)
    soft = []
    for ids, labels in zip(views["retain"]["input_ids"], views["retain"]["labels"], strict=True):
        for at in range(1, 9):
            if labels[at] != -100:
                p0 = anchor.table[ids[at - 1]].detach().softmax(0)
                soft.append(-(p0 * twin.table[ids[at - 1]].log_softmax(0)).sum())
    torch.stack(soft).mean().backward()
    torch.testing.assert_close(model.table.grad, twin.table.grad, rtol=1e-5, atol=1e-6)


def test_other_supervised_tokens_behind_a_preface_are_refused(random_view) -> None:
    views = {name: random_view(3) for name in ("forget", "expert", "fluency")}
    views["novice"] = random_view(4)
    table = Table(torch.randn(11, 11, generator=torch.Generator().manual_seed(0)))
    with pytest.raises(ExpungeError, match="E-MODEL-011"):
        objective("elm", table, views, table)


def test_the_three_views_stand_on_the_same_tokens_and_prefaces_change() -> None:
    task, method = a_task(batch_size=6)
    datasets, sampler = Datasets(task), one_to_one(task, method.params)
    seen = set()
    for step in range(6):
        draw = sampler.draw(step)
        plain, expert, novice = (
            datasets.inputs(name, draw) for name in ("forget", "expert", "novice")
        )
        assert torch.equal(plain.targets, expert.targets)
        assert torch.equal(plain.targets, novice.targets)
        assert expert.input_ids.shape[1] > plain.input_ids.shape[1]
        seen |= {item.row for item in datasets.drawn("expert", draw)}
    assert len({row % len(EXPERT) for row in seen}) > 5


def test_of_a_digression_the_prompt_is_not_trained_on() -> None:
    task, method = a_task(batch_size=6)
    draw = one_to_one(task, method.params).draw(0)
    for place, item in enumerate(Datasets(task).drawn("fluency", draw)):
        row = task.forget[draw.rows["forget"][place]]
        wordings = wordings_of(row)
        prompt = task.encoder.prompt(wordings[draw.wording["forget"][place] % len(wordings)].prompt)
        assert item.labels[: len(prompt)] == [-100] * len(prompt)
        assert item.labels[len(prompt) :] == item.ids[len(prompt) :]


def test_the_anchor_can_be_asked_of_another_view() -> None:
    """`anchor.on(view)` and the view's own anchor are one."""
    task, _ = a_task(batch_size=4)
    datasets, draw = Datasets(task), one_to_one(task, elm.Params(batch_size=4)).draw(0)
    frozen = Frozen(task.model)
    plain, expert = (
        View(datasets.inputs(name, draw), Counting(11, 4, 1), lambda: frozen)
        for name in ("forget", "expert")
    )
    torch.testing.assert_close(plain.anchor.on(expert).logits, expert.anchor.logits)
    assert not torch.allclose(plain.anchor.on(expert).logits, plain.anchor.logits)


def test_subjects_are_the_rows_names_unless_given() -> None:
    task, _ = a_task()
    assert subjects_of(task, None) == {row.id: row.subject for row in task.forget}
    assert set(subjects_of(task, "wizards").values()) == {"wizards"}
    nameless = replace(task, roles={"forget": [Row(id="x", prompt="what?", completion=" this")]})
    assert subjects_of(nameless, None) == {"x": "this topic"}


@pytest.mark.parametrize(("blocks", "expected"), [(32, (4, 5, 6, 7)), (16, (2, 3)), (2, (0,))])
def test_the_blocks_are_those_of_the_paper_by_depth(blocks, expected) -> None:
    assert elm.layers_of(elm.Params(), blocks) == expected
    assert elm.layers_of(elm.Params(layers=(-1,)), blocks) == (-1,)


def test_digressions_begin_with_an_evasion_and_depend_on_the_seed_alone() -> None:
    task, _ = a_task()
    subjects = subjects_of(task, None)
    options = {"guidance": 3.0, "top_k": 50, "new_tokens": 6}
    first = digressions_of(task, subjects, **options)
    assert first == digressions_of(task, subjects, **options)
    assert first != digressions_of(replace(task, seed=1), subjects, **options)
    assert all(any(one["reply"].startswith(e) for e in EVASIONS) for one in first)
    crowded = digressions_of(task, subjects, **{**options, "new_tokens": 10_000})
    assert all(one["reply"] in EVASIONS for one in crowded)


def test_several_prompts_are_continued_as_one() -> None:
    """Following the first prompt's choices alone is greedy writing from it."""
    subject, rows = taught_subject(), world()
    prompts = [subject.encoder.prompt(row.prompt) for row in rows.forget[:5]]
    others = [subject.encoder.prompt(row.prompt) for row in rows.retain[:5]]
    texts = [[one, [*other, *other]] for one, other in zip(prompts, others, strict=True)]
    given: list[tuple[int, ...]] = []

    def first(logp: Tensor) -> Tensor:
        given.append(tuple(logp.shape))
        assert torch.allclose(logp.exp().sum(-1), torch.ones(()), atol=1e-4)
        return 1e6 * logp[0]

    written = generate_together(
        subject.model, subject.tokenizer, texts, first, new_tokens=6, batch_size=4
    )
    greedy = generate(subject.model, subject.tokenizer, prompts, new_tokens=6)
    assert written == [one[0] for one in greedy]
    assert {shape[:2] for shape in given} == {(2, 2), (2, 1)}


def test_a_guide_that_looks_at_the_other_prompt_writes_otherwise() -> None:
    subject, rows = taught_subject(), world()
    one, other = (subject.encoder.prompt(row.prompt) for row in rows.forget[:2])
    written = generate_together(
        subject.model, subject.tokenizer, [[one, other]], lambda logp: 1e6 * logp[1], new_tokens=6
    )
    greedy = generate(subject.model, subject.tokenizer, [other], new_tokens=6)
    assert written == [greedy[0][0]]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows its world."""
    rows = micro_world(people=4)
    subject = taught(rows, [*rows.forget, *rows.retain], epochs=40, hidden=48, layers=3)
    folder = tmp_path_factory.mktemp("elm") / "original"
    subject.model.save_pretrained(folder)
    subject.tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("adapter", "lr"), [(None, 4e-3), ("lora", 1e-2)])
def test_it_unlearns_by_the_chosen_blocks_alone(original, tmp_path, adapter, lr) -> None:
    rows, out = micro_world(people=4), tmp_path / "out"
    found = forget(
        original, rows.forget, rows.retain, method="elm", adapter=adapter, stop_at="none", out=out,
        params={"lr": lr, "max_steps": 40, "warmup": 0, "lora_r": 16, "layers": (1,)},
    )  # fmt: skip
    assert found["forget_nll"] > found["before"]["forget_nll"] + 1.0
    assert found["retain_nll"] < found["before"]["retain_nll"] + 0.5
    assert {"forget", "retain", "fluency"} <= set(json.loads(
        (out / "change.json").read_text(encoding="utf-8"))["history"][-1]["terms"])  # fmt: skip
    made = (out / "made" / "fluency.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["id"] for line in made] == [row.id for row in rows.forget]
    before, after = (load(folder).model.state_dict() for folder in (original, out))
    moved = {
        name for name in before if name in after and not torch.equal(before[name], after[name])
    }
    assert moved
    assert all(".layers.1." in name for name in moved)


def test_without_the_novice_nothing_is_erased(original) -> None:
    """The ablation: with one preface for both voices the target is what the model says already."""
    rows, loaded = micro_world(people=4), load(original)
    subject = Subject(loaded.model, loaded.tokenizer)
    exact = {"temperature": 1.0, "top_k": 10_000, "fluency_weight": 0.0}
    params = methods.params("elm", exact)
    task = Task(
        model=subject.model, tokenizer=subject.tokenizer, encoder=subject.encoder,
        roles={"forget": rows.forget, "retain": rows.retain},
    )  # fmt: skip
    elm.prepare(task, params)
    datasets, draw = Datasets(task), one_to_one(task, params).draw(0)
    views = {
        name: _tensors(datasets.inputs(name, draw))
        for name in ("forget", "expert", "novice", "fluency")
    }
    norms = []
    for novice in (views["novice"], views["expert"]):
        subject.model.zero_grad()
        found = objective(
            "elm", subject.model, {**views, "novice": novice}, anchor=subject.model, **exact
        )
        norms.append(found.grad_norm)
    assert norms[0] > 0.1
    assert norms[1] < 1e-4


def _tensors(inputs: Inputs) -> dict[str, Tensor]:
    labels = torch.full_like(inputs.input_ids, -100)
    labels[:, 1:][inputs.keep[:, :-1]] = inputs.targets
    return {
        "input_ids": inputs.input_ids,
        "attention_mask": inputs.attention_mask,
        "labels": labels,
    }
