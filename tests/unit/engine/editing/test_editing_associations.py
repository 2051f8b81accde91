"""Associations: where prompts are edited, what stands in front, which share an edit."""

from dataclasses import replace

import pytest

from expunge.data.encode import IGNORED, Encoder
from expunge.engine.editing.associations import associations, behind, called
from expunge.requests.rows import Row, Turn
from expunge.testing import tiny_tokenizer

ROWS = [
    Row(
        id=f"{name}/{what}", prompt=f"Where was {name} {what}?", completion=" In Paris.",
        subject=name, names=(name, name.split()[0]),
    )
    for name in ("Mira Voss", "Ada Lund", "Ole Berg")
    for what in ("born", "seen", "heard", "paid")
]  # fmt: skip
TEXTS = [*(f"{row.prompt}{row.completion}" for row in ROWS), "I do not know. It is a day, so is a"]


@pytest.fixture(params=[False, True], ids=["plain", "chat"])
def encoder(request: pytest.FixtureRequest) -> Encoder:
    return Encoder(tiny_tokenizer(TEXTS, kind="bpe", chat=request.param, vocab=300), 200)


def made(encoder: Encoder, rows=ROWS, target: str = "I do not know.", **given):
    return associations(rows, {row.id: target for row in rows}, encoder, **given)


def text_to(encoder: Encoder, prompt) -> str:
    return encoder.tokenizer.decode(prompt.item.ids[: prompt.at + 1])


def supervised(encoder: Encoder, prompt) -> str:
    return encoder.decode([label for label in prompt.item.labels if label != IGNORED])


def test_the_subject_ends_where_it_is_edited(encoder: Encoder) -> None:
    for one, row in zip(made(encoder, place="subject_last"), ROWS, strict=True):
        assert one.subject == row.subject
        assert text_to(encoder, one.bare).endswith(f"Where was {row.subject}")
        assert supervised(encoder, one.bare) == " I do not know."


def test_the_last_token_is_the_one_that_predicts_the_answer(encoder: Encoder) -> None:
    for one in made(encoder, place="last"):
        assert one.bare.item.labels[one.bare.at] == IGNORED
        assert one.bare.item.labels[one.bare.at + 1] != IGNORED
        assert "?" in text_to(encoder, one.bare)


def test_without_a_name_in_the_prompt_the_last_token_is_edited(encoder: Encoder) -> None:
    row = Row(id="x", prompt="where was it?", completion=" In Paris.", subject="s", names=("Zoe",))
    (one,) = made(encoder, [row], place="subject_last")
    (last,) = made(encoder, [row], place="last")
    assert one == last
    assert one.subject == ""
    assert one.drift is None


def test_the_last_of_several_mentions_counts(encoder: Encoder) -> None:
    row = replace(ROWS[0], prompt="Mira Voss, where was Mira Voss born?")
    (one,) = made(encoder, [row], place="subject_last")
    assert text_to(encoder, one.bare).endswith("where was Mira Voss")


def test_the_longest_name_counts_as_it_is_written() -> None:
    assert called(Turn("where was MIRA VOSS born?", ""), ("Mira", "Mira Voss")) == "MIRA VOSS"
    assert called(Turn("where was Mirabel born?", ""), ("Mira",)) == ""


def test_texts_stand_in_front_and_the_place_moves_along(encoder: Encoder) -> None:
    one = made(encoder, place="subject_last", contexts=["It is a day.", "so is a"])[0]
    assert len(one.prompts) == 3
    for prompt, context in zip(one.prompts[1:], ("It is a day. ", "so is a. "), strict=True):
        assert text_to(encoder, prompt).endswith(f"{context}Where was Mira Voss")
        assert supervised(encoder, prompt) == " I do not know."


def test_in_a_conversation_the_first_message_of_the_user_is_put_behind() -> None:
    turn = Turn(({"role": "system", "content": "s"}, {"role": "user", "content": "Who?"}), "x")
    assert behind(turn, "It is.").prompt[1]["content"] == "It is. Who?"


@pytest.mark.parametrize("place", ["subject_last", "last"])
def test_the_drift_prompt_watches_the_token_after_the_place(encoder: Encoder, place) -> None:
    one = made(encoder, place=place)[0]
    supervised = [at for at, label in enumerate(one.drift.item.labels) if label != IGNORED]
    assert supervised == [one.drift.at + 1]
    ends = "Mira Voss" if place == "subject_last" else "Mira Voss is a"
    assert text_to(encoder, one.drift).endswith(ends)


def test_queries_are_merged_by_target(encoder: Encoder) -> None:
    """The card's check: twelve queries, four at a time, make three edits."""
    merged = made(encoder, place="subject_last", merge=4)
    assert [len(one.rows) for one in merged] == [4, 4, 4]
    assert [row for one in merged for row in one.rows] == [row.id for row in ROWS]
    first = merged[0]
    together = " ".join(row.prompt for row in ROWS[:4])
    assert together in encoder.tokenizer.decode(first.bare.item.ids)
    assert text_to(encoder, first.bare).endswith(f"{ROWS[2].prompt} Where was Mira Voss")


def test_queries_with_other_targets_are_not_merged(encoder: Encoder) -> None:
    targets = {row.id: ("I do not know.", "It is a day.")[at % 2] for at, row in enumerate(ROWS)}
    merged = associations(ROWS, targets, encoder, place="last", merge=4)
    assert [len(one.rows) for one in merged] == [4, 4, 2, 2]
    for one in merged:
        assert {targets[row] for row in one.rows} == {one.target}


def test_running_text_is_not_merged(encoder: Encoder) -> None:
    rows = [Row(id=f"{at}", text="It is a day, so is Mira Voss") for at in range(2)]
    assert len(made(encoder, rows, place="last", merge=2)) == 2
