"""MELU: the exact sequences of every mode, who is whose neighbour, and how long an epoch is."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from expunge.core.errors import ExpungeError
from expunge.core.events import Event, listening
from expunge.core.families import GradientParams
from expunge.core.registry import methods
from expunge.engine.change import load_change, read_manifest
from expunge.engine.datasets import Datasets
from expunge.engine.gradient import StepGradient
from expunge.engine.method import GradientMethod
from expunge.engine.related import Related, related
from expunge.engine.run import forget
from expunge.engine.task import Task
from expunge.lm.digest import folder_digest
from expunge.methods.melu import CARD, Pairing, sample
from expunge.requests.rows import Row
from expunge.testing.methods import stage, taught_subject, world

MODES = methods.card("melu").params["mode"]["choices"]


def row(id: str, subject: str | None = None, **more: Any) -> Row:
    return Row(id=id, prompt=f"about {id}", completion=f" says {id}", subject=subject, **more)


FORGET = [row("a1", "A"), row("a2", "A"), row("b1", "B")]
"""Three rows of two people."""


def kept(kinds: str) -> list[Row]:
    """Rows to be kept: direct of A or B (d, e), indirect of A or B (i, j), general (g)."""
    of = {
        "d": ("direct", "A"),
        "e": ("direct", "B"),
        "i": ("indirect", "A"),
        "j": ("indirect", "B"),
    }
    return [
        row(f"r{at}", meta=dict(zip(("neighbour", "neighbour_of"), of[kind], strict=True)))
        if kind in of
        else row(f"r{at}", meta={"neighbour": "general"})
        for at, kind in enumerate(kinds)
    ]


def pairing(
    mode: str, retain: Sequence[Row], forgotten: Sequence[Row] = FORGET, size: int = 4, **own: Any
) -> Pairing:
    task = Task(
        model=None, tokenizer=None, encoder=None,  # type: ignore[arg-type]
        roles={"forget": forgotten, "retain": retain}, seed=3,
        params=GradientParams(batch_size=size),
    )  # fmt: skip
    return sample(task, methods.params("melu", {"mode": mode, "shuffle": "none", **own}))


def passes_of(sampler: Pairing, count: int) -> list[list[tuple[int, int]]]:
    """So many passes, each of as many pairs as a step has."""
    pairs = drawn(sampler, count)
    size = len(pairs) // count
    return [pairs[at : at + size] for at in range(0, len(pairs), size)]


def drawn(sampler: Pairing, steps: int) -> list[tuple[int, int]]:
    draws = [sampler.draw(step) for step in range(steps)]
    return [
        pair
        for draw in draws
        for pair in zip(draw.rows["forget"], draw.rows["retain"], strict=True)
    ]


SEVEN = kept("dddeiij")


def test_cyclic_takes_the_shorter_side_again() -> None:
    """Two passes of seven pairs in steps of two, seven and four: where steps are cut is nothing."""
    once = list(zip([0, 1, 2, 0, 1, 2, 0], range(7), strict=True))
    assert drawn(pairing("cyclic", SEVEN, size=7), 2) == once * 2
    assert drawn(pairing("cyclic", SEVEN, size=2), 7) == once * 2
    assert drawn(pairing("cyclic", SEVEN, size=50), 2) == once * 2
    assert drawn(pairing("cyclic", SEVEN[:2], size=3), 1) == [(0, 0), (1, 1), (2, 0)]


def test_sequential_stays_with_the_first_rows_to_be_kept() -> None:
    assert drawn(pairing("sequential", SEVEN, size=3), 2) == [(0, 0), (1, 1), (2, 2)] * 2
    assert drawn(pairing("sequential", SEVEN[:2], size=3), 1) == [(0, 0), (1, 1), (2, 0)]


def test_random_draws_anew_in_every_pass() -> None:
    sampler = pairing("random", SEVEN, size=3)
    passes = passes_of(sampler, 40)
    assert all([one for one, _ in pairs] == [0, 1, 2] for pairs in passes)
    assert len({tuple(pairs) for pairs in passes}) > 30
    assert {other for pairs in passes for _, other in pairs} == set(range(7))
    assert drawn(sampler, 40) == drawn(pairing("random", SEVEN, size=3), 40)


def test_none_draws_no_row_to_be_kept() -> None:
    draw = pairing("none", SEVEN, size=3).draw(0)
    assert (draw.rows["forget"], draw.rows["retain"]) == ([0, 1, 2], [])


def test_one_kind_alone_or_beside_general_rows() -> None:
    rows = kept("digdi")
    for general, direct, indirect in ((False, [0, 3], [1, 4]), (True, [0, 2, 3], [1, 2, 4])):
        for mode, expected in (("direct_only", direct), ("indirect_only", indirect)):
            found = drawn(pairing(mode, rows, size=3, general=general), 1)
            assert found == [(at, expected[at % len(expected)]) for at in range(3)], mode


def test_balanced_shows_as_many_of_every_kind_and_all_of_them_in_the_end() -> None:
    rows = kept("ddddiigggdd")
    kinds = [one.kind for one in related(FORGET, rows)]
    sampler = pairing("balanced", rows, size=6)
    passes = [[other for _, other in pairs] for pairs in passes_of(sampler, 12)]
    for shown in passes:
        assert Counter(kinds[other] for other in shown) == dict.fromkeys(set(kinds), 2)
    assert {other for shown in passes for other in shown} == set(range(len(rows)))
    without = drawn(pairing("balanced", rows, size=4, general=False), 1)
    assert Counter(kinds[other] for _, other in without) == {"direct": 2, "indirect": 2}


@pytest.mark.parametrize(
    ("mode", "kinds"), [("direct_only", "iig"), ("indirect_only", "dg"), ("balanced", "dd")]
)
def test_a_kind_that_is_not_there_is_said(mode: str, kinds: str) -> None:
    with pytest.raises(ExpungeError) as caught:
        pairing(mode, kept(kinds))
    assert caught.value.code == "E-DATA-005"


def test_modules_hold_one_entity_each() -> None:
    """A has four neighbours and two rows, B one neighbour and one row; a general row for anyone."""
    rows = kept("dediigi")
    pairs = drawn(pairing("melu", rows, size=8, general=False), 1)[:6]
    assert pairs == [(0, 0), (1, 2), (0, 3), (1, 4), (0, 6), (2, 1)]
    subjects = [one.entities for one in related(FORGET, rows)]
    assert all(FORGET[one].subject in subjects[other] for one, other in pairs)
    assert sorted(other for _, other in pairs) == [0, 1, 2, 3, 4, 6]
    cyclic = drawn(pairing("cyclic", rows, size=7), 1)
    assert any(
        subjects[other] and FORGET[one].subject not in subjects[other] for one, other in cyclic
    )


def test_general_rows_stand_once_in_a_pass_beside_rows_drawn_anew() -> None:
    rows = kept("deggg")
    passes = passes_of(pairing("melu", rows, size=6), 20)
    assert all(pairs[:3] == [(0, 0), (1, 0), (2, 1)] for pairs in passes)
    assert all([other for _, other in pairs[3:]] == [2, 3, 4] for pairs in passes)
    assert len({tuple(one for one, _ in pairs[3:]) for pairs in passes}) > 5


def test_whoever_has_no_neighbours_is_forgotten_all_the_same() -> None:
    """The authors' code leaves such entities out of the data."""
    for kinds in ("ddg", "dd"):
        pairs = drawn(pairing("melu", kept(kinds), size=50), 1)
        assert {one for one, _ in pairs} == {0, 1, 2}
        beside = {other for one, other in pairs if one == 2}
        assert beside <= ({2} if "g" in kinds else {0, 1})


def test_a_neighbour_of_several_goes_to_the_one_with_the_fewest() -> None:
    link = {"neighbour_of": ["A", "B"]}
    rows = [*kept("d"), *(row(f"s{at}", meta=link) for at in range(3))]
    pairs = drawn(pairing("melu", rows, size=50), 1)
    assert pairs == [(0, 0), (1, 2), (2, 1), (2, 3)]


def orders(mode: str, shuffle: str, passes: int = 8) -> list[list[tuple[int, int]]]:
    return passes_of(pairing(mode, kept("dededd"), size=6, shuffle=shuffle), passes)


def test_shuffling_keeps_pairs_together_and_modules_if_asked() -> None:
    first = [(0, 0), (1, 2), (0, 4), (1, 5), (2, 1), (2, 3)]
    assert orders("melu", "none") == [first] * 8
    assert all(sorted(found) == sorted(first) for found in orders("melu", "rows"))
    assert len({tuple(found) for found in orders("melu", "rows")}) == 8
    either = {tuple(first), (*first[4:], *first[:4])}
    assert {tuple(found) for found in orders("melu", "modules")} == either
    assert orders("cyclic", "modules") == orders("cyclic", "none")
    assert CARD["value"] == "mode"


def test_a_draw_depends_on_seed_and_step_alone() -> None:
    sampler = pairing("melu", kept("dedegg"), shuffle="rows", size=5)
    whole = [sampler.draw(step) for step in range(9)]
    assert pairing("melu", kept("dedegg"), shuffle="rows", size=5).draw(8) == whole[8]
    assert all(len(draw.wording["retain"]) == len(draw.rows["retain"]) for draw in whole)


def test_what_stands_beside_a_row_changes_whenever_the_row_comes_round() -> None:
    """Candidates go by how often a row was passed: within a pass of cyclic it is several times."""
    sampler = pairing("cyclic", SEVEN, size=7)
    met: dict[int, list[int]] = {}
    for step in range(3):
        draw = sampler.draw(step)
        for place, epoch in zip(draw.rows["forget"], draw.epochs, strict=True):
            met.setdefault(place, []).append(epoch)
    assert met == {0: list(range(9)), 1: list(range(6)), 2: list(range(6))}


def test_an_epoch_has_as_many_steps_in_every_mode() -> None:
    """At equal passes cyclic would show every forget row |R| / |F| times."""
    rows = kept("dedeijijgg" * 3)
    steps = {mode: pairing(mode, rows, size=2).steps_per_epoch for mode in MODES}
    assert set(steps.values()) == {2}
    free = {mode: pairing(mode, rows, size=2, match_steps=False).steps_per_epoch for mode in MODES}
    assert (free["none"], free["sequential"], free["random"]) == (2, 2, 2)
    assert (free["cyclic"], free["melu"], free["balanced"]) == (15, 15, 9)
    assert (free["direct_only"], free["indirect_only"]) == (9, 9)


PEOPLE = [
    Row(id="f1", prompt="Where was Mira Voss born?", completion=" In Turin.", subject="mira",
        names=("Mira Voss",)),
    Row(id="f2", prompt="What does Tom Ardel do?", completion=" He paints.", subject="tom",
        names=("Tom Ardel",)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"subject": "mira", "prompt": "Which pet has she?"}, Related("direct", ("mira",))),
        ({"names": ("Tom Ardel",), "prompt": "Which pet?"}, Related("direct", ("tom",))),
        ({"prompt": "Who taught Mira Voss and Tom Ardel?"}, Related("direct", ("mira", "tom"))),
        ({"completion": " That was mira voss."}, Related("direct", ("mira",))),
        ({"prompt": "Where was Ida Kern born?"}, Related("indirect", ("mira",))),
        ({"role": "neighbour"}, Related("indirect", ("mira", "tom"))),
        ({"prompt": "What is the capital of France?"}, Related("general")),
        ({"meta": {"neighbour_of": "tom"}}, Related("direct", ("tom",))),
        ({"meta": {"neighbour_of": ["Mira Voss"], "neighbour": "indirect"}},
         Related("indirect", ("mira",))),
        ({"meta": {"neighbour": "direct"}}, Related("direct", ("mira", "tom"))),
        ({"subject": "mira", "meta": {"neighbour": "general"}}, Related("general")),
        ({"meta": {"neighbour_of": "somebody else"}}, Related("general")),
    ],
)  # fmt: skip
def test_who_is_whose_neighbour(given: dict[str, Any], expected: Related) -> None:
    kept = Row(**{"id": "r", "prompt": "Which river?", "completion": " The Rhine.", **given})
    assert related(PEOPLE, [kept]) == [expected]


def test_a_subject_that_is_an_opaque_id_is_not_looked_for_in_texts() -> None:
    forgotten = [replace(PEOPLE[0], subject="7")]
    kept = Row(id="r", prompt="How many dwarfs are there?", completion=" There are 7.")
    assert related(forgotten, [kept]) == [Related("general")]


def test_a_kind_that_is_none_is_an_error() -> None:
    with pytest.raises(ExpungeError) as caught:
        related(PEOPLE, [row("r", meta={"neighbour": "near"})])
    assert caught.value.code == "E-DATA-003"


def gradient(mode: str, parts: int) -> dict[str, torch.Tensor]:
    rows, subject = world(), taught_subject().copy()
    params = methods.params("grad-diff", {"batch_size": 8 // parts, "accumulation": parts})
    around = methods.load("melu"), methods.params("melu", {"mode": mode})
    method = GradientMethod.assemble(methods.load("grad-diff"), params, [around])
    task = Task(
        model=subject.model.double(), tokenizer=subject.tokenizer, encoder=subject.encoder,
        roles={"forget": rows.forget, "retain": rows.retain}, params=params,
    )  # fmt: skip
    sampler = method.sample(task, params)
    step = StepGradient(method, task, Datasets(task), sampler, None, steps=5)
    step(task.model, 0, lambda loss: loss.backward())
    return {n: p.grad.clone() for n, p in task.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("mode", ["melu", "none"])
def test_how_a_step_is_cut_changes_nothing(mode: str) -> None:
    whole, parts = gradient(mode, 1), gradient(mode, 8)
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-12, atol=1e-12)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stage(tmp_path_factory.mktemp("models"))


def run(
    original: Path, out: Path, *around: str, id: str = "npo", rows: int = 12, **more: Any
) -> dict[str, Any]:
    params = {"epochs": 2, "batch_size": 4, "lr": 1e-3, "warmup": 0, **more}
    return forget(
        original, world().forget[:rows], world().retain, method=id, params=params, wrappers=around,
        stop_at="none", out=out,
    )  # fmt: skip


def test_every_mode_trains_as_long_and_ends_elsewhere(original: Path, tmp_path: Path) -> None:
    """Of the people here no retain row is direct: they ask for the same attributes."""
    plain = run(original, tmp_path / "plain", rows=5)
    digests = {"plain": folder_digest(tmp_path / "plain")}
    for mode in MODES:
        if mode in ("direct_only", "balanced"):
            continue
        done = run(original, tmp_path / mode, f"melu:{mode}", rows=5)
        assert done["steps"] == plain["steps"] == 4
        load_change(tmp_path / mode)
        digests[mode] = folder_digest(tmp_path / mode)
    assert digests.pop("indirect_only") == digests["cyclic"]  # all rows are indirect neighbours
    assert len(set(digests.values())) == len(digests) == 6
    manifest = read_manifest(tmp_path / "melu")
    assert manifest is not None
    assert manifest["record"] == {"retain_direct": 0, "retain_indirect": 12, "retain_general": 0}


def test_views_beside_a_row_follow_it(original: Path, tmp_path: Path) -> None:
    """Refusals and invented alternates take part whichever way rows are paired."""
    for id in ("idk-dpo", "altpo"):
        done = run(original, tmp_path / id, "melu", id=id, epochs=1)
        assert done["weights_changed"] > 0


def test_an_interrupted_run_goes_on_where_it_was(original: Path, tmp_path: Path) -> None:
    run(original, tmp_path / "whole", "melu", epochs=4)

    def interrupt(event: Event) -> None:
        if event.kind == "advance" and event.task == "npo" and event.done >= 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), listening(interrupt):
        run(original, tmp_path / "cut", "melu", epochs=4)
    assert run(original, tmp_path / "cut", "melu", epochs=4)["resumed_from"] > 0
    assert folder_digest(tmp_path / "cut") == folder_digest(tmp_path / "whole")
