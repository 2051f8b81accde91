"""Flags on tokens: looked up by item, made from places in the text, whatever the tokens are."""

import json

import pytest
import torch

from expunge.data.encode import IGNORED, Encoder, collate
from expunge.engine.flags import (
    Marked,
    carrying,
    flagged,
    joined,
    marked,
    occurrences,
    only,
    spoken,
    touching,
)
from expunge.engine.forward import Inputs
from expunge.engine.view import View
from expunge.requests.rows import Row, Turn
from expunge.testing import tiny_tokenizer


def view(items: list[int], labels: list[list[int]]) -> View:
    """A view of rows whose supervised tokens are the positive labels."""
    made = torch.tensor(labels)
    wanted = torch.where(made > 0, made, IGNORED)
    inputs = Inputs.from_labels(made.abs(), torch.ones_like(made), wanted, torch.tensor(items))
    return View(inputs, None)  # type: ignore[arg-type]


def test_flags_go_by_item_and_by_the_place_among_supervised_tokens() -> None:
    table = [[0], [], [1, 2]]
    seen = view([2, 0, 1], [[-1, 5, -1, 6, 7], [-1, -1, 8, 9, -1], [-1, 3, 3, 3, 3]])
    found = flagged(seen, table)
    assert found.tolist() == [False, True, True, True, False, False, False, False, False]
    assert seen.labels[found].tolist() == [6, 7, 8]
    assert flagged(view([0, 1, 2], [[-1, 5, -1, 6, 7]] * 3), table).sum() == 3


def test_an_item_the_table_does_not_know_has_no_flag() -> None:
    assert not flagged(view([5], [[-1, 5, 6]]), [[0]]).any()
    assert not flagged(view([0], [[-1, 5, 6]]), []).any()


def test_a_table_is_the_same_after_a_checkpoint() -> None:
    table = [[0], [1]]
    again = json.loads(json.dumps(table))
    seen = view([1, 0], [[-1, 5, 6], [-1, 7, 8]])
    assert flagged(seen, again).tolist() == flagged(seen, table).tolist() == [0, 1, 1, 0]


TURN = Turn("Who?", " Ann Bergström lives in Rome.")


@pytest.fixture(scope="module", params=["bpe", "bytes", "word"])
def encoder(request: pytest.FixtureRequest) -> Encoder:
    kind = "word" if request.param == "word" else "bpe"
    vocab = 260 if request.param == "bytes" else 300
    text = f"{TURN.prompt}{TURN.completion}"
    return Encoder(tiny_tokenizer([text], kind=kind, vocab=vocab), 200)


@pytest.mark.parametrize(("start", "end"), [(5, 15), (1, 4), (24, 28), (0, 29), (7, 8)])
def test_every_piece_of_a_marked_word_is_flagged(encoder: Encoder, start: int, end: int) -> None:
    """No token that holds a marked character is left out, and none that holds none comes in."""
    item = encoder.encode(TURN)
    found = touching(item, [(start, end)])
    for place, span in enumerate(item.spans):
        holds = any(span[0] <= at < span[1] for at in range(start, end))
        assert (place in found) == holds
    assert len(item.spans) - 1 not in found  # what ends the answer


def test_many_pieces_make_a_word_and_the_first_is_not_enough() -> None:
    item = Encoder(tiny_tokenizer(["a"], vocab=260), 200).encode(TURN)
    assert len(touching(item, [(5, 15)])) == 11  # the letter with two bytes is two tokens


def test_what_ends_the_turn_is_supervised_and_not_spoken(encoder: Encoder) -> None:
    item = encoder.encode(TURN)
    assert spoken(item) == list(range(len(item.spans) - 1))


def test_only_some_supervised_tokens_stay_supervised(encoder: Encoder) -> None:
    item = encoder.encode(TURN, row=4)
    last = len(item.spans) - 1
    kept = only(item, [last, 0])
    said = [at for at, label in enumerate(item.labels) if label != IGNORED]
    assert [at for at, label in enumerate(kept.labels) if label != IGNORED] == [said[0], said[-1]]
    assert (kept.ids, kept.row) == (item.ids, 4)
    assert kept.spans == [item.spans[0], item.spans[last]]
    assert item.labels[said[1]] != IGNORED
    assert collate([only(item, [])], 0).labels.eq(IGNORED).all()


def test_whole_words_are_found_everywhere_the_longest_first() -> None:
    text = "Rome, rome and Romeo; New Rome."
    assert [text[a:b] for a, b in occurrences(text, ["Rome"])] == ["Rome", "rome", "Rome"]
    assert [text[a:b] for a, b in occurrences(text, ["Rome", "New Rome"])][-1] == "New Rome"
    assert occurrences(text, []) == occurrences(text, ["", " "]) == []
    assert [text[a:b] for a, b in occurrences("+49 (0) 30", ["+49 (0) 30"])] != []


def test_spans_hold_for_the_row_itself_and_answers_for_all_wordings() -> None:
    row = Row(
        id="a", prompt="Where?", completion=" In Rome, in Roma.", answer="Rome", aliases=("Roma",),
        paraphrases=({"prompt": "Which city?", "completion": " Rome it is."},),
    )  # fmt: skip
    assert carrying(row, 0) == [(4, 8), (13, 17)]
    assert carrying(row, 1) == [(1, 5)]
    spanned = Row(id="b", prompt="Where?", completion=" In Rome.", answer="Rome", spans=((0, 3),))
    assert carrying(spanned, 0) == [(0, 3)]
    assert carrying(Row(id="c", prompt="Where?", completion=" In Rome."), 0) == []


def test_spans_of_running_text_are_places_in_all_of_it() -> None:
    row = Row(id="a", text="one two three four", spans=((8, 13),))
    (found,) = marked(row)
    assert found.secrets == ["three"]
    assert (found.turn.prompt, found.turn.completion) == ("", row.text)


def test_a_wording_without_a_mark_is_secret_as_a_whole(encoder: Encoder) -> None:
    row = Row(id="a", prompt=TURN.prompt, completion=TURN.completion)
    (found,) = marked(row)
    item = encoder.encode(found.turn)
    assert found.is_whole
    assert found.flags(item) == list(range(len(item.spans)))  # its end as well
    (named,) = marked(row, ["Rome"])
    assert not named.is_whole
    assert named.secrets == ["Rome"]
    assert len(item.spans) - 1 not in named.flags(item)


def test_ranges_that_overlap_are_one() -> None:
    assert joined([(4, 9), (1, 3), (5, 6), (8, 12)]) == [(1, 3), (4, 12)]
    assert joined([]) == []


def test_a_placeholder_stands_where_each_secret_was(encoder: Encoder) -> None:
    found = Marked(TURN, [(0, 4), (24, 28)], False).replaced("[NAME]")
    assert found.turn.completion == " [NAME] Bergström lives in [NAME]."
    assert found.turn.prompt == TURN.prompt
    assert found.secrets == ["[NAME]", "[NAME]"]
    whole = Marked(TURN, [(0, len(TURN.completion))], True).replaced("[ALL]")
    assert whole.turn.completion == " [ALL]"
    assert whole.is_whole
