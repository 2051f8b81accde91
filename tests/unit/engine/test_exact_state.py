"""State, ledger and checkpoints of an ensemble; which parts a change has."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from expunge.core.atomic import write_text
from expunge.core.errors import ExpungeError
from expunge.core.registry import methods
from expunge.engine.exact.ledger import START, Ledger
from expunge.engine.exact.planner import outlook
from expunge.engine.exact.scheme import blocks_of
from expunge.engine.exact.sequences import cyclic
from expunge.engine.exact.stages import Seen, read_seen, read_stage, write_stage
from expunge.engine.exact.state import (
    FILE,
    Chain,
    Ensemble,
    Member,
    asked_of,
    kept,
    members_of,
)
from expunge.engine.linears import linears_in
from expunge.engine.part_files import stacked
from expunge.engine.runtime import Part
from expunge.lm.arch import Slots
from expunge.methods import s3t, sisa
from expunge.requests.rows import Row
from expunge.testing import tiny_model

ROWS = [Row(id=str(n), prompt=f"ask {n}", completion=f" told {n}") for n in range(40)]


def ensemble(orders=((0, 1, 2), (1, 2, 0)), shards: int = 2) -> Ensemble:
    chains = tuple(
        tuple(Chain(order, tuple(f"{s}{b}{i}" for i in range(3))) for b, order in enumerate(orders))
        for s in range(shards)
    )
    return Ensemble(
        method="s3t", version=1, recipe={"seed": 0, "lora_r": 4}, salt="x", base="b", rate=0.1,
        passes=3, head=False, slices=3, members=members_of(ROWS, "x", shards, 3), shards=chains,
    )  # fmt: skip


def at(state: Ensemble, shard: int, slice: int) -> Row:
    from expunge.engine.slots.sample import content_key

    keys = {m.key for m in state.members if (m.shard, m.slice) == (shard, slice)}
    return next(row for row in ROWS if content_key(row) in keys)


def test_a_deletion_cuts_every_sequence_at_its_slice() -> None:
    state = ensemble()
    asked = asked_of(state, [at(state, 1, 2)], [], lambda left: not any(left))
    assert [len(chain.files) for chain in asked.left.shards[1]] == [2, 1]
    assert asked.left.shards[0] == state.shards[0]
    assert asked.anew == ()
    again = asked_of(asked.left, [at(asked.left, 1, 0)], [], lambda left: not any(left))
    assert [len(chain.files) for chain in again.left.shards[1]] == [0, 1]
    last = asked_of(again.left, [at(again.left, 1, 1)], ROWS, lambda left: not any(left))
    assert last.anew == (1,)
    assert last.missing == ()
    without = asked_of(again.left, [at(again.left, 1, 1)], [], lambda left: not any(left))
    assert len(without.missing) == sum(m.shard == 1 for m in without.left.members)


def test_a_cut_sequence_is_hit_no_more_behind_its_end() -> None:
    chain = Chain((2, 0, 1), ("a",))
    assert [kept(chain, (slice,)) for slice in (2, 0, 1)] == [0, 1, 1]
    assert kept(chain, ()) == 1


def test_a_prefix_without_rows_is_nothing() -> None:
    state = ensemble()
    empty = state.without({m for m in state.members if m.shard == 0 and m.slice == 0})
    assert [len(chain.files) for chain in empty.shards[0]] == [0, 2]
    barren = replace(
        state, members=tuple(m for m in state.members if m.shard or m.slice == 2),
    )  # fmt: skip
    assert barren.left(0) == [3, 3]
    cut = barren.without({m for m in barren.members if m.shard == 0})
    assert [len(chain.files) for chain in cut.shards[0]] == [2, 1]
    assert cut.left(0) == [0, 0]


def test_equal_rows_go_together_and_others_stay() -> None:
    twice = [*ROWS, replace(ROWS[3], id="again")]
    members = members_of(twice, "x", 2, 3)
    assert len(members) == 41
    state = replace(ensemble(), members=members)
    left = asked_of(state, [ROWS[3]], [], lambda left: False).left
    assert len(left.members) == 39


def test_the_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    state = replace(ensemble(), lost=(1,))
    state.write(tmp_path)
    assert Ensemble.read(tmp_path) == state
    told = json.loads((tmp_path / FILE).read_text())
    older = {name: value for name, value in told.items() if name not in ("passes", "head")}
    write_text(tmp_path / FILE, json.dumps({**older, "recipe": {"epochs": 7}}))
    before = Ensemble.read(tmp_path)
    assert (before.passes, before.head) == (7, False), "as it was trained, when this was not told"
    for broken in ({**told, "format": "other"}, {**told, "shards": 3}, {**told, "more": 1}):
        write_text(tmp_path / FILE, json.dumps(broken))
        with pytest.raises(ExpungeError) as caught:
            Ensemble.read(tmp_path)
        assert caught.value.code == "E-MODEL-002"


# ------------------------------------------------------------------------------------ the ledger


def test_the_ledger_is_a_chain(tmp_path: Path) -> None:
    ledger = Ledger()
    assert ledger.head == START
    ledger.add("built", rows=3)
    ledger.add("deleted", row="r1")
    ledger.write(tmp_path)
    again = Ledger.read(tmp_path)
    assert again.lines == ledger.lines
    assert (again.head, again.deleted) == (ledger.head, {"r1"})
    file = tmp_path / "ledger.jsonl"
    first, second = file.read_text().splitlines()
    for lines in ([second, first], [second], [first.replace("3", "4"), second], [first, "{}"]):
        write_text(file, "\n".join([*lines, ""]))
        with pytest.raises(ExpungeError) as caught:
            Ledger.read(tmp_path)
        assert caught.value.code == "E-MODEL-009"


# -------------------------------------------------------------------------------- checkpoints


def test_a_stage_says_what_it_saw_and_the_same_stage_has_the_same_hash(tmp_path: Path) -> None:
    seen = Seen(1, 0, 2, [0, 1, 2], ["a", "b"], "parent", "recipe")
    tensors = {"x.lora_A": torch.ones(2, 3), "w.lora_B": torch.zeros(4, 2)}
    hash = write_stage(tmp_path, seen, tensors)
    (tmp_path / "other").mkdir()
    assert write_stage(tmp_path / "other", seen, dict(reversed(tensors.items()))) == hash
    assert write_stage(tmp_path / "other", replace(seen, rows=["a"]), tensors) != hash
    file = tmp_path / "shard1-sequence0-stage2.safetensors"
    assert read_seen(file) == seen
    assert torch.equal(read_stage(file, hash)["x.lora_A"], tensors["x.lora_A"])
    with pytest.raises(ExpungeError) as caught:
        read_stage(file, "0" * 64)
    assert caught.value.code == "E-MODEL-009"
    from safetensors.torch import save_file

    save_file(tensors, file)
    with pytest.raises(ExpungeError) as caught:
        read_seen(file)
    assert caught.value.code == "E-MODEL-010"


# -------------------------------------------------------------------------------------- layout


def test_linears_are_those_of_whole_names() -> None:
    slots = Slots(tiny_model("llama", hidden=8, layers=12))
    assert {name.split(".")[2] for name in linears_in(slots, [1])} == {"1"}
    assert len(linears_in(slots, [1, 11])) == 14
    assert linears_in(slots, [11], ["down_proj"]) == ["model.layers.11.mlp.down_proj"]
    with pytest.raises(ExpungeError) as caught:
        linears_in(slots, [1], ["own_proj"])
    assert caught.value.code == "E-MODEL-008"
    for family in ("gpt2", "gpt_neox", "gemma3", "qwen3"):
        slots = Slots(tiny_model(family, layers=2))
        assert sorted(linears_in(slots, [0, 1])) == sorted(slots.linears())


def test_blocks_are_counted_from_either_end() -> None:
    assert blocks_of(None, 3) == [0, 1, 2]
    assert blocks_of((-1, 0, 2), 3) == [0, 2]
    with pytest.raises(ExpungeError) as caught:
        blocks_of((3,), 3)
    assert caught.value.code == "E-USE-003"


def test_a_part_that_supersedes_takes_the_place_of_its_method_s() -> None:
    old, other = (Part(settings={}, moves=1, method=m, version=1) for m in ("sisa", "grace"))
    new = Part(settings={"new": 1}, moves=1, method="sisa", version=1, supersedes=True)
    assert stacked([old, other], new) == [other, new]
    assert stacked([old], replace(new, supersedes=False))[0] is old
    assert stacked([old], None) == [old]
    assert "supersedes" not in new.head


# ----------------------------------------------------------------------------------- the outlook


def even(orders: tuple[tuple[int, ...], ...], shards: int, slices: int, rows: int) -> Ensemble:
    """An ensemble with as many rows in every slice."""
    members = tuple(
        Member(f"{s}.{i}.{n}", f"{s}.{i}.{n}", s, i)
        for s in range(shards) for i in range(slices) for n in range(rows)
    )  # fmt: skip
    chains = tuple(tuple(Chain(o, ("f",) * slices) for o in orders) for _ in range(shards))
    return replace(ensemble(), slices=slices, members=members, shards=chains)


def test_the_outlook_of_sisa_is_the_card_s_and_its_cost_the_mean_of_what_is_left() -> None:
    """m = 5, L = 6: a deletion costs (L+1)(2L+1)/(6Lm) of one model trained anew, half of it."""
    params = methods.params("sisa", {})
    state = even((tuple(range(6)),), 5, 6, 1000)
    found = outlook(state, sisa.scheme(params, 6, 0))
    assert (found.cells, found.expected) == (5, pytest.approx(68.5, abs=0.01))
    assert found.retraining == 3 * 30_000
    assert found.rebuilding == pytest.approx(3.5 * found.retraining)
    assert found.mean_cost / found.retraining == pytest.approx(7 * 13 / (6 * 6 * 5), rel=1e-3)
    assert found.largest_cost == 3 * (1000 * 21 - 6)
    lost = outlook(replace(state, lost=(0, 3)), sisa.scheme(params, 6, 0))
    assert (lost.cells, lost.expected) == (3, pytest.approx(30 * (1 + 1 / 2 + 1 / 3), rel=1e-4))


def test_the_outlook_of_s3t_counts_first_slices_and_costs_nothing_until_the_last() -> None:
    params = methods.params("s3t", {})
    scheme = s3t.scheme(params, 6, 0)
    state = even(tuple(cyclic(range(6), 3)), 5, 6, 10)
    found = outlook(state, scheme)
    assert (found.cells, found.expected) == (15, pytest.approx(99.5, abs=0.05))
    assert (found.mean_cost, found.largest_cost) == (0, 0)
    one = replace(
        state,
        shards=(
            tuple(replace(c, files=c.files[: 3 * (n == 2)]) for n, c in enumerate(state.shards[0])),
            *state.shards[1:],
        ),
    )
    last = outlook(one, scheme)
    assert last.cells == 13
    assert last.largest_cost == 3 * sum(
        sum(10 - (i == 2) for i in order[: at + 1]) for order in cyclic(range(6), 3)
        for at in range(6)
    )  # fmt: skip
    assert last.mean_cost == pytest.approx(last.largest_cost / 30)
