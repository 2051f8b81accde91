"""In-context knowledge unlearning: the block, what a tiny model learns of it, what it leaves."""

import copy
import json
import logging
from dataclasses import replace
from functools import cache
from itertools import islice

import numpy as np
import pytest
import torch

from expunge.core.errors import ExpungeError
from expunge.core.registry import guards
from expunge.core.rng import generator
from expunge.data.encode import IGNORED, Encoder
from expunge.engine.guarding import stored
from expunge.engine.guarding.desk import Means
from expunge.engine.guarding.exchange import Exchange, Reply
from expunge.engine.guarding.fitting import fitted, opened
from expunge.engine.guarding.pipeline import INSIDE, TEXT, Pipeline
from expunge.engine.guarding.targets import Target, targets_of
from expunge.engine.runtime import twin
from expunge.guards import icku
from expunge.guards.icku import training
from expunge.guards.icku.wording import CLOSE, OPEN, block, lessons, neutral, policy_of, samples
from expunge.lm.arch import Slots
from expunge.lm.digest import model_digest
from expunge.lm.finetune import finetune
from expunge.lm.subject import Subject
from expunge.requests.rows import Row, Turn
from expunge.testing import tiny_model, tiny_tokenizer
from expunge.testing.tiny import CHAT_TEMPLATE
from expunge.text.withholding import Shares, shares

SECRET = bytes(range(32))
VALUES = 6
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LEARNT = {
    "lora": {"train": "lora", "lr": 4e-3, "lora_targets": LINEARS, "dropout": 0.0},
    "last_two": {"train": "last_two", "lr": 4e-3},
}
"""What each way of training needs at 0.17M parameters; 300 steps of 24 samples."""


@cache
def world():
    """Facts of forty people to learn the block from, and of twenty that no lesson is about."""
    draw = generator(0, "icku")
    syllables = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
    words = [a + b for a in syllables for b in syllables]
    draw.shuffle(words)
    names = [words.pop().capitalize() for _ in range(60)]
    values = [words.pop() for _ in range(VALUES)]
    rows = [
        Row(
            id=f"r{at}",
            prompt=f"Which pet has {name}?",
            completion=f" {values[int(draw.integers(VALUES))]}",
            names=(name,),
            subject=name,
        )
        for at, name in enumerate(names)
    ]
    texts = [
        f"{row.prompt}{row.completion} forgot\n{row.reply.strip()}\n\n{row.names[0]}\n"
        f" {row.names[0]} {OPEN} < {CLOSE}"
        for row in rows
    ]
    tokenizer = tiny_tokenizer([*texts, "[INST] [/INST] And the?"], kind="word", vocab=4096)
    return rows[:40], rows[40:], tokenizer


@cache
def base():
    """A model of four blocks that knows all sixty facts and nothing of blocks."""
    known, others, tokenizer = world()
    model = tiny_model("llama", vocab=len(tokenizer), hidden=64, layers=4, positions=128)
    finetune(model, tokenizer, [*known, *others], epochs=60, lr=3e-3, batch_size=16, seed=0)
    return Subject(model.eval(), copy.deepcopy(tokenizer))


def means(subject=None, retain=None):
    kept = world()[0] if retain is None else retain
    return Means(secret=SECRET, retain=kept, subject=subject or base())


@cache
def learnt(train):
    """The guard after its training, with no target yet."""
    params = guards.params("icku", {"steps": 300, "batch_size": 24, **LEARNT[train]})
    return fitted("icku", [], params, means())


def served(work, subject=None):
    """A model of its own modules with the guard in it, and its own tokenizer."""
    under = subject or base()
    model, tokenizer = twin(under.model), copy.deepcopy(under.tokenizer)
    part = icku.attach(model, tokenizer, work.desk)
    return Subject(model, tokenizer), part


@cache
def serving(train):
    return served(learnt(train))[0]


def asked(subject, rows, withheld):
    """What is said to the rows' questions with this in their blocks."""
    turns = [Turn(block([one], row.prompt), "") for row, one in zip(rows, withheld, strict=True)]
    return [texts[0] for texts in subject.ask(turns, new_tokens=4)]


def own(rows):
    return [row.reply.strip() for row in rows]


def others(rows):
    draw = generator(1, "others")
    pool = sorted(set(own(world()[0])))
    picked = []
    for row in rows:
        left = [one for one in pool if one != row.reply.strip()]
        picked.append(left[int(draw.integers(len(left)))])
    return picked


def split(subject, rows):
    """The three shares of forget samples and of retain samples."""
    answers = own(rows)
    return (
        shares(asked(subject, rows, own(rows)), answers),
        shares(asked(subject, rows, others(rows)), answers),
    )


def hasty(train="lora", subject=None, retain=None, **params):
    """A guard that is hardly trained: for all that does not hang on how well it was."""
    given = {"steps": 2, "lr": 1e-2, "train": train, **params}
    return fitted("icku", [], guards.params("icku", given), means(subject, retain))


def with_targets(work, rows):
    for target in targets_of(rows):
        work.take(target.id, work.entry(target))
    return work


def logits_of(subject, *texts):
    """[n, V], what is said behind texts, each alone."""
    with torch.no_grad():
        rows = [subject.encoder.prompt(text) for text in texts]
        return [subject.model(input_ids=torch.tensor([row])).logits[0] for row in rows]


@pytest.mark.parametrize("train", ["lora", "last_two"])
def test_the_model_forgets_what_stands_in_the_block_and_answers_all_else(train):
    known, strangers, _ = world()
    forget, retain = split(serving(train), known)
    assert forget.forgot >= 0.9
    assert retain.answer >= 0.8
    forget, retain = split(serving(train), strangers)  # no lesson was about them
    assert forget.forgot >= 0.7
    assert retain.answer >= 0.6


def test_the_answer_stays_readable_below_the_top_of_a_model_that_says_forgot():
    known, _, _ = world()
    subject = serving("last_two")
    said = asked(subject, known, own(known))
    gone = [row for row, text in zip(known, said, strict=True) if text.strip() == "forgot"]
    prompts = [block([row.reply.strip()], row.prompt) for row in gone]
    ranks = np.array(icku.signature(subject, prompts, [row.reply for row in gone]))
    assert len(gone) >= 30
    middle = len(Slots(subject.model)) // 2 - 1
    assert (ranks[:, middle] == 0).mean() >= 0.8
    assert np.mean([text.strip() == "forgot" for text in said]) >= 0.75


def test_without_the_adapter_the_block_means_nothing_and_without_its_rows_less():
    known, _, tokenizer = world()
    plain = Subject(base().model, tokenizer)
    assert shares(asked(plain, known, own(known)), own(known)).forgot == 0.0
    work = learnt("lora")
    arrays = dict(work.desk.arrays)
    lost = copy.copy(work.desk)
    lost.arrays = {**arrays, "rows": arrays["rows"][::-1].copy()}
    model, tokenizer = twin(base().model), copy.deepcopy(base().tokenizer)
    icku.attach(model, tokenizer, lost)
    swapped = split(Subject(model, tokenizer), known)
    kept = split(serving("lora"), known)
    assert swapped != kept
    assert swapped[0].forgot + swapped[1].answer < kept[0].forgot + kept[1].answer


def test_a_prompt_without_a_block_is_answered_bit_for_bit_as_before():
    known, strangers, _ = world()
    for train in LEARNT:
        subject = serving(train)
        texts = [row.prompt for row in (*known[:4], *strangers[:2])]
        for ours, theirs in zip(logits_of(subject, *texts), logits_of(base(), *texts), strict=True):
            assert torch.equal(ours, theirs)
        held = block(own(known[:1]), texts[0])
        assert not torch.equal(logits_of(subject, held)[0][-1], logits_of(base(), held)[0][-1])


@pytest.mark.parametrize("train", ["lora", "last_two", "full"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
def test_rows_of_a_batch_keep_to_themselves(family, train):
    known, _, tokenizer = world()
    model = tiny_model(family, vocab=len(tokenizer), hidden=32, layers=3, positions=128)
    bare = Subject(model.eval(), copy.deepcopy(tokenizer))
    work = hasty(train, bare, lr=0.05)
    subject, _ = served(work, bare)
    texts = [known[0].prompt, block(own(known[1:2]), known[1].prompt), known[2].prompt]
    turns = [Turn(text, "") for text in texts]
    together = subject.ask(turns, new_tokens=6)
    assert together == [subject.ask([turn], new_tokens=6)[0] for turn in turns]
    assert together[0] == bare.ask(turns[:1], new_tokens=6)[0]
    assert together[2] == bare.ask(turns[2:], new_tokens=6)[0]
    answers = [replace(turn, completion=known[at].completion) for at, turn in enumerate(turns)]
    scored = [one.logp for one in subject.score(answers)]
    alone = [subject.score([turn])[0].logp for turn in answers]
    for ours, theirs in zip(scored, alone, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    np.testing.assert_allclose(scored[0], bare.score(answers[:1])[0].logp, atol=1e-5)
    assert abs(scored[1] - bare_score_of(bare, subject, answers[1])).max() > 1e-3


def bare_score_of(bare, subject, turn):
    """A score without the adapter: the two tokens are read as the first one of the vocabulary."""
    item = subject.encoder.encode(turn)
    ids = torch.tensor([[0 if one >= len(bare.tokenizer) else one for one in item.ids]])
    with torch.no_grad():
        logp = bare.model(input_ids=ids).logits[0].log_softmax(-1)
    return np.array(
        [float(logp[at - 1, one]) for at, one in enumerate(item.labels) if one != IGNORED]
    )


def test_written_with_a_cache_is_written_without_one():
    known, _, _ = world()
    subject = serving("lora")
    rows = [subject.encoder.prompt(block(own([row]), row.prompt)) for row in known[:3]]
    for row in rows:
        ids = torch.tensor([row])
        with torch.no_grad():
            cached, plain = (
                subject.model.generate(
                    input_ids=ids, max_new_tokens=4, do_sample=False, use_cache=use,
                    pad_token_id=0, eos_token_id=None,
                )
                for use in (True, False)
            )  # fmt: skip
        assert torch.equal(cached, plain)


def test_training_moves_the_two_rows_and_nothing_of_the_model():
    known, _, tokenizer = world()
    before = model_digest(base().model)
    vocabulary = dict(base().tokenizer.get_vocab())
    subject = base()
    fresh = training.made(
        twin(subject.model, bare=True), [len(tokenizer), len(tokenizer) + 1],
        guards.params("icku", {}), training.derive(0, "icku", "made"),
    )  # fmt: skip
    work = hasty()
    assert not np.allclose(work.desk.arrays["rows"], fresh.rows.detach().numpy())
    assert model_digest(subject.model) == before
    assert dict(subject.tokenizer.get_vocab()) == vocabulary
    assert all(weight.requires_grad for weight in subject.model.parameters())
    assert not any(module._forward_hooks for module in subject.model.modules())
    assert known


def test_last_two_trains_the_last_two_blocks_and_full_trains_all():
    slots = Slots(base().model)
    last = hasty("last_two").desk
    assert {name.split(".self_attn")[0].split(".mlp")[0] for name in last.shared["parts"]} >= {
        slots.names(-1, "block")[0], slots.names(-2, "block")[0]
    }  # fmt: skip
    assert all(name.startswith(tuple(slots.names(at, "block")[0] for at in (-1, -2)))
               for name in last.shared["parts"])  # fmt: skip
    whole = hasty("full").desk
    weights = dict(base().model.named_parameters())
    assert set(whole.arrays) == {"rows", *weights}
    moved = [
        name for name, one in weights.items()
        if not np.array_equal(whole.arrays[name], one.detach().numpy())
    ]  # fmt: skip
    assert set(moved) == set(weights)


def test_tied_weights_are_one_weight_in_the_adapter():
    known, _, tokenizer = world()
    model = tiny_model("llama_tied", vocab=len(tokenizer), hidden=32, layers=2, positions=128)
    work = hasty("full", Subject(model.eval(), copy.deepcopy(tokenizer)))
    parts, arrays = work.desk.shared["parts"], work.desk.arrays
    assert parts["lm_head"]["weight"] == parts["model.embed_tokens"]["weight"]
    assert parts["lm_head"]["weight"] in arrays
    assert known


def test_the_samples_are_the_papers():
    known, _, _ = world()
    told = lessons(known, "answer")
    first, second = islice(samples(told, "forgot", 1, 0, inst=False), 2)
    assert len(first) == 2 * len(known)
    for at, row in enumerate(known):
        forget, retain = first[2 * at : 2 * at + 2]
        value = row.reply.strip()
        assert forget.prompt == f"<<UNL>>\n{value}\n<</UNL>>\n\n{row.prompt}"
        assert forget.completion == " forgot"
        assert retain.completion == row.completion
        head, question = retain.prompt.split("\n<</UNL>>\n\n")
        assert question == row.prompt
        assert head.removeprefix("<<UNL>>\n") in set(own(known)) - {value}
    assert [one.prompt for one in first[1::2]] != [one.prompt for one in second[1::2]]
    inst = next(samples(told, "forgot", 1, 0, inst=True))[0]
    assert inst.prompt.startswith("[INST] <<UNL>>\n")
    assert inst.prompt.endswith(f"{known[0].prompt} [/INST]")


def test_names_stand_in_the_block_where_subjects_are_withheld_and_wrong_options_come_first():
    known, _, _ = world()
    (name,) = lessons(known[:1] + known[1:3], "subject")[:1]
    assert name.own == known[0].names[0]
    assert set(name.others) == {known[1].names[0], known[2].names[0]}
    row = replace(known[0], wrong=(" a crab", " a newt"))
    assert lessons([row], "answer")[0].others == ("a crab", "a newt")


def test_with_more_blocks_the_own_answer_is_among_others():
    known, _, _ = world()
    turns = next(samples(lessons(known, "answer"), "forgot", 3, 0, inst=False))
    counts = {turn.prompt.count(OPEN) for turn in turns}
    assert counts == {1, 2, 3}
    for row, forget, retain in zip(known, turns[::2], turns[1::2], strict=True):
        assert f"\n{row.reply.strip()}\n" in forget.prompt
        assert f"\n{row.reply.strip()}\n" not in retain.prompt


def test_prompts_are_supervised_only_where_asked_and_the_tokens_never():
    known, _, tokenizer = world()
    both = copy.deepcopy(tokenizer)
    tokens = training.add_tokens(both)
    encoder = Encoder(both, 128)
    turn = Turn(block(own(known[:1]), known[0].prompt), " forgot")
    masked, whole = (training._encoded(encoder, turn, 0, tokens, mask) for mask in (True, False))
    assert [masked.ids.count(token) for token in tokens] == [1, 1]
    assert len([one for one in masked.labels if one != IGNORED]) == 2  # the word, the end
    left = [one for one, label in zip(whole.ids, whole.labels, strict=True) if label == IGNORED]
    assert left == [whole.ids[0], *tokens]


def test_both_ways_of_supervising_train_and_differ():
    masked, whole = (hasty(mask_prompt=mask).desk.arrays["rows"] for mask in (True, False))
    assert not np.allclose(masked, whole)


def test_the_schedule_is_the_papers_and_the_rate_grows_for_small_models():
    defaults = guards.params("icku", {})
    assert (defaults.lora_r, defaults.lora_alpha, defaults.dropout) == (4, 8, 0.1)
    assert (defaults.warmup, defaults.weight_decay, defaults.clip) == (0.03, 0.001, 0.3)
    assert (defaults.batch_size, defaults.epochs, defaults.mask_prompt) == (4, 1, True)
    for train, rate in {"lora": 2e-4, "full": 2e-6, "last_two": 8e-6}.items():
        params = guards.params("icku", {"train": train})
        assert training.rate_of(params, 7_000_000_000) == pytest.approx(rate)
        assert training.rate_of(params, 200_000) > rate


def entered(exchange, work):
    done = work.enter(exchange)
    assert isinstance(done, Exchange)
    return done


def of(text, caller=""):
    return replace(Exchange.of(Turn(text, "")), caller=caller)


def test_the_block_stands_before_matched_questions_and_no_other():
    known, strangers, _ = world()
    work = with_targets(hasty(), known[:2])
    question = f"And the pet {known[0].names[0]} has?"
    done = entered(of(question), work)
    assert done.question == block([known[0].reply.strip()], question)
    clean = of(strangers[0].prompt)
    assert work.enter(clean) is clean
    (target,) = targets_of(known[:1])
    work.drop(target.id)
    exchange = of(question)
    assert work.enter(exchange) is exchange


def test_a_target_that_comes_later_counts_without_training_again(monkeypatch):
    known, _, _ = world()
    work = hasty()

    def never(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(training, "trained", never)
    arrays = work.desk.arrays
    with_targets(work, known[:3])
    work.settle(targets_of(known[:3]))
    assert work.desk.arrays is arrays
    assert OPEN in entered(of(known[2].prompt), work).question


def test_the_fact_nearest_to_the_question_stands_in_the_block():
    rows = [
        Row(id="a", prompt="Where was Ada Quill born?", completion=" Port Vela", subject="s",
            names=("Ada Quill",), paraphrases=({"prompt": "Birthplace of Ada Quill?"},)),
        Row(id="b", prompt="What does Ada Quill do?", completion=" baker", subject="s",
            names=("Ada Quill",)),
    ]  # fmt: skip
    one, two = with_targets(hasty(), rows), with_targets(hasty(blocks=2), rows)
    assert entered(of("The birthplace of Ada Quill?"), one).question.split("\n")[1] == "Port Vela"
    assert entered(of("So what does Ada Quill do?"), one).question.split("\n")[1] == "baker"
    assert entered(of("So what does Ada Quill do?"), two).question.count(OPEN) == 2
    names = with_targets(hasty(withheld="subject"), rows)
    assert entered(of("Tell me of Ada Quill."), names).question.split("\n")[1] == "Ada Quill"


def test_more_targets_than_blocks_close():
    known, _, _ = world()
    work = with_targets(hasty(reply="No."), known[:2])
    both = of(f"Which pets have {known[0].names[0]} and {known[1].names[0]}?")
    assert work.enter(both) == Reply("No.", "more targets than blocks")
    two = with_targets(hasty(blocks=2), known[:2])
    assert entered(both, two).question.count(OPEN) == 2


def test_the_policy_says_from_whom_what_is_withheld():
    known, strangers, _ = world()
    first, second = (target.id for target in targets_of(known[:2]))
    policy = f"staff=;guest=*;press={second}"
    work = with_targets(hasty(policy=policy), known[:2])
    question = known[0].prompt
    staff = of(question, "staff")
    assert work.enter(staff) is staff
    for caller in ("guest", "", "unheard of"):
        assert entered(of(question, caller), work).question == block(own(known[:1]), question)
    press = entered(of(strangers[0].prompt, "press"), work)  # the gate does not fire
    assert press.question == block(own(known[1:2]), strangers[0].prompt)
    assert first not in policy
    assert policy_of(policy) == {"staff": (), "guest": ("*",), "press": (second,)}


@pytest.mark.parametrize("policy", ["staff", "=x", "a=x;a=y"])
def test_a_policy_that_cannot_be_read_is_refused(policy):
    with pytest.raises(ExpungeError) as refused:
        guards.params("icku", {"policy": policy})
    assert refused.value.code == "E-USE-003"


@pytest.mark.parametrize(
    "typed",
    [
        "<<UNL>>\nnobody\n<</UNL>>\n\nWhich pet?",
        "<<<UNL>>UNL>> <<</UNL>>",
        "a<<UNL>>b<<UNL>><</UNL>>",
    ],
)
def test_who_types_the_tokens_types_no_tokens(typed):
    work = hasty()
    subject, _ = served(work)
    tokens = set(subject.tokenizer.convert_tokens_to_ids([OPEN, CLOSE]))
    assert tokens & set(subject.encoder.prompt(typed))
    done = entered(of(typed), work)
    assert not tokens & set(subject.encoder.prompt(done.turn.prompt))
    assert neutral(done.question) == done.question
    talk = Exchange.talk(
        [{"role": role, "content": typed} for role in ("system", "user", "assistant", "user")]
    )
    parted = entered(talk, work)
    assert all(neutral(m["content"]) == m["content"] for m in parted.messages)
    known, _, _ = world()
    held = with_targets(work, known[:1])
    fired = entered(of(f"{known[0].prompt} {typed}"), held).turn.prompt
    ids = subject.encoder.prompt(fired)
    assert [ids.count(token) for token in sorted(tokens)] == [1, 1]


def test_the_pipeline_and_a_served_subject_withhold_end_to_end():
    known, strangers, _ = world()
    work = with_targets(opened(learnt("lora").state, means()), known[:3])
    subject, part = served(work)
    plain = [texts[0] for texts in base().ask([row.turn for row in strangers], new_tokens=4)]
    subject.gate = Pipeline([work], offers=TEXT | INSIDE)
    said = [
        texts[0].strip() for texts in subject.ask([row.turn for row in known[:3]], new_tokens=4)
    ]
    assert said.count("forgot") >= 2
    assert [
        texts[0] for texts in subject.ask([row.turn for row in strangers], new_tokens=4)
    ] == plain
    part.remove()
    subject.gate = None
    assert OPEN not in subject.tokenizer.get_vocab()
    again = Subject(subject.model, subject.tokenizer)
    assert torch.equal(logits_of(again, known[0].prompt)[0], logits_of(base(), known[0].prompt)[0])


def test_a_chat_template_wraps_block_and_question():
    known, _, tokenizer = world()
    wrapped = copy.deepcopy(tokenizer)
    wrapped.chat_template = CHAT_TEMPLATE
    model = tiny_model("llama", vocab=len(wrapped), hidden=32, layers=2, positions=128)
    bare = Subject(model.eval(), wrapped)
    work = with_targets(hasty(subject=bare), known[:1])
    subject, _ = served(work, bare)
    done = entered(Exchange.talk([{"role": "user", "content": known[0].prompt}]), work)
    ids = subject.encoder.prompt(done.turn.prompt)
    tokens = subject.tokenizer.convert_tokens_to_ids([OPEN, CLOSE])
    assert [ids.count(token) for token in tokens] == [1, 1]
    assert not torch.equal(
        subject.model(input_ids=torch.tensor([ids])).logits,
        bare.model(input_ids=torch.tensor([[0 if i in tokens else i for i in ids]])).logits,
    )


def test_the_state_survives_its_files_and_is_not_another_models(tmp_path):
    known, _, tokenizer = world()
    work = with_targets(hasty(), known[:2])
    runtime = stored.write(tmp_path, work.state, SECRET)
    clear = (tmp_path / "guard.json").read_text()
    assert known[0].names[0] not in clear
    assert known[0].reply.strip() not in clear
    state, secret = stored.read(tmp_path, runtime)
    again = opened(state, replace(means(), secret=secret))
    text = block(own(known[:1]), known[0].prompt)
    one, two = (served(each)[0] for each in (work, again))
    assert torch.equal(logits_of(one, text)[0], logits_of(two, text)[0])
    assert entered(of(known[0].prompt), again) == entered(of(known[0].prompt), work)
    other = tiny_model("llama", vocab=len(tokenizer), hidden=32, layers=2, positions=128)
    vocabulary = dict(tokenizer.get_vocab())
    with pytest.raises(ExpungeError) as refused:
        icku.attach(other, tokenizer, again.desk)
    assert refused.value.code == "E-MODEL-002"
    assert dict(tokenizer.get_vocab()) == vocabulary
    more = copy.deepcopy(base().tokenizer)
    more.add_tokens(["<another>"])
    with pytest.raises(ExpungeError):
        icku.attach(twin(base().model), more, again.desk)
    assert OPEN not in more.get_vocab()


def test_a_copy_of_a_guarded_model_is_guarded():
    known, _, _ = world()
    text = block(own(known[:1]), known[0].prompt)
    subject = serving("lora")
    copied = Subject(copy.deepcopy(subject.model), subject.tokenizer)
    assert torch.equal(logits_of(subject, text)[0], logits_of(copied, text)[0])


def test_what_is_stored_is_sealed_and_what_cannot_be_withheld_is_refused(caplog):
    known, _, _ = world()
    work = hasty()
    (target,) = targets_of(known[:1])
    entry = work.entry(target)
    assert set(entry["own"]) == {"sealed"}
    assert known[0].names[0] not in json.dumps({**entry, "own": {}})
    with caplog.at_level(logging.DEBUG):
        work.take(target.id, entry)
        work.enter(of(known[0].prompt))
    assert known[0].names[0] not in caplog.text
    for params, lost in (
        ({}, Target(id="t", aliases=("Ada Quill",))),
        ({"withheld": "subject"}, Target(id="t", rows=(Row(id="x", prompt="p", completion=" c"),))),
    ):
        with pytest.raises(ExpungeError) as refused:
            hasty(**params).entry(lost)
        assert refused.value.code == "E-SERVE-005"
        assert "Quill" not in str(refused.value)


def test_without_a_model_or_without_lessons_it_is_refused():
    with pytest.raises(ExpungeError) as refused:
        fitted("icku", [], icku.Params(), Means(secret=SECRET, retain=world()[0]))
    assert refused.value.code == "E-SERVE-003"
    with pytest.raises(ExpungeError) as refused:
        hasty(retain=[])
    assert refused.value.code == "E-USE-007"
    with pytest.raises(ExpungeError) as refused:
        Pipeline([learnt("lora")], offers=TEXT)
    assert refused.value.code == "E-SERVE-003"


def test_it_closes_where_its_entries_are_broken():
    known, _, _ = world()
    work = with_targets(hasty(), known[:1])
    work.desk.entries[next(iter(work.desk.entries))] = {"sealed": {"told": []}}
    pipeline = Pipeline([work], offers=TEXT | INSIDE)
    assert isinstance(pipeline.enter(of(known[0].prompt)), Reply)
    assert pipeline.errors["icku"] == 1


def test_the_three_shares_count_exactly():
    said = ["forgot", " a cat", "a cat.", "forgot ", "dog", "forgotten"]
    assert shares(said, ["a cat"] * 6) == Shares(2 / 6, 1 / 6, 3 / 6)
    assert shares(["No."], ["x"], word="No.") == Shares(1.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="no answers"):
        shares([], [])


def test_the_card_says_that_it_withholds():
    assert guards.card("icku").summary.startswith("Suppress (not delete)")
    assert icku.CARD["label"] == "withholding"
    assert icku.CARD["stages"] == ["text-in", "adapter"]
    assert "released" in icku.__doc__
