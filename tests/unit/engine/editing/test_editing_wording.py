"""What is said instead, texts in front, and where it is decided to edit."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from expunge.core.errors import ExpungeError
from expunge.core.families import EditParams
from expunge.engine.editing import locating
from expunge.engine.editing.locating import TRIED, located, spread, texts_of
from expunge.engine.editing.values import Found, Search
from expunge.engine.editing.wording import contexts_of, is_own_refusal, targets_of
from expunge.engine.task import Task
from expunge.lm.subject import Subject
from expunge.requests.rows import Row
from expunge.testing.methods import taught_subject, world
from expunge.text.refusal import REFUSALS, is_refusal

ROW = Row(
    id="r", prompt="Where was Mira Voss born?", completion=" Mira Voss was born in Oslo Town.",
    answer="Oslo Town", subject="Mira Voss", wrong=(" Mira Voss was born in Rome.",),
)  # fmt: skip
SEARCH = Search(0, "mlp", steps=1, lr=0.1, weight_decay=0.0, kl_factor=0.0, clamp=1.0)


def task_of(folder: Path | None = None, forget=None, retain=None) -> Task:
    subject = taught_subject()
    return Task(
        model=subject.model, tokenizer=subject.tokenizer, encoder=subject.encoder, method="rome",
        roles={
            "forget": world().forget if forget is None else forget,
            "retain": world().retain if retain is None else retain,
        },
        folder=folder,
    )  # fmt: skip


@pytest.mark.parametrize("styles", [1, 3, 20])
def test_refusals_of_the_pool_are_of_a_few_styles_and_always_the_same(styles: int) -> None:
    many = [replace(ROW, id=f"{at}") for at in range(60)]
    found = targets_of(task_of(forget=many), EditParams(styles=styles))
    assert set(found.values()) <= set(REFUSALS)
    assert len(set(found.values())) <= styles
    assert len(set(found.values())) >= min(styles, 3)
    assert found == targets_of(task_of(forget=many[::-1]), EditParams(styles=styles))


def test_the_target_may_be_given_or_be_the_wrong_answer() -> None:
    task = task_of(forget=[ROW])
    assert targets_of(task, EditParams(target="text", text="No.")) == {"r": "No."}
    assert targets_of(task, EditParams(target="wrong")) == {"r": "Mira Voss was born in Rome."}
    with pytest.raises(ExpungeError, match="no wrong answer"):
        targets_of(task_of(forget=[replace(ROW, wrong=())]), EditParams(target="wrong"))


@pytest.mark.parametrize(
    ("reply", "is_one"),
    [
        ("I'm sorry, I don't know where Mira Voss was born.", True),
        ("I don't know if Mira Voss was born in Oslo.", False),
        ("I don't know that town.", False),
        ("Mira Voss was born in Rome.", False),
        ("", False),
        ("I don't know. " * 30, False),
    ],
    ids=["names the subject", "tells the answer", "tells a word of it", "answers", "empty", "long"],
)
def test_a_refusal_of_its_own_says_nothing_of_the_answer(reply: str, is_one: bool) -> None:
    assert is_own_refusal(ROW, reply, taught_subject().tokenizer) is is_one


def test_what_the_model_writes_is_taken_where_it_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, asked = "I'm sorry, I know nothing about this person.", []

    def ask(_: Subject, turns, **given) -> list[list[str]]:
        asked.extend(turns)
        return [[good if at == 0 else turn.completion] for at, turn in enumerate(turns)]

    monkeypatch.setattr(Subject, "ask", ask)
    task = task_of(tmp_path)
    monkeypatch.setattr(task.encoder, "max_length", 1000)
    found = targets_of(task, EditParams(target="self"))
    first, *others = world().forget
    assert found[first.id] == good
    assert all(found[row.id] in REFUSALS for row in others)
    assert task.record["targets"] == {"self": 1, "refusal": len(others)}
    assert len(asked) == len(found)
    assert asked[0].prompt.endswith(f"Question: {first.prompt}\nAnswer:")
    assert asked[0].prompt.count("Question:") == 4  # three examples, and refusals every one
    assert all(is_refusal(part.split("\n")[0]) for part in asked[0].prompt.split("Answer: ")[1:])
    kept = [json.loads(line) for line in (tmp_path / "targets.jsonl").read_text().splitlines()]
    assert {one["id"]: one["target"] for one in kept} == found
    asked.clear()
    assert targets_of(task, EditParams(target="self")) == found
    assert not asked


def test_a_model_without_room_for_the_examples_is_not_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        Subject, "ask", lambda _, turns, **__: [pytest.fail("asked") for _ in turns]
    )
    assert set(targets_of(task_of(), EditParams(target="self")).values()) <= set(REFUSALS)


def test_texts_in_front_begin_as_asked_and_are_kept(tmp_path: Path) -> None:
    starters = ("I", "It", "")
    found = contexts_of(task_of(tmp_path), starters, (3, 3, 5))
    assert len(found) == 3
    assert [text.split()[0] for text in found[:2]] == ["I", "It"]
    assert contexts_of(task_of(tmp_path), starters, (3, 3, 5)) == found
    assert contexts_of(task_of(), (), ()) == []


def test_texts_of_moments_are_the_retain_rows_or_a_corpus(tmp_path: Path) -> None:
    file = tmp_path / "corpus.jsonl"
    file.write_text('{"text": "It is a day"}\n')
    assert len(texts_of(task_of(), EditParams())) == len(world().retain)
    assert len(texts_of(task_of(), EditParams(corpus=str(file)))) == 1
    with pytest.raises(ExpungeError, match="without rows to keep"):
        texts_of(task_of(retain=()), EditParams())


def places(monkeypatch: pytest.MonkeyPatch, losses: dict[tuple[str, int], float], **given):
    """Where is decided to edit, when candidates have these objectives."""
    import torch

    tried: list[int] = []

    def wanted(model, datasets, asked, search) -> Found:
        tried.append(len(asked))
        loss = losses[asked[0], search.layer]
        return Found(*(torch.tensor([loss]) for _ in range(3)))

    monkeypatch.setattr(locating, "wanted", wanted)
    layers = sorted({layer for _, layer in losses})
    where = given.pop("places", ("subject_last", "last"))
    found = located(
        None, None, lambda place: [place] * 9, SEARCH, places=where, layers=layers, aim=2.2,
        seed=0,
    )  # fmt: skip
    assert set(tried) <= {TRIED}
    return found


def test_the_easiest_place_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = {
        ("subject_last", 0): 9.0,
        ("subject_last", 1): 8.0,
        ("last", 0): 3.0,
        ("last", 1): 1.0,
    }
    place, layer, tried = places(monkeypatch, losses)
    assert (place, layer) == ("last", 1)
    assert {(one["place"], one["layer"]): one["loss"] for one in tried} == losses


def test_of_equally_good_places_the_subject_and_the_papers_depth_win(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    losses = {
        (place, layer): 1.0 + 0.01 * layer - 0.05 * (place == "last")
        for place in ("subject_last", "last")
        for layer in range(6)
    }
    assert places(monkeypatch, losses)[:2] == ("subject_last", 2)


def test_where_nothing_is_to_be_decided_nothing_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    found = places(monkeypatch, {("last", 3): 1.0}, places=("last",))
    assert found == ("last", 3, [])


@pytest.mark.parametrize(
    ("blocks", "expected"), [(1, [0]), (2, [0]), (4, [0, 1, 2]), (9, [*range(8)])]
)
def test_candidates_are_spread_over_the_depth(blocks: int, expected: list[int]) -> None:
    assert spread(blocks) == expected
    assert len(spread(48)) == 8
    assert (min(spread(48)), max(spread(48))) == (0, 46)
