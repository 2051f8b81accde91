"""CounterFact: the traps of its file, and what a model that knows, forgets or breaks gets."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from expunge.benchmarks import counterfact
from expunge.core.errors import ExpungeError
from expunge.lab.benchmark import Benchmark
from expunge.lm.finetune import finetune
from expunge.lm.gather import Models
from expunge.lm.subject import Subject
from expunge.requests.rows import check_roles
from expunge.testing import replicas
from expunge.testing.tiny import tiny_model, tiny_tokenizer

UPSTREAM = Path(__file__).parents[3] / "shared" / "data" / "counterfact"
PARAMS = counterfact.Params(facts=10)
FILE = "counterfact_replica.json"


@pytest.fixture
def data(tmp_path):
    replicas.write("counterfact", tmp_path)
    return tmp_path


def change(data, edit):
    path = data / FILE
    path.write_text(json.dumps(edit(json.loads(path.read_text()))))


def refused(data):
    with pytest.raises(ExpungeError) as refusal:
        counterfact.sets(data, "facts", PARAMS)
    return refusal.value


def ids(rows):
    return [row.id for row in rows]


def test_the_true_value_is_to_be_forgotten_and_the_new_one_only_compared(data):
    row = counterfact.sets(data, "facts", PARAMS)["forget"][0]
    assert row.completion.startswith(" ")
    assert row.completion.strip() == row.answer
    assert len(row.wrong) == 1
    assert row.wrong[0] != row.completion
    assert row.subject in row.prompt


def test_methods_see_no_rival(data):
    roles = counterfact.splits(data, "facts", PARAMS)
    assert set(roles) == {"forget", "retain", "neighbour"}
    assert not any(row.wrong for rows in roles.values() for row in rows)
    assert not check_roles(**roles)


def test_neighbours_never_speak_of_a_subject_to_be_forgotten(data):
    sets = counterfact.sets(data, "facts", PARAMS)
    hidden = {row.subject for row in sets["forget"]}
    assert sets["neighbour"]
    assert not any(subject in row.prompt for row in sets["neighbour"] for subject in hidden)
    # Two prompts about kin; the third names the subject, the fourth repeats the first.
    assert len(sets["neighbour"]) == 2 * len(sets["forget"])


def test_attribute_prompts_have_the_rival_as_their_truth(data):
    sets = counterfact.sets(data, "facts", PARAMS)
    rivals = {row.wrong[0] for row in sets["forget"]}
    assert {row.completion for row in sets["attribute"]} <= rivals


def test_prompts_that_repeat_count_once(data):
    sets = counterfact.sets(data, "facts", PARAMS)
    # Three generation prompts a fact, two of them the same.
    assert len(sets["generation"]) == 2 * len(sets["forget"])


def test_free_text_is_not_asked_for_where_the_prompt_tells_the_value(data):
    def told(records):
        for record in records:
            value = record["requested_rewrite"]["target_true"]["str"]
            record["generation_prompts"][0] = f"They say {value.upper()} and"
        return records

    change(data, told)
    sets = counterfact.sets(data, "facts", PARAMS)
    assert len(sets["generation"]) == 2 * len(sets["forget"])
    assert not any(row.prompt.startswith("They say") for row in sets["generation"])


def test_the_order_of_the_file_and_case_numbers_decide_nothing(data):
    before = counterfact.sets(data, "facts", PARAMS)
    change(data, lambda records: [{**r, "case_id": 9 - i} for i, r in enumerate(records[::-1])])
    after = counterfact.sets(data, "facts", PARAMS)
    assert {name: ids(rows) for name, rows in before.items()} == {
        name: ids(rows) for name, rows in after.items()
    }


def test_the_same_value_of_the_same_subject_is_not_kept(data):
    def twin(records):
        chosen = {row.prompt for row in counterfact.splits(data, "facts", PARAMS)["forget"]}
        first = next(
            r["requested_rewrite"] for r in records
            if r["requested_rewrite"]["prompt"].format(r["requested_rewrite"]["subject"]) in chosen
        )  # fmt: skip
        again = {**records[0], "requested_rewrite": {**first, "prompt": "{} says"}}
        return [*records, again]

    forgotten = {(r.subject, r.answer) for r in counterfact.splits(data, "facts", PARAMS)["forget"]}
    change(data, twin)
    roles = counterfact.splits(data, "facts", PARAMS)
    gone = {(row.subject, row.answer) for row in roles["forget"]}
    assert gone & forgotten
    assert not gone & {(row.subject, row.answer) for row in roles["retain"]}


def test_other_rows_than_those_of_a_known_sample_work(data):
    change(data, lambda records: records[7:10])
    sets = counterfact.sets(data, "facts", PARAMS)
    assert len(sets["forget"]) == 1
    assert len(sets["retain"]) == 2


@pytest.mark.parametrize(
    "broken",
    [
        {"prompt": "no place for a name"},
        {"prompt": "{} and {}"},
        {"target_true": {"id": "Q1"}},
        {"target_new": "plain"},
        {"subject": " "},
    ],
)
def test_a_record_without_a_whole_fact_is_named(data, broken):
    def edit(records):
        records[3]["requested_rewrite"] |= broken
        return records

    change(data, edit)
    error = refused(data)
    assert error.code == "E-DATA-003"
    assert "record 4" in str(error)


def test_a_fact_that_stands_twice_is_refused(data):
    change(data, lambda records: [*records, records[0]])
    assert refused(data).code == "E-DATA-007"


def test_missing_columns_several_files_and_none_are_told_apart(data):
    (data / "counterfact_other.json").write_text("[]")
    assert refused(data).code == "E-DATA-014"
    (data / "counterfact_other.json").unlink()
    change(data, lambda records: [{"case_id": 1}])
    assert refused(data).code == "E-DATA-003"
    (data / FILE).unlink()
    assert refused(data).code == "E-DATA-001"
    with pytest.raises(ExpungeError, match="E-USE-001"):
        counterfact.splits(data, "all", PARAMS)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Values of a model that knows all, and of one that was taught the rivals of what it forgot."""
    data = tmp_path_factory.mktemp("counterfact")
    replicas.write("counterfact", data)
    sets = counterfact.sets(data, "facts", PARAMS)
    every = [row for rows in sets.values() for row in rows]
    texts = [f"{row.prompt}{row.completion} {' '.join(row.wrong)}" for row in every]
    tokenizer = tiny_tokenizer(texts, kind="word", vocab=1024)
    model = tiny_model("llama", vocab=len(tokenizer), hidden=64, seed=0, positions=64)
    benchmark = Benchmark.load("counterfact")
    params = benchmark.params({"facts": 10, "new_tokens": 6})

    def values():
        subject = Subject(model, tokenizer)
        log = benchmark.evaluate(Models(model=subject), sets, params)
        return benchmark.values(log, params=params)

    settings = {"lr": 4e-3, "batch_size": 32, "seed": 0}
    finetune(model, tokenizer, every, epochs=30, **settings)
    before = values()
    gone = [
        replace(r, completion=r.wrong[0], answer=None) for r in sets["forget"] + sets["paraphrase"]
    ]
    finetune(
        model, tokenizer, [*gone, *sets["neighbour"], *sets["attribute"]], epochs=20, **settings
    )
    return before, values()


def test_a_model_that_knows_the_facts_has_no_efficacy_and_full_specificity(told):
    before, _ = told
    assert before["efficacy"].mean == pytest.approx(0.0, abs=0.15)
    assert before["generality"].mean == pytest.approx(0.0, abs=0.15)
    assert before["specificity"].mean == pytest.approx(1.0, abs=0.15)
    assert before["retain"].mean > 0.7


def test_a_model_that_was_taught_rivals_has_both(told):
    _, after = told
    assert after["efficacy"].mean > 0.8
    assert after["generality"].mean > 0.8
    assert after["specificity"].mean > 0.8
    parts = [after[name].mean for name in ("efficacy", "generality", "specificity")]
    assert after["score"].mean == pytest.approx(3 / sum(1 / part for part in parts))


def test_intervals_are_over_subjects(told):
    before, _ = told
    assert before["specificity"].units == 5
    assert before["specificity"].n == 20


@pytest.mark.skipif(not UPSTREAM.is_dir(), reason="the upstream files are not here")
def test_upstream_rows():
    sets = counterfact.sets(UPSTREAM, "facts", counterfact.Params(facts=350))
    roles = counterfact.splits(UPSTREAM, "facts", counterfact.Params(facts=350))
    assert len(sets["forget"]) == 350
    assert len(sets["paraphrase"]) == 700
    assert not check_roles(**roles)
    hidden = {}
    for row in sets["forget"]:
        hidden.setdefault(row.answer, set()).add(row.subject)
    for row in sets["neighbour"]:
        assert not any(subject in row.prompt for subject in hidden.get(row.answer, ()))
