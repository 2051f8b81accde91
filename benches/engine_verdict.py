"""Time to the verdict: from a request to a changed model with its numbers, two ways.

*Textbook*: ten epochs of `textbook.npo`, with an evaluation after each, whose metrics make their
own passes over the model. *Ours*: ``forget`` with a stop level, then one evaluation whose passes
are shared; once at the level where the textbook ended, once at the default one. All on the
embedded testbed with its 80 forget rows, each in a process of its own whose whole CPU time
counts, start and imports included. The metrics, the batches of generations and the batch size of
training are the same.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from expunge.core.registry import metrics
from expunge.lab import testbed
from expunge.requests.rows import Row

EPOCHS = 10
TOKENS = 24
WARMUP = 1
WEIGHT_DECAY = 0.01
BATCH = 16
KEPT = ("retain", "neighbour")
"""Roles trained on as retain rows."""

USEFUL = ("retain", "known", "world")
"""Rows whose numbers make the utility, as TOFU has it: retain rows, real people, real facts."""

ANSWERS = ("probability", "rouge", "truth-ratio")
METRICS = {
    "forget": (*ANSWERS, "forget-quality", "extraction-strength", "exact-memorisation"),
    **dict.fromkeys(USEFUL, ANSWERS),
}
Scores = Mapping[str, Mapping[str, Any]]


def compare(seed: int) -> dict[str, Any]:
    """Both ways between the original and the reference.

    Returns:
        ``original`` and ``reference``: their numbers; ``textbook``, ``equal`` (ours at its level)
        and ``ours``: ``numbers``, ``cpu_seconds`` of the process, ``steps`` and ``evaluations``.
    """
    reference = testbed.folder("reference")
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "reference.json"
        log.write_text(json.dumps(truth_readings(_subject(reference))))
        known = json.loads(log.read_text())
        found = {
            name: evaluate(_subject(testbed.folder(name)), known)
            for name in ("original", "reference")
        }
        book = in_its_own_process("textbook", log, seed, "")
        levels = {"equal": f"nll={book['forget_nll']:.4f}", "ours": "placebo"}
        ways = {name: in_its_own_process("ours", log, seed, at) for name, at in levels.items()}
    return {"seed": seed, "epochs": EPOCHS, **found, "textbook": book, **ways}


def in_its_own_process(way: str, log: Path, seed: int, stop_at: str) -> dict[str, Any]:
    """Run one way; its CPU seconds are those of the whole process.

    Raises:
        RuntimeError: When it fails.
    """
    out = log.with_name(f"{way}.json")
    command = (sys.executable, __file__, way, str(log), str(out), str(seed), stop_at)
    child = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(f"the {way} way ended with {child.returncode}")
    found: dict[str, Any] = json.loads(out.read_text())
    return found | {"cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2)}


def ours(known: Scores, seed: int, stop_at: str) -> dict[str, Any]:
    """``forget`` as it is, and one evaluation."""
    from expunge.engine.run import forget

    with tempfile.TemporaryDirectory() as folder:
        done = forget(
            testbed.folder("original"), testbed.rows("forget"), testbed.rows("retain"),
            neighbour=testbed.rows("neighbour"), holdout=testbed.rows("holdout"),
            method="npo", stop_at=stop_at, seed=seed, out=Path(folder) / "change",
        )  # fmt: skip
        numbers = evaluate(_subject(Path(folder) / "change"), known)
    return {"steps": done["steps"], "evaluations": 1, "numbers": numbers}


def book(known: Scores, seed: int, stop_at: str) -> dict[str, Any]:
    """Ten epochs at the rate ``auto`` stands for, each followed by an evaluation."""
    import textbook
    import torch
    from torch import nn

    from expunge.core.registry import methods
    from expunge.core.rng import generator
    from expunge.engine import rates

    torch.set_num_threads(1)
    subject = _subject(testbed.folder("original"))
    model, params = subject.model, methods.params("npo", {})
    second = deepcopy(model).requires_grad_(False)
    forget = [_encoded(subject, row) for row in testbed.rows("forget")]
    retain = [_encoded(subject, row) for role in KEPT for row in testbed.rows(role)]
    size = sum(p.numel() for p in model.parameters())
    lr = rates.learning_rate(params, size, adapter=False)
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=WEIGHT_DECAY, fused=True)
    per_epoch = -(-len(forget) // BATCH)
    steps, warmup = EPOCHS * per_epoch, WARMUP * per_epoch
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda s: min((s + 1) / warmup, (steps - s) / max(1, steps - warmup))
    )
    rng, trail = generator(seed, "textbook"), []
    for _ in range(EPOCHS):
        model.train()
        order = rng.permutation(len(forget))
        for start in range(0, len(order), BATCH):
            some = [forget[i] for i in order[start : start + BATCH]]
            beside = [retain[i] for i in rng.integers(len(retain), size=len(some))]
            pair = (_batch(subject, some), _batch(subject, beside))
            textbook.npo(model, second, *pair, params).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            optimiser.zero_grad()
        model.eval()
        trail.append(evaluate(subject, known, shared=False))
    return {
        "steps": steps, "evaluations": EPOCHS, "lr": lr, "numbers": trail[-1], "trail": trail,
        "forget_nll": forget_nll(subject),
    }  # fmt: skip


WAYS: dict[str, Callable[[Scores, int, str], dict[str, Any]]] = {"textbook": book, "ours": ours}


def evaluate(subject: Any, known: Scores, *, shared: bool = True) -> dict[str, float | None]:
    """The numbers of a model.

    Args:
        subject: The model.
        known: The reference's readings on the forget rows.
        shared: Whether metrics share readings; otherwise each has its own passes made (forget
            quality still takes the truth ratio's, as published code does).

    Returns:
        Metric on forget rows -> its mean, and ``utility``: the harmonic mean of what `ANSWERS`
        give on `USEFUL` rows.
    """
    numbers: dict[str, float | None] = {}
    parts: dict[str, float | None] = {}
    known_rows = testbed.all_rows()
    for role, names in METRICS.items():
        rows, readings = known_rows[role], None
        for name in names:
            if readings is None or not (shared or name == "forget-quality"):
                readings = _readings(subject, rows)
            value = _value(name, role, readings, known)
            if role == "forget":
                numbers[name] = value.mean
                numbers |= {f"{name}.d": value.parts["d"]} if "d" in value.parts else {}
            else:
                parts[f"{role}.{name}"] = value.mean
    return {**numbers, "utility": _compute("model-utility", {"parts": parts}).mean}


def forget_nll(subject: Any) -> float:
    """Mean over the tokens of the forget rows in all their wordings, as ``--stop-at`` has it."""
    turns = [turn for row in testbed.rows("forget") for turn in row.turns]
    scored = [-float(value) for one in subject.score(turns) for value in one.logp]
    return sum(scored) / len(scored)


def truth_readings(subject: Any) -> dict[str, dict[str, Any]]:
    """What forget quality compares with."""
    readings = _readings(subject, testbed.rows("forget"))
    return {name: dict(readings.get(name)) for name in ("paraphrase_nll", "wrong_nll")}


def _value(name: str, role: str, readings: Any, known: Scores) -> Any:
    needs = metrics.card(name).needs
    scores = {
        need: {row.id: row.reply for row in readings.rows}
        if need == "reply"
        else readings.get(need)
        for need in needs
        if need != "reference"
    }
    asked = {"rows": "keep"} if name == "truth-ratio" and role in USEFUL else {}
    return _compute(name, scores, known if "reference" in needs else None, **asked)


def _compute(name: str, scores: Scores, reference: Scores | None = None, **asked: Any) -> Any:
    return metrics.load(name).compute(scores, metrics.params(name, asked), reference)


def _readings(subject: Any, rows: Sequence[Row]) -> Any:
    from expunge.lm.readings import Readings

    return Readings(subject, rows, TOKENS)


def _subject(folder: Path) -> Any:
    from expunge.lm.load import load
    from expunge.lm.subject import Subject

    loaded = load(folder)
    return Subject(loaded.model, loaded.tokenizer, digest=loaded.digest)


def _encoded(subject: Any, row: Row) -> Any:
    return subject.encoder.encode(row.training)


def _batch(subject: Any, items: Sequence[Any]) -> Any:
    import textbook

    from expunge.data.encode import collate
    from expunge.lm.scoring import padding_id

    made = collate([replace(item, row=0) for item in items], padding_id(subject.tokenizer))
    return textbook.Batch(made.input_ids, made.attention_mask, made.labels)


def _run_one() -> None:
    asked = argparse.ArgumentParser(description="One way, for `in_its_own_process`.")
    asked.add_argument("way", choices=WAYS)
    asked.add_argument("log", type=Path)
    asked.add_argument("out", type=Path)
    asked.add_argument("seed", type=int)
    asked.add_argument("stop_at")
    given = asked.parse_args()
    found = WAYS[given.way](json.loads(given.log.read_text()), given.seed, given.stop_at)
    given.out.write_text(json.dumps(found))


if __name__ == "__main__":
    _run_one()
