"""Attackers that fine-tune a model, simulated inside one step of its training.

An attacker gets the weights as they are, trains them in place on rows of his choice, and is undone
by a copy. Which kind he is, how fast he learns and what he reads follow from the random numbers he
is given alone, so all processes of a run simulate the same one.

Reference: Tamper-Resistant Safeguards for Open-Weight LLMs, 2024.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import exp

import numpy
import torch
from torch import Tensor, nn
from torch.optim import AdamW

from expunge.data.encode import Encoded
from expunge.engine.datasets import Datasets
from expunge.engine.optimiser import MasterAdamW
from expunge.engine.sources import Live
from expunge.engine.task import Task
from expunge.engine.view import View
from expunge.requests.rows import Turn

KINDS = ("forget", "other", "switch")
"""On forget rows; on other forms of them; on retain rows until he turns to forget rows."""

TURN = (6.0, 3.0)
"""Parameters of the Beta distribution of the share of his steps after which he turns."""


@dataclass(frozen=True, slots=True)
class Attacker:
    """One attacker.

    Attributes:
        kind: One of `KINDS`.
        lr: Learning rate of his AdamW.
        turns_at: The step from which a ``switch`` reads forget rows.
    """

    kind: str
    lr: float
    turns_at: int = 0

    @classmethod
    def drawn(cls, rng: numpy.random.Generator, rates: Sequence[float], steps: int) -> "Attacker":
        """One of the kinds and one of the rates, each as likely as the others."""
        kind, lr = KINDS[int(rng.integers(len(KINDS)))], rates[int(rng.integers(len(rates)))]
        return cls(kind, lr, int(rng.beta(*TURN) * steps))

    def reads(self, step: int) -> str:
        """What he trains on at a step: ``forget``, ``other`` or ``retain``."""
        if self.kind != "switch":
            return self.kind
        return "retain" if step < self.turns_at else "forget"


class Lessons:
    """What attackers train on.

    ``other`` are the paraphrases of the forget rows; where there are none, the forget rows as
    running text, prompts learned as well. Rows that are left out are in neither, unless all are.

    Args:
        task: What is being forgotten.
        left_out: Forget rows that no attacker gets to read.
    """

    def __init__(self, task: Task, left_out: Collection[int] = ()) -> None:
        rows = [row for at, row in enumerate(task.forget) if at not in left_out] or task.forget
        self._datasets = Datasets(task, device=str(task.model.device))
        self._task = task
        self._own = [row.training for row in rows]
        self._others = [turn for row in rows for turn in row.turns[1:]]
        self._kept = [row.training for row in task.retain]
        self._known: dict[int, Encoded] = {}

    def batch(self, name: str, rng: numpy.random.Generator, size: int) -> list[Encoded]:
        """Rows drawn with replacement.

        Args:
            name: ``forget``, ``other`` or ``retain``.
            rng: Decides which.
            size: How many.
        """
        turns = {"forget": self._own, "other": self._others, "retain": self._kept}[name]
        chosen = turns or self._own
        drawn = [self._encoded(chosen[at]) for at in rng.integers(len(chosen), size=size)]
        is_running = name == "other" and not self._others
        return [replace(item, labels=item.ids) for item in drawn] if is_running else drawn

    def nll(self, batch: Sequence[Encoded]) -> Tensor:
        """Token mean of the negative log-likelihood, nats, with its graph."""
        return View(self._datasets.batch(batch), Live(self._task.model)).nll.value

    def _encoded(self, turn: Turn) -> Encoded:
        if id(turn) not in self._known:
            self._known[id(turn)] = self._task.encoder.encode(turn, row=0)
        return self._known[id(turn)]


def tamper(
    parameters: Sequence[nn.Parameter],
    attacker: Attacker,
    lessons: Lessons,
    rng: numpy.random.Generator,
    *,
    steps: int,
    batch_size: int,
) -> Iterator[int]:
    """Fine-tune weights in place, a step for each number that is asked for.

    Args:
        parameters: What the attacker moves; no gradient is left on them.
        attacker: Who trains.
        lessons: On what.
        rng: Decides what he reads.
        steps: How many steps he makes.
        batch_size: Rows of a step.

    Yields:
        The number of each step, from 0, once it is made.
    """
    optimiser = _adamw(parameters, attacker.lr)
    for step in range(steps):
        loss = lessons.nll(lessons.batch(attacker.reads(step), rng, batch_size))
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        optimiser.step()
        for parameter in parameters:
            parameter.grad = None
        yield step


@contextmanager
def restored(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Whatever moves the weights in this context is undone, bit for bit."""
    before = [parameter.detach().clone() for parameter in parameters]
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, kept in zip(parameters, before, strict=True):
                parameter.copy_(kept)


def ramp(step: int, steps: int, growth: float) -> float:
    """How much a step of an attack counts: 1 at the last, ``exp(-growth)`` less at each before."""
    return exp(growth * (step - (steps - 1)))


def _adamw(parameters: Sequence[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    """AdamW; over float32 masters of weights too coarse for its updates."""
    if all(parameter.itemsize >= 4 for parameter in parameters):
        return AdamW(parameters, lr=lr)
    masters = {p: p.detach().float().clone() for p in parameters}
    return MasterAdamW([{"params": list(parameters), "lr": lr}], masters)
