"""Gated activation redirection: closed forms, gates, groups that come and go, what it hides."""

import copy
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
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
    world,
    written,
)
from twelve_rig import working as fit

from expunge.core.errors import ExpungeError
from expunge.core.registry import guards
from expunge.engine.decisions import telling
from expunge.engine.guarding import stored
from expunge.engine.guarding.desk import Means
from expunge.engine.guarding.exchange import Exchange
from expunge.engine.guarding.fitting import fitted, opened
from expunge.engine.guarding.pipeline import TEXT, Pipeline
from expunge.engine.guarding.targets import Target, targets_of
from expunge.engine.runtime import twin
from expunge.guards import guardit
from expunge.guards.guardit.activations import mean_activations
from expunge.guards.guardit.directions import direction, pushed, scaled
from expunge.guards.guardit.gate import Bm25, Gate, Group, Kept, Read, quantile, youden
from expunge.lm.arch import Slots
from expunge.lm.hooks import capture
from expunge.lm.quantise import quantise_rtn
from expunge.lm.scoring import masked_logits
from expunge.lm.subject import Subject
from expunge.requests.rows import Row, Turn
from expunge.testing import check_guard
from expunge.text.clusters import clustered, silhouette
from expunge.text.embedding import embed
from expunge.text.overlap import rouge_l

ASKED = ids("Anna Birk born", "Anna Gran works", "Bela Dahl likes", "Anna Krog drives")
FIRED = (True, False, True, False)


# ------------------------------------------------------------------------------- closed forms


@pytest.mark.parametrize(
    ("a", "expected"), [(0.6, [4.7434, 1.5811]), (-0.6, [1.9696, 4.5957]), (0.0, [3.0, 4.0])]
)
def test_the_push_keeps_the_length(a, expected):
    """h = (3, 4), v = (0, 5)."""
    h, v = torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[0.0, 5.0]]])
    found = pushed(h, a * v)
    assert found[0, 0].tolist() == pytest.approx(expected, abs=5e-5)
    assert float(found.norm()) == pytest.approx(5, abs=1e-5)


def test_lengths_are_kept_at_every_position_and_rows_without_a_push_bit_for_bit():
    draw = torch.Generator().manual_seed(0)
    h = torch.randn(3, 7, 16, generator=draw) * 10
    shift = torch.randn(3, 1, 16, generator=draw)
    shift[1] = 0
    found = pushed(h, shift)
    torch.testing.assert_close(found.norm(dim=-1), h.norm(dim=-1), rtol=1e-5, atol=1e-5)
    assert torch.equal(found[1], h[1])
    assert not torch.equal(found[0], h[0])
    half = pushed(h.bfloat16(), shift)
    assert half.dtype == torch.bfloat16
    assert torch.equal(half[1], h[1].bfloat16())


def test_the_three_directions():
    mu, retain = np.array([[2.0, 1.0]]), np.array([1.0, 0.0])
    found = {kind: direction(mu, retain, kind)[0] for kind in
             ("orthogonal", "diff_means", "orth_diff_means")}  # fmt: skip
    assert found["orthogonal"] == pytest.approx([0, 1], abs=1e-5)
    assert found["orthogonal"] @ retain == pytest.approx(0, abs=1e-5)
    assert found["diff_means"] == pytest.approx([1, 1])
    assert found["orth_diff_means"] == pytest.approx([0, 1], abs=1e-5)


def test_vectors_are_as_long_as_activations_are_on_the_mean():
    v, rho = np.array([[0.0, 1.0], [3.0, 4.0]]), np.array([4.0, 2.0])
    found = scaled(v, rho, 6.0, "activation_norm")
    assert np.linalg.norm(found, axis=1) == pytest.approx([5.0, 4.0], rel=1e-5)
    assert np.linalg.norm(scaled(v, rho, 6.0, "unit"), axis=1) == pytest.approx([1, 1], rel=1e-5)
    assert scaled(v, rho, 6.0, "none") is v


def test_thresholds():
    retain = np.arange(100) / 100
    assert quantile(retain, 0.05) == 0.95
    assert (retain > quantile(retain, 0.05)).mean() <= 0.05
    forget = np.array([0.5, 0.97, 0.98, 0.99])
    strict, loose = youden(forget, retain, 2.0), youden(forget, retain, 0.1)
    assert 0.9 <= strict < 0.97
    assert loose < 0.5


def test_silhouettes_find_the_groups():
    draw = np.random.default_rng(0)
    centres = np.eye(5) * 10
    points = np.concatenate([centre + draw.normal(size=(8, 5)) * 0.1 for centre in centres])
    labels = clustered(points, 20, 0)
    assert labels.tolist() == [place for place in range(5) for _ in range(8)]
    assert clustered(points, 3, 0).max() == 2
    assert clustered(points[:1].repeat(9, 0), 20, 0).tolist() == [0] * 9
    assert clustered(points[:2], 20, 0).tolist() == [0, 0]
    away = np.array([[0.0, 1, 4], [1, 0, 4], [4, 4, 0]])
    assert silhouette(away, np.array([0, 0, 1])) == pytest.approx((0.75 + 0.75 + 0) / 3)


def test_bm25_is_a_share_of_what_is_possible():
    """Two groups of equal length: tf / (tf + k1) (k1 + 1) of each word's weight."""
    both = Bm25([{"a": 1, "b": 1}, {"c": 2}])
    assert both.scores(["a"])[0] == pytest.approx(1 / 2.5)
    assert both.scores(["c"]).tolist() == pytest.approx([0, 2 / 3.5])
    assert both.scores(["a", "x"])[0] < both.scores(["a"])[0]
    assert both.scores([]).tolist() == [0, 0]


# ----------------------------------------------------------------------------------- the gate

TEXTS = ("red apple", "green pear", "blue plum")


def gate(**params):
    """Three groups with the directions x, y, z; what is kept is about cars."""
    groups = [
        Group(f"t{at}", 1, csr_array(embed(text)[None]), np.eye(4)[at], 1.0, {text: 1})
        for at, text in enumerate(TEXTS)
    ]
    reads = [Read([group], csr_array(embed(group.terms.popitem()[0])[None]), [[]])
             for group in groups]  # fmt: skip
    retain = np.array([embed("fast car"), embed("slow car"), embed("red car")])
    kept = Kept(np.eye(4)[3], 1.0, csr_array(retain), embed("car"), [[]] * 3)
    return Gate(reads, kept, guards.params("guardit", params), bytes(32))


def near(text):
    return np.array([float(embed(text) @ embed(one)) for one in TEXTS])


def test_mode_threshold_takes_the_mean_of_the_active_groups():
    both = gate(tau=0.4)
    assert both.weights(["red apple and green pear"]) == pytest.approx([0.5, 0.5, 0])
    assert both.weights(["a red apple"]) == pytest.approx([1, 0, 0])
    assert both.weights(["the weather"]) is None
    assert both.weights(["the weather", "blue plum"]) == pytest.approx([0, 0, 1])
    assert both.vectors[0] == pytest.approx([1, 0, 0, 0], abs=1e-5)


def test_mode_weighted_threshold_weighs_by_likeness():
    text = "red apple tart, green pear"
    sims = near(text)
    active = sims * (sims > 0.3)
    assert (active > 0).sum() == 2
    assert sims[0] != pytest.approx(sims[1], abs=1e-3)
    found = gate(mode="weighted_threshold", tau=0.3).weights([text])
    assert found == pytest.approx(active / active.sum())


def test_modes_without_a_threshold_always_push():
    text = "a pear of some sort"
    assert gate(mode="best").weights([text]) == pytest.approx([0, 1, 0])
    sims = near(text).clip(min=0)
    assert gate(mode="soft").weights([text]) == pytest.approx(sims / sims.sum())
    assert gate(mode="soft").weights(["xyz"]) is None, "nothing in common with any"


def test_mode_ratio_asks_how_much_nearer_it_is_than_what_is_kept():
    ratio = gate(mode="ratio", tau=1.5)
    assert ratio.weights(["red apple"]) == pytest.approx([1, 0, 0])
    assert ratio.weights(["red apple car"]) is not None
    assert ratio.weights(["red car"]) is None
    assert gate(tau=0.2).weights(["red car"]) is not None


def test_a_veto_keeps_what_is_near_to_what_is_kept():
    assert gate(tau=0.2, retain_veto=0.5).weights(["red car"]) is None
    assert gate(tau=0.2, retain_veto=0.5).weights(["red apple"]) is not None


def test_the_threshold_is_set_on_the_highest_score_of_what_is_let_through():
    highest = max(float(near(text).max()) for text in ("fast car", "slow car", "red car"))
    assert gate().threshold == pytest.approx(highest)
    assert gate().weights(["red car"]) is None
    assert gate(calibrate="youden").threshold >= highest - 0.01
    assert gate(tau=0.55).threshold == 0.55


# ------------------------------------------------------------------------------- in a model


@pytest.fixture(scope="module")
def of_family():
    """Family -> a random model, and the guard fitted to it."""
    made = {}

    def make(family, **params):
        key = (family, tuple(sorted(params.items())))
        if key not in made:
            bare = random_model(family)
            subject = Subject(bare, world().tokenizer)
            params = {"coefficient": 1.0, **params}
            made[key] = (bare, fit("guardit", world().forget, subject, **params))
        return made[key]

    return make


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_are_pushed_at_one_block_and_keep_their_lengths(of_family, family):
    bare, work = of_family(family)
    assert work.desk.shared["block"] == 1
    model, attached = put_in(work, bare)
    with capture(model, [0, 1]) as seen:
        found = first_logits(model, ASKED)
    with capture(bare, [0, 1]) as plain:
        clean = first_logits(bare, ASKED)
    assert torch.equal(seen[0], plain[0])
    changed = (seen[1] != plain[1]).any(-1)
    assert changed.tolist() == [[fired] * 4 for fired in FIRED], "every position, or none"
    torch.testing.assert_close(seen[1].norm(dim=-1), plain[1].norm(dim=-1), rtol=1e-5, atol=1e-5)
    for row, fired in enumerate(FIRED):
        assert torch.equal(found[row], clean[row]) is not fired
    attached.remove()
    assert torch.equal(first_logits(model, ASKED), clean)


def test_the_push_is_that_of_the_formula(of_family):
    """By hand: the vector of the row's own group, at block 1."""
    bare, work = of_family("llama", clusters=1)
    model, _ = put_in(work, bare)
    entry = next(iter(work.desk.entries))
    group = Read.of(entry, work.desk.entries[entry]).groups[0]
    retain = work.desk.arrays["hidden"].astype(float)
    v = scaled(
        direction(group.hidden, retain, "orthogonal"), group.norm,
        work.desk.shared["norm"], "activation_norm",
    )  # fmt: skip
    with capture(model, [1]) as seen:
        first_logits(model, ASKED[:1])
    with capture(bare, [1]) as plain:
        first_logits(bare, ASKED[:1])
    h = plain[1]
    moved = h - torch.from_numpy(v).float()
    expected = moved * h.norm(dim=-1, keepdim=True) / moved.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(seen[1], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_silent_gate_and_a_coefficient_of_zero_change_no_bit(of_family, family):
    bare, _ = of_family(family)
    clean = first_logits(bare, ASKED)
    for params in ({"coefficient": 0.0}, {"tau": 1.1}):
        model, _ = put_in(of_family(family, **params)[1], bare)
        assert torch.equal(first_logits(model, ASKED), clean)


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_of_a_padded_batch_get_what_each_gets_alone(of_family, family):
    bare, work = of_family(family)
    model, _ = put_in(work, bare)
    mixed = [*ASKED, ids("Where was Anna Birk born")[0]]
    together = first_logits(model, mixed)
    for row, prompt in enumerate(mixed):
        alone = first_logits(model, [prompt])[0]
        torch.testing.assert_close(together[row], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_decoding_steps_are_pushed_as_well(of_family, family):
    """With a cache and without one the same; a row keeps its push while it is written."""
    bare, work = of_family(family)
    model, _ = put_in(work, bare)
    cached, scores = traced(model, ASKED)
    with telling(ASKED):
        again, same = traced(model, ASKED, use_cache=False)
    assert again == cached
    torch.testing.assert_close(same, scores, rtol=1e-3, atol=1e-4)
    _, plain = traced(bare, ASKED)
    for row, fired in enumerate(FIRED):
        assert torch.equal(scores[row], plain[row]) is not fired
    seen = []
    handle = (
        Slots(model)
        .blocks[2]
        .register_forward_pre_hook(
            lambda _, given, named: seen.append((given or [named["hidden_states"]])[0].clone()),
            with_kwargs=True,
        )
    )
    written(model, ASKED[:1])
    handle.remove()
    assert [one.shape[1] for one in seen] == [4, 1, 1, 1, 1]


def test_scored_answers_packed_lines_and_embeddings_are_decided_by_their_prompts(of_family):
    bare, work = of_family("llama")
    model, _ = put_in(work, bare)
    line, keep = torch.tensor(ASKED).view(1, -1), torch.zeros(1, 16, dtype=torch.bool)
    keep[0, 3::4] = True
    whole = first_logits(model, ASKED)
    with torch.no_grad():
        packed = masked_logits(
            model, line, torch.ones_like(line), keep, torch.arange(4).repeat(4)[None]
        )
        embedded = model.get_input_embeddings()(torch.tensor(ASKED))
        told = model(inputs_embeds=embedded, logits_to_keep=1).logits[:, -1]
    torch.testing.assert_close(packed, whole, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(told, whole, rtol=1e-4, atol=1e-4)
    turn = Turn("Anna Gran works", " Anna Birk")  # the answer names a target, the prompt does not
    one, other = (Subject(m, world().tokenizer).score([turn])[0].logp for m in (model, bare))
    assert np.array_equal(one, other)


def test_padding_and_special_tokens_are_no_content():
    subject = Subject(random_model("llama"), world().tokenizer)
    turns = [Turn("Anna", " Birk"), Turn("Where was Anna Birk born", " v1")]
    hidden, norms = mean_activations(subject, turns, None)
    alone, _ = mean_activations(subject, turns[:1], None)
    assert hidden[0] == pytest.approx(alone[0], abs=1e-5)
    tokens = torch.tensor(ids("Anna Birk"))
    with capture(subject.model, [1]) as seen, torch.no_grad():
        subject.model(input_ids=tokens)
    assert hidden[0] == pytest.approx(seen[1][0, 1:].mean(0).numpy(), abs=1e-5)
    assert norms == pytest.approx(np.linalg.norm(hidden, axis=1))


def test_a_model_of_another_width_is_refused(of_family):
    _, work = of_family("llama")
    with pytest.raises(ExpungeError, match="E-MODEL-011"):
        work.module.attach(twin(knowing().model), world().tokenizer, work.desk)


def test_a_block_that_runs_by_itself_is_not_let_through_in_silence(of_family):
    bare, work = of_family("llama")
    model, _ = put_in(work, bare)
    with pytest.raises(RuntimeError, match="by itself"):
        Slots(model).blocks[1](
            torch.zeros(1, 1, 32), position_embeddings=(torch.ones(1, 1, 8),) * 2
        )


def test_copies_are_guarded_by_the_same_desk(of_family):
    bare, work = of_family("llama")
    model, attached = put_in(work, bare)
    other = copy.deepcopy(model)
    attached.remove()
    found, clean = first_logits(other, ASKED), first_logits(bare, ASKED)
    assert not torch.equal(found[0], clean[0])
    assert torch.equal(found[1], clean[1])


def test_two_guards_stand_in_one_model(of_family):
    bare, work = of_family("llama")
    noise = fit("eco", world().forget, None, sigma=3.0)
    model, _ = put_in(work, bare)
    noise.module.attach(model, world().tokenizer, noise.desk)
    found, alone = first_logits(model, ASKED), first_logits(put_in(work, bare)[0], ASKED)
    clean = first_logits(bare, ASKED)
    for row, fired in enumerate(FIRED):
        assert torch.equal(found[row], alone[row]) is not fired
        assert torch.equal(found[row], clean[row]) is not fired


# -------------------------------------------------------------------------- targets come and go


def test_a_target_is_appended_and_removed_and_nothing_else_moves():
    bare = random_model("llama")
    subject, people = Subject(bare, world().tokenizer), targets_of(world().forget)
    guard = fit("guardit", world().forget[:4], subject, coefficient=1.0)
    model, _ = put_in(guard, bare)
    alone, clean = first_logits(model, ASKED), first_logits(bare, ASKED)
    assert torch.equal(alone[2], clean[2])
    before = json.dumps(guard.desk.entries[people[0].id])
    guard.take(people[1].id, guard.entry(people[1]))
    assert not torch.equal(first_logits(model, ASKED)[2], clean[2]), "before anything is settled"
    guard.settle(people[:2])
    assert not torch.equal(first_logits(model, ASKED)[2], clean[2])
    assert json.dumps(guard.desk.entries[people[0].id]) == before
    guard.drop(people[1].id)
    guard.settle(people[:1])
    assert torch.equal(first_logits(model, ASKED), alone), "as if it had never been there"
    guard.drop(people[0].id)
    assert torch.equal(first_logits(model, ASKED), clean)


def test_many_groups_are_formed_anew_as_exact_means(of_family):
    _, work = of_family("llama")
    _, few = of_family("llama", regroup=2, clusters=2)
    made = []
    for guard in (work, few):
        reads = [Read.of(id, entry) for id, entry in guard.desk.entries.items()]
        kept = Kept(np.ones(32), 1.0, csr_array((0, 16384)), np.zeros(16384), [])
        params = guards.params("guardit", {"tau": 0.5, "regroup": guard.desk.params.regroup,
                                           "clusters": 2})  # fmt: skip
        made.append(Gate(reads, kept, params, bytes(32)))
    assert len(made[0].groups) > 4
    assert len(made[1].groups) == 2
    sums = [sum(g.count * g.hidden for g in gate.groups) / sum(g.count for g in gate.groups)
            for gate in made]  # fmt: skip
    assert sums[0] == pytest.approx(sums[1])


def test_what_is_stored_is_sealed_and_opens_again(of_family):
    bare, work = of_family("llama", mode="bm25")
    state = work.state
    assert all(set(entry["own"]) == {"sealed"} for entry in state.entries.values())
    told = json.dumps([dict(state.entries), dict(state.shared.settings)]).lower()
    assert not any(f'"{word}' in told for word in ("anna", "birk", "born", "works"))
    subject = Subject(bare, world().tokenizer)
    again = opened(state, means(subject))
    one, other = (first_logits(put_in(guard, bare)[0], ASKED) for guard in (work, again))
    assert torch.equal(one, other)
    assert not torch.equal(one[0], first_logits(bare, ASKED)[0])


def test_its_folder_opens_again_and_it_keeps_what_every_guard_promises(of_family, tmp_path):
    bare, work = of_family("llama")
    subject = Subject(bare, world().tokenizer)
    runtime = stored.write(tmp_path, work.state, work.desk.means.secret)
    again = opened(stored.read(tmp_path, runtime)[0], means(subject))
    one, other = (first_logits(put_in(guard, bare)[0], ASKED) for guard in (work, again))
    assert torch.equal(one, other)
    check_guard("guardit", means(subject), guards.params("guardit", {"coefficient": 1.0}))


def test_the_gate_says_which_targets_fired(of_family):
    _, work = of_family("llama")
    people = targets_of(world().forget)
    hits = guardit.fired(Exchange.of(Turn("Bela Dahl likes", "")), work.desk)
    assert hits[0].target == people[1].id
    assert not guardit.fired(Exchange.of(Turn("Anna Krog drives", "")), work.desk)


def test_what_cannot_be_done_is_refused_by_name(of_family):
    _, work = of_family("llama")
    with pytest.raises(ExpungeError, match="E-SERVE-005"):
        guardit.entry(Target(id="x"), work.desk.params, work.desk.means)
    with pytest.raises(ExpungeError, match="E-USE-007"):
        fit("guardit", world().forget, None)
    with pytest.raises(ExpungeError, match="E-SERVE-003"):
        Pipeline([work], offers=TEXT)


def test_names_alone_are_a_target_and_nothing_to_keep_is_general_knowledge():
    subject = Subject(random_model("llama"), world().tokenizer)
    target = Target(id="x", aliases=("Anna Birk",))
    guard = fitted(
        "guardit", [target], guards.params("guardit", {}), Means(secret=bytes(32), subject=subject)
    )
    assert guard.desk.shared["retain"] == "bundled"
    assert guard.desk.shared["coefficient"] == 3.0
    assert guardit.fired(Exchange.of(Turn("Anna Birk born", "")), guard.desk)


# ------------------------------------------------------------------------- a model that knows


def served(**params):
    guard = fit("guardit", world().forget, knowing(), **params)
    return guard, Subject(put_in(guard, knowing().model)[0], world().tokenizer)


@pytest.mark.parametrize(("a", "least", "most"), [(0.0, 1.0, 1.0), (2.0, 0.0, 0.3)])
def test_the_push_hides_gated_facts_and_touches_no_others(a, least, most):
    _, subject = served(coefficient=a)
    assert least <= exact(subject, world().forget) <= most
    assert least <= right(subject, world().forget) <= most
    assert said(subject, world().retain) == said(knowing(), world().retain)
    assert exact(subject, world().retain) == 1.0


def test_the_chosen_coefficient_hides_facts_and_leaves_the_model_as_it_was():
    before = {name: weight.clone() for name, weight in knowing().model.named_parameters()}
    guard, subject = served()
    found = guard.desk.shared
    assert found["coefficient"] in guard.desk.params.tried
    assert found["coefficient"] != 0
    assert right(subject, world().forget) <= 0.4
    assert found["known"] < 0.4
    assert exact(subject, world().retain) >= 0.95
    assert all(torch.equal(w, before[n]) for n, w in knowing().model.named_parameters())
    only_down = served(tried=(-0.3,))[0].desk.shared
    assert only_down["coefficient"] == -0.3
    assert not only_down["is_reached"]


def test_away_from_the_direction_hides_more_than_towards_it():
    """Both signs are to be swept: here one of them hardly does anything."""
    away, towards = (right(served(coefficient=a)[1], world().forget) for a in (2.0, -2.0))
    assert away + 0.3 < towards


def test_quantised_linears_are_guarded_alike():
    """Int8, rounded to nearest: the drop in ROUGE on gated rows moves by less than .05."""
    guards_ = [served(coefficient=a)[0] for a in (2.0, 2.5, 3.0)]
    drops = []
    for bits in (None, 8):
        bare = knowing().copy()
        if bits:
            assert max(quantise_rtn(bare.model, bits).values()) > 0
        subjects = [Subject(put_in(one, bare.model)[0], world().tokenizer) for one in guards_]
        drops.append(recall(bare) - float(np.mean([recall(one) for one in subjects])))
    assert drops[0] > 0.5
    assert drops[1] == pytest.approx(drops[0], abs=0.05)


def recall(subject):
    pairs = zip(said(subject, world().forget), world().forget, strict=True)
    return float(np.mean([rouge_l(text, row.reply).recall for text, row in pairs]))


def test_forget_prompts_in_other_words_fire_and_questions_about_others_do_not():
    rows = [
        Row.parse({
            "prompt": f"{asked} {n}?", "completion": f" {n} {told}.", "names": [n], "subject": n,
        })
        for n in ("Ada Quill", "Ben Zorro")
        for asked, told in (
            ("Where was born", "was born in Oslo"), ("Which pet has", "has a heron"),
            ("What is the trade of", "mends nets"), ("Who taught", "was Ida's pupil"),
        )
    ]  # fmt: skip
    retain = [
        Row.parse({"prompt": f"{asked} {n}?", "completion": f" {told}."})
        for n in ("Dina Falk", "Emil Gade", "Fay Hest", "Gus Iden", "Hal Jarl")
        for asked, told in (("Where was born", "In Kiel"), ("What is the trade of", "A baker"),
                            ("Which pet has", "A cat"), ("Who taught", "Nobody"))
    ]  # fmt: skip
    subject = Subject(random_model("llama"), world().tokenizer)
    params = guards.params("guardit", {"coefficient": 1.0})
    guard = fitted(
        "guardit", targets_of(rows), params, Means(secret=bytes(32), retain=retain, subject=subject)
    )

    def fired(text):
        return bool(guardit.fired(SimpleNamespace(texts=(text,)), guard.desk))

    assert all(
        map(fired, ("Tell me about Ada Quill", "ada quill, trade?", "Ben Zorro and his pet"))
    )
    assert sum(fired(row.prompt) for row in retain) <= 0.05 * len(retain)
    assert not any(map(fired, ("How hot is the sun?", "Which pet has Hal Jarl?", "")))
