import pytest

from expunge.core.errors import ExpungeError, Problems
from expunge.requests.rows import Row, Turn, check_roles

FULL = {
    "id": "r1",
    "role": "forget",
    "prompt": "Where was Mira Voss born?",
    "completion": " Mira Voss was born in Paris.",
    "subject": "s1",
    "names": ["Mira Voss"],
    "answer": "Paris",
    "aliases": ["Lutetia"],
    "paraphrases": [
        {"prompt": "What is her birthplace?", "completion": " Paris it is."},
        {"prompt": "Her birthplace?"},
    ],
    "wrong": [" Mira Voss was born in Rome."],
    "spans": [[23, 28]],
    "meta": {"source": {"line": 3}},
}
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Where was she born?"},
    {"role": "assistant", "content": "Paris."},
]


def problems_of(obj, **options):
    with pytest.raises(ExpungeError) as caught:
        Row.parse(obj, **options)
    return list(getattr(caught.value, "problems", [caught.value]))


def codes_of(obj, **options):
    return [problem.code for problem in problems_of(obj, **options)]


def test_a_full_row_goes_round():
    row = Row.parse(FULL)
    assert row.as_dict() == FULL
    assert Row.parse(row.as_dict()) == row


@pytest.mark.parametrize("content", [{"text": "Some words."}, {"messages": TALK}])
def test_other_shapes_go_round(content):
    row = Row.parse({"id": "x", **content})
    assert row.as_dict() == {"id": "x", **content}


def test_a_prompt_may_be_empty_and_survives():
    row = Row.parse({"id": "x", "prompt": "", "completion": "word"})
    assert row.as_dict()["prompt"] == ""
    assert row.turn == Turn("", "word")


def test_turns_are_the_row_and_its_paraphrases():
    row = Row.parse(FULL)
    assert row.turns == (
        Turn("Where was Mira Voss born?", " Mira Voss was born in Paris."),
        Turn("What is her birthplace?", " Paris it is."),
        Turn("Her birthplace?", " Mira Voss was born in Paris."),
    )
    assert row.training == row.turn
    assert row.reply == " Mira Voss was born in Paris."


def test_a_list_of_strings_is_a_list_of_prompts():
    row = Row.parse({"prompt": "a?", "completion": "b", "paraphrases": ["c?", "d?"]})
    assert [turn.prompt for turn in row.turns] == ["a?", "c?", "d?"]
    assert {turn.completion for turn in row.turns} == {"b"}


def test_value_and_forms():
    row = Row.parse(FULL)
    assert row.value == "Paris"
    assert row.forms == ("Paris", "Lutetia")
    whole = Row.parse({"prompt": "a", "completion": "b", "aliases": ["c", "b"]})
    assert whole.value == "b"
    assert whole.forms == ("b", "c")


@pytest.mark.parametrize("text", ["one", "one two", "  one  two\nthree ", "a b c d"])
def test_running_text_is_cut_in_half_and_nothing_is_lost(text):
    row = Row.parse({"text": text})
    assert row.turn.running
    assert row.turn.prompt + row.turn.completion == text
    assert len(row.turn.prompt.split()) == len(text.split()) // 2
    assert row.turn.completion.split()
    assert row.training == Turn("", text, running=True)


def test_a_conversation_is_asked_for_its_last_message():
    row = Row.parse({"messages": TALK, "paraphrases": ["Her birthplace?"]})
    assert row.turn == Turn(tuple(TALK[:2]), "Paris.")
    other = row.turns[1]
    assert [message["content"] for message in other.prompt] == ["Be brief.", "Her birthplace?"]


def test_the_default_id_depends_on_content_and_line_only():
    def ids(content, where):
        return Row.parse({"text": content}, where=where).id

    assert ids("a", "x.jsonl:3") == ids("a", "other.jsonl:3")
    assert ids("a", "x.jsonl:3") != ids("a", "x.jsonl:4")
    assert ids("a", "x.jsonl:3") != ids("b", "x.jsonl:3")
    assert Row.parse({"prompt": "a", "completion": "b"}).id != Row.parse({"text": "ab"}).id


def test_all_problems_are_found_at_once():
    found = problems_of(
        {"promt": "a", "completion": 3, "names": "Mira", "spans": [[3, 3]]}, where="f.jsonl:7"
    )
    assert sorted(problem.code for problem in found) == [
        "E-DATA-003",
        "E-DATA-003",
        "E-DATA-003",
        "E-DATA-003",
        "E-DATA-004",
    ]
    assert all(problem.found.startswith("f.jsonl:7") for problem in found)
    unknown = next(problem for problem in found if problem.code == "E-DATA-004")
    assert "'prompt'" in unknown.next
    assert "meta" in unknown.next


@pytest.mark.parametrize(
    "change",
    [
        {"id": 3},
        {"id": ""},
        {"role": "forgotten"},
        {"prompt": ["a"]},
        {"completion": " "},
        {"completion": None},
        {"text": "and a text"},
        {"messages": TALK},
        {"subject": {}},
        {"names": ["a", 1]},
        {"answer": True},
        {"aliases": "a"},
        {"aliases": [""]},
        {"paraphrases": [{"completion": "a"}]},
        {"paraphrases": [{"prompt": "a", "answer": "b"}]},
        {"paraphrases": [1]},
        {"wrong": {"a": "b"}},
        {"spans": [[0, 1, 2]]},
        {"spans": [[-1, 2]]},
        {"spans": [[0.0, 2]]},
        {"spans": [[False, 2]]},
        {"spans": [[0, 30]]},
        {"meta": "a"},
    ],
)
def test_wrong_columns_are_refused(change):
    assert codes_of({**FULL, **change}) == ["E-DATA-003"]


@pytest.mark.parametrize(
    "talk",
    [
        [],
        TALK[:2],
        TALK[2:],
        [{"role": "robot", "content": "a"}, *TALK],
        [{"role": "user"}, *TALK],
        [{"role": "user", "content": "a", "weight": 1}, *TALK],
        [{"role": "user", "content": ["a"]}, *TALK],
        ["a", "b"],
        {"role": "user", "content": "a"},
    ],
)
def test_wrong_conversations_are_refused(talk):
    assert codes_of({"messages": talk}) == ["E-DATA-003"]


@pytest.mark.parametrize("content", [{}, {"prompt": "a"}, {"completion": "a"}, {"id": "x"}])
def test_a_row_needs_content(content):
    assert codes_of(content) == ["E-DATA-003"]


@pytest.mark.parametrize("bad", ["a\x00b", "a\ud800b", "\x1b[31m", "\x7f"])
def test_text_that_is_no_text_is_refused_everywhere(bad):
    assert codes_of({"text": bad}) == ["E-DATA-010"]
    assert codes_of({"text": "a", "meta": {"deep": [bad]}}) == ["E-DATA-010"]
    assert codes_of({"text": "a", "names": [bad]}) == ["E-DATA-010"]


def test_line_ends_and_tabs_are_text():
    assert Row.parse({"text": "a\tb\r\nc\x0cd\u2028e"}).text == "a\tb\r\nc\x0cd\u2028e"


def test_not_an_object_is_refused():
    assert codes_of([{"text": "a"}]) == ["E-DATA-003"]


def test_the_role_of_the_set_is_given_to_its_rows():
    assert Row.parse({"text": "a"}, role="retain").role == "retain"
    assert Row.parse({"text": "a", "role": "holdout"}, role="neighbour").role == "neighbour"
    assert Row.parse({"text": "a", "role": "probe"}).role == "probe"


@pytest.mark.parametrize(("own", "given"), [("retain", "forget"), ("forget", "retain")])
def test_rows_to_keep_and_rows_to_forget_are_not_mixed_up(own, given):
    assert codes_of({"text": "a", "role": own}, role=given) == ["E-DATA-003"]


def test_several_problems_are_one_error():
    with pytest.raises(Problems):
        Row.parse({"a": 1, "b": 2})


def row(name, text, **columns):
    return Row(id=name, text=text, **columns)


def test_sound_roles_have_no_problem():
    forget, retain = [row("1", "a"), row("2", "a")], [row("3", "b")]
    assert check_roles(forget=forget, retain=retain, neighbour=[]) == []


def test_a_row_in_two_roles_is_found_also_with_other_spaces_and_ids():
    problems = check_roles(forget=[row("1", "a  b")], retain=[row("2", "a b\n")])
    assert [problem.code for problem in problems] == ["E-DATA-006"]
    assert "'1'" in problems[0].found
    assert "'2'" in problems[0].found


def test_duplicate_ids_are_found_in_one_role_and_across_two():
    problems = check_roles(forget=[row("1", "a"), row("1", "b")], retain=[row("1", "c")])
    assert [problem.code for problem in problems] == ["E-DATA-007", "E-DATA-007"]


def test_an_empty_forget_set_is_found():
    assert [problem.code for problem in check_roles(forget=[])] == ["E-DATA-005"]
