from dataclasses import replace

import pytest
import torch

from expunge.lm.elicit import Probe, elicit, plain
from expunge.lm.hooks import capture, evaluating
from expunge.lm.prompted import (
    ask_edited,
    askable,
    edited,
    last_states,
    prompt_ids,
    question_span,
)
from expunge.lm.subject import Subject
from expunge.requests.rows import Row, Turn
from expunge.testing.tiny import tiny_model, tiny_tokenizer

TEXTS = ["Who is Ada?", "Where was Bo Dix born in the end?", "Ada", "Name it, Bo, and go."]
ROWS = [Row(id=text, prompt=text, completion=" x") for text in TEXTS]


def subject_of(family: str = "llama", *, chat: bool = False, batch_size: int = 32) -> Subject:
    known = [*TEXTS, *(f"[user] {text}\n[assistant] " for text in TEXTS)]
    tokenizer = tiny_tokenizer(known, kind="word", chat=chat)
    model = tiny_model(family, vocab=len(tokenizer), layers=3, positions=48)
    return Subject(model, tokenizer, batch_size=batch_size)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "gpt_neox"])
def test_last_states_are_those_of_each_prompt_alone(family: str) -> None:
    subject = subject_of(family, batch_size=3)
    prompts = [prompt_ids(subject, probe) for probe in plain(ROWS)]
    states = last_states(subject, prompts, [0, -1])
    for at, ids in enumerate(prompts):
        with evaluating(subject.model), capture(subject.model, [0, -1]) as seen:
            subject.model(torch.tensor([ids]))
        for layer in (0, -1):
            assert torch.allclose(states[layer][at], seen[layer][0, -1], atol=1e-5)
    assert last_states(subject, [], [0]) == {}


@pytest.mark.parametrize("chat", [False, True])
def test_the_question_is_what_differs_from_nothing_asked(chat: bool) -> None:
    subject = subject_of(chat=chat)
    for probe in plain(ROWS):
        span = question_span(subject, probe)
        ids = prompt_ids(subject, probe)[span.start : span.stop]
        assert subject.encoder.decode(ids).strip() == probe.turn.prompt


def test_of_a_conversation_only_the_last_message_is_the_question() -> None:
    subject = subject_of(chat=True)
    said = [("user", TEXTS[0]), ("assistant", "Bo"), ("user", TEXTS[1])]
    prompt = tuple({"role": role, "content": text} for role, text in said)
    probe = Probe(ROWS[0], Turn(prompt, ""), "", "")
    span = question_span(subject, probe)
    ids = prompt_ids(subject, probe)[span.start : span.stop]
    assert subject.encoder.decode(ids).strip() == TEXTS[1]


def test_an_edit_that_changes_nothing_gives_the_clean_answers() -> None:
    subject, probes = subject_of(batch_size=2), plain(ROWS)
    kept = ask_edited(subject, probes, [0, 1], lambda _, h, *__: h, new_tokens=6)
    assert kept == elicit(subject, probes, new_tokens=6)
    drawn = {"new_tokens": 6, "samples": 3, "temperature": 1.0, "seed": 5}
    kept = ask_edited(subject, probes, [1], lambda _, h, *__: h + 0.0, **drawn)
    assert kept == elicit(subject, probes, **drawn)


@pytest.mark.parametrize("samples", [0, 3])
def test_an_edit_knows_the_prompt_of_every_row(samples: int) -> None:
    subject, probes = subject_of(batch_size=4), plain(ROWS)
    lengths = [len(prompt_ids(subject, probe)) for probe in probes]
    seen: list[tuple[int, int, bool]] = []

    def look(_, hidden, rows, reading):  # type: ignore[no-untyped-def]
        if reading or samples:  # greedy rows leave the batch while they are written
            assert len(rows) == len(hidden)
        seen.extend((row, hidden.shape[1], reading) for row in rows)
        return hidden

    drawing = {"samples": samples, "temperature": 1.0} if samples else {}
    ask_edited(subject, probes, [1], look, new_tokens=3, **drawing)
    for at, length in enumerate(lengths):
        read = [width for row, width, reading in seen if row == at and reading]
        assert len(read) == max(1, samples)
        assert min(read) >= length
    assert all(width == 1 for _, width, reading in seen if not reading)


def test_a_batch_that_is_none_of_the_prompts_is_an_error_and_no_hook_stays() -> None:
    subject = subject_of()
    prompts = {0: prompt_ids(subject, plain(ROWS)[0])}
    with (
        pytest.raises(RuntimeError, match="none of the prompts"),
        edited(subject, prompts, [0], lambda _, h, *__: h),
    ):
        subject.model(torch.tensor([[1, 2, 3]]))
    hooks = [(*m._forward_hooks, *m._forward_pre_hooks) for m in subject.model.modules()]
    assert not any(hooks)


def test_what_a_model_cannot_be_asked_is_left_out() -> None:
    subject = subject_of()
    messages = ({"role": "user", "content": "Ada"}, {"role": "assistant", "content": "x"})
    rows = [
        ROWS[0],
        replace(ROWS[1], prompt="Ada " * 50),
        Row(id="talk", messages=messages),
    ]
    assert [probe.row.id for probe in askable(subject, plain(rows), 4)] == [TEXTS[0]]
    talking = subject_of(chat=True)
    assert [probe.row.id for probe in askable(talking, plain(rows), 4)] == [TEXTS[0], "talk"]
