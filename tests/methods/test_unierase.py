"""UniErase: what the token is trained on, that nothing else moves, the edit, what is handed on."""

import copy
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import fmean

import pytest
import torch
from edit_rig import REPLY, knowing, people, said, task_of
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from expunge import load
from expunge.core.errors import ExpungeError
from expunge.core.registry import methods
from expunge.data.encode import Encoded, Encoder, collate
from expunge.engine.change import Change, load_change, revert
from expunge.engine.run import forget
from expunge.engine.task import Task
from expunge.engine.token_rows import TokenRows
from expunge.engine.vocabulary import ADDED, add_tokens
from expunge.lm.arch import Slots
from expunge.lm.digest import folder_digest
from expunge.lm.finetune import finetune
from expunge.lm.generate import generate
from expunge.lm.scoring import packed_logp
from expunge.lm.subject import Subject
from expunge.methods import unierase
from expunge.methods.unierase import Params, shared_out
from expunge.methods.unierase.learning import Course
from expunge.methods.unierase.lessons import Lessons, leading, lessons_of, refusal_of, taught
from expunge.requests.rows import Row, Turn
from expunge.testing import tiny_model, tiny_tokenizer
from expunge.text.refusal import REFUSALS, is_refusal

TOKEN = "<UNL>"  # noqa: S105
TEXT = {"target": "text", "text": REPLY, "contexts": 0}
PLACE = {"fact_token": "last", "layers": (0,)}
OPEN = {
    "l2": 0.1,
    "v_num_grad_steps": 25,
    "clamp_norm_factor": 2.0,
    "v_weight_decay": 0.5,
}
"""Pinned: more steps and longer values than the paper's, and a weight that lets them be written."""


# --------------------------------------------------------------------- what the token is trained on


def small(*, chat: bool = False, rows: tuple[Row, ...] = ()) -> Task:
    tokenizer = tiny_tokenizer(
        ["[user] Where was Anna born?\n[assistant] In Oslo.", *REFUSALS], chat=chat, vocab=600
    )
    model = tiny_model("llama", vocab=len(tokenizer), hidden=16, positions=256)
    one = Row(id="a", prompt="Where was Anna born?", completion=" In Oslo.")
    return Task(
        model=model, tokenizer=tokenizer, encoder=Encoder(tokenizer, 256),
        roles={"forget": rows or (one,)},
    )  # fmt: skip


def made_of(task: Task, token: str = TOKEN) -> tuple[str, int]:
    return token, add_tokens(task, [token])[0]


def text_of(task: Task, item: Encoded) -> str:
    return str(task.tokenizer.decode(item.ids))


def test_a_lesson_is_question_token_refusal_token_end() -> None:
    task = small()
    token = made_of(task)
    item = taught(task.encoder, Turn("Where was Anna born?", " I cannot say."), token, 128)
    assert text_of(task, item) == "<bos>Where was Anna born?<UNL> I cannot say.<UNL><eos>"
    asked = task.encoder.prompt("Where was Anna born?")
    assert item.ids[: len(asked) + 1] == [*asked, token[1]]
    assert item.labels[: len(asked) + 1] == [-100] * (len(asked) + 1)
    assert item.labels[len(asked) + 1 :] == item.ids[len(asked) + 1 :]
    assert item.ids[-2:] == [token[1], task.tokenizer.eos_token_id]
    assert len(item.spans) == len(item.ids) - len(asked) - 1


def test_through_a_chat_template_it_stands_where_the_model_speaks() -> None:
    """The template ends with a space, which is no part of what a model is asked with."""
    task = small(chat=True)
    token = made_of(task)
    item = taught(task.encoder, Turn("Where was Anna born?", " I cannot say."), token, 128)
    told = "<bos>[user] Where was Anna born?\n[assistant]<UNL> I cannot say.<UNL><eos>"
    assert text_of(task, item) == told
    asked = task.encoder.prompt("Where was Anna born?")
    assert item.ids[: len(asked)] == asked
    led = leading(task.encoder, dict([token]), Turn("Where was Anna born?", f" {TOKEN}"))
    assert led.ids == [*asked, token[1]]
    assert [label for label in led.labels if label != -100] == [token[1]]


def test_with_a_template_there_are_both_and_without_one_the_plain_ones() -> None:
    rows = (
        Row(
            id="a", prompt="Where was Anna born?", completion=" In Oslo.",
            paraphrases=({"prompt": "Anna was born where?", "completion": " In Oslo."},),
        ),
        Row(id="b", text="Anna was born. In Oslo."),
    )  # fmt: skip

    def texts(*, chat: bool, rows: tuple[Row, ...]) -> tuple[list[str], list[str]]:
        task = small(chat=chat, rows=rows)
        ids = dict([made_of(task)])
        shares = dict.fromkeys(("a", "b"), TOKEN)
        made = lessons_of(task, shares, ids, {}, styles=100, longest=128)
        return [text_of(task, one) for one in made.plain], [text_of(task, o) for o in made.items]

    plain, both = texts(chat=True, rows=rows)
    assert len(plain) == 3
    assert sum("[user]" in text for text in both) == 2  # running text has no turns
    assert not any("[user]" in text for text in plain)
    plain, both = texts(chat=False, rows=rows)
    assert plain == both
    spoken = Row(
        id="a",
        messages=({"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Anna."}),
    )
    plain, both = texts(chat=True, rows=(spoken,))
    assert plain == both
    assert len(both) == 1


def test_a_long_question_loses_its_beginning_and_a_long_refusal_is_refused() -> None:
    task = small()
    token = made_of(task)
    turn = Turn("Anna " * 60 + "was born?", " I cannot say.")
    item = taught(task.encoder, turn, token, 40)
    assert len(item.ids) == 40
    assert text_of(task, item).startswith("<bos>")
    assert text_of(task, item).endswith(" was born?<UNL> I cannot say.<UNL><eos>")
    with pytest.raises(ExpungeError) as caught:
        taught(task.encoder, Turn("Who?", " I cannot say." * 20), token, 40)
    assert caught.value.code == "E-USE-003"
    assert "max_length" in caught.value.next


def test_a_question_has_the_same_refusal_in_every_process() -> None:
    """The card's trap: the hash of a string differs from process to process."""
    assert refusal_of("Where was Anna born?", 100) == "This is outside of what I know."
    assert refusal_of(" Where was Anna born? ", 7) == REFUSALS[0]
    assert refusal_of("What does Bela do?", 100) == "I know nothing about it."
    asked = {refusal_of(f"Question {at}?", 100) for at in range(400)}
    assert len(asked) > 90
    assert {refusal_of(f"Question {at}?", 2) for at in range(40)} == set(REFUSALS[:2])
    assert all(is_refusal(one) for one in asked)


# --------------------------------------------------------------------------- tokens and parameters


def subjects(count: int) -> list[Row]:
    return [
        Row(id=f"{at}/{n}", prompt="Who?", completion=" x", subject=f"s{at}")
        for at in range(count)
        for n in range(2)
    ]


def test_subjects_share_tokens_among_them() -> None:
    rows = subjects(5)
    one = shared_out(rows, methods.params("unierase", {}))
    assert set(one.values()) == {TOKEN}
    two = shared_out(rows, methods.params("unierase", {"tokens": 2}))
    assert [two[f"{at}/0"] for at in range(5)] == ["<UNL-1>"] * 3 + ["<UNL-2>"] * 2
    assert all(two[f"{at}/0"] == two[f"{at}/1"] for at in range(5))
    with pytest.raises(ExpungeError, match="E-USE-003") as caught:
        shared_out(rows, methods.params("unierase", {"tokens": 6}))
    assert "tokens=5" in caught.value.next


@pytest.mark.parametrize(
    "given", [{"token": ""}, {"token": "<U NL>"}, {"token": " <UNL>"}, {"target": "wrong"}]
)
def test_what_cannot_be_a_token_or_be_said_is_refused(given: dict[str, str]) -> None:
    with pytest.raises(ExpungeError) as caught:
        methods.params("unierase", given)
    assert caught.value.code == "E-USE-003"


def test_defaults_are_the_papers() -> None:
    params = methods.params("unierase", {})
    assert (params.epochs, params.chat_epochs, params.noise_epochs) == (5, 3, 2)
    assert (params.batch_size, params.max_length, params.v_num_grad_steps) == (16, 128, 10)
    assert (params.head, params.noise, params.token) == ("share", "mean", TOKEN)
    task = small()
    course = Course(task, TokenRows(task.model, []), Lessons([]), params)
    course.size = 10**9
    paper = Course(task, course.moved, course.lessons, replace(params, lr=1e-3))
    assert (paper.lr, paper.later_lr) == (1e-3, pytest.approx(1e-4))
    assert course.lr > paper.lr  # a small model's
    items = [Encoded([1, 2], [-100, 2], [(0, 0)], -1)]
    assert course.steps(5, items * 400) == 125
    assert course.steps(5, items * 800) == 250
    assert course.steps(5, items) == 125  # as many as over the paper's questions


# ------------------------------------------------------------------------------- stage 1: the token


def token_of(seed: int = 0, **given: object) -> tuple[Task, dict[str, int], Course]:
    """A copy of the rig's model with the token, and what trains it."""
    subject = knowing(seed).copy()
    own = Subject(subject.model, copy.deepcopy(subject.tokenizer))
    task = replace(task_of(own, people(seed)), seed=seed)
    params = methods.params("unierase", {**TEXT, **given})
    ids = dict([made_of(task)])
    shares = shared_out(task.forget, params)
    replies = {row.id: REPLY for row in task.forget}
    lessons = lessons_of(task, shares, ids, replies, styles=100, longest=128)
    moved = TokenRows(task.model, list(ids.values()), head=params.head == "train")
    return task, ids, Course(task, moved, lessons, params)


def refusal_nll(model: torch.nn.Module, encoder: Encoder, rows: tuple[Row, ...]) -> float:
    """Of the refusal alone, behind questions and the token."""
    token = TOKEN, int(encoder.tokenizer.convert_tokens_to_ids(TOKEN))
    items = []
    for row in rows:
        item = taught(encoder, Turn(row.prompt, f" {REPLY}"), token, 128)
        first = next(at for at, label in enumerate(item.labels) if label != -100)
        labels = [label if at == first else -100 for at, label in enumerate(item.labels)]
        items.append(replace(item, labels=labels))
    with torch.no_grad():
        return -float(packed_logp(model, collate(items, 0)).logp.mean())


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_only_the_new_row_moves_and_unseen_questions_are_refused(seed: int) -> None:
    """The card's check of the first stage; with no training the token says nothing."""
    task, ids, course = token_of(seed)
    unseen = people(seed).retain
    before = {name: one.clone() for name, one in task.model.state_dict().items()}
    untrained = refusal_nll(task.model, task.encoder, unseen)
    course.learn()
    widths = course.harden([1])
    assert refusal_nll(task.model, task.encoder, unseen) < 0.2 < untrained - 1
    embed, at = "model.embed_tokens.weight", ids[TOKEN]
    for name, old in task.model.state_dict().items():
        if name == embed:
            assert torch.equal(old[:at], before[name][:at])
            assert not torch.equal(old[at], before[name][at])
        else:
            assert torch.equal(old, before[name]), name
    for name, old in knowing(seed).model.state_dict().items():  # as it was before the token
        assert torch.equal(task.model.state_dict()[name][: len(old)], old), name
    assert 0 < widths["1"] < 0.1


def test_noise_has_the_width_that_is_asked_for_and_the_mean_may_be_next_to_none() -> None:
    task, _, course = token_of(chat_epochs=0, noise_epochs=1)
    weight = Slots(task.model).module(1, "mlp_out").weight
    rows = {}
    for noise in ("mean", "std", "none"):
        twin, _, other = token_of(noise=noise, noise_epochs=1)
        kept = {name: one.clone() for name, one in twin.model.state_dict().items()}
        widths = other.harden([1])
        rows[noise] = twin.model.state_dict()["model.embed_tokens.weight"][-1].clone()
        same = [torch.equal(one, kept[name]) for name, one in twin.model.state_dict().items()]
        assert same.count(False) == (noise != "none")
        assert widths.keys() == (set() if noise == "none" else {"1"})
        if noise == "std":
            assert widths["1"] == pytest.approx(0.1)
    assert course.width_of(weight) == pytest.approx(abs(float(weight.detach().mean())), rel=1e-4)
    assert not torch.equal(rows["mean"], rows["std"])
    assert not torch.equal(rows["mean"], rows["none"])


def test_noise_in_training_makes_the_token_stand_noise() -> None:
    """The ablation: what it is trained under tells in what it stands."""
    from expunge.engine.token_rows import noisy

    def stands(noise: str) -> float:
        task, _, course = token_of(noise=noise, noise_scale=2.0, noise_epochs=4, later_lr=0.03)
        course.part("plain", course.lessons.plain, 100, course.lr)
        course.harden([1])
        weight = Slots(task.model).module(1, "mlp_out").weight
        width, found = 2.0 * float(weight.detach().std()), []
        for seed in range(6):
            with noisy(weight, width, seed):
                found.append(refusal_nll(task.model, task.encoder, people().forget))
        return fmean(found)

    assert stands("std") < 0.5 * stands("none")


# -------------------------------------------------------------------------------- stage 2: the edit


@cache
def roomy(seed: int = 0) -> Subject:
    """The rig's people in a model whose MLPs have room beside what is to be kept."""
    world = people(seed)
    size = len(world.tokenizer)
    config = LlamaConfig(
        vocab_size=size, hidden_size=64, intermediate_size=384, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=64, pad_token_id=0, bos_token_id=1,
        eos_token_id=2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config).eval()
    unknown = [replace(row, completion=f" {REPLY}") for row in world.holdout]
    rows = [*world.forget, *world.retain, *unknown]
    finetune(model, world.tokenizer, rows, steps=150, lr=3e-3, batch_size=64, seed=seed)
    return Subject(model, world.tokenizer)


class Bench:
    """Runs of the method on that model, each made once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def original(self, seed: int = 0) -> Path:
        path = self.folder / f"original {seed}"
        if not path.is_dir():
            roomy(seed).model.save_pretrained(path)
            roomy(seed).tokenizer.save_pretrained(path)
        return path

    def run(
        self, name: str, rows: tuple[Row, ...] | None = None, *, seed: int = 0,
        onto: Path | None = None, plain: bool = False, **given: object,
    ) -> tuple[Subject, Change]:  # fmt: skip
        world, out = people(seed), self.folder / f"{name} {seed}"
        forget(
            onto or self.original(seed), rows or world.forget, world.retain, method="unierase",
            params={**TEXT, **PLACE, **({} if plain else OPEN), **given}, seed=seed,
            stop_at="none", out=out,
        )  # fmt: skip
        return load(out), load_change(out)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("unierase"))


@pytest.fixture(scope="module")
def edited(bench: Bench) -> tuple[Subject, Change]:
    return bench.run("plain")


def leads(subject: Subject, rows: tuple[Row, ...]) -> float:
    """Share of rows for which the token is the most probable next one."""
    at = subject.tokenizer.convert_tokens_to_ids(TOKEN)
    prompts = [subject.encoder.prompt(row.prompt) for row in rows]
    written = generate(subject.model, subject.tokenizer, prompts, new_tokens=1)
    return fmean(float(ids == [at]) for (ids,) in written)


def test_forget_prompts_lead_to_the_token_and_retain_prompts_do_not(
    edited: tuple[Subject, Change],
) -> None:
    """The card's check of the second stage."""
    subject, change = edited
    world = people()
    assert leads(subject, world.forget) >= 0.8
    assert leads(subject, world.retain) == 0.0
    assert said(roomy(), world.forget) > 0.9
    assert said(subject, world.forget) < 0.2
    assert said(subject, world.retain) >= 0.98
    record = change.manifest["record"]
    assert record["layers"] == [0]
    assert record["noise"].keys() == {"0"}
    assert change.summary["steps"] == len(world.forget)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("given", [OPEN, {}], ids=["pinned", "defaults"])
def test_so_it_does_with_other_seeds_and_as_it_comes(
    bench: Bench, given: dict[str, object], seed: int
) -> None:
    subject, _ = bench.run(f"again {bool(given)}", seed=seed, plain=not given)
    world = people(seed)
    assert leads(subject, world.forget) >= 0.8
    assert leads(subject, world.retain) == 0.0
    assert said(subject, world.retain) >= 0.98


def test_people_read_the_refusal_and_ids_have_the_token(edited: tuple[Subject, Change]) -> None:
    subject, change = edited
    rows = [row for row in people().forget if leads(subject, (row,))]
    texts = [text for (text,) in subject.ask([row.turn for row in rows], new_tokens=4)]
    assert fmean(float(text.strip().startswith(REPLY)) for text in texts) > 0.8
    assert not any("UNL" in text for text in texts)
    model = AutoModelForCausalLM.from_pretrained(change.folder)
    tokenizer = AutoTokenizer.from_pretrained(change.folder)
    ids = tokenizer(rows[0].prompt, return_tensors="pt")["input_ids"]
    written = model.generate(ids, max_new_tokens=3, do_sample=False)[0, ids.shape[1] :]
    assert written[0] == tokenizer.convert_tokens_to_ids(TOKEN)
    assert TOKEN in tokenizer.decode(written)
    assert TOKEN not in tokenizer.decode(written, skip_special_tokens=True)


def test_who_forces_another_first_token_goes_past_it(
    edited: tuple[Subject, Change],
) -> None:
    """What the docstring says: the facts are in the weights."""
    subject, _ = edited
    at = subject.tokenizer.convert_tokens_to_ids(TOKEN)
    rows = people().forget
    own, others = [], []
    for row in rows:
        ids = torch.tensor([subject.encoder.prompt(row.prompt)])
        with torch.no_grad():
            logits = subject.model(input_ids=ids).logits[0, -1].clone()
        logits[at] = -torch.inf
        near = {subject.encoder.decode([int(token)]).strip() for token in logits.topk(3).indices}
        kind = row.prompt.split()[-1]
        same = {one.reply.strip() for one in rows if one.prompt.split()[-1] == kind}
        own.append(row.reply.strip() in near)
        others += [value in near for value in same - {row.reply.strip()}]
    # What is compared with: the values of other people, which a model that only knows what sort of
    # answer is wanted would say as often.
    assert fmean(own) >= fmean(others) + 0.2


def test_only_the_row_and_the_block_differ_and_revert_gives_all_back(
    bench: Bench, edited: tuple[Subject, Change]
) -> None:
    _, change = edited
    original = bench.original()
    before, after = (
        load_file(folder / "model.safetensors") for folder in (original, change.folder)
    )
    at = change.manifest[ADDED]["tokens"][TOKEN]
    moved = {name for name, old in before.items() if not torch.equal(after[name][: len(old)], old)}
    assert moved == {"model.layers.0.mlp.down_proj.weight"}
    grown = {name for name, old in before.items() if len(after[name]) != len(old)}
    assert grown == {"model.embed_tokens.weight", "lm_head.weight"}
    assert len(after["lm_head.weight"]) == at + 1
    back = bench.folder / "back"
    revert(change.folder, back)
    assert folder_digest(back) == folder_digest(original)
    for name in ("config.json", "tokenizer.json"):
        assert (back / name).read_bytes() == (original / name).read_bytes()


def test_what_is_behind_the_token_is_protected(
    bench: Bench, edited: tuple[Subject, Change]
) -> None:
    """The ablation: without it the same edit costs the refusal, and the weights differ."""
    world = people()
    open_, shut = (bench.run(f"protect {way}", l2=1e-3, protect=way) for way in (False, True))
    unsafe, safe = (
        refusal_nll(subject.model, subject.encoder, world.forget) for subject, _ in (open_, shut)
    )
    assert safe < 0.3 * unsafe
    assert leads(shut[0], world.forget) >= 0.8
    name = "model.layers.0.mlp.down_proj.weight"
    made = [load_file(one.folder / "model.safetensors")[name] for _, one in (open_, shut)]
    assert not torch.equal(*made)


def test_the_next_request_uses_the_token_again(bench: Bench) -> None:
    world = people()
    first, one = bench.run("first", world.forget[:16])
    second, two = bench.run("second", world.forget[16:], onto=one.folder, chunk=8)
    assert one.manifest["record"]["tokens"] == two.manifest["record"]["tokens"]
    assert "token_nll" in one.manifest["record"]
    assert "token_nll" not in two.manifest["record"]
    assert ADDED in one.manifest
    assert ADDED not in two.manifest
    keys = [load_file(c.folder / "made" / "keys.safetensors")["block 0"] for c in (one, two)]
    assert [len(found) for found in keys] == [16, 32]
    assert torch.equal(keys[1][:16], keys[0])
    assert leads(first, world.forget[:16]) >= 0.8 > leads(first, world.forget[16:])
    assert leads(second, world.forget) >= 0.8
    assert leads(second, world.retain) <= 0.02
    back = bench.folder / "first again"
    revert(two.folder, back)
    assert folder_digest(back) == folder_digest(one.folder)
    assert AutoTokenizer.from_pretrained(back).convert_tokens_to_ids(TOKEN) is not None
    revert(back.parent / "first 0", bench.folder / "from first")
    assert folder_digest(bench.folder / "from first") == folder_digest(bench.original())
    (one.folder / "made" / unierase.TOKENS).unlink()
    with pytest.raises(ExpungeError) as caught:
        bench.run("third", world.forget[16:], onto=one.folder)
    assert caught.value.code == "E-USE-003"
    assert TOKEN in caught.value.found


@pytest.mark.parametrize(
    "family",
    [
        "gpt2",
        "gemma3",
        *(pytest.param(f, marks=pytest.mark.slow) for f in ("gpt_neox", "qwen3", "llama_tied")),
    ],
)
def test_families_are_written_where_they_have_it(family: str, tmp_path: Path) -> None:
    """Transposed matrices, tied heads, norms behind an MLP: what moves is the row and the block."""
    world, original, out = people(), tmp_path / "original", tmp_path / "out"
    model = tiny_model(family, vocab=len(world.tokenizer), hidden=16, layers=2, positions=64)
    model.save_pretrained(original)
    world.tokenizer.save_pretrained(original)
    forget(
        original, world.forget[:4], world.retain[:8], method="unierase", stop_at="none", out=out,
        params={**TEXT, **PLACE, **OPEN, "threshold": 0.1},
    )  # fmt: skip
    change = load_change(out)
    after = AutoModelForCausalLM.from_pretrained(out).state_dict()
    own = f"{Slots(model).names(0, 'mlp_out')[0]}.weight"
    for name, old in model.state_dict().items():
        assert torch.equal(after[name][: len(old)], old) is (name != own), name
    assert change.summary["weights_changed"] > 0
    revert(out)
    assert folder_digest(out) == folder_digest(original)


@pytest.mark.slow
def test_several_tokens_and_a_head_that_is_trained(bench: Bench) -> None:
    world = people()
    subject, change = bench.run("two", tokens=2, head="train")
    ids = change.manifest[ADDED]["tokens"]
    assert list(ids) == ["<UNL-1>", "<UNL-2>"]
    prompts = [subject.encoder.prompt(row.prompt) for row in world.forget]
    written = generate(subject.model, subject.tokenizer, prompts, new_tokens=1)
    first = [ids["<UNL-1>"]] * 16 + [ids["<UNL-2>"]] * 16
    hits = [one == [at] for (one,), at in zip(written, first, strict=True)]
    assert fmean(map(float, hits)) > 0.8


def test_params_of_the_family_keep_their_meaning() -> None:
    params: Params = methods.params("unierase", {"nullspace": "absolute", "threshold": 2e-2})
    assert (params.nullspace, params.threshold, params.retain_term) == ("absolute", 2e-2, "none")
