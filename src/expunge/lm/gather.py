"""What a metric needs, read from the models that stand side by side.

A need is the name of a reading, ``nll``, of the rows a metric is about. ``holdout.nll`` is that
reading of other rows, ``original:nll`` of another model, ``original:holdout.nll`` of both. Every
reading is made once, however many metrics need it.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from expunge.core import registry
from expunge.core.errors import ExpungeError
from expunge.core.measuring import Measure
from expunge.lm.readings import NAMES, TEXTS, Asking, Readings, write_together
from expunge.lm.subject import Subject
from expunge.requests.rows import Row

Scores = dict[str, dict[str, Any]]
"""Need -> row id -> value, plain JSON values."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Models:
    """The models a metric may look at.

    Attributes:
        model: The one that is measured.
        original: Before forgetting.
        reference: Retrained without the rows to forget.
        base: Before it learned any of the rows.
    """

    model: Subject
    original: Subject | None = None
    reference: Subject | None = None
    base: Subject | None = None


class Need(NamedTuple):
    """One need, taken apart: whose reading, of which rows, and which."""

    who: str
    role: str
    reading: str


def need(name: str) -> Need:
    """Take a need apart.

    Example:
        >>> need("original:holdout.nll")
        Need(who='original', role='holdout', reading='nll')
        >>> need("nll")
        Need(who='model', role='', reading='nll')
    """
    who, _, rest = name.rpartition(":")
    role, _, reading = rest.rpartition(".")
    return Need(who or "model", role, reading)


@dataclass(frozen=True, slots=True)
class Gathered:
    """Readings of several models on several sets of rows, made when first asked for.

    Attributes:
        models: The models.
        sets: Name -> rows.
        asking: Name of a set -> how its rows are put to a model, where not as usual.
    """

    models: Models
    sets: Mapping[str, Sequence[Row]]
    asking: Mapping[str, Asking] = field(default_factory=dict)
    _made: dict[tuple[str, str], Readings] = field(default_factory=dict)

    def scores(self, measure: Measure) -> Scores:
        """What one metric is computed from.

        Args:
            measure: The metric, its rows and its parameters.

        Returns:
            Need -> row id -> value. A need whose model or rows are not given is absent; the
            metric then says that it cannot be measured.

        Raises:
            ExpungeError: E-RUN-002 when a score is not a finite number.
        """
        module = registry.metrics.load(measure.metric)
        own = self._own(module, measure) if hasattr(module, "read") else {}
        found = {
            name: self._reading(need(name), measure) for name in measure.needs if name not in own
        }
        scores = {**own, **{name: values for name, values in found.items() if values is not None}}
        plainly = {name: _plain(values) for name, values in scores.items()}
        if broken := [name for name, values in plainly.items() if not _finite(values)]:
            raise ExpungeError(
                "E-RUN-002",
                f"{', '.join(broken)} of the {measure.on} rows: not finite numbers.",
                "a model whose probabilities are numbers.",
                "Lower the learning rate of the run that made this model.",
            )
        return plainly

    def prepare(self, measures: Iterable[Measure]) -> None:
        """Make together what several metrics will ask for, so that they share its passes."""
        wanted: dict[tuple[str, str], list[str]] = {}
        written: dict[tuple[str, int], list[Readings]] = {}
        for measure in measures:
            for one in map(need, measure.needs):
                wanted.setdefault((one.who, self._set(one, measure)), []).append(one.reading)
        for (who, name), readings in wanted.items():
            made = self.readings(who, name) if who in Models.__dataclass_fields__ else None
            if made is not None:
                made.prepare(readings)
                if "generation" in readings:
                    written.setdefault((who, made.asking.new_tokens), []).append(made)
        for them in written.values():
            write_together(them)

    def subject(self, who: str) -> Subject | None:
        """One of the models; None where it is not given."""
        subject: Subject | None = getattr(self.models, who)
        return subject

    def readings(self, who: str, name: str) -> Readings | None:
        """All readings of one model on one set; None where one of the two is not given."""
        subject = self.subject(who)
        if subject is None or name not in self.sets:
            return None
        if (who, name) not in self._made:
            asking = self.asking.get(name, Asking())
            self._made[who, name] = Readings(subject, self.sets[name], asking)
        return self._made[who, name]

    def _reading(self, wanted: Need, measure: Measure) -> Mapping[str, Any] | None:
        readings = self.readings(wanted.who, self._set(wanted, measure))
        if readings is None or wanted.reading not in (*NAMES, *TEXTS):
            return None
        return readings.get(wanted.reading)

    @staticmethod
    def _set(wanted: Need, measure: Measure) -> str:
        return measure.beside.get(wanted.role, wanted.role) or measure.on

    def _own(self, module: Any, measure: Measure) -> Mapping[str, Mapping[str, Any]]:
        """What only this metric reads, by its own ``read``; nothing where a model is missing."""
        roles = {"": measure.on, **measure.beside}
        rows = {role: self.sets[name] for role, name in roles.items() if name in self.sets}
        rows |= {name: of for name, of in self.sets.items() if name not in rows}
        lacking = [who for who in module.CARD.get("models", ()) if self.subject(who) is None]
        if lacking or any(role not in rows for role in ("", *module.CARD.get("roles", ()))):
            return {}
        params = registry.metrics.params(measure.metric, measure.params)
        made: Mapping[str, Mapping[str, Any]] = module.read(self.models, rows, params)
        return made


def gather(
    needs: Iterable[str], subject: Subject, rows: Sequence[Row], asking: Asking | int
) -> Scores:
    """Readings of one model on one set of rows, as plain values."""
    made, needs = Readings(subject, rows, asking), list(needs)
    made.prepare(needs)
    return {name: _plain(made.get(name)) for name in needs}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if hasattr(value, "tolist"):
        return value.tolist()
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def _finite(value: Any) -> bool:
    return all(map(math.isfinite, _numbers(value)))


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _numbers(each)
    elif isinstance(value, int | float):
        yield float(value)
