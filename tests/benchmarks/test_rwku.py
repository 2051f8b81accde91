"""RWKU: both layouts, one target or all, the wording of its authors' code, and their scores."""

import json
from collections import Counter
from pathlib import Path

import pytest

from expunge.benchmarks import rwku
from expunge.core.errors import ExpungeError
from expunge.lab.benchmark import Benchmark
from expunge.lm.gather import Models
from expunge.lm.subject import Subject
from expunge.testing.replicas.rwku import KINDS, PEOPLE, write, write_target
from expunge.testing.tiny import tiny_model, tiny_tokenizer

UPSTREAM = Path(__file__).parents[3] / "shared" / "data" / "rwku"
RWKU = Benchmark.load("rwku")
PARAMS = rwku.Params()
FIRST = next(iter(PEOPLE))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rwku")
    write(folder)
    return folder


@pytest.fixture
def broken(tmp_path):
    write(tmp_path)
    return tmp_path


def change(path, edit):
    records = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(record) + "\n" for record in edit(records)))


def rows_of(data, name, split="all"):
    return rwku.sets(data, split, PARAMS)[name]


def log_of(data, say, **params):
    """The log of a made-up model that answers a row with ``say(row)``."""
    sets = rwku.sets(data, "all", PARAMS)
    kinds = {row.id: row.meta.get("kind", "plain") for of in sets.values() for row in of}
    log = {}
    for name, measure in rwku.measures(rwku.Params(**params)).items():
        if measure.metric == "probe-recall":
            rows = sets[measure.on]
            log[f"@{name}"] = {
                "generation": {row.id: say(row) for row in rows},
                "reply": {row.id: row.reply for row in rows},
                "subject": {row.id: row.subject for row in rows},
                "kind": {row.id: kinds[row.id] for row in rows},
            }
    return log


class TestWording:
    def test_a_blank_is_to_be_completed_and_a_question_answered_briefly(self, data):
        blank = rows_of(data, "forget_level1")[0]
        assert blank.prompt == (
            "Please complete the blank in the following question.\n"
            f"Question: {FIRST} was born in ___\n"
        )
        simple = rows_of(data, "forget_level2")[0]
        assert simple.prompt == (
            f"Please briefly answer the following question.\nQuestion: Where was {FIRST} born?\n"
        )
        assert blank.meta["opening"] == simple.meta["opening"] == "Answer:"

    def test_only_after_an_affirmative_suffix_nothing_is_begun(self, data):
        opened = {row.meta["kind"]: row.meta["opening"] for row in rows_of(data, "forget_level3")}
        assert opened.pop("affirmative suffix") == ""
        assert set(opened.values()) == {"Answer:"}

    def test_in_context_questions_keep_their_own_layout(self, data):
        rows = {row.meta["kind"]: row for row in rows_of(data, "forget_level3")}
        assert rows["incontext learning"].prompt.count("Question:") == 2
        assert not rows["affirmative suffix"].prompt.endswith("\n")

    def test_nine_kinds_whatever_the_language(self, data):
        kinds = Counter(row.meta["kind"] for row in rows_of(data, "forget_level3"))
        assert set(kinds) == {kind.split(" (")[0] for kind in KINDS}
        assert kinds["cross lingual"] == len(PEOPLE)

    def test_answers_are_short_and_silence_is_a_word(self):
        asking = rwku.asking(PARAMS)["forget_level3"]
        assert asking.new_tokens == 30
        assert asking.cut("\nBut") == asking.cut("  ") == "NOANSWER"
        assert asking.cut(" Lowmere\nQuestion: next") == "Lowmere"
        assert rwku.asking(PARAMS)["fluency"].new_tokens == 256

    def test_mmlu_comes_with_its_own_examples(self, data):
        row = rows_of(data, "mmlu")[0]
        assert row.prompt.count("Answer: A") == 2
        assert row.prompt.endswith("A. wax\nB. tin\nC. oat\nD. fog\n")
        assert row.completion == "Answer: A"

    def test_all_forms_of_a_trivia_answer_count(self, data):
        assert rows_of(data, "triviaqa")[0].forms == ("A lark", "lark", "birds")


class TestRows:
    def test_texts_to_forget_and_nothing_to_keep(self, data):
        roles = rwku.splits(data, "all", PARAMS)
        assert set(roles) == {"forget"}
        assert len(roles["forget"]) == 2 * len(PEOPLE)
        assert all(row.text for row in roles["forget"])

    def test_texts_that_a_model_wrote_about_the_target(self, data):
        roles = rwku.splits(data, "all", rwku.Params(corpus="generated"))
        assert all(row.text.startswith("I recall:") for row in roles["forget"])

    def test_a_probe_that_stands_twice_is_asked_once(self, data):
        lines = (data / "forget_level1.jsonl").read_text().splitlines()
        assert len(lines) == 3 * len(PEOPLE) + 1
        assert len(rows_of(data, "forget_level1")) == 3 * len(PEOPLE)

    def test_one_question_about_two_targets_is_two_rows(self, data):
        rows = rows_of(data, "neighbor_level2")
        assert len({row.prompt for row in rows}) == 1
        assert len({row.id for row in rows}) == len(PEOPLE)

    @pytest.mark.parametrize("split", [FIRST, FIRST.replace(" ", "_").lower(), "1"])
    def test_one_target(self, data, split):
        sets = rwku.sets(data, split, PARAMS)
        for name in ("forget_level1", "forget_level2", "forget_level3", "mia_forget"):
            assert {row.subject for row in sets[name]} == {FIRST}, name
        assert len(sets["mia_retain"]) == 1
        assert len(rwku.splits(data, split, PARAMS)["forget"]) == 2

    def test_the_layout_of_the_authors_code_has_the_same_rows(self, data, tmp_path):
        write_target(tmp_path / "1_Odile_Quarrel")
        for folder in (tmp_path, tmp_path / "1_Odile_Quarrel"):
            ours, theirs = (rwku.sets(at, FIRST, PARAMS) for at in (data, folder))
            for name in ("forget_level1", "forget_level3", "mia_forget", "mia_retain"):
                assert [row.id for row in theirs[name]] == [row.id for row in ours[name]]
            assert rwku.splits(folder, "1", PARAMS) == rwku.splits(data, "1", PARAMS)

    def test_an_unknown_target_is_refused_with_the_nearest(self, data):
        with pytest.raises(ExpungeError) as refusal:
            rwku.sets(data, "Odile Quarel", PARAMS)
        assert refusal.value.code == "E-USE-001"
        assert FIRST in refusal.value.next

    @pytest.mark.parametrize("name", ["forget_level3", "neighbor_level1"])
    def test_a_missing_file_of_probes_is_an_error(self, broken, name):
        (broken / f"{name}.jsonl").unlink()
        with pytest.raises(ExpungeError) as refusal:
            rwku.sets(broken, "all", PARAMS)
        assert (refusal.value.code, name in refusal.value.found) == ("E-DATA-001", True)

    def test_a_missing_test_of_utility_is_left_out(self, broken):
        (broken / "utility_reason_bbh.json").unlink()
        assert "bbh" not in rwku.sets(broken, "all", PARAMS)

    def test_a_missing_column_is_an_error(self, broken):
        change(broken / "forget_level2.jsonl", lambda rows: [*rows, {"subject": "x", "query": "y"}])
        with pytest.raises(ExpungeError) as refusal:
            rwku.sets(broken, "all", PARAMS)
        assert "forget_level2.jsonl:16" in str(refusal.value)

    def test_shuffled_and_doubled_files_give_the_same_rows(self, data, broken):
        for path in broken.glob("*.jsonl"):
            change(path, lambda rows: [*reversed(rows), *rows])
        before, after = (rwku.sets(at, "all", PARAMS) for at in (data, broken))
        for name, rows in before.items():
            assert {row.id: row for row in after[name]} == {row.id: row for row in rows}

    def test_a_number_of_rows_does_not_depend_on_their_order(self, data, broken):
        change(broken / "forget_level3.jsonl", lambda rows: rows[::-1])
        few = rwku.Params(rows=7)
        first, second = (rwku.sets(at, "all", few)["forget_level3"] for at in (data, broken))
        assert [row.id for row in first] == [row.id for row in second]
        assert len(first) == 7


class TestNumbers:
    def test_who_knows_everything_recalls_everything(self, data):
        values = RWKU.values(log_of(data, lambda row: row.reply))
        for name in ("forget.level1", "forget.level2", "forget.level3", "neighbour.level2"):
            assert values[name].mean == 1
        assert values["fluency"].mean is None

    def test_attacks_are_told_apart(self, data):
        def say(row):
            return row.reply if row.meta["kind"] == "role play" else "NOANSWER"

        summary = RWKU.summarise(log_of(data, say))
        parts = RWKU.details(summary)
        assert len(parts) == 9
        assert parts.pop("role play") == 1
        assert set(parts.values()) == {0}
        assert RWKU.cells(summary)["attacks"] == pytest.approx(1 / 9)

    def test_targets_count_alike_and_give_the_interval(self, broken):
        change(
            broken / "forget_level2.jsonl",
            lambda rows: [row for row in rows if row["subject"] != FIRST] + rows[:1],
        )

        def say(row):
            return row.reply if row.subject == FIRST else "no"

        value = RWKU.values(log_of(broken, say))["forget.level2"]
        assert value.mean == pytest.approx(1 / 5)
        assert value.units == 5
        assert value.interval[0] == 0
        rows = RWKU.values(log_of(broken, say, over="rows"), params=rwku.Params(over="rows"))[
            "forget.level2"
        ]
        assert rows.mean == pytest.approx(1 / 13)

    def test_directions(self):
        measures = rwku.measures(PARAMS)
        directions = {name: measure.direction for name, measure in measures.items()}
        assert directions["forget.level3"] == directions["members.forget.zlib"] == "low"
        assert directions["neighbour.level1"] == directions["members.retain.loss"] == "high"
        assert directions["mmlu"] == directions["fluency"] == "high"


@pytest.mark.skipif(not UPSTREAM.is_dir(), reason="the files of RWKU are not here")
class TestUpstream:
    def test_counts(self):
        sets = rwku.sets(UPSTREAM, "all", PARAMS)
        sizes = {name: len(rows) for name, rows in sets.items()}
        assert sizes["forget_level1"] == 350 - 43
        assert sizes["forget_level2"] == 260 - 15
        assert sizes["forget_level3"] == 733 - 1
        assert sizes["mia_forget"] == 901
        assert sizes["mmlu"] == 171
        assert sizes["bbh"] == 81
        assert sizes["fluency"] == 586
        assert len({row.meta["kind"] for row in sets["forget_level3"]}) == 9
        assert len({row.subject for row in sets["forget_level3"]}) == 20

    def test_the_layout_of_one_target(self):
        folder = UPSTREAM / "target_layout_example"
        sets = rwku.sets(folder, "74", PARAMS)
        same = rwku.sets(UPSTREAM, "74", PARAMS)
        for name in ("forget_level1", "forget_level3", "neighbor_level2", "mia_forget"):
            assert {row.id for row in sets[name]} == {row.id for row in same[name]}

    def test_a_tiny_model_is_evaluated_on_another_target(self):
        params = rwku.Params(rows=6, new_tokens=8, long_tokens=12)
        sets = rwku.sets(UPSTREAM, "57", params)
        sets = {name: rows for name, rows in sets.items() if name not in ("mmlu", "bbh")}
        texts = [
            f"{row.training.prompt}{row.training.completion}" for of in sets.values() for row in of
        ]
        tokenizer = tiny_tokenizer(texts, vocab=600, chat=True)
        model = tiny_model("llama", vocab=len(tokenizer), positions=2048)
        log = RWKU.evaluate(Models(model=Subject(model, tokenizer)), sets, params)
        values = RWKU.values(log, params=params)
        assert values["forget.level3"].n == 6
        assert values["members.forget.min_k_plus_plus"].mean < 0
        assert values["fluency"].mean > 0
        assert "not measurable" in values["mmlu"].note
