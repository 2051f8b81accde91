"""KLUE: closed forms, rows no longer known, the discount, which neurons move, when it ends."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest_methods import assert_same, flat, slow_nll
from tiny_rig import exact, facts, knowing, saved
from torch import Tensor

from expunge.core.errors import ExpungeError
from expunge.core.events import Event, listening
from expunge.core.registry import methods
from expunge.engine.change import load_change, read_manifest
from expunge.engine.run import forget
from expunge.engine.slots.stop import Measured
from expunge.engine.task import Task
from expunge.lm.arch import Slots
from expunge.lm.digest import folder_digest
from expunge.lm.load import load
from expunge.lm.mismatched import Mismatches
from expunge.lm.neurons import weights_of_units
from expunge.lm.subject import Subject
from expunge.methods import klue
from expunge.requests.rows import Row
from expunge.testing import objective, tiny_model

SHORT = {"batch_size": 24, "warmup": 0, "lr": 1e-2, "max_steps": 4}
LONG = {**SHORT, "max_steps": 60}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("models"))


def task_of(rows: tuple[Row, ...] | None = None, seed: int = 0, **params: Any) -> Task:
    subject, (given, kept) = knowing(), facts()
    return Task(
        model=subject.model, tokenizer=subject.tokenizer, encoder=subject.encoder, seed=seed,
        roles={"forget": rows or given, "retain": kept}, params=methods.params("klue", params),
    )  # fmt: skip


def chosen(task: Task) -> list[Tensor]:
    """[units] of each block: which move."""
    found = klue.mask(task.model, task, task.params)
    slots = Slots(task.model)
    masks = [found[f"{name}.weight"] for n in range(2) for name in slots.names(n, "mlp_out")]
    none = torch.zeros(128, dtype=torch.bool)
    return [mask.any(0) if isinstance(mask, Tensor) else none for mask in masks]


def run(original: Path, out: Path, seed: int = 0, **params: Any) -> tuple[Subject, dict[str, Any]]:
    summary = forget(
        original, *facts(), method="klue", params=params, stop_at="none", out=out, seed=seed
    )
    loaded = load(load_change(out).folder)
    return Subject(loaded.model, loaded.tokenizer), summary


def test_t3_is_ascent_and_stays_so_where_nothing_was_asked(t3) -> None:
    assert objective("klue", t3.model, {"forget": t3.view}).loss == pytest.approx(
        -0.464952, abs=1e-5
    )


@pytest.mark.parametrize("known", [[0, 3], [1], [0, 1, 2, 3, 4]])
def test_rows_no_longer_known_count_neither_in_sum_nor_in_number(
    random_table, random_view, known: list[int]
) -> None:
    model, view = random_table(1), random_view(3)
    found = objective("klue", model, {"forget": view}, state={klue.KNOWN: known})
    twin = random_table(1)
    rows = slow_nll(twin, view)
    slow = -flat([rows[at] for at in known]).mean()
    slow.backward()
    assert_same((found.loss, model.table.grad), (slow, twin.table.grad))


def test_where_no_row_is_known_there_is_no_loss_and_no_gradient(random_table, random_view) -> None:
    model = random_table(1)
    found = objective("klue", model, {"forget": random_view(3)}, state={klue.KNOWN: []})
    assert found.loss == 0.0
    assert not model.table.grad.any()


def measured(**terms: float) -> list[Measured]:
    return [Measured(5, 1.0, False, {"forget": -1.0, **terms}, 4.5)]


def test_it_ends_when_no_row_is_left_and_not_while_the_forget_term_rests() -> None:
    params = methods.params("klue", {})
    assert klue.stop(measured(unforgotten=0.0), params)
    assert not klue.stop(measured(unforgotten=1.0), params)
    assert not klue.stop(measured(), params)


def test_after_their_own_questions_nothing_is_left_of_the_score(monkeypatch) -> None:
    """alpha = 1 with q' = q gives S = 0."""
    monkeypatch.setattr(
        Mismatches, "of", lambda self, row, wording, seed: iter([row.turns[wording]])
    )
    own, other = klue.attributed(task_of(), methods.params("klue", {}))
    for a, b in zip(own, other, strict=True):
        assert a.abs().max() > 0
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_wordings_weigh_a_row_and_rows_weigh_the_mean() -> None:
    """One row with its paraphrase is worth as much as one without."""
    first, second = (facts()[0][at] for at in (0, 5))
    worded = replace(first, paraphrases=({"prompt": "anna likes"}, {"prompt": "anna drives"}))
    params = methods.params("klue", {})

    def own(*rows: Row) -> list[Tensor]:
        return klue.attributed(task_of(rows), params)[0]

    alone = [
        own(replace(first, prompt=text)) for text in ("anna born", "anna likes", "anna drives")
    ]
    others = own(second)
    for layer, got in enumerate(own(worded, second)):
        mean = sum(one[layer] for one in alone) / 3
        torch.testing.assert_close(got, (mean + others[layer]) / 2, rtol=1e-5, atol=1e-9)


def test_mismatched_questions_are_as_many_as_asked_for_and_drawn_by_the_seed(monkeypatch) -> None:
    drawn: list[list[str]] = []
    plain = Mismatches.of

    def watched(self, row, wording, *, seed):  # type: ignore[no-untyped-def]
        drawn.append([])
        for turn in plain(self, row, wording, seed=seed):
            drawn[-1].append(str(turn.prompt))
            yield turn

    monkeypatch.setattr(Mismatches, "of", watched)
    found = [
        klue.attributed(task_of(seed=seed), methods.params("klue", {"mismatched": 3}))[1][0]
        for seed in (0, 0, 1)
    ]
    assert {len(names) for names in drawn} == {3}
    assert torch.equal(found[0], found[1])
    assert not torch.allclose(found[0], found[2])


def units(own: list[list[float]], other: list[list[float]], **params: Any) -> list[list[int]]:
    """Numbers of the chosen neurons of each block."""
    slots = Slots(tiny_model("llama", layers=len(own)))
    scores = [[torch.tensor(one).double() for one in each] for each in (own, other)]
    found = klue.chosen_units(*scores, methods.params("klue", params), slots)
    return [block.nonzero()[:, 0].tolist() for block in found]


OWN = [[5.0, 9.0, 1.0, 0.0], [4.0, 3.0, 2.0, -9.0]]
OTHER = [[0.0, 9.0, -6.0, 0.0], [0.0, 0.0, 0.0, 0.0]]


def test_neurons_that_answer_whatever_is_asked_are_discounted() -> None:
    """Scores 5 0 7 0 and 4 3 2 -9."""
    assert units(OWN, OTHER, share=0.25) == [[0, 2], []]
    assert units(OWN, OTHER, share=0.25, discount_weight=0.0) == [[0, 1], []]
    assert units(OWN, OTHER, share=0.25, scope="layer") == [[2], [0]]
    assert units(OWN, OTHER, share=0.25, layers=(-1,)) == [[], [0]]
    assert units(OWN, OTHER, share=0.125, discount="subtract") == [[2], []]


def test_set_minus_takes_the_mismatched_top_out_of_the_own_top() -> None:
    """The weight of the discount and how far apart scores are count for nothing."""
    options = {"discount": "set-minus", "discount_weight": 0.0}
    mismatched = [[-1.0, 0.9, 0.1, 0.05], [-3.0, 0.8, -3.0, -3.0]]
    assert units(OWN, mismatched, share=0.25, **options) == [[0], []]
    assert units(OWN, mismatched, share=0.5, **options) == [[0], [0]]
    assert units(OWN, mismatched, share=0.5, layers=(0,), **options) == [[0], []]


def test_a_discount_that_leaves_none_is_refused() -> None:
    with pytest.raises(ExpungeError, match="E-USE-003"):
        units(OWN, OWN, share=0.25, discount="set-minus")


def test_the_discount_and_its_options_choose_other_neurons() -> None:
    options: list[dict[str, Any]] = [
        {}, {"discount_weight": 0.0}, {"discount": "set-minus"}, {"scope": "layer"},
        {"probability": "product"}, {"positions": "all"},
    ]  # fmt: skip
    found = [torch.cat(chosen(task_of(share=0.2, **one))) for one in options]
    for at, one in enumerate(found):
        assert 0 < int(one.sum()) <= 52
        assert all(not torch.equal(one, other) for other in found[at + 1 :]), options[at]


def test_a_twentieth_of_the_neurons_is_taken_and_told() -> None:
    task = task_of()
    assert sum(int(block.sum()) for block in chosen(task)) == round(0.05 * 256)
    assert task.record["neurons"] == 13
    assert sum(task.record["neurons_of_blocks"]) == 13


def test_nothing_else_to_ask_is_refused_by_name() -> None:
    task = replace(task_of(facts()[0][:1]), roles={"forget": facts()[0][:1]})
    with pytest.raises(ExpungeError, match="E-USE-006") as caught:
        klue.attributed(task, methods.params("klue", {}))
    assert "anna/born" in caught.value.found


def test_other_weights_end_bit_for_bit_under_weight_decay(original: Path, tmp_path: Path) -> None:
    subject, _ = run(original, tmp_path / "out", **SHORT, weight_decay=0.1)
    after = dict(subject.model.named_parameters())
    before = load(original).model
    masks: dict[str, Tensor] = {}
    for layer, which in enumerate(chosen(task_of())):
        masks |= weights_of_units(before, layer, which)
    assert any(mask.any() for mask in masks.values())
    for name, weight in before.named_parameters():
        frozen = ~masks[name] if name in masks else torch.ones_like(weight, dtype=torch.bool)
        assert torch.equal(after[name][frozen], weight[frozen]), name
        assert not (~frozen).any() or not torch.equal(after[name][~frozen], weight[~frozen])


def left(out: Path) -> list[float]:
    manifest = read_manifest(out)
    assert manifest is not None
    return [m["terms"]["unforgotten"] for m in manifest["history"] if "unforgotten" in m["terms"]]


def test_it_forgets_what_is_known_ends_when_nothing_is_and_goes_no_further(
    original: Path, tmp_path: Path
) -> None:
    """Two seeds; without the switch the same neurons are driven far beyond."""
    ended = [run(original, tmp_path / str(seed), seed, **LONG) for seed in range(2)]
    for seed, (_, summary) in enumerate(ended):
        asked = left(tmp_path / str(seed))
        assert asked[0] == 8
        assert asked[-1] == 0
        assert summary["stopped_by"] == "method"
        assert summary["steps"] < 60
    assert sum(exact(subject, facts()[0]) for subject, _ in ended) / 2 <= 0.2
    assert sum(exact(subject, facts()[1]) for subject, _ in ended) / 2 >= 0.75
    onward, summary = run(original, tmp_path / "onward", **LONG, only_known=False)
    assert summary["steps"] == 60
    assert not left(tmp_path / "onward")
    assert summary["forget_nll"] > 1.5 * max(one["forget_nll"] for _, one in ended)
    weights = [one.model.model.layers[0].mlp.down_proj.weight for one in (onward, ended[0][0])]
    assert not torch.equal(*weights)


def test_what_is_known_is_asked_after_each_epoch_and_survives_a_resume(
    original: Path, tmp_path: Path
) -> None:
    options = {**SHORT, "max_steps": 24, "batch_size": 4, "lr": 5e-3}
    run(original, tmp_path / "whole", **options)
    asked = left(tmp_path / "whole")
    assert len(set(asked)) > 1
    assert all(asked[at] == asked[at - 1] for at in range(1, len(asked), 2))  # two steps an epoch

    def interrupt(event: Event) -> None:
        if event.kind == "advance" and event.task == "klue" and event.done >= 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), listening(interrupt):
        run(original, tmp_path / "cut", **options)
    _, summary = run(original, tmp_path / "cut", **options)
    assert summary["resumed_from"] > 0
    assert left(tmp_path / "cut")[-1] == asked[-1]
    assert folder_digest(tmp_path / "cut") == folder_digest(tmp_path / "whole")


def test_it_says_when_the_model_answers_nothing() -> None:
    strangers = tuple(replace(row, completion=" w1 w1 w1") for row in facts()[0][:2])
    said: list[str] = []
    for only_known in (True, False):
        task = task_of(strangers)
        with listening(lambda event: said.append(event.text)):
            klue.prepare(task, methods.params("klue", {"only_known": only_known}))
        assert task.state == ({klue.KNOWN: []} if only_known else {})
    assert len(said) == 1
    assert "only_known" in said[0]


@pytest.mark.parametrize(
    "wrong",
    [{"share": 0.0}, {"share": 2.0}, {"discount": "divide"}, {"mismatched": 0}, {"scope": "all"}],
)
def test_what_cannot_be_is_refused_before_weights_load(
    wrong: dict[str, Any], original: Path, tmp_path: Path
) -> None:
    with pytest.raises(ExpungeError, match="E-USE-003"):
        run(original, tmp_path / "out", **SHORT | wrong)
