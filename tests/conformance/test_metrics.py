"""Every metric of the registry passes the same suite, on arrival."""

import math

import pytest

from expunge.benchmarks import tofu
from expunge.core import registry
from expunge.core.results import Value
from expunge.core.scores import average
from expunge.lm.gather import gather
from expunge.lm.readings import NAMES, TEXTS
from expunge.lm.subject import Subject
from expunge.testing.metrics import check_metric, measure
from expunge.testing.replicas.tofu import write as write_tofu
from expunge.testing.tiny import tiny_model, tiny_tokenizer


@pytest.mark.parametrize("metric_id", registry.metrics.ids())
def test_metric_conforms(metric_id):
    check_metric(metric_id)


READABLE = [
    metric_id
    for metric_id in registry.metrics.ids()
    if set(registry.metrics.card(metric_id).needs) <= {*NAMES, *TEXTS, "reference"}
]


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """Readings of two real models, row by row and in one padded batch."""
    folder = tmp_path_factory.mktemp("tofu")
    write_tofu(folder)
    rows = tofu.sets(folder, "forget10", tofu.Params())["forget"]
    tokenizer = tiny_tokenizer([f"{row.prompt}{row.completion}" for row in rows], vocab=320)
    made = {}
    for batch_size in (1, len(rows)):
        for seed in (0, 1):
            model = tiny_model("llama", vocab=len(tokenizer), seed=seed)
            subject = Subject(model, tokenizer, batch_size=batch_size)
            made[batch_size, seed] = gather((*NAMES, *TEXTS), subject, rows, 8)
    return made


@pytest.mark.parametrize("metric_id", READABLE)
def test_metric_does_not_depend_on_padding(metric_id, scored):
    one_by_one, padded = (
        measure(metric_id, scored[size, 0], reference=scored[size, 1])
        for size in sorted({size for size, _ in scored})
    )
    assert padded.mean == pytest.approx(one_by_one.mean, abs=1e-5)
    assert padded.per_row == pytest.approx(one_by_one.per_row, abs=1e-5)


def test_measure_is_a_public_function_whatever_was_imported_before():
    import expunge.testing

    for _ in range(2):
        value = expunge.testing.measure("probability", {"nll": [0.0]})
        assert value.mean == 1.0


class TestSuiteFindsDefects:
    """The suite is worth something only if broken metrics do not pass it."""

    @staticmethod
    def check(monkeypatch, compute, metric_id="probability"):
        monkeypatch.setattr(registry.metrics.load(metric_id), "compute", compute)
        with pytest.raises(AssertionError) as found:
            check_metric(metric_id)
        return str(found.value)

    def test_out_of_range(self, monkeypatch):
        found = self.check(
            monkeypatch, lambda scores, params, reference=None: Value(mean=1.5, per_row={})
        )
        assert "is bounded" in found

    def test_dependence_on_order(self, monkeypatch):
        def first_row(scores, params, reference=None):
            row, nll = next(iter(scores.get("nll", {}).items()))
            return Value(mean=math.exp(-nll), per_row={row: math.exp(-nll)})

        assert "ignores order" in self.check(monkeypatch, first_row)

    def test_dependence_on_the_batch(self, monkeypatch):
        def by_largest(scores, params, reference=None):
            largest = max(scores["nll"].values())
            shares = {row: nll / largest for row, nll in scores["nll"].items()}
            return Value(mean=0.5, per_row=shares)

        assert "ignores batches" in self.check(monkeypatch, by_largest)

    def test_wrong_direction(self, monkeypatch):
        def inverted(scores, params, reference=None):
            shares = {row: 1 - math.exp(-nll) for row, nll in scores["nll"].items()}
            return average(shares, scores, "nll")

        assert "has direction" in self.check(monkeypatch, inverted)

    def test_silence_about_a_missing_reading(self, monkeypatch):
        def zero_when_missing(scores, params, reference=None):
            shares = {row: math.exp(-nll) for row, nll in scores.get("nll", {}).items()}
            value = average(shares, scores, "nll")
            return Value(mean=value.mean or 0.0, per_row=value.per_row)

        assert "says missing" in self.check(monkeypatch, zero_when_missing)
