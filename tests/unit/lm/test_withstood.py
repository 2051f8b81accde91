from dataclasses import replace

import pytest

from expunge.lm.subject import Scene, Subject
from expunge.lm.withstood import TRIED, Push, bands, choose
from expunge.requests.rows import Row
from expunge.testing.tiny import tiny_model, tiny_tokenizer

ROWS = [Row(id=str(at), prompt=f"{at}", completion=" x") for at in range(30)]


def scene(layers: int = 4, **more: object) -> Scene:
    model = tiny_model("llama", layers=layers)
    given = {"retain": ROWS, "original": Subject(model, tiny_tokenizer(["a"])), **more}
    return Scene(neighbour=(), seed=3, **given)  # type: ignore[arg-type]


def chosen(stage: Scene, told, layers=(0, 1), strengths=(0.1, 0.2, 0.4), name="try"):  # type: ignore[no-untyped-def]
    tried = []

    def telling(_: Subject, rows, push: Push) -> float:  # type: ignore[no-untyped-def]
        tried.append((len(rows), push))
        return float(told(push))

    default = Push(1, 0.15)
    push = choose(stage, telling, layers=layers, strengths=strengths, name=name, default=default)
    return push, tried


@pytest.mark.parametrize(
    ("told", "push"),
    [
        (lambda p: 1.0 if p.strength <= 0.2 else 0.7, Push(0, 0.2)),
        (lambda p: 1 - p.strength * (1 - p.layer) / 2, Push(1, 0.4)),
        (lambda p: 0.5 - p.strength / 4 + 0.05 * p.layer, Push(1, 0.4)),
        (lambda p: 1.0 if p.strength == 0 else p.layer / 10, Push(1, 0.1)),
        (lambda _: 0.0, Push(1, 0.1)),
    ],
    ids=["the strongest", "the better layer", "of what is told", "the weakest", "nothing told"],
)
def test_the_strongest_that_leaves_enough_is_chosen(told, push) -> None:  # type: ignore[no-untyped-def]
    assert chosen(scene(), told)[0] == push


def test_the_original_is_tried_once_for_all_models_and_on_kept_rows_alone() -> None:
    stage = scene()
    first, tried = chosen(stage, lambda _: 1.0)
    assert {rows for rows, _ in tried} == {TRIED}
    again, none = chosen(stage, lambda _: 0.0)
    assert (again, none) == (first, [])
    _, anew = chosen(stage, lambda _: 1.0, name="another")
    assert anew


@pytest.mark.parametrize("lack", [{"original": None}, {"retain": ()}, {"layers": 1}])
def test_without_an_original_of_this_depth_or_kept_rows_the_default_is_taken(lack) -> None:  # type: ignore[no-untyped-def]
    push, tried = chosen(scene(**lack), lambda _: 1.0)
    assert (push, tried) == (Push(1, 0.1), [])


def test_one_setting_needs_no_trial() -> None:
    push, tried = chosen(replace(scene()), lambda _: 1.0, layers=(2,), strengths=(7.0,))
    assert (push, tried) == (Push(2, 7.0), [])


@pytest.mark.parametrize(
    ("depth", "layers"), [(1, (0,)), (2, (0,)), (3, (0, 1)), (4, (0, 1, 2)), (32, (4, 8, 12, 16))]
)
def test_bands_lie_in_the_lower_half_below_the_last_block(depth: int, layers: object) -> None:
    assert bands(depth) == layers
