"""Bodies of requests: what a client may ask for, and what would undo a guard.

A body is read strictly, since the bytes that were read here are what the upstream reads again: a
key that stands twice, a field nobody here knows, a text in a place no guard looks at are refused,
not passed on.
"""

import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from expunge.core.errors import ExpungeError
from expunge.core.limits import NESTING
from expunge.data.strict_json import parse_line
from expunge.engine.guarding.exchange import Exchange
from expunge.requests.columns import Unfit
from expunge.requests.columns import text as checked_text
from expunge.requests.rows import Turn
from expunge.serve.faults import Fault, fault_of

MOST_TEXT = 500_000
"""Most characters of a request; guards read all of them, and everybody waits for a long one."""

MOST_CHOICES = 16
"""Most choices of one request; each is audited."""

UNDOING = {
    "logit_bias": "it can force protected words out",
    "prompt_embeds": "no guard can read it",
    "prompt_token_ids": "no guard can read it",
    "adapter": "it would choose the weights",
    "adapters": "it would choose the weights",
    "lora": "it would choose the weights",
    "lora_request": "it would choose the weights",
    "vllm_xargs": "it reaches into the model's own hooks",
    "extra_args": "it reaches into the model's own hooks",
    "extra_body": "it reaches into the model's own hooks",
    "logits_processors": "it reaches into the model's own hooks",
    "chat_template": "it would rewrite what the guards have read",
    "chat_template_kwargs": "it would rewrite what the guards have read",
    "documents": "it stands in a place no guard looks at",
    "prediction": "it stands in a place no guard looks at",
    "suffix": "it stands in a place no guard looks at",
    "echo": "it would give the prompt back as an answer",
    "prompt_logprobs": "it tells what the model thinks of the prompt",
    "best_of": "answers would be made that no guard sees",
    "continue_final_message": "it would put words into the model's mouth",
    "add_generation_prompt": "it would rewrite what the guards have read",
    "add_special_tokens": "it would rewrite what the guards have read",
    "skip_special_tokens": "it would change what the guards read",
    "structured_outputs": "it can force protected words out",
    "guided_json": "it can force protected words out",
    "guided_regex": "it can force protected words out",
    "guided_choice": "it can force protected words out",
    "guided_grammar": "it can force protected words out",
    "grammar": "it can force protected words out",
    "bad_words": "it can steer around a guard",
    "audio": "no guard can read it",
    "modalities": "no guard can read it",
    "web_search_options": "texts would come in past the guards",
}
"""Fields that undo a guard, and how."""

SET_BY_DEFAULT = ("add_generation_prompt", "add_special_tokens", "skip_special_tokens")
"""Such fields whose false is what undoes."""

CONTROL = re.compile(
    r"<\|[^<>\n]{0,60}\|>|</?s>|<(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>|"
    r"<(?:bos|eos|pad|unk)>|\[/?(?:AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|SYSTEM_PROMPT)\]"
)
"""What chat models take for the frame of a conversation instead of text in it."""

Body = TypeVar("Body", bound=BaseModel)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _StreamOptions(_Strict):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class _Part(_Strict):
    type: Literal["text"]
    text: str


class _Call(_Strict):
    id: str | None = None
    type: Literal["function"] = "function"
    function: dict[str, Any]


class _Message(_Strict):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[_Part] | None = None
    name: str | None = None
    tool_call_id: str | None = None
    tool_calls: list[_Call] | None = None
    refusal: str | None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    audio: None = None
    function_call: None = None


class _Asking(_Strict):
    """What both ways of asking share."""

    model: Annotated[str, Field(min_length=1, max_length=256)]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    seed: int | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    user: str | None = None


class _Chat(_Asking):
    messages: Annotated[list[_Message], Field(min_length=1, max_length=4096)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: dict[str, Any] | None = None
    tools: Annotated[list[dict[str, Any]], Field(max_length=256)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    service_tier: str | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None


class _Complete(_Asking):
    prompt: str | list[Any]
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None


class DryRun(_Strict):
    """A conversation whose gates are to be tried."""

    messages: Annotated[list[_Message], Field(min_length=1, max_length=4096)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """A request to the model.

    Attributes:
        raw: The client's own bytes.
        body: What they say.
        is_chat: A conversation, else a text to go on with.
        exchange: What the guards look at.
        streams: Whether the answer is wanted piece by piece.
        wants_usage: Whether a stream is to end with the numbers of tokens.
        choices: Answers wanted.
        most: Longest answer, in tokens; None leaves it to the backend.
        stops: Texts before which an answer ends.
        logprobs: Whether log-probabilities are wanted.
    """

    raw: bytes
    body: Mapping[str, Any]
    is_chat: bool
    exchange: Exchange
    streams: bool
    wants_usage: bool
    choices: int
    most: int | None
    stops: tuple[str, ...]
    logprobs: bool

    def by(self, caller: str) -> "Asked":
        """The same request, from a caller of this role."""
        return replace(self, exchange=replace(self.exchange, caller=caller)) if caller else self

    @property
    def model(self) -> str:
        """The model as the client calls it."""
        return str(self.body["model"])


def read_chat(raw: bytes) -> Asked:
    """A body of ``/v1/chat/completions``.

    Raises:
        Fault: 400 for anything that is no such body, or that would undo a guard.
    """
    body = _read(raw)
    told = validated(_Chat, body)
    exchange = conversation(told.messages)
    if told.messages[-1].role == "assistant":
        raise _unfit("messages", "a last message of the assistant's would be gone on with")
    form = (told.response_format or {}).get("type", "text")
    if form not in ("text", "json_object", "json_schema"):
        raise _unfit("response_format", "it can force protected words out")
    beside = {name: body.get(name) for name in ("tools", "tool_choice", "response_format")}
    exchange = replace(exchange, raw=(*exchange.raw, *_joined(beside)))
    return _asked(raw, body, told, exchange, told.max_completion_tokens or told.max_tokens)


def read_completion(raw: bytes) -> Asked:
    """A body of ``/v1/completions``.

    Raises:
        Fault: 400 for anything that is no such body, or that would undo a guard.
    """
    body = _read(raw)
    told = validated(_Complete, body)
    prompt = told.prompt[0] if isinstance(told.prompt, list) and len(told.prompt) == 1 else None
    prompt = told.prompt if isinstance(told.prompt, str) else prompt
    if not isinstance(prompt, str):
        raise _unfit("prompt", "one text a request; no guard can read token ids")
    check_text(prompt, "prompt")
    exchange = Exchange.of(Turn(prompt, "", running=True))
    return _asked(raw, body, told, exchange, told.max_tokens)


def read_json(raw: bytes) -> dict[str, Any]:
    """A JSON object, within limits.

    Raises:
        Fault: 400.
    """
    try:
        value = parse_line(raw, "body")
    except ExpungeError as error:
        raise fault_of(error) from None
    except RecursionError:
        raise Fault(400, "E-DATA-009", f"More than {NESTING} levels of nesting.") from None
    if not isinstance(value, dict):
        raise Fault(400, "not_an_object", "The body must be a JSON object.")
    return value


def validated(kind: type[Body], value: Mapping[str, Any]) -> Body:
    """A JSON object as a body of one kind.

    Raises:
        Fault: 400; it names the place and does not quote what stands there.
    """
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(part) for part in problem["loc"])[:200]
        unknown = problem["type"] == "extra_forbidden"
        said = "there is no such field here" if unknown else str(problem["msg"])[:200]
        code = "unknown_field" if unknown else "invalid_value"
        raise Fault(400, code, f"{place or 'body'}: {said}.", place or None) from None


def conversation(messages: Collection[_Message]) -> Exchange:
    """Messages as guards look at them, with all that could reach a model beside the contents."""
    told: list[dict[str, Any]] = []
    beside: list[str] = []
    for message in messages:
        kept = message.model_dump(exclude_none=True, exclude={"content", "annotations"})
        parts = message.content if isinstance(message.content, list) else []
        content = "\n".join(part.text for part in parts) if parts else message.content or ""
        told.append({**kept, "content": content})
        beside += ["".join(part.text for part in parts)] if len(parts) > 1 else []
        beside += _joined({name: kept[name] for name in kept if name != "role"})
    for text in (*(m["content"] for m in told), *beside):
        check_text(text, "messages")
    exchange = Exchange.talk(told)
    return replace(exchange, raw=(*exchange.raw, *beside))


def check_text(text: str, param: str, controls: Collection[str] = ()) -> None:
    """Refuse a text that a model would not read as text.

    Args:
        text: From a client.
        param: Where it stands.
        controls: More tokens that are none of its words.

    Raises:
        Fault: 400.
    """
    try:
        checked_text(text)
    except Unfit as unfit:
        raise Fault(400, unfit.code, f"{param} holds {unfit.found}.", param) from None
    plain = unicodedata.normalize("NFKC", text)
    if CONTROL.search(plain) or any(token in text for token in controls):
        raise _unfit(param, "special tokens of a model in it would end its part of the frame")


def strings_in(value: Any) -> Iterator[str]:
    """All texts in a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield str(key)
            yield from strings_in(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from strings_in(inner)


def _joined(value: Mapping[str, Any]) -> list[str]:
    """The texts of a value as one, so that what is spread over them is seen as well."""
    texts = [text for inner in value.values() for text in strings_in(inner)]
    for text in texts:
        check_text(text, "messages")
    return ["\n".join(texts)] if texts else []


def _read(raw: bytes) -> dict[str, Any]:
    body = read_json(raw)
    for name, why in UNDOING.items():
        if not _is_neutral(name, body):
            raise _unfit(name, why)
    return {name: value for name, value in body.items() if name not in UNDOING}


def _is_neutral(name: str, body: Mapping[str, Any]) -> bool:
    """Whether a field that undoes a guard asks for nothing; 0 and false are two things."""
    value = body.get(name)
    if value is None or (value is False and name not in SET_BY_DEFAULT):
        return True
    if name == "best_of":
        return type(value) is int and value == (body.get("n") or 1)
    return isinstance(value, dict | list | str) and not value


def _asked(
    raw: bytes, body: Mapping[str, Any], told: _Asking, exchange: Exchange, most: int | None
) -> Asked:
    if max(map(len, exchange.texts)) > MOST_TEXT:
        param = "messages" if isinstance(told, _Chat) else "prompt"
        raise Fault(400, "too_long", f"{param}: more than {MOST_TEXT} characters.", param)
    stop = [told.stop] if isinstance(told.stop, str) else told.stop or []
    wants = getattr(told, "logprobs", None)
    options = told.stream_options
    return Asked(
        raw=raw,
        body=body,
        is_chat=isinstance(told, _Chat),
        exchange=exchange,
        streams=bool(told.stream),
        wants_usage=bool(options and options.include_usage),
        choices=told.n or 1,
        most=most,
        stops=tuple(one for one in stop if one),
        logprobs=wants is not None and wants is not False,
    )


def _unfit(param: str, why: str) -> Fault:
    return Fault(400, "field_refused", f"{param} is refused here: {why}.", param)
