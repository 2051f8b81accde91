"""What the metrics of representations say of models that know, never knew, and only keep quiet."""

import json

import pytest

from expunge.core.errors import ExpungeError
from expunge.core.measuring import Measure, measured
from expunge.lm.gather import Gathered, Models
from expunge.lm.representations import clouds
from expunge.lm.subject import Subject
from expunge.numbers.geometry import cka
from expunge.testing.micro import hushed, micro_world, misled, taught
from expunge.testing.tiny import tiny_model

IDS = (
    "cka",
    "pca-shift",
    "fisher-overlap",
    "unlearning-depth",
    "lens-erasure",
    "probe-transfer",
)
DEPTHS = ("unlearning-depth", "lens-erasure")
WORLD = micro_world()


class World:
    """The models, and every metric of each."""

    def __init__(self):
        self.original = taught(WORLD, [*WORLD.forget, *WORLD.retain])
        self.reference = taught(WORLD, WORLD.retain)
        self.models = {
            "copy": self.original.copy(),
            "twin": self.reference.copy(),
            "never": taught(WORLD, WORLD.retain, seed=1),
            "quiet": hushed(self.original, WORLD.forget, WORLD.retain),
            "last": misled(self.original, WORLD.forget, WORLD.retain),
        }
        self.found = {}

    def scores(self, metric, model):
        models = Models(model=model, original=self.original, reference=self.reference)
        gathered = Gathered(models, {"forget": WORLD.forget})
        return json.loads(json.dumps(gathered.scores(Measure(metric=metric)), allow_nan=False))

    def value(self, metric, name):
        if (metric, name) not in self.found:
            beside = self.scores(metric, self.reference)
            own = self.scores(metric, self.models[name])
            self.found[metric, name] = measured(metric, own, beside).value
        return self.found[metric, name]


@pytest.fixture(scope="module")
def world():
    return World()


@pytest.mark.parametrize("metric", IDS)
def test_equal_models_give_equal_values(world, metric):
    copy = world.value(metric, "copy")
    if metric == "probe-transfer":
        assert copy.mean == pytest.approx(copy.parts["accuracy"] - copy.parts["reference_accuracy"])
    else:
        assert copy.mean == 0.0
    twin = world.value(metric, "twin")
    expected = {"pca-shift": None, "probe-transfer": 0.0}.get(metric, 1.0)
    if expected is not None:
        assert twin.mean == pytest.approx(expected)


@pytest.mark.parametrize("metric", ["cka", "fisher-overlap", *DEPTHS])
def test_a_model_that_never_knew_is_near_the_reference_and_has_an_interval(world, metric):
    value = world.value(metric, "never")
    assert value.mean > 0.6
    assert value.interval is not None


@pytest.mark.parametrize("metric", ["cka", *DEPTHS])
def test_a_model_that_only_refuses_has_forgotten_little(world, metric):
    assert world.value(metric, "quiet").mean < world.value(metric, "never").mean - 0.3


def test_a_model_whose_last_block_alone_changed_is_the_original_below_it(world):
    last = Models(model=world.models["last"], original=world.original)
    states = clouds(last, WORLD.forget, "value")
    alike = [cka(states["model"][layer], now) for layer, now in states["original"].items()]
    assert alike[:2] == pytest.approx([1.0, 1.0])
    assert alike[2] < 0.99


def test_a_model_whose_last_block_alone_changed_shows_it_nowhere_below(world):
    erasure, depth, lens = (world.value(metric, "last") for metric in ("cka", *DEPTHS))
    assert erasure.per_row["layer-0"] == erasure.per_row["layer-1"] == 0.0
    for value in (depth, lens):
        assert value.parts["layer-0"] == value.parts["layer-1"] == 0.0
        assert value.parts["layer-2"] > 0.5
    assert lens.mean < 0.5
    assert depth.mean < world.value("unlearning-depth", "never").mean - 0.3
    shift = world.value("pca-shift", "last")
    assert shift.per_row["layer-0"] == shift.per_row["layer-1"] == 0.0
    assert shift.per_row["layer-2"] > 0.0


def test_fisher_is_fooled_by_refusals_as_its_page_says(world):
    assert world.value("fisher-overlap", "quiet").mean == pytest.approx(1.0)


@pytest.mark.parametrize("metric", IDS)
def test_the_cut_into_batches_changes_nothing(world, metric):
    own = world.models["quiet"]
    one = Subject(own.model, own.tokenizer, batch_size=1)
    together, apart = world.scores(metric, own), world.scores(metric, one)
    assert together.keys() == apart.keys()
    beside = world.scores(metric, world.reference)
    values = [measured(metric, scores, beside).value for scores in (together, apart)]
    assert values[1].mean == pytest.approx(values[0].mean, abs=1e-4)
    assert values[1].per_row == pytest.approx(values[0].per_row, abs=1e-3)


@pytest.mark.parametrize("metric", [m for m in IDS if m != "probe-transfer"])
def test_without_the_original_nothing_is_read_and_nothing_silent(world, metric):
    gathered = Gathered(Models(model=world.reference), {"forget": WORLD.forget})
    value = measured(metric, gathered.scores(Measure(metric=metric)), {}).value
    assert value.mean is None
    assert value.note.startswith("not measurable")


@pytest.mark.parametrize("metric", ["cka", "pca-shift", *DEPTHS])
def test_models_of_another_shape_are_refused(world, metric):
    small = Subject(tiny_model("llama", vocab=len(WORLD.tokenizer), layers=2), WORLD.tokenizer)
    with pytest.raises(ExpungeError, match="E-USE-006"):
        world.scores(metric, small)
