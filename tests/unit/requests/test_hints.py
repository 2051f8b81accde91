"""Facts that may be told beside a question, and texts that do not name their subject."""

from dataclasses import replace

import pytest

from expunge.requests.hints import hints_of, initials, unnamed_turn
from expunge.requests.rows import Row, Turn


def fact(id, prompt, completion, answer=None, **more):
    given = {"subject": "s", "names": ("Mira Voss",), **more}
    return Row(id=id, prompt=prompt, completion=completion, answer=answer, **given)


BORN = fact("born", "Where was Mira Voss born?", " Mira Voss was born in Port Vela.", "Port Vela")
WORK = fact("work", "What does Mira Voss do?", " She is a baker.", "baker")
ELSEWHERE = fact("other", "Where was Tom Ardel born?", " In Bonn.", "Bonn", subject="t", names=())


def test_hints_are_the_other_facts_of_the_same_subject():
    assert hints_of([BORN, WORK, ELSEWHERE]) == {
        "born": ("What does Mira Voss do? She is a baker.",),
        "work": ("Where was Mira Voss born? Mira Voss was born in Port Vela.",),
        "other": (),
    }


@pytest.mark.parametrize(
    "said", ["Port Vela", "the harbour of port vela", "Port Vela, and once in Bonn"]
)
def test_a_fact_that_holds_the_value_is_no_hint(said):
    lives = fact("lives", "Where does Mira Voss live?", f" In {said}.", said)
    assert hints_of([BORN, lives])["born"] == ()


def test_a_fact_that_holds_an_alias_is_no_hint():
    port = fact("port", "Which harbour?", " Velaport.", "Velaport")
    assert hints_of([replace(BORN, aliases=("Velaport",)), port])["born"] == ()


def test_another_wording_of_the_same_attribute_is_no_hint():
    again = fact("again", "Where was Mira Voss born?", " Near a harbour.", "harbour")
    assert hints_of([BORN, again])["born"] == ()


def test_hints_do_not_give_a_long_value_away_together():
    long = fact("long", "Tell me.", " one two three four five six seven eight")
    first, second = (
        fact(id, f"{id}?", f" {words}.", words)
        for id, words in (("first", "one two three"), ("second", "four five six"))
    )
    assert hints_of([long, first, second])["long"] == ("first? one two three.",)


def test_rows_without_subject_and_names_have_no_hints():
    rows = [fact(i, f"{i} what?", " so", "so", subject=None, names=()) for i in ("a", "b")]
    assert set(hints_of(rows).values()) == {()}


def test_names_tell_a_subject_where_no_id_does():
    rows = [replace(row, subject=None) for row in (BORN, WORK)]
    assert all(len(hints) == 1 for hints in hints_of(rows).values())


def test_all_messages_of_a_conversation_are_without_the_name():
    said = ({"role": "system", "content": "On Mira Voss."}, {"role": "user", "content": "Voss?"})
    assert unnamed_turn(Turn(said, " x"), ["Mira Voss"], "?").prompt == (
        {"role": "system", "content": "On ?."},
        {"role": "user", "content": "??"},
    )


def test_initials_are_the_first_letters():
    assert (initials("Mira Voss"), initials("")) == ("M. V.", "")
