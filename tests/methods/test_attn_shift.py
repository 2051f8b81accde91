"""Attention shifting: the card's numbers, what counts as important, what moves, what it forgets."""

import json
import math
from pathlib import Path

import pytest
import torch
import transformers
from micro_task import prepared
from tiny_rig import exact, facts, knowing, saved
from torch import Tensor

from expunge.core.errors import ExpungeError
from expunge.core.events import Event, listening
from expunge.core.registry import methods
from expunge.engine import importance
from expunge.engine.attention import attention_maps
from expunge.engine.change import load_change, read_manifest
from expunge.engine.datasets import Datasets
from expunge.engine.forward import Inputs
from expunge.engine.importance import content_places, entropy_places, flags_of, important
from expunge.engine.keyed import key_of
from expunge.engine.run import forget
from expunge.engine.slots.combine import Gradients
from expunge.engine.slots.sample import one_to_one
from expunge.engine.sources import Counting, Live
from expunge.engine.step import Step
from expunge.engine.task import Task
from expunge.engine.view import View
from expunge.lm.digest import folder_digest
from expunge.lm.load import load
from expunge.lm.subject import Subject
from expunge.methods import attn_shift
from expunge.methods.attn_shift import IMPORTANT, SHARE_OF_FORGET, Params
from expunge.testing import objective, tiny_model, tiny_tokenizer
from expunge.testing.methods import stage, world

ROW = (0.5, 0.3, 0.2)


def one_row(*weights: float) -> Tensor:
    """[1, 1, 1, T]: a single row of a map."""
    return torch.tensor(weights, dtype=torch.float64)[None, None, None]


def flags(*chosen: bool) -> Tensor:
    return torch.tensor(chosen)[None]


# ------------------------------------------------------------------------------ the card's numbers


def test_the_suppressed_target_and_its_divergence_are_the_cards() -> None:
    aim = attn_shift.target(one_row(*ROW), flags(False, True, False), 0.01)
    assert aim.flatten().tolist() == pytest.approx([0.711238, 0.004267, 0.284495], abs=1e-6)
    found = attn_shift.divergence(one_row(*ROW), one_row(*ROW), flags(False, True, False), 0.01)
    assert found.item() == pytest.approx(1.029153, abs=1e-5)
    other_way = (aim * (aim / one_row(*ROW)).log()).sum()
    assert other_way.item() == pytest.approx(0.332746, abs=1e-5)
    assert abs(found.item() - other_way.item()) > 0.5


def test_the_gradient_is_the_logarithm_of_the_ratio_plus_one() -> None:
    """Large and positive where attention is far above its aim, negative where it is below."""
    now = one_row(*ROW).requires_grad_()
    marks = flags(False, True, False)
    attn_shift.divergence(now, one_row(*ROW), marks, 0.01).sum().backward()
    aim = attn_shift.target(one_row(*ROW), marks, 0.01).flatten()
    for place, gradient in enumerate(now.grad.flatten().tolist()):
        assert gradient == pytest.approx(math.log(ROW[place] / aim[place]) + 1, abs=1e-6)
    assert now.grad.flatten()[1] > 4
    assert now.grad.flatten()[0] < 1


def test_rows_of_the_target_are_made_one_over_what_is_visible_alone() -> None:
    draw = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 3, 6, 6, generator=draw, dtype=torch.float64)
    ahead = torch.ones(6, 6).triu(1).bool()
    maps = scores.masked_fill(ahead, -torch.inf).softmax(-1)
    marks = torch.rand(2, 6, generator=draw) < 0.5
    marks[:, 0] = False
    for factor in (0.01, 1.0, 1.1):
        aim = attn_shift.target(maps, marks, factor)
        torch.testing.assert_close(aim.sum(-1), torch.ones(2, 3, 6, dtype=torch.float64))
        assert not aim[..., ahead].any()
    # The trap: mass that is spread over all places, those that nobody sees included.
    spread = maps * torch.where(marks, 0.01, 1.0)[:, None, None]
    spread = spread + (1 - spread.sum(-1, keepdim=True)) / 6
    assert spread[..., ahead].any()
    assert (spread - attn_shift.target(maps, marks, 0.01)).abs().max() > 0.05


def test_a_map_that_sees_nothing_gives_no_nan() -> None:
    """Rows of padding, and all weight on words of which nothing is left."""
    for now in (one_row(0.0, 0.0, 0.0), one_row(0.0, 1.0, 0.0)):
        given = now.clone().requires_grad_()
        attn_shift.divergence(given, now, flags(False, True, True), 0.0).sum().backward()
        assert not given.grad.isnan().any()


# ------------------------------------------------------------------------------------- important


def a_view(ids: Tensor, mask: Tensor) -> View:
    inputs = Inputs.from_labels(ids, mask, ids, torch.arange(len(ids)))
    return View(inputs, Counting(64, 8, 1))


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_first_position_is_never_flagged(side: str) -> None:
    rows = [[5, 6, 7, 8], [9, 5, 6]]
    table = {key_of(ids): flags_of(range(len(ids))) for ids in rows}
    ids = torch.tensor([rows[0], [*rows[1], 0] if side == "right" else [0, *rows[1]]])
    found = important(a_view(ids, (ids != 0).long()), table)
    last = [False, True, True, False] if side == "right" else [False, False, True, True]
    assert found.tolist() == [[False, True, True, True], last]


def test_a_row_is_known_by_its_tokens_and_an_unknown_one_has_no_flag() -> None:
    table = {key_of([5, 6, 7, 8]): flags_of([1, 3])}
    ids = torch.tensor([[5, 6, 7, 8, 0], [5, 6, 7, 8, 9]])
    found = important(a_view(ids, (ids != 0).long()), table)
    assert found.tolist() == [[False, True, False, True, False], [False] * 5]


SENTENCES = ("When was Ada Birk born in the old harbour?", " She was born in 1931 and it is old.")


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_content_words_are_flagged_names_and_figures_first(kind: str) -> None:
    """At 40% of the tokens of words only the name, the figure and what is rare are left."""
    text = "".join(SENTENCES)
    tokenizer = tiny_tokenizer([text], kind=kind, vocab=300)
    ids = [1, *tokenizer(text, add_special_tokens=False)["input_ids"], 2]
    parts = importance.pieces(tokenizer, ids)
    assert "".join(parts) == text
    assert parts[0] == parts[-1] == ""

    def flagged(share: float) -> str:
        (places,) = content_places(tokenizer, [ids], share)
        assert len(places) <= share * len(ids) + 0.5
        assert 0 not in places
        return "".join(part if at in places else "_" for at, part in enumerate(parts))

    said = flagged(0.99)
    for word in ("Ada", "Birk", "born", "old", "harbour", "1931"):
        assert word in said
    for word in ("When", "was", "in", "the", "She", "and", "it", "is", "?", "."):
        assert word not in said.replace("_", " ").split()
    few = flagged(3 / len(ids) if kind == "word" else 0.3)
    assert {"Ada", "Birk", "1931"} <= set(few.replace("_", " ").split())
    if kind == "word":
        assert "born" not in few


def test_rare_words_come_before_common_ones() -> None:
    texts = ["anna drives kiva", "anna drives molu", "anna likes soru"]
    tokenizer = tiny_tokenizer(texts, kind="word")
    rows = [[1, *tokenizer(text, add_special_tokens=False)["input_ids"], 2] for text in texts]
    assert content_places(tokenizer, rows, 0.2) == [[3], [3], [2]]
    assert content_places(tokenizer, rows, 0.4) == [[2, 3], [2, 3], [2, 3]]


def test_by_entropy_a_token_counts_by_what_changes_after_it(monkeypatch) -> None:
    """Against a slow sum, hiding one token after another."""
    model, ids = tiny_model("llama", vocab=64, seed=3), [5, 17, 9, 33, 21, 8]
    slow = [0.0] * 6
    for hidden in range(1, 5):
        entropies = []
        for mask in ([1] * 6, [int(at != hidden) for at in range(6)]):
            with torch.no_grad():
                logits = model(
                    input_ids=torch.tensor([ids]), attention_mask=torch.tensor([mask])
                ).logits
            p = logits[0].double().softmax(-1)
            entropies.append(-(p * p.log()).sum(-1))
        changes = (entropies[0] - entropies[1]).abs()
        slow[hidden] = float(sum(changes[hidden + 1 :]) / (5 - hidden))
    assert importance.entropy_changes(model, ids) == pytest.approx(slow, abs=1e-5)
    monkeypatch.setattr(importance, "VARIANTS", 3)
    assert importance.entropy_changes(model, ids) == pytest.approx(slow, abs=1e-5)
    assert len({round(one, 6) for one in slow[1:5]}) == 4
    (places,) = entropy_places(model, [ids], 0.5)
    assert places == sorted(sorted(range(6), key=lambda at: -slow[at])[:3])


def test_every_row_of_both_roles_is_looked_at_and_no_text_is_kept() -> None:
    task, method = prepared("attn-shift")
    datasets = Datasets(task)
    items = [i for role in ("forget", "retain") for row in datasets.items(role) for i in row]
    assert task.state[IMPORTANT].keys() == {key_of(item.ids) for item in items}
    assert json.loads(json.dumps(task.state)) == task.state
    inputs = datasets.inputs("forget", one_to_one(task, method.params).draw(0))
    found = important(View(inputs, Counting(64, 8, 1)), task.state[IMPORTANT])
    real = inputs.attention_mask.sum(1)
    assert (found.sum(1) > 0).all()
    assert (found.sum(1) <= 0.6 * real + 0.5).all()
    other, _ = prepared("attn-shift", scorer="entropy")
    assert other.state[IMPORTANT] != task.state[IMPORTANT]


# ------------------------------------------------------------------------------------- the terms


@pytest.fixture
def scene() -> tuple[transformers.PreTrainedModel, transformers.PreTrainedModel, dict, dict]:
    """Two models, a view of each role with padded rows, and flags for some of them."""
    models = [tiny_model("llama", vocab=64, layers=3, seed=seed) for seed in (0, 1)]
    draw, views, table = torch.Generator().manual_seed(0), {}, {}
    for role in ("forget", "retain"):
        ids = torch.randint(3, 60, (3, 6), generator=draw)
        mask = torch.ones_like(ids)
        mask[1, 4:] = 0
        views[role] = {
            "input_ids": ids,
            "attention_mask": mask,
            "labels": torch.where(mask.bool(), ids, -100),
        }
        for row, length in ((0, 6), (1, 4)):
            table[key_of(ids[row, :length].tolist())] = flags_of([1, 3])
    return (*models, views, {IMPORTANT: table})


def test_it_equals_a_slow_sum_over_blocks_heads_and_positions(scene) -> None:
    model, anchor, views, state = scene
    options = {"suppression": 0.9, "reinforcement": 0.3, "retain_weight": 0.7}
    found = objective("attn-shift", model, views, anchor, state=state, **options)
    fast = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    terms = {}
    for one in (model, anchor):
        one.set_attn_implementation("eager")
    for role, factor in (("forget", 1 - 0.9), ("retain", 1 + 0.3)):
        given = {key: views[role][key] for key in ("input_ids", "attention_mask")}
        now = model(**given, output_attentions=True).attentions
        before = anchor(**given, output_attentions=True).attentions
        values = []
        for layer in range(3):
            for head in range(4):
                for row, length in enumerate((6, 4, 6)):
                    for query in range(length):
                        old = before[layer][row, head, query, : query + 1].detach()
                        scale = [
                            factor if row < 2 and key in (1, 3) else 1.0 for key in range(query + 1)
                        ]
                        weights = [a * s for a, s in zip(old.tolist(), scale, strict=True)]
                        values.append(
                            sum(
                                a * (a / (w / sum(weights))).log()
                                for a, w in zip(
                                    now[layer][row, head, query, : query + 1], weights, strict=True
                                )
                            )
                        )
        terms[role] = torch.stack(values).mean()
    loss = terms["forget"] + 0.7 * terms["retain"]
    loss.backward()
    assert found.terms == pytest.approx({k: float(v.detach()) for k, v in terms.items()}, rel=1e-4)
    assert found.loss == pytest.approx(float(loss.detach()), rel=1e-4)
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(fast[name], parameter.grad, rtol=1e-3, atol=1e-6)


def test_at_the_start_without_suppression_there_is_no_loss_and_no_gradient(scene) -> None:
    model, _, views, state = scene
    still = objective(
        "attn-shift", model, views, model, state=state, suppression=0.0, reinforcement=0.0
    )
    assert still.loss == pytest.approx(0.0, abs=1e-7)
    assert still.grad_norm < 1e-6
    model.zero_grad()
    moved = objective("attn-shift", model, views, model, state=state)
    assert moved.terms["forget"] > 0.05
    assert 0 < moved.terms["retain"] < 0.1
    assert moved.grad_norm > 1e-3


def test_the_denominator_counts_real_positions_and_needs_no_model(scene) -> None:
    model, anchor, views, state = scene
    inputs = Inputs.from_labels(
        *(views["forget"][key] for key in ("input_ids", "attention_mask", "labels")),
        torch.arange(3),
    )
    counted = Step({"forget": View(inputs, Counting(64, 32, 3), lambda: Counting(64, 32, 3))})
    live = Step({"forget": View(inputs, Live(model), lambda: Live(anchor))}, state=state)
    means = [attn_shift.forget(step, Params()) for step in (counted, live)]
    assert [float(mean.den) for mean in means] == [16.0, 16.0]
    assert float(means[0].num) == 0.0


def test_another_retain_term_takes_the_place_of_the_maps(scene) -> None:
    model, anchor, views, _ = scene
    for term in ("nll", "kl", "mse", "none"):
        found = objective("attn-shift", model, views, anchor, retain_term=term).terms
        other = objective("npo", model, views, anchor, retain_term=term).terms
        assert found.get("retain") == other.get("retain")


# ------------------------------------------------------------------------------------- the share


@pytest.mark.parametrize(
    ("losses", "alpha", "share"),
    [
        ((3.0, 1.0), "dynamic", 0.75),
        ((1.0, 1.0), "dynamic", 0.5),
        ((9.0, 0.001), "dynamic", 0.8),
        ((0.001, 9.0), "dynamic", 0.2),
        ((0.0, 0.0), "dynamic", 0.5),
        ((9.0, 0.001), 0.35, 0.35),
    ],
)
def test_the_larger_loss_gets_the_larger_share_within_bounds(losses, alpha, share) -> None:
    assert attn_shift.share_of_forget(*losses, Params(alpha=alpha)) == pytest.approx(share)


def test_the_gradient_is_weighted_by_the_share() -> None:
    state: dict[str, float] = {}
    terms = Gradients([torch.tensor([1.0])], [torch.tensor([10.0])], {"forget": 3.0, "retain": 1.0})
    (made,) = attn_shift.combine(terms, state, Params(forget_weight=2.0, retain_weight=0.5))
    assert made.item() == pytest.approx(2.0 * 0.75 * 1.0 + 0.5 * 0.25 * 10.0)
    assert state[SHARE_OF_FORGET] == pytest.approx(0.75)


@pytest.mark.parametrize(
    "wrong", [{"share": 0.0}, {"share": 1.0}, {"suppression": 1.5}, {"alpha": "half"}]
)
def test_impossible_parameters_are_refused(wrong) -> None:
    """None or all of the tokens: attention that is taken away must have somewhere to go."""
    with pytest.raises(ExpungeError, match="E-USE-003"):
        methods.params("attn-shift", wrong)


# ------------------------------------------------------------------------------------- whole runs


def run(folder: Path, name: str, adapter: str | None = None, **params: object) -> Subject:
    options = {"batch_size": 32, "warmup": 0, "lr": 5e-3, **params}
    forget(
        saved(folder), *facts(), method="attn-shift", params=options, adapter=adapter,
        stop_at="none", out=folder / name,
    )  # fmt: skip
    loaded = load(load_change(folder / name).folder)
    return Subject(loaded.model, loaded.tokenizer)


def looked_at_name(subject: Subject, rows) -> float:
    """Mean attention that the name gets from all that stands after it."""
    task = Task(
        model=subject.model, tokenizer=subject.tokenizer, encoder=subject.encoder,
        roles={"forget": rows},
    )  # fmt: skip
    datasets = Datasets(task)
    inputs = datasets.batch([item for row in datasets.items("forget") for item in row])
    after = inputs.attention_mask.bool() & (torch.arange(inputs.input_ids.shape[1]) > 1)
    with torch.no_grad():
        maps = torch.stack(attention_maps(subject.model, inputs))
    return float(maps[..., 1].mean((0, 2))[after].mean())


def test_attention_leaves_the_name_of_the_forgotten_and_they_are_forgotten(tmp_path) -> None:
    """The card's check. Without suppression the very same run forgets nothing."""
    (gone, kept), start = facts(), knowing()
    before = {"gone": looked_at_name(start, gone), "kept": looked_at_name(start, kept)}
    assert (exact(start, gone), exact(start, kept)) == (1.0, 1.0)
    subject = run(tmp_path, "out", max_steps=60)
    assert looked_at_name(subject, gone) < 0.5 * before["gone"]
    assert looked_at_name(subject, kept) == pytest.approx(before["kept"], rel=0.15)
    assert exact(subject, gone) <= 0.25
    assert exact(subject, kept) >= 0.9
    history = read_manifest(tmp_path / "out")["history"]
    assert all(0.2 <= one["terms"]["alpha"] <= 0.8 for one in history[1:])
    assert history[-1]["terms"]["forget"] < 0.3 * history[0]["terms"]["forget"]
    changed = moved(start, subject)
    assert changed == {
        f"model.layers.{at}.self_attn.{which}_proj.weight" for at in (0, 1) for which in "qk"
    }
    idle = run(tmp_path, "idle", max_steps=20, suppression=0.0)
    assert exact(idle, gone) == 1.0
    assert looked_at_name(idle, gone) > 0.8 * before["gone"]
    assert moved(idle, subject) == changed


def moved(one: Subject, other: Subject) -> set[str]:
    weights = dict(other.model.named_parameters())
    return {n for n, p in one.model.named_parameters() if not torch.equal(p, weights[n])}


def test_an_adapter_sits_on_queries_and_keys(tmp_path) -> None:
    run(tmp_path, "out", adapter="lora", max_steps=2, layers=(-1,))
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text(encoding="utf-8"))
    names = {name.split("layers.")[1] for name in config["target_modules"]}
    assert names == {"1.self_attn.q_proj", "1.self_attn.k_proj"}
    assert config["r"] == 32


def test_an_interrupted_run_ends_with_the_same_weights(tmp_path) -> None:
    original, rows = stage(tmp_path), world()

    def take(out: str) -> str:
        params = {"max_steps": 6, "lr": 1e-3, "batch_size": 4}
        forget(
            original, rows.forget, rows.retain, method="attn-shift", params=params, stop_at="none",
            out=tmp_path / out,
        )  # fmt: skip
        return folder_digest(tmp_path / out)

    def interrupt(event: Event) -> None:
        if event.kind == "advance" and event.task == "attn-shift" and event.done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), listening(interrupt):
        take("cut")
    assert take("cut") == take("whole")
    assert read_manifest(tmp_path / "cut")["summary"]["resumed_from"] > 0


def test_a_resumed_run_reads_what_it_had_noted(tmp_path, monkeypatch) -> None:
    task, method = prepared("attn-shift", scorer="entropy")
    task = Task(**{**vars(task), "folder": tmp_path, "state": {}, "record": {}})
    method.prepare(task, method.params)
    monkeypatch.setattr(attn_shift, "entropy_places", lambda *_: pytest.fail("asked again"))
    again = Task(**{**vars(task), "state": {}, "record": {}})
    method.prepare(again, method.params)
    assert again.state == task.state
    assert again.record == task.record
