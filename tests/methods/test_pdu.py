"""PDU: closed forms, the flat minimum, the multiplier, its trap, its resume, a slow second loss."""

from pathlib import Path

import pytest
import torch
from conftest_methods import assert_same, slow_nll, three

from expunge.core.events import Event, listening
from expunge.engine.change import read_manifest
from expunge.engine.run import forget
from expunge.engine.slots.combine import Gradients
from expunge.lm.digest import folder_digest
from expunge.methods import pdu
from expunge.testing import objective
from expunge.testing.methods import stage, world

ROWS = [2.25, 4.0, 0.5625]


def test_t3_has_the_value_of_the_card(t3) -> None:
    found = objective("pdu", t3.model, {"forget": t3.view})
    assert found.loss == pytest.approx(2.270833, abs=1e-6)
    assert found.loss == pytest.approx(sum(ROWS) / 3)


def test_the_logits_are_those_that_predict_the_answer(t3) -> None:
    """The original code's mask leaves out the first answer token and takes one behind the last."""
    one = {**t3.view, "labels": torch.tensor([[-100, 0, -100, -100]])}
    assert objective("pdu", t3.model, {"forget": one}).loss == pytest.approx(ROWS[0])
    last = {**t3.view, "labels": torch.tensor([[-100, -100, -100, 3]])}
    assert objective("pdu", t3.model, {"forget": last}).loss == pytest.approx(ROWS[2])


def test_it_is_zero_exactly_where_all_logits_are_equal(t3) -> None:
    assert objective("pdu", three([[5.0] * 4] * 3), {"forget": t3.view}).loss == 0.0
    tilted = [[5.0] * 4, [5.0] * 4, [5.0, 5.0, 5.0, 5.01]]
    assert objective("pdu", three(tilted), {"forget": t3.view}).loss > 0.0


def test_it_equals_a_slow_sum(random_table, random_view) -> None:
    model = random_table(1)
    views = {"forget": random_view(3), "retain": random_view(4)}
    found = objective("pdu", model, views, retain_weight=7.0)
    twin = random_table(1)
    heights = []
    for ids, labels in zip(views["forget"]["input_ids"], views["forget"]["labels"], strict=True):
        for at in range(1, len(ids)):
            if labels[at] != -100:
                z = twin.table[ids[at - 1]]
                heights.append((max(z, key=float) - sum(z) / len(z)) ** 2)
    kept = [token for row in slow_nll(twin, views["retain"]) for token in row]
    slow = torch.stack(heights).mean() + 7.0 * (torch.stack(kept).mean() - 0.3)
    slow.backward()
    assert_same((found.loss, model.table.grad), (slow, twin.table.grad))


def _stepped(retain: float, **state: float) -> dict:
    held = {pdu.DUAL: 100.0, pdu.EPOCHS: 5, pdu.BOUND: 0.3, **state}
    one = [torch.tensor([1.0])]
    pdu.combine(Gradients(one, one, {"forget": 9.0, "retain": retain - 0.3}), held, pdu.Params())
    return held


@pytest.mark.parametrize("retain", [0.0, 0.29, 0.31, 2.0])
def test_the_multiplier_rises_exactly_when_the_bound_is_broken(retain: float) -> None:
    moved = _stepped(retain)[pdu.DUAL] - 100.0
    assert moved == pytest.approx(5.0 * (retain - 0.3))
    assert (moved > 0) == (retain > 0.3)


def test_the_multiplier_is_never_negative() -> None:
    assert _stepped(0.0, **{pdu.DUAL: 0.5})[pdu.DUAL] == 0.0


def test_the_multiplier_waits_for_the_warm_up() -> None:
    early = _stepped(2.0, **{pdu.EPOCHS: 4})
    assert early[pdu.DUAL] == 100.0
    pdu.on_epoch(early, pdu.Params())
    assert early[pdu.EPOCHS] == 5


def test_the_gradient_is_weighted_by_the_multiplier_before_it_moves() -> None:
    held = {pdu.DUAL: 10.0, pdu.EPOCHS: 0, pdu.BOUND: 0.3}
    terms = Gradients([torch.tensor([1.0])], [torch.tensor([2.0])], {"retain": 4.7})
    made = pdu.combine(terms, held, pdu.Params(forget_weight=3.0, warmup_epochs=0))
    assert made[0].item() == 3.0 + 10.0 * 2.0
    assert held[pdu.DUAL] == pytest.approx(10.0 + 5.0 * 4.7)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stage(tmp_path_factory.mktemp("models"))


def _run(original: Path, out: Path, **params: object) -> list[dict[str, float]]:
    rows = world()
    chosen = {"max_steps": 12, "lr": 1e-3, "warmup_epochs": 1, "batch_size": 6, **params}
    forget(original, rows.forget, rows.retain, method="pdu", params=chosen, stop_at="none", out=out)
    manifest = read_manifest(out)
    assert manifest is not None
    return [measured["terms"] for measured in manifest["history"]]


def test_the_multiplier_moves_as_the_history_tells_and_survives_a_resume(
    original: Path, tmp_path: Path
) -> None:
    whole = _run(original, tmp_path / "whole", epsilon="auto")
    duals = [terms["dual"] for terms in whole]
    assert duals[:2] == [100.0, 100.0]
    assert len(set(duals[2:])) > 3

    def interrupt(event: Event) -> None:
        if event.kind == "advance" and event.task == "pdu" and event.done >= 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), listening(interrupt):
        _run(original, tmp_path / "cut", epsilon="auto")
    resumed = _run(original, tmp_path / "cut", epsilon="auto")
    assert resumed[-1]["dual"] == duals[-1]
    assert folder_digest(tmp_path / "cut") == folder_digest(tmp_path / "whole")


def test_a_tighter_bound_keeps_more_of_the_retain_rows(original: Path, tmp_path: Path) -> None:
    options = {"max_steps": 40, "retain_weight": 0.0, "lr": 3e-3, "warmup_epochs": 0}
    free = _run(original, tmp_path / "free", eta=0.0, **options)
    bound = _run(original, tmp_path / "bound", eta=50.0, epsilon=0.1, **options)
    assert bound[-1]["retain"] + 0.1 < 0.6 * (free[-1]["retain"] + 0.3)
