"""The guards as a guardrail of LiteLLM's proxy.

A module of the operator's makes the class that LiteLLM's configuration names::

    from expunge.serve.adapters.litellm import guardrail_class
    Guardrail = guardrail_class(pipeline)        # of expunge.engine.guarding.pipeline

LiteLLM shows a guardrail texts and lets it change or block them. It has no way to answer in the
model's place, so a question that fires is blocked with an error, which tells the client that it
was; the gateway does not have this leak. Guards that write instructions into the prompt are
refused: there is no message they could write.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from anyio import to_thread

from expunge.core.errors import ExpungeError
from expunge.engine.guarding.exchange import Exchange, Reply
from expunge.engine.guarding.pipeline import Pipeline
from expunge.serve.adapters import module_of
from expunge.serve.bodies import strings_in


class Blocked(Exception):
    """What LiteLLM makes an error of; its text is the guard's reply."""


class Guarding:
    """What LiteLLM calls, without LiteLLM.

    Attributes:
        pipeline: The guards.
    """

    pipeline: Pipeline

    async def apply_guardrail(
        self,
        inputs: Mapping[str, Any],
        request_data: Mapping[str, Any] | None,
        input_type: str,
        logging_obj: Any = None,
    ) -> dict[str, Any]:
        """Look at the texts of a request or of an answer.

        Args:
            inputs: ``texts``, and what else there is beside them.
            request_data: The request; its messages say what an answer answers.
            input_type: ``request`` or ``response``.
            logging_obj: Not used: nothing of a text is logged.

        Returns:
            The inputs, with other texts where a guard says so.

        Raises:
            Blocked: Instead of a request's texts, or where a guard cannot see all there is.
        """
        del logging_obj
        if inputs.get("images"):
            raise Blocked("Images are not taken here.")
        act = {"request": self._asked, "response": self._answered}.get(input_type)
        if act is None:
            raise Blocked("Neither a request nor a response.")
        return await to_thread.run_sync(lambda: act(dict(inputs), request_data or {}))

    def _asked(self, inputs: dict[str, Any], _: Mapping[str, Any]) -> dict[str, Any]:
        texts = list(inputs.get("texts") or ())
        exchange = _exchange(inputs.get("structured_messages"), texts)
        beside = {name: inputs.get(name) for name in ("tools", "tool_calls")}
        extra = "\n".join(strings_in(list(beside.values())))
        if extra:
            exchange = _with(exchange, extra)
        entered = self.pipeline.enter(exchange)
        if isinstance(entered, Reply):
            raise Blocked(entered.text)
        if entered is exchange:
            return inputs
        told = [message["content"] for message in entered.messages]
        kept = [message["content"] for message in exchange.messages]
        if len(told) != len(kept) or kept != texts:
            raise Blocked("A guard's change has no place here.")
        return {**inputs, "texts": told}

    def _answered(self, inputs: dict[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
        exchange = _exchange(request.get("messages"), [""])
        for text in ["\n".join(strings_in(call)) for call in inputs.get("tool_calls") or ()]:
            if self.pipeline.leave(exchange, text) is not text:
                raise Blocked("A call of a tool is held back.")
        left = [self.pipeline.leave(exchange, text) for text in inputs.get("texts") or ()]
        texts = [one.text if isinstance(one, Reply) else one for one in left]
        return {**inputs, "texts": texts}


def guardrail_class(pipeline: Pipeline) -> type:
    """The class that LiteLLM makes a guardrail of.

    Raises:
        ExpungeError: ``E-REQ-001`` without LiteLLM, ``E-SERVE-003`` for a guard that has no place
            there.
    """
    for guard in pipeline.guards:
        if guard.card["place"] == "prompt" or "attach" in vars(guard.module):
            raise ExpungeError(
                "E-SERVE-003",
                f"The guard {guard.id} writes into the prompt or works in the model, and LiteLLM "
                "lets guards change texts only.",
                "guards that look at texts, change them or refuse.",
                "Serve this guard with expunge serve, in front of LiteLLM.",
            )
    base = module_of("litellm", "litellm.integrations.custom_guardrail").CustomGuardrail
    return type("ExpungeGuardrail", (Guarding, base), {"pipeline": pipeline})


def _exchange(messages: Any, texts: Sequence[str]) -> Exchange:
    told = messages if isinstance(messages, list) and messages else None
    if told is None:
        told = [{"role": "user", "content": text} for text in texts or [""]]
    return Exchange.talk([{"role": str(m.get("role")), "content": _text(m)} for m in told])


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content)
    return ""


def _with(exchange: Exchange, text: str) -> Exchange:
    return replace(exchange, raw=(*exchange.raw, text))
