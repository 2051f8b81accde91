"""The user's own rows: which files, which metrics are asked for, what is said of the rest."""

import json
from dataclasses import replace

import pytest

from expunge.benchmarks import generic
from expunge.core import registry
from expunge.core.errors import ExpungeError
from expunge.data.jsonl import read_rows, write_rows
from expunge.lab.benchmark import Benchmark
from expunge.lm.gather import Models
from expunge.lm.subject import Subject
from expunge.testing.replicas.generic import write
from expunge.testing.tiny import tiny_model, tiny_tokenizer

BENCHMARK = Benchmark.load("generic")
CHEAP = "probability,forget-quality,mia-min-k,privleak,stratum-utility"


def asked(**given):
    return BENCHMARK.params({"new_tokens": 4, **given})


@pytest.fixture
def data(tmp_path):
    write(tmp_path / "own")
    return tmp_path / "own"


def code_of(call):
    with pytest.raises(ExpungeError) as found:
        call()
    return found.value.code


def models(sets):
    texts = [f"{row.prompt}{row.completion}" for rows in sets.values() for row in rows]
    tokenizer = tiny_tokenizer(texts, vocab=320)
    made = [
        Subject(tiny_model("llama", vocab=len(tokenizer), seed=seed), tokenizer) for seed in (0, 1)
    ]
    return Models(model=made[0], original=made[1], reference=made[1])


def values(data, params, *, with_reference=False):
    sets = generic.sets(data, "own", params)
    both = models(sets)
    log = BENCHMARK.evaluate(both, sets, params)
    reference = None
    if with_reference:
        reference = BENCHMARK.evaluate(Models(model=both.reference), sets, params)
    return BENCHMARK.values(log, reference, params=params)


def test_every_metric_it_names_exists():
    named = {measure.metric for measure in generic.measures(asked(metrics="all")).values()}
    assert named <= set(registry.metrics.ids())
    listed = {
        *generic.FORGET, *generic.PRIVACY, *generic.KEPT, *generic.DEARER_FORGET,
        *generic.DEARER_PRIVACY, *generic.DEARER_KEPT, generic.UTILITY,
    }  # fmt: skip
    assert named == listed


def test_the_default_is_part_of_all_and_asks_no_other_model_but_the_reference():
    default, every = (generic.measures(asked(metrics=name)) for name in ("default", "all"))
    assert default.keys() < every.keys()
    assert BENCHMARK.looks_at(asked()) == set()
    assert "original" in BENCHMARK.looks_at(asked(metrics="all"))


def test_metrics_are_chosen_by_name_on_every_set_they_fit():
    named = generic.measures(asked(metrics="probability"))
    assert list(named) == ["forget.probability", "retain.probability", "neighbour.probability"]
    assert named["forget.probability"].direction == "low"
    assert named["retain.probability"].direction == "high"
    both = generic.measures(asked(metrics="default,remind"))
    assert "privacy.remind" in both
    assert "forget.rouge" in both


def test_any_metric_of_the_registry_may_be_named_in_both_spellings():
    named = generic.measures(asked(metrics="mia_zlib,memo"))
    assert {measure.metric for measure in named.values()} == {"mia-zlib", "memo"}
    assert code_of(lambda: generic.measures(asked(metrics="mia-zlob"))) == "E-USE-001"


def test_strata_bring_their_minimum_along():
    for name in ("stratum-utility", "weakest-utility"):
        named = generic.measures(asked(metrics=name))
        assert set(named) == {"retain.stratum-utility", "neighbour.stratum-utility", "utility"}
        assert named["utility"].of == {
            "retain": "retain.stratum-utility",
            "neighbour": "neighbour.stratum-utility",
        }


def test_strata_and_their_minimum_are_measured(data):
    found = values(data, asked(metrics="stratum-utility"))
    strata = found["retain.stratum-utility"].parts
    assert set(strata) == {"utility:direct", "utility:indirect", "utility:general"}
    assert set(found["neighbour.stratum-utility"].parts) == {"utility:neighbour"}
    own = [*strata.values(), *found["neighbour.stratum-utility"].parts.values()]
    assert found["utility"].mean == pytest.approx(min(own))


def test_only_the_forget_rows_must_be_there_and_the_rest_says_why(data):
    for role in ("retain", "neighbour", "holdout"):
        (data / f"{role}.jsonl").unlink()
    assert set(generic.splits(data, "own", asked())) == {"forget"}
    found = values(data, asked(metrics=CHEAP))
    assert found["forget.probability"].mean is not None
    for name, value in found.items():
        if name != "forget.probability":
            assert value.mean is None, name
            assert "not" in value.note, name
    (data / "forget.jsonl").unlink()
    assert code_of(lambda: generic.splits(data, "own", asked())) == "E-DATA-001"


def test_a_reference_and_a_holdout_are_what_privacy_and_quality_need(data):
    alone = values(data, asked(metrics=CHEAP))
    assert alone["privacy.mia-min-k"].mean is not None
    assert alone["privacy.privleak"].mean is None
    assert "reference" in alone["privacy.privleak"].note
    beside = values(data, asked(metrics=CHEAP), with_reference=True)
    assert beside["privacy.privleak"].mean is not None
    assert beside["forget.forget-quality"].mean is not None
    assert beside["privacy.privleak"].against == "reference"


def test_a_row_in_two_files_is_refused(data):
    rows = read_rows(data / "forget.jsonl")
    copied = replace(rows[0], id="elsewhere", role="retain")
    write_rows(data / "retain.jsonl", [*read_rows(data / "retain.jsonl"), copied])
    assert code_of(lambda: generic.sets(data, "own", asked())) == "E-DATA-006"


def test_an_id_in_two_files_is_refused(data):
    """Two rows of one name would lend each other their entity."""
    rows = read_rows(data / "forget.jsonl")
    kept = read_rows(data / "retain.jsonl")
    write_rows(data / "retain.jsonl", [replace(kept[0], id=rows[0].id), *kept[1:]])
    assert code_of(lambda: generic.sets(data, "own", asked())) == "E-DATA-007"


def test_a_broken_line_is_named(data):
    lines = (data / "holdout.jsonl").read_text().splitlines()
    (data / "holdout.jsonl").write_text("\n".join([lines[0], lines[1][:40]]) + "\n")
    with pytest.raises(ExpungeError) as found:
        generic.sets(data, "own", asked())
    assert "holdout.jsonl:2" in found.value.found


def test_a_row_to_keep_cannot_slip_into_the_forget_file(data):
    row = json.loads((data / "retain.jsonl").read_text().splitlines()[0])
    (data / "forget.jsonl").write_text(json.dumps({**row, "role": "retain"}) + "\n")
    assert code_of(lambda: generic.sets(data, "own", asked())) == "E-DATA-003"


def test_fewer_rows_are_the_same_rows_in_whatever_order_the_file_has_them(data):
    rows = read_rows(data / "forget.jsonl")
    more = [replace(row, id=f"{row.id}/2", prompt=f"{row.prompt} Say it.") for row in rows]
    chosen = []
    for order in ([*rows, *more], [*more, *rows][::-1]):
        write_rows(data / "forget.jsonl", order)
        chosen.append([row.id for row in generic.sets(data, "own", asked(rows=20))["forget"]])
    assert len(chosen[0]) == 20
    assert chosen[0] == chosen[1]


def test_no_other_split():
    assert code_of(lambda: generic.references("test")) == "E-USE-001"
