"""First-epoch gradients: exact undoing of a plain step, sparse rows, tied tables, what it does."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_rig import exact, facts, knowing, saved

from expunge.core.errors import ExpungeError
from expunge.core.registry import methods
from expunge.engine.change import load_change, read_manifest, revert
from expunge.engine.run import forget
from expunge.engine.task import Task
from expunge.lm.digest import folder_digest
from expunge.lm.load import load
from expunge.lm.subject import Subject
from expunge.methods import fega
from expunge.testing import check_method, tiny_model


def task_of(model: Any = None, rows: int = 8) -> Task:
    subject = knowing()
    given, kept = facts()
    return Task(
        model=model or subject.copy().model, tokenizer=subject.tokenizer, encoder=subject.encoder,
        roles={"forget": given[:rows], "retain": kept},
        params=methods.params("fega", {}),
    )  # fmt: skip


def untaught(folder: Path, *, tied: bool = False) -> Path:
    """The rig's model before it was taught, on disk."""
    tokenizer = knowing().tokenizer
    family = "llama_tied" if tied else "llama"
    model = tiny_model(family, vocab=len(tokenizer), hidden=64, layers=2, seed=0, positions=32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def settings(**given: Any) -> Any:
    return methods.params("fega", given)


def replayed(base: Path, rows: int, monkeypatch: pytest.MonkeyPatch, **given: Any) -> Any:
    """The replayed model after the first ``rows`` rows, and the sum of the gradients kept."""
    made: list[Any] = []
    real, batches = fega.load, fega.batches

    def keep(path: str) -> Any:
        made.append(real(path))
        return made[-1]

    def few(*given: Any) -> Any:
        return list(batches(*given))[:rows]

    monkeypatch.setattr(fega, "load", keep)
    monkeypatch.setattr(fega, "batches", few)
    params = settings(base=str(base), optimiser="sgd", batch_size=1, scope="all", **given)
    task = task_of()
    names = [name for name, _ in task.model.named_parameters()]
    kept = fega.first_gradients(task, params, names)
    monkeypatch.undo()
    return made[0].model, kept


def test_a_plain_step_is_undone_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The card's check: batches of one row, plain SGD, the last row given back."""
    base = untaught(tmp_path / "base")
    rate, forgotten = 0.5, {item.id for item in facts()[0]}
    order = [
        int(at) for at in fega.generator(0, "fega", "replay", 0).permutation(len(sum(facts(), ())))
    ]
    last = next(place for place, row in enumerate(order) if row < len(forgotten))
    before, none = replayed(base, last, monkeypatch, replay_lr=rate)
    after, kept = replayed(base, last + 1, monkeypatch, replay_lr=rate)
    assert not none
    assert any(
        not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True)
    )
    fega.give_back(after, kept, rate)
    for one, other in zip(before.parameters(), after.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_a_gradient_is_taken_before_the_row_is_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taken after the step, it would not undo it: the other order gives another gradient."""
    base = untaught(tmp_path / "base")
    _, kept = replayed(base, 32, monkeypatch, replay_lr=0.5)
    _, still = replayed(base, 32, monkeypatch, replay_lr=0.0)
    assert kept.keys() == still.keys()
    assert any(not torch.allclose(kept[name], still[name]) for name in kept)


def test_only_the_tokens_of_the_rows_have_a_gradient_in_the_table() -> None:
    task = task_of(rows=2)
    kept = fega.first_gradients(task, settings(), ["model.embed_tokens.weight"])
    moved = set(kept["model.embed_tokens.weight"].norm(dim=1).nonzero().flatten().tolist())
    met = {token for row in task.forget for token in task.encoder.encode(row.training).ids}
    assert moved
    assert moved <= met


def test_of_a_tied_table_only_the_input_side_counts(tmp_path: Path) -> None:
    """With the head's side, every token of the vocabulary would have a gradient."""
    tied = load(untaught(tmp_path / "tied", tied=True)).model
    assert tied.get_output_embeddings().weight is tied.get_input_embeddings().weight
    task = task_of(tied, rows=1)
    kept = fega.first_gradients(task, settings(), ["model.embed_tokens.weight"])
    moved = int((kept["model.embed_tokens.weight"].norm(dim=1) > 0).sum())
    assert 0 < moved <= len(task.encoder.encode(task.forget[0].training).ids)
    assert tied.get_output_embeddings().weight is tied.get_input_embeddings().weight


def run(folder: Path, out: str, **params: Any) -> dict[str, Any]:
    stop = params.pop("stop_at", "placebo")
    return forget(
        saved(folder), *facts(), method="fega", params=params, stop_at=stop, out=folder / out
    )


def opened(folder: Path) -> Subject:
    loaded = load(load_change(folder).folder)
    return Subject(loaded.model, loaded.tokenizer)


def test_embeddings_alone_make_the_rows_unlikely_and_nothing_else_moves(tmp_path: Path) -> None:
    done = run(tmp_path, "out", base=str(untaught(tmp_path / "base")))
    assert done["stopped_by"] == "level"
    assert done["forget_nll"] > 3 * max(1.0, done["before"]["forget_nll"])
    assert exact(opened(tmp_path / "out"), facts()[0]) == 0.0
    before, after = (
        dict(x.model.named_parameters()) for x in (knowing(), opened(tmp_path / "out"))
    )
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"model.embed_tokens.weight"}
    revert(tmp_path / "out")
    assert folder_digest(tmp_path / "out") == folder_digest(saved(tmp_path))


def test_first_epoch_gradients_are_other_than_those_of_now_and_of_more_epochs(
    tmp_path: Path,
) -> None:
    """The ablation: without the replay it is one fixed gradient of the original."""
    base = str(untaught(tmp_path / "base"))
    for name, given in {
        "first": {"base": base},
        "now": {},
        "three": {"base": base, "replay_epochs": 3},
    }.items():
        run(tmp_path, name, max_steps=2, stop_at="none", **given)
    found = {folder_digest(tmp_path / name) for name in ("first", "now", "three")}
    assert len(found) == 3
    manifest = read_manifest(tmp_path / "now")
    assert manifest is not None
    assert manifest["record"]["replayed_from"] == "original"
    assert manifest["record"]["alignment_before"] == pytest.approx(1.0, abs=1e-4)
    first = read_manifest(tmp_path / "first")
    assert first is not None
    assert first["record"]["alignment_before"] < 0.9


def test_each_application_moves_the_weights_by_a_share_of_their_length(tmp_path: Path) -> None:
    run(tmp_path, "out", max_steps=1, stop_at="none", share=0.05)
    name = "model.embed_tokens.weight"
    before, after = (
        dict(x.model.named_parameters())[name] for x in (knowing(), opened(tmp_path / "out"))
    )
    assert float((after - before).norm() / before.norm()) == pytest.approx(0.05, rel=1e-3)


def test_rows_like_the_forgotten_ones_are_given_back_too() -> None:
    task = task_of(rows=2)
    name = ["model.embed_tokens.weight"]
    plain, fuzzy = (
        fega.first_gradients(task, settings(fuzzy=x), name)[name[0]] for x in (1.0, 0.0)
    )
    assert int((fuzzy.norm(dim=1) > 0).sum()) > int((plain.norm(dim=1) > 0).sum())


def test_blocks_without_layers_and_adapters_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExpungeError, match="without layers"):
        run(tmp_path, "out", scope="blocks")
    for given, words in (
        ({"adapter": "lora"}, "edits the weights"),
        ({"wrappers": ("coreset",)}, "trains on no forget rows"),
    ):
        with pytest.raises(ExpungeError, match=words):
            forget(saved(tmp_path), *facts(), method="fega", out=tmp_path / "b", **given)


def test_it_conforms() -> None:
    check_method("fega")
