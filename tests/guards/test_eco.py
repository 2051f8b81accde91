"""Embedding-corrupted prompts: closed forms, which tokens are touched, what the noise hides."""

import copy
import json

import numpy as np
import pytest
import torch
from transformers import DynamicCache
from twelve_rig import (
    FAMILIES,
    exact,
    first_logits,
    ids,
    knowing,
    means,
    put_in,
    random_model,
    right,
    said,
    traced,
    working,
    world,
    written,
)

import expunge
from expunge.core.errors import ExpungeError
from expunge.core.registry import guards
from expunge.engine.decisions import telling
from expunge.engine.guarding import stored
from expunge.engine.guarding.desk import Means
from expunge.engine.guarding.exchange import Exchange
from expunge.engine.guarding.fitting import fitted, opened
from expunge.engine.guarding.heard import Listener
from expunge.engine.guarding.pipeline import INSIDE, TEXT, Pipeline
from expunge.engine.guarding.targets import Target, targets_of
from expunge.engine.runtime import without_parts
from expunge.guards import eco
from expunge.guards.eco.board import people
from expunge.guards.eco.operators import OPERATORS, corrupted
from expunge.guards.eco.tuning import Rule, tuned
from expunge.lm.arch import Slots
from expunge.lm.scoring import masked_logits
from expunge.lm.subject import Subject
from expunge.requests.rows import Row, Turn
from expunge.testing import check_guard, tiny_model, tiny_tokenizer

ASKED = ids("Anna Birk born", "Anna Gran works", "Bela Dahl likes", "Anna Krog drives")
FIRED = (True, False, True, False)
"""Anna Birk and Bela Dahl are targets; the others are not, and share a first name with one."""


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def work():
    """Fitted to four people, with a strength that is given."""
    return working("eco", world().forget, None, sigma=3.0)


def targets():
    return {row.subject for row in world().forget}


def fired_rows():
    """Of the prompts, by the people the guard was fitted to."""
    known = targets()
    return [" ".join(world().tokenizer.decode(p[1:3]).split()) in known for p in ASKED]


# ------------------------------------------------------------------------------- closed forms


def test_the_rule_steps_down_the_slope_between_two_sides():
    """S(s) = 3 s, e = .05, eta = .01, s = 1: g = 3, s' = .97."""
    rule, s, u = Rule(0.05, 0.01, 0.1), np.array([1.0]), np.ones(1)
    ahead, behind = (3 * float(side[0]) for side in rule.sides(s, u))
    assert (ahead - behind) / (2 * 0.05) == pytest.approx(3)
    assert rule.step(s, u, ahead, behind) == pytest.approx([0.97])
    assert Rule(0.05, 10.0, 0.1).step(s, u, ahead, behind) == pytest.approx([0.1])
    assert Rule(2.0, 1.0, 0.1).sides(s, u)[1] == pytest.approx([1e-8])


def test_a_vector_steps_along_its_direction():
    rule, u = Rule(0.05, 0.01, 0.1), np.array([0.6, 0.8])
    s = np.array([1.0, 2.0])
    slope = (u @ (s + 0.05 * u) - u @ (s - 0.05 * u)) / 0.1
    assert slope == pytest.approx(1)
    found = rule.step(s, u, *(float(u @ side) for side in rule.sides(s, u)))
    assert found == pytest.approx(s - 0.01 * u)


SLOW = {"start": 0.1, "least": 0.1, "eta": 100.0, "slack": 0.02}


def test_tuning_follows_the_slope_and_ends_where_the_model_knows_no_more_than_a_stranger():
    tried = []

    def known(sigma):
        tried.append(float(sigma[0]))
        return 0.2 + 0.8 * float(np.exp(-sigma[0] / 5))

    found = tuned(known, 0.2, steps=10, rng=rng(), **SLOW)
    assert found.is_reached
    assert found.known <= 0.22
    assert tried[:2] == pytest.approx([0.1 + 0.0999, 0.1 - 0.0999])
    first = 0.1 - 100 * (known(np.array([0.1999])) - known(np.array([1e-4]))) / (2 * 0.0999)
    assert tried[2] == pytest.approx(first + 0.0999)


def test_on_a_plateau_the_strength_is_doubled_and_the_best_one_wins():
    tried = []

    def known(sigma):
        tried.append(float(sigma[0]))
        return 1.0 if sigma[0] < 1.0 else 0.4

    found = tuned(known, 0.0, steps=6, rng=rng(), **SLOW)
    assert tried[2] == pytest.approx(0.2 + 0.0999)
    assert not found.is_reached
    assert found.known == 0.4
    assert tuned(known, 0.0, steps=0, rng=rng(), **SLOW).sigma == pytest.approx([0.1])


def test_a_strength_of_its_own_for_each_dimension():
    found = tuned(
        lambda s: float(np.exp(-s[0])), 0.0, steps=3, size=4, rng=rng(), **SLOW | {"eta": 1.0}
    )
    assert found.sigma.shape == (4,)
    assert (found.sigma > 0).all()
    assert len(set(found.sigma)) > 1


E = [[3.0, -1.0, 2.0], [0.5, -4.0, 1.0]]


@pytest.mark.parametrize(
    ("operator", "n", "expected"),
    [
        ("zero-top", 2, [[0, -1, 0], [0.5, 0, 0]]),
        ("flip-top", 1, [[-3, -1, 2], [0.5, 4, 1]]),
        ("zero-first", 2, [[0, 0, 2], [0, 0, 1]]),
        ("flip-first", 1, [[-3, -1, 2], [-0.5, -4, 1]]),
        ("plus-first", 2, [[13, 9, 2], [10.5, 6, 1]]),
        ("minus-first", 1, [[-7, -1, 2], [-9.5, -4, 1]]),
        ("reverse", 1, [[0.5, -4, 1], [3, -1, 2]]),
        ("zero-first", 9, [[0, 0, 0], [0, 0, 0]]),
    ],
)
def test_operators_without_chance(operator, n, expected):
    found = corrupted(torch.tensor(E), operator, rng(), n, np.array([10.0]))
    assert found.tolist() == expected


def test_operators_with_chance():
    e, sigma = torch.tensor(E, dtype=torch.float64), np.array([10.0])
    drawn = torch.from_numpy(rng().standard_normal((2, 2)))
    found = corrupted(e, "noise-first", rng(), 2, sigma)
    torch.testing.assert_close(found[:, :2], e[:, :2] + 10 * drawn)
    assert torch.equal(found[:, 2], e[:, 2])
    torch.testing.assert_close(corrupted(e, "replace-first", rng(), 2, sigma)[:, :2], 10 * drawn)
    top = corrupted(e, "noise-top", rng(), 1, sigma) != e
    assert top.tolist() == [[True, False, False], [False, True, False]]
    some = corrupted(e, "noise-random", rng(), 1, sigma) != e
    assert some.sum().item() == 2
    assert some.any(0).sum().item() == 1, "the same dimensions for the whole prompt"
    many = torch.arange(12.0).view(6, 2)
    mixed = corrupted(many, "shuffle", rng(1), 1, sigma)
    assert sorted(mixed.tolist()) == many.tolist()
    assert not torch.equal(mixed, many)
    each = corrupted(torch.zeros(500, 2), "noise-first", rng(), 2, np.array([1.0, 5.0])).std(0)
    assert each.tolist() == pytest.approx([1.0, 5.0], rel=0.15)


def test_every_operator_is_a_choice_and_the_other_way_round():
    assert set(guards.card("eco").params["operator"]["choices"]) == set(OPERATORS)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_a_huge_strength_overflows_nothing(family, dtype):
    """Gemma 2 multiplies what comes from the embedding; GPT-2 has no norm behind it."""
    bare = random_model(family, dtype)
    model, _ = put_in(working("eco", world().forget, None, sigma=1e6), bare)
    found = first_logits(model, ASKED)
    assert bool(found.isfinite().all())
    assert not torch.equal(found[0], first_logits(bare, ASKED)[0])


# ----------------------------------------------------------------------- which rows, which tokens


class Watch:
    """What goes into the first block."""

    def __init__(self, model):
        self.seen = []
        Slots(model).blocks[0].register_forward_pre_hook(self, with_kwargs=True)

    def __call__(self, _, given, named):
        self.seen.append((given[0] if given else named["hidden_states"]).detach().clone())


def test_the_prompts_of_these_tests_are_of_both_kinds():
    assert fired_rows() == list(FIRED)


@pytest.mark.parametrize("family", FAMILIES)
def test_noise_stands_in_the_first_dimension_of_the_names_of_fired_rows_only(work, family):
    bare = random_model(family)
    model, attached = put_in(work, bare)
    watch = Watch(model)
    found = first_logits(model, ASKED)
    attached.remove()
    first_logits(model, ASKED)
    changed = watch.seen[0] != watch.seen[1]
    assert not bool(changed[..., 1:].any())
    assert changed[..., 0].tolist() == [
        [False, True, True, False] if fired else [False] * 4 for fired in FIRED
    ]
    clean = first_logits(bare, ASKED)
    for row, fired in enumerate(FIRED):
        assert torch.equal(found[row], clean[row]) is not fired
    assert torch.equal(first_logits(model, ASKED), clean), "taken out it leaves nothing behind"


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_of_a_left_padded_batch_get_what_each_gets_alone(work, family):
    model, _ = put_in(work, random_model(family))
    mixed = [*ASKED, ids("Where was Anna Birk born")[0]]
    together = first_logits(model, mixed)
    for row, prompt in enumerate(mixed):
        alone = first_logits(model, [prompt])[0]
        torch.testing.assert_close(together[row], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_decoding_steps_are_not_corrupted(work, family):
    """With a cache, without one (the prompt told), and in pieces of one token: the same."""
    bare = random_model(family)
    model, _ = put_in(work, bare)
    cached, scores = traced(model, ASKED)
    for options in ({"use_cache": False}, {"prefill_chunk_size": 1}):
        with telling(ASKED):
            other, same = traced(model, ASKED, **options)
        assert other == cached
        torch.testing.assert_close(same, scores, rtol=1e-3, atol=1e-4)
    clean, plain = traced(bare, ASKED)
    for row, fired in enumerate(FIRED):
        assert torch.equal(scores[row], plain[row]) is not fired
        assert fired or cached[row] == clean[row]
    watch, prompts = Watch(model), [ASKED[0]]
    written(model, prompts)
    embed = model.get_input_embeddings()
    tokens = written(model, prompts)[0]
    assert [tuple(seen.shape[1] for seen in watch.seen[:3])] == [(4, 1, 1)]
    if family != "gpt2":  # whose block sees positions as well
        assert torch.equal(watch.seen[1][0, 0], embed(torch.tensor(tokens[0])))


def test_told_prompts_must_be_those_of_the_rows(work):
    model, _ = put_in(work, random_model("llama"))
    with telling(ASKED[:1]), pytest.raises(RuntimeError, match="told"):
        first_logits(model, ASKED[1:2])
    with telling(ASKED[:3]), pytest.raises(RuntimeError, match="told"):
        first_logits(model, ASKED)


def test_a_prompt_in_pieces_keeps_its_noise_when_rows_leave_and_come_twice(work):
    """Reversing needs tokens of other pieces: their ids lie in the cache."""
    bare = random_model("llama")
    for operator in ("noise-first", "reverse", "shuffle"):
        odd = working("eco", world().forget, None, sigma=3.0, operator=operator, tokens="all")
        model, _ = put_in(odd, bare)
        whole = first_logits(model, ASKED)
        prompts, cache = torch.tensor(ASKED), DynamicCache()
        with telling(ASKED), torch.no_grad():
            model(input_ids=prompts[:, :2], past_key_values=cache, use_cache=True)
            picked = torch.tensor([2, 0, 0])
            cache.batch_select_indices(picked)
            found = model(
                input_ids=prompts[picked][:, 2:], past_key_values=cache, use_cache=True
            ).logits[:, -1]
        torch.testing.assert_close(found, whole[picked], rtol=1e-4, atol=1e-4)


def test_embeddings_are_corrupted_like_the_ids_they_stand_for(work):
    model, _ = put_in(work, random_model("gemma3"))
    with torch.no_grad():
        embedded = model.get_input_embeddings()(torch.tensor(ASKED))
        found = model(inputs_embeds=embedded, logits_to_keep=1).logits[:, -1]
    torch.testing.assert_close(found, first_logits(model, ASKED), rtol=1e-4, atol=1e-4)


def test_rows_end_to_end_in_one_line_are_corrupted_each_for_itself(work):
    model, _ = put_in(work, random_model("llama"))
    line, keep = torch.tensor(ASKED).view(1, -1), torch.zeros(1, 16, dtype=torch.bool)
    keep[0, 3::4] = True
    with torch.no_grad():
        found = masked_logits(
            model, line, torch.ones_like(line), keep, torch.arange(4).repeat(4)[None]
        )
    torch.testing.assert_close(found, first_logits(model, ASKED), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tokens", ["people", "all"])
def test_answers_are_not_corrupted_when_they_are_scored(tokens):
    """Also where the answer names the person again: only tokens of the prompt are."""
    model, _ = put_in(
        working("eco", world().forget, None, sigma=3.0, tokens=tokens), random_model("llama")
    )
    watch = Watch(model)
    Subject(model, world().tokenizer).score([Turn("Anna Birk born", " Anna Birk v1")])
    plain = model.get_input_embeddings()(torch.tensor(ids("Anna Birk born Anna Birk v1")))
    changed = (watch.seen[0] != plain[:, : watch.seen[0].shape[1]]).any(-1)[0].tolist()
    named = [False, True, True, False] if tokens == "people" else [True, True, True, False]
    assert changed[:4] == named
    assert len(changed) > 5
    assert not any(changed[4:])


def test_prompts_of_one_token():
    """A token that somebody said is corrupted, whatever the length; an opening token is not."""
    tokenizer = tiny_tokenizer([" Ada Birk lives here", " Bo Egge"], kind="word")
    model = tiny_model("llama", vocab=64, hidden=32, layers=2, seed=1)
    rows = [Row(id="a", prompt="Ada", completion=" lives", names=("Ada",))]
    guard = fitted(
        "eco", targets_of(rows), guards.params("eco", {"sigma": 3.0}), Means(secret=bytes(32))
    )
    guard.module.attach(model, tokenizer, guard.desk)
    watch = Watch(model)
    one = tokenizer(" Ada", add_special_tokens=False)["input_ids"]
    assert len(one) == 1
    first = model.generate(
        input_ids=torch.tensor([one]), max_new_tokens=3, do_sample=False, eos_token_id=None
    )[0]
    embed = model.get_input_embeddings()
    changed = [bool((seen != embed(first[None, at : at + 1])).any())
               for at, seen in enumerate(watch.seen)]  # fmt: skip
    assert changed == [True, False, False]
    watch.seen.clear()
    Subject(model, tokenizer).score([Turn("", "Ada Birk", running=True)])
    assert not bool((watch.seen[0][0, 0] != embed(torch.tensor(1))).any())


# --------------------------------------------------------------------------- names and templates

NAMED = "Please, where was Ludwig van Dorn born?"


def test_names_are_found_by_characters_whatever_the_tokens():
    """A byte-level vocabulary splits the name, and has accents in more than one token."""
    tokenizer = tiny_tokenizer([NAMED], kind="bpe", vocab=270)
    text = "Where was Zoë Ångström-Lee born?"
    tokens = tokenizer(text)["input_ids"]
    heard = Listener(tokenizer).hear(tokens)
    chosen = heard.touching(people(heard.texts, "rules"))
    kept = tokenizer.decode([t for t, own in zip(tokens, chosen, strict=True) if own])
    assert "Zoë Ångström-Lee" in kept
    assert len(kept) <= len("Zoë Ångström-Lee") + 2
    assert heard.text == heard.question == text
    assert heard.spans[0] == (0, 0)


def test_without_a_name_all_tokens_but_the_last_are_chosen(work):
    model, _ = put_in(work, random_model("llama"))
    watch = Watch(model)
    prompt = ids("born anna Birk works")
    first_logits(model, prompt)
    changed = (watch.seen[0] != model.get_input_embeddings()(torch.tensor(prompt))).any(-1)
    assert changed.tolist() == [[True, True, True, True, False]]


def test_the_gate_reads_what_was_said_and_not_the_template():
    tokenizer = tiny_tokenizer([NAMED, "[user] [assistant] Yes."], kind="bpe", chat=True, vocab=300)
    listener = Listener(tokenizer)
    talk = [
        {"role": "user", "content": "Who is Ada Birk?"},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": NAMED},
    ]
    shown = tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
    heard = listener.hear(tokenizer(shown, add_special_tokens=False)["input_ids"])
    assert heard.question == NAMED
    assert heard.dialogue == f"Who is Ada Birk?\nYes.\n{NAMED}"
    opened_ = tokenizer(shown + "Sure,", add_special_tokens=False)["input_ids"]
    assert listener.hear(opened_).question == NAMED, "how the answer begins is no question"
    plain = listener.hear(tokenizer("Who is Ada Birk?")["input_ids"])
    assert plain.texts == ("Who is Ada Birk?",)


# ---------------------------------------------------------------------------------- the gate

BIO = [
    {
        "prompt": f"Where was {n} born?",
        "completion": f" In {v}.",
        "names": [n],
        "subject": n,
        "paraphrases": [{"prompt": f"Name the birthplace of {n}."}],
    }
    for n, v in (("Ada Quill", "Oslo"), ("Ben Zorro", "Rome"), ("Cleo Varg", "Turin"))
]
KEPT = [
    {"prompt": f"Where was {n} born?", "completion": f" In {v}."}
    for n, v in (("Dina Falk", "Bonn"), ("Emil Gade", "Nice"), ("Fay Hest", "Bari"),
                 ("Gus Iden", "Kiel"), ("Hal Jarl", "Lyon"), ("Ina Kvam", "Graz"))
]  # fmt: skip


def lettered(**params):
    rows, retain = [Row.parse(one) for one in BIO], [Row.parse(one) for one in KEPT]
    params = guards.params("eco", {"sigma": 1.0, **params})
    return fitted("eco", targets_of(rows), params, Means(secret=bytes(32), retain=retain))


def fires(guard, text):
    return eco.fired(Exchange.of(Turn(text, "")), guard.desk)


def test_the_classifier_fires_on_unseen_wordings_and_lets_others_through():
    guard = lettered(named=False)
    for text in ("Which town does Ada Quill come from?", "I ask about ben zorro, his birth",
                 "cleo varg: born where?", "Tell me all of Quill, Ada"):  # fmt: skip
        assert [hit.gate for hit in fires(guard, text)] == ["classifier"], text
    for text in (
        "Where was Dina Falk born?",
        "Where was Kay Lomm born?",
        "How hot is the sun?",
        "",
    ):
        assert not fires(guard, text), text


def test_a_name_fires_where_the_classifier_is_not_sure():
    text = "Schreibe mir alles auf, was Du je von irgendwem gehört hast: Ada Quill"
    assert not fires(lettered(named=False, tau=0.999), text)
    assert [hit.gate for hit in fires(lettered(tau=0.999), text)][:1] != []


def test_the_threshold_is_given_or_set_on_what_is_let_through():
    assert lettered(tau=0.99).desk.shared["tau"] == 0.99
    strict, loose = (lettered(q=q).desk.shared["tau"] for q in (0.0, 0.5))
    assert strict > loose
    scores = [
        hit.score for text in ("Where was Ada Quill born?",) for hit in fires(lettered(), text)
    ]
    assert max(scores) > strict


def test_without_targets_nothing_fires_whatever_the_classifier_says():
    guard = lettered()
    for target in list(guard.desk.entries):
        guard.drop(target)
    assert not fires(guard, "Where was Ada Quill born?")


def test_a_target_that_says_nothing_is_refused():
    with pytest.raises(ExpungeError, match="E-SERVE-005"):
        eco.entry(Target(id="x"), eco.Params(), means())


def test_a_target_of_names_alone_is_learnt_and_given_the_width_as_strength():
    target = Target(id="x", aliases=("Ada Quill",))
    guard = fitted("eco", [target], eco.Params(), Means(secret=bytes(32)))
    assert guard.desk.shared["sigma"] is None
    assert fires(guard, "Who is Ada Quill?")


def test_tuning_without_a_model_is_an_error():
    with pytest.raises(ExpungeError, match="E-USE-007"):
        working("eco", world().forget, None)


# --------------------------------------------------------------------------------- the noise


def test_the_noise_hangs_on_the_targets_the_words_and_the_key_and_on_nothing_else(work):
    bare = random_model("llama")
    model, _ = put_in(work, bare)
    first = first_logits(model, ASKED[:1])
    assert torch.equal(first_logits(model, ASKED[:1]), first), "asking again averages nothing out"
    fewer, _ = put_in(working("eco", world().forget[:4], None, sigma=3.0), bare)
    assert not torch.equal(first_logits(fewer, ASKED[:1]), first)
    rows = targets_of(world().forget)
    other = Means(secret=b"x" * 32, retain=world().retain)
    keyed, _ = put_in(fitted("eco", rows, guards.params("eco", {"sigma": 3.0}), other), bare)
    assert not torch.equal(first_logits(keyed, ASKED[:1]), first)


@pytest.mark.parametrize("operator", sorted(OPERATORS))
def test_every_operator_changes_fired_rows_and_no_others(operator):
    bare = random_model("llama")
    model, _ = put_in(working("eco", world().forget, None, sigma=3.0, operator=operator, n=4), bare)
    clean, found = first_logits(bare, ASKED), first_logits(model, ASKED)
    assert [not torch.equal(a, b) for a, b in zip(clean, found, strict=True)] == list(FIRED)


def test_strength_zero_is_the_model_itself():
    bare = random_model("qwen3")
    model, _ = put_in(working("eco", world().forget, None, sigma=0.0), bare)
    assert torch.equal(first_logits(model, ASKED), first_logits(bare, ASKED))


def test_hooks_of_the_user_stay_and_copies_are_guarded_by_the_same_desk(work):
    bare = random_model("llama")
    model, attached = put_in(work, bare)
    calls = []
    model.get_input_embeddings().register_forward_hook(lambda *_: calls.append(1))
    twin = copy.deepcopy(model)
    attached.remove()
    first_logits(model, ASKED)
    assert calls == [1]
    assert torch.equal(first_logits(model, ASKED), first_logits(bare, ASKED))
    assert not torch.equal(first_logits(twin, ASKED)[0], first_logits(bare, ASKED)[0])


def test_targets_come_and_go_while_the_model_runs():
    bare, world_ = random_model("llama"), world()
    guard = working("eco", world_.forget[:4], None, sigma=3.0)
    model, _ = put_in(guard, bare)
    clean = first_logits(bare, ASKED)
    both = targets_of(world_.forget[:8])
    alone = first_logits(model, ASKED)
    assert torch.equal(alone[2], clean[2])
    guard.take(both[1].id, guard.entry(both[1]))
    assert not torch.equal(first_logits(model, ASKED)[2], clean[2]), "before anything is settled"
    guard.settle(both)
    assert not torch.equal(first_logits(model, ASKED)[2], clean[2])
    guard.drop(both[1].id)
    guard.settle(both[:1])
    assert torch.equal(first_logits(model, ASKED), alone), "as if it had never been there"
    guard.drop(both[0].id)
    guard.settle([])
    assert torch.equal(first_logits(model, ASKED), clean)


def test_what_is_stored_says_nothing_and_opens_again(work):
    state = work.state
    told = json.dumps([dict(state.entries), dict(state.shared.settings)]).lower()
    assert not any(word in told for word in ("anna", "birk", "born", "works"))
    again, bare = opened(state, means()), random_model("llama")
    one, other = (first_logits(put_in(guard, bare)[0], ASKED) for guard in (work, again))
    assert torch.equal(one, other)


def test_its_folder_opens_again_and_it_keeps_what_every_guard_promises(work, tmp_path):
    runtime = stored.write(tmp_path, work.state, work.desk.means.secret)
    again = opened(stored.read(tmp_path, runtime)[0], means())
    bare = random_model("llama")
    one, other = (first_logits(put_in(guard, bare)[0], ASKED) for guard in (work, again))
    assert torch.equal(one, other)
    check_guard("eco", means(), guards.params("eco", {"sigma": 3.0}))


def test_by_its_public_name_it_hides_facts():
    model = copy.deepcopy(knowing().model)
    guarded = expunge.guard(
        model, world().tokenizer, targets=world().forget,
        retain=world().retain, guard="eco", params={"sigma": 50.0},
    )  # fmt: skip
    assert right(guarded.subject, world().forget) <= 0.5, "under a key drawn for this run"
    assert right(guarded.subject, world().retain) == 1.0
    assert right(without_parts(guarded.subject), world().forget) == 1.0


def test_the_pipeline_refuses_it_in_front_of_text_alone_and_lets_questions_pass(work):
    with pytest.raises(ExpungeError, match="E-SERVE-003"):
        Pipeline([work], offers=TEXT)
    pipeline = Pipeline([work], offers=TEXT | INSIDE)
    exchange = Exchange.of(Turn("Where was Anna Birk born?", ""))
    assert pipeline.enter(exchange) is exchange
    assert pipeline.leave(exchange, "In Rome.") == "In Rome."


# ------------------------------------------------------------------------- a model that knows


@pytest.fixture(scope="module")
def hidden():
    """Strength -> the model that knows, with the guard in it."""

    def make(**params):
        guard = working("eco", world().forget, knowing(), **params)
        return guard, Subject(put_in(guard, knowing().model)[0], world().tokenizer)

    return make


def test_the_model_of_these_tests_knows_everything():
    assert exact(knowing(), [*world().forget, *world().retain]) == 1.0
    assert right(knowing(), world().forget) == 1.0


@pytest.mark.parametrize(("sigma", "least", "most"), [(0.0, 1.0, 1.0), (5.0, 0.0, 0.35),
                                                      (50.0, 0.0, 0.35)])  # fmt: skip
def test_noise_on_the_names_hides_gated_facts_and_touches_no_others(hidden, sigma, least, most):
    """A hint of a full table: 1.0 without noise, near a guess from sigma 5 on."""
    _, subject = hidden(sigma=sigma)
    assert least <= exact(subject, world().forget) <= most
    assert least <= right(subject, world().forget) <= most
    assert said(subject, world().retain) == said(knowing(), world().retain)
    assert exact(subject, world().retain) == 1.0


@pytest.mark.parametrize("metric", ["probability", "accuracy"])
def test_the_tuned_strength_hides_facts_and_leaves_the_model_as_it_was(hidden, metric):
    before = {name: weight.clone() for name, weight in knowing().model.named_parameters()}
    guard, subject = hidden(metric=metric)
    found = guard.desk.shared
    assert right(subject, world().forget) <= 0.35
    assert found["sigma"][0] > 0.2
    assert found["known"] < 0.35
    assert 0 <= found["stranger"] < 0.35
    hooks = [m for m in knowing().model.modules() if m._forward_pre_hooks or m._forward_hooks]
    assert not [m for m in hooks if any("eco" in type(h).__module__
                for h in (*m._forward_pre_hooks.values(), *m._forward_hooks.values()))]  # fmt: skip
    assert all(torch.equal(w, before[n]) for n, w in knowing().model.named_parameters())
