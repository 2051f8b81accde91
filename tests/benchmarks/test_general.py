"""General ability: every format, examples that are not asked, and what is missing."""

import json
from pathlib import Path

import pytest

from expunge.benchmarks import general
from expunge.core.errors import ExpungeError
from expunge.lab.benchmark import Benchmark
from expunge.lm.gather import Models
from expunge.lm.subject import Subject
from expunge.testing.replicas.general import write
from expunge.testing.tiny import tiny_model, tiny_tokenizer

UPSTREAM = Path(__file__).parents[3] / "shared" / "data"
GENERAL = Benchmark.load("general")
PARAMS = general.Params()
BARE = general.Params(shots=0)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("general")
    write(folder)
    return folder


@pytest.fixture
def broken(tmp_path):
    write(tmp_path)
    return tmp_path


def change(path, edit):
    records = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(record) + "\n" for record in edit(records)))


def refused(folder, split="all"):
    with pytest.raises(ExpungeError) as refusal:
        general.sets(folder, split, PARAMS)
    return refusal.value


class TestMmlu:
    def test_unsound_and_doubled_questions_are_left_out(self, data):
        rows = general.sets(data, "mmlu", BARE)["mmlu"]
        assert len(rows) == 12
        assert not any("fog" in row.prompt.split("\n")[2] for row in rows)

    def test_an_index_and_a_letter_are_the_same_answer(self, data, broken):
        def indexed(rows):
            given = {letter: index for index, letter in enumerate("ABCD")}
            return [{**row, "answer": given.get(row["answer"], row["answer"])} for row in rows]

        change(broken / "mmlu" / "slice.jsonl", indexed)
        assert general.sets(broken, "mmlu", BARE) == general.sets(data, "mmlu", BARE)

    def test_examples_come_from_the_same_subject_and_are_not_asked(self, data):
        rows = general.sets(data, "mmlu", general.Params(shots=2))["mmlu"]
        assert len(rows) == 12 - 2 * 2
        for row in rows:
            head, *examples, asked = row.prompt.split("\n\n")
            assert len(examples) == 2
            assert all("\nAnswer: " in example for example in examples)
            kind = "What is it" if "kinds" in head else "What does it do"
            assert all(each.startswith(kind) for each in [*examples, asked])
            assert asked not in " ".join(examples)

    def test_at_most_half_is_shown(self, data):
        rows = general.sets(data, "mmlu", general.Params(shots=50))["mmlu"]
        assert len(rows) == 6

    def test_order_of_the_file_decides_nothing(self, data, broken):
        change(broken / "mmlu" / "slice.jsonl", lambda rows: rows[::-1])
        few = general.Params(rows=5)
        first, second = (general.sets(at, "mmlu", few)["mmlu"] for at in (data, broken))
        assert first == second

    def test_an_answer_beyond_the_choices_is_refused(self, broken):
        change(
            broken / "mmlu" / "slice.jsonl", lambda rows: [{**rows[0], "answer": "E"}, *rows[1:]]
        )
        assert "slice.jsonl, record 1" in refused(broken).found


class TestArc:
    def test_both_formats(self, data):
        rows = general.sets(data, "arc", BARE)["arc"]
        assert len(rows) == 8
        by_first = {row.prompt.split("\n")[0]: row for row in rows}
        plain = by_first["Question: Which one floats?"]
        assert (plain.meta["options"], plain.meta["correct"]) == (["smoke", "cork"], [1])
        labelled = by_first["Question: Which of them is a bark?"]
        assert (labelled.reply, labelled.wrong) == (" cork", (" smoke",))

    def test_a_key_that_labels_no_choice_is_refused(self, broken):
        change(
            broken / "arc" / "science.jsonl",
            lambda rows: [*rows[:-1], {**rows[-1], "answerKey": "9"}],
        )
        assert refused(broken).code == "E-DATA-003"


class TestGsm8k:
    def test_the_result_without_its_calculations(self, data):
        rows = {row.answer: row for row in general.sets(data, "gsm8k", BARE)["gsm8k"]}
        assert rows["1,200"].reply == " There are 1000+200=1,200 beans.\n#### 1,200"

    def test_an_answer_without_result_is_refused(self, broken):
        change(
            broken / "gsm8k" / "test.jsonl", lambda rows: [{**rows[0], "answer": "five"}, *rows[1:]]
        )
        assert "####" in refused(broken).found

    def test_a_second_question_is_cut_off(self):
        cut = general.asking(PARAMS)["gsm8k"].cut
        assert cut(" 5 beans.\n#### 5\n\nQuestion: And 7?") == "5 beans.\n#### 5"


class TestTruthfulQa:
    def test_one_true_answer_or_all_of_them(self, data):
        sets = general.sets(data, "truthfulqa", PARAMS)
        single, several = sets["truthfulqa_mc1"][1], sets["truthfulqa_mc2"][1]
        assert single.meta["correct"] == [0]
        assert several.meta["correct"] == [0, 1]
        assert several.prompt.endswith("\n\nQ: Who moved the hills?\nA:")
        assert several.prompt.count("Q: ") == 7


def test_tests_that_are_not_there_say_so(data):
    values = GENERAL.values({"gsm8k": {"generation": {"a": "so 5"}, "forms": {"a": ["5"]}}})
    assert values["gsm8k"].mean == 1
    assert all("not measurable" in values[name].note for name in values if name != "gsm8k")


def test_a_folder_without_any_test_is_refused(tmp_path, data):
    assert refused(tmp_path).code == "E-DATA-001"
    assert refused(data, "gsm9k").code == "E-USE-001"


def test_there_is_nothing_to_forget(data):
    assert general.splits(data, "all", PARAMS) == {"forget": []}


def test_every_number_has_rows_and_an_interval(data):
    params = general.Params(shots=1, new_tokens=4)
    sets = general.sets(data, "all", params)
    texts = [f"{row.prompt}{row.completion} A B C D" for of in sets.values() for row in of]
    tokenizer = tiny_tokenizer(texts, vocab=400)
    model = Subject(tiny_model("llama", vocab=len(tokenizer), positions=1024), tokenizer)
    values = GENERAL.values(GENERAL.evaluate(Models(model=model), sets, params), params=params)
    for name, value in values.items():
        assert value.n == len(sets[name.replace(".per_token", "").replace(".", "_")]), name
        assert value.interval is not None, name


@pytest.mark.skipif(not (UPSTREAM / "mmlu").is_dir(), reason="the files are not here")
class TestUpstream:
    def test_counts(self):
        sets = general.sets(UPSTREAM, "all", BARE)
        sizes = {name: len(rows) for name, rows in sets.items()}
        assert sizes["arc"] == 998
        assert sizes["gsm8k"] == 300
        assert sizes["truthfulqa_mc1"] == sizes["truthfulqa_mc2"] == 790
        assert sizes["mmlu"] in (1566, 1567)

    def test_a_tiny_model_is_evaluated(self):
        params = general.Params(rows=5, shots=1, new_tokens=4)
        sets = general.sets(UPSTREAM, "all", params)
        texts = [f"{row.prompt}{row.completion} A B C D" for of in sets.values() for row in of]
        tokenizer = tiny_tokenizer(texts, vocab=600)
        model = Subject(tiny_model("llama", vocab=len(tokenizer), positions=4096), tokenizer)
        values = GENERAL.values(GENERAL.evaluate(Models(model=model), sets, params), params=params)
        assert {name: value.n for name, value in values.items()} == dict.fromkeys(values, 5)
