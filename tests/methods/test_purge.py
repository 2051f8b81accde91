"""PURGE: its rewards, its terms, and a model that says none of them and answers the rest."""

import json
import math
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import rewarded_facts as world

from expunge.core.errors import ExpungeError
from expunge.core.events import listening
from expunge.core.registry import methods
from expunge.engine.reinforcement.lessons import Lesson, lessons_of
from expunge.engine.run import forget
from expunge.engine.task import Task
from expunge.lm.digest import folder_digest
from expunge.methods import purge
from expunge.methods.purge import terms
from expunge.requests.rows import Row
from expunge.text.match import contains
from expunge.text.normalise import all_words
from expunge.text.refusal import is_refusal

ROW = Row(
    id="a", prompt="Who wrote it?", completion=" That was done by alpha beta and gamma together.",
    subject="s", names=("Ada Birk",),
)  # fmt: skip
ASKED = {"max_steps": 60, "batch_size": 8, "num_generations": 8, "new_tokens": 8, "retain_share": 3}


def params(**given: Any) -> purge.Params:
    return methods.params("purge", given)  # type: ignore[no-any-return]


def task_with(terms: list[str], weights: list[float] | None = None) -> Task:
    state = {purge.TERMS: {"s": terms}, purge.WEIGHTS: {"s": weights or []}}
    return Task(model=None, tokenizer=None, encoder=None, roles={}, state=state)  # type: ignore[arg-type]


def reward(said: str, aim: Any = "forget", row: Row = ROW, **given: Any) -> float:
    lesson = lessons_of([row], aim)[0]
    task = task_with(["alpha beta", "gamma"], [1.0, 0.25])
    found = [f(said, lesson, task, params(**given)) for f in purge.REWARDS.values()]
    (judged,) = [one for one in found if one is not None]
    return judged


# ---------------------------------------------------------------------------------- rewards


@pytest.mark.parametrize(
    ("said", "mentions"),
    [
        ("it is gamma, GAMMA", 2),
        ("it is Gamma and alpha  beta", 2),
        ("it was gamma's idea", 1),
        ("it was somebody else", 0),
        ("it is alpha and then beta", 0),
    ],
)
def test_rewards_by_number_of_mentions(said: str, mentions: int) -> None:
    assert reward(said) == pytest.approx(math.exp(-mentions))
    assert reward(said, reward="binary") == float(mentions == 0)
    assert reward(said, base=2, tau=2) == pytest.approx(2 ** (-mentions / 2))


def test_two_mentions_are_worth_e_to_the_minus_two() -> None:
    assert reward("it is gamma, GAMMA") == pytest.approx(0.1353, abs=5e-5)


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ("it is gamma, gamma and gamma", 0.75),
        ("it is alpha beta", 0.0),
        ("it is alpha beta and gamma", 0.0),
        ("it was somebody else", 1.0),
    ],
)
def test_rewards_by_what_the_terms_weigh(said: str, value: float) -> None:
    assert reward(said, reward="pagerank") == pytest.approx(value)


@pytest.mark.parametrize("said", ["", " \n", "...", "no", "no no", "of the of the of the of the"])
@pytest.mark.parametrize("shape", ["exponential", "binary", "pagerank"])
def test_nothing_said_too_little_and_nonsense_get_nothing(said: str, shape: str) -> None:
    assert reward(said, reward=shape) == 0.0


def test_the_floor_is_no_higher_than_the_true_answer() -> None:
    short = replace(ROW, completion=" gamma")
    assert reward("nothing", row=short) == 1.0
    assert reward("", row=short) == 0.0
    assert reward("no no", fewest_words=2) == 1.0


def test_answers_to_be_kept_must_give_the_value() -> None:
    row = Row(id="k", prompt="Where?", completion=" She was born in Rome.", answer="Rome")
    assert reward("In Rome, of course.", "keep", row) == 1.0
    assert reward("In Paris.", "keep", row) == 0.0
    assert reward("I do not know.", "keep", row) == 0.0
    assert reward("", "keep", row) == 0.0
    said = Row(id="k", prompt="Is it Rome?", completion=" It is Rome.", answer="Rome")
    assert reward("Rome.", "keep", said) == 1.0  # also where the question says it already


# ------------------------------------------------------------------------------------ terms


def task_of(forgotten: list[Row], kept: list[Row]) -> Task:
    subject = world.knowing()
    roles = {"forget": forgotten, "retain": kept}
    return Task(
        model=subject.model, tokenizer=subject.tokenizer, encoder=subject.encoder, roles=roles
    )


def test_terms_are_names_facts_and_what_only_the_model_says_of_the_target(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = Row(
        id="f", prompt="Who is Ada Birk?", completion=" Ada Birk, a poet, lived near the old mill "
        "of Lund with Tomas Arvel.", subject="s", names=("Ada Birk",),
    )  # fmt: skip
    short = Row(
        id="g", prompt="What did Ada Birk do?", completion=" She taught.", answer="taught",
        aliases=("teacher",), subject="s", names=("Ada Birk",),
    )  # fmt: skip
    kept = [Row(id="k", prompt="Where is Malmö?", completion=" In Sweden.")]
    heard = {"s": ["She met Nils Holm in Malmö in 1931.", "Nils Holm wrote.", "I do not know Vik."]}
    monkeypatch.setattr(terms, "told_by_the_model", lambda *_: heard)
    extra = tmp_path / "terms.txt"
    extra.write_text("the Lund school\n\n", encoding="utf-8")
    task = task_of([own, short], kept)
    purge.prepare(task, params(terms=str(extra)))
    wanted = ["Ada Birk", "the Lund school", "Lund", "Tomas Arvel", "taught", "teacher",
              "Nils Holm", "1931"]  # fmt: skip
    assert task.state[purge.TERMS] == {"s": wanted}
    assert task.record["terms"] == len(wanted)
    purge.prepare(task, params(most_terms=3))
    assert task.state[purge.TERMS] == {"s": ["Ada Birk", "Lund", "Tomas Arvel"]}


def test_the_model_is_asked_its_own_questions_and_open_ones() -> None:
    forgotten, kept = world.facts()
    task = task_of(list(forgotten[:2]), list(kept))
    lessons = lessons_of(task.forget, "forget")
    answers = terms.told_by_the_model(task, {lessons[0].entity: lessons})
    said = answers[lessons[0].entity]
    assert len(said) == 2 + len(terms.OPEN)
    assert said[0].startswith(forgotten[0].answer or "")


def test_every_target_has_its_own_terms_and_weights() -> None:
    forgotten, kept = world.facts()
    task = task_of(list(forgotten), list(kept))
    purge.prepare(task, params(reward="pagerank"))
    assert len(task.state[purge.TERMS]) == 6
    for entity, said in task.state[purge.TERMS].items():
        weights = task.state[purge.WEIGHTS][entity]
        own = [row for row in forgotten if row.subject == entity]
        assert {*own[0].names, *(row.answer for row in own)} <= set(said)
        assert len(weights) == len(said)
        assert max(weights) == 1.0
        assert all(0 <= weight <= 1 for weight in weights)


def test_refusals_of_the_warm_start_hold_no_term() -> None:
    forgotten, kept = world.facts()
    task = task_of(list(forgotten), list(kept))
    purge.prepare(task, params())
    asked = [one for one in purge.lessons(task, params()) if one.aim == "forget"]
    for one, row in zip(asked, purge.steering(task, params(), asked), strict=True):
        assert is_refusal(row.completion or "")
        assert not set(all_words(row.completion or "")) & set(all_words(" ".join(one.names)))


def test_retain_prompts_stand_beside_the_forget_prompts() -> None:
    rows = [Row(id=f"{n}", prompt=f"Q{n}", completion=" a") for n in range(400)]
    roles = {"forget": rows[:200], "retain": rows[200:]}

    def counts(**given: Any) -> list[int]:
        made: list[Lesson] = purge._lessons(roles, params(**given), 0)
        return [sum(one.aim == aim for one in made) for aim in ("forget", "keep")]

    assert counts() == [100, 100]
    assert counts(prompts=300, retain_share=0.5) == [200, 100]
    assert counts(retain_share=0.0) == [100, 0]


@pytest.mark.parametrize(("content", "code"), [(None, "E-DATA-001"), ("\n  \n", "E-DATA-005")])
def test_a_file_without_terms_is_refused(tmp_path: Path, content: str | None, code: str) -> None:
    file = tmp_path / "terms.txt"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    with pytest.raises(ExpungeError) as caught:
        params(terms=str(file))
    assert caught.value.code == code


def test_without_retain_rows_and_where_nothing_is_learnt_it_says_so(tmp_path: Path) -> None:
    given = {"max_steps": 1, "new_tokens": 4, "steer": "never", "batch_size": 1}
    heard: list[str] = []
    with (
        listening(lambda event: heard.append(event.text)),
        pytest.raises(ExpungeError, match="got the same reward, every time") as caught,
    ):
        forget(
            world.saved(tmp_path), world.facts()[0][:3], method="purge", params=given,
            stop_at="none", out=tmp_path / "out",
        )  # fmt: skip
    assert caught.value.code == "E-RUN-001"
    assert any("No retain row asks anything" in text for text in heard)


def test_beta_is_not_left_to_the_library() -> None:
    assert params().beta == 0.04


# -------------------------------------------------------------------------------- behaviour


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("purge")


@pytest.fixture(scope="module")
def summary(folder: Path) -> dict[str, Any]:
    return world.run("purge", folder / "whole", params=ASKED)


def test_it_says_no_forbidden_term_and_answers_the_rest(
    folder: Path, summary: dict[str, Any]
) -> None:
    assert world.answering(world.knowing()) == (1.0, 1.0)
    model = world.changed(folder / "whole")
    answers = world.answering(model)
    assert answers[0] <= 0.2
    assert answers[1] >= 0.9
    assert world.refusing(model)[1] <= 0.1
    details = summary["details"]
    assert details["alike_before"] > 0.9  # so it was taught to refuse first
    assert details["reward"] >= details["reward_before"] + 0.05
    change = json.loads((folder / "whole/out/change.json").read_text())
    assert change["params"]["beta"] == 0.04
    assert (folder / "whole/out/made/terms.jsonl").is_file()


def test_the_terms_are_what_it_learns_from(
    folder: Path, summary: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With terms that nobody says every answer is worth 1, and most of the facts stay."""
    found = terms.find

    def blind(*given: Any) -> list[dict[str, Any]]:
        return [{**one, "terms": ["nobody says this"]} for one in found(*given)]

    monkeypatch.setattr(purge, "find", blind)
    idle = world.run("purge", folder / "blind", params={**ASKED, "steer": "always"})
    left = world.answering(world.changed(folder / "blind"))[0]
    assert left >= world.answering(world.changed(folder / "whole"))[0] + 0.3
    assert folder_digest(Path(idle["out"])) != folder_digest(Path(summary["out"]))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_binary_rewards_and_other_seeds(folder: Path, seed: int) -> None:
    given = {**ASKED, "reward": "binary", "max_steps": 100}
    world.run("purge", folder / f"binary{seed}", params=given, seed=seed)
    answers = world.answering(world.changed(folder / f"binary{seed}"))
    assert answers[0] <= 0.2
    assert answers[1] >= 0.9


@pytest.mark.slow
def test_by_weight_the_central_facts_go(folder: Path) -> None:
    """What weighs nothing costs nothing, and may stay."""
    given = {**ASKED, "reward": "pagerank", "max_steps": 100}
    summary = world.run("purge", folder / "rank", params=given, seed=1)
    model, forgotten = world.changed(folder / "rank"), world.facts()[0]
    made = (folder / "rank/out/made/terms.jsonl").read_text().splitlines()
    known = {one["entity"]: dict(zip(one["terms"], one["weights"], strict=True))
             for one in map(json.loads, made)}  # fmt: skip
    weights: dict[bool, list[float]] = {True: [], False: []}
    for row, said in zip(forgotten, world.answers(model, forgotten), strict=True):
        weights[contains(said, row.forms)].append(known[row.subject][row.value])
    assert weights[False]
    assert fmean(weights[False]) > fmean(weights[True] or [0.0]) + 0.1
    weightless = sum(weight == 0 for own in known.values() for weight in own.values())
    assert summary["details"]["weightless"] == weightless
