"""S3T: groups of blocks trained one after another, suffixes switched off, sequences to fall to."""

import math
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ensemble_rig import QUICK, asked, logits, part_digest, right, rows, staged, told
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch import Tensor

import expunge
from expunge.core.errors import ExpungeError
from expunge.core.registry import methods
from expunge.engine.check import check_forget
from expunge.engine.exact import state
from expunge.engine.exact.capacity import expected_hits
from expunge.engine.exact.ledger import Ledger
from expunge.engine.exact.proof import prove
from expunge.engine.exact.serving import A, B, Voices, adapters_of
from expunge.engine.exact.stages import read_seen
from expunge.engine.exact.training import Place, Stages
from expunge.engine.gradient import StepGradient
from expunge.engine.linears import linears_in
from expunge.engine.method import GradientMethod
from expunge.engine.slots.sample import content_key
from expunge.engine.task import Task
from expunge.lm.arch import Slots
from expunge.lm.digest import folder_digest, model_digest
from expunge.lm.subject import Subject
from expunge.methods.s3t import scheme
from expunge.requests.rows import Row
from expunge.testing import objective, tiny_model

ONE = {"shards": 1, "sequences": 2, "head": "never"}
"""One shard, two sequences, the groups of the paper."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    return staged(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def built(models: SimpleNamespace) -> SimpleNamespace:
    return asked(models, "s3t", "built", **ONE)


def rows_at(change: SimpleNamespace, sequence: int, position: int) -> list[Row]:
    """The rows of the slice at some position of a sequence of the first shard."""
    slice = change.state.shards[0][sequence].order[position]
    keys = {m.key for m in change.state.members if (m.shard, m.slice) == (0, slice)}
    return [row for row in rows().retain if content_key(row) in keys]


def cut(models, change: SimpleNamespace, out: str, *gone: Row, **params: Any) -> SimpleNamespace:
    kept = [row for row in rows().retain if row not in gone]
    return asked(models, "s3t", out, on=change.folder, gone=gone, kept=kept, **{**ONE, **params})


def voice(models, change: SimpleNamespace, sequence: int, stages: int) -> Tensor:
    """The base with the adapters of the first stages of a sequence, as they were saved."""
    model: Any = told()["base"].copy().model
    files = change.state.shards[0][sequence].files[:stages]
    adapters = adapters_of(change.made, 0, sequence, files)
    scale = 64.0 / math.sqrt(QUICK["lora_r"])
    Voices(model, [adapters], scale, "probabilities").put_in()
    with torch.no_grad():
        return model(input_ids=torch.arange(5, 25)[None]).logits


# --------------------------------------------------------------------------- the card's checks


def test_groups_are_counted_from_the_top() -> None:
    made = scheme(methods.params("s3t", {"slices": 3, "group": 2}), 7, 0)
    assert [list(made.blocks(stage)) for stage in range(3)] == [[6, 5], [4, 3], [2, 1]]
    auto = scheme(methods.params("s3t", {}), 32, 0)
    assert (auto.slices, list(auto.blocks(0)), list(auto.blocks(5))) == (
        6, [31, 30, 29, 28, 27], [6, 5, 4, 3, 2],
    )  # fmt: skip
    small = scheme(methods.params("s3t", {}), 2, 0)
    assert (small.slices, len(small.orders(0))) == (2, 2)
    some = scheme(methods.params("s3t", {"layers": "-1,0,2"}), 8, 0)
    assert [list(some.blocks(stage)) for stage in range(3)] == [[7], [2], [0]]


def test_a_stage_has_its_own_blocks_and_all_slices_so_far(built) -> None:
    slots = Slots(told()["base"].model)
    for sequence, chain in enumerate(built.state.shards[0]):
        for stage in range(3):
            file = built.made / f"shard0-sequence{sequence}-stage{stage}.safetensors"
            seen = read_seen(file)
            expected = {m.key for m in built.state.members if m.slice in chain.order[: stage + 1]}
            assert set(seen.rows) == expected
            names = {name.rpartition(".")[0] for name in load_file(file)}
            assert names == set(linears_in(slots, [2 - stage]))


def test_after_a_deletion_it_is_bit_for_bit_the_model_before_that_slice(models, built) -> None:
    """The slice at position j of the longest sequence left: the model saved after stage j - 1."""
    for position in (1, 2):
        row = rows_at(built, 0, position)[0]
        change = cut(models, built, f"cut{position}", row)
        left = [len(chain.files) for chain in change.state.shards[0]]
        expected = [chain.order.index(built.state.shards[0][0].order[position])
                    for chain in built.state.shards[0]]  # fmt: skip
        assert left == expected
        longest = left.index(max(left))
        assert torch.equal(logits(change.folder), voice(models, built, longest, max(left)))
        assert change.summary["steps"] == 0, "nothing is trained"
        assert change.record["request"]["row_epochs"] == 0
        for chain, before, count in zip(
            change.state.shards[0], built.state.shards[0], left, strict=True
        ):
            assert chain.files == before.files[:count]
        assert prove(change.folder).deleted == 1
        kept = sum(left)
        assert len(list(change.made.glob("shard*"))) == kept, "what met the row is not there"


def test_the_head_goes_back_to_what_it_was_before_the_slice(models) -> None:
    """Every stage trains the head on; each file has the head as that stage left it."""
    one = {"sequences": 1, "head": "auto"}
    whole = asked(models, "s3t", "headed", **{**ONE, **one})
    heads = [
        load_file(whole.made / f"shard0-sequence0-stage{stage}.safetensors")[f"lm_head.{B}"]
        for stage in range(3)
    ]
    assert not any(torch.equal(a, b) for a, b in pairwise(heads))
    assert torch.equal(logits(whole.folder), voice(models, whole, 0, 3))
    change = cut(models, whole, "headed cut", rows_at(whole, 0, 1)[0], **one)
    (part,) = expunge.load(change.folder).parts
    assert torch.equal(part.tensors[f"0/lm_head.{B}"], heads[0])
    assert torch.equal(logits(change.folder), voice(models, whole, 0, 1))
    assert change.summary["steps"] == 0
    assert prove(change.folder).deleted == 1


def test_gradients_of_other_groups_are_exactly_zero(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Names match whole: block 3 is not blocks 30 to 33."""
    model = tiny_model("llama", vocab=len(rows().tokenizer), hidden=8, layers=34, positions=64)
    before = model_digest(model)
    subject = Subject(model, rows().tokenizer)
    trainer = stages(subject, {"layers": (3, 30, 33), "slices": 3, "group": 1, "max_steps": 1},
                     tmp_path)  # fmt: skip
    made, seen = scheme(trainer.params, 34, 0), []
    plain = StepGradient.__call__

    def noting(self: Any, inner: Any, *given: Any) -> Any:
        value = plain(self, inner, *given)
        norms = {n: 0.0 if p.grad is None else float(p.grad.norm())
                 for n, p in inner.named_parameters()}  # fmt: skip
        moving = {n for n, p in inner.named_parameters() if p.requires_grad}
        seen.append((norms, moving))
        return value

    monkeypatch.setattr(StepGradient, "__call__", noting)
    known: dict[str, Tensor] = {}
    for stage, block in enumerate((33, 30, 3)):
        names = linears_in(Slots(model), made.blocks(stage))
        place = Place(0, 0, stage)
        new = trainer.train(place, names, list(rows().retain[:4]), known, SimpleNamespace(
            advance=lambda *_: None))  # fmt: skip
        norms, moving = seen[-1]
        inside = f".layers.{block}."
        assert {n for n in norms if inside in n and ".moving." in n} == moving
        assert all(norm == 0.0 for name, norm in norms.items() if name not in moving)
        assert sum(norms[name] > 0 for name in moving) == 7, "the second factors; the first wait"
        assert {name.split(".")[2] for name in new} == {str(block)}
        if known:
            frozen = [n for n in norms if ".kept." in n]
            assert len(frozen) == len(known)
        known |= {name: tensor + 0.01 for name, tensor in new.items()}
    assert model_digest(model) == before
    assert not any("lora" in name for name, _ in model.named_modules())


def stages(subject: Subject, given: dict[str, Any], run: Path) -> Stages:
    """What trains stages over a model in memory."""
    params = methods.params("s3t", {"lora_r": 2, "batch_size": 4, "lr": 1e-3, **given})
    plan = SimpleNamespace(params=params, seed=0, folder=SimpleNamespace(parameters=10_000))
    task = Task(
        model=subject.model, tokenizer=subject.tokenizer, encoder=subject.encoder,
        roles={"forget": (), "retain": ()},
    )  # fmt: skip
    method = GradientMethod.assemble(methods.load("s3t"), params)
    session: Any = SimpleNamespace(
        plan=plan, subject=subject, task=task, method=method, run=run,
    )  # fmt: skip
    return Stages(session, 1e-3, passes=1)


def test_switched_off_they_contribute_zero_and_the_rest_is_peft_s(models, built) -> None:
    """One named adapter for each group, and `set_adapter` with the list of those left."""
    base: Any = told()["base"].copy().model
    chain, slots = built.state.shards[0][0], Slots(base)
    names = [linears_in(slots, [2 - stage]) for stage in range(3)]
    adapted: Any = None
    for stage, inside in enumerate(names):
        config = LoraConfig(
            r=QUICK["lora_r"], lora_alpha=64, use_rslora=True, target_modules=inside,
            task_type="CAUSAL_LM",
        )  # fmt: skip
        if adapted is None:
            adapted = get_peft_model(base, config, adapter_name=f"group{stage}")
        else:
            adapted.add_adapter(f"group{stage}", config)
        tensors = adapters_of(built.made, 0, 0, chain.files[: stage + 1])
        for name in inside:
            layer = base.get_submodule(name)
            with torch.no_grad():
                layer.lora_A[f"group{stage}"].weight.copy_(tensors[f"{name}.{A}"])
                layer.lora_B[f"group{stage}"].weight.copy_(tensors[f"{name}.{B}"])
    ids = torch.arange(5, 25)[None]
    adapted.eval()
    for left in (1, 2, 3):
        adapted.base_model.set_adapter([f"group{stage}" for stage in range(left)])
        with torch.no_grad():
            said = adapted(input_ids=ids).logits
        assert torch.equal(said, voice(models, built, 0, left))
    assert not torch.equal(voice(models, built, 0, 2), voice(models, built, 0, 3))


def test_it_falls_back_and_trains_anew_only_when_all_sequences_are_dead(models, built) -> None:
    first, second = rows_at(built, 0, 0)[0], rows_at(built, 1, 0)[0]
    one = cut(models, built, "one", first)
    assert [len(chain.files) for chain in one.state.shards[0]] == [0, 2]
    assert torch.equal(logits(one.folder), voice(models, built, 1, 2))
    assert one.summary["steps"] == 0
    assert one.record["plan"]["next_deletion"]["largest"] > 0, "the next may kill the shard"
    rest = [row for row in rows().retain if row not in (first, second)]
    both = asked(models, "s3t", "dead", on=one.folder, gone=[second], kept=rest, **ONE)
    assert both.record["request"]["shards_retrained"] == [0]
    assert [len(chain.files) for chain in both.state.shards[0]] == [3, 3]
    fresh = asked(models, "s3t", "fresh", kept=rest, **ONE)
    assert part_digest(both) == part_digest(fresh), "trained anew it is what had been"
    assert both.state.shards == fresh.state.shards
    lines = Ledger.read(both.made).lines
    assert [line["event"] for line in lines] == ["built", "deleted", "deleted"]
    assert lines[1]["after"] == [[], list(built.state.shards[0][1].files[:2])]
    assert prove(both.folder).deleted == 2
    assert both.record["plan"]["deletions_left"]["worst"] == 2, "it counts as new"


def test_a_dead_shard_may_be_left_out(models) -> None:
    two = {"shards": 2, "sequences": 1, "dead": "drop"}
    whole = asked(models, "s3t", "whole", **two)
    first = whole.state.shards[0][0].order[0]
    keys = {m.key for m in whole.state.members if (m.shard, m.slice) == (0, first)}
    gone = [row for row in rows().retain if content_key(row) in keys]
    rest = [row for row in rows().retain if row not in gone]
    less = asked(models, "s3t", "dropped", on=whole.folder, gone=gone, kept=rest, **two)
    assert less.record["ensemble"]["voices"] == 1
    (part,) = expunge.load(less.folder).parts
    assert [one["shard"] for one in part.settings["voices"]] == [1]
    assert less.summary["steps"] == 0
    again = [m for m in less.state.members if m.shard == 1]
    last = [row for row in rest if content_key(row) in {m.key for m in again}]
    other = [row for row in rest if row not in last]
    with pytest.raises(ExpungeError, match="Nothing is left"):
        asked(models, "s3t", "none", on=less.folder, gone=last, kept=other, **two)


def test_later_groups_that_stay_on_are_another_model_and_no_proof(
    models, built, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ablation: what was trained behind the slice stays."""
    row = rows_at(built, 0, 1)[0]
    exact = cut(models, built, "exact", row)
    monkeypatch.setattr(state, "kept", lambda chain, hit: len(chain.files))
    with pytest.raises(ExpungeError, match="trained on other rows"):
        cut(models, built, "inexact", row)
    assert not torch.equal(logits(exact.folder), logits(built.folder))


def test_the_planner_counts_what_is_left(built) -> None:
    firsts = {chain.order[0] for chain in built.state.shards[0]}
    chances = [built.state.sizes[0][slice] / len(rows().retain) for slice in firsts]
    left = built.record["plan"]["deletions_left"]
    assert left["worst"] == len(firsts) == 2
    assert left["expected"] == pytest.approx(expected_hits(chances), rel=1e-3)
    epochs, sizes = built.state.passes, built.state.sizes[0]
    passes = sum(
        sizes[slice] * (3 - at)
        for chain in built.state.shards[0]
        for at, slice in enumerate(chain.order)
    )
    assert built.record["plan"]["rebuilding"] == epochs * passes
    assert built.record["plan"]["next_deletion"]["mean"] == 0, "one of two sequences is left"


def test_known_chances_decide_orders_and_outlook(models) -> None:
    given = {**ONE, "selection": "matching", "chances": "0.7,0.2,0.1"}
    found = asked(models, "s3t", "matched", **given)
    orders = [chain.order for chain in found.state.shards[0]]
    assert orders[0][0] == 2, "of two sequences both begin where hits are rare"
    assert orders[1][0] == 1
    assert orders[0][-1] == orders[1][-1] == 0 or orders[0].index(0) > 0
    left = found.record["plan"]["deletions_left"]["expected"]
    assert left == pytest.approx(expected_hits([0.2, 0.1]), rel=1e-3)


# ------------------------------------------------------------------------------------- in use


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_it_knows_what_stays_and_not_what_goes(models, seed: int) -> None:
    """All rows of the later slice go at once: what the top block learnt before is still there."""
    small = rows()
    recipe = {"shards": 1, "sequences": 1, "slices": 2, "group": 1, "seed": seed}
    recipe |= {"max_steps": 120, "batch_size": 8, "lr": 1e-2, "lora_r": 16}
    recipe |= {"dropout": 0.0, "lora_alpha": 32.0}
    full = asked(models, "s3t", f"full{seed}", **recipe)
    served = expunge.load(full.folder)
    assert right(served, small.forget) <= 0.1
    assert right(served, small.retain) >= 0.8
    later = full.state.shards[0][0].order[1]
    keys = {m.key for m in full.state.members if m.slice == later}
    gone = [row for row in small.retain if content_key(row) in keys]
    rest = [row for row in small.retain if row not in gone]
    assert right(served, gone) >= 0.5
    less = asked(models, "s3t", f"less{seed}", on=full.folder, gone=gone, kept=rest, **recipe)
    served = expunge.load(less.folder)
    assert right(served, gone) <= 0.2
    assert right(served, rest) >= 0.8
    assert less.summary["steps"] == 0
    assert folder_digest(less.folder) == folder_digest(models.base)


# ------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("params", "word"),
    [
        ({"slices": 4}, "a group of blocks for every slice"),
        ({"slices": 3, "group": 2}, "a group of blocks for every slice"),
        ({"slices": 2, "sequences": 3}, "at most 2 sequences"),
        ({"slices": 3, "sequences": 4, "selection": "matching"}, "at most 3 sequences"),
        ({"selection": "matching"}, "3 chances"),
        ({"selection": "sampling", "chances": "0.5,0.5"}, "3 chances"),
        ({"selection": "sampling", "chances": "0.9,0.5,0.1"}, "sum to 1"),
    ],
)
def test_what_does_not_fit_the_model_is_said_before_weights_load(
    models, tmp_path: Path, params, word
) -> None:
    found = check_forget(
        models.original, rows().forget, rows().retain, method="s3t",
        params={"base": str(models.base), **params}, out=tmp_path / "out",
    ).problems  # fmt: skip
    assert [problem.code for problem in found] == ["E-USE-003"]
    assert word in str(found[0])


def test_the_card_s_defaults() -> None:
    params = methods.params("s3t", {})
    assert (params.lora_r, params.lora_alpha, params.dropout) == (32, 64.0, 0.05)
    assert (params.rslora, params.epochs, params.exponent) == (True, None, 100)
    papers = methods.card("s3t").params
    assert (papers["lr"]["paper"], papers["epochs"]["paper"]) == (2e-5, 3)
    assert methods.card("s3t").params["group"]["paper"] == 4


def test_the_objective_is_plain_training(random_table, random_view) -> None:
    one, two = random_table(1), random_table(1)
    views = {"retain": random_view(4)}
    assert objective("s3t", one, views).loss == objective("retrain", two, views).loss
    assert torch.equal(one.table.grad, two.table.grad)
