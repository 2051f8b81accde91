"""FaithUn: the described layout, its numbers of clusters, and models given as tables."""

import json

import pytest

from expunge.benchmarks import faithun
from expunge.core.errors import ExpungeError
from expunge.lab.benchmark import Benchmark
from expunge.requests.rows import check_roles
from expunge.testing import replicas
from expunge.testing.replicas.faithun import NUMBERS, PEOPLE

PARAMS = faithun.Params()
FILE = "FaithUn_Dataset.json"
SETS = ("forget", "paraphrase", "through_forgotten", "same_answer", "test", "through_kept")


@pytest.fixture
def data(tmp_path):
    replicas.write("faithun", tmp_path)
    return tmp_path


def change(data, edit):
    content = json.loads((data / FILE).read_text())
    (data / FILE).write_text(json.dumps(edit(content)))


def refused(data):
    with pytest.raises(ExpungeError) as refusal:
        faithun.sets(data, "main", PARAMS)
    return refusal.value


def table(sets, knows):
    """The log of a model that is a table: ``knows(set)`` says whether it has the answers."""
    right, wrong = (
        (lambda row: row.meta["correct"][0]),
        (lambda row: (row.meta["correct"][0] + 1) % 3),
    )
    measured = dict(zip(("ua", "ua_para", "ma_f", "sa", "ta", "ma_t"), SETS, strict=True))
    log = {name: {"subject": {r.id: r.subject for r in rows}} for name, rows in sets.items()}
    for measure, name in measured.items():
        rows = sets[name]
        pick = right if knows(name) else wrong
        log[f"@{measure}"] = {
            "choice_scores": {r.id: [[float(i == pick(r)) for i in range(3)]] for r in rows},
            "choice_correct": {r.id: r.meta["correct"] for r in rows},
            "original:choice_scores": {
                r.id: [[float(i == right(r)) for i in range(3)]] for r in rows
            },
        }
    return log


@pytest.mark.parametrize(
    ("knows", "expected"),
    [
        (lambda name: name != "forget", 0.7),
        (lambda name: name not in {"forget", "paraphrase", "through_forgotten"}, 1.0),
        (lambda name: True, 0.5),
        (lambda name: False, 0.5),
    ],
)
def test_score_of_models_that_are_tables(data, knows, expected):
    sets = faithun.sets(data, "main", PARAMS)
    values = Benchmark.load("faithun").values(table(sets, knows), params=PARAMS)
    assert values["score"].mean == pytest.approx(expected)
    assert values["ta"].units == 6


def test_only_questions_the_original_knew_enter_the_score(data):
    sets = faithun.sets(data, "main", PARAMS)
    log = table(sets, lambda name: name != "forget")
    unknown = sets["test"][0]
    log["@ta"]["original:choice_scores"][unknown.id] = [[0.0, 0.0, 0.0]]
    values = Benchmark.load("faithun").values(log, params=PARAMS)
    assert values["ta"].n == len(sets["test"]) - 1
    log["@ta"].pop("original:choice_scores")
    values = Benchmark.load("faithun").values(log, params=PARAMS)
    assert values["score"].mean is None
    assert "ta" in values["score"].note


def test_clusters_are_counted_through_entities_in_lists_and_objects(data):
    roles = faithun.splits(data, "main", PARAMS)
    expected = {PEOPLE[number // 4] for number in NUMBERS["forget_set_split.txt"]}
    assert {next(p for p in PEOPLE if p in row.prompt) for row in roles["forget"]} == expected
    assert {row.subject for row in roles["forget"]} == {"Q70", "Q71", "Q72", "Q74", "Q75"}
    assert (len(roles["forget"]), len(roles["retain"])) == (5, 4)
    assert not check_roles(**roles)
    assert not any(row.meta for row in roles["forget"])


def test_every_wording_of_a_question_is_a_row(data):
    sets = faithun.sets(data, "main", PARAMS)
    assert {name: len(sets[name]) for name in SETS} == {
        "forget": 5, "paraphrase": 10, "through_forgotten": 5, "same_answer": 5, "test": 15,
        "through_kept": 15,
    }  # fmt: skip


def test_the_answer_is_one_option_and_not_always_in_one_place(data):
    rows = faithun.sets(data, "main", PARAMS)["test"]
    for row in rows:
        (correct,) = row.meta["correct"]
        assert row.meta["options"][correct] == row.answer
        assert len(row.meta["options"]) == len(set(row.meta["options"])) == 3
    assert len({row.meta["correct"][0] for row in rows}) == 3


def test_a_question_that_is_to_be_forgotten_is_not_wanted_back(data):
    def copy(content):
        content["Q70"]["hop2_test"]["school"] = [content["Q70"]["hop1_unlearn"]["trade"]]
        return content

    before = faithun.sets(data, "main", PARAMS)
    change(data, copy)  # cluster 1 is to be forgotten, cluster 2 to be tested
    after = faithun.sets(data, "main", PARAMS)
    assert len(after["through_kept"]) == len(before["through_kept"]) - 1


@pytest.mark.parametrize(
    "edit",
    [
        lambda c: {**c, "Q70": {k: v for k, v in c["Q70"].items() if k != "hop2_test"}},
        lambda c: {**c, "Q70": {**c["Q70"], "hop1_test": "text"}},
        lambda c: {**c, "Q70": {**c["Q70"], "same_object": {"colour": []}}},
        lambda c: {**c, "Q71": {**c["Q71"], "hop1_unlearn": [{"question": "Q?", "answers": []}]}},
        lambda c: {**c, "Q71": {**c["Q71"], "hop1_unlearn": ["Q?"] * 4}},
    ],
)
def test_a_layout_that_was_not_described_is_an_error_and_not_a_guess(data, edit):
    change(data, edit)
    error = refused(data)
    assert error.code == "E-DATA-003"
    assert "entity Q7" in str(error)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("24", "E-DATA-014"),
        ("1\n1", "E-DATA-014"),
        ("0", "E-DATA-014"),
        ("one", "E-DATA-003"),
        ("", "E-DATA-003"),
        ("-1", "E-DATA-003"),
    ],
)
def test_numbers_beyond_the_clusters_doubled_or_no_numbers_are_errors(data, text, code):
    (data / "splits" / "forget_set_split.txt").write_text(text)
    assert refused(data).code == code


def test_without_the_numbers_nothing_is_chosen(data):
    (data / "splits" / "test_set_split.txt").unlink()
    assert refused(data).code == "E-DATA-001"


def test_the_files_of_numbers_may_lie_beside_the_data(data):
    before = faithun.sets(data, "main", PARAMS)
    for name in NUMBERS:
        (data / "splits" / name).rename(data / name)
    assert faithun.sets(data, "main", PARAMS) == before
