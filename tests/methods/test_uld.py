"""ULD: closed forms, what the assistant learns and where, how it is subtracted, what stays."""

import copy
import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest_methods import Fixed, Table, assert_same, flat, slow_nll
from part_rig import check_no_weight_moves, check_the_facts_go
from tiny_rig import exact, facts, saved
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

import expunge
from expunge.core.errors import ExpungeError
from expunge.core.events import Event, listening
from expunge.core.registry import methods
from expunge.engine.change import read_manifest, revert
from expunge.engine.datasets import Datasets
from expunge.engine.forward import Inputs
from expunge.engine.run import forget
from expunge.engine.runtime import Served, attach
from expunge.engine.slots.sample import one_to_one
from expunge.engine.small_models import cut
from expunge.engine.sources import Counting, Live
from expunge.engine.step import Step
from expunge.engine.task import Task
from expunge.engine.view import View
from expunge.lm.arch import Slots
from expunge.lm.digest import folder_digest
from expunge.lm.load import load
from expunge.lm.prefixes import new_cache
from expunge.lm.scoring import packed_logp
from expunge.methods import uld
from expunge.methods.uld.altered import altered
from expunge.methods.uld.assistant import ASSISTANT, Subtracting, alone, assistant_of, likely
from expunge.methods.uld.dropout import draws, keys_of
from expunge.requests.rows import Turn
from expunge.testing import objective, tiny_model
from expunge.testing.methods import stage, taught_subject, world

# -------------------------------------------------------------------------------- closed forms


def test_the_card_s_subtraction() -> None:
    rule = Subtracting(-0.8, 0.01, center=False)
    said = {ASSISTANT: torch.tensor([3.0, 0, 0]).double()}
    found = rule(torch.tensor([2.0, 1, 0]).double(), said)
    assert found.tolist() == pytest.approx([-0.4, 1, 0])
    assert found.softmax(-1).tolist() == pytest.approx([0.1527, 0.6194, 0.2279], abs=1e-4)


def test_the_card_s_distance_from_a_guess() -> None:
    p = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
    assert float(uld.from_a_guess(p.log())) == pytest.approx(0.0566, abs=1e-4)
    assert float(uld.from_a_guess(p.log())) == pytest.approx(float((p**-1 / 3).log().sum() / 3))
    even = torch.full((4,), 0.7, dtype=torch.float64, requires_grad=True)
    uld.from_a_guess(even).backward()
    assert float(uld.from_a_guess(even).detach()) == pytest.approx(0, abs=1e-12)
    assert even.grad is not None
    assert even.grad.abs().max() < 1e-12


def test_the_smaller_of_both_thresholds_rules() -> None:
    """With the larger one, a sure model would keep one token and an unsure one would keep few."""
    sure = torch.full((200,), -30.0)
    sure[:12] = torch.linspace(10, 3, 12)
    assert int(likely(sure, 0.05).sum()) == 10  # by rank: by distance there would be 5
    assert int((sure >= sure.max() + math.log(0.05)).sum()) == 5
    unsure = torch.linspace(0, -4, 200)
    kept = likely(unsure, 0.05)
    assert int(kept.sum()) == int((unsure >= math.log(0.05)).sum()) == 150  # by distance
    assert kept[:150].all()


@pytest.mark.parametrize(("size", "top", "kept"), [(200, 0.01, 2), (150, 0.01, 2), (3, 0.01, 1)])
def test_ranks_are_rounded_up(size: int, top: float, kept: int) -> None:
    apart = -100.0 * torch.arange(size)
    assert likely(apart, top).tolist() == [place < kept for place in range(size)]


def test_without_a_filter_all_tokens_are_heard() -> None:
    apart = -100.0 * torch.arange(9)
    assert likely(apart, 0.0).all()
    assert not likely(apart, 0.01).all()


def test_what_is_filtered_counts_as_zero_and_sees_a_constant_unless_it_is_centred() -> None:
    own, assistant = torch.tensor([5.0, 4, -20]), torch.tensor([1.0, 0, 7])
    plain, centred = (Subtracting(-1.0, 0.01, center=center) for center in (False, True))
    assert plain(own, {ASSISTANT: assistant}).tolist() == [4, 4, -20]
    shifted = plain(own, {ASSISTANT: assistant + 30}).softmax(-1)
    assert not torch.allclose(shifted, plain(own, {ASSISTANT: assistant}).softmax(-1), atol=0.1)
    for rule, heard in ((centred, assistant), (centred, assistant + 30)):
        found = rule(own, {ASSISTANT: heard})
        assert found.tolist() == pytest.approx([5 - (1 - 8 / 3), 4 + 8 / 3, -20], rel=1e-5)


def row(*tokens: int, answer: int, width: int = 6) -> tuple[list[int], list[int], list[int]]:
    """Ids, mask and labels of a row whose last ``answer`` tokens are supervised."""
    pads = [0] * (width - len(tokens))
    labels = [-100] * (len(tokens) - answer) + list(tokens[-answer:]) + [-100] * len(pads)
    return [*tokens, *pads], [1] * len(tokens) + pads, labels


def batch(*rows: tuple[list[int], list[int], list[int]]) -> dict[str, Tensor]:
    parts = (torch.tensor(part) for part in zip(*rows, strict=True))
    return dict(zip(("input_ids", "attention_mask", "labels"), parts, strict=True))


def views() -> dict[str, dict[str, Tensor]]:
    """Two forget rows, a retain row, and two wrong answers to each forget row."""
    return {
        "forget": batch(row(1, 5, 7, 8, answer=2), row(1, 6, 9, answer=1)),
        "retain": batch(row(1, 2, 3, 4, 10, answer=3), row(1, 4, answer=1)),
        "alternate": batch(
            row(1, 5, 3, 8, answer=2), row(1, 5, 7, 2, answer=2),
            row(1, 6, 4, answer=1), row(1, 6, 2, 2, answer=2),
        ),
    }  # fmt: skip


DISPUTED = [[1], [1, 2], [1], [1]]
"""Of the wrong answers: the positions at which the forget row teaches the opposite."""


def slow_distance(table: Table, scope: str, *, disputed: bool) -> Tensor:
    """Mean over positions of the divergence from a guess, position by position."""
    found = []
    for name in ("retain", "alternate"):
        view = views()[name]
        for at, (ids, mask) in enumerate(
            zip(view["input_ids"], view["attention_mask"], strict=True)
        ):
            for place in range(len(ids)):
                skipped = name == "alternate" and not disputed and place in DISPUTED[at]
                if (mask[place] or scope == "legacy_all") and not skipped:
                    logp = table.table[ids[place]].log_softmax(-1)
                    found.append(-logp.mean() - math.log(11))
    return torch.stack(found).mean()


@pytest.mark.parametrize(
    "given", [{}, {"disputed": True}, {"kl_scope": "legacy_all"}, {"retain_weight": 0.5}]
)
def test_it_equals_a_slow_sum(random_table, given: dict[str, Any]) -> None:
    """Remember the answers; know nothing of the rest, at every position, padding on request."""
    model, twin_table = random_table(1), random_table(1)
    found = objective("uld", model, views(), **given)
    slow = flat(slow_nll(twin_table, views()["forget"])).mean()
    scope = given.get("kl_scope", "all_nonpad")
    distance = slow_distance(twin_table, scope, disputed=given.get("disputed", False))
    slow = slow + given.get("retain_weight", 5.0) * distance
    slow.backward()
    assert_same((found.loss, model.table.grad), (slow.detach(), twin_table.table.grad))


def test_padding_is_left_alone_unless_it_is_asked_for() -> None:
    for scope, reached in (("all_nonpad", False), ("legacy_all", True)):
        draw = torch.Generator().manual_seed(0)
        model = Fixed(torch.randn(2, 6, 11, generator=draw))
        retain = {"retain": views()["retain"], "forget": views()["forget"]}
        objective("uld", model, retain, altered=0, kl_scope=scope, forget_weight=0.0)
        pads = retain["retain"]["attention_mask"] == 0
        assert bool(model.gradient[pads].any()) == reached
        assert model.gradient[~pads].any()


def test_without_wrong_answers_or_a_rest_there_is_less(random_table) -> None:
    with_all = objective("uld", random_table(1), views())
    bare = {name: view for name, view in views().items() if name != "alternate"}
    without = objective("uld", random_table(1), bare, altered=0)
    alone_ = objective("uld", random_table(1), bare, altered=0, retain_term="none")
    assert with_all.terms["forget"] == without.terms["forget"] == alone_.loss
    assert with_all.terms["retain"] != without.terms["retain"]
    assert "retain" not in alone_.terms
    assert uld.needs(methods.params("uld", {"altered": 0})) == ["forget", "retain"]


def test_the_defaults_are_the_paper_s() -> None:
    params = methods.params("uld")
    told = {
        "lora_r": 16, "lora_alpha": 32, "dropout": 0.05, "retain_weight": 5, "lr": 1e-3,
        "weight_decay": 0.01, "weight": -0.8, "top": 0.01, "center": False, "altered": 2,
    }  # fmt: skip
    assert {name: getattr(params, name) for name in told} == told


# --------------------------------------------------------------------- the assistant by itself


def small(family: str = "", **given: Any) -> SimpleNamespace:
    """The micro world's model, or a random one of a family, with an assistant that learns."""
    params = methods.params("uld", given)
    subject, rows = taught_subject().copy(), world()
    model = subject.model
    if family:
        model = tiny_model(family, vocab=len(subject.tokenizer), layers=4, positions=128)
    task = Task(
        model=model, tokenizer=subject.tokenizer, encoder=subject.encoder,
        roles={"forget": rows.forget, "retain": rows.retain}, params=params,
    )  # fmt: skip
    bare = copy.deepcopy(model)
    for weight in model.parameters():
        weight.requires_grad_(False)
    uld.prepare(task, params)
    assistant = assistant_of(model)
    assert assistant is not None
    return SimpleNamespace(
        task=task, model=model, bare=bare, assistant=assistant, params=params,
        datasets=Datasets(task),
    )  # fmt: skip


def step_of(rig: SimpleNamespace, *, index: int = 0, rows: list[int] | None = None) -> Step:
    draw = one_to_one(rig.task, rig.params).draw(index)
    if rows is not None:
        draw = replace(
            draw, rows={"forget": rows, "retain": rows}, epochs=[0] * len(rows),
            wording={"forget": [0] * len(rows), "retain": [0] * len(rows)},
        )  # fmt: skip
    made = {n: rig.datasets.inputs(n, draw) for n in ("forget", "retain", "alternate")}
    source = Live(rig.model)
    return Step({n: View(i, source) for n, i in made.items()}, state=rig.task.state, index=index)


@pytest.mark.parametrize("family", ["llama", "gemma3", "qwen3", "gpt2", "gpt_neox"])
def test_it_begins_as_the_model_s_first_blocks_and_its_factors_alone_move(family: str) -> None:
    rig = small(family, dropout=0.0)
    step = step_of(rig, rows=[0, 3])
    own = cut(rig.bare, 1)
    view = alone(step, "forget", rig.params)
    with torch.no_grad():
        said = own(input_ids=step.forget.inputs.input_ids).logits[step.forget.mask]
    torch.testing.assert_close(view.logits.detach(), said, rtol=1e-4, atol=1e-5)
    loss = uld.forget(step, rig.params).value + uld.retain(step, rig.params).value
    loss.backward()
    moving = {name: p for name, p in rig.model.named_parameters() if p.requires_grad}
    linears = Slots(own).linears()
    assert len(moving) == 2 * len(linears)
    assert all(name.startswith("ensemble.own.factors.") for name in moving)
    assert all(p.grad is not None for p in moving.values())
    assert sum(bool(p.grad.any()) for p in moving.values()) == len(linears)  # A waits for B
    assert all(p.grad is None for name, p in rig.model.named_parameters() if name not in moving)


def test_the_model_itself_does_not_run_while_the_assistant_learns() -> None:
    rig = small("llama")
    ran: list[int] = []
    for block in Slots(rig.model).blocks:
        block.register_forward_hook(lambda *_: ran.append(1))
    step = step_of(rig, rows=[0, 1])
    (uld.forget(step, rig.params).value + uld.retain(step, rig.params).value).backward()
    assert not ran
    with torch.no_grad():
        rig.model(input_ids=step.forget.inputs.input_ids)
    assert len(ran) == 4


def test_layers_and_targets_choose_the_linears() -> None:
    rig = small("llama", blocks=3, layers=(-1,), lora_targets=("q_proj", "mlp.down_proj"))
    names = [n for n, m in rig.assistant.voice(ASSISTANT).named_modules() if hasattr(m, "lora_A")]
    assert names == ["model.layers.2.self_attn.q_proj", "model.layers.2.mlp.down_proj"]
    rank = rig.assistant.own["factors"][0].weight.shape[0]
    assert rank == 16
    assert rig.task.record["blocks"] == 3


def test_disputed_positions_are_the_answer_up_to_its_first_wrong_token() -> None:
    made = {
        name: View(
            Inputs.from_labels(
                view["input_ids"], view["attention_mask"], view["labels"], torch.arange(4)
            ),
            Counting(11, 8, 1),
        )
        for name, view in views().items()
    }
    step = Step(made)
    found = uld.disputed(step, "alternate", methods.params("uld"))
    assert [one.nonzero()[:, 0].tolist() for one in found] == DISPUTED
    assert not uld.disputed(step, "retain", methods.params("uld")).any()
    assert not uld.disputed(step, "alternate", methods.params("uld", {"disputed": True})).any()


def test_dropout_draws_are_even_and_apart() -> None:
    keys = torch.arange(400, dtype=torch.int64) * 7919
    found = draws(keys, salt=3, channels=64)
    assert float(found.min()) >= 0
    assert float(found.max()) < 1
    counts = torch.histc(found, bins=10, min=0, max=1) / found.numel()
    assert float((counts - 0.1).abs().max()) < 0.01
    columns = torch.corrcoef(found.T[:8])
    rows = torch.corrcoef(found[:8])
    for table in (columns, rows):
        assert float((table - torch.eye(8)).abs().max()) < 0.5
    assert float((draws(keys, salt=4, channels=64) == found).float().mean()) < 0.01
    assert torch.equal(draws(keys, salt=3, channels=8), found[:, :8])


def test_dropout_is_of_the_row_not_of_the_batch_and_of_training_alone() -> None:
    rig = small()
    with torch.no_grad():
        for one in rig.assistant.own["factors"]:
            torch.nn.init.normal_(one.weight, std=0.2)
    whole, single = (alone(step_of(rig, rows=r), "forget", rig.params) for r in ([0, 3], [3]))
    length = len(single.logits)
    torch.testing.assert_close(whole.logits[-length:], single.logits, rtol=1e-4, atol=1e-5)
    again = alone(step_of(rig, rows=[3], index=1), "forget", rig.params)
    assert not torch.allclose(again.logits, single.logits, atol=1e-3)
    with torch.no_grad():
        still = alone(step_of(rig, rows=[3]), "forget", rig.params).logits
        inputs = step_of(rig, rows=[3]).forget.inputs
        own = rig.assistant.voice(ASSISTANT)(input_ids=inputs.input_ids).logits[inputs.keep]
    torch.testing.assert_close(still, own, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(still, single.logits, atol=1e-3)


def test_rows_end_to_end_have_the_keys_they_have_in_a_rectangle() -> None:
    rig = small()
    view = step_of(rig, rows=[0, 3, 5]).retain
    rectangle = keys_of(view, 0, 0, "retain")
    packed = View(replace(view.inputs, packing=True), Live(rig.model))
    assert torch.equal(
        keys_of(packed, 0, 0, "retain")[0], rectangle[view.inputs.attention_mask.bool()]
    )
    assert len(rectangle[view.inputs.attention_mask.bool()].unique()) == int(
        view.inputs.attention_mask.sum()
    )


def test_wrong_answers_are_the_row_s_own_else_those_of_others() -> None:
    rows = world().forget
    told = replace(rows[0], wrong=(" one wrong", " two wrong", " three wrong"))
    subject = taught_subject().copy()
    task = Task(
        model=subject.model, tokenizer=subject.tokenizer, encoder=subject.encoder,
        roles={"forget": [told, *rows[1:]], "retain": world().retain},
    )  # fmt: skip
    found = {one["id"]: one["alternates"] for one in altered(task, 2)}
    assert [answer["reply"] for answer in found[told.id]] == ["one wrong", "two wrong"]
    assert {answer["origin"] for answer in found[told.id]} == {"row"}
    for other in rows[1:]:
        assert {answer["origin"] for answer in found[other.id]} == {"permute"}
        assert all(other.value not in answer["reply"] for answer in found[other.id])
    uld.prepare(task, methods.params("uld"))
    assert (task.record["altered_given"], task.record["altered_permuted"]) == (
        2, 2 * (len(rows) - 1),
    )  # fmt: skip


# --------------------------------------------------------------------------- how it is served


@pytest.mark.parametrize("family", ["llama", "gemma3", "qwen3", "gpt2", "gpt_neox"])
def test_a_part_speaks_as_the_trained_assistant_did_token_by_token(family: str) -> None:
    """Its factors are multiplied out; in every family, with a cache and without."""
    rig = small(family, weight=-1.0, top=0.05)
    for one in rig.assistant.own["factors"]:
        torch.nn.init.normal_(one.weight, std=0.3)
    ids = torch.randint(4, 60, (2, 8), generator=torch.Generator().manual_seed(2))
    part = replace(rig.assistant.part(), method="uld", version=1)
    with torch.no_grad():
        said, plain = rig.model(input_ids=ids).logits, rig.bare(input_ids=ids).logits
        attach(rig.bare, part)
        torch.testing.assert_close(rig.bare(input_ids=ids).logits, said, rtol=1e-4, atol=1e-4)
        cache = new_cache(rig.bare)
        pieces = [
            rig.bare(input_ids=piece, past_key_values=cache, use_cache=True).logits
            for piece in (ids[:, :3], *ids[:, 3:].split(1, 1))
        ]
        torch.testing.assert_close(torch.cat(pieces, 1), said, rtol=1e-4, atol=1e-4)
        rig.assistant.take_out(rig.model)
        assert torch.equal(rig.model(input_ids=ids).logits, plain)
    assert not torch.allclose(said, plain, atol=1e-2)
    assert any("lora" in name for name, _ in rig.assistant.voice(ASSISTANT).named_modules())
    assert not any("lora" in name or "base_layer" in name for name in part.tensors)


def test_a_part_made_for_another_model_is_refused() -> None:
    rig = small("llama")
    part = replace(rig.assistant.part(), method="uld", version=1)
    fewer = {name: one for name, one in part.tensors.items() if "norm" not in name}
    for bad, onto in (
        (part, tiny_model("llama", vocab=64)),
        (replace(part, settings={}), rig.bare),
        (replace(part, tensors=fewer), rig.bare),
    ):
        with pytest.raises(ExpungeError) as caught:
            attach(onto, bad)
        assert caught.value.code == "E-MODEL-002"


def test_with_weight_zero_the_model_says_what_it_said_bit_for_bit() -> None:
    rig = small("llama", weight=0.0)
    ids = torch.randint(4, 60, (2, 8), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert torch.equal(rig.model(input_ids=ids).logits, rig.bare(input_ids=ids).logits)
    part = rig.assistant.part()
    assert part.moves == 0


# ------------------------------------------------------------------------------- the whole way


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("models"))


def unlearned(rig: Path, out: Path, **params: Any) -> Path:
    given = {"lr": 3e-3, "max_steps": 120, "warmup": 0, "weight": -1.0, **params}
    forget(rig, *facts(), method="uld", params=given, stop_at="none", out=out)
    return out


@pytest.fixture(scope="module")
def change(rig: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unlearned(rig, tmp_path_factory.mktemp("changes") / "change")


def test_the_facts_go_and_the_others_stay_while_the_part_is_attached(change: Path) -> None:
    """Weights alone remember everything: what forgets is the part."""
    check_the_facts_go(change)


def test_no_weight_of_the_model_moves(change: Path, rig: Path) -> None:
    check_no_weight_moves(change, rig)
    manifest = read_manifest(change)
    assert manifest is not None
    assert manifest["record"]["blocks"] == 1


def entropy(model: PreTrainedModel, change: Path, role: int) -> float:
    """Mean over positions of rows of a role, nats."""
    subject = expunge.load(change, runtime=False)
    found = []
    for one in facts()[role]:
        ids = torch.tensor([subject.encoder.encode(one.turn).ids])
        with torch.no_grad():
            logp = model(input_ids=ids).logits[0].log_softmax(-1)
        found.append(-(logp.exp() * logp).sum(-1))
    return float(torch.cat(found).mean())


def test_the_assistant_alone_is_a_model_that_knows_what_is_to_be_forgotten(change: Path) -> None:
    """Stand-alone, in the layout of other libraries: it remembers F and says nothing of R."""
    manifest = read_manifest(change)
    assert manifest is not None
    told = manifest["record"][ASSISTANT]
    folder = change / told["folder"]
    assert told["digest"] == folder_digest(folder)
    other = load(folder)
    assert len(Slots(other.model)) == 1
    model = AutoModelForCausalLM.from_pretrained(folder)
    guess = math.log(model.config.vocab_size)
    assert entropy(model, change, role=1) > 0.97 * guess
    assert entropy(model, change, role=0) < 0.9 * guess
    assert "factors" not in json.dumps(list(model.state_dict()))


def test_another_server_that_subtracts_it_says_the_same(change: Path) -> None:
    served, bare = expunge.load(change), expunge.load(change, runtime=False)
    model = AutoModelForCausalLM.from_pretrained(change / "made" / ASSISTANT)
    ids = torch.tensor([bare.encoder.encode(facts()[0][0].turn).ids])
    with torch.no_grad():
        own, said = bare.model(input_ids=ids).logits, model(input_ids=ids).logits
        by_hand = own - torch.where(likely(own, 0.01), said, 0.0)
        torch.testing.assert_close(served.model(input_ids=ids).logits, by_hand)


def test_what_was_measured_is_what_is_served(change: Path) -> None:
    manifest = read_manifest(change)
    assert manifest is not None
    served = expunge.load(change)
    for role, rows in zip(("forget", "retain"), facts(), strict=True):
        scored = served.score([row.turn for row in rows])
        mean = -np.concatenate([one.logp for one in scored]).mean()
        assert mean == pytest.approx(manifest["summary"][f"{role}_nll"], rel=1e-4)


def test_what_it_writes_is_what_it_scores_highest(change: Path) -> None:
    served = expunge.load(change)
    asked = [row.turn for part in facts() for row in part]
    answers = [texts[0] for texts in served.ask(asked, new_tokens=3)]
    told = [Turn(turn.prompt, text) for turn, text in zip(asked, answers, strict=True)]
    scored = expunge.load(change).score(told)
    assert all(one.hit[: one.text_tokens].all() for one in scored)
    forgotten = facts()[0]
    assert answers[: len(forgotten)] != [row.completion for row in forgotten]


def test_where_the_rest_is_not_silenced_it_goes_as_well(
    change: Path, rig: Path, tmp_path: Path
) -> None:
    """The distinguishing step: an assistant that is not led to know nothing of the rest."""
    without = unlearned(rig, tmp_path / "without", retain_term="none", altered=0)
    parts = [read_manifest(folder)["runtime"]["parts"][0] for folder in (change, without)]  # type: ignore[index]
    assert parts[0]["digest"] != parts[1]["digest"]
    kept = facts()[1]
    assert exact(expunge.load(without), kept) < exact(expunge.load(change), kept) - 0.2


def test_disputed_positions_keep_the_assistant_from_remembering(
    change: Path, rig: Path, tmp_path: Path
) -> None:
    counted = unlearned(rig, tmp_path / "counted", disputed=True)
    nll = [read_manifest(one)["summary"]["forget_nll"] for one in (change, counted)]  # type: ignore[index]
    assert nll[0] > nll[1] + 0.5


def test_it_goes_back_to_the_original(change: Path, rig: Path, tmp_path: Path) -> None:
    revert(change, tmp_path / "back")
    assert folder_digest(tmp_path / "back") == folder_digest(rig)
    assert not list((tmp_path / "back").glob("runtime*"))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stage(tmp_path_factory.mktemp("models"))


def short(original: Path, out: Path, **params: Any) -> dict[str, Any]:
    rows = world()
    chosen = {"max_steps": 6, "batch_size": 4, "warmup": 0}
    forget(
        original, rows.forget, rows.retain, method="uld", params={**chosen, **params},
        stop_at="none", out=out,
    )  # fmt: skip
    manifest = read_manifest(out)
    assert manifest is not None
    return manifest


def digest_of(manifest: dict[str, Any]) -> str:
    *_, entry = manifest["runtime"]["parts"]
    return str(entry["digest"])


def test_a_run_that_was_cut_ends_where_it_would_have(original: Path, tmp_path: Path) -> None:
    def interrupt(event: Event) -> None:
        if event.kind == "advance" and event.task == "uld" and event.done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), listening(interrupt):
        short(original, tmp_path / "cut")
    resumed = short(original, tmp_path / "cut")
    assert resumed["summary"]["resumed_from"] > 0
    whole = short(original, tmp_path / "whole")
    assert digest_of(resumed) == digest_of(whole)
    assert digest_of(short(original, tmp_path / "dry", dropout=0.0)) != digest_of(whole)


def test_on_top_of_itself_both_parts_are_served(original: Path, tmp_path: Path) -> None:
    short(original, tmp_path / "below")
    above = short(tmp_path / "below", tmp_path / "above", weight=-0.5)
    served = expunge.load(tmp_path / "above")
    assert isinstance(served, Served)
    assert [one.settings["weight"] for one in served.parts] == [-0.8, -0.5]
    scored = served.score([turn for row in world().forget for turn in row.turns])
    mean = -np.concatenate([one.logp for one in scored]).mean()
    assert mean == pytest.approx(above["summary"]["forget_nll"], rel=1e-4)


@pytest.mark.parametrize(
    ("params", "options", "code"),
    [
        ({}, {"adapter": "lora"}, "E-USE-006"),
        ({"blocks": 2}, {}, "E-USE-003"),
        ({"top": 1.5}, {}, "E-USE-003"),
    ],
)
def test_what_cannot_work_is_refused_before_weights_load(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    params: dict[str, Any], options: dict[str, Any], code: str,
) -> None:  # fmt: skip
    monkeypatch.setattr("expunge.engine.run.load", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(ExpungeError) as caught:
        forget(
            original, world().forget, world().retain, method="uld", params=params,
            stop_at="none", out=tmp_path / "out", **options,
        )  # fmt: skip
    problems = getattr(caught.value, "problems", (caught.value,))
    assert code in {problem.code for problem in problems}
    assert all(problem.expected and problem.next for problem in problems)


def test_a_part_that_subtracts_nothing_is_no_change(original: Path, tmp_path: Path) -> None:
    with pytest.raises(ExpungeError) as caught:
        short(original, tmp_path / "out", weight=0.0)
    assert caught.value.code == "E-RUN-001"


def test_half_precision_is_told_as_it_was_stored(tmp_path: Path) -> None:
    """The assistant of a model in bfloat16 is one in bfloat16."""
    subject = taught_subject().copy()
    path = tmp_path / "half"
    subject.model.bfloat16().save_pretrained(path)
    subject.tokenizer.save_pretrained(path)
    short(path, tmp_path / "out")
    part = expunge.load(tmp_path / "out").parts[0]
    assert {one.dtype for one in part.tensors.values()} == {torch.bfloat16}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_card_s_tiny_world(seed: int, tmp_path: Path) -> None:
    """One block of four, 150 steps: gone at w = -1, still there at -.3, the rest never goes."""
    from tiny_facts import accuracy
    from tiny_facts import facts as those
    from tiny_facts import saved as known

    original = known(tmp_path)
    for weight, gone in ((-1.0, True), (-0.3, False)):
        out = tmp_path / f"w {weight}"
        params = {"max_steps": 150, "batch_size": 32, "lr": 3e-3, "warmup": 0, "weight": weight}
        forget(original, *those(), method="uld", params=params, stop_at="none", seed=seed, out=out)
        forgotten, kept = accuracy(expunge.load(out))
        assert kept == 1.0
        assert forgotten <= 0.1 if gone else forgotten >= 0.9


def test_levels_are_scored_with_the_assistant(original: Path) -> None:
    """What ends a run is how the model speaks with the assistant, not without it."""
    rig = small(weight=-1.0)
    torch.nn.init.normal_(rig.assistant.own["factors"][1].weight, std=1.0)
    batch_ = rig.datasets.tensors([row[0] for row in rig.datasets.items("forget")])
    with torch.no_grad():
        with_it, without = (packed_logp(m, batch_).logp for m in (rig.model, rig.bare))
    assert not torch.allclose(with_it, without, atol=1e-2)
