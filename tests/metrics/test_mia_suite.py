"""The membership attacks: each score by hand, and what all of them promise."""

import json
import math
import zlib
from pathlib import Path

import pytest

from expunge.core.bootstrap import Units
from expunge.core.measuring import measured
from expunge.testing.metrics import measure

LOGS = Path(__file__).parents[3] / "shared" / "data"
SUITE = (
    "mia-loss",
    "mia-zlib",
    "mia-lower",
    "mia-min-k",
    "mia-min-k-plus-plus",
    "mia-gradnorm",
    "mia-reference",
    "mia-neighbour",
    "mia-recall",
)
LOGP = [-0.5, -1.5, -4.0]
BY_HAND = {
    "mia-loss": ({"training_logp": LOGP}, 2.0),
    "mia-zlib": (
        {"training_logp": LOGP, "text": "Où?"},
        2.0 / len(zlib.compress("Où?".encode())),
    ),
    "mia-lower": ({"training_logp": LOGP, "lowered_nll": 2.5}, 0.8),
    "mia-min-k": ({"training_logp": LOGP}, 4.0),
    "mia-min-k-plus-plus": ({"standardised_logp": [0.5, -2.0, 1.0, 0.0, -1.0]}, 1.5),
    "mia-gradnorm": ({"grad_norm": 0.7}, 0.7),
    "mia-reference": ({"training_logp": LOGP, "base:training_logp": [-2.0, -3.0, -4.0]}, -1.0),
    "mia-neighbour": ({"training_logp": LOGP, "neighbour_nll": [2.0, 3.0, 4.0]}, -1.0),
    "mia-recall": ({"training_logp": LOGP, "prefixed_logp": [-3.0, -4.0, -5.0]}, -2.0),
}


def both(readings):
    """The same readings for one row to forget and one hold-out row."""
    names = [name.rpartition(":") for name in readings]
    fresh = {f"{who}{colon}holdout.{of}": readings[who + colon + of] for who, colon, of in names}
    return {name: [value] for name, value in {**readings, **fresh}.items()}


@pytest.mark.parametrize("metric_id", SUITE)
def test_score_by_hand(metric_id):
    readings, expected = BY_HAND[metric_id]
    value = measure(metric_id, both(readings))
    assert value.per_row == {"0": pytest.approx(expected, rel=1e-12)}
    assert value.beside["holdout"] == {"0": pytest.approx(expected, rel=1e-12)}
    assert value.mean == 0.5


@pytest.mark.parametrize("metric_id", SUITE)
def test_ready_scores_low_for_members_give_one(metric_id):
    scores = {"score": [0.1, 0.2], "holdout.score": [0.3, 0.4]}
    assert measure(metric_id, scores).mean == 1.0
    turned = {"score": [0.3, 0.4], "holdout.score": [0.1, 0.2]}
    assert measure(metric_id, turned).mean == 0.0


@pytest.mark.parametrize("metric_id", [each for each in SUITE if each != "mia-reference"])
def test_a_reference_of_other_rows_is_allowed_on_request_only(metric_id):
    from expunge.core.errors import ExpungeError

    own = {"score": [0.1, 0.2], "holdout.score": [0.3, 0.4]}
    other = {"score": [0.1], "holdout.score": [0.3, 0.4]}
    with pytest.raises(ExpungeError):
        measure(metric_id, own, reference=other)
    value = measure(metric_id, own, reference=other, allow_unmatched=True)
    assert value.parts["s"] == 1.0


def test_k_decides_how_many_tokens_count():
    scores = both({"training_logp": [-1.0, -2.0, -3.0, -4.0, -10.0]})
    assert measure("mia-min-k", scores, k=0.2).per_row["0"] == 10.0
    assert measure("mia-min-k", scores, k=1.0).per_row["0"] == 4.0


def test_zlib_takes_bytes_and_not_characters():
    plain = measure("mia-zlib", both({"training_logp": LOGP, "text": "aaaa"})).per_row["0"]
    accents = measure("mia-zlib", both({"training_logp": LOGP, "text": "éüßø"})).per_row["0"]
    assert accents < plain


def test_recall_compares_the_same_tokens():
    # Running text without a prefix has nothing to predict its first token from.
    readings = {"training_logp": [-1.0, -1.0], "prefixed_logp": [-50.0, -2.0, -2.0]}
    assert measure("mia-recall", both(readings)).per_row["0"] == -2.0


@pytest.mark.parametrize(
    ("metric_id", "readings"),
    [
        ("mia-recall", {"training_logp": [0.0], "prefixed_logp": [-1.0]}),
        ("mia-lower", {"training_logp": [-1.0], "lowered_nll": 0.0}),
    ],
)
def test_certainty_divides_by_no_zero(metric_id, readings):
    assert math.isfinite(measure(metric_id, both(readings)).per_row["0"])


MODEL = {"training_logp": [[-0.5], [-1.0]], "holdout.training_logp": [[-2.0], [-3.0]]}
RETRAINED = {"training_logp": [[-1.5], [-1.2]], "holdout.training_logp": [[-2.1], [-2.5]]}
BASE = {
    "base:training_logp": [[-2.0], [-1.1]],
    "base:holdout.training_logp": [[-2.2], [-2.4]],
}


class TestReference:
    def test_the_base_model_is_subtracted(self):
        value = measure("mia-reference", MODEL | BASE)
        assert value.per_row == {"0": pytest.approx(-1.5), "1": pytest.approx(-0.1)}
        assert value.beside["holdout"] == {"0": pytest.approx(-0.2), "1": pytest.approx(0.6)}
        assert value.mean == 0.75

    def test_the_retrained_models_own_base_may_be_left_out(self):
        value = measure("mia-reference", MODEL | BASE, reference=RETRAINED)
        assert value.beside["reference"] == {"0": pytest.approx(-0.5), "1": pytest.approx(0.1)}
        assert value.parts["auc_reference"] == 0.75
        assert value.parts["s"] == 1.0

    def test_the_retrained_model_can_take_its_place(self):
        value = measure("mia-reference", MODEL, reference=RETRAINED, against="reference")
        assert value.per_row == {"0": pytest.approx(-1.0), "1": pytest.approx(-0.2)}
        assert value.mean == 1.0
        assert "s" not in value.parts
        assert ".5 is the aim" in value.note

    def test_the_retrained_model_itself_is_at_a_half(self):
        value = measure("mia-reference", RETRAINED, reference=RETRAINED, against="reference")
        assert value.mean == 0.5

    def test_without_the_model_to_compare_with_it_is_not_measurable(self):
        assert "base:training_logp" in measure("mia-reference", MODEL).note
        missing = measure("mia-reference", MODEL, against="reference")
        assert missing.mean is None
        assert "retrained reference" in missing.note


def test_the_interval_is_over_entities_of_both_sides():
    rows = {f"a{n}": 0.1 * n for n in range(12)}
    fresh = {f"h{n}": 0.05 * n + 0.4 for n in range(12)}
    of = {row: row[0] + str(int(row[1:]) // 2) for row in (*rows, *fresh)}
    found = measured(
        "mia-loss",
        {"score": rows, "holdout.score": fresh},
        {"score": rows, "holdout.score": fresh},
        units=Units(of, seed=1),
    ).value
    low, high = found.interval
    assert low < found.mean < high
    assert found.intervals["s"][0] == found.intervals["s"][1] == 1.0
    assert found.units == 6


def published():
    files = sorted((LOGS / "tofu_eval_logs" / "open_unlearning").glob("*/TOFU_EVAL.json"))
    return files + sorted((LOGS / "muse_eval_logs").glob("*/MUSE_EVAL_scores.json"))


@pytest.mark.skipif(not published(), reason="the published logs are not there")
@pytest.mark.parametrize("path", published(), ids=lambda path: path.parent.name)
def test_published_aucs_come_again_from_the_published_scores(path):
    log = json.loads(path.read_text())
    checked = 0
    for name, entry in log.items():
        if name.startswith("mia_") and "forget" in entry:
            forget, holdout = (
                {row: one["score"] for row, one in entry[side]["value_by_index"].items()}
                for side in ("forget", "holdout")
            )
            value = measure(name.replace("_", "-"), {"score": forget, "holdout.score": holdout})
            assert value.mean == pytest.approx(entry["auc"], abs=1e-12)
            checked += 1
    assert checked >= 5
