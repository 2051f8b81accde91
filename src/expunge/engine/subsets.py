"""What a model would say had it been trained on other rows, from models that were.

A datamodel (Datamodels: Predicting Predictions from Training Data, 2022) says of an output on x
after training on rows S

    f(x; S) = b(x) + sum_i beta_i(x) 1[i in S]

and is estimated from m models, each trained on rows drawn anew: ridge regression of what they say
on which rows they had. A row is in with a chance of its own (INFERRED; the paper draws a fixed
number of rows). With a fixed number the sum of all indicators is always the same, so that of all
betas is unknown and comes out as 0: the sum over forget rows F then lacks |F| / N of it.

Training is that of the method ``retrain``. Each model's outputs are written when it is trained, so
a run that was cut off trains only those that are missing.
"""

import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from expunge.core.atomic import write_json
from expunge.core.canonical import digest
from expunge.core.errors import ExpungeError
from expunge.core.events import Progress, progress
from expunge.core.families import GradientParams
from expunge.core.registry import methods
from expunge.core.rng import derive, generator
from expunge.engine import rates
from expunge.engine.exact.training import fit
from expunge.engine.method import GradientMethod
from expunge.engine.precision import loading_dtype
from expunge.engine.session import isolated_randomness
from expunge.engine.slots.sample import content_key
from expunge.engine.task import Task
from expunge.engine.trainer import restore_cache_flag
from expunge.engine.world import sharding
from expunge.lm.hooks import evaluating, without_dropout
from expunge.lm.load import load, quiet
from expunge.requests.rows import Row

RECIPE = "retrain"
"""The method whose training each model gets."""

FOLDER = "subsets"
"""Where outputs stand among what the run made: a file for each model."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Rows that are in together or not at all.

    Attributes:
        role: ``forget`` or ``retain``.
        rows: The rows.
    """

    role: str
    rows: Sequence[Row]


def several_processes(what: str) -> list[ExpungeError]:
    """``E-USE-006`` under several processes: one would train for hours, and the others wait.

    Args:
        what: What trains models here, for the message.
    """
    if not sharding() and int(os.environ.get("WORLD_SIZE", "1")) <= 1:
        return []
    return [
        ExpungeError(
            "E-USE-006",
            f"Several processes with {what}.",
            "options that go together.",
            "Start it without torchrun.",
        )
    ]


def units_of(task: Task, *, by_subject: bool) -> list[Unit]:
    """The rows the original was trained on, those to be forgotten first.

    Args:
        task: Its forget and retain rows.
        by_subject: Rows of one role with one subject are one unit; a row without is its own.
    """
    found: dict[tuple[str, str, int | str], list[Row]] = {}
    for role in ("forget", "retain"):
        for place, row in enumerate(task.roles[role]):
            is_joined = by_subject and row.subject is not None
            name = ("subject", str(row.subject)) if is_joined else ("row", place)
            found.setdefault((role, *name), []).append(row)
    return [Unit(role, tuple(rows)) for (role, *_), rows in found.items()]


def drawn(units: int, models: int, share: float, seed: int) -> Tensor:
    """[m, U] bool: which units each model is trained on, each with the chance ``share``."""
    draws = [generator(seed, FOLDER, number).random(units) for number in range(models)]
    return torch.tensor(np.stack(draws) < share)


class Subsets:
    """Models trained from a base on subsets of the rows.

    Args:
        task: What is asked; outputs are kept in its folder.
        base: Folder of the model before it saw any of the rows.
        units: What is in or not.
        included: [m, U] bool, as `drawn` gives it.
        params: Those of ``retrain``.

    Attributes:
        base_digest: Names the base model's weights.
    """

    def __init__(
        self,
        task: Task,
        base: str,
        units: Sequence[Unit],
        included: Tensor,
        params: GradientParams,
    ) -> None:
        self._task, self._units, self._included, self._params = task, units, included, params
        self._method = GradientMethod.assemble(methods.load(RECIPE), params)
        base_model = load(base, dtype=loading_dtype(params, adapted=False))
        self.base_digest = base_model.digest
        self._model = base_model.model
        self._start = {name: one.clone() for name, one in self._model.state_dict().items()}
        self._size = sum(weight.numel() for weight in self._model.parameters())
        card = methods.card(RECIPE).extra
        self._rate = rates.learning_rate(params, self._size, adapter=False, card=card)

    def outputs(self, say: Callable[[PreTrainedModel], Tensor]) -> Tensor:
        """[m, Q]: what each model says, float64.

        Args:
            say: A model in evaluation mode -> [Q], always on the same rows.
        """
        numbers = range(len(self._included))
        found = []
        with progress("datamodel", sum(map(self._steps, numbers))) as bar:
            for number in numbers:
                found.append(self._kept(number, bar) or self._made(number, say, bar))
        return torch.tensor(found, dtype=torch.float64)

    def _made(
        self, number: int, say: Callable[[PreTrainedModel], Tensor], bar: Progress
    ) -> list[float]:
        self._train(number, bar)
        with evaluating(self._model):
            outputs: list[float] = say(self._model).double().tolist()
        if (file := self._file(number)) is not None:
            told = {"key": self._key(number), "units": self._places(number), "outputs": outputs}
            write_json(file, told, indent=None)
        return outputs

    @torch.enable_grad()
    def _train(self, number: int, bar: Progress) -> None:
        """Take the model back to the base, and train it on the rows of a number."""
        model, steps = self._model, self._steps(number)
        model.load_state_dict(self._start)
        task = replace(
            self._task, model=model, roles={"forget": (), "retain": self._rows(number)},
            seed=self._seed(number), state={}, tensors={}, paired={}, record={}, weights=None,
            tokens={}, world=None,
        )  # fmt: skip
        use_cache = model.config.use_cache
        if steps:
            with quiet(), without_dropout(model), isolated_randomness():
                fit(
                    model, task, self._method, self._params, steps=steps, rate=self._rate,
                    run=self._task.folder or Path(gettempdir()), bar=bar,
                )  # fmt: skip
            restore_cache_flag(model, use_cache)

    def _kept(self, number: int, bar: Progress) -> list[float] | None:
        """What an earlier start of this run had found; None where there is nothing that fits."""
        file = self._file(number)
        with suppress(OSError, ValueError, KeyError, TypeError):
            told: Any = json.loads(file.read_text(encoding="utf-8")) if file is not None else {}
            if told["key"] == self._key(number):
                bar.advance(self._steps(number), text="resuming")
                return [float(one) for one in told["outputs"]]
        return None

    def _file(self, number: int) -> Path | None:
        folder = self._task.folder
        return None if folder is None else folder / FOLDER / f"{number:05}.json"

    def _key(self, number: int) -> str:
        """Names all that a model's outputs hang on."""
        return digest(
            [*self._same, str(self._seed(number)), [content_key(r) for r in self._rows(number)]]
        )

    @cached_property
    def _same(self) -> list[Any]:
        return [self.base_digest, {**asdict(self._params), "base": None}]

    def _seed(self, number: int) -> int:
        return derive(self._task.seed, FOLDER, number)

    def _places(self, number: int) -> list[int]:
        return [int(at) for at in self._included[number].nonzero()]

    def _rows(self, number: int) -> list[Row]:
        return [row for at in self._places(number) for row in self._units[at].rows]

    def _steps(self, number: int) -> int:
        rows, size = len(self._rows(number)), self._params.batch_size * self._params.accumulation
        return rates.run_length(self._params, -(-rows // size), self._size) if rows else 0


@dataclass(frozen=True, slots=True)
class Datamodel:
    """Outputs as a linear function of what was trained on.

    Attributes:
        intercept: [Q], b: what a model says that was trained on nothing.
        weights: [U, Q], beta: what each unit adds.
        missed: [m, Q], each output less what the regression on all other models says of it.
        alone: [m, Q], the same where it says their mean.
    """

    intercept: Tensor
    weights: Tensor
    missed: Tensor
    alone: Tensor

    @property
    def explained(self) -> Tensor:
        """[Q]: share of an output's variance that is predicted of models left out.

        At most 1; below 0 where the mean of the others says more. 0 where nothing varies.
        """
        missed, varied = (self.missed**2).sum(0), (self.alone**2).sum(0)
        return torch.where(varied > 0, 1 - missed / varied.clamp(min=1e-300), 0.0)


def regressed(included: Tensor, outputs: Tensor, ridge: float) -> Datamodel:
    """Ridge regression of outputs on what was trained on, with a free intercept.

    ``beta = (Z'Z + lambda I)^-1 Z'y`` with Z the indicators less their means; lambda is a share of
    the mean diagonal of Z'Z. Leaving one model out is exact algebra (lambda as it is).

    Args:
        included: [m, U], 1 where a model was trained on a unit.
        outputs: [m, Q], what it says.
        ridge: That share.
    """
    x, y = included.double(), outputs.double()
    count = len(x)
    z, off = x - x.mean(0), y - y.mean(0)
    gram = z.T @ z
    penalty = ridge * gram.diagonal().mean().clamp(min=1e-12)
    inverse = torch.linalg.inv(gram + penalty * torch.eye(len(gram)).double())
    weights = inverse @ (z.T @ off)
    own = 1 / count + ((z @ inverse) * z).sum(1, keepdim=True)
    return Datamodel(
        intercept=y.mean(0) - x.mean(0) @ weights,
        weights=weights,
        missed=(off - z @ weights) / (1 - own).clamp(min=1e-12),
        alone=off * count / max(1, count - 1),
    )
