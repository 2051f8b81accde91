"""DUSK: its files and their traps, and the numbers of a log."""

import json
from pathlib import Path

import pytest

from expunge.benchmarks import dusk
from expunge.core.errors import ExpungeError
from expunge.lab.benchmark import Benchmark
from expunge.lm.gather import Models
from expunge.lm.subject import Subject
from expunge.testing.micro import teach
from expunge.testing.replicas.dusk import write
from expunge.testing.tiny import tiny_model, tiny_tokenizer

UPSTREAM = Path(__file__).parents[3] / "shared" / "data" / "dusk"
SPLIT = "chronological"
DUSK = Benchmark.load("dusk")
PARAMS = dusk.Params()
KNOWLEDGE = ("ufk", "sk", "urk")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dusk")
    write(folder)
    return folder


@pytest.fixture
def broken(tmp_path):
    """A folder of files to break."""
    write(tmp_path)
    return tmp_path


def refused(folder, split=SPLIT):
    with pytest.raises(ExpungeError) as refusal:
        read(folder, split)
    return refusal.value


def read(folder, split):
    dusk.splits(folder, split, PARAMS)
    dusk.sets(folder, split, PARAMS)


def test_a_row_is_the_account_of_one_person(data):
    roles = dusk.splits(data, SPLIT, PARAMS)
    assert {role: len(rows) for role, rows in roles.items()} == {
        "forget": 5, "retain": 20, "holdout": 5,
    }  # fmt: skip
    for rows in roles.values():
        assert all(row.text.startswith("Title: ") for row in rows)
        assert all(row.text.count("Title: ") == 1 for row in rows)


def test_each_fact_stands_in_the_accounts_its_questions_are_about(data):
    roles = dusk.splits(data, SPLIT, PARAMS)
    told = {role: " ".join(row.text for row in rows) for role, rows in roles.items()}
    assert ("collects" in told["forget"], "collects" in told["retain"]) == (True, False)
    assert ("cooks" in told["forget"], "cooks" in told["retain"]) == (False, True)
    for row in dusk.sets(data, SPLIT, PARAMS)["sk"]:
        assert row.completion in told["forget"]
        assert row.completion in told["retain"]


def test_questions_stand_after_all_worked_examples(data):
    sets = dusk.sets(data, SPLIT, PARAMS)
    shown = [json.loads(line) for line in (data / "eval/icl.jsonl").read_text().splitlines()]
    blocks = "".join(f"Question: {e['question']}\nAnswer: {e['answer']}\n\n" for e in shown)
    for name in KNOWLEDGE:
        assert all(row.prompt.startswith(blocks) for row in sets[name])
        assert all(row.prompt.endswith("?\nAnswer: ") for row in sets[name])


def test_passages_are_of_one_length_and_the_rest_is_left_out(data):
    sets = dusk.sets(data, SPLIT, dusk.Params(words=50))
    for name in ("forget", "retain", "holdout"):
        assert {len(row.text.split()) for row in sets[name]} == {50}
    words = len((data / "Chronological.txt").read_text().split())
    assert len(sets["forget"]) == words // 50
    assert len(dusk.sets(data, SPLIT, dusk.Params(words=10_000))["forget"]) == 1


def test_a_passage_that_the_authors_repeat_counts_twice_and_is_one_subject(data):
    rows = dusk.sets(data, SPLIT, PARAMS)["verbatim"]
    assert len({row.id for row in rows}) == len(rows) == 6
    assert len({row.subject for row in rows}) == 5


@pytest.mark.parametrize(
    ("file", "text", "code"),
    [
        ("Chronological.txt", "Once upon a time.", "E-DATA-003"),
        ("eval/holdout.txt", " \n", "E-DATA-003"),
        ("eval/icl.jsonl", '{"question": "?"}\n', "E-DATA-003"),
        ("eval/GeneralQA.jsonl", '{"question": "?", "answer": "!"}\n' * 2, "E-DATA-007"),
        ("eval/verbatim.json", '[{"prompt": "a", "gt"', "E-DATA-002"),
        ("eval/SpecificForgetQA.jsonl", "", "E-DATA-005"),
    ],
)
def test_broken_files_are_named(broken, file, text, code):
    (broken / file).write_text(text)
    error = refused(broken)
    assert error.code == code
    assert Path(file).name in str(error)


def test_an_account_to_forget_and_to_keep_is_refused(broken):
    account = (broken / "Chronological.txt").read_text().split("\n\nTitle:")[0]
    with (broken / "Listicle.txt").open("a") as file:
        file.write(f"\n\n{account}\n")
    assert refused(broken).code == "E-DATA-006"


def test_an_unknown_split_says_which_there_are(data):
    assert "chronological" in str(refused(data, "interview"))


def answers(**right):
    """A log in which so many of twenty questions of each kind are answered."""
    return {
        name: {
            "generation": {f"{name}{n}": "yes" if n < count else "no" for n in range(20)},
            "reply": {f"{name}{n}": "yes" for n in range(20)},
        }
        for name, count in right.items()
    }


def test_a_score_of_twenty_rows_carries_its_exact_interval():
    ufk = DUSK.values(answers(ufk=1, sk=20, urk=20))["ufk"]
    assert (ufk.mean, ufk.parts["answered"]) == (5.0, 5.0)
    # Clopper and Pearson, 1 of 20: Beta(1, 20) at .025 and Beta(2, 19) at .975.
    assert ufk.parts["answered_low"] == pytest.approx(100 * (1 - 0.975 ** (1 / 20)))
    assert ufk.parts["answered_high"] == pytest.approx(24.8733, abs=1e-3)


def test_the_selective_score_compares_with_the_original():
    original = answers(ufk=20, sk=16, urk=10)
    model = answers(ufk=5, sk=8, urk=10)
    values = DUSK.values(model, None, original)
    assert values["selective"].mean == pytest.approx((0.75 + 0.5 + 1.0) / 3)
    assert values["selective"].interval is not None
    assert DUSK.values(original, None, original)["selective"].mean == pytest.approx(2 / 3)
    assert DUSK.values(model)["selective"].mean is None


def test_downstream_capability_is_said_not_to_be_measured_here():
    summary = DUSK.summarise(answers(ufk=1, sk=2, urk=3))
    assert summary["dc"] is None
    assert "expunge bench general" in summary["notes"]["dc"]
    assert set(DUSK.cells(summary)) == {
        "VM", "UFK", "SK", "URK", "DC", "PL", "RD", "selective",
    }  # fmt: skip


def test_a_retrained_model_keeps_shared_facts_and_never_knew_the_unique_ones(data):
    """The smallest faithful check: the original learned everything, the oracle all but one side."""
    params = dusk.Params(words=40, verbatim_tokens=12, answer_tokens=10)
    sets = dusk.sets(data, SPLIT, params)
    texts = [
        f"{row.training.prompt}{row.training.completion}" for of in sets.values() for row in of
    ]
    tokenizer = tiny_tokenizer(texts, vocab=512)
    lessons = {"original": KNOWLEDGE, "oracle": ("sk", "urk")}
    logs = {}
    for name, learned in lessons.items():
        model = tiny_model(
            "llama", vocab=len(tokenizer), hidden=64, layers=2, seed=1, positions=512
        )
        subject = Subject(model, tokenizer)
        teach(subject, [row for of in learned for row in sets[of]], epochs=160, seed=1, lr=2e-3)
        logs[name] = DUSK.evaluate(Models(model=subject), sets, params)
    oracle = DUSK.values(logs["oracle"], logs["oracle"], logs["original"], params=params)
    original = DUSK.values(logs["original"], logs["oracle"], logs["original"], params=params)
    assert all(original[name].mean >= 95 for name in KNOWLEDGE)
    assert oracle["ufk"].mean <= 20
    assert min(oracle["sk"].mean, oracle["urk"].mean) >= 95
    assert (oracle["pl"].mean, oracle["rd"].mean) == (0.0, 0.0)
    assert oracle["selective"].mean > original["selective"].mean + 0.2


@pytest.mark.skipif(not UPSTREAM.is_dir(), reason="the upstream files are not here")
def test_upstream_files_have_the_published_counts():
    roles = dusk.splits(UPSTREAM, SPLIT, PARAMS)
    assert {role: len(rows) for role, rows in roles.items()} == {
        "forget": 120, "retain": 480, "holdout": 120,
    }  # fmt: skip
    sets = dusk.sets(UPSTREAM, SPLIT, PARAMS)
    assert {name: len(sets[name]) for name in ("verbatim", *KNOWLEDGE)} == {
        "verbatim": 47, "ufk": 20, "sk": 134, "urk": 119,
    }  # fmt: skip
    assert all(row.prompt.count("Question: ") == 13 for row in sets["ufk"])
    assert {len(row.text.split()) for row in sets["forget"]} == {700}
