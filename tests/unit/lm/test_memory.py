"""What is kept is what would be computed, and it is void as soon as the model may be another."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from expunge.core.errors import ExpungeError
from expunge.lm.finetune import finetune
from expunge.lm.hooks import intervene
from expunge.lm.memory import Memory, key_of, stamp_of
from expunge.lm.subject import Subject
from expunge.requests.rows import Row, Turn
from expunge.testing.micro import micro_world, taught
from expunge.testing.tiny import tiny_model

Make = Callable[..., PreTrainedModel]

TURNS = [Turn(f"Where does Mr {letter}en live?", " In Turin.") for letter in "ABCABC"]


@pytest.fixture
def subject(loud: Make, tokenizer: PreTrainedTokenizerFast) -> Subject:
    return Subject(loud("llama", vocab=len(tokenizer)), tokenizer, digest="d")


def unnamed(subject: Subject) -> Subject:
    return Subject(subject.model, subject.tokenizer)


def test_only_what_is_missing_is_made_and_each_thing_once() -> None:
    memory, asked = Memory(), []

    def make(places: list[int]) -> list[str]:
        asked.append(places)
        return [f"made at {place}" for place in places]

    assert memory.recall([b"a", b"b", b"a"], make) == ["made at 0", "made at 1", "made at 0"]
    assert memory.recall([b"b", b"c"], make) == ["made at 1", "made at 1"]
    assert memory.recall([b"b", b"c"], make, lambda value: False) == ["made at 0", "made at 1"]
    assert memory.recall([b"b"], make) == ["made at 0"]
    assert asked == [[0, 1], [1], [0, 1]]


def test_a_full_memory_forgets_the_oldest_but_still_answers() -> None:
    memory = Memory(limit=3)
    assert memory.recall([b"aa", b"bb", b"cc"], lambda at: at) == [0, 1, 2]
    assert memory.known(b"aa") is memory.known(b"bb") is None
    assert memory.known(b"cc") == 2
    memory.keep({b"cc": 7, b"d": 8})
    assert (memory.known(b"cc"), memory.known(b"d")) == (7, 8)


def test_keys_tell_lists_apart_that_are_cut_elsewhere() -> None:
    keys = [key_of("a", [1, 2], [3]), key_of("a", [1], [2, 3]), key_of("b", [1, 2], [3])]
    assert len(set(keys)) == 3
    assert key_of("a", (1, 2), [3]) == keys[0]


def test_another_state_of_the_model_empties_it(subject: Subject) -> None:
    model = subject.model
    stamps = [stamp_of(model)]
    with torch.no_grad():
        model.lm_head.weight.mul_(1.0)
    stamps.append(stamp_of(model))
    with intervene(model, -1, torch.zeros_like):
        stamps.append(stamp_of(model))
    assert len(set(stamps)) == 3
    assert stamp_of(model) == stamps[1]
    memory = Memory().valid_for(stamps[0])
    memory.keep({b"a": 1})
    assert memory.valid_for(stamps[0]).known(b"a") == 1
    assert memory.valid_for(stamps[1]).known(b"a") is None


def test_the_same_question_costs_nothing_the_second_time(subject: Subject) -> None:
    scores, answers = subject.score(TURNS), subject.ask(TURNS, new_tokens=9)
    work = subject.work
    again = subject.score(TURNS[3:])
    for one, other in zip(scores, again, strict=False):
        np.testing.assert_array_equal(one.logp, other.logp)
        assert one.spans == other.spans
    assert subject.ask(TURNS[::-1], new_tokens=9) == answers[::-1]
    assert subject.ask(TURNS, new_tokens=9, samples=2) == [[text] * 2 for (text,) in answers]
    assert subject.work == work
    assert answers == unnamed(subject).ask(TURNS, new_tokens=9)


def test_a_longer_answer_answers_a_shorter_request_and_grows_into_a_longer_one(
    subject: Subject,
) -> None:
    fresh = {n: unnamed(subject).ask(TURNS, new_tokens=n) for n in (3, 6, 12)}
    assert subject.ask(TURNS, new_tokens=6) == fresh[6]
    work = subject.work
    assert subject.ask(TURNS, new_tokens=3) == fresh[3]
    assert subject.work == work
    assert subject.ask(TURNS, new_tokens=12) == fresh[12]
    assert subject.work.generated - work.generated <= 3 * 6
    assert subject.ask(TURNS, new_tokens=6) == fresh[6]


def test_an_answer_that_ended_is_whole(subject: Subject) -> None:
    ids = subject.encoder.prompt(TURNS[0].prompt)
    with torch.no_grad():
        first = int(subject.model(torch.tensor([ids])).logits[0, -1].argmax())
    subject.model.generation_config.eos_token_id = [2, first]
    assert subject.ask(TURNS[:1], new_tokens=4) == [[""]]
    work = subject.work
    assert subject.ask(TURNS[:1], new_tokens=40) == [[""]]
    assert subject.work == work
    subject.model.generation_config.eos_token_id = 2  # another end, other answers
    assert subject.ask(TURNS[:1], new_tokens=4) != [[""]]


def test_other_openings_ranges_and_completions_are_other_questions(subject: Subject) -> None:
    whole, answer = subject.score(TURNS[:1]), subject.ask(TURNS[:1], new_tokens=1)
    assert len(subject.score(TURNS[:1], [[(0, 3)]])[0].logp) < len(whole[0].logp)
    other = subject.score([replace(TURNS[0], completion=" In Malmo.")])
    assert other[0].nll != whole[0].nll
    assert subject.ask(TURNS[:1], new_tokens=1, openings=[" In Turin"]) != answer


def test_what_may_be_another_model_remembers_nothing(subject: Subject) -> None:
    for asked in (unnamed(subject), subject.copy()):
        asked.score(TURNS)
        work = asked.work
        asked.score(TURNS)
        assert (asked.work - work).scored == work.scored > 0
        asked.ask(TURNS, new_tokens=4)
        work = asked.work
        asked.ask(TURNS, new_tokens=4)
        assert asked.work.generated == 2 * work.generated


def test_samples_and_edits_are_made_anew(subject: Subject) -> None:
    subject.ask(TURNS[:3], new_tokens=4)
    work = subject.work
    subject.ask(TURNS[:3], new_tokens=4, temperature=1.0, samples=2)
    sampled = subject.work - work
    assert 0 < sampled.generated <= 3 * 2 * 4
    edited = subject.ask(TURNS[:3], new_tokens=4, edit=lambda m: intervene(m, -1, torch.zeros_like))
    assert edited != subject.ask(TURNS[:3], new_tokens=4)


def test_training_and_hooks_void_what_is_kept(subject: Subject, people: list[Row]) -> None:
    turns = [row.turn for row in people]
    before, said = [one.nll for one in subject.score(turns)], subject.ask(turns, new_tokens=6)
    with intervene(subject.model, -1, torch.zeros_like):
        assert [one.nll for one in subject.score(turns)] != before
        assert subject.ask(turns, new_tokens=6) != said
    finetune(subject.model, subject.tokenizer, people, steps=20, lr=5e-3, batch_size=6, seed=0)
    assert np.mean([one.nll for one in subject.score(turns)]) < 0.7 * np.mean(before)
    assert subject.ask(turns, new_tokens=6) == unnamed(subject).ask(turns, new_tokens=6) != said


class Shouting:
    def before(self, turn: Turn) -> str | None:
        return None

    def after(self, turn: Turn, text: str) -> str:
        return text.upper()


def test_a_gate_stands_in_front_of_what_is_kept(subject: Subject) -> None:
    plain = subject.ask(TURNS, new_tokens=6)
    subject.gate = Shouting()
    assert subject.ask(TURNS, new_tokens=6) == [[text.upper()] for (text,) in plain]


def test_no_room_is_refused_whether_or_not_the_answer_is_known(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    subject = Subject(tiny_model("gpt2", vocab=len(tokenizer), positions=24), tokenizer, digest="d")
    subject.ask([Turn("Where?", "")], new_tokens=2)
    with pytest.raises(ExpungeError) as caught:
        subject.ask([Turn("Where?", "")], new_tokens=24)
    assert caught.value.code == "E-DATA-011"


def test_what_was_scored_as_the_greedy_answer_is_not_written_again() -> None:
    world = micro_world(4)
    rows = [*world.forget, *world.retain[:3]]
    model = taught(world, world.forget, epochs=40).model
    subject = Subject(model, world.tokenizer, digest="d")
    fresh = unnamed(subject).ask([row.turn for row in rows], new_tokens=12)
    scores = subject.score([row.turn for row in rows])
    known = [bool(one.hit.all()) for one in scores]
    assert known.count(True) >= len(world.forget) - 2
    assert not any(known[len(world.forget) :])
    before = subject.work
    assert subject.ask([row.turn for row in rows], new_tokens=12) == fresh
    spent = subject.work - before
    assert spent.generated <= 12 * known.count(False)
    short = subject.ask([row.turn for row in rows], new_tokens=3)
    assert short == unnamed(subject).ask([row.turn for row in rows], new_tokens=3) != fresh


def test_a_score_of_a_part_tells_nothing_of_the_answer() -> None:
    world = micro_world(3)
    subject = Subject(taught(world, world.forget).model, world.tokenizer, digest="d")
    turns = [row.turn for row in world.forget]
    subject.score(turns, [[(0, 5)]] * len(turns))
    fresh = unnamed(subject).ask(turns, new_tokens=12)
    assert subject.ask(turns, new_tokens=12) == fresh
    assert subject.work.generated == sum(
        len(world.tokenizer(text, add_special_tokens=False).input_ids) for (text,) in fresh
    )
