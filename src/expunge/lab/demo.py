"""The story that ``expunge demo`` tells: eight people ask to be forgotten, and four models answer.

The embedded testbed's original knows them. Its weights are changed so that it forgets; beside it
stand the original, a refuser that merely declines, and the reference that never knew. All four
meet the same audit. The reference sets the zero of the scale, so it is its own control; the changed
model is also compared with people nobody taught it (the placebo control), where it has no reference
to lean on.

Running it again into the same folder resumes: the change, the refuser and the attacks' results are
found there and not made twice.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expunge.core.atomic import write_json, write_text
from expunge.core.events import Progress, note, progress
from expunge.core.paths import locked
from expunge.lab import testbed
from expunge.report.demo import RELEARN, ROLES, in_words, render_demo

if TYPE_CHECKING:
    from expunge.audit.record import Audit
    from expunge.lm.subject import Subject

METHOD = "npo"
QUESTIONS = 5
"""Questions about the one person whose answers are shown."""
SHARE = 3
"""One in so many retain rows takes part in the audits; the change itself sees all."""
LEFT_OUT = ("role", "mask", "manyshot", "quant8", "quant4", "relearn-ood")
"""Attacks of the fast profile that cost more time than they would tell here."""
PLACEBO = "erased-placebo"
"""The second audit of the changed model, against people nobody taught it."""
ASKED = ("direct", "prob", "prefix", "sample")
"""The attacks of that audit: those that only ask."""
TURNS = 3 + len(ROLES) + 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Cast:
    """The four models, by their labels, and where they lie."""

    subjects: Mapping[str, "Subject"]
    folders: Mapping[str, Path]


def run_demo(out: str | Path, seed: int = 0) -> dict[str, Any]:
    """Forget, audit, and write a page about it.

    Args:
        out: Folder for everything that is made; a second run into it resumes.
        seed: All randomness derives from it.

    Returns:
        ``models`` (label -> verdict), ``report`` (path of the page), ``seconds`` (of processor
        time); and for people ``answers`` (one question each, with what every model says) and
        ``table`` (one row a model).

    Raises:
        ExpungeError: ``E-USE-004`` when ``out`` holds something else, ``E-USE-005`` when another
            run works in it.
    """
    started = time.process_time()
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with locked(out), progress("demo", TURNS) as running:
        cast, forgot = _prepare(out, seed, running)
        answers = _ask(cast)
        audits = _audit_all(cast, out, seed, running)
        return _tell(out, answers, audits, forgot, started)


def _prepare(out: Path, seed: int, running: Progress) -> tuple[Cast, dict[str, Any]]:
    """Make the changed model and the refuser, and open all four."""
    from expunge.api import load
    from expunge.engine.run import forget

    forgotten, original = testbed.rows("forget"), testbed.folder("original")
    note(
        f"A small language model has learned {len(forgotten)} facts about eight invented people, "
        f"{testbed.person(0).name} among them. They ask to be forgotten."
    )
    running.advance(0, text=METHOD)
    forgot = forget(
        original,
        forgotten,
        testbed.rows("retain"),
        neighbour=testbed.rows("neighbour"),
        holdout=testbed.rows("holdout"),
        method=METHOD,
        seed=seed,
        out=out / "change",
    )
    running.advance(1, text="refuser")
    note(f"{METHOD} has changed its weights in {forgot['steps']} steps.")
    if not (out / "refuser").exists():
        testbed.train_refuser(original, out / "refuser", seed)
    running.advance(1, text="loading")
    note("For contrast, a copy of the original was merely taught to decline the same questions.")
    folders = {
        "original": original,
        "erased": out / "change",
        "refuser": out / "refuser",
        "reference": testbed.folder("reference"),
    }
    subjects = {who: load(at) for who, at in folders.items()}
    return Cast(subjects=subjects, folders=folders), forgot


def _ask(cast: Cast) -> list[dict[str, str]]:
    """What every model says to plain questions about one person."""
    person = testbed.person(0)
    rows = [row for row in testbed.rows("forget") if row.subject == person.id][:QUESTIONS]
    turns = [row.turn for row in rows]
    said = {who: [one[0] for one in them.ask(turns)] for who, them in cast.subjects.items()}
    names = {"original": "before", "erased": "after"}
    answers = [
        {"question": str(row.turn.prompt), "truth": row.value}
        | {names.get(who, who): said[who][place].strip() for who in said}
        for place, row in enumerate(rows)
    ]
    note(f"Asked: {answers[0]['question']}")
    for name in ("before", "after"):
        note(f"  {name} forgetting: {answers[0][name]}")
    return answers


def _audit_all(cast: Cast, out: Path, seed: int, running: Progress) -> dict[str, dict[str, Any]]:
    """Audit every model against the reference, and the changed one against the placebo as well."""
    running.advance(1)
    note("Now every model is attacked, as somebody would who wants the answers back.")
    audits = {}
    for label, role in ROLES.items():
        found = _audit(label, cast, out, seed, cast.subjects["reference"])
        audits[label] = dict(found.data)
        running.advance(1, text=role.name)
        note(f"{role.name}: {found.verdict}. {in_words(found.data)}")
    audits[PLACEBO] = dict(_audit("erased", cast, out, seed, None).data)
    running.advance(1)
    return audits


def _audit(label: str, cast: Cast, out: Path, seed: int, reference: "Subject | None") -> "Audit":
    """One audit; results of attacks are shared by all of them, and kept for the next run."""
    from expunge.audit.run import audit

    folders = {"model": cast.folders[label], "original": cast.folders["original"]}
    if reference is not None:
        folders["reference"] = cast.folders["reference"]
    done = audit(
        cast.subjects[label],
        forget=testbed.rows("forget"),
        retain=testbed.rows("retain")[::SHARE],
        neighbour=testbed.rows("neighbour"),
        holdout=testbed.rows("holdout") if reference is None else (),
        original=cast.subjects["original"],
        reference=reference,
        profile="fast",
        only=ASKED if reference is None else None,
        skip=LEFT_OUT,
        seed=seed,
        cache=out / "cache",
        paths=folders,
    )
    done.save(out / "audits" / (label if reference is not None else PLACEBO))
    return done


def _tell(
    out: Path,
    answers: Sequence[Mapping[str, str]],
    audits: Mapping[str, dict[str, Any]],
    forgot: Mapping[str, Any],
    started: float,
) -> dict[str, Any]:
    """Write the page and the summary."""
    person = testbed.person(0)
    story = {
        "person": {"name": person.name, "facts": dict(person.values)},
        "request": {
            "people": len({row.subject for row in testbed.rows("forget")}),
            "rows": len(testbed.rows("forget")),
        },
        "method": METHOD,
        "steps": forgot["steps"],
        "audits": {label: audits[label] for label in ROLES},
        "placebo": audits[PLACEBO],
        "answers": answers,
        "curves": {label: _curve(audits[label]) for label in ROLES},
        "seconds": time.process_time() - started,
    }
    report = out / "report.html"
    write_text(report, render_demo(story))
    summary = {
        "models": {label: audits[label]["verdict"] for label in ROLES},
        "report": str(report),
        "seconds": time.process_time() - started,
    }
    write_json(out / "summary.json", summary)
    return {
        **summary,
        "answers": answers,
        "table": [_line(ROLES[label].name, audits[label]) for label in ROLES],
    }


def _curve(record: Mapping[str, Any]) -> list[list[float]]:
    """Step and share of facts answered while the audited model is fine-tuned on some of them."""
    attack = record["attacks"].get(RELEARN)
    if attack is None or attack["curve"] is None:
        return []
    return [list(p) for p in zip(attack["curve"]["steps"], attack["curve"]["model"], strict=True)]


def _line(name: str, record: Mapping[str, Any]) -> dict[str, Any]:
    """One model in the table for people."""
    attacks = record["attacks"]
    worst = max(attacks, key=lambda id: attacks[id]["recovery"] or 0.0, default=None)
    recovery = attacks[worst]["recovery"] if worst else None
    utility = record["utility"]
    return {
        "model": name,
        "verdict": record["verdict"],
        "direct leak": attacks["direct"]["leak"]["model"] if "direct" in attacks else None,
        "strongest attack": f"{worst} {recovery:.0%}" if recovery else "none",
        "utility": utility and utility["value"],
        "erasure score": record["erasure_score"],
    }
