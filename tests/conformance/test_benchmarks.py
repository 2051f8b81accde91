"""Every benchmark of the registry, on its replica: rows, logs, numbers, and broken files."""

import json
import shutil

import pytest

from expunge.core import registry
from expunge.core.errors import ExpungeError
from expunge.lab.benchmark import Benchmark
from expunge.lm.gather import Models
from expunge.lm.subject import Subject
from expunge.testing import replicas
from expunge.testing.tiny import tiny_model, tiny_tokenizer

IDS = registry.benchmarks.ids()
SMALL = {"rows": 20, "new_tokens": 6}


def wrote(row):
    """All text of a row that a tokenizer may meet."""
    turn = row.training
    asked = (
        turn.prompt if isinstance(turn.prompt, str) else " ".join(m["content"] for m in turn.prompt)
    )
    return f"{asked} {turn.completion} {' '.join(row.wrong)}"


class Stage:
    """A benchmark on its replica."""

    def __init__(self, benchmark_id, folder):
        self.benchmark = Benchmark.load(benchmark_id)
        self.folder = folder
        replicas.write(benchmark_id, folder)
        known = registry.benchmarks.card(benchmark_id).params
        self.params = self.benchmark.params({k: v for k, v in SMALL.items() if k in known})
        self.split = self.benchmark.module.CARD["default_split"]
        self.sets = self.read("sets")

    def read(self, what, folder=None):
        of = getattr(self.benchmark.module, what)
        return of(folder or self.folder, self.split, self.params)

    def models(self):
        texts = [wrote(row) for of in self.sets.values() for row in of]
        tokenizer = tiny_tokenizer(texts, vocab=320)
        made = [
            Subject(tiny_model("llama", vocab=len(tokenizer), seed=seed), tokenizer)
            for seed in (0, 1)
        ]
        return Models(model=made[0], original=made[1], reference=made[1], base=made[1])

    def log(self, sets=None):
        log = self.benchmark.evaluate(self.models(), sets or self.sets, self.params)
        return json.loads(json.dumps(log, allow_nan=False))


@pytest.fixture(scope="module", params=IDS)
def stage(request, tmp_path_factory):
    return Stage(request.param, tmp_path_factory.mktemp(request.param) / "data")


@pytest.fixture(scope="module")
def log(stage):
    return stage.log()


def test_rows_to_forget_are_given_and_stand_in_no_other_role(stage):
    roles = stage.read("splits")
    forget = {(row.training.prompt, row.training.completion) for row in roles["forget"]}
    assert forget or "forget" not in stage.benchmark.module.CARD["needs"]
    for role, rows in roles.items():
        assert len({row.id for row in rows}) == len(rows), role
        if role != "forget":
            assert not forget & {(r.training.prompt, r.training.completion) for r in rows}, role


def test_rows_of_a_set_have_names_of_their_own(stage):
    assert stage.sets
    for name, rows in stage.sets.items():
        assert rows, name
        assert len({row.id for row in rows}) == len(rows), name


def test_every_number_is_there_with_rows_and_interval_or_says_why_not(stage, log):
    values = stage.benchmark.values(log, log, log, params=stage.params)
    assert values.keys() == stage.benchmark.module.measures(stage.params).keys()
    assert any(value.mean is not None for value in values.values())
    for name, value in values.items():
        if value.mean is None:
            assert "not" in value.note, name
        elif value.per_row:
            assert value.interval is not None, name
            assert value.seed is not None, name
            assert value.n == len(value.per_row), name


def test_without_a_reference_nothing_is_compared_and_nothing_is_silent(stage, log):
    for name, value in stage.benchmark.values(log, params=stage.params).items():
        assert value.mean is not None or value.note, name
        assert not value.against, name


def test_the_summary_is_json_and_has_a_cell_for_what_was_measured(stage, log):
    summary = stage.benchmark.summarise(log, log, log, params=stage.params)
    again = json.loads(json.dumps(summary, allow_nan=False))
    cells = stage.benchmark.cells(again)
    assert cells
    assert all(cell is None or isinstance(cell, int | float) for cell in cells.values())


def test_rows_in_another_order_give_the_same_numbers(stage, log):
    turned = {name: list(reversed(rows)) for name, rows in stage.sets.items()}
    before = stage.benchmark.values(log, log, log, params=stage.params)
    other = stage.log(turned)
    after = stage.benchmark.values(other, other, other, params=stage.params)
    for name, value in before.items():
        assert after[name].mean == pytest.approx(value.mean, abs=1e-4), name
        assert after[name].interval == pytest.approx(value.interval, abs=1e-3), name


def test_files_that_are_cut_or_gone_end_in_a_clear_error_or_change_nothing(stage, tmp_path):
    files = sorted(path for path in stage.folder.rglob("*") if path.is_file())
    refused = []
    for number, path in enumerate(files):
        for how in ("cut", "gone"):
            folder = tmp_path / f"{how}-{number}"
            shutil.copytree(stage.folder, folder)
            broken = folder / path.relative_to(stage.folder)
            broken.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            if how == "gone":
                broken.unlink()
            try:
                stage.read("sets", folder)
                stage.read("splits", folder)
            except ExpungeError as error:
                refused.append(error)
    assert refused
    assert all(error.found and error.next for error in refused)


def test_how_the_reference_is_made_and_the_licence_are_said(stage):
    assert len(stage.benchmark.module.references(stage.split).split()) >= 8
    assert stage.benchmark.module.CARD["licence"]
