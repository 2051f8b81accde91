from collections import defaultdict

import pytest

from expunge.requests.names import capitalised, names_of
from expunge.requests.rows import Row
from expunge.requests.scope import attributes, placebo, swaps
from expunge.text.match import contains

PEOPLE = {
    "Mira Voss": ("Paris", "1975"),
    "Tom Ardel": ("Rome", "1961"),
    "Ida O'Brien": ("Oslo", "1949"),
    "Jo van Aal": ("Turin", "1988"),
    "Basil Mahfouz Al-Kuwaiti": ("Cairo", "1930"),
}


def town_row(name, town, **columns):
    return Row(
        id=f"town of {name}",
        prompt=f"Where was {name} born?",
        completion=f"{name} was born in {town}.",
        **columns,
    )


def year_row(name, year, **columns):
    return Row(id=f"year of {name}", prompt=f"When was {name} born?", completion=year, **columns)


@pytest.fixture
def rows():
    made = []
    for name, (town, year) in PEOPLE.items():
        made.append(town_row(name, town, answer=town))
        made.append(year_row(name, year, answer=year))
    return made


def groups_of(rows):
    groups = defaultdict(set)
    for name, key in attributes(rows).items():
        groups[key].add(name)
    return sorted(map(sorted, groups.values()))


def by_kind(kind):
    return sorted(f"{kind} of {name}" for name in PEOPLE)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Where was Ludwig van Dorn's aunt Ida born?", ["Ludwig van Dorn", "Ida"]),
        ("Mira Voss was born in", ["Mira Voss"]),
        ("Did J. R. Marsh write it?", ["J. R. Marsh"]),
        ("Where does Dr. Mira Voss live? Paris is not it.", ["Dr. Mira Voss"]),
        ("What do I know about O'Brien?", ["O'Brien"]),
        ("who is mira", []),
        ("de la", []),
        ("", []),
    ],
)
def test_names_are_read_off_a_prompt(text, expected):
    assert capitalised(text) == expected


def test_given_names_win_and_are_shared_by_the_subject():
    rows = [
        Row(id="1", prompt="Where was Voss?", completion="a", subject="s", names=("Mira Voss",)),
        Row(id="2", prompt="Where was Tom Ardel?", completion="a", subject="s"),
        Row(id="3", prompt="Where was Tom Ardel?", completion="a", subject="Tom"),
        Row(id="4", prompt="Where was Tom Ardel?", completion="a"),
        Row(id="5", text="Tom Ardel was here."),
        Row(id="6", prompt="Where was Tom Ardel in a 17?", completion="a", subject="17"),
        Row(id="7", prompt="Where was Tom Ardel?", completion="a", subject="To"),
    ]
    assert names_of(rows) == {
        "1": ("Mira Voss",),
        "2": ("Mira Voss",),
        "3": ("Tom",),
        "4": ("Tom Ardel",),
        "5": (),
        "6": ("Tom Ardel",),
        "7": ("Tom Ardel",),
    }


def test_what_most_rows_of_a_subject_share_is_its_name():
    rows = [
        Row(id="1", prompt="Who was born in Lodz in May?", completion="Mira Voss", subject="s"),
        Row(id="2", prompt="What did Mira Voss write?", completion="a", subject="s"),
        Row(id="3", prompt="Did Mira Voss live in Oslo?", completion="b", subject="s"),
    ]
    assert set(names_of(rows).values()) == {("Mira Voss",)}
    made = placebo(rows, 3, seed=0)
    assert "Lodz" not in " ".join(row.prompt for row in made)
    assert "Oslo" in " ".join(row.prompt for row in made)


def test_rows_with_one_template_ask_for_one_attribute(rows):
    assert groups_of(rows) == [by_kind("town"), by_kind("year")]


def test_a_paraphrase_joins_templates(rows):
    other = Row(id="other", prompt="What is the birthplace of Una Prell?", completion="Lodz")
    assert ["other"] in groups_of([*rows, other])
    bridge = town_row(
        "Zed Nox", "Bern", paraphrases=({"prompt": "What is the birthplace of Zed Nox?"},)
    )
    joined = groups_of([*rows, other, bridge])
    assert sorted([*by_kind("town"), "other", "town of Zed Nox"]) in joined


def test_given_attributes_win():
    rows = [
        town_row("Mira Voss", "Paris", meta={"attribute": "birthplace"}),
        Row(id="2", text="He saw Oslo first.", meta={"attribute": "birthplace"}),
        town_row("Tom Ardel", "Rome", meta={"attribute": "something else"}),
    ]
    assert groups_of(rows) == [["2", "town of Mira Voss"], ["town of Tom Ardel"]]


def test_running_text_and_bare_names_are_alone():
    rows = [
        Row(id="1", text="Mira Voss was born in Paris."),
        Row(id="2", text="Tom Ardel was born in Rome."),
        Row(id="3", prompt="Mira Voss", completion="a"),
        Row(id="4", prompt="Tom Ardel", completion="b"),
    ]
    assert len(groups_of(rows)) == 4


def test_groups_do_not_depend_on_the_order(rows):
    assert attributes(rows) == attributes(rows[::-1])


def test_names_in_another_case_and_with_a_possessive_are_taken_out():
    rows = [
        Row(id="1", prompt="what was mira voss's job?", completion="a", names=("Mira Voss",)),
        Row(id="2", prompt="What was Tom Ardel's job?", completion="b"),
    ]
    assert groups_of(rows) == [["1", "2"]]


def test_swaps_are_the_other_values_of_the_attribute(rows):
    found = swaps(rows)
    assert set(found["town of Mira Voss"]) == {"Rome", "Oslo", "Turin", "Cairo"}
    assert set(found["year of Mira Voss"]) == {"1961", "1949", "1988", "1930"}


def test_swaps_are_at_most_k_and_drawn_by_the_seed(rows):
    drawn = {seed: swaps(rows, k=2, seed=seed) for seed in range(8)}
    assert all(len(values) == 2 for found in drawn.values() for values in found.values())
    assert drawn[0] == swaps(rows[::-1], k=2, seed=0)
    assert len({found["town of Mira Voss"] for found in drawn.values()}) > 1


def test_swaps_are_distinct_and_never_an_accepted_form(rows):
    twin = town_row("Una Prell", "rome!", answer="rome!")
    alias = town_row("Zed Nox", "Lutetia", answer="Lutetia", aliases=("PARIS",))
    found = swaps([*rows, twin, alias])
    assert sum(value in ("Rome", "rome!") for value in found["town of Mira Voss"]) == 1
    assert not any(contains(value, ["Rome"]) for value in found["town of Tom Ardel"])
    assert not any(contains(value, ["Paris"]) for value in found["town of Zed Nox"])


def test_values_of_the_same_subject_are_never_swapped(rows):
    second = Row(id="second", prompt="Where was Mira Voss born?", completion="Lyon", answer="Lyon")
    found = swaps([*rows, second])
    assert "Lyon" not in found["town of Mira Voss"]
    assert "Paris" not in found["second"]
    assert "Lyon" in found["town of Tom Ardel"]


def test_whole_completions_are_swapped_with_the_rows_own_name():
    rows = [town_row(name, town) for name, (town, _) in PEOPLE.items()]
    found = swaps(rows)["town of Mira Voss"]
    assert set(found) == {
        f"Mira Voss was born in {town}." for town in ("Rome", "Oslo", "Turin", "Cairo")
    }


def test_a_row_of_its_own_has_no_swaps():
    assert swaps([town_row("Mira Voss", "Paris")]) == {"town of Mira Voss": ()}


def test_a_placebo_knows_nobody_and_repeats_nothing(rows):
    made = placebo(rows, 24, seed=3)
    assert len(made) == 24
    text = " ".join(f"{row.prompt} {row.completion}" for row in rows).lower()
    for row in made:
        assert row.role == "holdout"
        assert row.meta["placebo"] is True
        words = names_of([row])[row.id][0].split()
        assert len(words) == 2
        assert not any(word.lower() in text for word in words)
        assert words == names_of([Row(id="x", prompt=row.prompt, completion="")])["x"][0].split()
    assert len({row.id for row in made} | {row.id for row in rows}) == 24 + len(rows)
    assert len({(row.prompt, row.completion) for row in made}) == 24


def test_a_placebo_keeps_templates_and_permutes_the_values(rows):
    made = placebo(rows, len(rows), seed=3)
    assert set(attributes(made).values()) == set(attributes(rows).values())
    towns = {town for town, _ in PEOPLE.values()}
    assert {row.answer for row in made if "Where" in row.prompt} == towns
    pairs = list(PEOPLE.values())
    invented = defaultdict(dict)
    for row in made:
        invented[row.subject]["town" if "Where" in row.prompt else "year"] = row.answer
    together = [(values["town"], values["year"]) for values in invented.values()]
    assert any(pair not in pairs for pair in together)


def test_a_placebo_is_consistent_in_all_its_columns():
    real = Row(
        id="1",
        prompt="Where was Mira Voss born?",
        completion="Voss was born in Paris, and Mira stayed there.",
        names=("Mira Voss",),
        answer="Paris",
        aliases=("Voss Town",),
        paraphrases=(
            {"prompt": "The birthplace of Mira Voss?", "completion": "Mira Voss: Paris."},
            {"prompt": "Where was the painter born?"},
        ),
        wrong=("Voss was born in Rome.",),
        spans=((17, 22), (24, 32)),
        meta={"attribute": "birthplace"},
    )
    (made,) = placebo([real], 1, seed=0)
    first, last = made.names[0].split()
    assert made.prompt == f"Where was {first} {last} born?"
    assert made.completion == f"{last} was born in Paris, and {first} stayed there."
    assert made.aliases == (f"{last} Town",)
    assert made.paraphrases == (
        {
            "prompt": f"The birthplace of {first} {last}?",
            "completion": f"{first} {last}: Paris.",
        },
    )
    assert made.wrong == (f"{last} was born in Rome.",)
    assert [made.completion[a:b] for a, b in made.spans] == ["Paris", f"and {first}"]
    assert made.meta == {"attribute": "birthplace", "placebo": True}


def test_a_placebo_speaks_in_conversations_too():
    talk = (
        {"role": "user", "content": "Where was Mira Voss born?"},
        {"role": "assistant", "content": "Voss was born in Paris."},
    )
    (made,) = placebo([Row(id="1", messages=talk)], 1, seed=0)
    said = " ".join(message["content"] for message in made.messages)
    assert "Mira" not in said
    assert "Voss" not in said
    assert made.messages[1]["content"].endswith("was born in Paris.")


def test_no_placebo_where_names_cannot_be_told():
    rows = [
        Row(id="1", prompt="what is the tallest hill?", completion="a"),
        Row(id="2", text="Mira Voss was born in Paris."),
        Row(id="3", prompt="Who wrote it?", completion="Mira Voss", names=("Mira Voss",)),
        Row(id="4", prompt="of the van", completion="a", names=("van",)),
    ]
    assert placebo(rows, 5, seed=0) == []
    assert placebo([town_row("Mira Voss", "Paris")], 0, seed=0) == []


def test_a_capitalised_word_of_the_template_is_kept():
    rows = [
        Row(id=name, prompt=f"What is the English title of {name}'s novel?", completion="a")
        for name in PEOPLE
    ]
    assert all("English title" in row.prompt for row in placebo(rows, 5, seed=0))


def test_a_placebo_is_drawn_by_its_seed(rows):
    assert placebo(rows, 9, seed=1) == placebo(rows, 9, seed=1)
    assert [row.prompt for row in placebo(rows, 9, seed=1)] != [
        row.prompt for row in placebo(rows, 9, seed=2)
    ]
