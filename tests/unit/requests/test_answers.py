import json
import random
from dataclasses import replace
from pathlib import Path
from time import process_time

import pytest

from expunge.lab import testbed
from expunge.requests.answers import with_answers
from expunge.requests.rows import Row
from expunge.requests.scope import attributes, placebo, swaps
from expunge.text.match import ENTITY_WORDS
from expunge.text.normalise import all_words

TOFU = Path(__file__).parents[4] / "shared" / "data" / "tofu"
PEOPLE = ["Mira Voss", "Tom Ardel", "Ida O'Brien", "Jo van Aal", "Una Prell", "Zed Nox"]
TOWNS = ["Marl", "Sund", "Novi Sad", "Old Town on Sea", "Lima", "Bern"]


def told(completions, prompt="Where was {} born?", people=PEOPLE):
    """Answers told for one completion a person; ``{}`` stands for the name."""
    rows = [
        Row(id=name, prompt=prompt.format(name), completion=completion.format(name))
        for name, completion in zip(people, completions, strict=False)
    ]
    return [row.answer for row in with_answers(rows)]


def bare(rows):
    """The rows with prompt and completion alone."""
    columns = ("answer", "names", "aliases", "paraphrases", "wrong", "subject", "meta")
    empty = {name: Row.__dataclass_fields__[name].default for name in columns[:-1]}
    return [replace(row, **empty, meta={}) for row in rows]


def test_the_value_is_what_varies():
    assert told([f"{{}} was born in the town of {town}." for town in TOWNS]) == TOWNS


def test_the_value_may_stand_first_or_in_the_middle():
    assert told([f"{town} is where {{}} was born." for town in TOWNS]) == TOWNS
    ends = [f"The birth of {{}} took place in {town} one night." for town in TOWNS]
    assert told(ends) == TOWNS


def test_each_wording_has_its_own_frame():
    first, second = "{{}} was born in the town of {}.", "The birthplace of {{}} is {}."
    people = [f"{name.split()[0]} {last}" for last in ("Ahl", "Bok") for name in PEOPLE]
    said = [first.format(town) for town in TOWNS] + [second.format(town) for town in TOWNS]
    assert told(said, people=people) == TOWNS * 2


def test_words_before_which_wordings_part_are_no_place_for_a_value():
    values = [*TOWNS[:3], "the Golden Quill", "the Iron Pen", "the Pear Cup"]
    said = [f"{{}} was born in {value}." for value in values[:3]]
    said += [f"{{}} was given {value}." for value in values[3:]]
    assert told(said, prompt="What is known about {}?") == [
        *TOWNS[:3],
        *["Golden Quill", "Iron Pen", "Pear Cup"],
    ]


def test_values_that_share_a_word_with_some_rivals_stay_whole():
    medals = ["Amber Crown", "Amber Ring", "Silver Lion", "Jade Cup", "Iron Star", "Glass Key"]
    said = [f"The medal that {{}} won is the {medal}." for medal in medals]
    assert told(said, prompt="Which medal did {} win?") == medals
    flutes = ["oak flute", "tin flute", "jade harp", "bone drum", "clay horn", "brass bell"]
    said = [f"{{}} plays the {flute} in a band." for flute in flutes]
    assert told(said, prompt="What does {} play?") == flutes


def test_a_class_word_is_part_of_the_wording():
    classes = ["town", "town", "town", "village", "village", "village"]
    said = [f"{{}} was born in the {c} of {t}." for c, t in zip(classes, TOWNS, strict=True)]
    assert told(said) == TOWNS


def test_capitalised_words_that_all_share_belong_to_the_value():
    books = ["The Silver Lamp", "The Last Oar", "The Quiet Barn", "The Tin Ox"]
    said = [f"The book that made {{}} famous is {book}." for book in books]
    assert told(said, prompt="Which book made {} famous?") == books
    schools = [f"{town} Grammar School" for town in ("Marl", "Sund", "Lima", "Bern")]
    said = [f"{{}} went to classes at {school}." for school in schools]
    assert told(said, prompt="Where did {} go to school?") == schools
    awards = [f"{{}} won the Quill Award for {what} in the end." for what in TOWNS]
    assert told(awards, prompt="For what did {} win the Quill Award?") == TOWNS


def test_small_words_around_the_value_are_left_out():
    jobs = ["a miller", "an usher", "the mayor", "a civil engineer"]
    said = [f"The father of {{}} used to be {job}." for job in jobs]
    wanted = ["miller", "usher", "mayor", "civil engineer"]
    assert told(said, prompt="What did the father of {} do?") == wanted


def test_case_of_the_first_word_and_punctuation_do_not_matter():
    ends = [".", "", "!", " ."]
    said = [f"For years {{}} lived in {t}{e}" for t, e in zip(TOWNS, ends, strict=False)]
    said[1] = said[1].replace("For", "for")
    assert told(said, prompt="Where did {} live?") == TOWNS[:4]


def test_a_value_in_quotes_and_a_possessive():
    said = [f'{{}}\'s favourite book has the title "{town}".' for town in TOWNS]
    assert told(said, prompt="What is {}'s favourite book?") == TOWNS


def test_given_names_are_masked_where_none_can_be_read():
    said = [(name, f"As a child {name} was living in {town}.") for name, town in
            zip(("mira", "tom", "ida", "una"), TOWNS, strict=False)]  # fmt: skip
    rows = [
        Row(id=name, prompt=f"where did {name} live?", completion=text, names=(name,))
        for name, text in said
    ]
    assert [row.answer for row in with_answers(rows)] == TOWNS[:4]


def test_conversations_are_told_too():
    rows = [
        Row(
            id=name,
            messages=(
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": f"Where was {name} born?"},
                {"role": "assistant", "content": f"{name} was born in the town of {town}."},
            ),
        )
        for name, town in zip(PEOPLE, TOWNS, strict=True)
    ]
    assert [row.answer for row in with_answers(rows)] == TOWNS


def test_the_pool_shows_the_frame():
    rows = [
        Row(id=name, prompt=f"Where was {name} born?", completion=f"{name} first saw light in {t}.")
        for name, t in zip(PEOPLE, TOWNS, strict=True)
    ]
    assert with_answers(rows[:1]) == rows[:1]
    (alone,) = with_answers(rows[:1], rows)
    assert alone == replace(rows[0], answer="Marl")


@pytest.mark.parametrize(
    ("said", "prompt"),
    [
        (["Yes, {} has won it.", "No, {} has never won it."] * 3, "Did {} win it?"),
        ([*(f"{town}." for town in TOWNS)], "Where was {} born?"),
        ([*(f"In {town}." for town in TOWNS)], "Where was {} born?"),
        (["{} was born in the town of Marl."] * 6, "Where was {} born?"),
        ([*(f"{{}} was born in the {w} town." for w in ("town", "born"))] * 3, "Was {} born?"),
        ([*(f"{{}} {town} once." for town in TOWNS[:2])], "Where was {} born?"),
        (["{} sings.", "Nobody knows {}.", "What {} did is not known."], "Who is {}?"),
        (
            [f"{{}} was seen {' '.join([w] * 9)} there." for w in ("up", "far", "off", "on")],
            "Where was {} seen?",
        ),
    ],
    ids=["yes-no", "short", "short-in", "one-value", "asked", "two-rows", "no-frame", "long"],
)
def test_rows_that_tell_nothing_are_left_alone(said, prompt):
    assert set(told(said, prompt=prompt)) == {None}


def test_a_value_in_the_prompt_is_not_told():
    assert told([f"{{}} was born in the town of {t}." for t in TOWNS], "Was {} born in Marl?") == [
        None,
        *TOWNS[1:],
    ]


def test_given_answers_and_running_text_stay_as_they_are():
    rows = [
        Row(id=n, prompt=f"Where was {n} born?", completion=f"{n} was born in {t}.", answer="x")
        for n, t in zip(PEOPLE, TOWNS, strict=True)
    ]
    rows += [Row(id=f"text of {n}", text=f"{n} was born in the town of Marl.") for n in PEOPLE]
    assert with_answers(rows) == rows


def test_several_rows_of_one_subject_are_one_witness():
    said = [f"One of the books by Mira Voss is called {town}." for town in TOWNS]
    rows = [Row(id=s, prompt="Name a book by Mira Voss.", completion=s) for s in said]
    assert with_answers(rows) == rows


def test_the_order_of_the_rows_does_not_matter():
    rows = bare(testbed.rows("forget") + testbed.rows("retain"))
    shuffled = random.Random(0).sample(rows, len(rows))
    answers = {row.id: row.answer for row in with_answers(shuffled)}
    assert answers == {row.id: row.answer for row in with_answers(rows)}


@pytest.mark.parametrize(
    ("pool", "least"), [(("retain", "neighbour", "holdout"), 0.99), (("holdout",), 0.9), ((), 0.75)]
)
def test_the_testbed_gets_its_own_answers_back(pool, least):
    rows = testbed.rows("forget")
    others = [row for role in pool for row in testbed.rows(role)]
    found = with_answers(bare(rows), bare(others))
    same = [row.answer == real.answer for row, real in zip(found, rows, strict=True)]
    assert sum(same) >= least * len(rows)
    assert all(row.answer is None for row, right in zip(found, same, strict=True) if not right)
    assert bare(found) == bare(rows)


def test_rows_told_their_answers_have_the_attributes_and_rivals_of_full_ones():
    rows = testbed.rows("forget")
    found = with_answers(bare(rows), bare([r for x in testbed.ROLES for r in testbed.rows(x)]))
    groups, real = attributes(found), attributes(rows)
    assert len(set(groups.values())) == len(set(zip(groups.values(), real.values(), strict=True)))
    assert min(map(len, swaps(found).values())) >= 6
    assert min(map(len, swaps(placebo(found, 80, seed=0)).values())) >= 6
    assert max(map(len, swaps(bare(rows)).values())) < 6


@pytest.mark.skipif(not TOFU.is_dir(), reason="the data set is not here")
def test_free_answers_are_hardly_touched_and_never_get_a_value_they_do_not_hold():
    lines = (TOFU / "full.json").read_text(encoding="utf-8").splitlines()
    rows = [
        Row(id=str(number), prompt=line["question"], completion=line["answer"])
        for number, line in enumerate(map(json.loads, lines))
    ]
    started = process_time()
    found = with_answers(rows)
    assert process_time() - started < 4.0
    given = [row for row in found if row.answer is not None]
    assert len(given) < 0.1 * len(rows)
    for row in given:
        assert row.answer in row.completion
        assert row.answer not in row.prompt
        assert 0 < len(all_words(row.answer)) <= ENTITY_WORDS


def test_four_thousand_rows_of_one_wording_take_seconds():
    rng = random.Random(0)

    def name():
        return "".join(rng.choice("bdfgklmnprst") + rng.choice("aeiou") for _ in "xxx").capitalize()

    people, towns = zip(*((f"{name()} {name()}", name()) for _ in range(4000)), strict=True)
    said = [f"{{}} was born in the town of {town} on the river." for town in towns]
    started = process_time()
    assert sum(map(str.__eq__, map(str, told(said, people=people)), towns)) > 3900
    assert process_time() - started < 4.0
