"""What a planned run of ``forget`` will do, counted: passes, tokens, checkpoints.

The counts follow the engine: a step draws its rows and pads them together; the forget level is
measured some forty times on the way, the retain level before and after; a checkpoint is written
every twentieth of the run. `expunge.engine.estimate` puts prices on them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil

import numpy as np

from expunge.core.families import GradientParams, ReinforcementParams
from expunge.core.registry import methods
from expunge.data.encode import Encoded
from expunge.engine.counts import VALUE, Pass, Size, Voices, Work, adapter_weights, size_of
from expunge.engine.measure import ITEMS
from expunge.engine.method import GradientMethod
from expunge.engine.plan import Plan
from expunge.engine.reinforcement.work import rollouts, steering
from expunge.engine.wrappers import modules_of

MEASUREMENTS = 40
"""As in `expunge.engine.session`, which would load every library here; a test compares them."""

CHECKPOINT_SHARE = 0.05
"""As in `expunge.engine.checkpoints`, likewise."""

BATCH = 32
"""Items of one forward pass without gradient."""

LEVELS = 3
"""Times both levels are taken besides those on the way: at the start, before training, after."""

HALF = 2
"""Bytes of a bfloat16 value."""

GROUP = 64
"""Weights that share a scale of VALUE bytes, as in `expunge.lm.int4`."""

ROOM = 1 << 30
"""As in `expunge.engine.anchors`, likewise; a test compares them."""

JOINED = 1.15
"""Views whose padded lengths differ by no more than this share one forward pass."""


def work_of(plan: Plan, encoded: Mapping[str, Sequence[Encoded]], steps: int) -> Work:
    """Count what a run will do.

    Args:
        plan: The resolved request.
        encoded: Role -> its rows in all their wordings, as token ids.
        steps: Optimiser steps.
    """
    params, folder = plan.params, plan.folder
    size = size_of(folder.parameters, folder.config, folder.tensors)
    forget = encoded.get("forget", ())
    kept = [*encoded.get("retain", ()), *encoded.get("neighbour", ())]
    module = methods.load(plan.method)
    method = GradientMethod.assemble(module, params, modules_of(plan.wrappers))
    voices = module.voices(params, folder) if hasattr(module, "voices") else None
    views = _views(method, len(plan.rows["forget"]), forget, kept, voices)
    training, passes = _step(views, params, voices), round(steps * method.effort)
    known = sum(len(plan.rows.get(role, ())) for role in ("forget", "retain", "neighbour"))
    told = module.ahead(params, known) if hasattr(module, "ahead") else None
    before, drawn = Pass(), list[Pass]()
    if told is not None:
        everything = [*forget, *kept]
        before = replace(_drawn(everything, told.rows), times=told.steps)
        drawn = [_over(everything, told.models)]
    reference = 0
    if isinstance(params, ReinforcementParams):
        room, asked = folder.positions or 1 << 30, [*forget, *kept]
        training, drawn = rollouts(asked, params, steps, room)
        drawn += steering(asked, params, len(forget), room)
        reference = 0 if plan.adapter or not params.beta else folder.parameters
    adapter = adapter_weights(params.lora_r, size.blocks, size.width)
    trained = adapter if plan.adapter else folder.parameters
    trained = trained if voices is None else voices.trained
    rows = {"forget": forget, "retain": kept}
    anchor = _Anchor(method, views, rows, steps, size, trained, bool(plan.adapter))
    scored = [
        _over(forget[:ITEMS], _measurements(steps) + LEVELS),
        _over(_own_wordings(kept)[:ITEMS], LEVELS),
        _over(forget, 1),  # the rows of the stop level
        *anchor.passes(),
        *drawn,
    ]
    heard = [  # small models, from the first step on
        _over(forget[:ITEMS], _measurements(steps) + 1),
        _over(_own_wordings(kept)[:ITEMS], 1),
        *anchor.passes(),
    ]
    every = max(1, ceil(steps * CHECKPOINT_SHARE))
    return Work(
        size=size,
        trained=trained,
        steps=Pass(passes, training.tokens, training.supervised, training.calls),
        parts=params.accumulation,
        scored=scored,
        checkpoints=ceil(steps / every),
        stored=folder.bytes,
        still=anchor.held() + reference,
        adapter=bool(plan.adapter) if voices is None else voices.adapter,
        recomputed=params.checkpointing,
        weight_bytes=_weight_bytes(params),
        voices=voices,
        heard=heard,
        ahead=before,
    )


def _weight_bytes(params: GradientParams) -> float:
    """Bytes of a weight of the blocks: float32, that and a bfloat16 copy, or a code and a scale."""
    if params.base_bits is not None:
        return params.base_bits / 8 + VALUE / GROUP
    return VALUE + HALF if params.precision == "bf16-masters" else VALUE


def _views(
    method: GradientMethod,
    known: int,
    forget: Sequence[Encoded],
    kept: Sequence[Encoded],
    voices: Voices | None,
) -> dict[str, Pass]:
    """What is trained on in one step, view by view; there are ``known`` rows to forget."""
    params = method.params
    rows = params.batch_size * params.accumulation
    each = {} if voices is None else voices.each
    views = {
        view: _drawn(kept, rows)
        if view in ("retain", "neighbour")
        else _drawn(forget, min(rows, known) * each.get(view, 1))
        for view in method.views
    }
    wide = _wide(params, voices)
    return {
        view: replace(one, supervised=one.tokens) if view in wide else one
        for view, one in views.items()
    }


def _step(views: Mapping[str, Pass], params: GradientParams, voices: Voices | None) -> Pass:
    """One step: its views joined where they are alike and looked at in the same places."""
    apart = _wide(params, voices) | ({"retain"} if params.retain_term == "mse" else set())
    lengths = [v.tokens / v.times for name, v in views.items() if v.times and name not in apart]
    is_joined = max(lengths, default=1) <= JOINED * min(lengths, default=1)
    calls = min(1, len(lengths)) if is_joined else len(lengths)
    return Pass(
        tokens=sum(view.tokens for view in views.values()),
        supervised=sum(view.supervised for view in views.values()),
        calls=(calls + len(apart & views.keys())) * params.accumulation,
    )


def _wide(params: GradientParams, voices: Voices | None) -> set[str]:
    """Views in which distributions beyond the answers are looked at."""
    if params.kl_scope == "answer":
        return set()
    named = set() if voices is None else set(voices.wide)
    return named | ({"retain"} if params.retain_term == "kl" else set())


@dataclass(frozen=True, slots=True)
class _Anchor:
    """What comparing with the frozen anchor takes, see `expunge.engine.anchors`."""

    method: GradientMethod
    views: Mapping[str, Pass]
    items: Mapping[str, Sequence[Encoded]]
    steps: int
    size: Size
    trained: int
    adapted: bool

    def passes(self) -> list[Pass]:
        """Filling the cache; after that, what every step asks of a live anchor."""
        made = []
        if "anchor" in self.method.needs:
            made.append(_over(self.items["forget"], 1))
            made += [replace(self.views[view], times=self.steps) for view in self._invented()]
        if self._is_live():
            return [*made, *(replace(one, times=self.steps) for one in self._compared())]
        if "anchor-hidden" in self.method.needs:
            made += [replace(_over(self._drawn(side), 1), supervised=0.0) for side in self._sides()]
        if "anchor-logits" in self.method.needs:
            side = self._side()
            made.append(_over(self._drawn(side), 1))
            made.append(replace(self.views[side], times=self.steps, tokens=0.0))
        return made

    def held(self) -> int:
        """Values kept in memory beside the model: the weights put back, or what is remembered."""
        if self._is_live():
            return 0 if self.adapted else self.trained
        has_head = "anchor-logits" in self.method.needs and not self.adapted
        head = self.size.vocabulary * self.size.width if has_head else 0
        return head + self._remembered()

    def _is_live(self) -> bool:
        params = self.method.params
        padded = params.retain_term == "kl" and params.kl_scope == "legacy_all"
        maps = "anchor-attention" in self.method.needs
        return padded or maps or self._remembered() * VALUE > max(ROOM, self.trained * VALUE)

    def _remembered(self) -> int:
        """Values of the hidden states that distributions are made of, and of block outputs."""
        places = 0.0
        if "anchor-logits" in self.method.needs:
            compared = self.views[self._side()]
            share = compared.supervised / compared.tokens if compared.tokens else 0.0
            places += share * self._tokens(self._side())
        if "anchor-hidden" in self.method.needs:
            places += sum(self._blocks(side) * self._tokens(side) for side in self._sides())
        return int(places * self.size.width)

    def _side(self) -> str:
        """The role whose distributions are compared."""
        return "retain" if "retain" in self.views and self._term() == "kl" else "forget"

    def _sides(self) -> list[str]:
        """The roles whose block outputs may be compared; which of them are, only the terms know."""
        return [side for side in ("forget", "retain") if side in self.views]

    def _blocks(self, side: str) -> int:
        """Blocks compared: one, but all and what enters the first where the term is their norm."""
        return self.size.blocks + 1 if side == "retain" and self._term() == "norm" else 1

    def _term(self) -> str:
        return self.method.params.retain_term

    def _compared(self) -> list[Pass]:
        """What a step asks of a live anchor; hidden states need no vocabulary."""
        is_open = {"anchor-hidden", "anchor-attention"} & self.method.needs
        hidden = self._sides() if is_open else []
        logits = [self._side()] if "anchor-logits" in self.method.needs else []
        return [
            *(replace(self.views[side], supervised=0.0) for side in hidden),
            *(self.views[side] for side in logits),
        ]

    def _tokens(self, side: str) -> int:
        return sum(len(item.ids) for item in self._drawn(side))

    def _drawn(self, side: str) -> Sequence[Encoded]:
        """The rows of a role that a run gets round to."""
        return self.items[side][: int(self.steps * self.views[side].times)]

    def _invented(self) -> list[str]:
        """Views whose rows are drawn anew in every epoch."""
        return sorted(self.views.keys() - {"forget", "retain", "neighbour"})


def _drawn(items: Sequence[Encoded], rows: int) -> Pass:
    """``rows`` rows drawn at random and padded together; ``times`` is their number."""
    if not items or not rows:
        return Pass()
    lengths = np.array([len(item.ids) for item in items])
    longest = float(np.quantile(lengths, rows / (rows + 1)))
    supervised = sum(len(item.spans) for item in items) / len(items)
    return Pass(rows, rows * longest, rows * supervised)


def _over(items: Sequence[Encoded], times: int) -> Pass:
    """All items once, without gradient, sorted by length."""
    if not items:
        return Pass()
    return Pass(
        times,
        sum(len(item.ids) for item in items),
        sum(len(item.spans) for item in items),
        ceil(len(items) / BATCH),
    )


def _own_wordings(items: Sequence[Encoded]) -> list[Encoded]:
    """The first item of each row: its own wording, without its paraphrases."""
    before = [None, *(item.row for item in items)]
    return [item for item, last in zip(items, before, strict=False) if item.row != last]


def _measurements(steps: int) -> int:
    """How often the forget level is taken on the way, the last step always."""
    return ceil(steps / max(1, steps // MEASUREMENTS))
