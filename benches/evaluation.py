"""What an evaluation costs: TOFU's numbers of a tiny model, over the plain way.

The plain way takes one row at a time, and every metric makes its own passes. CPU time of one
process on one thread, both ways in the same run; the values of every row are compared. Writes
``benches/results/evaluation.json`` (``evaluation_tofu.json`` with ``--tofu``), and from both
``docs/results/evaluation.md``.

Run again:  python benches/evaluation.py [--tofu DIR] [--rows 200] [--repeats 3] [--seed 0]
"""

import argparse
import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import evaluation_page
import torch
from evaluation_plain import Plain
from evaluation_world import Sets, sets_of, taught

from expunge.core.atomic import write_json, write_text
from expunge.lm.readings import readings
from expunge.lm.subject import Subject
from expunge.testing import measure

ROOT = Path(__file__).parent.parent
RECORD = ROOT / "benches/results/evaluation.json"
ON_TOFU = ROOT / "benches/results/evaluation_tofu.json"
PAGE = ROOT / "docs/results/evaluation.md"
PACKAGES = ("expunge", "torch", "transformers", "numpy")
NEW_TOKENS = 200
LARGER = (128, 4)
"""Width and layers of a model for comparison."""


class Number(NamedTuple):
    """One number of TOFU: a metric, its parameters, and the readings it is made of."""

    metric: str
    needs: Sequence[str]
    params: Mapping[str, Any] = {}


PLAIN = Number("probability", ["nll"])
AMONG = Number("probability", ["nll", "wrong_nll"], {"among": "options"})
ROUGE = Number("rouge", ["generation"])
RATIO = Number("truth-ratio", ["paraphrase_nll", "wrong_nll"])
OWN_RATIO = Number("truth-ratio", ["nll", "wrong_nll"], {"truth": "answer"})
EXTRACTION = Number("extraction-strength", ["token_hit"])
MEMORISATION = Number("exact-memorisation", ["token_hit"])
NUMBERS = {
    "forget": (PLAIN, ROUGE, RATIO, EXTRACTION, MEMORISATION),
    "retain": (PLAIN, ROUGE, RATIO),
    "real_authors": (AMONG, ROUGE, OWN_RATIO),
    "world_facts": (AMONG, ROUGE, OWN_RATIO),
}
"""Set -> its numbers, as the benchmark has them."""

Values = dict[str, dict[str, dict[str, float]]]
Texts = dict[str, dict[str, str]]


def main() -> None:
    """Measure, write the record, and the page from the records there are."""
    given = _options()
    torch.set_num_threads(1)
    sets = sets_of(given.tofu, given.rows)
    shape = {"hidden": given.hidden, "layers": given.layers}
    subject = taught(sets, **shape, epochs=given.epochs, seed=given.seed)
    record = {
        **compare(subject, sets, given.repeats),
        "rows": {name: len(of) for name, of in sets.items()},
        "larger": larger(sets, given),
        "data": "TOFU's own files" if given.tofu else "invented rows in TOFU's shape",
        "parameters": sum(weight.numel() for weight in subject.model.parameters()),
        **shape,
        "epochs": given.epochs,
        "seed": given.seed,
        "command": "python benches/evaluation.py" + (" --tofu DIR" if given.tofu else ""),
        "versions": {"python": platform.python_version(), **{p: version(p) for p in PACKAGES}},
    }
    write_json(ON_TOFU if given.tofu else RECORD, record, indent=1)
    records = [json.loads(path.read_text()) for path in (RECORD, ON_TOFU) if path.exists()]
    write_text(PAGE, evaluation_page.page(records))


def larger(sets: Sets, given: argparse.Namespace) -> dict[str, Any]:
    """The same with a model of a million parameters, once: where arithmetic outweighs overhead."""
    hidden, layers = LARGER
    subject = taught(sets, hidden=hidden, layers=layers, epochs=given.epochs, seed=given.seed)
    found = compare(subject, sets, repeats=1)
    return {"hidden": hidden, "layers": layers, "cpu_seconds": found["cpu_seconds"]}


def compare(subject: Subject, sets: Sets, repeats: int) -> dict[str, Any]:
    """Evaluate both ways in turn; of each the fastest time counts, since others use the machine.

    Returns:
        CPU seconds and work of both, and how their values differ.
    """
    plain = Plain(subject, NEW_TOKENS)
    warm_up(subject, plain, sets)
    slow, fast = [], []
    for _ in range(repeats):
        plain.passes = plain.written = 0
        subject = Subject(subject.model, subject.tokenizer, digest=subject.digest)
        seconds, (slow_values, slow_texts) = timed(lambda: plainly(plain, sets))
        slow.append(seconds)
        seconds, (fast_values, fast_texts) = timed(lambda: together(subject, sets))  # noqa: B023
        fast.append(seconds)
    return {
        "cpu_seconds": {"plain": min(slow), "ours": min(fast)},
        "work": {
            "plain": {"passes": plain.passes, "generated": plain.written},
            "ours": asdict(subject.work),
        },
        "differences": differences(slow_values, fast_values),
        "texts": text_differences(subject, plain, sets, slow_texts, fast_texts),
    }


def plainly(plain: Plain, sets: Sets) -> tuple[Values, Texts]:
    """Every metric with passes of its own."""
    values: Values = {}
    texts: Texts = {}
    for name, rows in sets.items():
        values[name] = {}
        for number in NUMBERS[name]:
            found = plain.readings(rows, number.needs)
            texts[name] = found.get("generation", texts.get(name, {}))
            values[name] |= computed(number, found, rows)
    return values, texts


def together(subject: Subject, sets: Sets) -> tuple[Values, Texts]:
    """All metrics from the same readings."""
    needs = dict.fromkeys(need for of in NUMBERS.values() for one in of for need in one.needs)
    everything = [row for rows in sets.values() for row in rows]
    found = readings(subject, everything, needs, new_tokens=NEW_TOKENS)
    values: Values = {}
    texts: Texts = {}
    for name, rows in sets.items():
        mine = {
            need: {row.id: of[row.id] for row in rows if row.id in of} for need, of in found.items()
        }
        texts[name], values[name] = mine["generation"], {}
        for number in NUMBERS[name]:
            values[name] |= computed(number, mine, rows)
    return values, texts


def computed(number: Number, found: Mapping[str, Any], rows: Sequence[Any]) -> dict[str, Any]:
    """Metric -> row id -> value."""
    scores = {**found, "reply": {row.id: row.reply for row in rows}}
    return {number.metric: measure(number.metric, scores, **number.params).per_row}


def differences(slow: Values, fast: Values) -> dict[str, float]:
    """Set and metric -> largest difference of a row's value; the text's metric left out."""
    found: dict[str, float] = {}
    for name, of in slow.items():
        for metric, rows in of.items():
            if rows.keys() != fast[name][metric].keys():
                raise ValueError(f"{name}, {metric}: not the same rows")
            if metric != ROUGE.metric:
                found[f"{name} {metric}"] = max(
                    abs(value - fast[name][metric][row]) for row, value in rows.items()
                )
    return found


def text_differences(
    subject: Subject, plain: Plain, sets: Sets, slow: Texts, fast: Texts
) -> dict[str, Any]:
    """How many answers differ, and how close the two best tokens are where they part."""
    gaps = [
        gap_at_parting(subject, plain, row, slow[name][row.id], fast[name][row.id])
        for name, rows in sets.items()
        for row in rows
        if slow[name][row.id] != fast[name][row.id]
    ]
    total = sum(len(rows) for rows in sets.values())
    return {"rows": total, "different": len(gaps), "largest_gap": max(gaps, default=0.0)}


def gap_at_parting(subject: Subject, plain: Plain, row: Any, one: str, other: str) -> float:
    """Difference of the two largest logits where two answers to a row part."""
    prompt = subject.encoder.prompt(row.turn.prompt)
    begun = [subject.encoder.prompt(row.turn.prompt, opening=text) for text in (one, other)]
    same = next(
        (at for at, pair in enumerate(zip(*begun, strict=False)) if pair[0] != pair[1]),
        min(map(len, begun)),
    )
    return plain.top_two(begun[0][: max(same, len(prompt))])


def warm_up(subject: Subject, plain: Plain, sets: Sets) -> None:
    """Both ways on two rows that neither will meet again; nothing of it is counted."""
    few = {name: list(rows)[:1] for name, rows in sets.items()}
    plainly(plain, few)
    together(Subject(subject.model, subject.tokenizer), few)
    plain.passes = plain.written = 0


def timed(way: Callable[[], tuple[Values, Texts]]) -> tuple[float, tuple[Values, Texts]]:
    """CPU seconds of this process, and what came out."""
    began = time.process_time()
    found = way()
    return time.process_time() - began, found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tofu", type=Path, help="folder with TOFU's files; default invented rows")
    parser.add_argument("--rows", type=int, default=200, help="most rows of a set")
    parser.add_argument("--epochs", type=int, default=8, help="how long the model learns them")
    parser.add_argument("--hidden", type=int, default=32)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3, help="times both ways are taken")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
