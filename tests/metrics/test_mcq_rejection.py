"""Multiple-choice rejection: what is said, and not where it stands."""

import numpy as np
import pytest

from expunge.core.measuring import Units, measured
from expunge.lm import dialogue
from expunge.lm.gather import Models
from expunge.lm.subject import Subject
from expunge.metrics import mcq_rejection
from expunge.metrics.mcq_rejection import ABSURD, FORMATS, UNKNOWN, Params, names_of, read, written
from expunge.requests.rows import Row
from expunge.testing.metrics import measure
from expunge.testing.tiny import tiny_model, tiny_tokenizer

ROWS = [
    Row(id=f"q{i}", prompt=f"Which is {i}?", completion=" x", meta={"options": list("wxyz")})
    for i in range(200)
]


def chosen(monkeypatch, pick, rows=ROWS, **params):
    """What `read` gives for a model that picks by the options it sees."""
    monkeypatch.setattr(
        dialogue, "picked", lambda subject, prompts, names: list(map(pick, prompts))
    )
    return read(Models(model=None), {"": rows}, Params(**params))


def options_of(prompt):
    lines = prompt.split("Choose one answer from:\n")[1].split("\n\n")[0].split("\n")
    return [line.split(". ", 1)[1] for line in lines]


def test_a_model_that_always_takes_the_last_place_is_at_chance_and_not_honest(monkeypatch):
    value = measure("mcq-rejection", chosen(monkeypatch, lambda prompt: 4))
    assert value.parts["cir"] == pytest.approx(0.2, abs=0.03)
    assert value.mean == 0
    assert value.parts["cir"] == value.parts["cor"]


def test_at_a_fixed_place_the_same_model_looks_honest(monkeypatch):
    value = measure("mcq-rejection", chosen(monkeypatch, lambda prompt: 4, place="last"))
    assert value.parts["cir"] == 1
    assert value.mean == 0


def test_a_model_that_chooses_ignorance_wherever_it_stands_is_honest(monkeypatch):
    def pick(prompt):
        options = options_of(prompt)
        return options.index(UNKNOWN) if UNKNOWN in options else 0

    value = measure("mcq-rejection", chosen(monkeypatch, pick))
    assert value.parts["cir"] == 1
    assert value.parts["std"] == 0
    assert value.mean == pytest.approx(0.8, abs=0.03)


def test_places_do_not_depend_on_the_order_of_the_rows(monkeypatch):
    first = chosen(monkeypatch, lambda prompt: 0, rows=ROWS[:20])
    assert chosen(monkeypatch, lambda prompt: 0, rows=ROWS[:20][::-1]) == first
    assert chosen(monkeypatch, lambda prompt: 0, rows=ROWS[:20], seed=1) != first


def test_both_extra_options_stand_at_the_same_places(monkeypatch):
    def pick(prompt):
        options = options_of(prompt)
        return options.index(UNKNOWN if UNKNOWN in options else ABSURD)

    found = chosen(monkeypatch, pick, rows=ROWS[:20])
    assert found["unknown_choice"] == found["absurd_choice"]
    assert all(
        place == at for ways in found["unknown_choice"].values() for place, at in ways.values()
    )


def test_the_spread_is_that_of_the_rates_over_the_ways():
    take, leave = [1, 1], [1, 0]
    rows = [{"a": take, "b": leave}, {"a": take, "b": take}]
    scores = {"unknown_choice": rows, "absurd_choice": [{"a": leave, "b": leave}] * 2}
    value = measure("mcq-rejection", scores)
    assert value.parts["cir"] == 0.75
    assert value.parts["std"] == pytest.approx(np.std([1.0, 0.5]))
    assert value.parts["cor"] == 0


def test_parts_have_intervals():
    rows = [{"a": [1, i % 2], "b": [1, 1]} for i in range(12)]
    scores = {"unknown_choice": rows, "absurd_choice": [{"a": [1, 0], "b": [1, 0]}] * 12}
    value = measured("mcq-rejection", scores, units=Units({}, 0)).value
    assert value.interval is not None
    assert value.intervals["cir"][0] < value.parts["cir"] < value.intervals["cir"][1]


@pytest.mark.parametrize("way", FORMATS)
def test_every_way_shows_every_option_under_its_own_name(way):
    names = names_of(way, 5)
    text = written(way, "Which?", ["one", "two", "three", "four", "five"])
    assert len(set(names)) == 5
    for name, option in zip(names, ("one", "two", "three", "four", "five"), strict=True):
        assert f"\n{name}. {option}" in text
    assert f"Respond with {', '.join(names)}" in text


def test_the_seven_ways_differ():
    texts = {written(way, "Which?", ["one", "two", "three"]) for way in FORMATS}
    assert len(texts) == len(FORMATS) == 7


def test_rows_without_options_are_absent_and_nothing_else_is_measurable(monkeypatch):
    rows = [Row(id="open", prompt="Where?", completion=" x")]
    value = measure("mcq-rejection", chosen(monkeypatch, lambda prompt: 0, rows=rows))
    assert value.mean is None


def test_a_real_model_chooses_one_of_the_options():
    tokenizer = tiny_tokenizer([written("plain", "Which?", list("wxyz"))], vocab=300)
    subject = Subject(tiny_model("llama", vocab=len(tokenizer)), tokenizer)
    found = mcq_rejection.read(Models(model=subject), {"": ROWS[:2]}, Params())
    assert found["unknown_choice"].keys() == {"q0", "q1"}
    for ways in found["unknown_choice"].values():
        assert ways.keys() == FORMATS.keys()
        assert all(0 <= at < 5 for pair in ways.values() for at in pair)
