"""Scores that are kept are those that would be computed."""

import numpy as np
import pytest

from expunge.lab.remembering import Remembering
from expunge.lm import subject as room
from expunge.lm.subject import Subject
from expunge.requests.rows import Turn
from expunge.testing.tiny import tiny_model, tiny_tokenizer

TURNS = [Turn("Where was Mira born?", " In Oxwold."), Turn("Who is Mira?", " A baker.")]


@pytest.fixture
def plain() -> Subject:
    return Subject(tiny_model("llama"), tiny_tokenizer([turn.completion for turn in TURNS]))


def test_scores_are_computed_once_and_equal_the_plain_ones(plain, monkeypatch):
    runs = []
    counted = room.packed_logp
    monkeypatch.setattr(room, "packed_logp", lambda *given: runs.append(given) or counted(*given))
    expected = plain.score(TURNS)
    del runs[:]
    kept = Remembering(plain)
    for _ in range(2):
        for one, other in zip(kept.score(TURNS), expected, strict=True):
            np.testing.assert_array_equal(one.logp, other.logp)
    assert len(runs) == 1


def test_other_texts_and_other_stretches_are_scored_anew(plain):
    kept = Remembering(plain)
    whole = kept.score(TURNS[:1])
    assert len(kept.score(TURNS)) == 2
    assert len(kept.score(TURNS[:1], [[(0, 3)]])[0].logp) < len(whole[0].logp)


def test_a_copy_remembers_nothing_since_it_may_be_trained(plain):
    kept = Remembering(plain)
    assert kept.digest == plain.digest
    assert not isinstance(kept.copy(), Remembering)
