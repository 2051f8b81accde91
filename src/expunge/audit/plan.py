"""What an audit runs: profiles of attacks and metrics, by id.

A profile names ids; which of them exist is the registry's to know. An attack whose file is not
there is listed as not run, and its family stays open.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from expunge.audit.verdict import REQUIRED
from expunge.core.errors import ExpungeError, nearest, raise_all
from expunge.core.registry import Registry, attacks, metrics

THRESHOLD = 0.10
"""The gate of an attack whose card names none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One attack of a profile.

    Attributes:
        id: Its id.
        params: Values in place of its defaults.
        runs: How often it is repeated with other seeds (random attacks).
    """

    id: str
    params: Mapping[str, Any] = field(default_factory=dict)
    runs: int = 1


_CORE = (
    Entry(id="direct"),
    Entry(id="prob"),
    Entry(id="prefix"),
    Entry(id="role"),
    Entry(id="mask"),
    Entry(id="manyshot"),
    Entry(id="lens"),
    Entry(id="lens-exit"),
    Entry(id="quant8"),
    Entry(id="quant4"),
)
"""What decided most models of known state, at the least cost."""

_FAST = (
    *_CORE,
    Entry(id="sample", params={"budget": 4}),
    Entry(id="relearn-ood"),
    Entry(id="relearn-in"),
)

_DEFAULT = (
    *_CORE,
    Entry(id="affirm"),
    Entry(id="reverse"),
    Entry(id="alias"),
    Entry(id="lang"),
    Entry(id="cot"),
    Entry(id="mirage"),
    Entry(id="unpact"),
    Entry(id="sample", params={"budget": 16}, runs=3),
    Entry(id="mia"),
    Entry(id="actpert"),
    Entry(id="anonact", params={"samples": 4}),
    Entry(id="patch"),
    Entry(id="cka"),
    Entry(id="relearn-ood", runs=3),
    Entry(id="relearn-in", runs=3),
)

EVASION = Entry(id="evasion")
"""Shows how a filter in front of a model is got round; of the weights it says nothing more."""

_PRIVACY = (Entry(id="pii-extract"), Entry(id="pii-infer"), Entry(id="pii-reconstruct"))

_MORE = (
    Entry(id="background"),
    Entry(id="choice"),
    Entry(id="incontext"),
    Entry(id="typo"),
    Entry(id="chain"),
    Entry(id="trace"),
    Entry(id="rephrase", runs=3),
    Entry(id="ununlearn"),
    Entry(id="lens-topk"),
    Entry(id="delta"),
    Entry(id="sae"),
    Entry(id="gptq"),
    Entry(id="awq"),
    Entry(id="nf4"),
    Entry(id="relearn-near", runs=3),
    Entry(id="latentpert"),
    Entry(id="softprompt"),
    Entry(id="embed"),
    Entry(id="gcg"),
    Entry(id="egcg"),
    Entry(id="sa"),
)

PROFILES: Mapping[str, tuple[Entry, ...]] = {
    "fast": _FAST,
    "default": _DEFAULT,
    "extended": (*_DEFAULT, *_MORE, *_PRIVACY),
    "privacy": (*_DEFAULT, *_PRIVACY),
}

METRICS = (
    "probability",
    "extraction-strength",
    "exact-memorisation",
    "truth-ratio",
    "forget-quality",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What one audit runs.

    Attributes:
        profile: Name of the profile.
        entries: Attacks, in the order they run.
        metrics: Ids of the metrics.
        not_run: One sentence for each attack or metric that is left out.
    """

    profile: str
    entries: tuple[Entry, ...]
    metrics: tuple[str, ...]
    not_run: tuple[str, ...]


def plan(
    profile: str,
    only: Iterable[str] | None = None,
    skip: Iterable[str] = (),
    *,
    runtime: bool = False,
) -> Plan:
    """Choose the attacks.

    Args:
        profile: A key of `PROFILES`.
        only: Ids to run instead of the profile's, also ones the profile does not name.
        skip: Ids to leave out.
        runtime: Whether something stands in front of the model or in it beside its weights; then
            `EVASION` is run too.

    Raises:
        ExpungeError: ``E-USE-003`` for an unknown profile, ``E-USE-001`` for unknown attacks; all
            at once.
    """
    raise_all(plan_problems(profile, only, skip))
    known = {entry.id: entry for entry in (*PROFILES[profile], *([EVASION] if runtime else ()))}
    built, skipped = set(attacks.ids()), {_spelt(name) for name in skip}
    chosen = list(dict.fromkeys(map(_spelt, only))) if only is not None else list(known)
    entries = [known.get(id, Entry(id=id)) for id in chosen if id in built and id not in skipped]
    left_out = [f"{id}: not part of this installation" for id in chosen if id not in built]
    left_out += [f"{id}: left out by the options" for id in known if id in skipped - set(left_out)]
    if only is not None:
        left_out += [f"{id}: left out by the options" for id in known if id not in chosen]
    measured = set(metrics.ids())
    left_out += [f"{id}: not part of this installation" for id in METRICS if id not in measured]
    return Plan(
        profile=profile,
        entries=tuple(entries),
        metrics=tuple(id for id in METRICS if id in measured),
        not_run=tuple(dict.fromkeys(left_out)),
    )


def plan_problems(
    profile: str, only: Iterable[str] | None = None, skip: Iterable[str] = ()
) -> list[ExpungeError]:
    """Everything wrong with the choice of a profile and of attacks."""
    problems = []
    if profile not in PROFILES:
        problems.append(
            ExpungeError(
                "E-USE-003",
                f"There is no audit profile {profile!r}.",
                "one of " + ", ".join(PROFILES) + ".",
                nearest(profile, PROFILES),
            )
        )
    named = {entry.id for entries in PROFILES.values() for entry in entries}
    return problems + [
        _unknown(id, attacks)
        for id in (*(only or ()), *skip)
        if _spelt(id) not in {*attacks.ids(), *named}
    ]


def family_of(id: str) -> str:
    """The family of an attack, as its card says."""
    return str(attacks.card(id).extra["family"])


def level_of(id: str) -> str:
    """What an attack must get at, as its card says: B, L, W, P or D."""
    return str(attacks.card(id).extra["level"])


def threshold_of(id: str) -> float:
    """The gate of an attack, as its card says."""
    return float(attacks.card(id).extra.get("threshold", THRESHOLD))


def statistic_of(id: str) -> str:
    """What the gate of an attack looks at: ``recovery``, ``difference`` or ``cost``."""
    return str(attacks.card(id).extra.get("statistic", "recovery"))


def decides(id: str) -> bool:
    """Whether an attack may decide a verdict, rather than be reported only."""
    return bool(attacks.card(id).extra.get("decides", True))


def families_not_run(entries: Iterable[Entry]) -> list[str]:
    """Required families without an attack."""
    present = {family_of(entry.id) for entry in entries}
    return [family for family in REQUIRED if family not in present]


def _spelt(name: str) -> str:
    return name.replace("_", "-")


def _unknown(id: str, registry: Registry) -> ExpungeError:
    return ExpungeError(
        "E-USE-001",
        f"There is no attack {id!r}.",
        "the id of an attack (expunge attacks lists them).",
        nearest(_spelt(id), registry.ids()),
    )
