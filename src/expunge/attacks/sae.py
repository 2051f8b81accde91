"""Sparse autoencoder restoration: turn the features of the topic back to what they were.

Definition (h_u, h_o: output of a middle block of the attacked model and of the original, at the
same token; W_e, b_e, W_d, b, k: a sparse autoencoder trained on the original's states):
    p(h) = W_e (h - b) + b_e
    E    = the m features with the largest  mean z on forget tokens - mean z on retain tokens,
                                            z = TopK( p(h_o) )
    p'   = p(h_u) + alpha (p(h_o) - p(h_u))     on E alone; p(h_u) elsewhere
    h'   = W_d TopK( p' ) + b                   in place of h_u, at every token but the first
    leak_i = max over wordings of the leak of the greedy answer

    It finds what is suppressed at or below that block; what is suppressed above it stays so.
    Without the original at hand (source = mean): p' = p(h_u) + alpha mean z on E. With alpha = 0
    the attacked model runs on bare reconstructions, and with all features at alpha = 1 the lower
    half of the original is transplanted; `leak_reconstruction` and `leak_random` (m other features)
    say how much either of the two explains.

Reference: Suppression or Deletion: A Restoration-Based Representation-Level Analysis of Machine
Unlearning, 2026.

Departs from the paper: language models instead of image classifiers (INFERRED: the residual stream
of the middle block, every token of question and answer, the answer as what is restored). TopK is
taken after mixing: the released program decodes the dense values, which the decoder was never
trained on. It also moves the class token to the original's, whole; here the first token, the
nearest thing to one, is left alone. INFERRED: the score of features, whose list is published ready
made, m, and the mean in the mode without the original. The autoencoder never reads the answers of
the rows, only what the original itself says when asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from expunge.core.params import param
from expunge.core.results import Effort, Leak
from expunge.core.rng import derive, generator
from expunge.lm import sae
from expunge.lm.arch import Slots
from expunge.lm.beside import Mixing, mixed
from expunge.lm.elicit import Heard, Probe, elicit, plain, transcript, worst
from expunge.lm.legible import legible
from expunge.lm.prompted import askable
from expunge.lm.relearn import draw_rows
from expunge.lm.representations import Spot, activations
from expunge.lm.siblings import shared_places
from expunge.lm.subject import Editing, Scene, Subject
from expunge.requests.rows import Row, Turn

CARD = {
    "id": "sae",
    "kind": "attack",
    "summary": "Set the features of the topic, inside the model, to what they were before.",
    "paper": "Suppression or Deletion: A Restoration-Based Representation-Level Analysis of "
    "Machine Unlearning (2026)",
    "needs": ["forget", "retain", "original"],
    "access": "weights",
    "cost": "an autoencoder, once; 3 answers a wording, each read by half of the original too",
    "maturity": "paper",
    "version": 2,
    "family": "read-out",
    "level": "W",
    "threshold": 0.10,
}

QUICK = {"steps": 50}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """The autoencoder, and what is turned back."""

    alpha: float = param(
        1.0, help="how far to the original; 0 only reconstructs", paper="1, 5, 10", low=0.0
    )
    experts: int = param(32, help="features of the topic (m)", low=1)
    source: str = param(
        "original",
        help="original: its features at the same token; mean: their mean, without the original",
        paper="original",
        choices=("original", "mean"),
    )
    layer: int | None = param(
        None, help="block, negative from the top; none means the middle one", paper=8
    )
    expansion: int = param(4, help="features for each dimension of the states", paper=1, low=1)
    k: int = param(32, help="features of a state, at most", paper="16, 32", low=1)
    steps: int = param(2000, help="optimiser steps of the autoencoder", low=1)
    batch_size: int = param(256, help="states a step", low=1)
    lr: float = param(1e-3, help="learning rate of the autoencoder", low=0.0, high=1.0)
    retain_rows: int = param(2000, help="retain rows it is trained on, at most", low=1)


def mount(subject: Subject, rows: Sequence[Row], scene: Scene, params: Params) -> Leak:
    """Ask every wording while the experts are turned back."""
    original = scene.original
    places, note = shared_places(subject, {"original": original}, rows, "answer")
    tested = [row for row in rows if row.id in places]
    probes = askable(subject, plain(tested), scene.new_tokens)
    if not probes or original is None:
        return Leak(per_row={}, note=note)
    topic = _topic(original, probes, scene, params)
    if topic is None:
        return Leak(per_row={}, note="the original answers nothing that could be restored")

    def ask(features: Tensor, alpha: float) -> list[Heard]:
        fn = _restoring(topic, features, alpha, params.source)
        edit = partial(mixed, other=original.model, layer=topic.layer, fn=fn)
        return _asked(subject, probes, scene, edit)

    heard = ask(topic.experts, params.alpha)
    controls = {
        "leak_random": ask(topic.others, params.alpha),
        "leak_reconstruction": ask(topic.experts, 0.0),
    }
    return Leak(
        per_row=worst(heard),
        transcript=transcript(heard),
        parts={
            **{name: fmean(worst(found).values()) for name, found in controls.items()},
            "reconstruction_error": topic.error,
            "features": float(len(topic.mean)),
            "experts": float(len(topic.experts)),
            "random_features": float(len(topic.others)),
        },
        note=note,
    )


def effort(params: Params, rows: int, wordings: int) -> Effort:
    """The restored answers and both controls, with half of the original along each time."""
    return Effort(answers=wordings * (1 + 3 * 1.5), forwards=wordings + params.retain_rows)


@dataclass(frozen=True, slots=True, eq=False)
class _Topic:
    """What is known of the topic inside the original.

    Attributes:
        layer: The block.
        coder: The autoencoder of its output.
        mean: [n], activation of each feature, mean over forget tokens.
        experts: Numbers of the m features of the topic.
        others: As many others that fire at all, drawn.
        error: Share of the variance that the autoencoder loses.
    """

    layer: int
    coder: sae.Autoencoder
    mean: Tensor
    experts: Tensor
    others: Tensor
    error: float


_KNOWN: WeakKeyDictionary[Subject, dict[tuple[object, ...], _Topic | None]] = WeakKeyDictionary()


def _topic(
    original: Subject, probes: Sequence[Probe], scene: Scene, params: Params
) -> _Topic | None:
    """The topic of some probes in the original: found once, however many models are attacked."""
    found = _KNOWN.setdefault(original, {})
    settings = replace(params, alpha=0.0, source="original")  # neither has a part in it
    told = map(repr, (*probes, *scene.retain))
    key = (original.digest, scene.seed, scene.new_tokens, settings, *told)
    if key not in found:
        found[key] = _find_topic(original, probes, scene, params)
    return found[key]


def _find_topic(
    original: Subject, probes: Sequence[Probe], scene: Scene, params: Params
) -> _Topic | None:
    slots = Slots(original.model)
    layer = slots.index(len(slots) // 2 if params.layer is None else params.layer)
    said = elicit(original, probes, new_tokens=scene.new_tokens)
    kept = draw_rows(scene.retain, params.retain_rows, scene.seed, "sae")
    topic = _states(original, [_told(one) for one in said], layer)
    if not topic:
        return None
    rest = _states(original, [row.training for row in kept], layer)
    both = torch.cat([*topic, *rest])
    coder = sae.train(
        both,
        features=params.expansion * both.shape[1],
        k=params.k,
        steps=params.steps,
        batch_size=params.batch_size,
        lr=params.lr,
        seed=derive(scene.seed, "sae", "train"),
    )
    mean, elsewhere = (_mean_code(coder, states) for states in (topic, rest))
    experts = (mean - elsewhere).topk(min(params.experts, len(mean))).indices
    alive = (mean + elsewhere > 0).index_fill(0, experts, False).nonzero()[:, 0]
    order = generator(scene.seed, "sae", "others").permutation(len(alive))[: len(experts)]
    others = alive[torch.as_tensor(order, device=alive.device)]
    return _Topic(layer, coder, mean, experts, others, coder.error(both))


def _told(one: Heard) -> Turn:
    """A question with what the original answered to it."""
    turn = one.probe.turn
    return replace(turn, completion=f" {one.outputs[0].strip()}")


def _states(subject: Subject, turns: Sequence[Turn], layer: int) -> list[Tensor]:
    """For each text [n, d], the output of a block at every token but the first."""
    readable = legible(subject, {str(at): turn for at, turn in enumerate(turns)})
    items = {name: subject.encoder.encode(turn) for name, turn in readable.items()}
    places = {name: Spot(item, list(range(1, len(item.ids)))) for name, item in items.items()}
    device = next(subject.model.parameters()).device
    states = activations(subject, places, [layer])[layer].values()
    return [torch.tensor(each, dtype=torch.float32, device=device) for each in states]


def _mean_code(coder: sae.Autoencoder, states: Sequence[Tensor]) -> Tensor:
    """[n], mean activation of each feature over all tokens."""
    if not states:
        return torch.zeros_like(coder.bias)
    return coder.code(coder.drive(torch.cat(list(states)))).mean(0)


def _restoring(topic: _Topic, features: Tensor, alpha: float, source: str) -> Mixing:
    """The change of states that turns some features back."""

    def restore(own: Tensor, others: Tensor, first: Tensor) -> Tensor:
        drive = topic.coder.drive(own)
        told = topic.coder.drive(others) - drive if source == "original" else topic.mean
        drive[..., features] += alpha * told[..., features]
        restored = topic.coder.decode(topic.coder.code(drive)).to(own)
        return torch.where(first[..., None], own, restored)

    return restore


def _asked(subject: Subject, probes: Sequence[Probe], scene: Scene, edit: Editing) -> list[Heard]:
    """Greedy answers of the attacked model while its states are changed."""
    turns = [probe.turn for probe in probes]
    answers = subject.ask(turns, new_tokens=scene.new_tokens, edit=edit)
    return [
        Heard(probe, tuple(outputs), tuple(map(probe.judge, outputs)))
        for probe, outputs in zip(probes, answers, strict=True)
    ]
