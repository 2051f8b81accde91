"""The page of `benches/engine.py`: tables, bars, and whether they hold."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Record = dict[str, Any]
Ratio = Callable[[Record, str], float]


def over_plain(shape: Record, method: str) -> float:
    """CPU time of a step in plain steps."""
    return shape["seconds"][method] / shape["seconds"]["plain"]


def over_lean(shape: Record, method: str) -> float:
    """CPU time of a step in plain steps with logits on supervised positions only."""
    return shape["seconds"][method] / shape["seconds"]["lean"]


def gain(shape: Record, method: str) -> float:
    """CPU time of the textbook's step in steps of ours."""
    return shape["seconds"][f"textbook {method}"] / shape["seconds"][method]


@dataclass(frozen=True)
class Bar:
    """What a ratio must be.

    Attributes:
        words: What is compared.
        method: Of which method.
        ratio: How it is computed.
        bound: The number.
        at_most: Whether the ratio must stay below it, or reach it.
        applies: To which shapes.
    """

    words: str
    method: str
    ratio: Ratio
    bound: float
    at_most: bool
    applies: Callable[[Record], bool]

    def line(self, shapes: Sequence[Record]) -> str:
        """One line of the table of bars: the worst shape decides."""
        asked = [s for s in shapes if self.applies(s) and self.method in s["seconds"]]
        if not asked:
            return f"| {self.words} | {self._sign} {self.bound} | not measured | | |"
        found = {s["shape"]: self.ratio(s, self.method) for s in asked}
        worst = (max if self.at_most else min)(found, key=lambda name: found[name])
        holds = found[worst] <= self.bound if self.at_most else found[worst] >= self.bound
        cells = [self.words, f"{self._sign} {self.bound}", f"{found[worst]:.2f}", worst]
        return f"| {' | '.join(cells)} | {'held' if holds else '**not held**'} |"

    @property
    def _sign(self) -> str:
        return "at most" if self.at_most else "at least"


def everywhere(shape: Record) -> bool:
    """Every shape with the usual rows."""
    return not is_long(shape)


def is_long(shape: Record) -> bool:
    """At most a quarter of the positions supervised."""
    return shape["supervised"] <= 0.25 * shape["tokens"]


def is_small(shape: Record) -> bool:
    """The usual rows at a vocabulary of 2k."""
    return everywhere(shape) and shape["shape"].startswith("2k")


def is_wide(shape: Record) -> bool:
    """The usual rows at a vocabulary of 32k or more."""
    return everywhere(shape) and not is_small(shape)


def is_wide_and_long(shape: Record) -> bool:
    """Long prompts at a vocabulary of 32k or more."""
    return is_long(shape) and not shape["shape"].startswith("2k")


BARS = (
    Bar("npo over the plain step", "npo", over_plain, 1.1, True, everywhere),
    Bar("simnpo over the plain step", "simnpo", over_plain, 1.1, True, everywhere),
    Bar("npo over the lean step", "npo", over_lean, 1.2, True, everywhere),
    Bar("simnpo over the lean step", "simnpo", over_lean, 1.2, True, everywhere),
    Bar("kl-min over the plain step", "kl-min", over_plain, 1.5, True, everywhere),
    Bar("undial over the plain step", "undial", over_plain, 1.25, True, everywhere),
    Bar("rmu, half way up, over the plain step", "rmu", over_plain, 0.5, True, everywhere),
    Bar("textbook npo over ours, vocabulary 2k", "npo", gain, 1.15, False, is_small),
    Bar("textbook npo over ours, vocabulary 32k", "npo", gain, 1.35, False, is_wide),
    Bar("the same, a quarter supervised", "npo", gain, 2.0, False, is_wide_and_long),
    Bar("textbook kl-min over ours", "kl-min", gain, 1.1, False, everywhere),
    Bar("textbook rmu over ours", "rmu", gain, 1.9, False, everywhere),
)


VERDICTS = {
    "original": "original",
    "reference": "reference",
    "textbook": "textbook",
    "equal": "ours, to the textbook's level",
    "ours": "ours, to the default level",
}
"""Part of the record -> its name on the page."""


def page(record: Record) -> str:
    """All of it, as Markdown."""
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    took = f"; {record['cpu_seconds']} CPU seconds" if "cpu_seconds" in record else ""
    lines = [
        "# What the engine costs",
        "",
        f"Written by `make bench` (`{record['command']}`, seed {record['seed']}; {versions};",
        f"one thread{took}). Ratios of CPU time, interleaved in one process; a ratio moves by",
        "some 10% from run to run on a busy machine.",
    ]
    for part in (steps, verdict, memory, share):
        if part.__name__ in record:
            lines += ["", *part(record[part.__name__])]
    return "\n".join([*lines, ""])


def steps(shapes: Sequence[Record]) -> Iterator[str]:
    """Bars, then the tables they come from."""
    yield from ("## Bars", "", "The worst shape decides.", "")
    yield from ("| bar | asked | measured | worst shape | |", "|---|---|---:|---|---|")
    yield from (bar.line(shapes) for bar in BARS)
    yield from (
        "",
        "## One step",
        "",
        "Six-layer Llama shapes with a tied head, named vocabulary/width; forward, backward, clip,",
        "fused AdamW on all weights that move; median of interleaved steps after one that warms",
        "up. *Plain*: `model(..., labels=...)` on forget and retain rows together, ready-made.",
        "*Lean*: the same with logits on supervised positions only. Methods draw and collate their",
        "rows in the time that is measured. Those without a retain term run half of the tokens.",
        "Undial has `retain_term=nll`; rmu and arm steer the third block of six. The last column",
        "counts forward passes a step that ran without a gradient once caches were warm: anchors.",
    )
    usual = [shape for shape in shapes if everywhere(shape)]
    yield from _table("Over the plain step", usual, over_plain, frozen=True)
    yield from _table("Over the lean step", usual, over_lean)
    yield from (
        "",
        "## Over the textbook way",
        "",
        "`benches/textbook.py`: a forward for the forget rows and another for the retain rows, a",
        "live second model for the anchor, full logits and log-softmax at every position. Its step",
        "in steps of ours; long prompts are 8 rows of 96 tokens with 24 supervised.",
        "",
        *_head(["method", *(shape["shape"] for shape in shapes)]),
    )
    for method in _with_textbook(shapes[0]):
        yield _row(method, [f"{gain(s, method):.2f}" for s in shapes if method in s["seconds"]])


def verdict(found: Record) -> Iterator[str]:
    """Seconds and numbers of both ways."""
    book, equal = found["textbook"], found["equal"]
    yield from (
        "## Time to the verdict",
        "",
        "npo on the embedded testbed (80 forget rows). *Textbook*: 10 epochs of the step above at",
        f"the rate `auto` stands for ({book['lr']:g}), an evaluation after each in which every",
        "metric makes its own passes (generations are batched as ours are). *Ours*: `forget` to a",
        "stop level, then one evaluation with shared passes: once with `--stop-at` the forget NLL",
        f"at which the textbook ended ({book['forget_nll']:.2f} nats), once as it is by default.",
        "CPU seconds of the whole process, imports included.",
        "",
    )
    numbers = ("forget-quality", "forget-quality.d", "utility", "probability", "rouge")
    yield from _head(["model", "CPU-s", "steps", "evaluations", *numbers])
    for key, name in VERDICTS.items():
        one = found[key]
        values = one.get("numbers", one)
        cells = [_cell(one.get(each)) for each in ("cpu_seconds", "steps", "evaluations")]
        yield _row(name, [*cells, *(_cell(values[number]) for number in numbers)])
    spent = equal["cpu_seconds"] / book["cpu_seconds"]
    by_default = found["ours"]["cpu_seconds"] / book["cpu_seconds"]
    yield from (
        "",
        f"At the textbook's level ours took {spent:.2f} of its time (asked: at most 0.2: "
        f"{'held' if spent <= 0.2 else '**not held**'}).",
        f"{_compared(equal['numbers'], book['numbers'])}",
        f"To the default level it took {by_default:.2f}: "
        f"{_compared(found['ours']['numbers'], book['numbers'])}",
    )


def _compared(ours: Record, book: Record) -> str:
    """Whether one model's numbers are at least the other's."""
    told = []
    for name, sign in (("forget-quality.d", -1), ("utility", 1)):
        word = "no worse" if sign * ours[name] >= sign * book[name] else "**worse**"
        told.append(f"{name} {_cell(ours[name])} against {_cell(book[name])}, {word}")
    return "; ".join(told) + "."


def memory(found: Record) -> Iterator[str]:
    """Peaks over the plain step's."""
    yield from (
        "## Peak memory of a step",
        "",
        f"A model of {found['weights_bytes'] / 4e6:.0f}M parameters in float32, 4 short rows, two",
        "steps with fused AdamW, each way in a process of its own. Largest resident size, as the",
        "difference to the plain step in sizes of the weights: a second model is 1. Rmu is below 0",
        "because optimiser and gradients hold three matrices only. Where the head is trained,",
        "kl-min and undial keep a frozen copy of it beside the cached hidden states: here",
        f"{found['head_share']:.2f} of the weights, because the model is small and wide.",
        "",
        *_head(["method", "ours", "textbook"]),
    )
    ways = found["ways"]
    for name in [name for name in ways if f"textbook {name}" in ways]:
        pair = (ways[name], ways[f"textbook {name}"])
        yield _row(name, [f"{one['over_plain']:+.2f}" for one in pair])


def share(found: Record) -> Iterator[str]:
    """Where one command spends its time."""
    total = found["cpu_seconds"]
    yield from (
        "## Where `forget` spends its time",
        "",
        f"npo at its defaults on the testbed (1M parameters), {found['steps']} steps,",
        f"{total:.1f} CPU seconds.",
        "",
        *_head(["part", "CPU-s", "share", "calls"]),
    )
    for name, part in found["parts"].items():
        percent = f"{part['seconds'] / total:.0%}"
        yield _row(name, [f"{part['seconds']:.2f}", percent, str(part["calls"])])


def _table(
    title: str, shapes: Sequence[Record], ratio: Ratio, *, frozen: bool = False
) -> Iterator[str]:
    names = [n for n in shapes[0]["seconds"] if n != "plain" and not n.startswith("textbook")]
    heads = [title, *(shape["shape"] for shape in shapes)]
    yield from ("", *_head([*heads, *(["frozen forwards"] if frozen else [])]))
    for name in names:
        cells = [f"{ratio(shape, name):.2f}" for shape in shapes]
        yield _row(name, [*cells, *([f"{shapes[0]['frozen_forwards'][name]:g}"] if frozen else [])])


def _with_textbook(shape: Record) -> list[str]:
    return [name for name in shape["seconds"] if f"textbook {name}" in shape["seconds"]]


def _head(names: Sequence[str]) -> list[str]:
    return [f"| {' | '.join(names)} |", "|---|" + "---:|" * (len(names) - 1)]


def _row(name: str, cells: Sequence[str]) -> str:
    return f"| {name} | {' | '.join(cells)} |"


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
