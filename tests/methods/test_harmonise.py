"""Harmonise: closed forms of pull and push, a slow second loss, its teacher, what it forgets."""

import copy
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest_methods import Fixed, Table, assert_same
from micro_task import prepared
from torch import Tensor

from expunge.core.errors import ExpungeError
from expunge.core.events import Event, listening
from expunge.core.registry import methods
from expunge.engine.change import load_change, read_manifest
from expunge.engine.datasets import Datasets
from expunge.engine.instructed import DECLINE, begun_of, lessons_of, opened, question_of
from expunge.engine.keyed import key_of
from expunge.engine.method import GradientMethod
from expunge.engine.run import forget
from expunge.engine.slots.sample import one_to_one
from expunge.engine.task import Task
from expunge.lm.digest import folder_digest
from expunge.lm.elicit import elicit, forced, plain
from expunge.lm.load import load
from expunge.lm.subject import Subject
from expunge.methods import harmonise
from expunge.methods.harmonise import OPENED
from expunge.requests.rows import Row, Turn
from expunge.testing import objective, tiny_tokenizer
from expunge.testing.methods import stage, taught_subject, world
from expunge.testing.micro import REPLY, Micro, every_wording, micro_world, taught_rows
from expunge.testing.tiny import CHAT_TEMPLATE, tiny_model

ALONE = {"push_weight": 0.0}


class Told:
    """An anchor that is the table's teacher: other scores than the model for the same tokens."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    def __call__(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.logits)


def one(*scores: float) -> Tensor:
    """[1, 2, V]: logits at the first position, and anything at the last."""
    row = torch.tensor(scores, dtype=torch.float64)
    return torch.stack([row, torch.zeros_like(row)])[None]


def compared(model: Fixed, teacher: Tensor, **params: Any) -> Any:
    """The method on one position."""
    ids = torch.tensor([[2, 0]])
    view = {"input_ids": ids, "labels": torch.tensor([[-100, 0]])}
    return objective(
        "harmonise", model, {"reply": view, "reply_told": view}, Told(teacher), **params
    )


# --------------------------------------------------------------------------------- pull and push


def test_the_pull_on_t3_is_the_cards(t3) -> None:
    first = {**t3.view, "labels": torch.tensor([[-100, 0, -100, -100]])}
    found = objective(
        "harmonise", t3.model, {"reply": first, "reply_told": first}, t3.anchor, top_k=2, **ALONE
    )
    assert 2 * found.loss == pytest.approx(0.5)
    whole = objective(
        "harmonise",
        t3.model,
        {"reply": t3.view, "reply_told": t3.view},
        t3.anchor,
        top_k=2,
        **ALONE,
    )  # in each row one of the teacher's two likeliest logits is lower by 1
    assert 2 * whole.loss == pytest.approx(0.5)
    all_four = objective(
        "harmonise", t3.model, {"reply": t3.view, "reply_told": t3.view}, t3.anchor, **ALONE
    )
    assert 4 * all_four.loss == pytest.approx(0.5)


def test_the_pull_is_a_square_up_to_one_and_then_a_line() -> None:
    for apart, expected in ((0.5, 0.125), (1.0, 0.5), (3.0, 2.5)):
        found = compared(Fixed(one(0.0, -9.0)), one(apart, -9.0), top_k=1, **ALONE)
        assert found.loss == pytest.approx(expected)


def test_raw_logits_fix_the_offset_and_distributions_do_not() -> None:
    """A constant on all of the teacher's logits; centring one side alone would hide it."""
    scores, teacher = one(2.0, 1.0, 0.0, -1.0), one(3.0, 1.0, 0.0, -1.0)
    for pull, changes in (("huber", True), ("kl-topk", False)):
        at = [
            compared(Fixed(scores), shifted, pull=pull, top_k=2, **ALONE).loss
            for shifted in (teacher, teacher + 5)
        ]
        assert (abs(at[0] - at[1]) > 1.0) == changes
    assert compared(Fixed(scores), scores, top_k=3, **ALONE).loss == 0.0
    assert compared(Fixed(scores + 1), scores, top_k=3, **ALONE).loss == pytest.approx(0.5)


def test_distributions_are_made_one_on_both_sides() -> None:
    q, p = (torch.tensor(z, dtype=torch.float64).softmax(0) for z in ([3.0, 1.0], [2.0, 1.0]))
    expected = float((q * (q / p).log()).sum())
    model, teacher = Fixed(one(2.0, 1.0, 0.0, -1.0)), one(3.0, 1.0, 0.0, -1.0)
    found = compared(model, teacher, pull="kl-topk", top_k=2, **ALONE)
    assert found.loss == pytest.approx(expected, abs=1e-9)
    gradient = model.gradient[0, 0]
    assert gradient.tolist() == pytest.approx([*(p - q).tolist(), 0.0, 0.0], abs=1e-9)
    # The trap: with the model's mass outside left in, the two leak into each other.
    leaky = torch.tensor([2.0, 1.0, 0.0, -1.0], dtype=torch.float64).softmax(0)[:2]
    assert abs(float((q * (q / leaky).log()).sum()) - expected) > 0.05


def test_the_push_takes_away_what_only_the_model_finds_likely() -> None:
    model, teacher = Fixed(one(2.0, 1.0, 0.0, -1.0)), one(-1.0, 1.0, 0.0, 2.0)
    options = {"top_k": 2, "push_weight": 1.0}
    found = compared(model, teacher, **options)
    p = torch.tensor([2.0, 1.0, 0.0, -1.0], dtype=torch.float64).softmax(0)
    pulled = compared(Fixed(one(2.0, 1.0, 0.0, -1.0)), teacher, top_k=2, **ALONE)
    # Its two likeliest are 0 and 1, the teacher's 3 and 1: only 0 is unwanted.
    assert found.loss - pulled.loss == pytest.approx(-math.log(1 - p[0]), abs=1e-9)
    bare = Fixed(one(2.0, 1.0, 0.0, -1.0))
    compared(bare, teacher, top_k=2, **ALONE)
    gradient = model.gradient[0, 0] - bare.gradient[0, 0]
    assert gradient[0] == pytest.approx(float(p[0]))
    assert (gradient[1:] < 0).all()
    assert gradient.sum() == pytest.approx(0.0, abs=1e-12)


def test_where_both_agree_nothing_is_pushed() -> None:
    model = Fixed(one(2.0, 1.0, 0.0, -1.0))
    found = compared(model, one(1.0, 2.0, -3.0, -3.0), top_k=2, push_weight=1.0)
    alone = compared(Fixed(one(2.0, 1.0, 0.0, -1.0)), one(1.0, 2.0, -3.0, -3.0), top_k=2, **ALONE)
    assert found.loss == pytest.approx(alone.loss, abs=1e-12)


def test_the_push_has_a_gradient_where_nearly_all_mass_is_unwanted() -> None:
    """In float32 what is left rounds to 0; a guard inside the logarithm would stop the gradient."""
    logits = torch.tensor([[[60.0, 50.0, 0.0, 1.0], [0.0] * 4]], requires_grad=True)
    teacher = torch.tensor([[[0.0, 1.0, 50.0, 60.0], [0.0] * 4]])
    ids = torch.tensor([[2, 0]])
    view = {"input_ids": ids, "labels": torch.tensor([[-100, 0]])}

    def model(input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=logits)

    views = {"reply": view, "reply_told": view}
    gradients = []
    for weight in (1.0, 0.0):
        logits.grad = None
        objective("harmonise", model, views, Told(teacher), top_k=2, push_weight=weight)
        gradients.append(logits.grad.clone())
    pushed = (gradients[0] - gradients[1])[0, 0]
    assert pushed[0] == pytest.approx(1.0, abs=1e-4)
    assert pushed[3] == pytest.approx(-1 / (1 + math.exp(-1)), abs=1e-4)
    guarded = (1 - logits.detach()[0, 0].softmax(0)[:2].sum()).clamp(min=1e-6)
    assert float(guarded) == pytest.approx(1e-6)


def test_other_tokens_behind_the_instruction_are_refused() -> None:
    ids = torch.tensor([[2, 0]])
    views = {
        "reply": {"input_ids": ids, "labels": torch.tensor([[-100, 0]])},
        "reply_told": {"input_ids": ids, "labels": torch.tensor([[-100, 1]])},
    }
    with pytest.raises(ExpungeError, match="E-MODEL-011"):
        objective("harmonise", Fixed(one(1.0, 2.0)), views, Told(one(1.0, 2.0)))


# ------------------------------------------------------------------------------ a slow second loss

REPLIES = ([4, 5, 6], [7, 8], [9])


def rows_of(
    fronts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]], skip: int = 0
) -> Any:
    """Rows of a front and a reply; the reply and ``skip`` tokens before it are supervised."""
    width = max(len(f) + len(r) for f, r in zip(fronts, replies, strict=True))
    ids, labels, mask = (torch.zeros(len(fronts), width, dtype=torch.long) for _ in range(3))
    labels -= 100
    for row, (front, reply) in enumerate(zip(fronts, replies, strict=True)):
        whole = torch.tensor([*front, *reply])
        ids[row, : len(whole)], mask[row, : len(whole)] = whole, 1
        start = len(front) - skip
        labels[row, start : len(whole)] = whole[start:]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def slow(model: Table, anchor: Table, front: int, told: int, reply: Sequence[int], m: int) -> Any:
    """(pull, push) of one row, position by position, with the three likeliest tokens."""
    pulls, pushes = [], []
    for at in range(min(m, len(reply))):
        seen = reply[at - 1] if at else None
        z = model.table[front if seen is None else seen]
        target = anchor.table[told if seen is None else seen].detach()
        top = target.sort(descending=True).indices[:3].tolist()
        mine = z.detach().sort(descending=True).indices[:3].tolist()
        huber = [
            (d * d / 2 if abs(d.item()) < 1 else abs(d) - 0.5)
            for d in (z[k] - target[k] for k in top)
        ]
        pulls.append(sum(huber) / 3)
        left = 1 - sum((z.softmax(0)[k] for k in mine if k not in top), torch.zeros(()))
        pushes.append(-left.log())
    return sum(pulls) / len(pulls), sum(pushes) / len(pushes)


def test_it_equals_a_slow_sum_with_the_worst_opening_of_each_row(random_table) -> None:
    """Padded rows; only the first two tokens count; rows weigh the same whatever their length."""
    model, anchor, twin = random_table(1), random_table(2), random_table(1)
    asked, told, openings = (
        [[1, 2], [1, 3], [2, 1]],
        [[1, 10], [1, 9], [2, 8]],
        [[5, 6], [3], [8, 4]],
    )
    begun = [[*front, *opening] for front in asked for opening in openings]
    tripled = [reply for reply in REPLIES for _ in openings]
    attacked = rows_of(begun, tripled)
    for row in range(9):  # the opening is supervised as well, and left out by its key
        start, length = 2, len(openings[row % 3])
        attacked["labels"][row, start : start + length] = attacked["input_ids"][
            row, start : start + length
        ]
    keys = {key_of([*begun[row], *tripled[row]]): len(openings[row % 3]) for row in range(9)}
    views = {
        "reply": rows_of(asked, REPLIES),
        "reply_told": rows_of(told, REPLIES),
        "attacked": attacked,
        "retain": rows_of(asked, REPLIES),
        "general": rows_of([[1, 4], [1, 5], [1, 6]], [[2, 3], [4], [5, 5, 5]]),
        "general_told": rows_of([[1, 7], [1, 8], [1, 2]], [[2, 3], [4], [5, 5, 5]]),
        "near": rows_of([[2, 4], [2, 5], [2, 6]], [[3], [1, 2], [9, 9]]),
        "near_told": rows_of([[2, 7], [2, 8], [2, 2]], [[3], [1, 2], [9, 9]]),
    }
    options = {
        "top_k": 3, "tokens": 2, "openings": 3, "attack_weight": 0.7, "push_weight": 0.4,
        "neighbour_weight": 0.6, "retain_weight": 1.3, "forget_weight": 0.9,
    }  # fmt: skip
    found = objective("harmonise", model, views, anchor, state={OPENED: keys}, **options)

    def each(fronts, tolds, replies) -> list[Any]:
        return [
            slow(twin, anchor, front[-1], to[-1], reply, 2)
            for front, to, reply in zip(fronts, tolds, replies, strict=True)
        ]

    plainly = each(asked, told, REPLIES)
    tried = each(begun, [to for to in told for _ in openings], tripled)
    worst = [
        max(tried[at : at + 3], key=lambda both: float(0.7 * both[0] + 0.2 * both[1]))
        for at in range(0, 9, 3)
    ]
    mean = lambda values: torch.stack(list(values)).mean()  # noqa: E731
    forgot = (
        mean(a for a, _ in plainly) + 0.7 * mean(a for a, _ in worst)
        + 0.4 * mean(b for _, b in [*plainly, *worst])
    )  # fmt: skip
    kept = mean(
        a for a, _ in each([[4], [5], [6]], [[7], [8], [2]], [[2, 3], [4], [5, 5, 5]])
    ) + 0.6 * mean(a for a, _ in each([[4], [5], [6]], [[7], [8], [2]], [[3], [1, 2], [9, 9]]))
    loss = 0.9 * forgot + 1.3 * kept
    loss.backward()
    assert_same((found.loss, model.table.grad), (loss.detach(), twin.table.grad))
    average = mean(a for a, _ in tried)
    assert abs(float(average - mean(a for a, _ in worst))) > 0.01, "the worst is not told apart"


def test_neighbours_and_attacks_are_left_out_where_there_are_none(random_table) -> None:
    model, anchor = random_table(1), random_table(2)
    views = {name: rows_of([[1, 2]], [[4, 5]]) for name in ("reply", "retain", "general")}
    views |= {f"{name}_told": rows_of([[1, 3]], [[4, 5]]) for name in ("reply", "general")}
    found = objective("harmonise", model, views, anchor, **ALONE)
    assert found.terms["forget"] == pytest.approx(found.terms["retain"])
    assert found.terms["forget"] > 0


# ----------------------------------------------------------------------------------- the teacher


def test_without_instruction_and_push_the_start_has_no_loss_and_no_gradient() -> None:
    task, method = prepared(
        "harmonise", context="", keep_context="", push_weight=0.0, attack_weight=0.0, batch_size=6
    )
    found = _at_the_start(task, method)
    assert found.loss == pytest.approx(0.0, abs=1e-8)
    assert found.grad_norm < 1e-4
    task, method = prepared("harmonise", keep_context="", push_weight=0.0, batch_size=6)
    assert _at_the_start(task, method).terms["forget"] > 0.01


def _at_the_start(task: Task, method: GradientMethod) -> Any:
    datasets, draw = Datasets(task), one_to_one(task, method.params).draw(0)
    made = {name: datasets.inputs(name, draw) for name in method.views}
    views = {}
    for name, inputs in made.items():
        if inputs is not None:
            labels = torch.full_like(inputs.input_ids, -100)
            labels[:, 1:][inputs.keep[:, :-1]] = inputs.targets
            views[name] = {
                "input_ids": inputs.input_ids,
                "attention_mask": inputs.attention_mask,
                "labels": labels,
            }
    task.model.zero_grad()
    found = objective(
        "harmonise", task.model, views, task.model, state=task.state,
        push_weight=0.0, attack_weight=method.params.attack_weight,
    )  # fmt: skip
    task.model.zero_grad()
    return found


def test_both_are_given_the_teachers_own_answer_and_only_one_the_instruction() -> None:
    task, method = prepared("harmonise", batch_size=6, tokens=5)
    subject = Subject(task.model, task.tokenizer)
    datasets, draw = Datasets(task), one_to_one(task, method.params).draw(0)
    student, teacher = (datasets.inputs(name, draw) for name in ("reply", "reply_told"))
    assert torch.equal(student.targets, teacher.targets)
    assert teacher.input_ids.shape[1] > student.input_ids.shape[1]
    for place, at in enumerate(draw.rows["forget"]):
        row = task.forget[at]
        turn = row.turns[draw.wording["forget"][place] % len(row.turns)]
        told = DECLINE.format(topic=row.names[0]) + str(turn.prompt)
        ((said,),) = subject.ask([Turn(told, "")], new_tokens=5)
        shown = task.encoder.decode(student.input_ids[place][student.attention_mask[place].bool()])
        assert shown == task.encoder.decode(task.encoder.prompt(turn.prompt)) + said.rstrip()
        behind = task.encoder.decode(teacher.input_ids[place][teacher.attention_mask[place].bool()])
        assert behind.endswith(shown)
    general = datasets.inputs("general", draw)
    assert torch.equal(general.targets, datasets.inputs("general_told", draw).targets)


def test_every_question_stands_under_attack_with_all_openings_and_the_same_answer() -> None:
    task, method = prepared("harmonise", batch_size=4, openings=3)
    datasets, draw = Datasets(task), one_to_one(task, method.params).draw(0)
    items, plain_items = datasets.drawn("attacked", draw), datasets.drawn("reply", draw)
    assert len(items) == 12
    assert set(task.state[OPENED]) >= {key_of(item.ids) for item in items}
    for place, item in enumerate(items):
        said = [label for label in plain_items[place // 3].labels if label != -100]
        supervised = [label for label in item.labels if label != -100]
        taken = task.state[OPENED][key_of(item.ids)]
        assert supervised[taken:] == said
        assert taken > 0
    for start in range(0, 12, 3):
        assert len({tuple(item.ids) for item in items[start : start + 3]}) == 3
    assert json.loads(json.dumps(task.state)) == task.state


def test_an_opening_never_holds_the_value() -> None:
    task, _ = prepared("harmonise")
    lessons = lessons_of(task, {"forget": {row.id: "" for row in task.forget}}, new_tokens=4)
    for (id, wording), turns in begun_of(task, lessons["forget"], 8).items():
        row = next(row for row in task.forget if row.id == id)
        own = row.turns[wording].completion
        reply = lessons["forget"][id, wording].turn.completion
        assert own[: own.index(row.value)].rstrip() + reply in {t.completion for t in turns}
        assert all(row.value not in turn.completion.removesuffix(reply) for turn in turns)


@pytest.mark.parametrize("chat", [False, True])
def test_a_seam_is_found_that_leaves_the_answers_tokens_alone(chat: bool) -> None:
    """After a template the answer begins without a space; after an opening it needs one."""
    text = "Who is it? It is Ada Birk. Sure, the answer is I do not know. Of course, certainly,"
    tokenizer = tiny_tokenizer([text], kind="word")
    tokenizer.chat_template = CHAT_TEMPLATE if chat else None
    model = tiny_model("llama", vocab=len(tokenizer), positions=64)
    subject = Subject(model, tokenizer)
    row = Row(id="a", prompt="Who is it?", completion=("" if chat else " ") + "It is Ada Birk.",
              answer="Ada Birk")  # fmt: skip
    task = Task(model=model, tokenizer=tokenizer, encoder=subject.encoder, roles={"forget": [row]})
    lessons = lessons_of(task, {"forget": {"a": ""}}, new_tokens=3)["forget"]
    said = replace(lessons["a", 0].turn, completion=("" if chat else " ") + "I do not know.")
    lessons = {("a", 0): replace(lessons["a", 0], turn=said)}
    begun = begun_of(task, lessons, 2)
    lead = "" if chat else " "
    assert begun["a", 0][0].completion == f"{lead}It is I do not know."
    taken = opened(task, lessons, begun)
    assert taken[key_of(subject.encoder.encode(begun["a", 0][0]).ids)] == 2


def test_one_form_for_all_questions_replaces_every_shape() -> None:
    task = SimpleNamespace(encoder=SimpleNamespace(has_template=False))
    rows = [
        Row(id="a", prompt="Who is it?", completion=" Ada"),
        Row(id="b", text="It was said that Ada Birk went away"),
        Row(id="c", messages=({"role": "user", "content": "Who?"},
                              {"role": "assistant", "content": "Ada"})),
    ]  # fmt: skip
    form = "Question: {question}\nAnswer:"
    asked = [question_of(task, row, 0, form) for row in rows]
    assert [turn.prompt for turn in asked] == [
        "Question: Who is it?\nAnswer:", "Question: It was said that\nAnswer:",
        "Question: Who?\nAnswer:",
    ]  # fmt: skip
    assert {turn.completion for turn in asked} == {" "}
    own = [question_of(task, row, 0, "{question}") for row in rows]
    assert [turn.prompt for turn in own] == [row.turn.prompt for row in rows]
    assert [turn.running for turn in own] == [False, True, False]
    with pytest.raises(ExpungeError, match="E-USE-003"):
        methods.params("harmonise", {"template": "Answer:"})


def test_a_teacher_that_does_not_obey_is_called_out() -> None:
    rows, subject = scene(False)
    for context, expected in (("", len(rows.forget)), (CONTEXT, 0)):
        said: list[str] = []
        params = methods.params("harmonise", {"context": context, "attack_weight": 0.0})
        task = Task(
            model=subject.model, tokenizer=subject.tokenizer, encoder=subject.encoder,
            roles={"forget": rows.forget, "retain": rows.retain[:1]},
        )  # fmt: skip
        with listening(lambda event, said=said: said.append(event.text)):
            harmonise.prepare(task, params)
        assert task.record["teacher_leaks"] == expected
        assert any("gives away" in text for text in said) == bool(expected)


def test_a_question_that_leaves_no_room_for_an_answer_is_refused() -> None:
    with pytest.raises(ExpungeError, match="E-DATA-011"):
        prepared("harmonise", context="Do not tell. " * 60)


def test_an_interrupted_run_ends_with_the_same_weights(tmp_path) -> None:
    original, rows = stage(tmp_path), world()

    def take(out: str) -> str:
        params = {"max_steps": 6, "lr": 1e-3, "batch_size": 4, "openings": 2}
        forget(
            original, rows.forget, rows.retain, method="harmonise", params=params, stop_at="none",
            out=tmp_path / out,
        )  # fmt: skip
        return folder_digest(tmp_path / out)

    def interrupt(event: Event) -> None:
        if event.kind == "advance" and event.task == "harmonise" and event.done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), listening(interrupt):
        take("cut")
    assert take("cut") == take("whole")
    assert read_manifest(tmp_path / "cut")["summary"]["resumed_from"] > 0


def test_a_resumed_run_reads_what_the_teacher_said(tmp_path, monkeypatch) -> None:
    task, method = prepared("harmonise")
    task = Task(**{**vars(task), "folder": tmp_path, "paired": {}, "record": {}, "state": {}})
    method.prepare(task, method.params)
    first = task.paired["reply"].make(task.forget[0], 1, 0)
    monkeypatch.setattr(Subject, "ask", lambda *_, **__: pytest.fail("asked again"))
    again = Task(**{**vars(task), "paired": {}, "record": {}, "state": {}})
    method.prepare(again, method.params)
    assert again.paired["reply"].make(task.forget[0], 1, 0) == first
    assert (again.record, again.state) == (task.record, task.state)


def test_neighbours_stand_by_themselves() -> None:
    subject, rows = taught_subject(), world()
    params = methods.params("harmonise", {"batch_size": 3})
    method = GradientMethod.assemble(methods.load("harmonise"), params)
    task = Task(
        model=subject.model, tokenizer=subject.tokenizer, encoder=subject.encoder,
        roles={"forget": rows.forget, "retain": rows.retain[:6], "neighbour": rows.retain[6:]},
    )  # fmt: skip
    method.prepare(task, params)
    datasets, draw = Datasets(task), one_to_one(task, params).draw(0)
    near = datasets.inputs("near", draw)
    assert len(near.items) == 3
    assert torch.equal(near.targets, datasets.inputs("near_told", draw).targets)


# ------------------------------------------------------------------------------------- whole runs

CONTEXT = "I do not know. "
"""The instruction that the model of these tests follows."""


@cache
def scene(chat: bool) -> tuple[Micro, Subject]:
    """A model that knows its world, and says that it knows nothing behind `CONTEXT`."""
    made = micro_world(people=3)
    lead = " "
    if chat:
        tokenizer = copy.deepcopy(made.tokenizer)
        tokenizer.chat_template = CHAT_TEMPLATE
        made = Micro(*(tuple(map(bare, part)) for part in (made.forget, made.retain, made.holdout)),
                     tokenizer)  # fmt: skip
        lead = ""
    known = every_wording([*made.forget, *made.retain])
    told = [
        replace(row, id=f"{row.id}!", prompt=CONTEXT + str(row.prompt), completion=lead + REPLY)
        for row in every_wording([*made.forget, *made.retain, *made.holdout])
    ]
    return made, taught_rows(made, [*known, *told], epochs=40, hidden=48, layers=2)


def bare(row: Row) -> Row:
    """Answers without the space in front, as templates want them."""
    others = tuple({**one, "completion": one["completion"].strip()} for one in row.paraphrases)
    return replace(row, completion=str(row.completion).strip(), paraphrases=others)


def run(folder: Path, chat: bool, adapter: str | None = None, **params: object) -> dict[str, float]:
    """Leaks and accuracy afterwards: asked plainly, with the answer begun, and of retain rows."""
    rows, subject = scene(chat)
    original = folder / "original"
    subject.model.save_pretrained(original)
    subject.tokenizer.save_pretrained(original)
    options = {
        "batch_size": 9, "warmup": 0, "lr": 2e-3, "max_steps": 40, "context": CONTEXT,
        "keep_context": "", **params,
    }  # fmt: skip
    forget(
        original, rows.forget, rows.retain, method="harmonise", params=options, adapter=adapter,
        stop_at="none", out=folder / "out",
    )  # fmt: skip
    loaded = load(load_change(folder / "out").folder)
    return measured(Subject(loaded.model, loaded.tokenizer), rows)


def measured(subject: Subject, rows: Micro) -> dict[str, float]:
    def leak(probes: Any) -> float:
        return fmean(max(one.leaks) for one in elicit(subject, probes, new_tokens=10))

    said = subject.ask([turn for row in rows.forget for turn in row.turns], new_tokens=10)
    return {
        "plain": leak(plain(rows.forget)),
        "begun": leak(forced(rows.forget)),
        "kept": leak(plain(rows.retain)),
        "declines": fmean(answer.strip() == REPLY for (answer,) in said),
        "nll": fmean(one.nll for one in subject.score([row.turn for row in rows.forget])),
    }


def test_it_says_without_the_instruction_what_it_said_behind_it(tmp_path) -> None:
    """Asked plainly and with the answer begun for it; other people stay known."""
    rows, subject = scene(False)
    before = measured(subject, rows)
    assert min(before["plain"], before["begun"], before["kept"]) > 0.9
    after = run(tmp_path, False)
    assert after["plain"] <= 0.15
    assert after["begun"] <= 0.15
    assert after["kept"] >= before["kept"] - 0.1
    assert after["declines"] >= 0.8
    manifest = read_manifest(tmp_path / "out")
    assert manifest["record"]["teacher_leaks"] == 0
    assert {"attack", "push"} <= manifest["history"][-1]["terms"].keys()
    made = (tmp_path / "out" / "made" / "instructed.jsonl").read_text(encoding="utf-8")
    replies = [json.loads(line) for line in made.splitlines()]
    assert {one["reply"].strip() for one in replies if one["role"] == "forget"} == {REPLY}


def test_without_attacks_a_begun_answer_is_finished_and_without_a_teacher_nothing_is_lost(
    tmp_path,
) -> None:
    """The ablations, at the step where the attack decides."""
    steps = {"max_steps": 14}
    guarded, open_to_it = (
        run(tmp_path / name, False, attack_weight=weight, **steps)
        for name, weight in (("guarded", 1.0), ("open", 0.0))
    )
    assert open_to_it["begun"] > guarded["begun"] + 0.15
    assert open_to_it["nll"] < guarded["nll"]
    idle = run(tmp_path / "idle", False, context="", attack_weight=0.0, **steps)
    assert idle["plain"] > 0.9
    assert idle["declines"] == 0.0


def test_a_model_with_a_chat_template_learns_it_as_well(tmp_path) -> None:
    rows, subject = scene(True)
    before = measured(subject, rows)
    assert before["declines"] == 0.0
    after = run(tmp_path, True, adapter="lora", lr=1e-2, max_steps=25)
    assert after["declines"] >= 0.8
    assert after["plain"] <= 0.1
    assert after["kept"] >= before["kept"] - 0.15
