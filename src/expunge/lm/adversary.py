"""What an attacker with the weights can do to a question: put vectors behind it, and optimise them.

The vectors stand behind the last word of what the user says, before whatever a chat template puts
between question and answer. While they are optimised, and while the model then answers, they enter
as embeddings; so answers are written here and not by `Subject.ask`, which reads text. A gate in
front of the model sees the question and the answer all the same.

Gradients are taken with respect to the attacker's own tensor alone: no weight ever gets one.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from expunge.data.encode import by_length
from expunge.lm.arch import Slots
from expunge.lm.elicit import Heard, Probe, transcript, worst
from expunge.lm.generate import stop_ids
from expunge.lm.hooks import Edit, evaluating
from expunge.lm.prefixes import new_cache
from expunge.lm.prompted import prompt_ids, question_span
from expunge.lm.scoring import at_least_float32, takes
from expunge.lm.subject import Editing, Subject
from expunge.requests.rows import Turn

SPREAD_TOKENS = 8192
"""Tokens of a large vocabulary that its spread is measured on."""


@dataclass(frozen=True, slots=True)
class Seam:
    """A question as token ids, open where something can be put in.

    Attributes:
        before: Up to the end of what the user says.
        after: From there to the beginning of the answer.
        target: The opening of the answer.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    target: tuple[int, ...] = ()

    def length(self, inserted: int = 0) -> int:
        """Positions of the prompt with so many vectors put in."""
        return len(self.before) + inserted + len(self.after)


def seam_of(subject: Subject, probe: Probe) -> Seam:
    """Find the end of the question in a prompt; the target is the probe's opening."""
    bare = replace(probe, opening="")
    prompt, opened = prompt_ids(subject, bare), prompt_ids(subject, probe)
    pairs = zip(prompt, opened, strict=False)
    shared = next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(prompt), len(opened)))
    end = min(question_span(subject, bare).stop, shared)
    return Seam(tuple(opened[:end]), tuple(opened[end:shared]), tuple(opened[shared:]))


@contextmanager
def differentiable(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, with gradients; the mode the model was in comes back."""
    with evaluating(model), torch.enable_grad():
        yield


def target_logits(model: nn.Module, seams: Sequence[Seam], inserted: Tensor) -> tuple[Tensor, ...]:
    """Logits from which each token of the targets is predicted, the vectors put in.

    Args:
        model: A causal language model, in evaluation mode.
        seams: B questions with a target.
        inserted: [B, k, d], or [k, d] for the same vectors in all of them; k may be 0.

    Returns:
        For each question [n, V], in at least float32, with the gradient graph of ``inserted``.
    """
    rows = embedded(model, [replace(seam, target=seam.target[:-1]) for seam in seams], inserted)
    inputs = nn.utils.rnn.pad_sequence(rows, batch_first=True)  # causal: padding is never seen
    keep = torch.zeros(inputs.shape[:2], dtype=torch.bool, device=inputs.device)
    for at, seam in enumerate(seams):
        start = seam.length(inserted.shape[-2]) - 1
        keep[at, start : start + len(seam.target)] = True
    if takes(model, "logits_to_keep"):
        logits = model(inputs_embeds=inputs, use_cache=False, logits_to_keep=keep).logits
    else:
        logits = model(inputs_embeds=inputs, use_cache=False).logits[keep]
    return torch.split(at_least_float32(logits), [len(seam.target) for seam in seams])


def target_nll(model: nn.Module, seams: Sequence[Seam], inserted: Tensor) -> list[Tensor]:
    """Negative log-likelihood of each target token, [n] nats a question; see `target_logits`."""
    return [
        functional.cross_entropy(
            logits, torch.tensor(seam.target, device=logits.device), reduction="none"
        )
        for seam, logits in zip(seams, target_logits(model, seams, inserted), strict=True)
    ]


def mean_nll(model: nn.Module, seams: Sequence[Seam], inserted: Tensor) -> Tensor:
    """Mean over questions of the mean over the tokens of the target."""
    return torch.stack([nll.mean() for nll in target_nll(model, seams, inserted)]).mean()


Loss = Callable[[Sequence[Seam], Tensor], Tensor]
"""Questions and the attacker's tensor -> the mean loss of the questions."""


def slope(
    model: nn.Module, loss: Loss, seams: Sequence[Seam], variable: Tensor, batch_size: int
) -> tuple[float, Tensor]:
    """A loss over all questions and its gradient, a batch at a time.

    Args:
        model: The model the loss is about.
        loss: What the attacker makes small.
        seams: The questions.
        variable: What he may change.
        batch_size: Questions of one pass.
    """
    total, gradient = 0.0, torch.zeros_like(variable)
    leaf = variable.detach().requires_grad_()
    with differentiable(model):
        for batch in by_length([seam.length() for seam in seams], batch_size):
            part = loss([seams[at] for at in batch], leaf) * (len(batch) / len(seams))
            gradient += torch.autograd.grad(part, leaf)[0]
            total += float(part.detach())
    return total, gradient


def hear(
    subject: Subject,
    probes: Sequence[Probe],
    inserted: Tensor,
    *,
    new_tokens: int,
    reading: Editing | None = None,
) -> list[Heard]:
    """Let a model answer greedily with the vectors put into every question.

    Args:
        subject: The model, with its gate.
        probes: The questions. One without positions for vectors and answer is left out.
        inserted: [k, d]; k may be 0.
        new_tokens: Length of an answer.
        reading: Changes the model while it reads the prompts, all of which end at the last
            position of a batch.
    """
    room = new_tokens + len(inserted)
    probes = [probe for probe in probes if subject.has_room(probe.turn, room)]
    gate = subject.gate
    replies: list[str | Turn] = subject.let_in([probe.turn for probe in probes], room)
    reached = {at: turn for at, turn in enumerate(replies) if isinstance(turn, Turn)}
    seams = [seam_of(subject, replace(probes[at], turn=turn)) for at, turn in reached.items()]
    written = write(subject, seams, inserted, new_tokens=new_tokens, reading=reading)
    for at, ids in zip(reached, written, strict=True):
        text = subject.encoder.decode(ids)
        replies[at] = gate.after(probes[at].turn, text) if gate else text
    return [
        Heard(probe, (reply,), (probe.judge(reply),))
        for probe, reply in zip(probes, map(str, replies), strict=True)
    ]


def write(
    subject: Subject,
    seams: Sequence[Seam],
    inserted: Tensor,
    *,
    new_tokens: int,
    reading: Editing | None = None,
) -> list[list[int]]:
    """The greedy continuation of each prompt, without the ending token; see `hear`."""
    written: list[list[int]] = [[] for _ in seams]
    model, width = subject.model, len(inserted)
    prompts = [replace(seam, target=()) for seam in seams]
    with evaluating(model):
        for batch in by_length([seam.length(width) for seam in seams], subject.batch_size):
            rows = embedded(model, [prompts[at] for at in batch], inserted)
            for at, ids in zip(batch, _continued(subject, rows, new_tokens, reading), strict=True):
                written[at] = ids
    return written


def found(plain: Sequence[Heard], attacked: Sequence[Heard]) -> dict[str, Any]:
    """Leaks, transcript and parts of a `Leak`: of each row the best of the question and the attack.

    An attacker may always ask plainly as well; so an optimisation that only does damage, as on a
    model that hides nothing, does not make that model look forgetful.
    """
    heard = [*attacked, *plain]
    place = {name: at for at, name in enumerate(worst(plain))}
    ordered = sorted(heard, key=lambda one: place.get(one.probe.row.id, len(place)))
    return {
        "per_row": worst(ordered),
        "transcript": transcript(ordered),
        "parts": {
            name: fmean(worst(own).values())
            for name, own in (("plain", plain), ("attacked", attacked))
            if own
        },
    }


def embedded(model: nn.Module, seams: Sequence[Seam], inserted: Tensor) -> list[Tensor]:
    """[T, d] each: what enters the model, the target included."""
    embed = Slots(model).embed
    table = next(embed.parameters())

    def of(ids: tuple[int, ...]) -> Tensor:
        vectors: Tensor = embed(torch.tensor(ids, dtype=torch.long, device=table.device))
        return vectors.detach()

    own = inserted if inserted.ndim == 3 else inserted.expand(len(seams), *inserted.shape)
    return [
        torch.cat([of(seam.before), each.to(table), of(seam.after + seam.target)])
        for seam, each in zip(seams, own, strict=True)
    ]


def no_vectors(model: nn.Module) -> Tensor:
    """[0, d]: nothing to be put in."""
    table = next(Slots(model).embed.parameters())
    return torch.zeros(0, table.shape[1], device=table.device)


def spread(model: nn.Module) -> float:
    """Standard deviation of a coordinate of what tokens enter the model as; some families scale."""
    embed = Slots(model).embed
    table = next(embed.parameters())
    tokens = torch.linspace(0, len(table) - 1, min(len(table), SPREAD_TOKENS)).long()
    with torch.no_grad():
        return float(embed(tokens.to(table.device)).float().std())


def aligned(delta: Tensor, ends: Sequence[int]) -> Edit:
    """Adds a delta to hidden states, its last row to the last position of each prompt.

    Args:
        delta: [P, d]. Positions further than P from the end of a prompt stay as they are.
        ends: For each row of the batch the position after the last one of its prompt.
    """

    def edit(hidden: Tensor) -> Tensor:
        place = torch.arange(hidden.shape[1], device=hidden.device) + len(delta)
        row = place - torch.tensor(ends, device=hidden.device)[:, None]
        inside = (row >= 0) & (row < len(delta))
        change = delta.to(hidden)[row.clamp(0, len(delta) - 1)]
        return hidden + change * inside[..., None]

    return edit


def _continued(
    subject: Subject, rows: Sequence[Tensor], new_tokens: int, reading: Editing | None
) -> list[list[int]]:
    """Greedy continuations of rows of embeddings [T, d], all in one batch."""
    model: Any = subject.model
    stops = torch.tensor(stop_ids(model, subject.tokenizer), device=rows[0].device)
    width = max(map(len, rows))
    inputs = torch.stack([functional.pad(row, (0, 0, width - len(row), 0)) for row in rows])
    lengths = torch.tensor([len(row) for row in rows], device=inputs.device)
    mask = (torch.arange(width, device=inputs.device) >= width - lengths[:, None]).long()
    place = (mask.cumsum(1) - 1).clamp(min=0)
    given: dict[str, Any] = {"past_key_values": new_cache(model), "use_cache": True}
    if takes(model, "logits_to_keep"):
        given["logits_to_keep"] = 1
    with reading(model) if reading else nullcontext():
        output = model(inputs_embeds=inputs, attention_mask=mask, position_ids=place, **given)
    written: list[list[int]] = [[] for _ in rows]
    going = torch.ones_like(lengths, dtype=torch.bool)
    for step in range(1, new_tokens + 1):
        token = output.logits[:, -1].argmax(-1)
        going &= ~torch.isin(token, stops)
        for at in going.nonzero()[:, 0].tolist():
            written[at].append(int(token[at]))
        if step == new_tokens or not bool(going.any()):
            break
        mask, place = torch.cat([mask, torch.ones_like(mask[:, :1])], 1), place[:, -1:] + 1
        output = model(input_ids=token[:, None], attention_mask=mask, position_ids=place, **given)
    return written
