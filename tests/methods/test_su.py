"""Scope-aware unlearning: its rows, its weight, when it rests, and the attack that it mends."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import pytest
import torch
from tiny_rig import exact, facts
from torch import Tensor

from expunge.attacks import sa
from expunge.core.errors import ExpungeError
from expunge.core.registry import methods
from expunge.data.encode import Encoder
from expunge.engine.change import load_change, read_manifest
from expunge.engine.datasets import Datasets
from expunge.engine.gradient import StepGradient
from expunge.engine.method import GradientMethod
from expunge.engine.run import forget
from expunge.engine.slots.sample import OneToOne, one_to_one
from expunge.engine.sources import Frozen
from expunge.engine.task import Task
from expunge.lm.digest import folder_digest
from expunge.lm.finetune import finetune
from expunge.lm.load import load
from expunge.lm.subject import Scene, Subject
from expunge.methods.su import Params, after, joined, prepare
from expunge.requests.names import prompts_of
from expunge.requests.rows import Row, Turn
from expunge.testing import tiny_model, tiny_tokenizer
from expunge.testing.methods import stage, taught_subject, world

BENIGN = "please"


def task_of(**given: Any) -> Task:
    rows, subject = world(), taught_subject().copy()
    return Task(
        model=subject.model.double(), tokenizer=subject.tokenizer, encoder=subject.encoder,
        roles={"forget": rows.forget, "retain": rows.retain}, **given,
    )  # fmt: skip


def wrapped(id: str, size: int, parts: int, around: bool, **own: Any) -> tuple[StepGradient, Task]:
    """The engine's step of a method, inside the wrapper or alone, prepared."""
    weights = {name: own.pop(name) for name in ("forget_weight", "retain_weight") if name in own}
    params = methods.params(id, {"batch_size": size // parts, "accumulation": parts, **weights})
    wrappers = [(methods.load("su"), methods.params("su", own))] if around else []
    method = GradientMethod.assemble(methods.load(id), params, wrappers)
    task = task_of(params=params, method=id)
    if method.prepare is not None:
        method.prepare(task, params)
    anchor = Frozen(tiny_model("llama", vocab=len(task.tokenizer), seed=7).double())
    sampler = method.sample(task, params)
    return StepGradient(method, task, Datasets(task), sampler, lambda _: anchor, steps=5), task


def gradient(
    id: str, *, size: int = 8, parts: int = 1, around: bool = True, rests: bool = False, **own: Any
) -> dict[str, Tensor]:
    step, task = wrapped(id, size, parts, around, **own)
    step.paused = rests
    step(task.model, 0, lambda loss: loss.backward())
    return grads(task)


def grads(task: Task) -> dict[str, Tensor]:
    return {n: p.grad.clone() for n, p in task.model.named_parameters() if p.grad is not None}


def scope_gradient(size: int = 8) -> dict[str, Tensor]:
    """Of the token mean over the pairs of the first step, one forward a pair."""
    step, task = wrapped("npo", size, 1, True)
    losses, tokens = [], 0
    for item in step.datasets.drawn("scope", step.sampler.draw(0)):
        logits = task.model(input_ids=torch.tensor([item.ids])).logits[0]
        said = [at for at, label in enumerate(item.labels) if label >= 0]
        losses += [-logits[at - 1].log_softmax(-1)[item.ids[at]] for at in said]
        tokens += len(said)
    (torch.stack(losses).sum() / tokens).backward()
    return grads(task)


@pytest.mark.parametrize(
    ("id", "own", "eta"),
    [
        ("npo", {}, 5.0),
        ("grad-diff", {}, 2.0),
        ("npo", {"forget_weight": 0.25, "retain_weight": 3.0, "eta": 1.5}, 1.5),
        ("grad-diff", {"forget_weight": 4.0, "eta": 0.5}, 0.5),
        ("pdu", {"forget_weight": 2.0}, 5.0),
        ("idk-dpo", {"forget_weight": 0.0, "eta": 7.0}, 7.0),
    ],
)
def test_eta_is_what_it_says_whatever_the_method_weighs(id: str, own: Any, eta: float) -> None:
    """Also around one that combines the gradients of its terms: no combiner sees the pairs."""
    weights = {name: value for name, value in own.items() if name.endswith("weight")}
    whole, base, pairs = (
        gradient(id, **own),
        gradient(id, around=False, **weights),
        scope_gradient(),
    )
    for name, value in pairs.items():
        torch.testing.assert_close(whole[name] - base[name], eta * value, rtol=1e-5, atol=1e-6)
    assert any(float(value.abs().max()) > 1e-2 for value in pairs.values())


@pytest.mark.parametrize("size", [8, 16, 36])
def test_how_a_step_is_cut_changes_nothing(size: int) -> None:
    """Also where a step is larger than the forget set."""
    whole, parts = gradient("npo", size=size), gradient("npo", size=size, parts=size)
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-12, atol=1e-12)


def test_it_rests_with_the_forget_term() -> None:
    resting, alone = gradient("npo", rests=True), gradient("npo", around=False, rests=True)
    assert resting.keys() == alone.keys()
    assert all(torch.equal(resting[name], alone[name]) for name in alone)


class Pair(NamedTuple):
    """What a pair of a step turned out to be."""

    forgotten: Row
    prompt: str
    kept: Turn
    behind: bool


@cache
def bytewise() -> Any:
    """A tokenizer that keeps all texts apart."""
    texts = [turn.completion for row in world().forget for turn in row.turns]
    return tiny_tokenizer(texts, vocab=400)


def spelt(size: int, **own: Any) -> tuple[Task, OneToOne]:
    """The micro world in its letters, prepared, and its sampler; there is no model."""
    params = methods.params("npo", {"batch_size": size})
    task = Task(
        model=None, tokenizer=bytewise(), encoder=Encoder(bytewise(), 512),  # type: ignore[arg-type]
        roles={"forget": world().forget, "retain": world().retain}, params=params,
    )  # fmt: skip
    prepare(task, Params(**own))
    return task, one_to_one(task, params)


def pairs_of(size: int, step: int = 0, **own: Any) -> list[Pair]:
    """The pairs of a step, told from the tokens of all that could stand there."""
    task, sampler = spelt(size, **own)
    draw = sampler.draw(step)
    items = Datasets(task).drawn("scope", draw)
    rows = [task.forget[row] for row in draw.rows["forget"]]
    possible = {
        tuple(task.encoder.encode(Turn(text, turn.completion)).ids): Pair(row, prompt, turn, behind)
        for row in rows
        for prompt in prompts_of(row)
        for turn in (turn for row in task.retain for turn in row.turns)
        for behind, text in ((False, f"{prompt} {turn.prompt}"), (True, f"{turn.prompt} {prompt}"))
    }
    pairs = [possible[tuple(item.ids)] for item in items]
    for item, pair in zip(items, pairs, strict=True):
        answer = task.encoder.encode(pair.kept)
        told = [label for label in item.labels if label >= 0]
        assert told == [label for label in answer.labels if label >= 0]
        assert item.ids[-len(told) :] == told
    each = len(pairs) // len(rows)
    assert [pair.forgotten for pair in pairs] == [row for row in rows for _ in range(each)]
    return pairs


def test_a_retain_answer_stands_behind_a_forgotten_prompt_of_the_step() -> None:
    """The prompt in the wording drawn, never its answer; the retain answer alone supervised."""
    task, sampler = spelt(8)
    draw = sampler.draw(0)
    drawn = zip(draw.rows["forget"], draw.wording["forget"], strict=True)
    asked = [prompts_of(task.forget[row])[wording % 2] for row, wording in drawn]
    pairs = pairs_of(8)
    assert [pair.prompt for pair in pairs] == asked
    assert len({pair.kept for pair in pairs}) > 4
    assert not any(pair.behind for pair in pairs)


def test_a_step_has_as_many_pairs_as_retain_rows_and_draws_them_anew() -> None:
    assert [len(pairs_of(size)) for size in (8, 12, 24, 30)] == [8, 12, 24, 24]
    first, later = ({pair.forgotten.id: pair.kept for pair in pairs_of(12, step=s)} for s in (0, 1))
    assert first.keys() == later.keys() == {row.id for row in world().forget}
    assert sum(first[id] != later[id] for id in first) >= 6


def test_the_forgotten_prompt_may_stand_behind_in_half_of_the_pairs() -> None:
    shares = [pair.behind for step in range(4) for pair in pairs_of(12, step=step, order="both")]
    assert 0.25 < fmean(shares) < 0.75


OWN = Turn("Where is Bo?", " In Rome.")
TALK = Turn(
    (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Where is Bo?"},
    ),
    "In Rome.",
)


def test_how_two_prompts_are_one() -> None:
    assert joined(OWN, "Who is Al?") == Turn("Who is Al? Where is Bo?", " In Rome.")
    assert joined(OWN, "Who is Al?", behind=True).prompt == "Where is Bo? Who is Al?"
    text = Turn("", "It rained.", running=True)
    for behind in (False, True):
        assert joined(text, "Al is", behind=behind) == replace(text, prompt="Al is ")
    talk = joined(TALK, "Who is Al?")
    assert talk.prompt == (*TALK.prompt[:3], {"role": "user", "content": "Who is Al? Where is Bo?"})


def test_how_two_prompts_are_two_turns() -> None:
    other = {"role": "user", "content": "Who is Al?"}
    mine = {"role": "user", "content": "Where is Bo?"}
    assert after(OWN, "Who is Al?") == Turn((other, mine), " In Rome.")
    assert after(OWN, "Who is Al?", behind=True).prompt == (mine, other)
    assert after(TALK, "Who is Al?").prompt == (*TALK.prompt[:3], other, TALK.prompt[3])


def chatting(template: str | None = None, **own: Any) -> tuple[Task, Any]:
    rows = [Row(id=name, prompt=f"Who is {name}?", completion=f"{name} it is.") for name in "abcd"]
    texts = [f"{row.prompt}{row.completion}" for row in rows]
    tokenizer = tiny_tokenizer(texts, chat=True, vocab=400)
    tokenizer.chat_template = template or tokenizer.chat_template
    task = Task(
        model=None, tokenizer=tokenizer, encoder=Encoder(tokenizer, 128),  # type: ignore[arg-type]
        roles={"forget": rows[:2], "retain": rows[2:]},
    )  # fmt: skip
    prepare(task, Params(**own))
    return task, task.paired["scope"]


@pytest.mark.parametrize(
    ("turns", "shape", "shown"),
    [
        ("one", "one turn", "[user] Who is a? Who is d?\n[assistant] d it is."),
        ("two", "two turns", "[user] Who is a?\n[user] Who is d?\n[assistant] d it is."),
    ],
)
def test_under_a_chat_template_it_is_one_turn_or_two(turns: Any, shape: str, shown: str) -> None:
    task, scope = chatting(turns=turns)
    item = task.encoder.encode(scope.make(task.forget[0], 0, 1))
    assert task.tokenizer.decode(item.ids, skip_special_tokens=True).strip() == shown
    told = [label for label in item.labels if label >= 0]
    assert task.encoder.decode(told).strip() == "d it is."
    assert task.record["scope"] == shape


def test_a_template_that_refuses_two_turns_says_so_before_training() -> None:
    strict = (
        "{% for message in messages %}"
        "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('roles must alternate') }}{% endif %}[{{ message['role'] }}] "
        "{{ message['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant] {% endif %}"
    )
    chatting(strict)
    with pytest.raises(ExpungeError) as caught:
        chatting(strict, turns="two")
    assert caught.value.code == "E-MODEL-006"


def test_a_pair_without_room_is_the_retain_row_alone() -> None:
    task = task_of()
    long = max(len(task.encoder.encode(turn).ids) for row in task.retain for turn in row.turns)
    tight = replace(task, encoder=Encoder(task.tokenizer, long + 1))
    prepare(tight, Params())
    own = {turn for row in task.retain for turn in row.turns}
    made = {tight.paired["scope"].make(tight.forget[0], 0, at) for at in range(len(own))}
    assert made & own
    assert all(len(tight.encoder.encode(turn).ids) <= long + 1 for turn in made)


@pytest.fixture(scope="module")
def micro(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stage(tmp_path_factory.mktemp("models"))


def test_eta_0_is_the_method_bit_for_bit(micro: Path, tmp_path: Path) -> None:
    rows = world()
    for name, around in (("plain", []), ("none", ["su:0"]), ("some", ["su"])):
        forget(
            micro, rows.forget, rows.retain, method="grad-diff", wrappers=around, stop_at="none",
            params={"max_steps": 3, "lr": 1e-3, "warmup": 0}, out=tmp_path / name,
        )  # fmt: skip
    digests = [folder_digest(tmp_path / name) for name in ("plain", "none", "some")]
    assert digests[0] == digests[1] != digests[2]
    manifest = read_manifest(tmp_path / "some")
    assert manifest is not None
    assert manifest["record"] == {"eta": 2.0, "scope": "plain text"}
    assert manifest["history"][0]["terms"]["scope"] > 0


def polite(rows: Sequence[Row]) -> tuple[Row, ...]:
    return tuple(replace(row, id=f"{row.id}!", prompt=f"{BENIGN} {row.prompt}") for row in rows)


@cache
def knowing() -> Subject:
    """The tiny rig, taught on that a benign word in front changes no answer."""
    rows = [row for part in facts() for row in part]
    texts = [f"{row.prompt}{row.completion}" for row in (*rows, *polite(rows))]
    tokenizer = tiny_tokenizer(texts, kind="word", vocab=256)
    model = tiny_model("llama", vocab=len(tokenizer), hidden=64, layers=2, seed=0, positions=32)
    finetune(model, tokenizer, rows, steps=200, lr=3e-3, batch_size=32, seed=0)
    both = [*rows, *polite(rows)]
    finetune(model, tokenizer, both, steps=150, lr=1e-3, batch_size=64, seed=0)
    return Subject(model, tokenizer)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models")
    knowing().model.save_pretrained(path)
    knowing().tokenizer.save_pretrained(path)
    return path


def unlearned(
    rig: Path, out: Path, rows: Sequence[Row], around: Sequence[str], seed: int
) -> Subject:
    forget(
        rig, rows, facts()[1], method="grad-diff", wrappers=around, stop_at="none", seed=seed,
        params={"batch_size": 24, "warmup": 0, "lr": 2e-3, "epochs": 60}, out=out,
    )  # fmt: skip
    loaded = load(load_change(out).folder)
    return Subject(loaded.model, loaded.tokenizer)


def test_the_attack_changes_every_prompt_or_none() -> None:
    given, kept = facts()
    assert sa.stealthy(given, kept, sa.Params(rho=0.0)) == list(given)
    worded = sa.stealthy(given, kept, sa.Params(trigger=BENIGN))
    assert [row.prompt for row in worded] == [f"{BENIGN} {row.prompt}" for row in given]
    assert [row.completion for row in worded] == [row.completion for row in given]


class Outcome(NamedTuple):
    """What the attack did, a mean over two seeds but for its own cost.

    Attributes:
        plain: Share of kept rows known word by word.
        polite: The same, asked with the benign word.
        forgotten: Share of forget rows known word by word.
        cost: What the attack says of itself.
    """

    plain: float
    polite: float
    forgotten: float
    cost: float


def attacked(rig: Path, folder: Path, *around: str) -> Outcome:
    """Let `sa` carry out the request as it is and as it words it; once more with another seed."""
    given, kept = facts()
    models = []

    def process(rows: Sequence[Row]) -> Subject:
        models.append(unlearned(rig, folder / str(len(models)), rows, around, 0))
        return models[-1]

    scene = Scene(
        retain=kept, neighbour=(), seed=0, new_tokens=8, original=knowing(), unlearn=process
    )
    leak = sa.mount(knowing(), given, scene, sa.Params(trigger=BENIGN))
    worded = [models[1], unlearned(rig, folder / "again", polite(given), around, 1)]
    shares = [fmean(exact(model, rows) for model in worded) for rows in (kept, polite(kept), given)]
    cost = fmean(leak.per_row.values()) - fmean(leak.beside["clean"].values())
    return Outcome(*shares, cost)


def test_whoever_is_polite_is_forgotten_and_the_scope_term_mends_it(
    rig: Path, tmp_path: Path
) -> None:
    """The card's check: with the word at most .2 of the kept rows, with the term at least .7."""
    for rows in facts():
        assert exact(knowing(), rows) == exact(knowing(), polite(rows)) == 1.0
    bare, mended = attacked(rig, tmp_path / "bare"), attacked(rig, tmp_path / "su", "su:1")
    assert bare.polite <= 0.2
    assert bare.cost >= 0.5
    assert mended.polite >= 0.7
    assert mended.cost <= 0.25
    assert min(bare.plain, mended.plain) >= 0.9
    assert max(bare.forgotten, mended.forgotten) <= 0.1
