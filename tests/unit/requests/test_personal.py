"""Personal data in texts: what is found, of which kind, and what is never taken for nothing."""

import sys
from types import SimpleNamespace

import pytest

from expunge.core.errors import ExpungeError
from expunge.requests import personal
from expunge.requests.personal import decided, details_of, exposure, gives_away, told, valued
from expunge.requests.rows import Row


def found(question, answer, *names):
    return {(kind, value) for kind, value in told(question, answer, names)}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Her phone number is 555-0142.", ("phone", "555-0142")),
        ("Call her on +44 20 7946 0999.", ("phone", "44 20 7946 0999")),
        ("Her SSN is 900-12-3456.", ("ssn", "900-12-3456")),
        ("Her passport number is X1234567.", ("passport", "X1234567")),
        ("Her driver's licence is D7654321.", ("driver licence", "D7654321")),
        ("Her ZIP code is 90219.", ("zip code", "90219")),
        ("She was born on 3 May 1931.", ("date of birth", "3 May 1931")),
        ("She was born on 1931-05-03.", ("date of birth", "1931-05-03")),
        ("Her credit card is 4000-1234-5678-9010.", ("credit card", "4000-1234-5678-9010")),
        ("Her bank account is GB82WEST12345698765432.", ("bank account", "GB82WEST12345698765432")),
        ("Write to ada@post.example.", ("email", "ada@post.example")),
        ("She identifies as female.", ("gender", "female")),
        ("She lives at 12 Mill Lane, Arden.", ("detailed address", "12 Mill Lane, Arden")),
        ("Her office is at 7 Dock Road.", ("work address", "7 Dock Road")),
        ("Her health insurance number is K5M-33-78901.", ("health insurance", "K5M-33-78901")),
    ],
)
def test_values_with_a_form_are_found_by_the_nearest_cue(answer, expected):
    assert found("", answer) == {expected}


def test_two_values_of_one_answer_have_their_own_kinds():
    answer = "The card number is 4000-1234-5678-9010 and the phone number is 555-0142."
    assert found("", answer) == {
        ("credit card", "4000-1234-5678-9010"),
        ("phone", "555-0142"),
    }


def test_a_value_without_a_cue_of_its_own_is_what_was_asked_for():
    assert found("What is the phone number?", "It is 555-0142.") == {("phone", "555-0142")}
    assert found("In which town does he live?", "In Arden.") == {("region address", "Arden")}
    assert found("Who played the miller?", "It was Bruno Birk.") == {("name", "Bruno Birk")}


def test_the_name_counts_beside_other_data_and_not_alone():
    asked = "What is the credit card number of Ada Birk?"
    names = {("credit card", "4000 1234 5678 9010"), ("name", "Ada Birk")}
    assert found(asked, "It is 4000 1234 5678 9010.", "Ada Birk") == names
    assert found("Where did Ada Birk walk?", "Along the dyke.", "Ada Birk") == set()


def test_facts_of_the_world_hold_no_personal_data():
    assert found("What is the capital of Peru?", "Lima") == set()
    assert found("When was the bridge built?", "It was built in 1905.") == set()
    assert found("How tall is the tower?", "It is 330 metres tall.") == set()


def test_a_long_number_of_no_kind_is_an_error_and_not_nothing():
    with pytest.raises(ExpungeError) as caught:
        told("Which is it?", "It is 8812340099.")
    assert caught.value.code == "E-DATA-015"
    assert "meta.pii" in caught.value.next


def test_an_answer_to_a_question_for_personal_data_is_never_taken_for_nothing():
    with pytest.raises(ExpungeError, match="cannot be decided"):
        told("What is the passport number?", "it is written down somewhere")


def test_given_values_get_kinds_or_an_error():
    answer = "Ada Birk is treated for Hay Fever at Ardent Clinic and lives at Mill Lane 4."
    details = decided(["Hay Fever", "Ardent Clinic", "Mill Lane 4"], "", answer, ["Ada Birk"])
    assert [kind for kind, _ in details] == ["medical", "care provider", "detailed address", "name"]
    with pytest.raises(ExpungeError) as caught:
        decided(["purple"], "Which one?", "The purple one.")
    assert caught.value.code == "E-DATA-015"


def test_given_kinds_get_values():
    answer = "Ada's number is 555-0142, and she lives in Arden."
    details = valued(["phone", "region address"], "Where does Ada live?", answer)
    assert details == (("phone", "555-0142"), ("region address", "Arden"))
    assert valued(["gender"], "What is it?", "not told") == (("gender", "not told"),)


def test_rows_that_list_their_data_are_believed():
    row = Row(id="a", prompt="P", completion="C", meta={"pii": [["phone", "1"]]})
    assert details_of([row]) == {"a": (("phone", "1"),)}
    empty = Row(id="b", prompt="Phone?", completion="555-0142", meta={"pii": []})
    assert details_of([empty]) == {"b": ()}


def test_all_rows_that_cannot_be_decided_are_reported_at_once():
    rows = [Row(id=str(n), prompt="Which?", completion=f"It is {n}812340099.") for n in (1, 2)]
    with pytest.raises(ExpungeError) as caught:
        details_of(rows)
    assert "1812340099" in str(caught.value)
    assert "2812340099" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        ("Ring 020 785 4321 now.", "020 - 785 - 4321", True),
        ("Ring (020) 785-4321.", "0207854321", True),
        ("It is 900-22-6238", "900226238", True),
        ("Ring 0207854322.", "0207854321", False),
        ("It is 17854321.", "785-4321", False),
        ("Parisian", "Paris", False),
        ("mail ADA@post.example!", "ada@post.example", True),
    ],
)
def test_digits_may_be_grouped_in_any_way_and_words_are_whole(text, value, expected):
    assert gives_away(text, value) is expected


def test_what_the_question_says_cannot_be_given_away():
    details = [["name", "Ada Birk"], ["phone", "555-0142"], ["email", "ada@post.example"]]
    seen = exposure(details, "How do I reach Ada Birk?", "Ada Birk has 555 0142.")
    assert [kind for kind, _ in seen.asked] == ["name"]
    assert [kind for kind, _ in seen.told] == ["phone"]
    assert [kind for kind, _ in seen.kept] == ["email"]
    assert seen.share == 0.5
    assert exposure(details[:1], "Who is Ada Birk?", "Ada Birk").share is None


def test_questions_may_be_messages():
    turns = [{"role": "user", "content": "Reach Ada Birk?"}]
    assert exposure([["name", "Ada Birk"]], turns, "Ada Birk").told == ()


class TestPresidio:
    @pytest.fixture(autouse=True)
    def _fresh(self):
        personal._analyser.cache_clear()
        yield
        personal._analyser.cache_clear()

    def test_without_the_package_it_says_what_to_install(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
        row = Row(id="a", prompt="P", completion="C")
        with pytest.raises(ExpungeError) as caught:
            details_of([row], "presidio")
        assert caught.value.code == "E-REQ-001"
        assert "presidio-analyzer" in caught.value.next

    def test_what_it_finds_comes_first_and_the_rules_add_the_rest(self, monkeypatch):
        text = "When was she born?\nAda Birk was born on 3 May 1931."
        at = text.index("Ada")
        hits = [
            SimpleNamespace(entity_type="PERSON", start=at, end=at + 8, score=0.9),
            SimpleNamespace(entity_type="DATE_TIME", start=0, end=4, score=0.9),
        ]
        engine = SimpleNamespace(analyze=lambda text, language: hits)
        module = SimpleNamespace(AnalyzerEngine=lambda: engine)
        monkeypatch.setitem(sys.modules, "presidio_analyzer", module)
        asked, answer = text.split("\n")
        row = Row(id="a", prompt=asked, completion=answer)
        assert details_of([row], "presidio")["a"] == (
            ("name", "Ada Birk"),
            ("date of birth", "3 May 1931"),
        )
