"""Gathering what metrics need: from several models, of several sets, each thing once."""

import pytest

from expunge.core import registry
from expunge.core.errors import ExpungeError
from expunge.core.measuring import Measure
from expunge.lm.gather import Gathered, Models, Need, gather, need
from expunge.lm.readings import Asking
from expunge.lm.subject import Subject
from expunge.requests.rows import Row
from expunge.testing.tiny import tiny_model, tiny_tokenizer

ROWS = [
    Row(id=f"r{i}", prompt=f"Where does man {i} live?", completion=f" Town {i}") for i in range(4)
]
OTHERS = [Row(id=f"h{i}", text=f"Man {i} was never here at all") for i in range(3)]


class Counting(Subject):
    """A subject that remembers what it was asked for."""

    def __init__(self, seed):
        tokenizer = tiny_tokenizer([f"{row.prompt}{row.completion}" for row in ROWS], vocab=300)
        super().__init__(tiny_model("llama", vocab=len(tokenizer), seed=seed), tokenizer)
        self.scored = 0

    def score(self, turns, keep=None):
        self.scored += len(turns)
        return super().score(turns, keep)


@pytest.fixture
def gathered():
    models = Models(model=Counting(0), original=Counting(1))
    return Gathered(models, {"forget": ROWS, "holdout": OTHERS})


@pytest.fixture
def needing(monkeypatch):
    """Pretends that a metric needs other things."""

    def pretend(*needs):
        card = registry.metrics.card("exact-memorisation")
        monkeypatch.setattr(
            registry.metrics, "card", lambda name: type(card)(**{**fields(card), "needs": needs})
        )

    return pretend


def fields(card):
    return {name: getattr(card, name) for name in card.__slots__}


def test_needs_are_taken_apart():
    assert need("nll") == Need("model", "", "nll")
    assert need("holdout.nll") == Need("model", "holdout", "nll")
    assert need("base:nll") == Need("base", "", "nll")
    assert need("original:holdout.nll") == Need("original", "holdout", "nll")


def test_each_reading_is_of_its_model_and_its_rows(gathered, needing):
    needing("nll", "holdout.training_logp", "original:nll")
    scores = gathered.scores(Measure(metric="exact-memorisation"))
    assert list(scores["nll"]) == [row.id for row in ROWS]
    assert list(scores["holdout.training_logp"]) == [row.id for row in OTHERS]
    assert scores["nll"] != scores["original:nll"]
    assert scores["nll"] == gather(["nll"], gathered.models.model, ROWS, 8)["nll"]


def test_a_role_may_be_played_by_another_set(gathered, needing):
    needing("holdout.nll")
    played = gathered.scores(Measure(metric="exact-memorisation", beside={"holdout": "forget"}))
    assert list(played["holdout.nll"]) == [row.id for row in ROWS]


def test_what_is_not_given_is_absent_and_the_metric_says_so(gathered, needing):
    needing("nll", "base:nll", "neighbour.nll")
    assert list(gathered.scores(Measure(metric="exact-memorisation"))) == ["nll"]


def test_a_reading_is_made_once_however_many_want_it(gathered):
    for metric in ("probability", "exact-memorisation", "extraction-strength"):
        gathered.scores(Measure(metric=metric))
    assert gathered.models.model.scored == len(ROWS)


def test_all_of_a_text_is_what_was_trained_on(gathered):
    made = gather(["training_logp", "token_logp"], gathered.models.model, OTHERS, 8)
    assert all(len(made["training_logp"][r.id]) > len(made["token_logp"][r.id]) for r in OTHERS)


def test_what_is_needed_may_depend_on_the_parameters(gathered):
    plain, options = (
        Measure(metric="probability", params={"among": among}) for among in ("plain", "options")
    )
    assert plain.needs == ("nll",)
    assert options.needs == ("nll", "wrong_nll")
    assert list(gathered.scores(options)) == ["nll", "wrong_nll"]


def test_scores_that_are_no_numbers_stop_the_measurement(gathered):
    for parameter in gathered.models.model.model.parameters():
        parameter.data.fill_(float("nan"))
    with pytest.raises(ExpungeError) as refusal:
        gathered.scores(Measure(metric="probability"))
    assert refusal.value.code == "E-RUN-002"


class TestAsking:
    def test_answers_end_at_the_first_stop(self):
        asking = Asking(until=("\n\n", "Question:"), empty="NOANSWER")
        assert asking.cut(" Rome \n\nQuestion: x") == "Rome"
        assert asking.cut("Rome Question: x\n\n") == "Rome"
        assert asking.cut(" Rome ") == " Rome "

    def test_an_empty_answer_has_a_word(self):
        asking = Asking(until=("\n\n",), empty="NOANSWER")
        assert asking.cut(" \n\nmore") == "NOANSWER"
        assert asking.cut("") == "NOANSWER"
        assert Asking().cut("") == ""

    def test_a_row_may_have_an_opening_of_its_own(self):
        rows = [
            Row(id="a", prompt="p", completion="c"),
            Row(id="b", prompt="p", completion="c", meta={"opening": ""}),
        ]
        assert Asking(opening="Answer:").openings(rows) == ["Answer:", ""]
