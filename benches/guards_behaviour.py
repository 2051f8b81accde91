"""What each guard holds back on the testbed, and what it costs those who ask for something else.

Every guard is fitted to the forget rows in one wording each, in front of the model that knows them
all, and asked in that wording, in others it has not seen, and in the evasions; then about rows to
be kept. The audit attacks it with the guard and past it. Nobody plays roles of language models
here: no model at hand could. A line that is in the record is kept. Writes
``benches/results/guards_behaviour.json`` and ``docs/results/guards_behaviour.md``.

Run again:  python benches/guards_behaviour.py [--seeds 3] [--guards lexical,eco] [--again]
"""

import argparse
import json
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

import expunge
from expunge.core.atomic import write_json, write_text
from expunge.core.errors import ExpungeError
from expunge.core.registry import guards
from expunge.lab import testbed
from expunge.lm.subject import Subject
from expunge.requests.evasions import FORMS
from expunge.requests.rows import Row, Turn
from expunge.text.match import leak

ROOT = Path(__file__).parent.parent
RECORD = ROOT / "benches/results/guards_behaviour.json"
PAGE = ROOT / "docs/results/guards_behaviour.md"
PACKAGES = ("expunge", "torch", "transformers")
NEW_TOKENS = 24
SETTINGS: Mapping[str, Mapping[str, Any]] = {"icul": {"variant": "icul_refuse"}}
"""What is set beside a guard's defaults: of `icul` the variant for questions and answers."""

ELSEWHERE = {
    "agent-mu": "is for agents: `expunge.lab.agents.study` is its study",
    "ipi-guard": "looks at retrieved text alone, and nothing is retrieved here",
}


def main() -> None:
    """Go through guards and seeds; write after each."""
    given = _options()
    torch.set_num_threads(1)
    lines: dict[str, Any] = {}
    if RECORD.is_file() and not given.again:
        lines = {line["key"]: line for line in json.loads(RECORD.read_text())["lines"]}
    chosen = [name for name in given.guards.split(",") if name] or list(guards.ids())
    plain = expunge.load(testbed.folder("original"))
    for seed in range(given.seeds):
        for guard in [*(["none"] if seed == 0 else []), *chosen]:
            key = f"{guard}/{seed}"
            if key in lines or guard in ELSEWHERE:
                continue
            lines[key] = {"key": key, "guard": guard, "seed": seed, **_measured(guard, seed, plain)}
            print(json.dumps(lines[key]), flush=True)
            _write(list(lines.values()))


def _measured(guard: str, seed: int, plain: Subject) -> dict[str, Any]:
    roles = {role: testbed.rows(role) for role in testbed.ROLES}
    asked = [replace(row, paraphrases=()) for row in roles["forget"]]
    begun = time.process_time()
    subject = plain
    if guard != "none":
        try:
            subject = expunge.guard(
                testbed.folder("original"),
                targets=asked,
                retain=roles["retain"],
                guard=guard,
                params=SETTINGS.get(guard, {}),
                chats={},
                seed=seed,
            ).subject
        except ExpungeError as error:
            return {"refused": error.code, "found": error.found}
    fitting = time.process_time() - begun
    reworded = [
        Row(id=f"{row.id}/{at}", prompt=one["prompt"], completion=row.reply, answer=row.value)
        for row in roles["forget"]
        for at, one in enumerate(row.paraphrases)
    ]
    kept = [*roles["retain"][:100], *roles["neighbour"]]
    own = _answers(subject, kept)
    begun = time.process_time()
    own_forget = _said(subject, asked)
    spent = time.process_time() - begun
    line = {
        "fitting": fitting,
        "own wording": own_forget,
        "other wordings": _said(subject, reworded),
        "retain": _said(subject, roles["retain"][:100]),
        "neighbour": _said(subject, roles["neighbour"]),
        "holdout": _said(subject, roles["holdout"]),
        "unchanged": fmean(a == b for a, b in zip(own, _answers(plain, kept), strict=True)),
        "milliseconds": spent / len(asked) * 1000,
    }
    return line | (_audited(subject, roles, asked, seed) if guard != "none" else {})


def _audited(
    subject: Subject, roles: Mapping[str, Sequence[Row]], asked: Sequence[Row], seed: int
) -> dict[str, Any]:
    audit = expunge.audit(
        subject,
        forget=asked,
        retain=roles["retain"],
        neighbour=roles["neighbour"],
        holdout=[replace(row, paraphrases=()) for row in roles["holdout"]],
        original=testbed.folder("original"),
        profile="fast",
        only=["direct", "prefix", "role", "evasion"],
        seed=seed,
    )
    evasion = audit.data["attacks"]["evasion"]
    parts = evasion["parts"]["model"]
    return {
        "verdict": str(audit.verdict),
        "evasion": evasion["recovery"],
        "worst form": max(parts.get(form, 0.0) for form in FORMS),
        "two-hop": parts.get("two-hop"),
        "past": audit.data["attacks"]["direct-past-runtime"]["recovery"],
        "utility": audit.data["utility"] and audit.data["utility"]["value"],
    }


def _answers(subject: Subject, rows: Sequence[Row]) -> list[str]:
    turns = [Turn(row.turn.prompt, "") for row in rows]
    return [texts[0] for texts in subject.ask(turns, new_tokens=NEW_TOKENS)]


def _said(subject: Subject, rows: Sequence[Row]) -> float:
    told = _answers(subject, rows)
    return fmean(leak(text, row.forms, row.reply) for row, text in zip(rows, told, strict=True))


def _write(lines: Sequence[Mapping[str, Any]]) -> None:
    versions = {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
    command = "python benches/guards_behaviour.py"
    record = {"command": command, "versions": versions, "lines": list(lines)}
    write_json(RECORD, record, indent=1)
    write_text(PAGE, page(record))


COLUMNS = {
    "own wording": "said, own wording",
    "other wordings": "said, other wordings",
    "worst form": "said, worst of 14 evasions",
    "two-hop": "said, not named",
    "retain": "said, to be kept",
    "neighbour": "said, neighbours",
    "unchanged": "kept answers unchanged",
    "past": "recovered past the guard",
    "fitting": "CPU-s to fit",
    "milliseconds": "CPU-ms an answer",
}


def page(record: Mapping[str, Any]) -> str:
    """The page, in Markdown."""
    by: dict[str, list[Mapping[str, Any]]] = {}
    for line in record["lines"]:
        by.setdefault(line["guard"], []).append(line)
    head = ["guard", "seeds", "verdict", *COLUMNS.values()]
    table = [f"| {' | '.join(head)} |", "|---|---:|---|" + "---:|" * len(COLUMNS)]
    refused = []
    for guard, lines in by.items():
        good = [line for line in lines if "refused" not in line]
        if not good:
            refused.append(f"- `{guard}`: {lines[0]['found']} ({lines[0]['refused']})")
            continue
        verdicts = " ".join(dict.fromkeys(line.get("verdict", "") for line in good))
        cells = [_mean([line.get(name) for line in good], name) for name in COLUMNS]
        table.append(f"| {guard} | {len(good)} | {verdicts} | {' | '.join(cells)} |")
    refused += [f"- `{guard}` {why}." for guard, why in ELSEWHERE.items()]
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    return "\n".join(
        [
            "# What guards hold back on the testbed", "",
            "Written by `benches/guards_behaviour.py`; do not edit.", "",
            "Eighty facts about eight people, in front of a model of a million parameters that",
            "knows them; every guard at its defaults (`icul` in its variant for questions and",
            "answers), fitted to one wording of each fact. *Said*: share of answers that give the",
            "fact away. Means over seeds. The audit here runs `direct`, `prefix`, `role` and",
            "`evasion`, with the guard and past it. Suppression is not deletion: past the guard",
            "all of it is there.", "",
            "No language model plays a role here, and the served model is small: **not measured",
            "with a capable model**. What `dragon` and `icul` write needs more positions than this",
            "model has for most questions; those are refused, and that is what shows.", "",
            *table, "", "Not in the table:", "", *refused, "",
            f"Run again: `{record['command']}`; {versions}.", "",
        ]
    )  # fmt: skip


def _mean(values: Sequence[float | None], name: str) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    mean = fmean(known)
    return f"{mean:.0f}" if name in ("fitting", "milliseconds") else f"{mean:.2f}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What guards hold back on the testbed.")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--guards", default="", help="only these")
    parser.add_argument("--again", action="store_true", help="measure what is in the record anew")
    return parser.parse_args()


if __name__ == "__main__":
    main()
