"""A model behind any OpenAI-compatible server.

Where no guard has changed anything the client's own bytes go on; nothing else of the request does,
no header and no token. Of what comes back only texts and why they end are read.
"""

import json
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from expunge.core.errors import ExpungeError
from expunge.core.extras import require
from expunge.core.limits import MIB
from expunge.engine.guarding.exchange import Exchange
from expunge.engine.guarding.pipeline import TEXT
from expunge.serve.backends import Draft, pieces
from expunge.serve.bodies import Asked
from expunge.serve.faults import Fault

if TYPE_CHECKING:
    import httpx

ANSWER_BYTES = 64 * MIB
"""Longest answer of the upstream."""

TIMEOUT = 600.0
"""Seconds that it may stay silent."""

KEPT = 1.0
"""Seconds that an idle connection is used again: fewer than servers keep theirs."""

FINISHES = ("stop", "length", "tool_calls", "content_filter")

MESSAGE_TOKENS = 4
"""Counted for the frame of each message."""

_log = logging.getLogger(__name__)


class Upstream:
    """See `expunge.serve.backends.Backend`.

    Tokens are counted by a rule of our own, the same for answers and refusals: those of the
    upstream would tell how long a prompt was after guards had written into it, and a refusal has
    none.

    Args:
        url: Its address, with or without ``/v1``.
        token: Its token.
        model: What every request asks for, whatever the client says; empty passes the client's on.
        timeout: Seconds that it may stay silent.
        transport: Takes the place of the network, for tests.

    Raises:
        ExpungeError: ``E-SERVE-006`` for an address that is none.
    """

    offers = TEXT

    def __init__(
        self,
        url: str,
        *,
        token: str = "",
        model: str = "",
        timeout: float = TIMEOUT,
        transport: "httpx.AsyncBaseTransport | None" = None,
    ) -> None:
        require("httpx", extra="serve")
        import httpx

        self._url, self._model = _base(url), model
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        self._client = httpx.AsyncClient(
            headers=headers | ({"Authorization": f"Bearer {token}"} if token else {}),
            timeout=httpx.Timeout(timeout, connect=10.0, pool=timeout),
            limits=httpx.Limits(
                max_connections=1000, max_keepalive_connections=200, keepalive_expiry=KEPT
            ),
            follow_redirects=False,
            transport=transport,
            trust_env=False,
        )
        self.about: Mapping[str, Any] = {"kind": "upstream", "model": model or None}

    def shaped(self, exchange: Exchange) -> Exchange:
        """As it is."""
        return exchange

    def check(self, asked: Asked) -> None:
        """Nothing: the upstream knows what it takes."""

    async def complete(self, asked: Asked, exchange: Exchange) -> list[Draft]:
        """See `Backend`."""
        path = "/chat/completions" if asked.is_chat else "/completions"
        content = await self._answer("POST", path, self._bytes(asked, exchange))
        try:
            choices = _streamed(content) if asked.streams else json.loads(content)["choices"]
            drafts = [_draft(choice, asked.is_chat) for choice in _in_order(choices)]
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            _log.error("the upstream's answer cannot be read: %s", type(error).__name__)
            raise _bad_gateway("The upstream's answer cannot be read.") from None
        if len(drafts) != asked.choices:
            raise _bad_gateway("The upstream gave another number of answers than asked for.")
        return drafts

    async def models(self) -> list[dict[str, Any]]:
        """Those of the upstream, by name alone."""
        if self._model:
            return [_model(self._model)]
        content = await self._answer("GET", "/models", b"")
        try:
            return [_model(str(one["id"])) for one in json.loads(content)["data"]]
        except (KeyError, TypeError, ValueError, RecursionError):
            raise _bad_gateway("The upstream's list of models cannot be read.") from None

    def count_prompt(self, asked: Asked) -> int:
        """See `Backend`."""
        told = asked.exchange.messages
        frame = MESSAGE_TOKENS * len(told) if asked.is_chat else 0
        return frame + sum(self.count(message["content"]) for message in told)

    def count(self, text: str) -> int:
        """See `Backend`."""
        return len(pieces(text))

    def cut(self, text: str, most: int) -> str:
        """See `Backend`."""
        return "".join(pieces(text)[:most])

    async def close(self) -> None:
        """See `Backend`."""
        await self._client.aclose()

    def _bytes(self, asked: Asked, exchange: Exchange) -> bytes:
        """The client's own bytes, unless a guard or the operator has something else in mind."""
        if exchange is asked.exchange and not self._model:
            return asked.raw
        body = dict(asked.body) | ({"model": self._model} if self._model else {})
        if exchange is not asked.exchange:
            body |= (
                {"messages": [_message(one) for one in exchange.messages]}
                if asked.is_chat
                else {"prompt": exchange.turn.prompt}
            )
        return json.dumps(body, ensure_ascii=False, allow_nan=False).encode()

    async def _answer(self, method: str, path: str, content: bytes) -> bytes:
        import httpx

        try:
            try:
                return await self._once(method, path, content)
            except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
                # a server may close an idle connection at the moment it is used again
                _log.warning("the upstream hung up; it is asked once more")
                return await self._once(method, path, content)
        except httpx.TimeoutException:
            raise Fault(504, "upstream_timeout", "The upstream did not answer in time.") from None
        except httpx.HTTPError as error:
            _log.error("the upstream cannot be reached: %s", type(error).__name__)
            raise _bad_gateway("The upstream cannot be reached.") from None

    async def _once(self, method: str, path: str, content: bytes) -> bytes:
        found = bytearray()
        async with self._client.stream(method, self._url + path, content=content) as response:
            _check_status(response.status_code, response.headers.get("retry-after"))
            async for part in response.aiter_raw():
                found += part
                if len(found) > ANSWER_BYTES:
                    raise _bad_gateway("The upstream's answer is too long.")
        return bytes(found)


def _check_status(status: int, retry: str | None) -> None:
    """What the upstream says of an error could quote what a guard wrote; only its sort goes on."""
    if status == 200:
        return
    if status == 429:
        after = retry if retry and retry.isdigit() else "1"
        raise Fault(
            429, "upstream_busy", "The upstream takes no more requests now.",
            headers={"Retry-After": after[:6]},
        )  # fmt: skip
    if status in (400, 413, 422):
        raise Fault(400, "upstream_refused", "The upstream does not take this request.")
    if status == 404:
        raise Fault(404, "model_not_found", "The upstream has no such model.", "model")
    raise _bad_gateway("The upstream failed.")


def _streamed(content: bytes) -> dict[int, dict[str, Any]]:
    """Choices put together from the chunks of a stream."""
    found: dict[int, dict[str, Any]] = {}
    is_whole = False
    for line in content.decode().replace("\r\n", "\n").split("\n"):
        if not line.startswith("data:"):
            continue
        data = line[5:].strip()
        if data == "[DONE]":
            is_whole = True
            break
        for part in json.loads(data)["choices"]:
            _add(found.setdefault(int(part["index"]), {"index": int(part["index"])}), part)
    if not is_whole:
        raise ValueError("a stream that breaks off")
    return found


def _add(choice: dict[str, Any], part: Mapping[str, Any]) -> None:
    """One chunk of a choice joins the others."""
    delta = part.get("delta") or {}
    message = choice.setdefault("message", {"content": "", "refusal": "", "tool_calls": {}})
    choice["text"] = choice.get("text", "") + (part.get("text") or "")
    for name in ("content", "refusal"):
        message[name] += delta.get(name) or ""
    for call in delta.get("tool_calls") or ():
        kept = message["tool_calls"].setdefault(int(call["index"]), {"name": "", "arguments": ""})
        told = call.get("function") or {}
        kept["id"] = call.get("id") or kept.get("id")
        kept["name"] += told.get("name") or ""
        kept["arguments"] += told.get("arguments") or ""
    if part.get("finish_reason"):
        choice["finish_reason"] = part["finish_reason"]
    probabilities = part.get("logprobs")
    if probabilities:
        choice.setdefault("logprobs", []).append(probabilities)


def _in_order(choices: Any) -> list[Mapping[str, Any]]:
    told = list(choices.values() if isinstance(choices, Mapping) else choices)
    if sorted(choice.get("index", at) for at, choice in enumerate(told)) != list(range(len(told))):
        raise ValueError("choices without places")
    return sorted(told, key=lambda choice: choice.get("index", 0))


def _draft(choice: Mapping[str, Any], is_chat: bool) -> Draft:
    finish = choice.get("finish_reason")
    finish = finish if finish in FINISHES else "stop"
    logprobs = choice.get("logprobs")
    if isinstance(logprobs, list):  # pieces of a stream: lists that belong one after the other
        logprobs = _joined(logprobs)
    if not is_chat:
        return Draft(text=_text(choice["text"]), finish=finish, logprobs=logprobs)
    message = choice["message"]
    text = _text(message.get("content")) or _text(message.get("refusal"))
    calls = message.get("tool_calls") or ()
    if isinstance(calls, Mapping):
        calls = [{"id": one["id"], "function": one} for _, one in sorted(calls.items())]
    return Draft(text=text, finish=finish, calls=[_call(one) for one in calls], logprobs=logprobs)


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    told = call["function"]
    return {
        "id": _text(call["id"]),
        "type": "function",
        "function": {"name": _text(told["name"]), "arguments": _text(told["arguments"])},
    }


def _joined(parts: list[Mapping[str, Any]]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for part in parts:
        for name, values in part.items():
            if isinstance(values, list):
                found.setdefault(name, []).extend(values)
    return found


def _text(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError("a text that is none")
    return value.encode("utf-8", "replace").decode()  # half surrogates are no text


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message for the upstream; one that only calls tools has no content."""
    return {**message, "content": message["content"] or (None if "tool_calls" in message else "")}


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "expunge"}


def _base(url: str) -> str:
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        parts, fits = urlsplit(""), False
    if not fits or parts.username or parts.password or parts.query or parts.fragment:
        raise ExpungeError(
            "E-SERVE-006",
            "An address of an upstream that is none.",
            "http://HOST:PORT or https://HOST/v1, without a name, a password or a query in it.",
            "Correct --upstream; a token goes into EXPUNGE_UPSTREAM_TOKEN.",
        )
    whole = url.rstrip("/")
    return whole if parts.path.strip("/") else f"{whole}/v1"


def _bad_gateway(message: str) -> Fault:
    return Fault(502, "upstream_failed", message)
