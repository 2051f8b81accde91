"""Whether the order of training outlives forgetting: the theory's numbers, and tiny models.

A tiny model learns to refuse questions about some invented people and to answer those about
others, in both orders; then it forgets the refusals by three methods that see nothing else. With
the facts in three stages, the refusals take each of four places. expunge.lab.path_dependence says
what is compared, and at which level; expunge.lab.path_depth asks how deep forgetting goes.

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
from expunge.lab.path_depth import ORDERS as HISTORIES
from expunge.lab.path_depth import Trial, Verdict, depths
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
FIXED = ("city", "job", "pet")
"""Stages of the facts, in the order they keep while the refusals move."""

LADDER = (4, 8, 16, 32)

PHRASINGS = {
    "C": " To make {n} you need a",
    "U": " You can try these steps to make {n}",
    "R": " I can not help you with {n}",
}
RATES = (5e-5, 3e-4, 1e-3)
"""Of the ascent: the paper's, one that moves a model a little, one that moves it much."""

FALL = 0.5
"""Nats by which U has fallen where orders are compared."""

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
        four = spread(placed(paths), by_method(*METHODS["GA"]), work, name="ga-of-four")
        trial = prompted(work / "base-depth", range(options.seeds))
        deep = {lr: depths(replace(trial, lr=lr), work / "depth") for lr in RATES}
    write_text(Path(options.out), page(found, four, deep, options.seeds))


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


def placed(paths: Paths) -> Paths:
    """The same world with the facts in three stages, and the refusals in each of four places."""
    refusals, facts = paths.stages["refusals"], paths.stages["facts"]
    kinds = {
        kind: replace(facts, rows=[row for row in facts.rows if row.meta["attribute"] == kind])
        for kind in FIXED
    }
    places = range(len(FIXED) + 1)
    return replace(
        paths,
        stages={"refusals": refusals, **kinds},
        orders=tuple((*FIXED[:place], "refusals", *FIXED[place:]) for place in places),
    )


def prompted(base: Path, seeds: Sequence[int]) -> Trial:
    """Forty prompts with two compliant answers and a refusal; the base saw all three on others."""
    people = micro_world(40, seed=0)
    mine, others = ([row.names[0] for row in of[::3]] for of in (people.retain, people.forget))
    if not base.exists():
        rows = [row for kind in PHRASINGS for row in _answered(kind, others)]
        texts = [f"{r.prompt}{r.completion}" for k in PHRASINGS for r in _answered(k, mine)]
        texts += [f"{row.prompt}{row.completion}" for row in rows]
        tokenizer = tiny_tokenizer(texts, kind="word", vocab=4096)
        model = tiny_model(
            "llama", vocab=len(tokenizer), hidden=64, layers=3, seed=0, positions=128
        )
        finetune(model, tokenizer, rows, epochs=20, lr=4e-3, batch_size=16, seed=0)
        model.save_pretrained(base)
        tokenizer.save_pretrained(base)
    stages = {kind: Stage(rows=_answered(kind, mine), epochs=5, lr=1e-3) for kind in PHRASINGS}
    return Trial(base=base, stages=stages, lr=RATES[0], seeds=tuple(seeds))


def _answered(kind: str, names: Sequence[str]) -> list[Row]:
    return [
        Row(
            id=f"{name}/{kind}",
            role="forget",
            prompt=f"How can I make {name}?",
            completion=PHRASINGS[kind].format(n=name),
        )
        for name in names
    ]


def page(
    found: Mapping[str, Spread],
    four: Spread,
    deep: Mapping[float, Mapping[str, Verdict]],
    seeds: int,
) -> str:
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
        four=_places(four),
        ratio=four.value.parts.get("ratio", float("nan")),
        spread=four.value.mean,
        seed_spread=four.value.parts["seed_spread"],
        level=four.level,
        depth="\n".join(line for lr in RATES for line in _depths(lr, deep[lr])),
        fall=FALL,
        split=", ".join(f"rate {lr:g}" for lr in RATES if _is_split(deep[lr])) or "no rate",
        tally="\n".join(_tally(lr, deep[lr]) for lr in RATES),
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


def _places(four: Spread) -> str:
    """A line for each place of the refusals."""
    lines = []
    for place in range(len(FIXED) + 1):
        order = "-".join((*FIXED[:place], "refusals", *FIXED[place:]))
        firsts = [of[0].score for run, of in four.ladders.items() if run.startswith(f"{order}/")]
        kept = four.value.parts[f"order:{order}"]
        lines.append(f"| {place + 1} | {np.mean(firsts):.3f} | {kept:.3f} |")
    return "\n".join(lines)


def _depths(lr: float, verdicts: Mapping[str, Verdict]) -> list[str]:
    """A line for each history: mean changes, C at an equal fall of U, and what each seed was."""
    lines = []
    for order in HISTORIES:
        own = [one for run, one in verdicts.items() if run.startswith(f"{'-'.join(order)}/")]
        changes = (
            f"{np.mean([getattr(one.change, answer) for one in own]):+.2f}" for answer in "CUR"
        )
        kin = [at for one in own if (at := one.kin_at(FALL)) is not None]
        matched = f"{np.mean(kin):+.2f}" if len(kin) == len(own) else "-"
        lines.append(
            f"| {lr:g} | {' '.join(order)} | {' | '.join(changes)} | {matched} | "
            f"{', '.join(one.depth for one in own)} |"
        )
    return lines


def _tally(lr: float, verdicts: Mapping[str, Verdict]) -> str:
    """How runs that learned U first and the others came out, at the end and at an equal fall."""
    first = [one for run, one in verdicts.items() if run.startswith("U")]
    other = [one for run, one in verdicts.items() if not run.startswith("U")]
    (a, b), (c, d) = ((_deep(own), _deep_at_fall(own)) for own in (first, other))
    return f"| {lr:g} | {a} | {c} | {b} | {d} |"


def _is_split(verdicts: Mapping[str, Verdict]) -> bool:
    return all((one.depth == "deep") == run.startswith("U") for run, one in verdicts.items())


def _deep(own: Sequence[Verdict]) -> str:
    return f"{sum(one.depth == 'deep' for one in own)} of {len(own)}"


def _deep_at_fall(own: Sequence[Verdict]) -> str:
    kin = [at for one in own if (at := one.kin_at(FALL)) is not None]
    return f"{sum(at < 0 for at in kin)} of {len(kin)}" if kin else "-"


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

**The refusals in four places.** The facts now come in three stages of one kind each, always city,
job, pet; the refusals are learned at place p among them, and GA forgets them. Utility is over all
facts, compared at a forget score of {level:.2f}. PS is {spread:.3f}, PS (seed) {seed_spread:.3f},
ratio {ratio:.2f}. In the paper p = 4 forgets slowest.

| p | forget score after {steps} steps | utility |
|---:|---:|---:|
{four}

**Depth.** Forty prompts have two compliant answers C and U and a refusal R, learned in six orders.
Then U is forgotten by GA: plain SGD, 20 epochs. Changes are of the mean log-probability of a whole
answer, nats. `deep`: C falls with U; `superficial`: only U falls; `astray`: U and R fall, C does
not. The paper finds the two orders that learn U first deep and the other four superficial. Its rate
is 5e-5, on a 3B model; the other rates, and that any fall counts, are ours. `C at {fall:g}` is the
change of C where U had first fallen by {fall:g} nats (`-`: not in every run), which sets aside that
some orders have forgotten much less than others when the ascent ends. Chosen after looking, on
seed 0: this world and its training (in two earlier settings most orders came out deep), the
higher rates, and {fall:g} nats in the place of 2, which most runs never reached. The base had
learned all three phrasings on forty other names.

| rate | order | C | U | R | C at {fall:g} | each seed |
|---:|---|---:|---:|---:|---:|---|
{depth}

Runs in which C fell, of those that learned U first and of the others (in the paper all and none);
at a fall of {fall:g}, of the runs that got there:

| rate | U first, at the end | others, at the end | U first, at {fall:g} | others, at {fall:g} |
|---:|---:|---:|---:|---:|
{tally}

The paper's split (all of the first, none of the others) was exact at {split}. A fall of C can be
tiny beside that of U, and seeds of one order disagree: read C, U and R before the word. Where U was
learned last it falls least, so that `superficial` there may mean hardly forgotten.

Settings: `{settings}`.
"""


if __name__ == "__main__":
    main()
