"""Mem, Priv, Util and Agg: printed rows, hand-made rows, and what is not measurable."""

import json
from pathlib import Path

import pytest

from expunge.testing.metrics import measure

LOGS = Path(__file__).parents[3] / "shared" / "data" / "tofu_eval_logs" / "open_unlearning"
MEMORY = ("extraction_strength", "exact_memorisation", "paraphrase_probability", "truth_ratio")
ATTACKS = ("loss", "zlib", "min_k", "min_k_plus_plus")


def score(metric_id, parts, **params):
    return measure(metric_id, {"parts": parts}, **params)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((0.32, 0.63, 1.00), 0.5252),
        ((0.47, 0.50, 0.61), 0.5202),
        ((0.27, 0.48, 0.78), 0.4244),
        ((1.0, 1.0, 1.0), 1.0),
        ((0.5, 0.25, 1.0), 3 / 7),
    ],
)
def test_agg_of_printed_rows(parts, expected):
    named = dict(zip(("memorisation", "privacy", "utility"), parts, strict=True))
    assert score("unlearning-score", named).mean == pytest.approx(expected, abs=5e-5)


def test_agg_without_a_retrained_model():
    parts = {"memorisation": 0.97, "utility": 0.79}
    value = score("unlearning-score", parts, privacy=False)
    assert value.mean == pytest.approx(0.8708, abs=5e-5)
    assert value.note == "privacy is left out"
    assert score("unlearning-score", parts).note == "not measurable: privacy was not measured"


def test_agg_is_zero_where_a_part_is():
    value = score("unlearning-score", {"memorisation": 0.0, "privacy": 0.9, "utility": 1.0})
    assert value.mean == 0
    assert "memorisation" in value.note


def test_mem_by_hand():
    value = score("memorisation-score", dict(zip(MEMORY, (0.5, 0.75, 0.0, 0.5), strict=True)))
    assert value.mean == pytest.approx(4 / (2 + 4 + 1 + 2))
    assert value.parts["exact_memorisation"] == 0.25


def test_mem_falls_when_anything_is_remembered():
    forgotten = dict.fromkeys(MEMORY, 0.1)
    for name in MEMORY:
        remembered = score("memorisation-score", {**forgotten, name: 0.9}).mean
        assert remembered < score("memorisation-score", forgotten).mean
        assert score("memorisation-score", {**forgotten, name: 1.0}).mean == 0


@pytest.mark.parametrize("missing", MEMORY)
def test_mem_names_what_is_missing(missing):
    parts = {**dict.fromkeys(MEMORY, 0.1), missing: None}
    assert score("memorisation-score", parts).note == f"not measurable: {missing} was not measured"


def aucs(own, reference):
    return {
        **dict(zip(ATTACKS, own, strict=True)),
        **{f"reference_{n}": r for n, r in zip(ATTACKS, reference, strict=True)},
    }


def test_priv_by_hand_in_each_variant():
    parts = aucs((0.9, 0.6, 0.6, 0.6), (0.6, 0.6, 0.6, 0.6))
    assert score("privacy-score", parts).mean == pytest.approx(4 / (1 / 0.5 + 3))
    ratio = score("privacy-score", parts, closeness="ratio")
    assert ratio.mean == pytest.approx(4 / (0.9 / 0.6 + 3))
    assert ratio.note == "s: ratio"
    relative = score("privacy-score", aucs((1.0,) * 4, (0.8,) * 4), closeness="relative")
    assert relative.mean == pytest.approx(0.75)


def test_priv_blames_overshooting_as_much_as_undershooting():
    under, over = aucs((1.0,) * 4, (0.5,) * 4), aucs((0.0,) * 4, (0.5,) * 4)
    assert score("privacy-score", under).mean == score("privacy-score", over).mean == 0


def test_priv_needs_the_reference_of_every_attack():
    parts = aucs((0.9,) * 4, (0.6, 0.6, 0.6, None))
    assert "reference_min_k_plus_plus" in score("privacy-score", parts).note


@pytest.mark.skipif(not LOGS.is_dir(), reason="the published logs are not there")
def test_priv_of_a_published_fine_tuned_model():
    model, retrained = (
        json.loads((LOGS / f"Llama-3.2-1B-Instruct_{name}" / "TOFU_EVAL.json").read_text())
        for name in ("full_evals_forget10", "retain90")
    )
    own, reference = ([log[f"mia_{n}"]["auc"] for n in ATTACKS] for log in (model, retrained))
    value = score("privacy-score", aucs(own, reference), closeness="ratio")
    assert value.mean == pytest.approx(0.381, abs=5e-4)


def test_util_is_relative_to_the_original_model():
    parts = {"model_utility": 0.3, "fluency": 0.8}
    original = {"original_model_utility": 0.6, "original_fluency": 1.0}
    assert score("utility-score", parts | original).mean == pytest.approx(2 / (2 + 1.25))
    alone = score("utility-score", parts, relative=False)
    assert alone.mean == pytest.approx(2 / (1 / 0.3 + 1 / 0.8))
    assert "original_model_utility" in score("utility-score", parts).note


def test_util_beside_an_original_that_could_do_nothing_is_not_measurable():
    parts = {"model_utility": 0.3, "fluency": 0.8, "original_fluency": 1.0}
    value = score("utility-score", parts | {"original_model_utility": 0.0})
    assert value.note == (
        "not measurable: original_model_utility is 0: there is nothing to compare with"
    )
