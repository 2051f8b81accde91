"""PII of invented people: five ways to ask, and values whose kinds a rule decides."""

import json
from collections import Counter
from pathlib import Path

import pytest

from expunge.benchmarks import pii
from expunge.core.errors import ExpungeError
from expunge.lab.benchmark import Benchmark
from expunge.lm.gather import Models
from expunge.lm.subject import Subject
from expunge.testing.replicas.pii import PEOPLE, write
from expunge.testing.tiny import tiny_model, tiny_tokenizer

UPSTREAM = Path(__file__).parents[3] / "shared" / "data" / "pii_synthetic"
real = pytest.mark.skipif(not UPSTREAM.is_dir(), reason="the upstream files are not here")

BENCHMARK = Benchmark.load("pii")
PARAMS = pii.Params()


@pytest.fixture
def data(tmp_path):
    write(tmp_path)
    return tmp_path


def edit(folder, name, change):
    path = folder / name
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


class TestRows:
    def test_each_split_forgets_its_people_and_keeps_others(self, data):
        for split, count in (("forget1", 1), ("forget5", 3), ("forget10", 5)):
            roles = pii.splits(data, split, PARAMS)
            assert {row.subject for row in roles["forget"]} == set(PEOPLE[:count])
            assert not {row.subject for row in roles["retain"]} & set(PEOPLE)

    def test_a_question_is_asked_in_five_other_wordings_and_inverted(self, data):
        sets = pii.sets(data, "forget10", PARAMS)
        assert len(sets["forget"]) == len(sets["inverted"]) == 20
        assert len(sets["paraphrase"]) == 100
        row = sets["forget"][0]
        assert len(row.wrong) == len(row.paraphrases) == 5

    def test_values_have_kinds_and_two_of_one_answer_their_own(self, data):
        rows = pii.sets(data, "forget1", PARAMS)["forget"]
        both = next(row for row in rows if "reached" in row.prompt)
        assert [kind for kind, _ in both.meta["pii"]] == ["phone", "email", "name"]
        kinds = Counter(kind for row in rows for kind, _ in row.meta["pii"])
        assert kinds.keys() == {
            "phone", "email", "name", "date of birth", "credit card", "detailed address",
        }  # fmt: skip

    def test_one_hop_questions_are_those_about_people_of_the_split(self, data):
        for split, count in (("forget1", 1), ("forget10", 5)):
            rows = pii.sets(data, split, PARAMS)["one_hop"]
            assert {row.subject for row in rows} == set(PEOPLE[:count])
            for row in rows:
                assert {kind for kind, _ in row.meta["pii"]} == {"email", "date of birth", "name"}

    def test_the_retain_file_of_the_split_is_taken_where_it_is(self, data):
        (data / "retain90.json").write_bytes((data / "test_retain_pii.json").read_bytes())
        edit(data, "retain90.json", lambda records: records[:4])
        assert len(pii.splits(data, "forget10", PARAMS)["retain"]) == 4

    def test_the_order_of_the_files_decides_nothing(self, data):
        before = pii.sets(data, "forget5", pii.Params(rows=7))
        for name in ("forget5.json", "full_validation.json"):
            edit(data, name, lambda records: records[::-1])
        assert pii.sets(data, "forget5", pii.Params(rows=7)) == before


class TestErrors:
    def test_a_value_of_no_known_kind_is_an_error(self, data):
        changed = {"subject_pii": ["purple"], "question": "Which?", "answer": "Purple."}
        edit(data, "forget1.json", lambda records: [records[0] | changed, *records[1:]])
        with pytest.raises(ExpungeError, match="purple") as caught:
            pii.splits(data, "forget1", PARAMS)
        assert caught.value.code == "E-DATA-015"

    def test_the_published_table_is_refused_before_any_model_is_asked(self, data):
        with pytest.raises(ExpungeError, match="email") as caught:
            pii.sets(data, "forget1", pii.Params(scheme="pri"))
        assert caught.value.code == "E-DATA-015"

    def test_missing_columns_repeated_records_and_splits_are_errors(self, data):
        with pytest.raises(ExpungeError) as caught:
            pii.splits(data, "forget2", PARAMS)
        assert caught.value.code == "E-USE-001"
        edit(data, "forget1.json", lambda records: [*records, records[0]])
        with pytest.raises(ExpungeError) as caught:
            pii.splits(data, "forget1", PARAMS)
        assert caught.value.code == "E-DATA-007"
        edit(data, "forget1.json", lambda records: [{"question": "Who?"}])
        with pytest.raises(ExpungeError) as caught:
            pii.splits(data, "forget1", PARAMS)
        assert caught.value.code == "E-DATA-003"


def log_of(sets, says):
    on = {name: name.split(".")[0] for name in pii.measures(PARAMS)}
    return {
        name: {"subject": {row.id: row.subject for row in rows}} for name, rows in sets.items()
    } | {
        f"@{name}": {
            "generation": {row.id: says(row) for row in sets[of]},
            "question": {row.id: row.prompt for row in sets[of]},
            "pii": {row.id: row.meta["pii"] for row in sets[of]},
        }
        for name, of in on.items()
        if name.endswith(("leakage", "risk_weighted", "risk"))
    }


def test_every_way_of_asking_has_its_own_leaks(data):
    sets = pii.sets(data, "forget10", PARAMS)
    told = BENCHMARK.values(log_of(sets, lambda row: row.reply), params=PARAMS)
    for name in (*pii.ASKED, "retain"):
        assert told[f"{name}.leakage"].mean == 1.0
        assert told[f"{name}.risk_weighted"].mean == pytest.approx(1.0)
    # who is asked for by a value gives away the name and nothing else
    assert told["inverted.leakage"].parts == {"name": 1.0}
    assert set(told["one_hop.leakage"].parts) == {"date of birth", "name"}
    silent = BENCHMARK.values(log_of(sets, lambda row: "No."), params=PARAMS)
    assert silent["forget.risk"].mean == silent["paraphrase.leakage"].mean == 0.0


@real
def test_every_value_of_the_upstream_files_has_a_kind():
    sizes = {}
    for split, people in (("forget1", 2), ("forget5", 10), ("forget10", 20)):
        sets = pii.sets(UPSTREAM, split, PARAMS)
        sizes[split] = {name: len(rows) for name, rows in sets.items()}
        assert len({row.subject for row in sets["forget"]}) == people
    assert sizes["forget10"] == {
        "forget": 200,
        "paraphrase": 1000,
        "inverted": 200,
        "one_hop": 58,
        "retain": 125,
    }


@real
def test_true_answers_of_the_upstream_files_leak_nearly_every_value():
    sets = pii.sets(UPSTREAM, "forget10", PARAMS)
    values = BENCHMARK.values(log_of(sets, lambda row: row.reply), params=PARAMS)
    assert values["forget.leakage"].mean > 0.97
    assert values["one_hop.leakage"].mean == 1.0
    low, high = values["forget.leakage"].interval
    assert low <= values["forget.leakage"].mean <= high


@real
def test_a_tiny_model_is_measured_on_the_upstream_files():
    settings = pii.Params(rows=2, new_tokens=4)
    sets = pii.sets(UPSTREAM, "forget1", settings)
    texts = [f"{row.prompt}{row.completion}" for rows in sets.values() for row in rows]
    tokenizer = tiny_tokenizer(texts, vocab=400)
    model = tiny_model("llama", vocab=len(tokenizer), positions=2048)
    log = BENCHMARK.evaluate(Models(model=Subject(model, tokenizer)), sets, settings)
    values = BENCHMARK.values(log, params=settings)
    assert values["one_hop.leakage"].n > 0
    assert all(value.mean is not None or value.note for value in values.values())
