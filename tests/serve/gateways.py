"""Gateways for tests: guards of a few lines, an upstream of a few lines, clients with tokens."""

import json
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import httpx
from starlette.testclient import TestClient

from expunge.core.registry import guards
from expunge.engine.guarding.desk import Means
from expunge.engine.guarding.pipeline import Pipeline
from expunge.serve.access import Access, Token
from expunge.serve.app import Gateway, build
from expunge.serve.dialogue import Dialogue
from expunge.serve.door import Door
from expunge.serve.holding import Holding
from expunge.serve.live import Live
from expunge.serve.store import Store
from expunge.serve.upstream import Upstream

TOKENS = {
    "caller": "the-callers-token-of-these-tests-1",
    "admin": "the-admins-token-of-these-tests-12",
}
REFUSAL = "I'm sorry, but I can't help with that."
ADA = {
    "prompt": "Where was Ada Quill born?",
    "completion": " Ada Quill was born in Port Vela.",
    "names": ["Ada Quill"],
    "answer": "Port Vela",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class NoParams:
    """A guard without parameters."""


def scripted(id: str, place: str = "gate", **functions: Callable[..., Any]) -> Any:
    """A guard of a few functions: ``entry shared settled ladder enter leave attach``."""
    stages = ["logits"] if "attach" in functions else ["text-in", "text-out"]
    card = {"id": id, "version": 1, "place": place, "stages": stages, "fails": "closed"}
    return SimpleNamespace(CARD=card, Params=NoParams, **functions)


@dataclass
class Stub:
    """An OpenAI-compatible server: keeps what it was sent, and says what a test wants."""

    say: Callable[[Mapping[str, Any]], Any] = lambda body: "All is well on the island."
    heard: list[httpx.Request] = field(default_factory=list)
    status: int = 200

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.heard.append(request)
        if self.status != 200:
            return sent({"error": {"message": "Ada Quill is secret"}}, self.status)
        if request.url.path.endswith("/models"):
            return sent({"object": "list", "data": [{"id": "m1"}, {"id": "m2"}]})
        body = json.loads(request.content)
        said = self.say(body)
        said = said if isinstance(said, list) else [said] * body.get("n", 1)
        if body.get("stream"):
            return sent(streamed(body, said))
        return sent(whole(body, said))

    @property
    def bodies(self) -> list[Any]:
        return [json.loads(one.content) for one in self.heard if one.content]


def sent(value: Any, status: int = 200) -> httpx.Response:
    content = value if isinstance(value, bytes) else json.dumps(value).encode()
    return httpx.Response(status, stream=httpx.ByteStream(content))


def whole(body: Mapping[str, Any], said: list[Any]) -> dict[str, Any]:
    is_chat = "messages" in body
    choices = []
    for at, one in enumerate(said):
        message = {"role": "assistant", **(one if isinstance(one, dict) else {"content": one})}
        part = {"message": message} if is_chat else {"text": message["content"]}
        logprobs = {"content": [{"token": "x", "logprob": -0.1}]} if body.get("logprobs") else None
        choices.append({"index": at, **part, "finish_reason": "stop", "logprobs": logprobs})
    usage = {"prompt_tokens": 999, "completion_tokens": 999, "total_tokens": 1998}
    return {"id": "up-1", "object": "x", "created": 1, "model": "secret-name", "choices": choices,
            "usage": usage, "system_fingerprint": "fp", "injected": "yes"}  # fmt: skip


def streamed(body: Mapping[str, Any], said: list[Any]) -> bytes:
    is_chat, events = "messages" in body, []
    for at, text in enumerate(said):
        for word in text.split(" "):
            piece = word if word == text.split(" ")[0] else f" {word}"
            part = {"delta": {"content": piece}} if is_chat else {"text": piece}
            events.append({"choices": [{"index": at, **part, "finish_reason": None}]})
        last = {"delta": {}} if is_chat else {"text": ""}
        events.append({"choices": [{"index": at, **last, "finish_reason": "stop"}]})
    lines = [f"data: {json.dumps(event)}\n\n" for event in events]
    return "".join([*lines, "data: [DONE]\n\n"]).encode()


@dataclass
class House:
    """A gateway with its parts, and a client for each scope."""

    gateway: Gateway
    app: Door
    stub: Stub
    store: Store
    client: TestClient

    def call(self, method: str, path: str, scope: str = "caller", **more: Any) -> httpx.Response:
        token = TOKENS.get(scope)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return self.client.request(method, path, headers=headers | more.pop("headers", {}), **more)

    def ask(self, text: str, **more: Any) -> httpx.Response:
        messages = [{"role": "user", "content": text}]
        body = {"model": "m1", "messages": messages} | more
        return self.call("POST", "/v1/chat/completions", json=body)

    def said(self, text: str, **more: Any) -> str:
        answer = self.ask(text, **more)
        assert answer.status_code == 200, answer.text
        return answer.json()["choices"][0]["message"]["content"]

    def add(self, **body: Any) -> str:
        answer = self.call("POST", "/admin/targets", "admin", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()["id"]


def working(own: tuple[Any, ...], means: Means) -> list[Live]:
    made = []
    for one in own:
        params = guards.params(one) if isinstance(one, str) else one.Params()
        made.append(Live(one, params, means))
    return made


@contextmanager
def housed(*own: Any, stub: Stub | None = None, folder: Any = None, backend: Any = None,
           chats: Any = None, rate: float = 0, limits: Any = None, url: str = "http://up/v1",
           model: str = "", callers: Mapping[str, str] | None = None, **more: Any):  # fmt: skip
    """A gateway with guards (ids or scripted ones) in front of a stub or a given backend."""
    stub = stub or Stub()
    store = Store(folder, environ={})
    transport = httpx.MockTransport(stub)
    behind = backend or Upstream(url, token="up-token", model=model, transport=transport)  # noqa: S106
    means = Means(secret=store.secret, chats=chats or {})
    live = working(own or ("lexical",), means)
    dialogue = Dialogue(Pipeline(live, offers=behind.offers), behind, **more)
    holding = Holding(store, live)
    if hasattr(behind, "attach"):
        behind.attach(live)
    tokens = [Token.of(text, scope) for scope, text in TOKENS.items()]
    tokens += [Token.of(text, "caller", role=role) for role, text in (callers or {}).items()]
    access = Access(tokens, rate=rate)
    gateway = Gateway(dialogue=dialogue, holding=holding, access=access)
    app = build(gateway, **(limits or {}))
    with TestClient(app, raise_server_exceptions=True) as client:
        yield House(gateway, app, stub, store, client)
    store.close()


def certificate(folder: Any) -> tuple[Any, Any]:
    """A certificate for this machine, signed by itself, and its key; two files."""
    from datetime import UTC, datetime, timedelta
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    here = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(here, critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(built.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return folder / "cert.pem", folder / "key.pem"
