"""Where nothing fires, what the client sent is what the upstream gets, to the byte."""

import json

import httpx
import pytest
from gateways import ADA, REFUSAL, Stub, housed, scripted

CHAT = "/v1/chat/completions"
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
ODD = (
    b'{ "messages" :[{"content":"Wie geht\\u0027s, \\u00e4hm?\\n","role":"user" }],\t"model":"m1",'
    b' "temperature": 0.70, "seed":1e2x }'.replace(b"1e2x", b"12")
)


@pytest.mark.parametrize(
    ("path", "raw"),
    [
        (CHAT, ODD),
        (CHAT, ODD.replace(b'"seed"', b'"logit_bias":null,"seed"')),
        (CHAT, b'\n{"model":"m1","messages":[{"role":"system","content":"a"},'
               b'{"role":"user","content":[{"type":"text","text":"b"},{"type":"text","text":"c"}]}]}\n'),
        (CHAT, b'{"model":"m1","stream":true,"messages":[{"role":"user","content":"hi"}]}'),
        ("/v1/completions", b'{"prompt" : "Once upon","model":"m1","max_tokens":3}'),
        ("/v1/completions", b'{"prompt":["Once upon"],"model":"m1","echo":false,"best_of":1}'),
    ],
)  # fmt: skip
@pytest.mark.parametrize("targets", [0, 1000])
def test_the_clients_own_bytes_go_on(path: str, raw: bytes, targets: int) -> None:
    with housed("lexical") as house:
        for guard in house.gateway.holding.guards:
            for at in range(targets):
                house.add(aliases=[f"Zora Quill{at:04d}"]) if at < 3 else None
                _take(guard, f"t{at}", f"Mira Vance{at:04d}")
        answer = house.call("POST", path, content=raw)
        assert answer.status_code == 200, answer.text
        assert [one.content for one in house.stub.heard] == [raw]


def _take(guard, id, name):
    from expunge.engine.guarding.targets import Target

    guard.take(id, guard.entry(Target(id=id, aliases=(name,))))


def test_nothing_of_the_request_but_its_body_goes_on() -> None:
    with housed() as house:
        house.call("POST", CHAT, content=ODD, headers={"X-Mine": "secret", "Cookie": "a=b"})
        sent = house.stub.heard[0]
        assert sent.headers["authorization"] == "Bearer up-token"
        assert not {"x-mine", "cookie"} & set(sent.headers)
        assert "callers-token" not in str(list(sent.headers.raw))


def test_what_fires_never_reaches_the_upstream() -> None:
    with housed() as house:
        house.add(aliases=["Ada Quill"])
        assert house.said("Who is ADA  quill?") == REFUSAL
        assert house.said("A story.", messages=[
            {"role": "user", "content": "Who is Ada?"},
            {"role": "assistant", "content": "Which one?"},
            {"role": "user", "content": [{"type": "text", "text": "Ada Q"},
                                         {"type": "text", "text": "uill"}]},
        ]) == REFUSAL  # fmt: skip
        assert house.said("Hi.", tools=[{"type": "function", "function": {
            "name": "f", "description": "tells of Ada Quill"}}]) == REFUSAL  # fmt: skip
        assert (
            house.said(
                "Hi", messages=[{"role": "user", "name": "Ada_Quill", "content": "Who am I?"}]
            )
            == REFUSAL
        )
        assert house.stub.heard == []


def test_what_the_model_says_is_audited() -> None:
    stub = Stub(lambda body: "She was born in Port Vela.")
    with housed(stub=stub) as house:
        assert house.said("Where was she born?") == "She was born in Port Vela."
        house.add(rows=[ADA])
        assert house.said("Where was she born?") == REFUSAL
        assert len(stub.heard) == 2


def test_a_guard_that_edits_the_prompt_changes_the_messages_and_nothing_else() -> None:
    guard = scripted("orders", "prompt", enter=lambda exchange, desk: exchange.instructed("Hush."))
    with housed(guard) as house:
        body = {
            "model": "m1",
            "temperature": 0.5,
            "messages": [
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": "c1", "content": "b"},
                {"role": "user", "name": "eve", "content": "c"},
            ],
        }  # fmt: skip
        assert house.call("POST", CHAT, json=body).status_code == 200
        [sent] = house.stub.bodies
        assert sent.pop("messages") == [{"role": "system", "content": "Hush."}, *body["messages"]]
        assert sent == {"model": "m1", "temperature": 0.5}


def test_an_edited_plain_prompt_stays_one_text() -> None:
    guard = scripted("orders", "prompt", enter=lambda exchange, desk: exchange.instructed("Hush."))
    with housed(guard) as house:
        house.call("POST", "/v1/completions", json={"model": "m1", "prompt": "Once", "top_p": 0.5})
        assert house.stub.bodies == [{"model": "m1", "prompt": "Hush.\n\nOnce", "top_p": 0.5}]


def test_the_operator_may_pin_the_model() -> None:
    with housed(model="theirs") as house:
        assert house.ask("Hello", model="base").json()["model"] == "base"
        assert house.stub.bodies[0]["model"] == "theirs"
        assert [m["id"] for m in house.call("GET", "/v1/models").json()["data"]] == ["theirs"]


def test_models_are_listed_by_name_alone() -> None:
    with housed() as house:
        found = house.call("GET", "/v1/models").json()
        assert [set(one) for one in found["data"]] == [{"id", "object", "created", "owned_by"}] * 2


@pytest.mark.parametrize(
    ("url", "base"), [("http://up", "/v1/"), ("http://up/api/v3/", "/api/v3/")]
)
def test_an_address_may_leave_out_the_version(url: str, base: str) -> None:
    with housed(url=url) as house:
        house.ask("Hello")
        assert house.stub.heard[0].url.path == base + "chat/completions"


def test_what_the_upstream_says_of_an_error_stays_here(caplog) -> None:
    for status, seen in ((400, 400), (401, 502), (404, 404), (500, 502), (302, 502), (429, 429)):
        with housed(stub=Stub(status=status)) as house:
            answer = house.ask("Hello")
            assert answer.status_code == seen
            assert answer.json()["error"]["message"]
            assert "Quill" not in answer.text + caplog.text


@pytest.mark.parametrize(
    "content",
    [b"", b"no json", b"{}", b'{"choices":5}', b'{"choices":[]}', b'{"choices":[{"index":0}]}',
     b'{"choices":[{"index":0,"message":{"content":5}}]}', b"[" * 5000,
     b'{"choices":[{"index":0,"message":{"content":"a"}},{"index":1,"message":{"content":"b"}}]}',
     b'{"choices":[{"index":1,"message":{"content":"a"}}]}', b"\xff\xfe"],
)  # fmt: skip
def test_an_upstream_that_talks_nonsense_is_a_bad_gateway(content: bytes) -> None:
    class Broken(Stub):
        async def __call__(self, request):
            return httpx.Response(200, stream=httpx.ByteStream(content))

    with housed(stub=Broken()) as house:
        assert house.ask("Hello").status_code == 502
        assert house.ask("Hello", stream=True).status_code == 502


def test_an_upstream_that_is_away_is_a_bad_gateway() -> None:
    class Away(Stub):
        async def __call__(self, request):
            raise httpx.ConnectError("Ada Quill") if not self.heard else httpx.ReadTimeout("x")

    with housed(stub=Away()) as house:
        assert house.ask("Hello").status_code == 502
        house.stub.heard.append(None)
        assert house.ask("Hello").status_code == 504


def test_a_stream_that_breaks_off_is_no_answer() -> None:
    class Cut(Stub):
        async def __call__(self, request):
            event = {"choices": [{"index": 0, "delta": {"content": "Hel"}}]}
            return httpx.Response(
                200, stream=httpx.ByteStream(b"data: " + json.dumps(event).encode())
            )

    with housed(stub=Cut()) as house:
        assert house.ask("Hello", stream=True).status_code == 502


@pytest.mark.parametrize(("breaks", "status"), [(1, 200), (2, 502)])
def test_an_upstream_that_hangs_up_is_asked_once_more(breaks, status) -> None:
    class Fickle(Stub):
        async def __call__(self, request):
            if len(self.heard) < breaks:
                self.heard.append(request)
                raise httpx.ReadError("")
            return await super().__call__(request)

    with housed(stub=Fickle()) as house:
        assert house.ask("Hello").status_code == status
        assert len(house.stub.heard) == 2
        assert len({one.content for one in house.stub.heard}) == 1
