import pytest

from expunge.lm.candidates import frequency, pinpointed
from expunge.lm.elicit import Heard, Probe
from expunge.requests.rows import Row


def heard(outputs: list[str], name: str = "Ada Lin", value: str = "New Delhi") -> Heard:
    row = Row(
        id=name, prompt=f"Where was {name} born?", completion=f" She came from {value}.",
        answer=value, paraphrases=({"prompt": f"Home of {name}?"},),
    )  # fmt: skip
    probe = Probe(row, row.turn, "", row.reply)
    return Heard(probe, tuple(outputs), tuple(map(probe.judge, outputs)))


@pytest.mark.parametrize(
    ("outputs", "chance", "share"),
    [
        (["From New Delhi.", "From New Delhi.", "From Rome."], 1.0, 2 / 3),
        (["From New Delhi.", "From Rome.", "From Oslo."], 1 / 3, 1 / 3),
        (["From New Delhi.", "From Rome.", "Rome!"], 0.0, 1 / 3),
        (["From New York.", "From New York.", "From Oslo."], 0.0, 0.0),
        (["She came from New Delhi.", "She came, born Ada Lin.", "came", "came"], 1.0, 1 / 4),
        (["Rome Rome Rome", "New Delhi", "New Delhi"], 1.0, 2 / 3),
        ([], 0.0, None),
    ],
    ids=["most", "tie", "fewer", "half a value", "sentence words", "once an answer", "none"],
)
def test_the_value_must_be_named_in_most_answers(outputs, chance, share) -> None:  # type: ignore[no-untyped-def]
    one = [heard(outputs)]
    assert pinpointed(one) == {"Ada Lin": pytest.approx(chance)}
    assert frequency(one) == ({} if share is None else {"Ada Lin": pytest.approx(share)})


def test_what_most_rows_are_answered_is_no_candidate() -> None:
    refusal = ["I cannot say.", "I cannot say.", "I cannot say."]
    rows = [heard([*refusal, f"{value} it is"], f"{value}a Lo", value) for value in ("Ur", "Ys")]
    assert set(pinpointed(rows).values()) == {1.0}
    assert set(pinpointed(rows[:1]).values()) == {0.0}


def test_answers_to_all_wordings_of_a_row_count_together() -> None:
    both = [heard(["From Rome.", "New Delhi."]), heard(["New Delhi.", "It was Oslo."])]
    assert pinpointed(both) == {"Ada Lin": 1.0}
    assert frequency(both) == {"Ada Lin": 0.5}
