"""Guards on logits inside vLLM: its two interfaces of logits processors, and nothing else.

vLLM loads a class by its name, from a module of the operator's::

    from expunge.serve.adapters.vllm import classic, runner
    Guarded = classic(make)      # vllm.v1.sample.logits_processor, the older model runner
    Guarded = runner(make)       # vllm.v1.worker.gpu.sample.logits_processor, the newer one

``make(vllm_config, device)`` gives the object that combines logits (`Combining`): all that a guard
decides is there. Here stands only which tokens belong to which row, while requests come, go and
change places. An error of it, or a request whose tokens cannot be read, closes: the row may say
nothing but the end. The interfaces are young and change; versions of vLLM are to be pinned.

Log-probabilities are refused: vLLM takes them before a processor has had its say.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from expunge.serve.adapters import module_of

CLASSIC = "vllm.v1.sample.logits_processor"
RUNNER = "vllm.v1.worker.gpu.sample.logits_processor.interface"

REFUSED = ("logit_bias", "logprobs", "prompt_logprobs", "allowed_token_ids", "extra_args",
           "structured_outputs", "guided_decoding")  # fmt: skip
"""Parameters of a request that undo a guard, or tell what it holds back."""

_log = logging.getLogger(__name__)


class Combining(Protocol):
    """Decides, row by row, what a model may say next.

    Attributes:
        end: The token that ends an answer.
    """

    end: int

    def combine(self, texts: Sequence[Sequence[int]], logits: Any) -> Any:
        """Logits as the guard has them.

        Args:
            texts: For each row the tokens that stand before, prompt and answer.
            logits: [rows, vocabulary].

        Returns:
            [rows, vocabulary]; the very same object where nothing fires.
        """


Make = Callable[[Any, Any], Combining]


def refuse_params(params: Any) -> None:
    """Refuse a request that would undo a guard.

    Raises:
        ValueError: As vLLM has it.
    """
    for name in REFUSED:
        value = getattr(params, name, None)
        if value is not None and value is not False and value not in ({}, []):  # 0 asks as well
            raise ValueError(f"{name} is refused in front of a guard")


class Classic:
    """The older interface: requests keep a place in the batch until they are moved.

    Args:
        combining: What decides.
    """

    def __init__(self, combining: Combining) -> None:
        self._combining = combining
        self._rows: dict[int, tuple[Sequence[int] | None, Sequence[int]]] = {}

    def is_argmax_invariant(self) -> bool:
        """No: a guard changes what is most probable."""
        return False

    def update_state(self, batch_update: Any) -> None:
        """Follow the requests: those that left, that came, that changed places."""
        if batch_update is None:
            return
        for row in batch_update.removed:
            self._rows.pop(row, None)
        for row, _, prompt, written in batch_update.added:
            self._rows[row] = (prompt, written)  # vLLM goes on writing into the second list
        for here, there, way in batch_update.moved:
            mine, other = self._rows.pop(here, None), self._rows.pop(there, None)
            if mine is not None:
                self._rows[there] = mine
            if other is not None and getattr(way, "name", way) == "SWAP":
                self._rows[here] = other

    def apply(self, logits: Any) -> Any:
        """Let the guard have its say about every row."""
        texts: list[Sequence[int] | None] = []
        for row in range(len(logits)):
            prompt, written = self._rows.get(row, (None, ()))
            texts.append(None if prompt is None else [*prompt, *written])
        return combined(self._combining, texts, logits)


class Runner:
    """The newer interface: requests keep a slot, rows of logits are new in every step.

    Args:
        combining: What decides.
        states: What vLLM knows of the requests.
    """

    def __init__(self, combining: Combining, states: Any) -> None:
        self._combining, self._states = combining, states

    def is_argmax_invariant(self) -> bool:
        """No: a guard changes what is most probable."""
        return False

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """Take part in every request; nothing is kept of a slot's last one."""
        del req_idx, sampling_params
        return True

    def apply_staged_writes(self) -> None:
        """Nothing: all is read where vLLM keeps it."""

    def apply(self, logits: Any, ctx: Any) -> Any:
        """Let the guard have its say about every row."""
        try:
            texts: list[Sequence[int] | None] = list(self._texts(ctx))
        except Exception as error:  # whatever breaks here must not let a row through
            _log.error("rows cannot be read: %s", type(error).__name__)
            texts = [None] * len(logits)
        return combined(self._combining, texts, logits)

    def _texts(self, ctx: Any) -> list[list[int]]:
        """What stands before each row: what is settled, then this step's drafts up to the row."""
        known = getattr(self._states.all_token_ids, "gpu", self._states.all_token_ids)
        slots, offsets, places, fed = (
            one.tolist()
            for one in (ctx.expanded_idx_mapping, ctx.expanded_local_pos, ctx.pos, ctx.input_ids)
        )
        drafts: dict[tuple[int, int], int] = {
            (slot, offset): token for slot, offset, token in zip(slots, offsets, fed, strict=True)
        }
        return [
            known[slot, : place - offset].tolist() + [drafts[slot, at] for at in range(offset + 1)]
            for slot, offset, place in zip(slots, offsets, places, strict=True)
        ]


def combined(combining: Combining, texts: Sequence[Sequence[int] | None], logits: Any) -> Any:
    """The guard's logits in the place of the model's.

    Args:
        combining: What decides.
        texts: Tokens before each row; None where they cannot be read.
        logits: [rows, vocabulary]; changed in place, where anything fires.
    """
    rows = [row for row, text in enumerate(texts) if text is not None]
    closed = [row for row, text in enumerate(texts) if text is None]
    if rows:
        try:
            own = logits if not closed else logits[rows]
            made = combining.combine([text for text in texts if text is not None], own)
            if made is not own and not closed:
                logits.copy_(made)
            elif made is not own:
                logits[rows] = made
        except Exception as error:  # whatever breaks here must not let a row through
            _log.error("a guard closes after an internal error: %s", type(error).__name__)
            closed = list(range(len(texts)))
    if closed:
        logits[closed] = float("-inf")
        logits[closed, combining.end] = 0.0
    return logits


def classic(make: Make) -> type:
    """A class for vLLM's older interface."""

    def begin(self: Any, vllm_config: Any, device: Any, is_pin_memory: bool) -> None:
        del is_pin_memory
        Classic.__init__(self, make(vllm_config, device))

    return _class(CLASSIC, Classic, {"__init__": begin})


def runner(make: Make) -> type:
    """A class for vLLM's newer interface."""

    def begin(self: Any, vllm_config: Any, req_states: Any) -> None:
        Runner.__init__(self, make(vllm_config, req_states.device), req_states)

    return _class(RUNNER, Runner, {"__init__": begin})


def _class(module: str, own: type, more: Mapping[str, Any]) -> type:
    base = module_of("vllm", module).LogitsProcessor

    def validate_params(cls: type, sampling_params: Any) -> None:
        refuse_params(sampling_params)

    return type(
        "ExpungeLogits", (own, base), {**more, "validate_params": classmethod(validate_params)}
    )
