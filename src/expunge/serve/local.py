"""A model of this process, with the guards' hooks in it.

Requests are answered one after the other, so no state of one can reach another; what a hook decides
it decides for a row. Where nothing fires the model is asked exactly what it would be asked without
a gateway.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from secrets import randbits
from threading import Lock
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread

from expunge.core.errors import ExpungeError
from expunge.engine.guarding.exchange import Exchange
from expunge.engine.guarding.fitting import Working
from expunge.engine.guarding.pipeline import INSIDE, TEXT
from expunge.engine.runtime import twin
from expunge.lm.generate import generate
from expunge.lm.subject import Subject
from expunge.requests.rows import Turn
from expunge.serve.backends import Draft
from expunge.serve.bodies import Asked, check_text
from expunge.serve.faults import Fault, fault_of

NEW_TOKENS = 256
"""Longest answer where the client does not say, in tokens; less where the model has less room."""

T = TypeVar("T")


class Local:
    """See `expunge.serve.backends.Backend`.

    A conversation goes through the model's chat template; a model without one is given the texts,
    an empty line between them.

    Attributes:
        bare: The same weights past the guards, in modules of their own.

    Args:
        subject: The model, with the gate of its own that a change folder may have.
        name: What clients call it.
    """

    offers = TEXT | INSIDE

    def __init__(self, subject: Subject, name: str) -> None:
        self._subject, self._name = subject, name
        self.bare = Subject(twin(subject.model), subject.tokenizer, digest=subject.digest)
        self._turns, self._lock = CapacityLimiter(1), Lock()
        self._parts: list[Any] = []
        special = {*subject.tokenizer.all_special_tokens, *subject.tokenizer.get_added_vocab()}
        self._controls = tuple(sorted(token for token in special if not token.isalnum()))
        self.about: Mapping[str, Any] = {
            "kind": "local",
            "model": name,
            "digest": subject.digest,
        }

    def attach(self, guards: Sequence[Working]) -> None:
        """Put the hooks of guards into the model; they read what the guards know as it changes."""
        for guard in guards:
            made = getattr(guard.module, "attach", None)
            if made is not None:
                part = made(self._subject.model, self._subject.tokenizer, guard.desk)
                self._parts.append(part)

    def shaped(self, exchange: Exchange) -> Exchange:
        """One text, where the model has no template for a conversation."""
        return exchange if self._subject.encoder.has_template else replace(exchange, plain=True)

    def check(self, asked: Asked) -> None:
        """Refuse what this model has no way to answer."""
        body = asked.body
        form = (body.get("response_format") or {}).get("type", "text")
        lacking = {
            "tools": bool(body.get("tools")),
            "response_format": form != "text",
            "presence_penalty": bool(body.get("presence_penalty")),
            "frequency_penalty": bool(body.get("frequency_penalty")),
        }
        for name, is_asked in lacking.items():
            if is_asked:
                raise Fault(400, "not_supported", f"A local model has no {name}.", name)
        param = "messages" if asked.is_chat else "prompt"
        for text in asked.exchange.texts:
            check_text(text, param, self._controls)
        try:
            self._ids(asked.exchange)
        except ExpungeError as error:
            raise fault_of(error, param) from None

    async def complete(self, asked: Asked, exchange: Exchange) -> list[Draft]:
        """See `Backend`."""
        return await self._in_turn(lambda: self._written(asked, exchange))

    async def models(self) -> list[dict[str, Any]]:
        """The one there is."""
        return [{"id": self._name, "object": "model", "created": 0, "owned_by": "expunge"}]

    def count_prompt(self, asked: Asked) -> int:
        """See `Backend`."""
        return len(self._ids(asked.exchange))

    def count(self, text: str) -> int:
        """See `Backend`."""
        with self._lock:  # a tokenizer is for one thread at a time
            return len(self._subject.tokenizer(text, add_special_tokens=False)["input_ids"])

    def cut(self, text: str, most: int) -> str:
        """See `Backend`."""
        with self._lock:
            found = self._subject.tokenizer(
                text, add_special_tokens=False, return_offsets_mapping=True
            )["offset_mapping"]
        return text if len(found) <= most else text[: found[most - 1][1]]

    async def close(self) -> None:
        """Take the hooks out again."""
        for part in self._parts:
            part.remove()
        self._parts.clear()

    async def _in_turn(self, act: Callable[[], T]) -> T:
        return await to_thread.run_sync(act, limiter=self._turns)

    def _written(self, asked: Asked, exchange: Exchange) -> list[Draft]:
        subject, turn, body = self._subject, exchange.turn, asked.body
        let = subject.let_in([turn])[0]
        if isinstance(let, str):
            return [Draft(text=let)] * asked.choices
        ids = self._tokens(let)
        most = min(asked.most or NEW_TOKENS, subject.encoder.max_length - len(ids))
        seed, temperature, top_p = (body.get(name) for name in ("seed", "temperature", "top_p"))
        rows = generate(
            subject.model,
            subject.tokenizer,
            [ids],
            new_tokens=most,
            samples=asked.choices,
            temperature=1.0 if temperature is None else float(temperature),
            top_p=1.0 if top_p is None else float(top_p),
            seed=randbits(31) if seed is None else seed,
        )[0]
        return [self._draft(turn, row, len(row) >= most) for row in rows]

    def _draft(self, turn: Turn, row: list[int], is_cut: bool) -> Draft:
        with self._lock:
            text = self._subject.encoder.decode(row)
        gate = self._subject.gate
        text = gate.after(turn, text) if gate else text
        return Draft(text=text, finish="length" if is_cut else "stop")

    def _ids(self, exchange: Exchange) -> list[int]:
        return self._tokens(exchange.turn)

    def _tokens(self, turn: Turn) -> list[int]:
        with self._lock:
            return self._subject.encoder.prompt(turn.prompt, turn.running)
