"""Consistency score: as much about the question as the reference, no more and no less."""

import pytest

from expunge.core.errors import ExpungeError
from expunge.testing.metrics import measure

ASKED = ["Where does the plant grow?", "Who planted the oak?"]


def readings(*said):
    return {"question": ASKED[: len(said)], "generation": list(said)}


def test_a_model_that_answers_like_the_reference_is_at_zero():
    own = readings("The plant grows here.", "Jo planted it.")
    assert measure("consistency-score", own, reference=own).mean == 0


def test_parroting_is_as_far_off_as_silence_is_near_it():
    reference = readings("The plant grows here.", "Jo planted it.")
    parrot = measure("consistency-score", readings(*ASKED), reference=reference)
    assert parrot.parts["model"] == pytest.approx(1)
    assert parrot.mean == pytest.approx(1 - parrot.parts["reference"])
    silent = measure("consistency-score", readings("", ""), reference=reference)
    assert silent.mean == pytest.approx(silent.parts["reference"])
    assert silent.parts["model"] == 0


def test_without_a_reference_it_is_not_measurable():
    assert measure("consistency-score", readings("x")).mean is None


def test_other_rows_are_refused():
    other = {"question": {"z": "Where?"}, "generation": {"z": "Here."}}
    with pytest.raises(ExpungeError, match="E-DATA-013"):
        measure("consistency-score", readings("x"), reference=other)


def test_a_conversation_is_asked_by_its_last_message():
    messages = [{"role": "user", "content": "x"}, {"role": "user", "content": ASKED[0]}]
    own = {"question": [messages], "generation": [ASKED[0]]}
    assert measure("consistency-score", own, reference=own).parts["model"] == pytest.approx(1)
