"""zsRE: four layouts, and other rows than any sample."""

import json
from pathlib import Path

import pytest

from expunge.benchmarks import zsre
from expunge.core.errors import ExpungeError
from expunge.lab.benchmark import Benchmark
from expunge.requests.rows import check_roles
from expunge.testing import replicas

UPSTREAM = Path(__file__).parents[3] / "shared" / "data" / "zsre"
PARAMS = zsre.Params(facts=10)
COUNTS = {"onehop": 778, "inverse": 289, "subject_replace": 220}


@pytest.fixture
def data(tmp_path):
    replicas.write("zsre", tmp_path)
    return tmp_path


def change(data, name, edit):
    path = data / name
    path.write_text(json.dumps(edit(json.loads(path.read_text()))))


def refused(data, split):
    with pytest.raises(ExpungeError) as refusal:
        zsre.sets(data, split, PARAMS)
    return refusal.value


@pytest.mark.parametrize("split", zsre.LAYOUTS)
def test_every_split_divides_its_facts(data, split):
    roles, sets = zsre.splits(data, split, PARAMS), zsre.sets(data, split, PARAMS)
    assert {role: len(rows) for role, rows in roles.items()} == {"forget": 10, "retain": 10}
    assert not check_roles(**roles)
    assert not any(row.wrong for rows in roles.values() for row in rows)
    assert {row.id for row in sets["forget"]} == {row.id for row in roles["forget"]}
    assert ("unrelated" in sets) == (split == "edit")
    assert ("portability" in sets) == (split != "edit")


def test_portability_asks_for_what_the_split_says(data):
    answers = {
        split: {row.answer for row in zsre.sets(data, split, PARAMS)["portability"]}
        for split in ("onehop", "inverse", "subject_replace")
    }
    forgotten = {row.answer for row in zsre.sets(data, "subject_replace", PARAMS)["forget"]}
    assert answers["onehop"] <= {"red", "green", "blue"}
    assert answers["inverse"] <= {
        row.subject for row in zsre.sets(data, "inverse", PARAMS)["forget"]
    }
    assert answers["subject_replace"] == forgotten


def test_one_question_with_two_answers_makes_two_rows(data):
    roles = zsre.splits(data, "onehop", PARAMS)
    same = [r for rows in roles.values() for r in rows if "harbour" in r.prompt]
    assert len(same) == len({row.id for row in same}) == 2


def test_the_evaluation_file_has_rivals_aliases_and_unrelated_questions(data):
    sets = zsre.sets(data, "edit", PARAMS)
    row = sets["forget"][0]
    assert row.aliases == (row.answer.upper(),)
    assert row.wrong
    assert row.wrong[0] != row.completion
    assert not any("nq question" in row.prompt for row in sets["unrelated"])


def test_a_measure_that_a_split_cannot_have_says_so(data):
    benchmark = Benchmark.load("zsre")
    sets = zsre.sets(data, "onehop", PARAMS)
    log = {
        name: {
            "token_hit": {row.id: [True, False] for row in rows},
            "generation": {row.id: f"It is {row.answer}." for row in rows},
            "forms": {row.id: list(row.forms) for row in rows},
            "subject": {row.id: row.subject for row in rows},
        }
        for name, rows in sets.items()
    }
    values = benchmark.values(log, params=PARAMS)
    assert values["efficacy"].mean == values["portability"].mean == 0.5
    assert values["forget.contained"].mean == 1.0
    assert values["retain"].units == len({row.subject for row in sets["retain"]}) == 5
    for name in ("specificity", "rival"):
        assert values[name].mean is None
        assert "not measurable" in values[name].note


def test_shuffled_and_fewer_rows_work(data):
    before = [row.id for row in zsre.splits(data, "inverse", PARAMS)["forget"]]
    change(data, "test_zsre_inverse.json", lambda records: records[::-1])
    assert [row.id for row in zsre.splits(data, "inverse", PARAMS)["forget"]] == before
    change(data, "test_zsre_inverse.json", lambda records: records[4:7])
    roles = zsre.splits(data, "inverse", PARAMS)
    assert [len(rows) for rows in roles.values()] == [1, 2]


def test_broken_files_are_named(data):
    change(data, "test_zsre_onehop.json", lambda records: [*records, records[2]])
    assert refused(data, "onehop").code == "E-DATA-007"
    change(data, "test_zsre_inverse.json", lambda r: [{"subject": "x", "question": "y"}, *r])
    error = refused(data, "inverse")
    assert error.code == "E-DATA-003"
    assert "record 1" in str(error)
    change(data, "zsre_mend_eval.json", lambda records: [{**records[0], "answers": []}])
    assert "at least one answer" in str(refused(data, "edit"))
    (data / "test_zsre_subject_replace.json").unlink()
    assert refused(data, "subject_replace").code == "E-DATA-001"
    assert refused(data, "twohop").code == "E-USE-001"


def test_chat_models_get_no_space_before_the_answer(data):
    chat = zsre.Params(**{**zsre.fitting(True), "facts": 10})
    row, plain = (zsre.splits(data, "onehop", p)["forget"][0] for p in (chat, PARAMS))
    assert plain.completion == f" {row.completion}"
    assert row.id == plain.id


@pytest.mark.skipif(not UPSTREAM.is_dir(), reason="the upstream files are not here")
@pytest.mark.parametrize("split", COUNTS)
def test_upstream_rows(split):
    roles = zsre.splits(UPSTREAM, split, zsre.Params())
    assert sum(map(len, roles.values())) == COUNTS[split]
    assert not check_roles(**roles)
    sets = zsre.sets(UPSTREAM, split, zsre.Params())
    assert len(sets["paraphrase"]) == len(sets["portability"]) == 50
