"""What optimised attacks train towards, and on which facts."""

import pytest

from expunge.core.errors import ExpungeError
from expunge.lm.openings import AFFIRM, AFFIRMATIONS, OWN, prepare, refuse_answers
from expunge.lm.subject import Scene, Subject
from expunge.requests.rows import Row
from expunge.testing.tiny import tiny_model, tiny_tokenizer


def facts(n=12, **more):
    return [
        Row.parse(
            {
                "id": f"r{i}",
                "prompt": f"Where does Mr {chr(65 + i)}en live?",
                "completion": f" He lives in T{i}.",
                "answer": f"T{i}",
                "subject": f"s{i}",
                **more,
            }
        )
        for i in range(n)
    ]


@pytest.fixture(scope="module")
def subject():
    texts = [f"{row.prompt}{row.completion}" for row in facts()]
    tokenizer = tiny_tokenizer(texts, kind="bpe", vocab=400)
    return Subject(tiny_model("llama", vocab=400, positions=96), tokenizer)


def ready(subject, rows, *, openings=OWN, share=0.2, least=5, longer=0):
    scene = Scene(retain=(), neighbour=(), seed=0, new_tokens=10)
    return prepare(subject, rows, scene, openings=openings, share=share, least=least, longer=longer)


def test_there_are_thirteen_affirmations_and_all_differ():
    assert len(set(AFFIRMATIONS)) == len(AFFIRMATIONS) == 13


@pytest.mark.parametrize("opening", ["Sure, it is t3.", "T3", "He lives in T3, of course"])
def test_an_opening_that_holds_an_answer_is_refused(subject, opening):
    with pytest.raises(ExpungeError, match="'r3'") as caught:
        ready(subject, facts(), openings=f"Sure, | {opening}")
    assert caught.value.code == "E-USE-003"


def test_an_alias_is_an_answer_and_a_part_of_a_word_is_none():
    (row,) = facts(1, answer="Paris", aliases=["the capital"])
    with pytest.raises(ExpungeError):
        refuse_answers(["It is the capital:"], [row])
    refuse_answers(["The Parisian answer is", "Sure,"], [row])


def test_a_tested_fact_is_never_a_training_fact(subject):
    campaign = ready(subject, [*facts(), *facts(3)])
    taught = {own[0].row.value for own in campaign.lessons}
    assert len(taught) >= 3
    assert not taught & {row.value for row in campaign.tested}
    assert campaign.is_ready
    assert not campaign.note


def test_the_own_beginning_stops_before_the_value(subject):
    for (probe,) in ready(subject, facts()).lessons:
        assert probe.opening == " He lives in"


def test_given_openings_take_the_space_of_the_answer_and_turn_by_turn(subject):
    campaign = ready(subject, facts(), openings="Sure,|It is")
    assert [probe.opening for probe in campaign.lessons[0]] == [" Sure,", " It is"]
    assert [probe.opening for probe in campaign.paired()][:2] == [" Sure,", " It is"]
    assert [probe.opening for probe in campaign.paired(1)][:2] == [" It is", " Sure,"]


def test_an_affirmation_that_is_an_answer_is_left_out(subject):
    rows = facts(11)
    rows.append(Row.parse({**facts(12)[11].as_dict(), "answer": "easy", "completion": " easy"}))
    campaign = ready(subject, rows, openings=AFFIRM)
    assert campaign.openings == 12
    assert not any("easy" in probe.opening for own in campaign.lessons for probe in own)


def test_openings_without_tokens_give_way_to_the_own_beginning():
    tokenizer = tiny_tokenizer([f"{row.prompt}{row.completion}" for row in facts()], kind="word")
    few_words = Subject(tiny_model("llama", vocab=len(tokenizer)), tokenizer)
    campaign = ready(few_words, facts(), openings=AFFIRM)
    assert "no tokens" in campaign.note
    assert campaign.lessons[0][0].opening == " He lives in"


def test_a_beginning_that_tells_another_row_teaches_nothing(subject):
    told = "He and T1 and T2 and T3 live in"
    rows = [Row.parse({**row.as_dict(), "completion": f" {told} {row.value}."}) for row in facts()]
    assert not ready(subject, rows).lessons
    assert "no training question" in ready(subject, rows).note


def test_running_text_and_what_has_no_room_are_left_out(subject):
    text = Row.parse({"id": "text", "text": "He lives in a small town far away."})
    long = Row.parse({**facts()[0].as_dict(), "id": "long", "prompt": "where " * 60})
    spoken = Row.parse(
        {
            "id": "spoken",
            "messages": [
                {"role": "user", "content": "Where?"},
                {"role": "assistant", "content": "Here."},
            ],
        }
    )
    campaign = ready(subject, [*facts(), text, long, spoken])
    named = {row.id for row in campaign.tested} | {own[0].row.id for own in campaign.lessons}
    assert named == {row.id for row in facts()}
    assert campaign.note.startswith("3 rows")
    assert not ready(subject, facts(), longer=80).is_ready


def test_too_few_facts_are_said(subject):
    campaign = ready(subject, facts(5))
    assert not campaign.is_ready
    assert "too few" in campaign.note
    assert not ready(subject, []).is_ready
