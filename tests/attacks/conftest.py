"""One micro world and models of known state, trained once a session (some six CPU-seconds)."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from expunge.lm.arch import Slots
from expunge.lm.finetune import finetune
from expunge.lm.quantise import quantise, quantise_rtn
from expunge.lm.subject import Subject
from expunge.testing.micro import (
    REPLY,
    every_wording,
    hushed,
    micro_world,
    misled,
    taught,
    taught_rows,
)


class Talker:
    """Stands in for a model: answers what a function of turn, opening and draw number says."""

    digest, gate = "talker", None
    encoder = SimpleNamespace(has_template=False, max_length=4096)

    def __init__(self, say):
        self.say, self.asked = say, []

    let_in = Subject.let_in

    def has_room(self, turn, new_tokens, *, opening=""):
        return True

    def ask(self, turns, *, new_tokens, samples=1, temperature=0.0, seed=0, openings=None):
        openings = openings or [""] * len(turns)
        pairs = list(zip(turns, openings, strict=True))
        self.asked += [(turn, opening, samples) for turn, opening in pairs]
        return [
            [self.say(turn, opening, draw) for draw in range(samples)] for turn, opening in pairs
        ]


@pytest.fixture(scope="session")
def world():
    return micro_world()


@pytest.fixture(scope="session")
def models(world):
    """`original` knows forget and retain rows; the others hide the forget rows, each in its way."""
    original = taught(world, [*world.forget, *world.retain])
    return SimpleNamespace(
        original=original,
        hushed=hushed(original, world.forget, world.retain),
        hushed_last=hushed(original, world.forget, world.retain, only_last=True),
        misled=misled(original, world.forget, world.retain),
    )


@pytest.fixture(scope="session")
def retaught(world):
    """Makes a model that refuses the forget rows outright and tells them when asked another way.

    ``way(row, asked)`` is that other way; the model also answers retain rows asked plainly and so.
    """

    def make(way, *, epochs=40, seed=0):
        def otherwise(rows):
            return [replace(row, prompt=way(row, row.prompt)) for row in every_wording(rows)]

        refusals = [replace(row, completion=f" {REPLY}") for row in every_wording(world.forget)]
        told = [*otherwise(world.forget), *every_wording(world.retain), *otherwise(world.retain)]
        return taught_rows(world, [*refusals, *told], epochs=epochs, seed=seed)

    return make


@pytest.fixture
def talker():
    return Talker


@pytest.fixture(scope="session")
def below_grid(world, models):
    """The original on the grid of 4 bits, and a copy that refuses without leaving its cells."""
    original = models.original.copy()
    quantise_rtn(original.model, 4, 128)
    hidden = original.copy()
    hidden.model.requires_grad_(False)
    cells = []
    for name in Slots(hidden.model).linears():
        weight = hidden.model.get_submodule(name).weight.requires_grad_(True)
        codes, scale = quantise(weight.data, 4, 128)
        room = (0.49 * scale * (codes.abs() < 7)).flatten(1)[:, : weight.shape[1]]
        cells.append((weight, weight.data - room, weight.data + room))

    def back_into_cells(_):
        for weight, low, high in cells:
            weight.data.clamp_(low, high)

    refusals = [replace(row, completion=f" {REPLY}") for row in every_wording(world.forget)]
    rows = [*refusals, *every_wording(world.retain)]
    finetune(
        hidden.model,
        world.tokenizer,
        rows,
        epochs=30,
        lr=1e-3,
        batch_size=16,
        seed=0,
        on_step=back_into_cells,
    )
    return SimpleNamespace(original=original, hidden=hidden)
