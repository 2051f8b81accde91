"""FIT: the quality of a set by hand, and what compares it with a retrained model."""

from math import log

import numpy as np
import pytest
import torch

from expunge.core.bootstrap import Units
from expunge.core.measuring import measured
from expunge.lm.gather import Models
from expunge.lm.subject import Subject
from expunge.metrics import fit_quality
from expunge.requests.rows import Row
from expunge.testing import measure
from expunge.testing.tiny import tiny_model, tiny_tokenizer


def scores(**changed):
    """Two questions and three documents: Prob .3, ROUGE-L F1 .7, Acc .5."""
    given = {
        "token_logp": {"a": [log(0.2), log(0.8)], "b": [log(0.2)]},
        "generation": {"a": "one two", "b": "running far"},
        "reply": {"a": "one two three", "b": "run away"},
        "training_hit": {"x": [1, 1], "y": [0, 0, 0], "z": [1, 0]},
    }
    return given | changed


def test_it_is_the_cube_root_of_three_means():
    value = measure("fit-quality", scores())
    assert value.parts["probability"] == pytest.approx((0.4 + 0.2) / 2)
    # "a": recall 2/3, precision 1 -> .8; "b": stems agree on one of two words -> .5
    assert value.parts["rouge"] == pytest.approx((0.8 + 0.5) / 2)
    assert value.parts["accuracy"] == pytest.approx((1 + 0 + 0.5) / 3)
    assert value.mean == pytest.approx(100 * (0.3 * 0.65 * 0.5) ** (1 / 3))


def test_factors_are_averaged_before_they_are_multiplied():
    per_row = [(0.4 * 0.8), (0.2 * 0.5)]
    assert measure("fit-quality", scores()).mean != pytest.approx(
        100 * np.mean(np.cbrt(np.array(per_row) * 0.5))
    )


def test_one_factor_at_0_makes_it_0():
    silent = scores(generation={"a": "", "b": ""})
    assert measure("fit-quality", silent).mean == 0.0


def test_without_documents_it_is_not_measurable():
    for missing in ("training_hit", "token_logp", "generation", "reply"):
        less = {name: rows for name, rows in scores().items() if name != missing}
        value = measure("fit-quality", less)
        assert value.mean is None
        assert value.note.startswith("not measurable")


def test_it_has_an_interval_over_documents_and_questions_together():
    found = measured("fit-quality", scores(), units=Units({}, seed=3)).value
    assert found.interval is not None
    assert found.interval[0] <= found.mean <= found.interval[1]
    assert set(found.intervals) == {"probability", "rouge", "accuracy"}


class TestRead:
    @pytest.fixture(scope="class")
    def subject(self):
        texts = ["Ada keeps bees at Alder Way.", "Where are the bees?", "At Alder Way."]
        tokenizer = tiny_tokenizer(texts, vocab=300)
        return Subject(tiny_model("llama", vocab=len(tokenizer), seed=1), tokenizer)

    def rows(self):
        return {
            "": [Row(id="q", prompt="Where are the bees?", completion=" At Alder Way.")],
            "documents": [Row(id="d", text="Ada keeps bees at Alder Way.")],
        }

    def test_accuracy_is_over_the_whole_document_and_without_its_end(self, subject):
        params = fit_quality.Params(texts="documents")
        hits = fit_quality.read(Models(model=subject), self.rows(), params)["training_hit"]
        ids = subject.encoder.encode(self.rows()["documents"][0].training).ids
        with torch.no_grad():
            choices = subject.model(torch.tensor([ids])).logits.argmax(-1)[0].tolist()
        end = len(ids) - 1  # the token that ends the text
        assert list(hits["d"]) == [
            choice == true for choice, true in zip(choices[: end - 1], ids[1:end], strict=True)
        ]

    def test_a_set_that_is_not_there_gives_nothing(self, subject):
        params = fit_quality.Params(texts="elsewhere")
        assert fit_quality.read(Models(model=subject), self.rows(), params) == {}


@pytest.mark.parametrize("metric", ["forget-degree", "retain-utility"])
class TestParity:
    @pytest.mark.parametrize(
        ("quality", "expected"), [(30, 0.75), (60, 0.5), (90, 0.0), (40, 1.0), (0, 0.0)]
    )
    def test_too_much_and_too_little_cost_the_same(self, metric, quality, expected):
        parts = {"model": quality, "reference": 40.0}
        assert measure(metric, {"parts": parts}).mean == pytest.approx(expected)

    @pytest.mark.parametrize(
        ("requests", "expected"),
        [(60, 39 / 78), (120, 39 / 66), (180, 39 / 54), (240, 39 / 42), (300, 0.7)],
    )
    def test_between_the_ends_the_target_lies_on_a_line(self, metric, requests, expected):
        parts = {"model": 39.0, "reference": 30.0, "original": 90.0}
        value = measure(metric, {"parts": parts}, requests=requests)
        assert value.mean == pytest.approx(expected)

    def test_a_missing_model_is_named(self, metric):
        value = measure(metric, {"parts": {"model": 1.0, "reference": 1.0}}, requests=60)
        assert value.mean is None
        assert "original" in value.note
