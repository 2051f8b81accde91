"""LUME: its files with their traps, and its numbers down to the single score."""

import json
from pathlib import Path

import pytest

from expunge.benchmarks import lume
from expunge.core.errors import ExpungeError
from expunge.lab.benchmark import Benchmark
from expunge.lm.gather import Models
from expunge.lm.subject import Subject
from expunge.testing.replicas.lume import write
from expunge.testing.tiny import tiny_model, tiny_tokenizer

UPSTREAM = Path(__file__).parents[3] / "shared" / "data" / "lume"
real = pytest.mark.skipif(not UPSTREAM.is_dir(), reason="the upstream files are not here")

BENCHMARK = Benchmark.load("lume")
PARAMS = lume.Params()
TWELVE = {
    f"{task}.{role}.{kind}"
    for task in lume.TASKS
    for role in lume.ROLES
    for kind in ("completion", "question")
}


@pytest.fixture
def data(tmp_path):
    write(tmp_path)
    return tmp_path


def edit(folder, change, name="forget.jsonl"):
    path = folder / name
    records = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(f"{json.dumps(one)}\n" for one in change(records)))


class TestRows:
    def test_ids_with_quotation_marks_are_read_like_those_without(self, data):
        sets = lume.sets(data, "all", PARAMS)
        assert sets.keys() == TWELVE | {"member", "nonmember", "mmlu"}
        assert {name: len(sets[name]) for name in sets if name.startswith("task2.forget")} == {
            "task2.forget.completion": 5,
            "task2.forget.question": 25,
        }
        subjects = {row.subject for row in sets["task1.forget.question"]}
        assert subjects == {f"story-forget-{place}" for place in range(5)}

    def test_a_document_and_its_questions_are_one_entity(self, data):
        sets = lume.sets(data, "all", PARAMS)
        assert {r.subject for r in sets["task2.forget.completion"]} == {
            r.subject for r in sets["task2.forget.question"]
        }

    def test_a_task_alone_has_only_its_rows(self, data):
        roles = lume.splits(data, "task3", PARAMS)
        assert {row.meta["task"] for rows in roles.values() for row in rows} == {"task3"}
        assert {n for n in lume.sets(data, "task3", PARAMS) if "." in n} == {
            name for name in TWELVE if name.startswith("task3")
        }

    def test_the_order_of_the_file_decides_nothing(self, data):
        before = lume.sets(data, "all", lume.Params(rows=2))
        edit(data, lambda records: records[::-1])
        assert lume.sets(data, "all", lume.Params(rows=2)) == before

    @pytest.mark.parametrize(
        ("column", "value"),
        [("task", "Task4"), ("id", "no kind"), ("output", " "), ("input", "")],
    )
    def test_records_that_cannot_be_placed_are_errors_with_their_number(self, data, column, value):
        edit(data, lambda records: [records[0], records[1] | {column: value}, *records[2:]])
        with pytest.raises(ExpungeError, match="record 2") as caught:
            lume.sets(data, "all", PARAMS)
        assert caught.value.code == "E-DATA-003"

    def test_a_record_that_stands_twice_and_a_column_that_is_gone_are_errors(self, data):
        edit(data, lambda records: [*records, records[3]])
        with pytest.raises(ExpungeError) as caught:
            lume.sets(data, "all", PARAMS)
        assert caught.value.code == "E-DATA-007"
        edit(data, lambda records: [{**records[0], "task": None}])
        with pytest.raises(ExpungeError) as caught:
            lume.sets(data, "all", PARAMS)
        assert caught.value.code == "E-DATA-003"

    def test_an_unknown_task_is_an_error(self, data):
        with pytest.raises(ExpungeError) as caught:
            lume.splits(data, "task4", PARAMS)
        assert caught.value.code == "E-USE-001"


def log_of(gone, kept, *, tasks=lume.TASKS):
    """A model that says this share of the rows of each set, word for word."""
    log = {}
    for task in tasks:
        for role, share in (("forget", gone), ("retain", kept)):
            for kind in ("completion", "question"):
                rows = [f"{task}-{role}-{kind}-{n}" for n in range(10)]
                said = {row: "yes" if n < 10 * share else "no" for n, row in enumerate(rows)}
                log[f"{task}.{role}.{kind}"] = {
                    "generation": said,
                    "reply": dict.fromkeys(rows, " Yes"),
                    "subject": {row: row for row in rows},
                }
    return log


def membership(member, fresh):
    of = {"member": member, "nonmember": fresh}
    return {
        name: {"training_logp": {f"{name}-{n}": [-one] for n, one in enumerate(losses)}}
        for name, losses in of.items()
    }


class TestNumbers:
    def test_the_twelve_and_their_harmonic_means(self):
        values = BENCHMARK.values(log_of(0.2, 0.4), params=PARAMS)
        assert values["forget.task1.regurgitation"].mean == pytest.approx(0.2)
        assert values["retain.task3.knowledge"].mean == pytest.approx(0.4)
        expected = 2 / (1 / 0.8 + 1 / 0.4)
        assert values["task2.aggregate"].mean == pytest.approx(expected)
        assert values["task_aggregate"].mean == pytest.approx(expected)
        assert values["task_aggregate"].interval is not None

    def test_a_single_task_has_its_own_aggregate_and_no_other(self):
        values = BENCHMARK.values(log_of(0.2, 0.4, tasks=("task2",)), params=PARAMS)
        assert values["task2.aggregate"].mean is not None
        for name in ("task1.aggregate", "task_aggregate", "score"):
            assert values[name].mean is None
            assert "not measured" in values[name].note

    def test_the_score_needs_all_three_and_is_their_mean(self):
        log = log_of(0.2, 0.4)
        assert BENCHMARK.values(log, params=PARAMS)["score"].mean is None
        log |= membership([1.0, 3.0], [2.0, 4.0])
        log["@mmlu"] = {
            "choice_scores": {f"m{n}": [[0.0, -1.0]] for n in range(4)},
            "choice_correct": {f"m{n}": [int(n == 3)] for n in range(4)},
        }
        values = BENCHMARK.values(log, params=PARAMS)
        assert values["mia"].mean == pytest.approx(0.75)
        assert values["mmlu"].mean == pytest.approx(0.75)
        expected = (values["task_aggregate"].mean + 0.5 + 0.75) / 3
        assert values["score"].mean == pytest.approx(expected)

    def test_the_table_has_the_aggregates_and_the_second_one_the_twelve(self):
        summary = BENCHMARK.summarise(log_of(0.2, 0.4), params=PARAMS)
        assert "task_aggregate" in BENCHMARK.cells(summary)
        assert len(BENCHMARK.details(summary)) == 12


@real
def test_the_upstream_files_have_three_tasks_of_known_size():
    sets = lume.sets(UPSTREAM, "all", PARAMS)
    sizes = {name: len(sets[name]) for name in TWELVE}
    assert sizes["task1.forget.completion"] == sizes["task1.forget.question"] == 243
    assert sizes["task2.retain.completion"] * 5 == sizes["task2.retain.question"] == 1250
    assert sizes["task3.forget.question"] == 373
    roles = lume.splits(UPSTREAM, "all", PARAMS)
    assert {role: len(rows) for role, rows in roles.items()} == {"forget": 2732, "retain": 2734}


@real
def test_a_tiny_model_is_measured_on_the_upstream_files():
    settings = lume.Params(rows=2, new_tokens=4)
    sets = lume.sets(UPSTREAM, "all", settings)
    texts = [f"{row.prompt}{row.completion}" for rows in sets.values() for row in rows]
    tokenizer = tiny_tokenizer(texts, vocab=400)
    model = tiny_model("llama", vocab=len(tokenizer), positions=2048)
    log = BENCHMARK.evaluate(Models(model=Subject(model, tokenizer)), sets, settings)
    values = BENCHMARK.values(log, params=settings)
    assert values["forget.task2.knowledge"].n > 0
    assert all(value.mean is not None or value.note for value in values.values())
