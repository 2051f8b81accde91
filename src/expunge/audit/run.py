"""The audit: attack a model, compare with controls, state a verdict that the evidence supports.

The order matters. Utility comes first, since a ruined model passes every gate. Then the original
is asked plainly: rows it does not know can show nothing, and if it knows less than half of them
there is nothing to audit. Only then do the attacks run, each on the original, on the audited model
and on the control.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from expunge.audit.controls import Control, choose_control, known_rows, reference_knows
from expunge.audit.evidence import Findings, Setting, assemble
from expunge.audit.examples import worst_leaks
from expunge.audit.judging import is_hopeless
from expunge.audit.measures import Values, measure
from expunge.audit.mounting import Mounter
from expunge.audit.plan import Entry, level_of, plan, statistic_of
from expunge.audit.record import Audit, Mounted
from expunge.audit.telling import tell
from expunge.audit.utility import Utility, answers, kept_rows, strata, utility
from expunge.audit.verdict import EQUIVALENT_ROWS
from expunge.core.errors import ExpungeError, raise_all
from expunge.core.events import Progress, progress
from expunge.core.results import Leak, Verdict
from expunge.data.retain import choose_retain
from expunge.engine.runtime import without_parts
from expunge.lm.subject import Scene, Subject
from expunge.requests.rows import Row, check_roles

DIRECT = "direct"
KNOWN_SHARE = 0.5
"""Mean leak of the direct question below which the original never knew the rows."""
NO_ORIGINAL = "no original: recovery cannot be told from never having known"
"""Without an original the audited model stands in for it: a model that still answers is found, and
of one that does not nothing can be said."""
ANSWER_TOKENS = (24, 96)
"""Shortest and longest answer asked for, in tokens."""
DISTANCE = "fade"
"""Distance between what two models say; costly, so measured where equivalence can be shown."""
PAST_RUNTIME = "-past-runtime"
"""Ending of the name of a second run, past the run-time part of a model."""


def audit(
    model: Subject,
    *,
    forget: Sequence[Row],
    retain: Sequence[Row] = (),
    neighbour: Sequence[Row] = (),
    holdout: Sequence[Row] = (),
    original: Subject | None = None,
    reference: Subject | None = None,
    profile: str = "default",
    only: Iterable[str] | None = None,
    skip: Iterable[str] = (),
    seed: int = 0,
    require: Verdict | str | None = None,
    min_utility: float | None = None,
    cache: Path | None = None,
    paths: Mapping[str, str | Path] | None = None,
    unlearn: Callable[[Sequence[Row]], Subject] | None = None,
    made: Mapping[str, Any] | None = None,
) -> Audit:
    """Audit a model.

    Args:
        model: The model that is said to have forgotten, as it is served: its gate, and what a
            change puts into it (`expunge.engine.runtime.Served`), are its run-time part.
        forget: The rows it is said to have forgotten.
        retain: Rows it must still know; bundled text stands in when there are none.
        neighbour: Rows close to the forgotten ones that it must still know.
        holdout: Rows of the kind of the forget rows that nobody trained it on.
        original: The model before forgetting.
        reference: A model trained without the forget rows.
        profile: ``fast``, ``default``, ``extended`` or ``privacy``.
        only: Ids of attacks to run instead of the profile's.
        skip: Ids of attacks to leave out.
        seed: All randomness derives from it.
        require: Class that a release needs.
        min_utility: Lower bound of utility that a release needs.
        cache: Folder where attack results are kept for the next audit.
        paths: ``model``, ``original``, ``reference`` -> where they came from, for the record.
        unlearn: Carries out a request by the process that made the model, for attacks on it.
        made: How the model was made, for the record: kind, method, params, wrappers, seed.

    Returns:
        The finished audit.

    Raises:
        ExpungeError: For unknown attacks or profiles, an empty forget set, rows in two roles.
    """
    started = perf_counter()
    chosen = plan(profile, only, skip, runtime=without_parts(model) is not model)
    roles = {"forget": forget, "retain": retain, "neighbour": neighbour, "holdout": holdout}
    raise_all(check_roles(**roles))
    telling = tell(roles)
    kept, origin = choose_retain(telling.roles["retain"], ())
    setting = Setting(
        model=model,
        original=original,
        reference=reference,
        forget=telling.roles["forget"],
        retain=tuple(kept),
        retain_origin=origin,
        neighbour=telling.roles["neighbour"],
        holdout=telling.roles["holdout"],
        told=telling.told,
        left_out=telling.left_out,
        plan=chosen,
        seed=seed,
        require=_required(require),
        min_utility=min_utility,
        paths=paths or {},
        given=roles,
        unlearn=unlearn,
        made=made,
    )
    findings = _investigate(setting, cache)
    return Audit(assemble(setting, findings, perf_counter() - started))


def _required(require: Verdict | str | None) -> Verdict | None:
    try:
        return None if require is None else Verdict(require)
    except ValueError as error:
        raise ExpungeError(
            "E-USE-003",
            f"There is no verdict {require!r}.",
            "one of " + ", ".join(Verdict) + ".",
            "Correct the spelling.",
        ) from error


def _investigate(setting: Setting, cache: Path | None) -> Findings:
    """Everything that needs a model."""
    model, original = setting.model, setting.original or setting.bare
    new_tokens = _answer_tokens(setting.forget, model)
    scene = Scene(
        retain=setting.retain,
        neighbour=setting.neighbour,
        seed=setting.seed,
        new_tokens=new_tokens,
        original=original,
        holdout=setting.holdout,
        reference=setting.reference,
        unlearn=setting.unlearn,
    )
    with progress("audit", total=_mounts(setting)) as running:
        work = _Work(setting, original, Mounter(scene=scene, folder=cache), running)
        return work.run()


def _answer_tokens(rows: Sequence[Row], subject: Subject) -> int:
    """Long enough for the longest reply of the forget rows, within `ANSWER_TOKENS`."""
    shortest, longest = ANSWER_TOKENS
    encode = subject.tokenizer
    sizes = [len(encode(turn.completion)["input_ids"]) for row in rows for turn in row.turns]
    return min(longest, max(shortest, *sizes))


def _mounts(setting: Setting) -> int:
    """Steps of the progress: utility, metrics, and every attack on every model."""
    return 2 + 3 * len(list(_cases(setting)))


@dataclass(frozen=True, slots=True)
class _Case:
    """One attack on the audited model, with or past its run-time part."""

    name: str
    entry: Entry
    subject: Subject
    with_runtime: bool = True


def _cases(setting: Setting) -> Iterator[_Case]:
    """Black-box attacks meet what is served; those that open the model go past its run-time part.

    Where there is one, every black-box attack runs a second time without it.
    """
    model, bare = setting.model, setting.bare
    for entry in setting.plan.entries:
        black_box = level_of(entry.id) == "B"
        yield _Case(entry.id, entry, model if black_box else bare)
        if black_box and setting.has_runtime:
            yield _Case(entry.id + PAST_RUNTIME, entry, bare, with_runtime=False)


@dataclass(frozen=True, slots=True)
class _Work:
    """One audit under way."""

    setting: Setting
    original: Subject
    mounter: Mounter
    running: Progress

    @property
    def new_tokens(self) -> int:
        return self.mounter.scene.new_tokens

    def run(self) -> Findings:
        """Utility, the original's knowledge, attacks, metrics."""
        setting = self.setting
        found = Findings(utility=self._utility(), new_tokens=self.new_tokens)
        direct = self._direct(self.original, "original")
        known = known_rows(setting.forget, direct)
        found = replace(found, known=tuple(known))
        if np.mean([direct.get(row.id, 0.0) for row in setting.forget]) < KNOWN_SHARE:
            why = f"the original knows {len(known)} of {len(setting.forget)} forget rows only"
            return replace(found, problems=(NO_ORIGINAL if setting.original is None else why,))
        if setting.reference is not None:
            theirs = self._direct(setting.reference, "reference")
            if reference_knows(direct, theirs):
                return replace(found, problems=("the reference knows the forget rows",))
        control = choose_control(known, setting.holdout, setting.reference, setting.seed)
        if control is None:
            why = "no control: no reference, no hold-out rows, and no placebo could be invented"
            return replace(found, problems=(why,))
        if found.utility is None:
            found = replace(found, problems=("the original is of no use on the rows to be kept",))
        mounted = tuple(self._mounted(case, known, control) for case in _cases(setting))
        values = self._metrics(len(known))
        served = {**setting.subjects, "original": self.original, "model": setting.model}
        examples = worst_leaks(known, mounted, served, self.new_tokens)
        self.running.advance(1, text="metrics")
        return replace(found, control=control, mounted=mounted, metrics=values, examples=examples)

    def _metrics(self, known: int) -> Values:
        setting = self.setting
        roles = {
            "forget": setting.forget,
            "retain": setting.retain,
            "neighbour": setting.neighbour,
            "holdout": setting.holdout,
        }
        chosen = setting.plan.metrics
        if setting.reference is not None and known >= EQUIVALENT_ROWS:
            chosen = (*chosen, DISTANCE)
        return measure(chosen, setting.measured, roles, self.new_tokens, setting.seed)

    def _utility(self) -> Utility | None:
        setting = self.setting
        retain = kept_rows(setting.retain, setting.seed, "retain")
        neighbour = kept_rows(setting.neighbour, setting.seed, "neighbour")
        rows = [*retain, *neighbour]
        theirs = answers(self.original, rows, self.new_tokens)
        same = setting.is_original or self.original is setting.model
        ours = theirs if same else answers(setting.model, rows, self.new_tokens)
        self.running.advance(1, text="utility")
        return utility(ours, theirs, strata(retain, neighbour), setting.seed)

    def _direct(self, subject: Subject, who: str) -> Mapping[str, float]:
        """Leak of the direct question on all forget rows."""
        self.running.advance(0, text=f"{DIRECT} on the {who}")
        (leak,) = self.mounter.mount(subject, self.setting.forget, Entry(id=DIRECT))
        return leak.per_row

    def _mounted(self, case: _Case, known: Sequence[Row], control: Control) -> Mounted:
        leaks: dict[str, Sequence[Leak]] = {"original": (), "model": (), "control": ()}
        targets = self._targets(case, known, control)
        self.running.advance(len(leaks) - len(targets))
        for place, (who, subject, rows) in enumerate(targets):
            self.running.advance(0, text=f"{case.name} on the {who}", attack=case.name, who=who)
            leaks[who] = self.mounter.mount(subject, rows, case.entry)
            if who == "original" and is_hopeless(case.entry, leaks[who], rows):
                self.running.advance(len(targets) - place, text=f"{case.name}: nothing to recover")
                break
            self.running.advance(1)
        return Mounted(name=case.name, entry=case.entry, with_runtime=case.with_runtime, **leaks)

    def _targets(
        self, case: _Case, known: Sequence[Row], control: Control
    ) -> list[tuple[str, Subject, Sequence[Row]]]:
        """Whom an attack meets, and on which rows.

        A cost is its own control. For a difference of membership chance is the control, unless
        there is a reference: the audited model on strangers would be compared with itself.
        """
        model = ("model", case.subject, known)
        original = ("original", self.original, known)
        reference = self.setting.reference
        match statistic_of(case.entry.id):
            case "cost":
                return [model]
            case "difference" if reference is None:
                return [original, model]
        stand_in = reference if control.kind == "reference" else case.subject
        return [original, model, ("control", stand_in or case.subject, control.rows)]
