"""PrivLeak: closed form, orientation, and the numbers of published logs."""

import json
from pathlib import Path

import pytest

from expunge.core.errors import ExpungeError
from expunge.testing.metrics import measure

LOGS = Path(__file__).parents[3] / "shared" / "data"
TOFU = LOGS / "tofu_eval_logs" / "open_unlearning"
PAIRS = [
    ("Llama-2-7b-chat-hf_full_evals_forget10", "Llama-2-7b-chat-hf_retain90"),
    ("Llama-3.2-1B-Instruct_full_evals_forget01", "Llama-3.2-1B-Instruct_retain99"),
    ("Llama-3.2-1B-Instruct_full_evals_forget05", "Llama-3.2-1B-Instruct_retain95"),
    ("Llama-3.2-1B-Instruct_full_evals_forget10", "Llama-3.2-1B-Instruct_retain90"),
]


def ready(forget, holdout):
    return {"score": forget, "holdout.score": holdout}


HALF = ready([1.0, 4.0], [2.0, 3.0])


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        (ready([1.0, 2.0], [3.0, 4.0]), -100.0),
        (ready([3.0, 4.0], [1.0, 2.0]), 100.0),
        (HALF, 0.0),
        (ready([1.0, 3.0], [2.0, 4.0]), -50.0),
    ],
)
def test_by_hand_beside_a_reference_at_a_half(scores, expected):
    value = measure("privleak", scores, reference=HALF)
    assert value.mean == pytest.approx(expected, abs=1e-6)
    assert measure("privleak", scores, against="constant").mean == pytest.approx(value.mean)


def test_the_constant_has_the_orientation_of_muse():
    # A of the model is .25; official reference of MUSE news .4772.
    value = measure("privleak", ready([1.0, 3.0], [2.0, 4.0]), against="constant", constant=0.4772)
    assert value.mean == pytest.approx(100 * (0.25 - 0.4772) / 0.4772, abs=1e-6)
    assert value.parts["auc_reference"] == pytest.approx(1 - 0.4772)
    assert "no retrained model" in value.note


def test_the_card_from_rows():
    # 10000 pairs of which 9969 have the hold-out row higher: A = .0031.
    forget = [float(n) for n in range(100)]
    holdout = [1000.0] * 99 + [69 - 0.5]
    value = measure("privleak", ready(forget, holdout), against="constant", constant=0.4772)
    assert value.parts["auc"] == pytest.approx(1 - 0.0031)
    assert value.mean == pytest.approx(-99.350377, abs=1e-6)


def test_a_model_beside_itself_is_at_zero():
    scores = ready([0.3, 1.0, 2.0], [0.5, 1.5, 1.0])
    assert measure("privleak", scores, reference=scores).mean == 0.0


def test_the_score_is_min_k_of_the_text_or_the_standardised_form():
    scores = {
        "training_logp": [[-1.0, -5.0]],
        "holdout.training_logp": [[-2.0, -2.0]],
        "standardised_logp": [[0.0, 0.5]],
        "holdout.standardised_logp": [[-1.0, 2.0]],
    }
    plain = measure("privleak", scores, against="constant")
    assert plain.per_row == {"0": 5.0}
    assert plain.mean == pytest.approx(100.0)
    standardised = measure("privleak", scores, against="constant", score="min-k-plus-plus")
    assert standardised.per_row == {"0": 0.0}
    assert standardised.beside["holdout"] == {"0": 1.0}
    assert standardised.mean == pytest.approx(-100.0)


def test_without_a_reference_it_is_not_measurable():
    value = measure("privleak", HALF)
    assert value.mean is None
    assert "retrained reference" in value.note


def test_a_reference_that_knows_every_row_is_no_measure():
    value = measure("privleak", HALF, reference=ready([1.0, 1.5], [2.0, 3.0]))
    assert value.mean is None
    assert "A_r is 0" in value.note


def test_other_rows_are_refused():
    with pytest.raises(ExpungeError) as refusal:
        measure("privleak", HALF, reference=ready([1.0], [2.0, 3.0]))
    assert refusal.value.code == "E-DATA-013"


def scores_of(log, name="mia_min_k"):
    sides = (log[name][side]["value_by_index"] for side in ("forget", "holdout"))
    return ready(*({row: one["score"] for row, one in side.items()} for side in sides))


def read(path):
    return json.loads(path.read_text())


@pytest.mark.skipif(not TOFU.is_dir(), reason="the published logs are not there")
@pytest.mark.parametrize(("model", "retrained"), PAIRS)
def test_published_tofu_numbers(model, retrained):
    own, reference = (read(TOFU / name / "TOFU_EVAL.json") for name in (model, retrained))
    published = own["privleak"]["agg_value"]
    value = measure("privleak", scores_of(own), reference=scores_of(reference))
    assert value.mean == pytest.approx(published, rel=1e-9)


@pytest.mark.skipif(not TOFU.is_dir(), reason="the published logs are not there")
@pytest.mark.parametrize("retrained", sorted({name for _, name in PAIRS}))
def test_published_numbers_of_retrained_models_use_the_constant(retrained):
    log = read(TOFU / retrained / "TOFU_EVAL.json")
    value = measure("privleak", scores_of(log), against="constant")
    assert value.mean == pytest.approx(log["privleak"]["agg_value"], rel=1e-9)


@pytest.mark.skipif(not (LOGS / "muse_eval_logs").is_dir(), reason="the logs are not there")
def test_published_muse_numbers():
    target, retrained = (
        read(LOGS / "muse_eval_logs" / f"Llama-2-7b-hf_Books_{name}" / "MUSE_EVAL_scores.json")
        for name in ("target", "retrain")
    )
    value = measure("privleak", scores_of(target), reference=scores_of(retrained))
    assert value.mean == pytest.approx(target["privleak"]["agg_value"], rel=1e-9)
    alone = measure("privleak", scores_of(retrained), against="constant")
    assert alone.mean == pytest.approx(retrained["privleak"]["agg_value"], rel=1e-9)
