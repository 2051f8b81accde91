"""What one benchmark costs, counted on a sample of its rows and a tiny model."""

import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from benchmarks_rows import SETTINGS, Found, Sets, find, sample, settings

from expunge.core import registry
from expunge.core.results import Value
from expunge.lab.benchmark import Benchmark, Log
from expunge.lm.gather import Models
from expunge.lm.subject import Subject
from expunge.lm.work import Tally
from expunge.requests.rows import Row, Turn
from expunge.testing.tiny import tiny_model, tiny_tokenizer

POSITIONS = 2**15
VOCABULARY = 2048
CHARACTERS = 3000
"""Characters of a row that the tokenizer sees."""
COUNTED = ("row_passes", "positions", "scored", "generated", "generated_at_most")

Counts = dict[str, float]


@dataclass(frozen=True, slots=True)
class Job:
    """One benchmark to be measured.

    Attributes:
        id: Which.
        data: Folder with one folder for each benchmark; None: its replica.
        rows: Most rows of a set.
        seed: Of the model, and of the intervals.
    """

    id: str
    data: Path | None
    rows: int
    seed: int

    @property
    def key(self) -> str:
        """Two measurements with equal keys are the same."""
        version = registry.benchmarks.card(self.id).version
        source = "replica" if self.data is None else "files"
        return f"{self.id}/{version}/{source}/{self.rows} rows/seed {self.seed}"


class Counting(Subject):
    """A subject that remembers how long its answers might have become.

    A question that is put twice is answered once, so it counts once, by its longest answer;
    answers that are drawn, or written by an edited model, count each time.
    """

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self._longest: dict[tuple[str, str], int] = {}
        self._drawn = 0
        self._passed = Tally()

    @property
    def at_most(self) -> int:
        """Tokens written if no answer had ended early."""
        return sum(self._longest.values()) + self._drawn

    def ask(self, turns: Sequence[Turn], **options: Any) -> list[list[str]]:
        """As `Subject.ask`."""
        most = options.get("new_tokens", 24)
        openings = options.get("openings") or [""] * len(turns)
        for turn, opening in zip(turns, openings, strict=True):
            if options.get("temperature", 0.0) == 0 and options.get("edit") is None:
                key = (repr(turn.prompt), opening)
                self._longest[key] = max(most, self._longest.get(key, 0))
            else:
                self._drawn += most * options.get("samples", 1)
        return super().ask(turns, **options)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Count every forward pass, also those of metrics that go past `ask` and `score`."""
        with self._passed.watching(self.model):
            yield

    @property
    def counts(self) -> Counts:
        """What it has done; passes while it was watched."""
        passed, made = self._passed.work, self.work
        done = (passed.rows, passed.tokens, made.scored, made.generated, self.at_most)
        return dict(zip(COUNTED, map(float, done), strict=True))


def measure(job: Job) -> dict[str, Any]:
    """One line of the record."""
    torch.set_num_threads(1)
    benchmark = Benchmark.load(job.id)
    with tempfile.TemporaryDirectory() as spare:
        found = find(benchmark, job.data, Path(spare) / "replica")
    sets = {name: sample(rows, job.rows) for name, rows in found.sets.items()}
    stage = Stage(benchmark, sets, job.seed)
    log, counts, seconds = stage.evaluate(sets)
    alone = {name: stage.about(name).evaluate(sets)[1] for name in sets}
    values = benchmark.values(log, log, log, params=stage.params, seed=job.seed)
    whole = {name: len(rows) for name, rows in found.sets.items()}
    sampled = {name: len(rows) for name, rows in sets.items()}
    return {
        "key": job.key,
        "id": job.id,
        **_described(benchmark, found),
        "rows": whole,
        "sampled": sampled,
        "beside": stage.beside,
        "cpu_seconds": round(seconds, 2),
        "counts": counts,
        "alone": alone,
        "whole": extrapolated(counts, alone, sampled, whole),
        "measured": [name for name, value in values.items() if value.mean is not None],
        "not_measurable": unmeasured(values),
    }


@dataclass(frozen=True, slots=True)
class Stage:
    """A benchmark with tiny models.

    Attributes:
        benchmark: Which.
        sets: Its rows, which the tokenizer is trained on.
        seed: Of the model; those beside it have the next ones.
    """

    benchmark: Benchmark
    sets: Sets
    seed: int

    @property
    def params(self) -> Any:
        """The defaults, where a tiny model can do with them."""
        return settings(self.benchmark)

    @property
    def beside(self) -> list[str]:
        """The models that some number looks at beside the measured one."""
        return sorted(self.benchmark.looks_at(self.params))

    def evaluate(self, sets: Sets) -> tuple[Log, Counts, float]:
        """Evaluate a new model: the log, what all models did, and CPU seconds."""
        models = self.models()
        them = [getattr(models, who) for who in ("model", *self.beside)]
        with ExitStack() as watched:
            for one in them:
                watched.enter_context(one.watched())
            began = time.process_time()
            log = self.benchmark.evaluate(models, sets, self.params)
            seconds = time.process_time() - began
        return log, _sum(one.counts for one in them), seconds

    def about(self, name: str) -> "Stage":
        """The same with nothing but the numbers of one set; those of other numbers cost nothing."""
        module = ModuleType(self.benchmark.module.__name__)
        module.__dict__.update(vars(self.benchmark.module))
        measures = self.benchmark.module.measures

        def chosen(params: Any) -> dict[str, Any]:
            return {k: m for k, m in measures(params).items() if m.on == name and not m.of}

        module.__dict__["measures"] = chosen
        return replace(self, benchmark=Benchmark(module))

    def models(self) -> Models:
        """The model, and those that some number of this benchmark looks at beside it."""
        tokenizer = tiny_tokenizer(texts(self.sets), vocab=VOCABULARY)

        def tiny(seed: int) -> Counting:
            made = tiny_model("llama", vocab=len(tokenizer), positions=POSITIONS, seed=seed)
            return Counting(made, tokenizer, digest=f"tiny-{seed}")

        others = {who: tiny(self.seed + at) for at, who in enumerate(self.beside, 1)}
        return Models(model=tiny(self.seed), **others)


def texts(sets: Sets) -> list[str]:
    """What the tokenizer is trained on: each row's question and answer, long ones cut."""
    rows = [row for of in sets.values() for row in of]
    return [_text(row)[:CHARACTERS] for row in rows]


def extrapolated(
    counts: Counts,
    alone: Mapping[str, Counts],
    sampled: Mapping[str, int],
    whole: Mapping[str, int],
) -> Counts:
    """Counts of all rows, from those of a sample.

    Each set is scaled by its own rows. What sets share, or need together, is what all of them
    cost together over what they cost one by one; that ratio is taken to stay.

    Args:
        counts: Of the sample, all sets together.
        alone: Set -> counts where it is evaluated by itself.
        sampled: Set -> rows of the sample.
        whole: Set -> all its rows.
    """
    found: Counts = {}
    plain = sum(whole.values()) / sum(sampled.values())
    for name, count in counts.items():
        single = sum(of[name] for of in alone.values())
        scaled = sum(of[name] * whole[on] / sampled[on] for on, of in alone.items())
        found[name] = round(scaled * count / single if single else count * plain)
    return found


def unmeasured(values: Mapping[str, Value]) -> dict[str, str]:
    """Name of a number that could not be measured -> why."""
    return {name: value.note for name, value in values.items() if value.mean is None}


def _described(benchmark: Benchmark, found: Found) -> dict[str, Any]:
    """What the page says of a benchmark besides its cost."""
    card, params = registry.benchmarks.card(benchmark.id), settings(benchmark)
    measures = benchmark.module.measures(params).values()
    return {
        "summary": card.summary,
        "licence": card.extra["licence"],
        "metrics": sorted({one.metric for one in measures}),
        "split": found.split,
        "default_split": card.extra["default_split"],
        "real": found.real,
        "why": found.why,
        "settings": SETTINGS.get(benchmark.id, {}),
        "splits": dict(found.splits),
    }


def _sum(them: Iterable[Counts]) -> Counts:
    listed = list(them)
    return {name: sum(one[name] for one in listed) for name in COUNTED}


def _text(row: Row) -> str:
    turn = row.training
    asked = turn.prompt if isinstance(turn.prompt, str) else repr(turn.prompt)
    return f"{asked} {turn.completion}"
