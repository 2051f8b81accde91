"""lm-evaluation-harness: task files read without trust, and numbers with their rows."""

import json
from importlib.util import find_spec

import pytest

from expunge.cli.bench import harness_options
from expunge.core.errors import ExpungeError
from expunge.lab import harness
from expunge.lab.harness import check_harness, run_harness
from expunge.lab.task_files import read_task, task_files
from expunge.testing.tiny import tiny_model, tiny_tokenizer

TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: questions.jsonl}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{text}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 2.0}}
"""
WRITTEN = """
include: bakery.yaml
task: spoken
output_type: generate_until
doc_to_choice: null
doc_to_target: "{{choices[answer]}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 4}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""
QUESTIONS = [
    {"question": f"What is thing {i}?", "choices": ["wax", "tin"], "answer": i % 2}
    for i in range(10)
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tokenizer = tiny_tokenizer([f"{q['question']} Answer: wax tin" for q in QUESTIONS], vocab=300)
    tiny_model("llama", vocab=len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    lines = "".join(json.dumps(question) + "\n" for question in QUESTIONS)
    (folder / "questions.jsonl").write_text(lines)
    text = "{{question}}\\nAnswer:"
    (folder / "bakery.yaml").write_text(TASK.format(name="bakery", text=text))
    (folder / "spoken.yaml").write_text(WRITTEN)
    return folder


def refused(call):
    with pytest.raises(ExpungeError) as refusal:
        call()
    return refusal.value


class TestTaskFiles:
    def test_tasks_by_name(self, data):
        assert set(task_files(data)) == {"bakery", "spoken"}

    def test_files_are_found_beside_the_task(self, data):
        task = read_task(data / "bakery.yaml", data)
        assert task["dataset_kwargs"]["data_files"] == {"test": str(data / "questions.jsonl")}

    def test_an_included_task_is_filled_in(self, data):
        task = read_task(data / "spoken.yaml", data)
        assert (task["task"], task["test_split"]) == ("spoken", "test")
        assert task["dataset_kwargs"]["data_files"] == {"test": str(data / "questions.jsonl")}

    def test_code_is_refused(self, data):
        (data / "evil.yaml").write_text("task: evil\nprocess_docs: !function utils.run\n")
        error = refused(lambda: task_files(data))
        assert (error.code, "evil.yaml" in error.found) == ("E-MODEL-004", True)

    def test_python_objects_are_refused(self, data):
        (data / "evil.yaml").write_text("task: !!python/object/apply:os.system ['true']\n")
        assert refused(lambda: task_files(data)).code == "E-MODEL-004"

    @pytest.mark.parametrize("name", ["../secret.jsonl", "/etc/hostname"])
    def test_files_outside_the_folder_are_refused(self, data, name):
        task = TASK.format(name="out", text="x").replace("questions.jsonl", name)
        (data / "out.yaml").write_text(task)
        assert refused(lambda: read_task(data / "out.yaml", data)).code == "E-PATH-001"

    def test_missing_data_and_broken_files_are_refused(self, data):
        (data / "questions.jsonl").unlink()
        assert refused(lambda: read_task(data / "bakery.yaml", data)).code == "E-DATA-001"
        (data / "bakery.yaml").write_text("task: [")
        assert refused(lambda: task_files(data)).code == "E-DATA-002"


class TestRequest:
    def test_everything_missing_is_said_at_once(self):
        error = refused(lambda: run_harness(None, model=None, out=None))
        assert all(what in str(error) for what in ("lm-eval:TASK", "--model", "--out"))

    def test_parameters_are_checked(self, model, data, tmp_path):
        error = refused(
            lambda: run_harness(
                "bakery", model=model, data=data, out=tmp_path / "out", params={"shot": 1}
            )
        )
        assert error.code == "E-USE-002"

    def test_without_the_extra_it_says_what_to_install(self, model, data, tmp_path, monkeypatch):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        error = refused(lambda: run_harness("bakery", model=model, data=data, out=tmp_path / "out"))
        assert (error.code, "expunge[eval]" in error.next) == ("E-REQ-001", True)
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("option", ["methods", "reference", "logs"])
    def test_options_of_a_benchmark_are_refused(self, option):
        given = {"split": "bakery", "model": "m", "data": None, "out": "o", "params": {}, "seed": 0}
        assert harness_options(given)["tasks"] == "bakery"
        error = refused(lambda: harness_options({**given, option: ["npo"]}))
        assert (error.code, f"--{option}" in error.found) == ("E-USE-006", True)

    def test_check_tells_what_it_needs(self, model, data):
        report = check_harness("bakery", model=model, data=data, out="out")
        assert report.estimate["memory_bytes"] > 0
        assert {problem.code for problem in report.problems} <= {"E-REQ-001"}


@pytest.mark.skipif(find_spec("lm_eval") is None, reason="the extra 'eval' is not installed")
class TestRun:
    def test_numbers_with_their_rows(self, model, data, tmp_path):
        out = tmp_path / "out"
        result = run_harness("bakery,spoken", model=model, data=data, out=out)
        stored = json.loads((out / harness.RESULT).read_text())
        assert stored == {name: value for name, value in result.items() if name != "report"}
        bakery = stored["tasks"]["bakery"]
        accuracy = bakery["values"]["acc,none"]
        assert (bakery["n"], bakery["version"], bakery["shots"]) == (10, 2.0, 0)
        assert len(accuracy["per_row"]) == 10
        assert accuracy["value"] == pytest.approx(sum(accuracy["per_row"].values()) / 10)
        p = accuracy["value"]
        assert accuracy["stderr"] == pytest.approx((p * (1 - p) / 9) ** 0.5)
        assert accuracy["interval"][0] <= p <= accuracy["interval"][1]
        assert stored["tasks"]["spoken"]["values"]["exact_match,none"]["value"] == 0

    def test_rows_and_shots(self, model, data, tmp_path):
        params = {"rows": 4}
        result = run_harness("bakery", model=model, data=data, out=tmp_path / "out", params=params)
        assert result["tasks"]["bakery"]["n"] == 4

    def test_an_unknown_task_is_refused(self, model, data, tmp_path):
        error = refused(lambda: run_harness("bakry", model=model, data=data, out=tmp_path / "out"))
        assert error.code == "E-USE-001"

    def test_templates_reach_nothing_but_the_row(self, model, data, tmp_path):
        text = "{{ ().__class__.__mro__[1].__subclasses__() }}"
        (data / "evil.yaml").write_text(TASK.format(name="evil", text=text))
        error = refused(lambda: run_harness("evil", model=model, data=data, out=tmp_path / "out"))
        assert error.code == "E-MODEL-004"

    def test_a_template_that_does_not_fit_is_refused(self, model, data, tmp_path):
        (data / "odd.yaml").write_text(TASK.format(name="odd", text="{{ no_such_column }}"))
        error = refused(lambda: run_harness("odd", model=model, data=data, out=tmp_path / "out"))
        assert error.code == "E-DATA-003"
