"""Hidden states of whole prompts: read at their last position, or changed while the model writes.

A batch holds some of the prompts, padded on the left and in any order. An edit that differs from
prompt to prompt must know which one stands in each row; the token ids that enter the model say so.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from expunge.core.errors import ExpungeError
from expunge.data.encode import IGNORED, Encoded, by_length, collate
from expunge.lm.arch import Slots, base_of
from expunge.lm.dialogue import asking
from expunge.lm.elicit import Heard, Probe
from expunge.lm.generate import ROW
from expunge.lm.hooks import evaluating, forward_through, intervene
from expunge.lm.prefixes import filled
from expunge.lm.scoring import padding_id
from expunge.lm.subject import Subject

Ids = list[int]

RowsEdit = Callable[[int, Tensor, list[int], bool], Tensor]
"""Layer, its output [B, T, d], number of the prompt of each row, and whether this pass is the one
over the prompts themselves (else T is 1: one written token) -> the output to go on with."""


def askable(subject: Subject, probes: Sequence[Probe], new_tokens: int) -> list[Probe]:
    """The probes a model can be asked: it has the positions, and a template where one is needed."""

    def fits(probe: Probe) -> bool:
        try:
            return subject.has_room(probe.turn, new_tokens, opening=probe.opening)
        except ExpungeError:
            return False

    return list(filter(fits, probes))


def prompt_ids(subject: Subject, probe: Probe) -> Ids:
    """What `Subject.ask` gives the model to read for a probe."""
    return subject.encoder.prompt(probe.turn.prompt, probe.turn.running, probe.opening)


def question_span(subject: Subject, probe: Probe) -> range:
    """Positions of the prompt that hold the question: no template, no opening special token.

    They are found as what differs from the same prompt with nothing asked.
    """
    ids = prompt_ids(subject, probe)
    nothing = asking(probe.turn, "")
    try:
        frame = subject.encoder.prompt(nothing.prompt, nothing.running, probe.opening)
    except ExpungeError:  # no special token opens an empty text
        frame = []
    before = _common(ids, frame)
    after = _common(ids[before:][::-1], frame[before:][::-1])
    return range(before, len(ids) - after) or range(len(ids))


def last_states(
    subject: Subject, prompts: Sequence[Ids], layers: Sequence[int]
) -> dict[int, Tensor]:
    """States at the last position of each prompt.

    Args:
        subject: The model.
        prompts: Token ids.
        layers: Blocks, negative from the top.

    Returns:
        layer (as given) -> [N, d], the block's output before the final norm.
    """
    device = next(subject.model.parameters()).device
    parts: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    batches = by_length([len(ids) for ids in prompts], subject.batch_size)
    with evaluating(subject.model):
        for batch in batches:
            items = [Encoded(prompts[i], [IGNORED] * len(prompts[i]), [], -1) for i in batch]
            # Padding on the right is seen by no real position, so there is no need for a mask.
            ids = collate(items, padding_id(subject.tokenizer)).input_ids.to(device)
            states = forward_through(subject.model, layers, input_ids=ids, use_cache=False)
            for layer, state in states.items():
                last = torch.tensor([len(prompts[i]) - 1 for i in batch], device=state.device)
                parts[layer].append(state[torch.arange(len(batch), device=state.device), last])
    back = torch.tensor([i for batch in batches for i in batch], dtype=torch.long).argsort()
    return {
        layer: torch.cat(found)[back.to(found[0].device)] for layer, found in parts.items() if found
    }


@contextmanager
def edited(
    subject: Subject, prompts: Mapping[int, Ids], layers: Sequence[int], fn: RowsEdit
) -> Iterator[None]:
    """Change the outputs of some blocks row by row while the model continues these prompts.

    Greedy answers must be asked for one batch at a time (`ask_edited` does): rows that leave a
    running batch, or come back in another one, cannot be told apart any more.

    Args:
        subject: The model.
        prompts: Number -> token ids of everything it will be given to continue; equal ones count as
            the first of them.
        layers: Blocks, negative from the top.
        fn: See `RowsEdit`.
    """
    pad = padding_id(subject.tokenizer)
    rows: list[int] = []
    reading = False

    def enter(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal rows, reading
        found = _rows(inputs[0].tolist(), prompts, pad)
        reading = found is not None
        rows = rows if found is None else found

    def at(layer: int) -> Callable[[Tensor], Tensor]:
        return lambda hidden: fn(layer, hidden, rows, reading)

    with ExitStack() as stack:
        handle = Slots(subject.model).embed.register_forward_pre_hook(enter)
        stack.callback(handle.remove)
        for layer in layers:
            stack.enter_context(intervene(subject.model, layer, at(layer)))
        yield


def ask_edited(
    subject: Subject,
    probes: Sequence[Probe],
    layers: Sequence[int],
    fn: RowsEdit,
    *,
    new_tokens: int,
    samples: int = 1,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[Heard]:
    """Put probes to a model that is changed while it answers; see `edited`.

    Args:
        subject: The model.
        probes: The questions; `fn` gets their places in this list.
        layers: Blocks to change.
        fn: How.
        new_tokens: Length of an answer.
        samples: Answers to each; one is enough at temperature 0.
        temperature: 0 takes the most probable token.
        seed: Of the sampling.
    """
    prompts = [prompt_ids(subject, probe) for probe in probes]
    room = subject.batch_size * ROW
    batches = filled([len(ids) + new_tokens for ids in prompts], room)
    if temperature and probes:  # sampled rows stay in their batch to the end
        batches = [list(range(len(probes)))]
    answers: dict[int, list[str]] = {}
    for batch in batches:

        def edit(_: nn.Module, batch: list[int] = batch) -> AbstractContextManager[None]:
            return edited(subject, {i: prompts[i] for i in batch}, layers, fn)

        written = subject.ask(
            [probes[i].turn for i in batch],
            new_tokens=new_tokens,
            samples=samples,
            temperature=temperature,
            seed=seed,
            openings=[probes[i].opening for i in batch],
            edit=edit,
        )
        answers |= dict(zip(batch, written, strict=True))
    return [
        Heard(probe, tuple(answers[i]), tuple(map(probe.judge, answers[i])))
        for i, probe in enumerate(probes)
    ]


@contextmanager
def only_likeliest(subject: Subject, k: int) -> Iterator[None]:
    """Let the model write only what is among its k most probable tokens; 0 sets no limit."""

    def cut(_: nn.Module, __: Any, output: Any) -> Any:
        least = output.logits.topk(min(k, output.logits.shape[-1])).values[..., -1:]
        output.logits = output.logits.masked_fill(output.logits < least, -torch.inf)
        return output

    with ExitStack() as stack:
        if k:
            handle = base_of(subject.model).register_forward_hook(cut)
            stack.callback(handle.remove)
        yield


def _rows(ids: list[Ids], prompts: Mapping[int, Ids], pad: int) -> list[int] | None:
    """Which prompt stands in each row of a batch; None where it is one written token a row.

    Raises:
        RuntimeError: When a longer row is none of the prompts.
    """
    width = len(ids[0])
    places: dict[tuple[int, ...], int] = {}
    for i, prompt in prompts.items():
        if len(prompt) <= width:
            places.setdefault((*[pad] * (width - len(prompt)), *prompt), i)
    found = [places.get(tuple(row)) for row in ids]
    if all(place is not None for place in found):
        return [place for place in found if place is not None]
    if width > 1:
        raise RuntimeError("the model reads what is none of the prompts: ask one batch at a time")
    return None


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the common beginning."""
    pairs = zip(one, other, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
