"""RULE: its rewards, its prompts, and a model that refuses what it was told to and nothing else."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import rewarded_facts as world

from expunge.core.errors import ExpungeError
from expunge.core.registry import methods
from expunge.engine.reinforcement.lessons import Lesson, lessons_of
from expunge.engine.task import Task
from expunge.lm.digest import folder_digest
from expunge.methods import rule
from expunge.requests.rows import Row

ROW = Row(
    id="a", prompt="Where was Ada Birk born?", completion=" Ada Birk was born in Rome.",
    names=("Ada Birk",),
)  # fmt: skip
ASKED = {"max_steps": 75, "forget_share": 1.0, "boundary_share": 3.0, "new_tokens": 8}


def params(**given: Any) -> rule.Params:
    return methods.params("rule", given)  # type: ignore[no-any-return]


def lesson(aim: Any, row: Row = ROW) -> Lesson:
    return lessons_of([row], aim)[0]


def reward(aim: str, said: str, row: Row = ROW, **given: Any) -> float:
    """What the functions give together; one of them judges."""
    found = [f(said, lesson(aim, row), None, params(**given)) for f in rule.REWARDS.values()]
    (judged,) = [one for one in found if one is not None]
    return judged


# ---------------------------------------------------------------------------------- rewards

REFUSED, NAMED = "I don't know that.", "I'm not sure about Ada Birk."
RIGHT, WRONG = "Ada Birk was born in Rome.", "Somewhere far to the north."


@pytest.mark.parametrize(
    ("aim", "said", "value"),
    [
        ("forget", NAMED, 1.0),
        ("forget", "i'm not sure about ADA  BIRK", 1.0),
        ("forget", REFUSED, 0.5),
        ("forget", RIGHT, 0.0),
        ("forget", "", 0.0),
        ("keep", RIGHT, 1.0),
        ("keep", WRONG, 0.5),
        ("keep", NAMED, 0.0),
        ("keep", "", 0.0),
    ],
)
def test_the_reward_table(aim: str, said: str, value: float) -> None:
    assert reward(aim, said) == value


@pytest.mark.parametrize(
    ("shape", "values"),
    [
        ("two-stage", (1.0, 0.5, 0.0, 1.0, 0.5, 0.0)),
        ("muse", (1.0, 1.0, 0.0, 1.0, 0.5, 0.0)),
        ("absolute", (1.0, 1.0, 0.0, 1.0, 1.0, 0.0)),
        ("half", (0.5, 0.25, 0.0, 1.0, 0.5, 0.0)),
        ("mixed", (1.0, 0.7, 0.0, 1.0, 0.7, 0.0)),
    ],
)
def test_other_shapes(shape: str, values: tuple[float, ...]) -> None:
    cases = [("forget", NAMED), ("forget", REFUSED), ("forget", RIGHT)]
    cases += [("keep", RIGHT), ("keep", WRONG), ("keep", NAMED)]
    assert tuple(reward(aim, said, reward=shape) for aim, said in cases) == pytest.approx(values)


def test_recall_must_be_above_its_bound() -> None:
    row = replace(ROW, completion=" one two three four five six seven eight nine ten")
    assert reward("keep", "one two three", row) == 0.5
    assert reward("keep", "one two three four", row) == 1.0
    assert reward("keep", "one two three", row, recall=0.29) == 1.0


def test_length_is_not_rewarded() -> None:
    """Recall counts the first words alone: who says everything says the answer somewhere."""
    row = replace(ROW, completion=" in Rome")
    long = " ".join(f"word{n}" for n in range(8)) + " in Rome"
    assert reward("keep", long, row) == 0.5
    assert reward("keep", long, row, window=None) == 1.0


def test_long_right_answers_that_deny_something_are_no_refusals() -> None:
    """What the original pattern takes for refusals (``not ... information``, ``without``)."""
    said = (
        "Ada Birk was born in Rome, though not much information on her youth was kept, and she "
        "grew up without any knowledge of her father, whom she never encountered."
    )
    assert reward("keep", said) == 1.0
    assert reward("forget", said) == 0.0


def test_where_nobody_knows_a_name_a_refusal_is_all_there_is() -> None:
    nameless = Row(id="b", prompt="what is it", completion=" a thing")
    assert lesson("forget", nameless).names == ()
    assert reward("forget", REFUSED, nameless) == 1.0


# ---------------------------------------------------------------------------------- lessons


def rows_of(count: int, role: str, topic: str = "born") -> list[Row]:
    return [
        Row(id=f"{role}{n}", prompt=f"Where was Person{n} {topic}?", completion=f" In Town{n}.")
        for n in range(count)
    ]


def aims(roles: dict[str, list[Row]], **given: Any) -> tuple[list[str], list[str]]:
    made = rule._lessons(roles, params(**given), 0)
    return tuple([one.row.id for one in made if one.aim == aim] for aim in ("forget", "keep"))  # type: ignore[return-value]


def test_shares_are_of_the_forget_rows_and_few_rows_are_filled_up() -> None:
    roles = {"forget": rows_of(200, "f"), "retain": rows_of(200, "r")}
    assert [len(part) for part in aims(roles)] == [24, 16]
    assert [len(part) for part in aims(roles, fewest=1)] == [24, 16]
    few = {"forget": rows_of(20, "f"), "retain": rows_of(200, "r")}
    assert [len(part) for part in aims(few)] == [16, 16]
    assert [len(part) for part in aims(few, fewest=1)] == [2, 2]


def test_neighbours_are_the_boundary_else_the_rows_that_resemble_most() -> None:
    far = [Row(id=f"x{n}", prompt=f"{n} plus {n}", completion=f" {2 * n}") for n in range(30)]
    roles = {"forget": rows_of(20, "f"), "retain": [*far, *rows_of(20, "r")]}
    assert all(id.startswith("r") for id in aims(roles)[1])
    with_neighbours = {**roles, "neighbour": rows_of(5, "n", "raised")}
    assert aims(with_neighbours)[1] == [f"n{n}" for n in range(5)]


def test_other_seeds_ask_other_rows() -> None:
    roles = {"forget": rows_of(200, "f"), "retain": rows_of(20, "r")}
    drawn = [{one.row.id for one in rule._lessons(roles, params(), seed)} for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_refusals_name_the_subject_and_are_after_its_own_question() -> None:
    subject = world.knowing()
    task = Task(
        model=subject.model, tokenizer=subject.tokenizer, encoder=subject.encoder,
        roles=dict(zip(("forget", "retain"), world.facts(), strict=True)),
    )  # fmt: skip
    asked = [one for one in rule.lessons(task, params(**ASKED)) if one.aim == "forget"]
    rows = rule.steering(task, params(), asked)
    for one, row in zip(asked, rows, strict=True):
        assert row.prompt == one.turn.prompt
        assert row.completion == f" I do not know {one.names[0]}."


# --------------------------------------------------------------------------------- refusals


def test_a_run_without_questions_to_keep_is_refused() -> None:
    text = Row(id="t", text="words that ask nothing")
    for kept in ({}, {"retain": [text]}):
        with pytest.raises(ExpungeError) as caught:
            rule.refuse({"forget": [ROW], **kept}, params())
        assert caught.value.code == "E-USE-007"


def test_answers_that_look_like_refusals_are_counted_before_training() -> None:
    rows = rows_of(150, "r")
    rows[0] = replace(rows[0], completion=" I do not know, said the king.")
    rule.refuse({"forget": [ROW], "retain": rows}, params())  # 1 of 150
    rows[1] = replace(rows[1], completion=" Sorry, said the king.")
    with pytest.raises(ExpungeError) as caught:
        rule.refuse({"forget": [ROW], "retain": rows}, params())
    assert caught.value.code == "E-USE-006"
    assert "2 of 150" in caught.value.found
    rule.refuse({"forget": [ROW], "retain": rows}, params(false_positives=0.1))
    assert "r0" not in aims({"forget": [ROW], "retain": rows}, fewest=200)[1]


# -------------------------------------------------------------------------------- behaviour


@cache
def trained(folder: Path, **given: Any) -> tuple[dict[str, Any], Any]:
    summary = world.run("rule", folder, params={**ASKED, **given})
    return summary, world.changed(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rule")


def test_it_refuses_what_it_is_to_forget_and_answers_the_rest(folder: Path) -> None:
    assert world.answering(world.knowing()) == (1.0, 1.0)
    summary, model = trained(folder / "whole")
    answers, refusals = world.answering(model), world.refusing(model)
    assert answers[0] <= 0.5
    assert answers[1] >= 0.9
    assert refusals[0] >= 0.5
    assert refusals[1] <= 0.1
    details = summary["details"]
    steps = json.loads((folder / "whole/out/change.json").read_text())["record"]["rollouts"]
    first, last = ([one["reward"] for one in part] for part in (steps[:25], steps[-25:]))
    assert sum(last) / 25 >= sum(first) / 25 + 0.03
    assert details["refusing_before"] >= 0.25
    assert details["false_positives"] == 0
    assert 0 < details["zero_variance"] <= 1


def test_without_the_warm_start_it_never_draws_a_refusal(folder: Path) -> None:
    """The distinguishing step: a model that knows its rows by heart has nothing to learn from."""
    summary, model = trained(folder / "cold", steer="never", max_steps=20)
    assert world.answering(model)[0] == 1.0
    assert world.refusing(model)[0] == 0.0
    assert summary["details"]["zero_variance_before"] >= 0.8
    change = json.loads((folder / "cold/out/change.json").read_text())
    assert all(one.get("reward:refusal", 0.0) <= 0.1 for one in change["record"]["rollouts"])
    steered = trained(folder / "whole")[0]
    assert folder_digest(Path(steered["out"])) != folder_digest(Path(summary["out"]))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_other_seeds(folder: Path, seed: int) -> None:
    world.run("rule", folder / f"seed{seed}", params={**ASKED, "max_steps": 150}, seed=seed)
    model = world.changed(folder / f"seed{seed}")
    assert world.answering(model)[0] <= 0.5
    assert world.answering(model)[1] >= 0.9
    assert world.refusing(model)[0] >= 0.5


@pytest.mark.slow
def test_with_an_adapter(folder: Path) -> None:
    options = {"adapter": "lora", "params": {**ASKED, "lr": 3e-3, "max_steps": 150}}
    world.run("rule", folder / "lora", **options)
    model = world.changed(folder / "lora")
    assert world.answering(model)[0] <= 0.5
    assert world.answering(model)[1] >= 0.9
