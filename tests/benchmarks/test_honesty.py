"""Honesty: the files, the sets, and what each of them is asked."""

import json
from pathlib import Path

import pytest

from expunge.benchmarks import honesty
from expunge.benchmarks.honesty import HINT, Params
from expunge.core.errors import ExpungeError
from expunge.lab.benchmark import Benchmark
from expunge.lm.gather import Models
from expunge.lm.subject import Subject
from expunge.testing.replicas.honesty import write
from expunge.testing.tiny import tiny_model, tiny_tokenizer

UPSTREAM = Path(__file__).parents[3] / "shared" / "data" / "wmdp_cyber"


@pytest.fixture
def data(tmp_path):
    write(tmp_path)
    return tmp_path


def evaluated(sets, params, positions=512):
    texts = [f"{row.prompt}{row.completion}" for rows in sets.values() for row in rows]
    tokenizer = tiny_tokenizer(texts, vocab=400)
    models = [
        Subject(
            tiny_model("llama", vocab=len(tokenizer), seed=seed, positions=positions), tokenizer
        )
        for seed in (0, 1)
    ]
    log = Benchmark.load("honesty").evaluate(
        Models(model=models[0], original=models[1]), sets, params
    )
    return json.loads(json.dumps(log))


def test_the_same_questions_are_asked_openly_after_a_hint_and_with_options(data):
    sets = honesty.sets(data, "bio", Params())
    forget = {row.prompt: row for row in sets["forget"]}
    assert len(forget) == 20
    assert {row.prompt for row in sets["hinted"]} == {HINT + prompt for prompt in forget}
    for row in sets["choices"]:
        own = forget[row.prompt]
        assert row.meta["options"][row.meta["correct"][0]] == own.answer
        assert not own.meta


def test_known_questions_have_every_accepted_answer(data):
    known = honesty.sets(data, "bio", Params())["known"]
    assert sorted(row.forms for row in known) == [("7", "seven"), ("white",)]


def test_examples_without_reasoning_are_made_from_those_with_it(data):
    row = honesty.sets(data, "bio", Params())["reasoning"][0]
    examples = row.meta["examples"]
    assert "step by step" in examples["reasoned"]
    assert "step by step" not in examples["direct"]
    assert examples["direct"].endswith("The best answer is: (B).\n\n###\n\n")
    assert examples["direct_misled"].endswith("The best answer is: (A).\n\n###\n\n")


def test_questions_whose_answer_is_a_are_not_asked(data):
    rows = honesty.sets(data, "bio", Params())["reasoning"]
    assert len(rows) == 2
    assert all(row.meta["correct"] == 1 for row in rows)


def test_the_order_of_the_file_changes_nothing(data):
    before = honesty.sets(data, "bio", Params(rows=5))
    path = data / "bio_questions.json"
    path.write_text(json.dumps(json.loads(path.read_text())[::-1]))
    assert honesty.sets(data, "bio", Params(rows=5)) == before


def test_only_the_questions_to_forget_must_be_there(tmp_path):
    write(tmp_path / "whole")
    (tmp_path / "bio_questions.json").write_bytes(
        (tmp_path / "whole" / "bio_questions.json").read_bytes()
    )
    sets = honesty.sets(tmp_path, "bio", Params())
    assert sets.keys() == {"forget", "hinted", "choices"}
    assert honesty.splits(tmp_path, "bio", Params()).keys() == {"forget"}
    params = Params(new_tokens=4, rows=3)
    values = Benchmark.load("honesty").values(
        evaluated(honesty.sets(tmp_path, "bio", params), params), params=params
    )
    assert values["choices.rejection"].mean is not None
    for name in ("known.answers", "commonsense.agreement", "reasoning.robustness"):
        assert values[name].mean is None
        assert "not measurable" in values[name].note


def test_an_answer_that_is_none_of_the_choices_is_refused(data):
    path = data / "bio_questions.json"
    path.write_text(json.dumps([{"question": "Q", "choices": ["a", "b"], "answer": 2}]))
    with pytest.raises(ExpungeError, match="E-DATA-003"):
        honesty.sets(data, "bio", Params())


def test_worked_examples_that_are_missing_are_refused(data):
    (data / "bbh" / "hedges" / "few_shot_prompts.json").write_text('{"x": 1}')
    with pytest.raises(ExpungeError, match="few_shot_prompt"):
        honesty.sets(data, "bio", Params())


def test_an_unknown_split_is_refused(data):
    with pytest.raises(ExpungeError, match="E-USE-001"):
        honesty.sets(data, "biology", Params())


def test_what_was_said_is_stored_so_that_it_can_be_judged_again(data):
    params = Params(new_tokens=4)
    log = evaluated(honesty.sets(data, "bio", params), params)
    assert all(isinstance(said, str) for said in log["@forget.stability"]["first_answer"].values())
    log["@forget.stability"]["first_answer"] = dict.fromkeys(
        log["@forget.stability"]["first_answer"], "I do not know."
    )
    log["@forget.stability"]["later_answers"] = {
        row: ["Yes." if number % 2 else "No."]
        for number, row in enumerate(log["@forget.stability"]["later_answers"])
    }
    value = Benchmark.load("honesty").values(log, params=params)["forget.stability"]
    assert value.mean == 0.5
    assert value.parts["rejection_rate"] == 1


@pytest.mark.skipif(not UPSTREAM.is_dir(), reason="the upstream files are not there")
def test_a_tiny_model_is_measured_on_the_upstream_questions():
    params = Params(rows=3, new_tokens=4)
    sets = honesty.sets(UPSTREAM, "cyber", params)
    whole = honesty.sets(UPSTREAM, "cyber", Params(rows=5000))["forget"]
    assert len(whole) > 500
    log = evaluated(sets, params, positions=8192)
    benchmark = Benchmark.load("honesty")
    summary = benchmark.summarise(log, None, log, params=params)
    assert summary["values"]["choices.rejection"]["n"] == 3
    cells = benchmark.cells(summary)
    assert 0 <= cells["CIR"] <= 1
    assert cells["MRS"] is None
