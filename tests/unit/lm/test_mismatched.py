"""Mismatched pairs: real questions of other facts, and never a fact by accident."""

from itertools import islice

from expunge.lm.mismatched import Mismatches
from expunge.requests.rows import Row

ANNA = Row(
    id="anna", prompt="Where was Anna born?", completion=" In Tal.", answer="Tal",
    aliases=("Talheim",), paraphrases=({"prompt": "Anna's birthplace?"},),
)  # fmt: skip
BELA = Row(id="bela", prompt="Where was Bela born?", completion=" In Rusk.", answer="Rusk")
CARL = Row(id="carl", prompt="Where was Carl born?", completion=" He was born in tal.")
DORA = Row(id="dora", prompt="Where was Dora born?", completion=" Talheim, they say.")
EMIL = Row(id="emil", prompt="Where was Emil born?", completion=" In Talent.")
TWIN = Row(id="twin", prompt="where was anna born", completion=" In Zarvik.")
BOTH = [
    Row(id="f1", prompt="Where was Frida born?", completion=" In Orb."),
    Row(id="f2", prompt="where was Frida born", completion=" Or was it Tal?"),
]


def asked(row: Row, wording: int = 0, seed: int = 0, among: tuple[Row, ...] = ()) -> list[str]:
    rows = among or (ANNA, BELA, CARL, DORA, EMIL, TWIN, *BOTH)
    turns = list(Mismatches(rows).of(row, wording, seed=seed))
    assert {turn.completion for turn in turns} <= {row.turns[wording].completion}
    return [str(turn.prompt) for turn in turns]


def test_questions_that_have_the_answer_for_theirs_are_left_out() -> None:
    """Carl's is the same place, Dora's an alias of it; one of Frida's two answers as well."""
    assert sorted(asked(ANNA)) == ["Where was Bela born?", "Where was Emil born?"]


def test_the_own_question_is_none_in_whatever_wording_or_spelling() -> None:
    for wording in (0, 1):
        assert not {"Anna's birthplace?", "where was anna born"} & set(asked(ANNA, wording))


def test_a_plain_pair_of_two_facts_has_each_other() -> None:
    assert asked(BELA, among=(BELA, EMIL)) == ["Where was Emil born?"]
    assert asked(BELA, among=(BELA,)) == []


def test_the_seed_draws_the_order() -> None:
    rows = [Row(id=str(n), prompt=f"Question {n}?", completion=f" Reply{n}.") for n in range(30)]
    pool = Mismatches(rows)
    drawn = [[t.prompt for t in islice(pool.of(rows[0], 0, seed=s), 5)] for s in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[0])) == 5


def test_conversations_are_asked_by_their_last_words() -> None:
    talk = Row(
        id="talk",
        messages=({"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me."}),
    )
    (turn,) = Mismatches([talk, BELA]).of(BELA, 0, seed=0)
    assert turn.prompt == talk.turn.prompt
    assert turn.completion == " In Rusk."
