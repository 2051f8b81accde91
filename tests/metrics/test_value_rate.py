"""Value rate: alias match over samples, and how answers are cut."""

import pytest

from expunge.core.measuring import Measure
from expunge.lm.gather import Gathered, Models
from expunge.metrics import value_rate
from expunge.requests.rows import Row
from expunge.testing.metrics import measure


class Parrot:
    """A model that says what it is told to, and remembers how it was asked."""

    def __init__(self, said):
        self.said, self.asked = said, []

    def ask(self, turns, **settings):
        self.asked.append(([turn.prompt for turn in turns], settings))
        return [self.said[turn.prompt] for turn in turns]


def rows():
    values = {"corrupted": ["Belm"], "correct": ["Arden"], "random": ["Esk"]}
    first = Row(id="b", prompt="one", completion=" Arden", answer="Arden", aliases=("Arden Town",),
                meta={"values": values})  # fmt: skip
    return [first, Row(id="a", prompt="two", completion=" Corra", answer="Corra")]


def read(said, **params):
    gathered = Gathered(Models(model=Parrot(said)), {"facts": rows()})
    return gathered.scores(Measure(metric="value-rate", on="facts", params=params))


def test_every_row_counts_once_whatever_its_samples():
    given = {"sampled": [["Rome"], ["x", "Rome", "Rome", "Rome"]], "values": [["Rome"], ["Rome"]]}
    assert measure("value-rate", given).mean == pytest.approx(0.875)


def test_whole_words_are_looked_for():
    given = {"sampled": [["Romeo"], ["in ROME."]], "values": [["Rome"], ["rome"]]}
    assert measure("value-rate", given).mean == 0.5


def test_answers_end_with_their_line():
    found = read({"one": [" Belm\nWhere? Arden"], "two": ["\nCorra\nBelm"]})
    assert found["sampled"] == {"b": ["Belm"], "a": ["Corra"]}
    assert measure("value-rate", found).mean == 0.5


def test_accepted_forms_are_answer_and_aliases():
    found = read({"one": ["Arden Town"], "two": ["nothing"]})
    assert found["values"] == {"b": ["Arden", "Arden Town"], "a": ["Corra"]}


def test_corrupted_values_are_asked_only_of_rows_that_have_them():
    found = read({"one": ["Belm"], "two": ["Belm"]}, values="corrupted")
    value = measure("value-rate", found)
    assert (value.mean, value.n) == (1.0, 1)


def test_samples_do_not_depend_on_the_order_of_the_rows():
    model = Parrot({"one": ["x"], "two": ["y"]})
    for order in (rows(), rows()[::-1]):
        value_rate.read(
            Models(model=model), {"": order}, value_rate.Params(samples=3, temperature=1.0)
        )
    first, second = model.asked
    assert first == second
    assert (first[1]["samples"], first[1]["temperature"]) == (3, 1.0)
