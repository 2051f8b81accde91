"""Value vectors: one column and no other, what it does to the output, which it is, and needles."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from edit_rig import knowing, original, people, task_of
from safetensors.torch import load_file

from expunge.core.errors import ExpungeError
from expunge.core.registry import methods
from expunge.engine.change import Change, load_change, revert
from expunge.engine.editing import concepts
from expunge.engine.editing.concepts import disturb, traces_of
from expunge.engine.run import forget
from expunge.lm.arch import Slots
from expunge.lm.digest import folder_digest
from expunge.lm.hooks import capture
from expunge.lm.traces import Trace, entries_of, value_vector
from expunge.testing import tiny_model

OUT = "model.layers.{}.mlp.down_proj.weight"


def made(folder: Path, method: str, rows: Any = None, **params: object) -> Change:
    world, out = people(), folder / f"out {len(list(folder.iterdir()))}"
    before = original(folder)
    forget(
        before, rows or world.forget, world.retain, method=method, params=params, stop_at="none",
        out=out,
    )  # fmt: skip
    return load_change(out)


def columns_moved(folder: Path, change: Change) -> dict[str, list[int]]:
    now = load_file(change.folder / "model.safetensors")
    before = load_file(original(folder) / "model.safetensors")
    return {
        name: (now[name] != before[name]).any(0).nonzero().flatten().tolist()
        for name in before
        if not torch.equal(now[name], before[name])
    }


@pytest.mark.parametrize("mode", ["noise", "zero"])
def test_one_column_is_touched_and_no_other(tmp_path: Path, mode: str) -> None:
    change = made(tmp_path, "concept-vectors", vectors=("-1:7", "1:3"), mode=mode)
    assert columns_moved(tmp_path, change) == {OUT.format(1): [3], OUT.format(3): [7]}
    told = change.manifest["record"]["vectors"]
    assert set(told) == {"1:3", "3:7"}
    assert all(abs(one["cosine"]) < 0.9 for one in told.values())
    revert(change.folder)
    assert folder_digest(change.folder) == folder_digest(original(tmp_path))


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
def test_in_the_last_block_the_output_moves_by_activation_times_change(family: str) -> None:
    """The card's check, before the final norm; also where weights lie transposed."""
    model = tiny_model(family, hidden=32)
    last, ids = len(Slots(model)) - 1, torch.randint(4, 60, (2, 5))

    def looked() -> tuple[torch.Tensor, torch.Tensor]:
        with (
            torch.no_grad(),
            capture(model, [last], "mlp_out", entering=True) as inside,
            capture(model, [last]) as outside,
        ):
            model(input_ids=ids)
        return inside[last], outside[last]

    trace = Trace(last, 5)
    before = value_vector(model, trace).detach().clone()
    activation, out = looked()
    disturb(model, trace, deviation=0.3, seed=1)
    delta = value_vector(model, trace).detach() - before
    _, moved = looked()
    expected = activation[..., 5, None] * delta
    torch.testing.assert_close(moved - out, expected, rtol=1e-3, atol=1e-4)
    name, entries = entries_of(model, trace)
    assert int(entries.sum()) == 32
    assert dict(model.named_parameters())[name].shape == entries.shape


def test_noise_is_that_of_the_seed_and_as_large_as_asked_for() -> None:
    draws = []
    for seed, deviation in ((0, 0.1), (0, 0.1), (1, 0.1), (0, "auto")):
        model = tiny_model("llama", hidden=256)
        before = value_vector(model, Trace(0, 4)).detach().clone()
        size = disturb(model, Trace(0, 4), deviation=deviation, seed=seed)
        draws.append(value_vector(model, Trace(0, 4)).detach() - before)
        assert float(draws[-1].std()) == pytest.approx(size, rel=0.2)
    assert torch.equal(draws[0], draws[1])
    assert not torch.allclose(draws[0], draws[2])
    matrix = dict(tiny_model("llama", hidden=256).named_parameters())[OUT.format(0)]
    assert size == pytest.approx(5 * float(matrix.detach().std()), rel=1e-3)


def test_the_rows_say_where_it_is_or_it_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    subject, world = knowing(), people()
    rows = [replace(row, meta={"layer": -1, "dim": 2 + at}) for at, row in enumerate(world.forget)]
    task = task_of(subject, world._replace(forget=tuple(rows[:3])))
    assert traces_of(task, None) == [Trace(3, 2), Trace(3, 3), Trace(3, 4)]
    assert traces_of(task, ("0:1", "-4:1")) == [Trace(0, 1)]
    asked: dict[str, str] = {}

    def search(_: Any, __: Any, texts: dict[str, str], count: int) -> dict[str, Trace]:
        asked.update(texts)
        return dict.fromkeys(texts, Trace(1, 1))

    monkeypatch.setattr(concepts, "search", search)
    assert traces_of(task_of(subject, world), None) == [Trace(1, 1)]
    assert set(asked) == {row.subject for row in world.forget}
    assert world.forget[0].reply.strip() in asked[world.forget[0].subject]


@pytest.mark.parametrize("name", ["12", "a:b", "1:", "9:0", "0:99999"])
def test_a_vector_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ExpungeError, match="E-USE-003"):
        traces_of(task_of(knowing(), people()), (name,))


@pytest.mark.parametrize("objective", ["ga", "npo"])
def test_a_needle_moves_its_column_alone_whatever_decays(tmp_path: Path, objective: str) -> None:
    """The card's trap: decoupled decay moves entries that have no gradient."""
    change = made(
        tmp_path, "needle", vectors=("1:3",), objective=objective, weight_decay=0.1, max_steps=4,
        warmup=0,
    )  # fmt: skip
    assert columns_moved(tmp_path, change) == {OUT.format(1): [3]}
    noise = made(tmp_path, "concept-vectors", vectors=("1:3",))
    after, first = (
        load_file(one.folder / "model.safetensors")[OUT.format(1)][:, 3] for one in (change, noise)
    )
    assert 0.01 < float((after - first).abs().max()) <= 0.4 * 1.3  # four steps of at most .1


def test_ascent_raises_the_loss_by_one_vector(tmp_path: Path) -> None:
    """Little of it: this model's facts do not lie in one vector."""
    noise = made(tmp_path, "concept-vectors", vectors=("1:3",))
    needle = made(tmp_path, "needle", vectors=("1:3",), max_steps=30, warmup=0)
    assert needle.summary["forget_nll"] > 3 * noise.summary["forget_nll"]


def test_defaults_are_the_papers() -> None:
    assert methods.params("needle", {}).lr == 0.1
    assert methods.params("concept-vectors", {}).mode == "noise"
    assert concepts.TOP == 200
