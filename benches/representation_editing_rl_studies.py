"""One small study per family, on docs/results/representation_editing_rl.md.

python benches/representation_editing_rl_studies.py [--seeds 3] [--studies r2mu,alphaedit]
"""

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import fmean, harmonic_mean
from typing import Any

import numpy as np
from baselines import opened
from representation_editing_rl import TABLE
from studies import Found, Study, carry_out, listed, model, said, unlearned, world

from expunge.audit.run import audit
from expunge.core.rng import generator
from expunge.engine.exact.capacity import expected_deletions, simulated_deletions
from expunge.engine.exact.sequences import cyclic
from expunge.engine.run import forget
from expunge.engine.stream import forget_stream
from expunge.lm.finetune import finetune
from expunge.lm.subject import Subject
from expunge.methods.r2mu import CUE
from expunge.requests.rows import Row, Turn
from expunge.testing import tiny_model, tiny_tokenizer
from expunge.testing.micro import every_wording
from expunge.testing.people import REPLY, knowing, people
from expunge.text.refusal import is_refusal

SAYS = {"target": "text", "text": REPLY}
PLACE = {"fact_token": "last", "layers": (1,), "contexts": 0}
"""Where the model of `expunge.testing.people` looks facts up; it knows no texts to put in front."""
SMALL = {"v_weight_decay": 0.01}
"""Values of a small model are short, and a weight that is divided by their length rules them."""
OPEN = {"threshold": 0.02, "l2": 0.1}
"""A null space of a small model that leaves some room to write into."""


@contextmanager
def at(subject: Subject) -> Iterator[Path]:
    """A model on disk."""
    with tempfile.TemporaryDirectory() as folder:
        subject.model.save_pretrained(folder)
        subject.tokenizer.save_pretrained(folder)
        yield Path(folder)


def first_words(subject: Subject, rows: Sequence[Row], wanted: Sequence[str]) -> float:
    """Share of rows whose first word is the wanted one."""
    answers = subject.ask([row.turn for row in rows], new_tokens=1)
    return fmean(float(text.strip() == word) for (text,), word in zip(answers, wanted, strict=True))


def values(rows: Sequence[Row]) -> list[str]:
    """What each row says."""
    return [row.reply.strip() for row in rows]


@cache
def thinkers(seed: int) -> tuple[Subject, tuple[Row, ...], tuple[Row, ...]]:
    """A model that answers at once or thinks first, rows to be forgotten, rows to be kept."""
    draw = generator(seed, "thinkers")
    rows = [
        Row(id=f"P{at}/{what}", prompt=f"P{at} {what}", completion=f" v{draw.integers(30)}")
        for at in range(12)
        for what in ("born", "works", "likes")
    ]
    taught = [one for row in rows for one in (row, thinking(row))]
    tokenizer = tiny_tokenizer(
        [f"{row.prompt}{row.completion}" for row in taught], kind="word", vocab=256
    )
    fresh = tiny_model("llama", vocab=len(tokenizer), hidden=64, layers=4, seed=seed, positions=64)
    finetune(fresh, tokenizer, taught, steps=200, lr=3e-3, batch_size=36, seed=seed)
    return Subject(fresh, tokenizer), tuple(rows[:9]), tuple(rows[9:])


def thinking(row: Row) -> Row:
    """The same, asked to think first: the value is thought, then said."""
    said = f" hm{row.completion}{row.completion}"
    return replace(row, id=f"{row.id}/thought", prompt=f"{row.prompt}{CUE}", completion=said)


def r2mu(seed: int) -> Found:
    """How likely values are where they are said at once, thought, and said after the thought."""
    subject, given, kept = thinkers(seed)
    shared = {
        "layer": 2, "retain_weight": 10.0, "max_steps": 120, "lr": 4e-3, "warmup": 0,
        "positions": "answer",
    }  # fmt: skip
    found = {"original": _thought(subject, given, kept)}
    with at(subject) as before:
        file = before / "reasoning.jsonl"
        rows = [one.as_dict() for one in map(thinking, kept)]
        file.write_text("\n".join(map(json.dumps, rows)) + "\n")
        more = {"reasoning": str(file), "reasoning_weight": 10.0, "trace_written": 3}
        for method, own in (("rmu", {}), ("r2mu", more)):
            out = before / method
            forget(
                before, given, kept, method=method, params={**shared, **own}, stop_at="none",
                seed=seed, out=out,
            )  # fmt: skip
            found[method] = _thought(opened(out), given, kept)
    return found


def _thought(subject: Subject, given: Sequence[Row], kept: Sequence[Row]) -> dict[str, float]:
    at_once, (thought, said) = _likely(subject, given)[0], _likely(subject, _thinking(given))[1:3]
    reasoning = _likely(subject, _thinking(kept))[1:3]
    return {
        "answered at once": at_once,
        "thought": thought,
        "said after the thought": said,
        "kept, answered at once": _likely(subject, kept)[0],
        "kept, thought and said": fmean(reasoning),
    }


def _thinking(rows: Sequence[Row]) -> list[Row]:
    return [thinking(row) for row in rows]


def _likely(subject: Subject, rows: Sequence[Row]) -> list[float]:
    """Mean probability of the first, second, ... token of the answers."""
    scored = subject.score([Turn(str(row.prompt), str(row.completion)) for row in rows])
    return [float(p) for p in np.mean([np.exp(one.logp) for one in scored], 0)]


def alphaedit(seed: int) -> Found:
    """Eight requests, one person each, edited one after another."""
    subject, facts = knowing(seed), people(seed)
    found: dict[str, dict[str, float]] = {}
    with at(subject) as before:
        for name, method, more in (
            ("rome", "rome", {}),
            ("memit", "memit", {}),
            ("alphaedit", "alphaedit", OPEN),
        ):
            path = before / "requests.jsonl"
            path.write_text("\n".join(json.dumps(line) for line in _persons(facts.forget)) + "\n")
            done = forget_stream(
                before, path, retain=facts.retain, method=method, stop_at="none", seed=seed,
                params={**PLACE, **SAYS, **SMALL, **more}, out=before / name,
            )  # fmt: skip
            last = opened(Path(done["model"]))
            found[name] = {
                "first request refused": _refused(last, facts.forget[:4]),
                "all requests refused": _refused(last, facts.forget),
                "forgotten said": first_words(last, facts.forget, values(facts.forget)),
                "kept said after four": _kept_after(before / name / "0004", facts.retain),
                "kept said": first_words(last, facts.retain, values(facts.retain)),
            }
    return found


def _kept_after(folder: Path, rows: Sequence[Row]) -> float:
    return first_words(opened(folder), rows, values(rows))


def _refused(subject: Subject, rows: Sequence[Row]) -> float:
    return first_words(subject, rows, [REPLY] * len(rows))


def _persons(rows: Sequence[Row]) -> list[dict[str, Any]]:
    named: dict[str, list[Row]] = {}
    for row in rows:
        named.setdefault(str(row.subject), []).append(row)
    return [{"id": name, "forget": [row.as_dict() for row in own]} for name, own in named.items()]


def unierase(seed: int) -> Found:
    """What is forgotten and kept by a token that refuses, by other edits and by training."""
    subject, facts = knowing(seed), people(seed)
    trained = {"max_steps": 60, "lr": 1e-3, "batch_size": 16, "warmup": 0}
    found: dict[str, dict[str, float]] = {}
    with at(subject) as before:
        for method, more in (
            ("npo", trained),
            ("idk-nll", trained),
            ("memit", {**PLACE, **SAYS}),
            ("alphaedit", {**PLACE, **SAYS, **OPEN}),
            ("unierase", {**PLACE, **SAYS, **OPEN, "v_num_grad_steps": 25}),
        ):
            out = before / method
            forget(
                before, facts.forget, facts.retain, method=method, params=more, stop_at="none",
                seed=seed, out=out,
            )  # fmt: skip
            made = opened(out)
            left = first_words(made, facts.forget, values(facts.forget))
            kept = first_words(made, facts.retain, values(facts.retain))
            found[method] = {
                "forgotten said": left,
                "forgotten refused": _declined_at_once(made, facts.forget),
                "kept said": kept,
                "balance": harmonic_mean([1 - left, kept]),
            }
    return found


def _declined_at_once(subject: Subject, rows: Sequence[Row]) -> float:
    answers = subject.ask([row.turn for row in rows], new_tokens=4)
    return fmean(float(REPLY in text) for (text,) in answers)


REQUESTS = 10


def o3(seed: int) -> Found:
    """Ten requests of two rows each, one after another."""
    facts = world(seed)
    rows = facts.forget[: 2 * REQUESTS]
    lines = [
        {"id": f"{at}", "forget": [row.as_dict() for row in rows[2 * at : 2 * at + 2]]}
        for at in range(REQUESTS)
    ]
    found: dict[str, dict[str, float]] = {}
    for method in ("npo", "o3"):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "requests.jsonl"
            path.write_text("\n".join(json.dumps(line) for line in lines) + "\n")
            done = forget_stream(
                model(seed), path, retain=facts.retain, method=method, seed=seed,
                params={"max_steps": 60, "batch_size": 8, "warmup": 0}, out=Path(folder) / "out",
            )  # fmt: skip
            last = opened(Path(done["model"]))
            found[f"{method}, 10 requests"] = {
                "forgotten rows said": said(last, rows),
                "first request said": said(last, rows[:2]),
                "kept rows said": said(last, facts.retain),
            }
    return found


REWARDED = {"lr": 3e-4, "accumulation": 1, "new_tokens": 12}


def rule(seed: int) -> Found:
    """What is refused and answered, in wordings that were trained on and in others."""
    people = world(seed)
    told = [replace(row, paraphrases=row.paraphrases[:-1]) for row in people.forget]
    own = every_wording(told)
    other = [row for row in every_wording(people.forget) if row.prompt not in _prompts(own)]
    found: dict[str, dict[str, float]] = {}
    for method, more in (
        ("idk-nll", {}),
        ("rule", {"max_steps": 75, "forget_share": 1.0, "boundary_share": 3.0, **REWARDED}),
        ("purge", {"num_generations": 8, "retain_share": 3, "steer": "always", **REWARDED}),
    ):
        subject = unlearned(seed, method, of="refusing", rows=own, **more)
        found[method] = {
            "forgotten rows said": said(subject, own),
            "refused": _declined(subject, own),
            "said, unseen wordings": said(subject, other),
            "refused, unseen wordings": _declined(subject, other),
            "kept rows said": said(subject, people.retain),
            "kept rows refused": _declined(subject, people.retain),
        }
    return found


def _prompts(rows: Sequence[Row]) -> set[Any]:
    return {row.prompt for row in rows}


def _declined(subject: Subject, rows: Sequence[Row]) -> float:
    answers = subject.ask([row.turn for row in rows], new_tokens=12)
    return fmean(float(is_refusal(text)) for (text,) in answers)


SHARDS, PLAYED = 5, 400


def s3t(seed: int) -> Found:
    """How many deletions until every shard has to be trained from its first slice, and the price.

    Prices are in trainings of one adapter on all rows.
    """
    found: dict[str, dict[str, float]] = {}
    for name, slices, sequences in (
        ("sisa, 6 slices", 6, 1),
        ("s3t, 6 slices, 2 sequences", 6, 2),
        ("s3t, 6 slices, 3 sequences", 6, 3),
        ("s3t, 6 slices, 6 sequences", 6, 6),
        ("sisa, 20 slices", 20, 1),
    ):
        orders = cyclic(range(slices), sequences)
        played = simulated_deletions(SHARDS, orders, runs=PLAYED, seed=seed)
        anew = [sum(range(hit + 1, slices + 1)) / slices / SHARDS for hit in range(slices)]
        found[name] = {
            "building": sequences * (slices + 1) / 2,
            "deletions, closed form": expected_deletions(SHARDS, slices, sequences),
            "deletions, played": fmean(played),
            "price of a deletion till then": fmean(anew) if sequences == 1 else 0.0,
        }
    return found


CONCEPT_ATTACKS = ("direct", "prefix", "lens")


def concept_vectors(seed: int) -> Found:
    """What attacks get back of what each method forgot."""
    facts = world(seed)
    original = opened(model(seed))
    found: dict[str, dict[str, float]] = {}
    for name, method, more in (
        ("idk-nll", "idk-nll", {}),
        ("npo", "npo", {}),
        ("concept-vectors, noise", "concept-vectors", {"max_steps": None}),
        ("concept-vectors, emptied", "concept-vectors", {"max_steps": None, "mode": "zero"}),
    ):
        made = unlearned(seed, method, **more)
        told = audit(
            made, forget=facts.forget, retain=facts.retain, original=original,
            profile="fast", only=CONCEPT_ATTACKS,
        ).data  # fmt: skip
        found[name] = {
            **{id: told["attacks"][id]["recovery"] for id in CONCEPT_ATTACKS},
            "utility": told["utility"]["value"],
        }
    return found


STUDIES: Mapping[str, Study] = {
    "r2mu": Study(
        "r2mu: what is thought before it is said",
        "The paper: after rmu reasoning still gives the answer away, and rmu costs the ability to "
        "reason; r2mu forgets both and keeps reasoning.",
        r2mu,
        lambda m: (
            m["r2mu"]["thought"] < m["rmu"]["thought"] - 0.1
            and m["r2mu"]["kept, thought and said"] > m["rmu"]["kept, thought and said"] + 0.1
        ),
        lambda m: (
            f"probability of the value in the thought: {listed(m, 'thought')}; of the reasoning "
            f"that is kept: {listed(m, 'kept, thought and said')}."
        ),
    ),
    "alphaedit": Study(
        "alphaedit against rome and memit: eight requests in sequence",
        "The paper: edits inside the null space of what is kept, that also leave earlier edits "
        "alone, keep a model whole over a sequence that breaks it with rome.",
        alphaedit,
        lambda m: (
            m["alphaedit"]["kept said"] > m["rome"]["kept said"] + 0.1
            and m["alphaedit"]["forgotten said"] < m["rome"]["forgotten said"] + 0.1
        ),
        lambda m: (
            f"kept facts said at the end: {listed(m, 'kept said')}; forgotten ones said: "
            f"{listed(m, 'forgotten said')}; refused: {listed(m, 'all requests refused')}."
        ),
    ),
    "unierase": Study(
        "unierase: balance",
        "The paper: a token that refuses, and edits to say it, forget as much as the best and keep "
        "more. Balance: harmonic mean of what is no longer said and what is kept.",
        unierase,
        lambda m: all(
            m["unierase"]["balance"] > row["balance"] + 0.02
            for name, row in m.items()
            if name != "unierase"
        ),
        lambda m: (
            f"balance: {listed(m, 'balance')}; forgotten ones refused: "
            f"{listed(m, 'forgotten refused')}."
        ),
    ),
    "o3": Study(
        "o3 against npo: ten requests in sequence",
        "The paper: without rows to be kept, adapters behind a detector keep what a sequence of "
        "trainings loses. npo has rows to be kept here, o3 looks at none.",
        o3,
        lambda m: (
            m["o3, 10 requests"]["kept rows said"] > m["npo, 10 requests"]["kept rows said"] + 0.02
            and m["o3, 10 requests"]["forgotten rows said"] < 0.2
        ),
        lambda m: (
            f"kept rows said: {listed(m, 'kept rows said')}; forgotten: "
            f"{listed(m, 'forgotten rows said')}; of the first request: "
            f"{listed(m, 'first request said')}."
        ),
    ),
    "rule": Study(
        "rule and purge: refusals in other words",
        "The papers: on-policy rewards refuse what is to be forgotten also in wordings that were "
        "not trained on, and answer the rest.",
        rule,
        lambda m: all(
            m[method]["said, unseen wordings"] < 0.2
            and m[method]["refused, unseen wordings"] > 0.5
            and m[method]["kept rows said"] > 0.9
            for method in ("rule", "purge")
        ),
        lambda m: (
            f"refused in unseen wordings: {listed(m, 'refused, unseen wordings')}; said there: "
            f"{listed(m, 'said, unseen wordings')}; kept rows said: {listed(m, 'kept rows said')}."
        ),
    ),
    "s3t": Study(
        "s3t against sisa: deletions until nothing is left",
        "The paper: several orders of the slices survive more deletions than one, and a deletion "
        "that switches adapters off trains nothing. 5 shards, deletions that hit any row.",
        s3t,
        lambda m: (
            m["s3t, 6 slices, 3 sequences"]["deletions, played"]
            > 1.2 * m["sisa, 6 slices"]["deletions, played"]
            and all(
                abs(row["deletions, played"] / row["deletions, closed form"] - 1) < 0.05
                for row in m.values()
            )
        ),
        lambda m: (
            f"deletions, closed form: {listed(m, 'deletions, closed form')}. Where building may "
            "cost as much as that of three sequences, sisa with 20 slices lasts longer still; what "
            "s3t saves is the training at each deletion (sisa: "
            f"{m['sisa, 6 slices']['price of a deletion till then']:.2f} of a training)."
        ),
    ),
    "concept-vectors": Study(
        "concept-vectors against methods that move what is said",
        "The paper: prompts that get round a refusal find what such methods left, and find nothing "
        "where the vectors that hold a concept are disturbed.",
        concept_vectors,
        lambda m: all(
            max(m["concept-vectors, noise"][id] for id in CONCEPT_ATTACKS)
            < max(m[other][id] for id in CONCEPT_ATTACKS)
            for other in ("idk-nll", "npo")
        ),
        lambda m: (
            f"share recovered by direct questions: {listed(m, 'direct')}; by a given beginning: "
            f"{listed(m, 'prefix')}; utility: {listed(m, 'utility')}."
        ),
    ),
}

if __name__ == "__main__":
    sys.exit(carry_out(TABLE, STUDIES))
