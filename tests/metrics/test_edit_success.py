"""Edit success: who leads, by how much, and what is read of a real model."""

from math import exp, log

import pytest

from expunge.core.measuring import Measure, measured
from expunge.lm.gather import Gathered, Models
from expunge.lm.subject import Subject
from expunge.requests.rows import Row
from expunge.testing.metrics import measure
from expunge.testing.tiny import tiny_model, tiny_tokenizer


def scores(*pairs):
    return {
        "true_logp": [log(true) for true, _ in pairs],
        "rival_logp": [[log(each) for each in rivals] for _, rivals in pairs],
    }


def test_success_on_rows_to_forget_and_to_keep_are_complements_without_ties():
    given = scores((0.2, [0.5]), (0.6, [0.1]), (0.4, [0.3]))
    forget, keep = (measure("edit-success", given, rows=rows) for rows in ("forget", "keep"))
    assert forget.mean == pytest.approx(1 / 3)
    assert keep.mean == pytest.approx(2 / 3)
    assert forget.parts["difference"] == pytest.approx((0.3 - 0.5 - 0.1) / 3)
    assert keep.parts["difference"] == pytest.approx(-forget.parts["difference"])
    assert forget.parts["true"] == keep.parts["true"] == pytest.approx(0.4)


def test_a_tie_is_half_a_success_for_both():
    given = scores((0.25, [0.25]))
    assert measure("edit-success", given).mean == 0.5
    assert measure("edit-success", given, rows="keep").mean == 0.5


def test_the_likeliest_of_several_rivals_counts():
    assert measure("edit-success", scores((0.3, [0.1, 0.4, 0.2]))).mean == 1.0
    assert measure("edit-success", scores((0.3, [0.1, 0.2]))).mean == 0.0


def test_values_too_improbable_for_a_float_still_have_a_winner():
    given = {"true_logp": [-2000.0], "rival_logp": [[-1000.0]]}
    value = measure("edit-success", given)
    assert (value.mean, value.parts["difference"]) == (1.0, 0.0)


def test_rows_without_a_rival_are_left_out_and_counted():
    value = measure("edit-success", {"true_logp": [-1.0, -1.0], "rival_logp": [[-0.5], []]})
    assert (value.mean, value.n) == (1.0, 1)
    assert "1 of 2 rows" in value.note
    assert measure("edit-success", {"true_logp": [-1.0]}).mean is None


def test_parts_have_intervals_of_their_own():
    given = scores(*((0.1 * k, [0.05 * (10 - k)]) for k in range(1, 9)))
    value = measured("edit-success", given).value
    low, high = value.intervals["difference"]
    assert low < value.parts["difference"] < high


def test_a_real_model_is_read_without_the_end_and_with_every_rival():
    row = Row(
        id="r", prompt="The town of Ada is", completion=" Arden", wrong=(" Belm", " Esk town")
    )
    tokenizer = tiny_tokenizer([f"{row.prompt} Arden Belm Esk town"] * 3, vocab=320)
    model = tiny_model("llama", vocab=len(tokenizer))
    subject = Subject(model, tokenizer)
    gathered = Gathered(Models(model=subject), {"forget": [row]})
    found = gathered.scores(Measure(metric="edit-success"))
    scored = subject.score([row.turn])[0]
    assert found["true_logp"]["r"] == pytest.approx(scored.logp[: scored.text_tokens].mean())
    assert exp(found["true_logp"]["r"]) != pytest.approx(exp(-scored.nll), rel=1e-9)
    assert len(found["rival_logp"]["r"]) == 2


@pytest.mark.parametrize("rows", ["forget", "keep"])
@pytest.mark.parametrize(("true", "rivals"), [(-1.0, [-2.0, float("nan")]), (float("nan"), [-1.0])])
def test_a_probability_that_is_no_number_is_no_defeat(true, rivals, rows):
    given = {"true_logp": [true, -1.0], "rival_logp": [rivals, [-2.0]]}
    value = measure("edit-success", given, rows=rows)
    assert value.mean is None
    assert "not a number" in value.note
