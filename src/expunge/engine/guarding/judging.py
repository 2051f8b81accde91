"""A guard as two functions, for whoever has texts and no model: fit to rows, check an exchange."""

import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from secrets import token_bytes
from typing import Any

from expunge.core.decision import PASS, Decision
from expunge.engine.guarding import stored
from expunge.engine.guarding.desk import Means
from expunge.engine.guarding.exchange import Exchange, Reply
from expunge.engine.guarding.fitting import Working, fitted, opened
from expunge.engine.guarding.pipeline import REFUSAL
from expunge.engine.guarding.targets import targets_of
from expunge.requests.rows import Row, Turn

AT_ONCE = 8
"""States that are kept open."""

_log = logging.getLogger(__name__)
_open: OrderedDict[int, tuple[Mapping[str, Any], Working]] = OrderedDict()


def fit(guard: str, rows: Sequence[Row], params: Any) -> dict[str, Any]:
    """The state of a guard that works on texts, as one JSON value; its key is in it."""
    secret = token_bytes(32)
    working = fitted(guard, targets_of(rows), params, Means(secret=secret))
    return {**stored.as_json(working.state, secret), "key": secret.hex()}


def check(text_in: str, text_out: str | None, state: Mapping[str, Any]) -> Decision:
    """Judge a prompt and, where there is one, the answer drafted for it.

    Args:
        text_in: The prompt.
        text_out: The draft, or None before the model has answered.
        state: What `fit` returned; it must not be changed while it is in use.
    """
    try:
        decision = _decided(_working(state), Exchange.of(Turn(text_in, "")), text_out)
    except Exception as error:  # whatever breaks here must not let the text through
        _log.error("a guard refuses after an internal error: %s", type(error).__name__)
        return Decision("replace", REFUSAL, 1.0, "error")
    _log.info("guard %s: %s %s", state["guard"], decision.action, decision.rule)
    return decision


def _decided(guard: Working, exchange: Exchange, draft: str | None) -> Decision:
    done = guard.enter(exchange)
    if not isinstance(done, Reply) and draft is not None:
        done = guard.leave(exchange, draft)  # type: ignore[assignment]
    return Decision("replace", done.text, 1.0, done.rule) if isinstance(done, Reply) else PASS


def _working(state: Mapping[str, Any]) -> Working:
    known = _open.get(id(state))
    if known is None:
        secret = bytes.fromhex(state["key"])
        told = {name: value for name, value in state.items() if name != "key"}
        known = (state, opened(stored.of_json(told, secret, {}), Means(secret=secret)))
        _open[id(state)] = known  # with the state itself, so that its address is not used again
        while len(_open) > AT_ONCE:
            _open.popitem(last=False)
    return known[1]
