"""One optimiser step of every way to take it: the engine's, the plain one, the textbook's.

All ways of one shape train the same model in turn, on the same tokens, with one fused AdamW and
the same clip, so that only what happens between them differs.
"""

import gc
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from itertools import cycle
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import textbook
import torch
from torch import Tensor, nn
from torch.nn import functional

from expunge.core.registry import methods
from expunge.core.rng import generator
from expunge.engine.anchors import anchor_of
from expunge.engine.datasets import Datasets
from expunge.engine.forward import Inputs, packed_logits, stack
from expunge.engine.gradient import StepGradient
from expunge.engine.masks import AppliedMask
from expunge.engine.method import GradientMethod
from expunge.engine.slots.sample import Draw, Sampler
from expunge.engine.steering import direction
from expunge.engine.task import Task
from expunge.lm.arch import Slots
from expunge.lm.hooks import without_dropout
from expunge.lm.subject import Subject
from expunge.requests.rows import Row
from expunge.testing.tiny import tiny_model, tiny_tokenizer
from expunge.text.refusal import REFUSALS

LAYERS = 6
RATE = 1e-5
CLIP = 1.0
WORDS = 400
PLAIN, LEAN = "plain", "lean"
"""Not methods: fine-tuning with full logits, and with logits on supervised positions only."""

MIXED = ((36, 24), (48, 32), (56, 38), (64, 43)), ((40, 27), (50, 34), (62, 42), (64, 43))
"""Forget and retain rows as (tokens, supervised)."""

LENGTHS = {
    "mixed": MIXED,
    "long prompts": (((96, 24),) * 4, ((96, 24),) * 4),
    "short": (((24, 12),) * 2, ((24, 12),) * 2),
}
"""Name -> forget and retain rows: 420 tokens with 283 supervised, 768 with 192, 96 with 48."""

OVERRIDES: dict[str, dict[str, Any]] = {
    "undial": {"retain_term": "nll"},
    "altpo": {"source": "permute"},
    "elm": {"fluency_tokens": 40},
    "rmu": {"layer": LAYERS // 2 - 1},
    "arm": {"layer": LAYERS // 2 - 1},
}
"""Undial with a retain term, as it is used; hidden-state methods with their block half way up; what
methods generate before the first step is not part of a step, so as little of it as will do."""


@dataclass(frozen=True)
class Shape:
    """What is trained on what."""

    vocabulary: int
    width: int
    rows: str = "mixed"

    @property
    def name(self) -> str:
        """For tables: vocabulary/width, and the rows where they are not the usual ones."""
        thousands = f"{self.vocabulary // 1000}k/{self.width}"
        return thousands if self.rows == "mixed" else f"{thousands} {self.rows}"


@dataclass(frozen=True)
class Way:
    """One way to take a step.

    Attributes:
        name: Method, ``plain``, ``lean`` or ``textbook METHOD``.
        step: Does all of it: forward, backward, clip, update.
        moving: Parameters that ask for a gradient.
    """

    name: str
    step: Callable[[], None]
    moving: frozenset[nn.Parameter]


@dataclass(frozen=True)
class Fixed:
    """A method's own sampler, held to one draw of all rows: every step has the same tokens."""

    inner: Sampler
    rows: int
    steps_per_epoch: int = 1

    def draw(self, step: int) -> Draw:
        """The first draw, with every forget and retain row once."""
        made, everything = self.inner.draw(0), list(range(self.rows))
        rows = {**made.rows} | {role: everything for role in ("forget", "retain")}
        wording = {**made.wording} | {role: [0] * self.rows for role in ("forget", "retain")}
        changed = {"step": step, "rows": rows, "wording": wording, "epochs": [0] * self.rows}
        return replace(made, **{f.name: changed[f.name] for f in fields(made) if f.name in changed})


class Bench:
    """One shape: its model, its rows, and the ways to take a step on them."""

    def __init__(self, shape: Shape, *, layers: int = LAYERS, seed: int = 0) -> None:
        self.shape = shape
        tokenizer = tiny_tokenizer([*_words(), *REFUSALS], kind="word", vocab=shape.vocabulary)
        self.model = tiny_model(
            "llama_tied", vocab=shape.vocabulary, hidden=shape.width, layers=layers, seed=seed
        )
        self.model.train()
        subject = Subject(self.model, tokenizer)
        self.roles = rows_of(LENGTHS[shape.rows])
        self.task = Task(
            model=self.model, tokenizer=tokenizer, encoder=subject.encoder, roles=self.roles,
            seed=seed,
        )  # fmt: skip
        self.all = frozenset(self.model.parameters())
        self.frozen_forwards = 0

        def count(*_: Any) -> None:
            # A function, which deep copies share: a second model is counted as well.
            self.frozen_forwards += not torch.is_grad_enabled()

        Slots(self.model).blocks[0].register_forward_pre_hook(count)
        self.optimiser = torch.optim.AdamW(self.all, lr=RATE, weight_decay=0.0, fused=True)
        self.folder = tempfile.TemporaryDirectory()
        made = Datasets(self.task)
        self.batches = {
            role: made.batch([worded[0] for worded in made.items(role)]) for role in self.roles
        }

    def counts(self) -> dict[str, int]:
        """Tokens and supervised tokens of a step."""
        parts = self.batches.values()
        return {
            "tokens": int(sum(part.attention_mask.sum() for part in parts)),
            "supervised": sum(len(part.targets) for part in parts),
        }

    def plain(self) -> Way:
        """``model(..., labels=...)`` on forget and retain rows together."""
        joined = stack(list(self.batches.values()))
        labels = labels_of(joined)

        def loss() -> Tensor:
            return self.model(
                input_ids=joined.input_ids, attention_mask=joined.attention_mask, labels=labels,
                use_cache=False,
            ).loss  # fmt: skip

        return self._way(PLAIN, loss)

    def lean(self) -> Way:
        """The same loss, with logits on supervised positions only."""
        joined = stack(list(self.batches.values()))
        return self._way(
            LEAN,
            lambda: functional.cross_entropy(packed_logits(self.model, joined), joined.targets),
        )

    def opponent(self, method_id: str, second: nn.Module) -> Way:
        """The opponent, on ready-made batches."""
        params = methods.params(method_id, own_parameters(method_id))
        moving = self.all
        if method_id == "rmu":
            moving = self._prepared(method_id)[2]
            params = control(params, self.shape.width)
        loss, pair = textbook.LOSSES[method_id], self._pair()
        return replace(
            self._way(f"textbook {method_id}", lambda: loss(self.model, second, *pair, params)),
            moving=moving,
        )

    def method(self, method_id: str) -> Way:
        """The engine's own step, drawing and collating included."""
        gradient, mask, moving = self._prepared(method_id)
        numbers = iter(cycle(range(100)))

        def step() -> None:
            gradient(self.model, next(numbers), lambda loss: loss.backward())
            mask.on_gradients()
            self._update()
            mask.on_weights()

        return Way(method_id, step, moving)

    def _prepared(self, method_id: str) -> tuple[StepGradient, AppliedMask, frozenset[Any]]:
        method = assembled(method_id)
        for parameter in self.all:  # the mask of the method before may have frozen it
            parameter.requires_grad_(True)
        fresh: Any = {"state": {}, "tensors": {}, "paired": {}, "record": {}}
        task = replace(self.task, **fresh, params=method.params)
        if method.prepare is not None:
            with without_dropout(self.model):
                method.prepare(task, method.params)
        datasets = Datasets(task)
        mask = AppliedMask(self.model, method.mask(self.model, task, method.params))
        moving = frozenset(p for p in self.model.parameters() if p.requires_grad)
        sampler = Fixed(method.sample(task, method.params), len(self.roles["forget"]))
        anchor = anchor_of(
            self.model, method, datasets, sampler, steps=2, adapted=False,
            folder=Path(self.folder.name),
        )  # fmt: skip
        self.model.requires_grad_(True)
        return StepGradient(method, task, datasets, sampler, anchor, steps=100), mask, moving

    def _pair(self) -> tuple[textbook.Batch, textbook.Batch]:
        forget, retain = (as_textbook(self.batches[role]) for role in ("forget", "retain"))
        return forget, retain

    def _way(self, name: str, loss: Callable[[], Tensor]) -> Way:
        def step() -> None:
            loss().backward()
            self._update()

        return Way(name, step, self.all)

    def _update(self) -> None:
        nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.optimiser.step()

    def timed(self, way: Way) -> float:
        """CPU seconds of one step; choosing what moves and forgetting the gradient not counted."""
        for parameter in self.all:
            parameter.requires_grad_(parameter in way.moving)
        started = time.process_time()
        way.step()
        spent = time.process_time() - started
        self.optimiser.zero_grad(set_to_none=True)
        return spent


def measure(shape: Shape, chosen: Sequence[str], repeats: int, seed: int = 0) -> dict[str, Any]:
    """Median CPU seconds of every way, over interleaved repeats.

    Args:
        shape: What is trained on what.
        chosen: Methods; those with a textbook form are measured in it too.
        repeats: Steps of each way, after one that warms up.
        seed: Of weights and rows.

    Returns:
        The shape's name and sizes; of each way the median ``seconds``, their ``spread`` (quartile
        distance over the median) and ``frozen_forwards``: forward passes a step that ran without
        a gradient, after one step that warmed up.
    """
    bench = Bench(shape, seed=seed)
    second = deepcopy(bench.model).requires_grad_(False)
    ways = [bench.plain(), bench.lean(), *(bench.method(name) for name in chosen)]
    ways += [bench.opponent(name, second) for name in chosen if name in textbook.LOSSES]
    gc.collect()
    for way in ways:
        bench.timed(way)
    spent: dict[str, list[float]] = {way.name: [] for way in ways}
    frozen = dict.fromkeys(spent, 0)
    rng = generator(seed, "order")
    for _ in range(repeats):
        # Another order each time: whoever follows a large step finds a cold cache.
        for way in (ways[place] for place in rng.permutation(len(ways))):
            before = bench.frozen_forwards
            spent[way.name].append(bench.timed(way))
            frozen[way.name] += bench.frozen_forwards - before
    return {
        "shape": shape.name,
        "parameters": sum(p.numel() for p in bench.all),
        **bench.counts(),
        "seconds": {name: round(median(found), 5) for name, found in spent.items()},
        "spread": {name: round(_spread(found), 3) for name, found in spent.items()},
        "frozen_forwards": {name: count / repeats for name, count in frozen.items()},
    }


def own_parameters(method_id: str) -> dict[str, Any]:
    """What the bench sets of a method: its block, its retain term, the step's size."""
    return {"batch_size": 4, **OVERRIDES.get(method_id, {})}


def assembled(method_id: str) -> GradientMethod:
    """A method with the bench's parameters."""
    params = methods.params(method_id, own_parameters(method_id))
    return GradientMethod.assemble(methods.load(method_id), params)


def control(params: Any, width: int) -> SimpleNamespace:
    """Parameters of rmu as the textbook takes them: with the vector itself."""
    return SimpleNamespace(
        layer=params.layer,
        vector=params.steering * direction(0, "", width),
        include_first=False,
        forget_weight=params.forget_weight,
        retain_weight=params.retain_weight,
    )


def rows_of(lengths: Sequence[Sequence[tuple[int, int]]]) -> dict[str, list[Row]]:
    """Rows of these sizes; beginning and end tokens are counted in."""
    words = cycle(_words())
    roles = {}
    for role, sizes in zip(("forget", "retain"), lengths, strict=True):
        roles[role] = [
            _row(f"{role}{place}", role, total - supervised - 1, supervised - 1, words)
            for place, (total, supervised) in enumerate(sizes)
        ]
    return roles


def labels_of(inputs: Inputs) -> Tensor:
    """[B, T] with -100 where nothing is supervised."""
    labels = torch.full_like(inputs.input_ids, textbook.IGNORED)
    labels[:, 1:][inputs.keep[:, :-1]] = inputs.targets
    return labels


def as_textbook(inputs: Inputs) -> textbook.Batch:
    """The engine's batch as a collator would have made it."""
    return textbook.Batch(inputs.input_ids, inputs.attention_mask, labels_of(inputs))


def _row(name: str, role: str, asked: int, told: int, words: Iterator[str]) -> Row:
    prompt = " ".join(next(words) for _ in range(asked))
    reply = [next(words) for _ in range(told)]
    return Row(
        id=name, role=role, prompt=prompt, completion=" " + " ".join(reply), subject=name,
        names=(prompt.split()[0],), answer=reply[-1],
    )  # fmt: skip


def _words() -> list[str]:
    return [f"w{number}" for number in range(WORDS)]


def _spread(found: Sequence[float]) -> float:
    """Distance of the quartiles as a share of the median."""
    ordered = sorted(found)
    quarter = len(ordered) // 4
    return (ordered[-1 - quarter] - ordered[quarter]) / median(found)
