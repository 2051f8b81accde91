"""A benchmark assembled: what its file says, and a default for everything it does not say.

A benchmark file is a choice of rows and measures. Its slots, each a function of its module:

    splits(data, split, params) -> {role: rows}        what a method may see
    sets(data, split, params) -> {name: rows}          on what models are compared
    measures(params) -> {name: Measure}                the numbers
    references(split) -> str                           how its reference is made
    asking(params) -> {set: Asking}                    how rows are put to a model; default as usual
    fitting(has_template) -> {parameter: value}        what fits a model; default nothing
    review(values, original, reference) -> values      a last look at the numbers; default none
    present(values) -> summary                         another shape of the summary
    cells(summary), details(summary) -> {column: number}
    read_log(path, params) -> log                      logs that others published
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from expunge.core import registry
from expunge.core.bootstrap import Units
from expunge.core.errors import ExpungeError
from expunge.core.measuring import Measure, Measured, combined, measured
from expunge.core.results import Value
from expunge.data.whole import json_object
from expunge.lm.gather import Gathered, Models, need
from expunge.lm.readings import Asking
from expunge.requests.rows import Row

Log = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Set, or ``@measure`` for what one metric reads by itself -> need -> row id -> value."""

LOOKED_AT = ("models", "models_if_given")
"""Keys of a card that name other models: what ``read`` needs, and what it takes where it is."""

ENTITY = "subject"
"""The reading that says which rows belong together."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One benchmark.

    Attributes:
        module: Its file.
    """

    module: ModuleType

    @classmethod
    def load(cls, name: str) -> "Benchmark":
        """The benchmark of an id."""
        return cls(registry.benchmarks.load(name))

    @property
    def id(self) -> str:
        """Its id."""
        return str(self.module.CARD["id"])

    def params(self, overrides: Mapping[str, Any], *, has_template: bool = False) -> Any:
        """Its parameters: those given, then those that fit the model, then the defaults."""
        own = getattr(self.module, "fitting", None)
        fitting = own(has_template) if own is not None else {}
        return registry.benchmarks.params(self.id, {**fitting, **overrides})

    def looks_at(self, params: Any) -> set[str]:
        """The models beside the measured one that some measure looks at."""
        measures = self.module.measures(params).values()
        cards = [registry.metrics.card(measure.metric) for measure in measures]
        named = {who for card in cards for key in LOOKED_AT for who in card.extra.get(key, ())}
        return named | {need(name).who for m in measures for name in m.needs} - {"model"}

    def asking(self, params: Any) -> dict[str, Asking]:
        """How rows are put to a model."""
        own = getattr(self.module, "asking", None)
        return dict(own(params)) if own is not None else {}

    def evaluate(self, models: Models, sets: Mapping[str, Sequence[Row]], params: Any) -> Log:
        """Everything the numbers need to know of one model.

        Args:
            models: The model, and those it stands beside.
            sets: What ``sets`` of the module gave.
            params: Parameters of the benchmark.

        Returns:
            The log, plain JSON values.

        Raises:
            ExpungeError: E-RUN-002 when a score is not a finite number, as after a run that
                diverged.
        """
        usual = Asking(new_tokens=getattr(params, "new_tokens", Asking().new_tokens))
        asking = {name: usual for name in sets} | self.asking(params)
        gathered = Gathered(models, sets, asking)
        log: dict[str, dict[str, Any]] = {
            name: {"reply": {r.id: r.reply for r in of}, ENTITY: {r.id: r.subject for r in of}}
            for name, of in sets.items()
        }
        measures = {n: m for n, m in self.module.measures(params).items() if not m.of}
        gathered.prepare(measures.values())
        for name, measure in measures.items():
            for key, values in gathered.scores(measure).items():
                place, label = _place(name, measure, key)
                log.setdefault(place, {})[label] = values
        return log

    def values(
        self,
        log: Log,
        reference: Log | None = None,
        original: Log | None = None,
        *,
        params: Any = None,
        allow_unmatched: bool = False,
        seed: int = 0,
    ) -> dict[str, Value]:
        """All numbers of one model, each with its rows and its interval.

        Args:
            log: What `evaluate` returned for it.
            reference: The same for the retrained reference.
            original: The same for the model before forgetting.
            params: Parameters of the benchmark; the defaults when not given.
            allow_unmatched: Compare with a reference that was evaluated on other rows.
            seed: Of the intervals.

        Raises:
            ExpungeError: E-DATA-013 when the reference was evaluated on other rows.
        """
        params = self.params({}) if params is None else params
        measures = self.module.measures(params)
        logs = {"": log, "reference:": reference, "original:": original}
        logs = {prefix: of for prefix, of in logs.items() if prefix in self._models(measures)}
        found: dict[str, Measured] = {}
        for prefix, of_model in logs.items():
            if of_model is not None:
                beside = reference if prefix == "" else None
                units = Units({**_entities(beside or {}), **_entities(of_model)}, seed)
                settings = {n: _settings(m, allow_unmatched) for n, m in measures.items()}
                for name, number in _measured(measures, settings, (of_model, beside), units):
                    found[prefix + name] = number
        # The model comes last: its numbers may be made of those of the others.
        for prefix in sorted((p for p, of in logs.items() if of is not None), reverse=True):
            for name, measure in measures.items():
                if measure.of:
                    parts = {
                        part: found.get(_qualified(prefix, of)) for part, of in measure.of.items()
                    }
                    found[prefix + name] = _combined(measure, parts)
        own = {name: found[name].value for name in measures}
        others = [
            {n: found[prefix + n].value for n in measures} if logs.get(prefix) is not None else None
            for prefix in ("original:", "reference:")
        ]
        review = getattr(self.module, "review", None)
        return own if review is None else dict(review(own, *others))

    def summarise(self, log: Log, *others: Log | None, **options: Any) -> dict[str, Any]:
        """The numbers as a JSON value; see `values` for the arguments."""
        return self.summary(self.values(log, *others, **options))

    def summary(self, values: Mapping[str, Value]) -> dict[str, Any]:
        """Numbers as a JSON value: the benchmark's own shape, and every number in full."""
        present = getattr(self.module, "present", None)
        shaped = {} if present is None else dict(present(values))
        notes = {name: value.note for name, value in values.items() if value.note}
        full = {name: value.as_dict() for name, value in values.items()}
        return {**shaped, "notes": shaped.get("notes", notes), "values": full}

    def cells(self, summary: Mapping[str, Any]) -> dict[str, float | None]:
        """The columns of the benchmark's table."""
        own = getattr(self.module, "cells", None)
        if own is not None:
            return dict(own(summary))
        return {name: value["mean"] for name, value in summary["values"].items()}

    def details(self, summary: Mapping[str, Any]) -> dict[str, float | None]:
        """The columns of a second table; empty where there is none."""
        own = getattr(self.module, "details", None)
        return {} if own is None else dict(own(summary))

    def _models(self, measures: Mapping[str, Measure]) -> set[str]:
        """Whose numbers are asked for: the model's, and others' where something compares."""
        if hasattr(self.module, "review"):
            return {"", "reference:", "original:"}
        parts = {of for measure in measures.values() for of in measure.of.values()}
        return {"", *(f"{of.partition(':')[0]}:" for of in parts if ":" in of)}

    def read_log(self, path: Path, params: Any = None) -> Log:
        """A log that others published, or that ``expunge bench`` stored.

        Args:
            path: The file.
            params: Parameters of the benchmark; the defaults when not given.

        Raises:
            ExpungeError: E-DATA-001, E-DATA-002, E-DATA-003, E-DATA-009 for anything else.
        """
        own = getattr(self.module, "read_log", None)
        if own is not None:
            read: Log = own(path, self.params({}) if params is None else params)
            return read
        return self._stored(path)

    def _stored(self, path: Path) -> Log:
        expected = f"a file of the logs folder that 'expunge bench {self.id}' wrote."
        log = json_object(path, expected).get("log")
        sets = {measure.on for measure in self.module.measures(self.params({})).values()}
        if isinstance(log, Mapping) and sets & log.keys():
            return log
        raise ExpungeError(
            "E-DATA-003",
            f"{path}: no log of {self.id}.",
            expected,
            "Give such a file, or --model to evaluate a model.",
        )


def _measured(
    measures: Mapping[str, Measure],
    settings: Mapping[str, Mapping[str, Any]],
    logs: tuple[Log, Log | None],
    units: Units,
) -> Iterator[tuple[str, Measured]]:
    """The numbers that are made of rows, of one model beside the reference."""
    log, reference = logs
    for name, measure in measures.items():
        if measure.of:
            continue
        if measure.on not in log and f"@{name}" not in log:
            missing = Value(mean=None, note=f"not measurable: there are no rows of {measure.on!r}")
            yield name, Measured(missing, {})
        else:
            beside = None if reference is None else _scores(reference, name, measure)
            scores = _scores(log, name, measure)
            yield (
                name,
                measured(measure.metric, scores, beside, units=units, params=settings[name]),
            )


def _qualified(prefix: str, name: str) -> str:
    """The measure a part is made of: of the same model unless it says otherwise."""
    return name if ":" in name else prefix + name


def _combined(measure: Measure, parts: Mapping[str, Measured | None]) -> Measured:
    given = {
        part: number or Measured(Value(mean=None, note="that model is not given"), {})
        for part, number in parts.items()
    }
    return combined(measure.metric, given, measure.params)


def _settings(measure: Measure, allow_unmatched: bool) -> Mapping[str, Any]:
    knows = "allow_unmatched" in registry.metrics.card(measure.metric).params
    return (
        {**measure.params, "allow_unmatched": True} if allow_unmatched and knows else measure.params
    )


def _place(name: str, measure: Measure, key: str) -> tuple[str, str]:
    """Set and label under which a need of a measure stands in the log."""
    wanted = need(key)
    if hasattr(registry.metrics.load(measure.metric), "read"):
        return f"@{name}", key
    label = key if wanted.who != "model" else wanted.reading
    return measure.beside.get(wanted.role, wanted.role) or measure.on, label


def _scores(log: Log, name: str, measure: Measure) -> dict[str, Mapping[str, Any]]:
    """The readings a measure is computed from, out of a log."""
    if own := log.get(f"@{name}"):
        return dict(own)
    found = dict(log.get(measure.on, {}))
    for key in measure.needs:
        place, label = _place(name, measure, key)
        if (values := log.get(place, {}).get(label)) is not None:
            found[key] = values
    return found


def _entities(log: Log) -> dict[str, str | None]:
    return {
        row: name for readings in log.values() for row, name in readings.get(ENTITY, {}).items()
    }
