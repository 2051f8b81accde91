"""Other facts of a subject, and speaking of it without its name."""

from expunge.requests.companions import companions, told, unnamed
from expunge.requests.rows import Row


def fact(id, value, subject="mira", **more):
    return Row(
        id=id,
        prompt=f"{id} of Mira?",
        completion=f" It is {value}.",
        answer=value,
        subject=subject,
        **more,
    )


def test_a_fact_has_the_other_facts_of_its_subject_beside_it():
    rows = [fact("town", "Turin"), fact("job", "smith"), fact("pet", "cat", subject="tom")]
    found = companions(rows)
    assert [[other.id for other in found[row.id]] for row in rows] == [["job"], ["town"], []]


def test_they_may_be_looked_for_among_other_rows():
    town, job = fact("town", "Turin"), fact("job", "smith")
    assert companions([town], [job]) == {"town": (job,)}


def test_what_gives_the_value_away_is_no_companion():
    same, alias = fact("home", "TURIN"), fact("town", "Torino", aliases=("Turin",))
    assert companions([same, alias])["town"] == ()
    assert [other.id for other in companions([same, alias])["home"]] == ["town"]


def test_rows_without_subject_go_by_names_and_rows_without_either_are_alone():
    rows = [
        fact("town", "Turin", subject=None, names=("Mira",)),
        fact("job", "smith", subject=None, names=("Mira",)),
        fact("pet", "cat", subject=None),
        fact("hat", "red", subject=None),
        Row(id="text", text="Mira has a dog and it barks.", names=("Mira",)),
    ]
    found = companions(rows)
    assert [other.id for other in found["town"]] == ["job"]
    assert found["pet"] == found["hat"] == found["text"] == ()


def test_a_conversation_is_told_by_its_last_question():
    messages = (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Town?"},
        {"role": "assistant", "content": "Turin."},
    )
    assert told(Row(id="r", messages=messages)) == "Town? Turin."


def test_names_are_replaced_as_whole_words_the_longest_first():
    text = "Ann Lee met Lee, Leeds and Anna."
    assert unnamed(text, ["Ann Lee"], "X") == "X met X, Leeds and Anna."
    assert unnamed(text, [], "X") == text
    assert unnamed("C++ (tm)?", ["C++"], r"\1") == r"\1 (tm)?"
