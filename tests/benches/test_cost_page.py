"""The cost page counts what was done, scales it by rows, and keeps what it has measured."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benches"))
import benchmarks_page
from benchmarks_cost import Counting, Job, extrapolated, measure
from benchmarks_rows import find, sample

import benchmarks
from expunge.lab.benchmark import Benchmark
from expunge.requests.rows import Turn
from expunge.testing import replicas
from expunge.testing.tiny import tiny_model, tiny_tokenizer


def test_a_sample_is_even_and_without_repetition() -> None:
    assert sample(list(range(10)), 4) == [0, 2, 5, 7]
    assert sample([1, 2, 3], 5) == [1, 2, 3]


class TestExtrapolated:
    def of(self, together: float, a: float, b: float) -> float:
        alone = {"a": {"scored": a}, "b": {"scored": b}}
        whole = extrapolated({"scored": together}, alone, {"a": 2, "b": 3}, {"a": 20, "b": 3})
        return whole["scored"]

    def test_each_set_is_scaled_by_its_own_rows(self) -> None:
        assert self.of(16.0, 10.0, 6.0) == 106  # 10 * 20 / 2 + 6, and not 16 * 23 / 5

    def test_what_sets_share_is_shared_by_all_rows(self) -> None:
        assert self.of(8.0, 10.0, 6.0) == 53

    def test_what_no_set_does_by_itself_is_scaled_by_all_rows(self) -> None:
        assert self.of(10.0, 0.0, 0.0) == 46


@pytest.fixture
def subject() -> Counting:
    tokenizer = tiny_tokenizer(["the cat sat on the mat"] * 3, vocab=300)
    return Counting(tiny_model("llama", vocab=len(tokenizer)), tokenizer, digest="tiny")


class TestAtMost:
    one, other = Turn("the cat", " sat"), Turn("the mat", " lay")

    def test_a_question_counts_once_by_its_longest_answer(self, subject: Counting) -> None:
        subject.ask([self.one, self.other], new_tokens=3)
        subject.ask([self.one], new_tokens=5)
        subject.ask([self.one], new_tokens=2)
        assert subject.at_most == 8
        assert subject.work.generated <= 8

    def test_another_opening_is_another_question(self, subject: Counting) -> None:
        subject.ask([self.one], new_tokens=3, openings=["it"])
        subject.ask([self.one], new_tokens=3)
        assert subject.at_most == 6

    def test_drawn_answers_count_each_time(self, subject: Counting) -> None:
        for _ in range(2):
            subject.ask([self.one], new_tokens=3, samples=2, temperature=1.0)
        assert subject.at_most == 12


def test_passes_are_seen_whoever_makes_them(subject: Counting) -> None:
    import torch

    ids = torch.ones(2, 5, dtype=torch.long)
    subject.model(ids)
    assert subject.counts["row_passes"] == 0
    with subject.watched():
        subject.model(ids)
    assert (subject.counts["row_passes"], subject.counts["positions"]) == (2, 10)


def test_a_watched_model_still_remembers_its_answers(subject: Counting) -> None:
    with subject.watched():
        subject.ask([TestAtMost.one], new_tokens=4)
        once = subject.counts
        subject.ask([TestAtMost.one], new_tokens=4)
    assert subject.counts == once


class TestMeasure:
    def test_answers_are_as_long_as_the_benchmark_says(self) -> None:
        line = measure(Job("zsre", None, 4, 0))
        assert line["sampled"] == dict.fromkeys(line["rows"], 4)
        # Two sets of four are answered, with 24 tokens each; the others are scored alone.
        assert line["counts"]["generated_at_most"] == 2 * 4 * 24
        assert line["alone"]["paraphrase"]["generated_at_most"] == 0
        assert 0 < line["alone"]["paraphrase"]["scored"] < line["counts"]["scored"]
        assert not line["real"]
        assert "no data folder" in line["why"]

    def test_models_beside_count_and_numbers_without_a_value_say_why(self) -> None:
        line = measure(Job("faithun", None, 4, 0))
        assert line["beside"] == ["original"]
        assert line["counts"]["row_passes"] > 0, "this metric goes past Subject.score"
        named = {*line["measured"], *line["not_measurable"]}
        benchmark = Benchmark.load("faithun")
        assert named == set(benchmark.module.measures(benchmark.params({})))
        assert all(line["not_measurable"].values())


class TestFind:
    def test_files_come_before_the_replica(self, tmp_path: Path) -> None:
        replicas.write("zsre", tmp_path / "data" / "zsre")
        found = find(Benchmark.load("zsre"), tmp_path / "data", tmp_path / "spare")
        assert (found.real, found.split) == (True, "onehop")
        assert not (tmp_path / "spare").exists()

    def test_another_split_stands_in_where_the_default_one_is_not_there(
        self, tmp_path: Path
    ) -> None:
        folder = tmp_path / "data" / "zsre"
        replicas.write("zsre", folder)
        (folder / "test_zsre_onehop.json").unlink()
        found = find(Benchmark.load("zsre"), tmp_path / "data", tmp_path / "spare")
        assert (found.real, found.split) == (True, "inverse")
        assert "onehop" in found.splits["onehop"]["missing"]
        assert str(tmp_path) not in json.dumps(found.splits)

    def test_a_folder_without_the_files_leads_to_the_replica(self, tmp_path: Path) -> None:
        (tmp_path / "data" / "zsre").mkdir(parents=True)
        found = find(Benchmark.load("zsre"), tmp_path / "data", tmp_path / "spare")
        assert not found.real
        assert found.sets
        assert "test_zsre_onehop.json" in found.why


class TestRecord:
    def test_a_benchmark_that_fails_is_a_line(self) -> None:
        line = benchmarks.apart(Job("no-such", None, 4, 0))
        assert line["id"] == "no-such"
        assert "There is no benchmark 'no-such'" in line["failed"]

    def test_a_failed_line_names_no_folder_and_is_tried_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def measure(job: Job) -> dict[str, Any]:
            raise ValueError(f"{job.data}/zsre/a.json is odd")

        monkeypatch.setattr(benchmarks, "measure", measure)
        job = Job("zsre", tmp_path, 4, 0)
        line = benchmarks.attempt(job)
        assert line == {"id": "zsre", "failed": "ValueError: zsre/a.json is odd"}
        assert not benchmarks.fits(line, job)

    def test_a_line_is_kept_while_its_settings_are_the_same(self) -> None:
        job, data = Job("zsre", None, 24, 0), Path("data")
        replica = {"key": job.key}
        files = {"key": Job("zsre", data, 24, 0).key}
        assert benchmarks.fits(replica, job)
        assert benchmarks.fits(files, job), "a run without data keeps what files gave"
        assert not benchmarks.fits(replica, Job("zsre", data, 24, 0))
        assert not benchmarks.fits(files, Job("zsre", None, 12, 0))
        assert not benchmarks.fits({}, job)

    def test_what_is_stored_is_not_measured_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[str] = []
        given = argparse.Namespace(data=None, rows=4, seed=0, only="zsre,tofu", again=False)

        def apart(job: Job) -> dict[str, Any]:
            asked.append(job.id)
            return LINE | {"id": job.id, "key": job.key}

        monkeypatch.setattr(benchmarks, "_options", lambda: given)
        monkeypatch.setattr(benchmarks, "apart", apart)
        monkeypatch.setattr(benchmarks, "RECORD", tmp_path / "record.json")
        monkeypatch.setattr(benchmarks, "PAGE", tmp_path / "page.md")
        benchmarks.main()
        benchmarks.main()
        assert asked == ["zsre", "tofu"]
        assert (tmp_path / "page.md").read_text().count("\n## ") == 4


LINE: dict[str, Any] = {
    "id": "zsre",
    "summary": "Forget.",
    "licence": "a | b",
    "metrics": ["rouge"],
    "settings": {},
    "split": "two",
    "default_split": "one",
    "real": True,
    "why": "",
    "splits": {
        "one": {"missing": "zsre/one.json is not there"},
        "two": {"roles": {"forget": 1000}, "sets": {"forget": 1000}},
    },
    "rows": {"forget": 1000},
    "sampled": {"forget": 4},
    "beside": ["original"],
    "cpu_seconds": 1.5,
    "counts": dict.fromkeys(benchmarks_page.COUNTS, 6.0),
    "whole": dict.fromkeys(benchmarks_page.COUNTS, 1500),
    "measured": ["a"],
    "not_measurable": {"b": "not measurable: no reference", "c": "not measurable: no reference"},
}


class TestPage:
    def page(self, *lines: dict[str, Any]) -> str:
        record = {"command": "COMMAND", "seed": 7, "most": 4, "versions": {"torch": "2"}}
        return benchmarks_page.page(record | {"lines": list(lines)})

    def test_a_row_and_a_whole_split_have_their_costs(self) -> None:
        text = self.page(LINE)
        assert "| zsre | its files | 4 | 1.50 | 1.5 | 1.5 | 1.5 | 1.5 | 1.5 |" in text
        assert "| zsre | two | 1,000 | 1,500 | 1,500 | 1,500 | 1,500 | 1,500 |" in text
        assert "`COMMAND`, seed 7; torch 2" in text

    def test_what_is_missing_is_said(self) -> None:
        text = self.page(LINE, {"id": "tofu", "failed": "KeyError: 'a|b'\nmore"})
        assert "The default split could not be read: zsre/one.json is not there." in text
        assert "- `b`, `c`: no reference" in text
        assert "1 of 3 numbers were measured" in text
        assert "| tofu | KeyError: 'a\\|b' |" in text

    def test_a_replica_has_no_whole_split(self) -> None:
        text = self.page(LINE | {"real": False, "why": "no files"})
        assert "Ran on its replica, split `two`: no files." in text
        assert "| zsre | two |" not in text

    def test_the_page_is_that_of_the_record(self) -> None:
        record = json.loads(benchmarks.RECORD.read_text(encoding="utf-8"))
        assert benchmarks.PAGE.read_text(encoding="utf-8") == benchmarks_page.page(record)
