"""One request from its guards to the model and back: refusals look like any other answer."""

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from time import monotonic
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread

from expunge.core.errors import ExpungeError
from expunge.engine.guarding.exchange import Exchange, Reply
from expunge.engine.guarding.pipeline import Pipeline
from expunge.serve.answers import Answer
from expunge.serve.backends import Backend, Draft
from expunge.serve.bodies import Asked, strings_in
from expunge.serve.faults import Fault

THREADS = 200
"""Guards at work at the same time; those that ask language models wait most of it."""

EDGE = 12
"""Words of a running text that are read together with what the model goes on with."""

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Dialogue:
    """Guards around a model.

    Args:
        pipeline: The guards.
        backend: The model.
        unavailable: Whether a guard that breaks is answered by 503 instead of a refusal.
        logprobs: Whether log-probabilities of untouched answers are passed on. That tells whether
            a guard touched an answer.
        uniform: Answers leave at multiples of so many seconds after the request came; 0 at once.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        backend: Backend,
        *,
        unavailable: bool = False,
        logprobs: bool = False,
        uniform: float = 0.0,
    ) -> None:
        self.pipeline, self.backend = pipeline, backend
        self._unavailable, self._logprobs, self._uniform = unavailable, logprobs, uniform
        self._threads = CapacityLimiter(THREADS)

    async def talk(self, asked: Asked) -> Answer:
        """Answer a request.

        Raises:
            Fault: When there is no answer.
        """
        begun = monotonic()
        shaped = replace(asked, exchange=self.backend.shaped(asked.exchange))
        try:
            return await self._answered(shaped)
        finally:
            if self._uniform:
                spent = monotonic() - begun
                await asyncio.sleep(math.ceil(spent / self._uniform) * self._uniform - spent)

    async def _answered(self, asked: Asked) -> Answer:
        entered = await self._aside(lambda: self._entered(asked))
        drafts: list[Draft] | Reply
        drafts = entered if isinstance(entered, Reply) else await self._drafted(asked, entered)
        return await self._aside(lambda: self._answer(asked, drafts, entered is asked.exchange))

    def _entered(self, asked: Asked) -> Exchange | Reply:
        self.backend.check(asked)
        entered: Any = self.pipeline.enter(asked.exchange)
        return entered if isinstance(entered, Exchange | Reply) else self._nonsense()

    def _nonsense(self) -> Reply:
        """What closes where a guard returned what no guard may return."""
        self.pipeline.errors["?"] += 1
        _log.error("a guard closes after it returned what is no answer")
        return Reply(self.pipeline.reply, "error")

    async def _drafted(self, asked: Asked, entered: Exchange) -> list[Draft] | Reply:
        try:
            return await self.backend.complete(asked, entered)
        except ExpungeError as error:
            # What the model has no way to answer with the guards' words in it stays unanswered;
            # an error would tell that there are some.
            _log.error("the model closes after an error: %s", error.code)
            return Reply(self.pipeline.reply, "error")

    def _answer(self, asked: Asked, drafts: list[Draft] | Reply, is_clean: bool) -> Answer:
        if isinstance(drafts, Reply):
            left = [self._refused(asked, drafts)] * asked.choices
        else:
            left = [self._left(asked, draft, is_clean) for draft in drafts]
        choices = tuple(_stopped(draft, asked.stops) for draft in left)
        return Answer(
            asked=asked,
            choices=choices,
            prompt_tokens=self.backend.count_prompt(asked),
            answer_tokens=sum(self.backend.count(draft.text) for draft in choices),
        )

    def _left(self, asked: Asked, draft: Draft, is_clean: bool) -> Draft:
        """What the client may see of one choice."""
        for text in _texts_of(draft):
            left: Any = self.pipeline.leave(asked.exchange, text)
            if not isinstance(left, str):
                told = left if isinstance(left, Reply) else self._nonsense()
                return self._refused(asked, told)
            if left is not text and left != text:
                if text is not draft.text:  # a call of a tool cannot be half edited
                    return self._refused(asked, Reply(self.pipeline.reply, "call"))
                return replace(draft, text=left, calls=(), logprobs=None)
        crossed = self._crossed(asked, draft.text)
        if crossed is not None:
            return self._refused(asked, crossed)
        return draft if self._logprobs and is_clean else replace(draft, logprobs=None)

    def _crossed(self, asked: Asked, text: str) -> Reply | None:
        """A reply where something protected begins in a running text and ends in what follows."""
        if asked.is_chat:
            return None
        question = asked.exchange.question
        edge = " ".join(question.split()[-EDGE:])
        whole = f"{edge}{' ' if question[-1:].isspace() else ''}{text}"
        for guard in self.pipeline.guards:
            try:
                hits = [guard.desk.hits(asked.exchange, part) for part in (whole, edge, text)]
            except Exception as error:  # whatever breaks here must not let the text through
                self.pipeline.errors[guard.id] += 1
                _log.error("guard %s closes after an error: %s", guard.id, type(error).__name__)
                return Reply(self.pipeline.reply, "error")
            known = {hit.target for one in hits[1:] for hit in one}
            if any(hit.target not in known for hit in hits[0]):
                return Reply(self.pipeline.reply, "edge")
        return None

    def _refused(self, asked: Asked, reply: Reply) -> Draft:
        """A reply as the model would have said it: no longer than asked for."""
        if reply.rule == "error" and self._unavailable:
            raise Fault(503, "guard_unavailable", "The answer could not be checked.")
        text = reply.text
        if asked.most is not None:
            text = self.backend.cut(text, asked.most)
        return Draft(text=text, finish="stop" if text == reply.text else "length")

    async def _aside(self, act: Callable[[], T]) -> T:
        """Do something that takes time without holding up the others."""
        return await to_thread.run_sync(act, limiter=self._threads)


def _texts_of(draft: Draft) -> Sequence[str]:
    """What of a choice the guards must see: its text, and what calls of tools carry."""
    carried = []
    for call in draft.calls:
        told = call["function"]
        carried.append("\n".join([told["name"], told["arguments"], *_decoded(told["arguments"])]))
    return (draft.text, *carried)


def _decoded(arguments: str) -> list[str]:
    """The texts in a call's JSON, whatever way they are written there."""
    from json import loads

    try:
        value: Any = loads(arguments)
    except (ValueError, RecursionError):
        return []
    return list(strings_in(value))


def _stopped(draft: Draft, stops: Sequence[str]) -> Draft:
    """An answer up to the first text that was to end it."""
    ends = [at for at in map(draft.text.find, stops) if at >= 0]
    return replace(draft, text=draft.text[: min(ends)], finish="stop") if ends else draft
