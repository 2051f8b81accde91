"""Path dependence: matching, the ladder, and a small run that resumes."""

from dataclasses import replace

import pytest
import torch

from expunge.core.errors import ExpungeError
from expunge.lab.path_dependence import (
    Paths,
    Point,
    Stage,
    by_method,
    compared,
    learned,
    spread,
    utility_at,
)
from expunge.lm.digest import folder_digest
from expunge.requests.rows import Row
from expunge.testing import objective, tiny_model, tiny_tokenizer

NUMBERS = ("one", "two", "three", "four")
REFUSED = [Row(id=f"r{n}", role="forget", prompt=f"open {n}", completion=" no") for n in NUMBERS]
FACTS = [Row(id=f"f{n}", role="retain", prompt=f"say {n}", completion=f" {n}") for n in NUMBERS]


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    base = tmp_path_factory.mktemp("path") / "base"
    texts = [f"{row.prompt}{row.completion}" for row in (*REFUSED, *FACTS)]
    tokenizer = tiny_tokenizer([*texts, " never"], kind="word", vocab=64)
    tiny_model("llama", vocab=len(tokenizer), seed=0, positions=32).save_pretrained(base)
    tokenizer.save_pretrained(base)
    return Paths(
        base=base,
        stages={
            "no": Stage(rows=REFUSED, epochs=20, lr=5e-3),
            "facts": Stage(rows=FACTS, epochs=20, lr=5e-3),
        },
        orders=(("no", "facts"), ("facts", "no")),
        unlearn="no",
        keep=FACTS,
        refusals=(" never",),
        ladder=(2, 6),
        seeds=(0, 1),
        batch_size=4,
    )


GA = by_method("ga", {"lr": 2e-3, "batch_size": 4})


@pytest.fixture(scope="module")
def run(paths, tmp_path_factory):
    out = tmp_path_factory.mktemp("path") / "out"
    return spread(paths, GA, out, name="ga"), out


def ladder(*pairs):
    return [Point(at, score, utility) for at, (score, utility) in enumerate(pairs, 1)]


def test_utility_is_read_on_the_line_to_the_first_crossing():
    points = ladder((1.0, 0.9), (3.0, 0.5), (2.0, 0.1), (4.0, 0.0))
    assert utility_at(points, 2.0) == pytest.approx(0.7)
    assert utility_at(points, 0.5) == pytest.approx(0.95)
    assert utility_at(points, 3.0) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="not reached"):
        utility_at(points, 4.1)


def test_utilities_are_compared_at_a_score_that_all_reach():
    """Unmatched, the slower order would look better kept: .9 against .5."""
    slow, fast = ladder((0.5, 0.95), (1.0, 0.9)), ladder((2.0, 0.8), (5.0, 0.5))
    found = compared({"AB/0": slow, "AB/1": slow, "BA/0": fast, "BA/1": fast})
    assert found.level == 1.0
    assert found.value.per_row["BA/0"] == pytest.approx(0.9)
    assert found.value.mean == pytest.approx(0)


def test_a_run_that_did_not_forget_ends_the_comparison():
    with pytest.raises(ExpungeError) as error:
        compared({"AB/0": ladder((1.0, 0.9)), "BA/0": ladder((-0.1, 1.0))})
    assert error.value.code == "E-USE-006"
    assert "BA/0" in error.value.found


@pytest.mark.parametrize(
    "change",
    [
        {"orders": (("no",), ("facts", "no"))},
        {"orders": (("no", "facts"),)},
        {"unlearn": "maths"},
    ],
)
def test_orders_must_name_every_stage(paths, change, tmp_path):
    with pytest.raises(ExpungeError) as error:
        spread(replace(paths, **change), GA, tmp_path, name="ga")
    assert error.value.code == "E-USE-006"


def test_the_same_stages_in_another_order_or_with_another_seed_are_another_model(paths, run):
    _, out = run
    made = [learned(paths, order, seed, out) for order in paths.orders for seed in paths.seeds]
    assert len({folder_digest(folder) for folder in made}) == 4


def test_a_run_reports_every_rung_and_resumes_to_the_same_numbers(paths, run):
    found, out = run
    assert set(found.ladders) == {f"{o}/{s}" for o in ("no-facts", "facts-no") for s in (0, 1)}
    for points in found.ladders.values():
        assert [point.steps for point in points] == [2, 6]
        assert points[0].score < points[1].score
    assert found.value.n == 4
    assert found.value.parts["seed_spread"] >= 0
    before = (out / "ga" / "spread.json").read_bytes()
    never = pytest.fail

    def forgotten_already(model, rows, steps, seed, folder):
        return folder if (folder / "change.json").exists() else never("it ran again")

    again = spread(paths, forgotten_already, out, name="ga")
    assert again == found
    assert (out / "ga" / "spread.json").read_bytes() == before


def test_rungs_run_at_a_constant_rate(paths, run, tmp_path):
    """With a rate that falls to 0 a longer run would differ from a shorter one from step 1 on."""
    _, out = run
    model = learned(paths, paths.orders[0], 0, out)
    falling = by_method("ga", {"lr": 2e-3, "batch_size": 4, "schedule": "linear"})
    other = falling(model, REFUSED, 6, 0, tmp_path / "falling")
    assert folder_digest(other) != folder_digest(out / "ga" / "no-facts-seed0-6")


def test_simnpo_on_sums_is_the_loss_the_study_names():
    """-(2/beta) log sigmoid(-beta log pi) of whole answers, beta 1, no offset, no length."""
    model = tiny_model("llama", vocab=16, seed=0).double()
    ids = torch.tensor([[1, 4, 5, 6], [1, 7, 8, 0]])
    labels = torch.tensor([[-100, -100, 5, 6], [-100, -100, 8, -100]])
    mask = (ids != 0).long()
    view = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    logp = model(input_ids=ids, attention_mask=mask).logits.log_softmax(-1).detach()
    sums = torch.stack([logp[0, 1, 5] + logp[0, 2, 6], logp[1, 1, 8]])
    expected = float((-2 * torch.sigmoid(-sums).log()).mean())
    given = {"beta": 1.0, "forget_weight": 1.0, "retain_term": "none"}
    found = objective("simnpo", model, {"forget": view}, over="sum", **given)
    assert found.loss == pytest.approx(expected, rel=1e-5)
    assert objective("simnpo", model, {"forget": view}, **given).loss != pytest.approx(expected)
