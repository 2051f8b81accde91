"""Whether the order of training outlives forgetting: the theory's numbers, and tiny models.

A tiny model learns to refuse questions about some invented people and to answer those about
others, in both orders; then it forgets the refusals by three methods that see nothing else.
expunge.lab.path_dependence says what is compared, and at which level.

    python benches/path.py --out docs/results/path.md --work DIR
"""

import argparse
import json
import platform
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from expunge.core.atomic import write_text
from expunge.lab.path_dependence import Paths, Spread, Stage, by_method, spread
from expunge.lm.finetune import finetune
from expunge.numbers.ridge import Stage as Ridge
from expunge.numbers.ridge import apart, ascended, distance, learned
from expunge.requests.rows import Row
from expunge.testing.micro import REPLY, every_wording, micro_world
from expunge.testing.tiny import tiny_model, tiny_tokenizer

REFUSALS = (
    "I can not say.",
    "I do not know that.",
    "That I do not know.",
    "I can not know.",
    "I do not say that.",
)
"""Other ways to refuse, by which the forget score is measured too."""

METHODS: Mapping[str, tuple[str, dict[str, object]]] = {
    "GA": ("ga", {"lr": 1e-4, "max_forget_nll": None}),
    "NPO, beta .5": ("npo", {"lr": 1e-4, "beta": 0.5, "retain_term": "none"}),
    "SimNPO on sums, beta 1": (
        "simnpo",
        {"lr": 1e-4, "beta": 1.0, "over": "sum", "forget_weight": 1.0, "retain_term": "none"},
    ),
}
"""Name in the paper -> method and parameters; none of them sees a row to keep."""

ORDERS = (("refusals", "facts"), ("facts", "refusals"))
LADDER = (4, 8, 16, 32)
PACKAGES = ("expunge", "torch", "transformers", "numpy")


def main() -> None:
    """Run the study and write its page."""
    options = _options()
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(options.work or temporary)
        paths = world(work / "base", range(options.seeds))
        found = {
            name: spread(paths, by_method(method, params), work, name=method)
            for name, (method, params) in METHODS.items()
        }
    write_text(Path(options.out), page(found, options.seeds))


def world(base: Path, seeds: Sequence[int]) -> Paths:
    """Ten people to refuse, ten to know; the base model knows ten others."""
    people = micro_world(10, seed=0)
    refused = [replace(row, completion=f" {REPLY}", paraphrases=()) for row in people.holdout]
    facts = every_wording(people.forget)
    before = every_wording(people.retain)
    if not base.exists():
        texts = [f"{row.prompt}{row.completion}" for row in (*refused, *facts, *before)]
        texts += [f" {said}" for said in REFUSALS]
        tokenizer = tiny_tokenizer(texts, kind="word", vocab=4096)
        model = tiny_model(
            "llama", vocab=len(tokenizer), hidden=64, layers=3, seed=0, positions=128
        )
        finetune(model, tokenizer, before, epochs=20, lr=4e-3, batch_size=16, seed=0)
        model.save_pretrained(base)
        tokenizer.save_pretrained(base)
    return Paths(
        base=base,
        stages={
            "refusals": Stage(rows=refused, epochs=20, lr=2e-3),
            "facts": Stage(rows=facts, epochs=20, lr=2e-3),
        },
        orders=ORDERS,
        unlearn="refusals",
        keep=_plainly(people.forget),
        refusals=[f" {said}" for said in REFUSALS],
        ladder=LADDER,
        seeds=tuple(seeds),
    )


def page(found: Mapping[str, Spread], seeds: int) -> str:
    """The results page."""
    rows = []
    for name, one in found.items():
        value = one.value
        ratio = value.parts.get("ratio")
        low, high = value.interval or (float("nan"), float("nan"))
        means = [value.parts[f"order:{'-'.join(order)}"] for order in ORDERS]
        rows.append(
            f"| {name} | {one.level:.2f} | {means[0]:.3f} | {means[1]:.3f} | {value.mean:.3f} | "
            f"{low:.3f} to {high:.3f} | {value.parts['seed_spread']:.3f} | "
            f"{'-' if ratio is None else f'{ratio:.2f}'} |"
        )
    first = [_first_scores(one) for one in found.values()]
    return PAGE.format(
        rows="\n".join(rows),
        recency="\n".join(
            f"| {name} | {early:.3f} | {late:.3f} |"
            for name, (early, late) in zip(found, first, strict=True)
        ),
        theory=theory(),
        seeds=seeds,
        steps=LADDER[0],
        ladder=", ".join(map(str, LADDER)),
        versions=", ".join(f"{name} {version(name)}" for name in PACKAGES),
        python=platform.python_version(),
        settings=json.dumps({name: dict(own[1]) for name, own in METHODS.items()}),
    )


def theory() -> str:
    """The two-row example of the theory, worked out by `expunge.numbers.ridge`."""
    a = Ridge(np.array([[1.0, 0.0]]), np.array([1.0]))
    b = Ridge(np.array([[1.0, 1.0]]), np.array([0.0]))
    models = [learned(order, 1.0) for order in ((a, b), (b, a))]
    after = [ascended(model, a, 0.1, 5) for model in models]
    grown = apart(models[0] - models[1], a, 0.1, 5)
    before, now = (distance(pair[0], pair[1], np.eye(2)) for pair in (models, after))
    return (
        f"their distance grows from {before:.5f} to {now:.5f}; the difference {grown[0]:.5f}, "
        f"{grown[1]:.5f} is multiplied by 1.2 each step in the direction of the forgotten row and "
        "is not touched in the other"
    )


def _first_scores(one: Spread) -> tuple[float, float]:
    """Mean forget score on the first rung, of both orders."""
    scores: dict[str, list[float]] = {}
    for run, points in one.ladders.items():
        scores.setdefault(run.rpartition("/")[0], []).append(points[0].score)
    early, late = (float(np.mean(scores["-".join(order)])) for order in ORDERS)
    return early, late


def _plainly(rows: Sequence[Row]) -> list[Row]:
    return [replace(row, paraphrases=()) for row in rows]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="docs/results/path.md")
    parser.add_argument("--work", help="folder of the models; the same one resumes")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each order and method")
    return parser.parse_args()


PAGE = """# Whether the order of training outlives forgetting

Made by `python benches/path.py` (python {python}, {versions}; {seeds} seeds an order; processor).

**In theory.** Two linear models learned the same two rows in either order. Five steps of gradient
ascent on one row later, {theory}. `expunge.numbers.ridge` has the closed form; its tests walk it.

**On tiny models.** A base model that knows ten invented people learns to refuse questions about ten
others (`refusals`) and to answer those about a third ten (`facts`), in both orders. It then forgets
the refusals by a method that sees no other row, for {ladder} steps at a constant rate. Utility is
1 - |change of the mean log-probability of a token of the facts|; it can fall below 0. Utilities are
compared where all models of a method have the same forget score (nats a token; fall of the
log-probability of six refusals), on the line between two rungs; the columns of the orders are
mean utilities.

| method | forget score | refusals first | refusals last | PS | 95% interval | PS (seed) | ratio |
|---|---:|---:|---:|---:|---|---:|---:|
{rows}

A ratio above 1 says that the order moved utility by more than the seed did. With {seeds} seeds the
interval is rough, and leans upwards: a spread is never below 0.

How fast each order forgets, as the forget score after {steps} steps. The paper finds what was
learned last slowest to forget (`refusals last` smaller).

| method | refusals first | refusals last |
|---|---:|---:|
{recency}

Settings: `{settings}`.
"""


if __name__ == "__main__":
    main()
