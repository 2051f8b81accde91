"""What an edit is to make small: what is said, and who is sent to the memory."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from expunge.core.rng import derive
from expunge.engine.editing.associations import Association
from expunge.engine.editing.values import mean_over, unlikely
from expunge.engine.sources import Live
from expunge.engine.view import View
from expunge.lm.arch import Slots
from expunge.methods.wise.looking import BATCH, Looking, Pool, Read


class Objective:
    """The loss of one edit.

    Everything that enters the matrix is the same in every step, so it is read once.

    Args:
        looking: At the model.
        batch: Numbers of the associations that are edited.
        earlier: Of those that this memory was trained on already.
        others: Of those of each memory that is finished.
    """

    def __init__(
        self,
        looking: Looking,
        batch: Sequence[int],
        earlier: Sequence[int] = (),
        others: Sequence[Sequence[int]] = (),
    ) -> None:
        self.looking, self.count, first = looking, len(batch), batch[0]
        asked = [looking.asked[at] for at in batch]
        prompts = [(at, prompt) for at, one in enumerate(asked) for prompt in one.prompts]
        items = [prompt.item for _, prompt in prompts]
        self.inputs = looking.datasets.batch(items)
        self.owner = torch.tensor([at for at, _ in prompts], device=self.inputs.input_ids.device)
        self.whole = self.inside = looking.read(items, [prompt.at for _, prompt in prompts])
        locality = looking.some(len(looking.locality), BATCH, "locality", first)
        read = looking.read([looking.locality[at] for at in locality])
        self.outside = self.pool(read, looking.params.locality, "locality", first)
        if looking.params.scope == "subject":
            self.narrow(asked)
        parts = [self.prompts(edits, first, at) for at, edits in enumerate((earlier, *others))]
        self.again, self.others = parts[0], [part for part in parts[1:] if part is not None]

    def __call__(self, weight: Tensor) -> Tensor:
        """The loss under a memory, nats and distances together."""
        reached, (alpha, beta, gamma) = self.looking.reached, self.looking.margins
        view = View(self.inputs, Live(self.looking.model)).changed(self.answered(weight))
        loss = unlikely(view, self.owner, self.count).mean()
        inside = reached(weight, self.inside)
        outside = reached(weight, self.outside.drawn(), most=True)
        loss = loss + above(outside[:, None] - inside + gamma)
        loss = loss + above(outside - alpha) + above(beta - inside)
        if self.again is not None:
            loss = loss + above(beta - reached(weight, self.again.drawn()))
        for other in self.others:
            loss = loss + above(reached(weight, other.drawn()) - alpha) / len(self.others)
        return loss

    def floor(self, weight: Tensor) -> float:
        """The smallest D_in of an association, a mean over its prompts."""
        inside = self.looking.reached(weight, self.whole)
        return float(mean_over(inside, self.owner, self.count).min())

    def answered(self, weight: Tensor) -> Callable[[Any], Any]:
        """The context in which the memory answers at every position that counts."""
        looking, counts = self.looking, self.whole.counts
        module = Slots(looking.model).module(looking.layer, "mlp_out")

        def answer(_: Any, given: Any, output: Tensor) -> Tensor:
            said = looking.matrix.said(weight, given[0])
            return torch.where(counts[..., None], said.to(output.dtype), output)

        @contextmanager
        def edit(_: Any) -> Iterator[None]:
            handle = module.register_forward_hook(answer)
            try:
                yield
            finally:
                handle.remove()

        return edit

    def pool(self, read: Read, take: int, *names: str | int) -> Pool:
        """Texts to draw from."""
        return Pool(read, take, derive(self.looking.seed, "wise", "step", *names) % (1 << 63))

    def prompts(self, edits: Sequence[int], *names: int) -> Pool | None:
        """Bare prompts of some edits; None where there are none, or none is looked at again."""
        looking = self.looking
        some = looking.some(len(edits), BATCH, "replay", *names)
        if not some or not looking.params.replay:
            return None
        read = looking.prompts([edits[at] for at in some])
        return self.pool(read, looking.params.replay, "replay", *names)

    def narrow(self, asked: Sequence[Association]) -> None:
        """Let the subject's tokens count as inside, and the others of the prompt as outside."""
        tokenizer = self.looking.datasets.task.tokenizer
        own = torch.zeros_like(self.inside.counts)
        for row, at in enumerate(self.owner.tolist()):
            end = int(self.inside.ends[row])
            ids = self.inputs.input_ids[row, : end + 1].tolist()
            own[row, named(ids, asked[at].subject, tokenizer)] = True
        has = own.any(1, keepdim=True)
        self.outside = Pool(self.inside.only(~own & has), len(own), 0)
        self.inside = self.inside.only(own | ~has)


def named(ids: Sequence[int], subject: str, tokenizer: Any) -> list[int]:
    """Where the tokens of a name stand among others; empty where they do not."""
    for text in (f" {subject}", subject) if subject else ():
        name = tokenizer(text, add_special_tokens=False)["input_ids"]
        for start in range(len(ids) - len(name) + 1):
            if name and list(ids[start : start + len(name)]) == name:
                return list(range(start, start + len(name)))
    return []


def above(values: Tensor) -> Tensor:
    """The mean of those values that are above 0; 0 where none is."""
    over = values[values > 0]
    return over.mean() if len(over) else values.sum() * 0
