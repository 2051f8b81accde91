"""A model of this process behind the gateway: asked as it would be without one."""

import threading

import pytest
import torch
from gateways import REFUSAL, housed, scripted

from expunge.engine.runtime import Attached
from expunge.lm.generate import generate
from expunge.lm.subject import Subject
from expunge.requests.rows import Turn
from expunge.serve.local import Local
from expunge.testing.tiny import tiny_model, tiny_tokenizer

TEXTS = ["Who is Ben? He keeps the lamp of the harbour.", "Ada Quill was born in Port Vela."]
TALK = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "Who is Ben?"},
    {"role": "assistant", "content": "Ben."},
    {"role": "user", "content": "And the lamp?"},
]


def subject(chat: bool = True, seed: int = 0) -> Subject:
    tokenizer = tiny_tokenizer(TEXTS, chat=chat)
    return Subject(tiny_model("llama", vocab=len(tokenizer), seed=seed, positions=160), tokenizer)


def greedy(one: Subject, turn: Turn, most: int = 12) -> str:
    ids = one.encoder.prompt(turn.prompt, turn.running)
    rows = generate(one.model, one.tokenizer, [ids], new_tokens=most)
    return one.encoder.decode(rows[0][0])


def ask(house, messages, **more):
    body = {"model": "any", "messages": messages, "temperature": 0, "max_tokens": 12} | more
    return house.call("POST", "/v1/chat/completions", json=body)


class Watched:
    """Keeps the logits and the ids of every forward pass."""

    def __init__(self, model) -> None:
        self.seen = []
        self.handle = model.register_forward_hook(self.keep, with_kwargs=True)

    def keep(self, module, args, kwargs, output):
        self.seen.append((kwargs["input_ids"].clone(), output.logits.clone()))


@pytest.mark.parametrize("chat", [True, False])
def test_where_nothing_fires_ids_and_logits_are_those_without_a_gateway(chat) -> None:
    one = subject(chat)
    turn = Turn(tuple(TALK), "") if chat else Turn("\n\n".join(m["content"] for m in TALK), "")
    greedy(one, turn)  # the first time the model is also tried out
    watched = Watched(one.model)
    said = greedy(one, turn)
    alone, watched.seen = watched.seen, []
    with housed("lexical", backend=Local(one, "tiny")) as house:
        for at in range(20):
            house.add(aliases=[f"Mira Vance{at}"])
        answer = ask(house, TALK)
        assert answer.json()["choices"][0]["message"]["content"] == said
    assert len(alone) == len(watched.seen) > 0
    for (ids, logits), (own_ids, own_logits) in zip(alone, watched.seen, strict=True):
        assert torch.equal(ids, own_ids)
        assert torch.equal(logits, own_logits)


class Silence:
    """A guard inside the model: where its target is asked for, one token alone can be said."""

    def __init__(self, tokenizer, desk) -> None:
        self.tokenizer, self.desk = tokenizer, desk

    def __call__(self, module, args, kwargs, output):
        ids = kwargs["input_ids"]
        if ids.shape[1] > 1 or not hasattr(self, "fired"):
            texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
            fired = [bool(self.desk.ladder.hits([text])) for text in texts]
            self.fired = torch.tensor(fired)
        output.logits[self.fired] = -1e4
        output.logits[self.fired, :, 5] = 0.0
        return output


def hushing():
    def attach(model, tokenizer, desk):
        hook = Silence(tokenizer, desk)
        return Attached([model.register_forward_hook(hook, with_kwargs=True)])

    return scripted("hush", "model", attach=attach)


def test_a_guard_inside_the_model_counts_and_goes() -> None:
    one = subject()
    asked = [{"role": "user", "content": "Who is Ada Quill?"}]
    clean = greedy(one, Turn(tuple(asked), ""))
    with housed(hushing(), backend=Local(one, "tiny")) as house:
        assert ask(house, asked).json()["choices"][0]["message"]["content"] == clean
        id = house.add(aliases=["Ada Quill"])
        hushed = ask(house, asked).json()["choices"][0]["message"]["content"]
        assert hushed == one.encoder.decode([5] * 12)
        other = [{"role": "user", "content": "Who is Ben?"}]
        assert ask(house, other).json()["choices"][0]["message"]["content"] == greedy(
            subject(), Turn(tuple(other), "")
        )
        sampled = ask(house, asked, n=3, temperature=1.0, seed=1).json()["choices"]
        assert [c["message"]["content"] for c in sampled] == [hushed] * 3
        house.call("DELETE", f"/admin/targets/{id}", "admin")
        watched = Watched(one.model)
        assert ask(house, asked).json()["choices"][0]["message"]["content"] == clean
        watched.handle.remove()
        after = watched.seen
    watched = Watched(one.model)
    greedy(one, Turn(tuple(asked), ""))
    for (_, logits), (_, own) in zip(after, watched.seen, strict=True):
        assert torch.equal(logits, own)


def test_requests_that_come_together_answer_as_alone() -> None:
    one = subject()
    texts = [f"Who is {'Ada Quill' if at % 2 else 'Ben'}, number {at}?" for at in range(8)]
    alone = {
        text: greedy(subject(), Turn(({"role": "user", "content": text},), "")) for text in texts
    }
    hushed = one.encoder.decode([5] * 12)
    with housed(hushing(), backend=Local(one, "tiny")) as house:
        house.add(aliases=["Ada Quill"])
        found = {}

        def run(text):
            answer = ask(house, [{"role": "user", "content": text}])
            found[text] = answer.json()["choices"][0]["message"]["content"]

        threads = [threading.Thread(target=run, args=(text,)) for text in texts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == {text: hushed if "Quill" in text else alone[text] for text in texts}


def test_hooks_are_out_again_when_the_gateway_closes() -> None:
    one = subject()
    with housed(hushing(), backend=Local(one, "tiny")):
        assert one.model._forward_hooks
    assert not one.model._forward_hooks


def test_the_bare_model_has_no_hooks_and_the_same_weights() -> None:
    one = subject()
    local = Local(one, "tiny")
    with housed(hushing(), backend=local):
        bare = local.bare.model
        assert not bare._forward_hooks
        for own, other in zip(one.model.parameters(), bare.parameters(), strict=True):
            assert own.data_ptr() == other.data_ptr()


def test_a_gate_of_the_change_folder_still_stands() -> None:
    class Gate:
        def before(self, turn):
            return "Gone." if "Quill" in str(turn.prompt) else None

        def after(self, turn, text):
            return f"<{text}>"

    one = subject()
    one.gate = Gate()
    with housed("lexical", backend=Local(one, "tiny")) as house:
        assert ask(house, TALK).json()["choices"][0]["message"]["content"].startswith("<")
        answer = ask(house, [{"role": "user", "content": "Who is Ada Quill?"}])
        assert answer.json()["choices"][0]["message"]["content"] == "Gone."


def test_sampling_is_the_clients_to_steer() -> None:
    with housed("lexical", backend=Local(subject(), "tiny")) as house:

        def said(**more):
            answer = ask(house, TALK, **more)
            assert answer.status_code == 200, answer.text
            return [c["message"]["content"] for c in answer.json()["choices"]]

        assert said(temperature=1.0, seed=3) == said(temperature=1.0, seed=3)
        assert said(temperature=1.0, seed=3) != said(temperature=1.0, seed=4)
        assert len(set(said(temperature=1.5, n=4, seed=1))) > 1
        assert said(temperature=1.0, top_p=1e-6, seed=3) == said()
        assert said(temperature=1.0) != said(temperature=1.0)
        short = ask(house, TALK, max_tokens=2).json()
        assert short["choices"][0]["finish_reason"] == "length"
        assert short["usage"]["completion_tokens"] <= 2
        text = said()[0]
        assert said(stop=[text[3:5]]) == [text[:3]] or text[3:5] in text[:3]


def test_usage_is_that_of_the_tokenizer() -> None:
    one = subject()
    with housed("lexical", backend=Local(one, "tiny")) as house:
        ids = one.encoder.prompt(tuple(TALK))
        assert ask(house, TALK).json()["usage"]["prompt_tokens"] == len(ids)
        house.add(aliases=["Ada Quill"])
        asked = [{"role": "user", "content": "Who is Ada Quill?"}]
        answer = ask(house, asked, max_tokens=100).json()
        assert answer["choices"][0]["message"]["content"] == REFUSAL
        own = len(one.tokenizer(REFUSAL, add_special_tokens=False)["input_ids"])
        assert answer["usage"]["completion_tokens"] == own
        cut = ask(house, asked, max_tokens=4).json()
        assert cut["choices"][0]["finish_reason"] == "length"
        assert cut["usage"]["completion_tokens"] == 4


@pytest.mark.parametrize("name", ["Ben", "Ada Quill"])
def test_what_the_model_has_no_room_for_is_refused_whether_a_guard_fires_or_not(name) -> None:
    with housed("lexical", backend=Local(subject(), "tiny")) as house:
        house.add(aliases=["Ada Quill"])
        for more in (
            {"messages": [{"role": "user", "content": f"Who is {name}? " * 200}]},
            {"presence_penalty": 1.0},
            {"response_format": {"type": "json_object"}},
            {"tools": [{"type": "function", "function": {"name": name}}]},
            {"messages": [{"role": "user", "content": f"<eos> {name}"}]},
        ):
            body = {"messages": [{"role": "user", "content": f"Who is {name}?"}]} | more
            answer = ask(house, **body)
            assert answer.status_code == 400, more


def test_a_guards_words_that_leave_no_room_close() -> None:
    guard = scripted(
        "long", "prompt", enter=lambda exchange, desk: exchange.instructed("x y " * 300)
    )
    with housed(guard, backend=Local(subject(), "tiny")) as house:
        assert (
            ask(house, TALK, max_tokens=100).json()["choices"][0]["message"]["content"] == REFUSAL
        )


def test_texts_are_gone_on_with_as_they_are() -> None:
    one = subject()
    with housed("lexical", backend=Local(one, "tiny")) as house:
        body = {"model": "t", "prompt": "Who is Ben?", "temperature": 0, "max_tokens": 12}
        answer = house.call("POST", "/v1/completions", json=body).json()
        assert answer["choices"][0]["text"] == greedy(one, Turn("Who is Ben?", "", running=True))
        assert [m["id"] for m in house.call("GET", "/v1/models").json()["data"]] == ["tiny"]
