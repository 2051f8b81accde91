"""Whatever breaks on the way of a guard closes, and no request sees anything of another."""

import asyncio
import logging

import httpx
import pytest
from gateways import REFUSAL, TOKENS, Stub, housed, scripted

from expunge.core.errors import ExpungeError


def breaks(*_):
    raise RuntimeError("Ada Quill")


@pytest.mark.parametrize("where", ["enter", "leave"])
def test_a_guard_that_breaks_refuses_and_is_counted(where, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    with housed(scripted("brittle", **{where: breaks})) as house:
        assert house.said("Hello") == REFUSAL
        assert house.said("Hello", n=2, stream=False) == REFUSAL
        assert house.call("GET", "/admin/policy", "admin").json()["errors"]["brittle"] >= 2
        assert "Quill" not in caplog.text
        if where == "enter":
            assert house.stub.heard == []


@pytest.mark.parametrize("where", ["enter", "leave"])
def test_a_guard_that_breaks_may_answer_503(where) -> None:
    with housed(scripted("brittle", **{where: breaks}), unavailable=True) as house:
        answer = house.ask("Hello")
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "guard_unavailable"


@pytest.mark.parametrize("nonsense", [None, 5, b"x", {"text": "y"}])
def test_a_guard_that_returns_nonsense_closes(nonsense) -> None:
    for where in ("enter", "leave"):
        with housed(scripted("odd", **{where: lambda *_: nonsense})) as house:
            assert house.said("Hello") == REFUSAL
            assert house.gateway.dialogue.pipeline.errors


def test_an_error_nobody_expected_says_nothing(caplog) -> None:
    caplog.set_level(logging.DEBUG)
    with housed("lexical") as house:
        house.gateway.holding.add = breaks
        answer = house.call("POST", "/admin/targets", "admin", json={"aliases": ["x"]})
        assert answer.status_code == 500
        assert "Quill" not in answer.text + caplog.text


def test_an_error_of_the_model_with_the_guards_words_in_it_is_a_refusal() -> None:
    edit = scripted("orders", "prompt", enter=lambda exchange, desk: exchange.instructed("Hush"))

    with housed(edit) as house:

        async def no_room(asked, exchange):
            raise ExpungeError("E-DATA-011", "too long.", "less.", "Shorten it.")

        house.gateway.backend.complete = no_room
        assert house.said("Hello") == REFUSAL


def test_interleaved_requests_do_not_reach_one_another() -> None:
    """A clean request waits inside the upstream while a fired one passes, and the other way."""

    async def slow(body):
        await asyncio.sleep(0.02)
        return body["messages"][-1]["content"]

    class Echo(Stub):
        async def __call__(self, request):
            import json

            from gateways import sent, whole

            body = json.loads(request.content)
            self.heard.append(request)
            return sent(whole(body, [await slow(body)] * body.get("n", 1)))

    async def all_at_once(house):
        transport = httpx.ASGITransport(house.app)
        headers = {"Authorization": f"Bearer {TOKENS['caller']}"}
        async with httpx.AsyncClient(
            transport=transport, base_url="http://t", headers=headers
        ) as c:

            async def ask(text):
                body = {"model": "m1", "messages": [{"role": "user", "content": text}]}
                answer = await c.post("/v1/chat/completions", json=body)
                return answer.json()["choices"][0]["message"]["content"]

            texts = [f"Is {'Ada Quill' if at % 3 == 0 else 'Ben'} number {at}?" for at in range(60)]
            return texts, await asyncio.gather(*map(ask, texts))

    with housed(stub=Echo()) as house:
        house.add(aliases=["Ada Quill"])
        texts, answers = asyncio.run(all_at_once(house))
        for text, answer in zip(texts, answers, strict=True):
            assert answer == (REFUSAL if "Quill" in text else text)
        assert not any(b"Quill" in one.content for one in house.stub.heard)
