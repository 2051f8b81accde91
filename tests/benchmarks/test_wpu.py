"""WPU: people to forget, people beside them, and a judge that may or may not be there."""

import json
import random
from pathlib import Path

import pytest

from expunge.benchmarks import wpu
from expunge.benchmarks.wpu import Params
from expunge.core.errors import ExpungeError
from expunge.lab.benchmark import Benchmark
from expunge.lm.gather import Models
from expunge.lm.subject import Subject
from expunge.testing.replicas.wpu import write
from expunge.testing.tiny import tiny_model, tiny_tokenizer

UPSTREAM = Path(__file__).parents[3] / "shared" / "data" / "wpu"
SPLIT = "forget_100"


@pytest.fixture
def data(tmp_path):
    write(tmp_path)
    return tmp_path


def answers(rows, *said):
    """Row id -> what a model said: the given texts in turn."""
    return {row.id: said[i % len(said)] for i, row in enumerate(rows)}


def test_each_question_stands_once_and_each_person_is_an_entity(data):
    forget = wpu.sets(data, SPLIT, Params())["forget"]
    assert len(forget) == 20
    assert len({row.subject for row in forget}) == 5
    assert len({row.id for row in forget}) == 20


def test_methods_see_the_people_beside_as_neighbours_and_others_as_retain(data):
    roles = wpu.splits(data, SPLIT, Params())
    assert {role: len(rows) for role, rows in roles.items()} == {
        "forget": 20,
        "neighbour": 5,
        "retain": 2,
    }
    assert all(row.role == role for role, rows in roles.items() for row in rows)


def test_shuffled_files_give_the_same_rows(data):
    before = wpu.sets(data, SPLIT, Params(rows=7))
    path = data / f"{SPLIT}.jsonl"
    lines = path.read_text().splitlines()
    random.Random(1).shuffle(lines)
    path.write_text("\n".join(lines))
    assert wpu.sets(data, SPLIT, Params(rows=7)) == before


def test_the_many_shot_prompt_ends_with_the_row_s_own_question(data):
    sets = wpu.sets(data, SPLIT, Params())
    first, own = sets["many_shot"][0], sets["forget"][0]
    assert first.prompt.endswith(f"\n\n{own.prompt}")
    assert first.prompt.count("Question:") == 3
    assert first.meta["shots"] == 2
    assert first.id != own.id


def test_the_prompt_has_no_more_shots_than_asked_for_and_fits(data):
    shots = [
        {"question": f"Shot {i}?", "generated": f"[/INST] Told {i}.\n\nMore"} for i in range(9)
    ]
    (data / "msj_attack.json").write_text(json.dumps(shots))
    many = wpu.sets(data, SPLIT, Params(shots=4))["many_shot"][0]
    assert "Shot 4?" not in many.prompt
    assert "Shot 5?\nAnswer: Told 5.\n\n" in many.prompt
    room = len("Question: Shot 8?\nAnswer: Told 8.\n\n")
    tight = wpu.sets(data, SPLIT, Params(shot_characters=room))["many_shot"][0]
    assert tight.meta["shots"] == 1
    assert "Shot 8?" in tight.prompt
    assert "many_shot" not in wpu.sets(data, SPLIT, Params(shots=0))


def test_with_a_chat_template_shots_are_turns(data):
    many = wpu.sets(data, SPLIT, Params(style="chat"))["many_shot"][0]
    assert [m["role"] for m in many.messages] == ["user", "assistant"] * 3
    assert many.reply == wpu.sets(data, SPLIT, Params(style="chat"))["forget"][0].reply


def test_smaller_splits_are_numbered(data):
    for name in ("forget_100", "forget_100_hard_retain"):
        text = (data / f"{name}.jsonl").read_text()
        (data / f"{name.replace('100', '20_3')}.jsonl").write_text(text)
    assert len(wpu.sets(data, "forget_20", Params(index=3))["forget"]) == 20
    with pytest.raises(ExpungeError, match="forget_20_1") as found:
        wpu.sets(data, "forget_20", Params())
    assert found.value.code == "E-DATA-001"


def test_an_unknown_split_is_refused(data):
    with pytest.raises(ExpungeError, match="E-USE-001"):
        wpu.sets(data, "forget_7", Params())


def test_a_record_without_an_answer_is_refused(data):
    path = data / f"{SPLIT}.jsonl"
    path.write_text(path.read_text() + json.dumps({"question": "Who?", "title": "X"}) + "\n")
    with pytest.raises(ExpungeError, match="E-DATA-003"):
        wpu.sets(data, SPLIT, Params())


class TestNumbers:
    def log(self, data, **more):
        sets = wpu.sets(data, SPLIT, Params())
        forget = sets["forget"]
        readings = {
            "reply": {row.id: row.reply for row in forget},
            "subject": {row.id: row.subject for row in forget},
            "forms": {row.id: list(row.forms) for row in forget},
            "generation": answers(forget, " In Nowhere.", " I do not know."),
            **more,
        }
        return {"forget": readings}, forget

    def test_without_a_judge_its_axes_are_not_measurable_and_the_proxy_is(self, data):
        log, _ = self.log(data)
        values = Benchmark.load("wpu").values(log)
        assert values["forget.efficacy"].mean is None
        assert "no judge was asked" in values["forget.efficacy"].note
        assert values["forget.efficacy_proxy"].mean == 1
        assert values["forget.rejection"].mean == 0.5

    def test_ratings_added_to_a_stored_log_give_the_judged_axes(self, data, tmp_path):
        log, forget = self.log(data)
        cycle = answers(forget, 3, 3, 1, 2)
        log["forget"] |= {"privacy_rating": cycle, "quality_rating": cycle}
        path = tmp_path / "log.json"
        path.write_text(json.dumps({"key": "k", "seconds": 1.0, "log": log}))
        values = Benchmark.load("wpu").values(Benchmark.load("wpu").read_log(path))
        assert values["forget.efficacy"].mean == 0.625
        assert values["forget.quality"].mean == 0.625
        assert values["forget.efficacy"].units == 5

    def test_a_judge_sees_each_question_once_and_names_only_where_they_matter(self, data):
        log, forget = self.log(data)
        shown = wpu.cases(log["forget"] and log, forget)
        assert len(shown) == 20
        case = next(case for case in shown if case.question == "Where was Odra Quillen born?")
        assert case.masked_question == "Where was XX born?"
        assert case.truth == "Vessin"

    def test_what_is_no_log_is_refused(self, tmp_path):
        path = tmp_path / "log.json"
        path.write_text('{"log": {"retain": {}}}')
        with pytest.raises(ExpungeError, match="E-DATA-003"):
            Benchmark.load("wpu").read_log(path)


needs_data = pytest.mark.skipif(not UPSTREAM.is_dir(), reason="the upstream files are not there")


@needs_data
def test_the_upstream_questions_are_read():
    sets = wpu.sets(UPSTREAM, SPLIT, Params())
    assert sets.keys() == {"forget"}
    assert len(sets["forget"]) == 400
    named = [row for row in sets["forget"] if row.subject]
    assert len(named) > 350
    assert len({row.subject for row in named}) < 250
    assert all(row.wrong for row in sets["forget"])


@needs_data
def test_a_split_whose_file_is_missing_is_not_another_one():
    with pytest.raises(ExpungeError, match="E-DATA-001"):
        wpu.sets(UPSTREAM, "forget_20", Params())


@needs_data
def test_a_tiny_model_is_measured_on_the_upstream_questions():
    params = Params(rows=12, new_tokens=6)
    sets = wpu.sets(UPSTREAM, SPLIT, params)
    texts = [f"{row.prompt}{row.completion}" for row in sets["forget"]]
    tokenizer = tiny_tokenizer(texts, vocab=400)
    models = Models(model=Subject(tiny_model("llama", vocab=len(tokenizer)), tokenizer))
    benchmark = Benchmark.load("wpu")
    log = benchmark.evaluate(models, sets, params)
    summary = benchmark.summarise(log, params=params)
    assert summary["values"]["forget.efficacy_proxy"]["n"] == 12
    assert summary["values"]["hard_retain.rouge"]["mean"] is None
    assert 0 <= benchmark.cells(summary)["diversity"] <= 1
