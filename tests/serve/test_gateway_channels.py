"""A refusal looks like any other answer: no field, header, number or reason tells them apart."""

import json
import time

import pytest
from gateways import ADA, REFUSAL, Stub, housed, scripted

TEXT = "/v1/completions"


def shape(value):
    """A JSON value without what it says: keys, types, lengths of lists."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    return [shape(one) for one in value] if isinstance(value, list) else type(value).__name__


@pytest.fixture(scope="module")
def house():
    stub = Stub(lambda body: "The answer is well known and rather long, thanks.")
    with housed(stub=stub) as built:
        built.add(rows=[ADA])
        yield built


@pytest.mark.parametrize("more", [{}, {"n": 3}, {"logprobs": True, "top_logprobs": 2}])
def test_fields_headers_and_reasons_are_the_same(house, more) -> None:
    clean, fired = house.ask("Who is Ben?", **more), house.ask("Who is Ada Quill?", **more)
    assert shape(clean.json()) == shape(fired.json())
    differ = {"content-length"}
    assert {k: v for k, v in clean.headers.items() if k not in differ} == {
        k: v for k, v in fired.headers.items() if k not in differ
    }
    reasons = [[c["finish_reason"] for c in one.json()["choices"]] for one in (clean, fired)]
    assert reasons[0] == reasons[1] == ["stop"] * more.get("n", 1)
    for one in (clean, fired):
        assert one.json()["model"] == "m1"
        assert "fp" not in one.text
        assert "injected" not in one.text
        assert all(choice["logprobs"] is None for choice in one.json()["choices"])


def test_completions_are_the_same_too(house) -> None:
    clean, fired = (
        house.call("POST", TEXT, json={"model": "m1", "prompt": f"Who is {name}?"})
        for name in ("Ben", "Ada Quill")
    )
    assert shape(clean.json()) == shape(fired.json())
    assert fired.json()["choices"][0]["text"] == REFUSAL


def test_events_of_a_stream_are_the_same(house) -> None:
    def events(text, **more):
        answer = house.ask(text, stream=True, **more)
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line[6:] for line in answer.text.split("\n\n") if line]
        assert lines[-1] == "[DONE]"
        found = [json.loads(line) for line in lines[:-1]]
        return found[0], found[1], found[-1]

    for more in ({}, {"stream_options": {"include_usage": True}}):
        clean, fired = events("Who is Ben?", **more), events("Who is Ada Quill?", **more)
        assert [shape(one) for one in clean] == [shape(one) for one in fired]


def test_usage_is_counted_from_what_the_client_wrote() -> None:
    guard = scripted(
        "orders", "prompt", enter=lambda exchange, desk: exchange.instructed("x " * 500)
    )
    with housed(guard) as edited, housed("lexical") as plain:
        assert edited.ask("Hello you").json()["usage"] == plain.ask("Hello you").json()["usage"]
        assert "999" not in edited.ask("Hello you").text


def test_usage_of_a_refusal_counts_by_the_same_rule(house) -> None:
    fired, clean = house.ask("Who is Ada Quill?").json(), house.ask("Who is Ben Quill?").json()
    assert fired["usage"]["prompt_tokens"] == clean["usage"]["prompt_tokens"]
    assert fired["usage"]["completion_tokens"] == house.gateway.backend.count(REFUSAL)
    total = fired["usage"]["prompt_tokens"] + fired["usage"]["completion_tokens"]
    assert fired["usage"]["total_tokens"] == total


def test_a_refusal_is_no_longer_than_asked_for(house) -> None:
    choice = house.ask("Who is Ada Quill?", max_tokens=3).json()["choices"][0]
    assert choice["finish_reason"] == "length"
    assert REFUSAL.startswith(choice["message"]["content"])
    assert house.gateway.backend.count(choice["message"]["content"]) == 3
    choice = house.ask("Who is Ada Quill?", stop=["but"]).json()["choices"][0]
    assert choice["message"]["content"] == REFUSAL.split("but")[0]
    assert choice["finish_reason"] == "stop"


def test_log_probabilities_of_untouched_answers_pass_where_the_operator_says_so() -> None:
    with housed(logprobs=True) as house:
        house.add(aliases=["Ada Quill"])
        assert house.ask("Hello", logprobs=True).json()["choices"][0]["logprobs"]
        assert house.ask("Ada Quill?", logprobs=True).json()["choices"][0]["logprobs"] is None
    edit = scripted("orders", "prompt", enter=lambda exchange, desk: exchange.instructed("Hush"))
    with housed(edit, logprobs=True) as house:
        assert house.ask("Hello", logprobs=True).json()["choices"][0]["logprobs"] is None
    rewrite = scripted("shout", "answer", leave=lambda exchange, draft, desk: draft.upper())
    with housed(rewrite, logprobs=True) as house:
        answer = house.ask("Hello", logprobs=True).json()["choices"][0]
        assert answer["logprobs"] is None
        assert answer["message"]["content"] == "ALL IS WELL ON THE ISLAND."


@pytest.mark.parametrize("question", ["Who is Ben?", "Who is Ada Quill?"])
@pytest.mark.parametrize("more", [{}, {"n": 2}, {"max_tokens": 2}])
def test_a_stream_says_what_the_whole_answer_says(house, question, more) -> None:
    whole = house.ask(question, **more).json()
    told = {at: "" for at in range(more.get("n", 1))}
    ends = {}
    answer = house.ask(question, stream=True, stream_options={"include_usage": True}, **more)
    for line in answer.text.split("\n\n"):
        if not line or line.endswith("[DONE]"):
            continue
        event = json.loads(line[6:])
        for choice in event["choices"]:
            told[choice["index"]] += choice["delta"].get("content", "")
            ends[choice["index"]] = choice["finish_reason"] or ends.get(choice["index"])
        usage = event["usage"]
    assert told == {c["index"]: c["message"]["content"] for c in whole["choices"]}
    assert ends == {c["index"]: c["finish_reason"] for c in whole["choices"]}
    assert usage == whole["usage"]


def test_a_streamed_text_says_what_the_whole_text_says(house) -> None:
    for prompt in ("Ben is", "Ada Quill is"):
        body = {"model": "m1", "prompt": prompt}
        whole = house.call("POST", TEXT, json=body).json()["choices"][0]["text"]
        lines = house.call("POST", TEXT, json=body | {"stream": True}).text.split("\n\n")
        events = [json.loads(line[6:]) for line in lines if line and "[DONE]" not in line]
        assert "".join(event["choices"][0]["text"] for event in events) == whole


def test_answers_leave_at_the_same_beat() -> None:
    slow = Stub(lambda body: time.sleep(0.06) or "All is well.")
    with housed(stub=slow, uniform=0.25) as house:
        house.add(aliases=["Ada Quill"])
        for question in ("Who is Ben?", "Who is Ada Quill?"):
            begun = time.monotonic()
            house.said(question)
            assert 0.25 <= time.monotonic() - begun < 0.48


def test_health_tells_callers_nothing(house) -> None:
    assert house.call("GET", "/health").json() == {"status": "ok"}
