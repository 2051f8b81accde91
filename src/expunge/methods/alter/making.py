"""Everything that is settled before the first step: split, low tokens, router, experts."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from expunge.core.events import note
from expunge.core.rng import generator
from expunge.data.encode import Encoded
from expunge.engine.datasets import Datasets
from expunge.engine.forward import Inputs
from expunge.engine.linears import linears_in
from expunge.engine.remembered import rows_of
from expunge.engine.runtime import twin
from expunge.engine.task import Task
from expunge.lm.arch import Slots
from expunge.lm.hooks import evaluating
from expunge.lm.low_rank import sizes_of
from expunge.methods.alter.board import Board, Rules
from expunge.methods.alter.entropy import tsallis
from expunge.methods.alter.experts import Experts, Router
from expunge.methods.alter.split import Discriminant, by_likeness, by_subject
from expunge.methods.alter.told import LOW, ROWS, SIZES, key_of, marks

if TYPE_CHECKING:
    from expunge.methods.alter import Params

BATCH = 16
"""Rows of a forward pass."""

HIGH_SHARE = 0.25
"""Share of tokens above the threshold where the one asked for leaves no low one (INFERRED)."""

SMALL = 0.01
"""Length of an expert's columns where they begin at a centre (INFERRED)."""


def made(task: Task, params: "Params") -> Board:
    """Look at the rows with the model as it is, and make the experts for it.

    Raises:
        ExpungeError: ``E-DATA-003`` when the split goes by subject and a row has none,
            ``E-MODEL-008`` when no linear is to get experts.
    """
    looking = _Looking(task, params)
    with evaluating(looking.model):
        domains = looking.settle()
        router = looking.router(domains)
        linears = looking.experts(domains)
    count = max(domains) + 1
    task.record["domains"] = [domains.count(domain) for domain in range(count)]
    return Board(task.model, linears, router, looking.rules, learns=True)


class _Looking:
    """The model at its start, without any part that is attached, and the rows it is asked about."""

    def __init__(self, task: Task, params: "Params") -> None:
        self.task, self.params = task, params
        self.model: PreTrainedModel = twin(task.model, bare=True)
        self.slots = Slots(self.model)
        self.datasets = Datasets(task, device=str(task.model.device))
        self.rules = Rules(params.q, params.threshold, len(self.slots) // 2)

    def settle(self) -> list[int]:
        """The sub-domain of every forget row; what is told of the rows goes into the state."""
        entropy: dict[int, Tensor] = {}
        points: dict[int, Tensor] = {}
        keys: dict[int, str] = {}
        for inputs, outputs in self._asked([item for row in self._wordings for item in row]):
            of_tokens = tsallis(outputs.logits[inputs.keep], self.rules.q)
            of_rows = torch.split(of_tokens, inputs.keep.sum(1).tolist())
            hidden = outputs.hidden_states[self.rules.block + 1]
            for place, item in enumerate(inputs.items.tolist()):
                entropy[item] = of_rows[place].cpu()
                points[item] = hidden[place, inputs.keep[place]].double().mean(0)
            ids = (ids for ids, _ in rows_of(inputs))
            keys |= {
                item: key_of(row) for item, row in zip(inputs.items.tolist(), ids, strict=True)
            }
        self._set_threshold(torch.cat(list(entropy.values())))
        domains = self._split(points)
        threshold = self.rules.threshold
        low = {item: marks((of <= threshold).tolist()) for item, of in entropy.items()}
        self._tell(domains, low, keys)
        return domains

    def router(self, domains: Sequence[int]) -> Router:
        """The router that is asked for."""
        params, count = self.params, max(domains) + 1
        how: Any = {"temperatures": (params.tau_high, params.tau_low), "top": params.top}
        if params.router == "scalar":
            return Router(self._new(count), **how)
        width = self.model.config.get_text_config().hidden_size
        between = Discriminant(count, width, self.model.device)
        of_item = [at for at, row in zip(domains, self._wordings, strict=True) for _ in row]
        items = [item for row in self._wordings for item in row]
        for inputs, outputs in self._asked(items):
            real = inputs.attention_mask.bool()
            labels = torch.tensor([of_item[item] for item in inputs.items.tolist()])
            spread = labels.to(real.device)[:, None].expand_as(real)
            between.add(outputs.hidden_states[self.rules.block + 1][real], spread[real])
        weight, offset = (found.to(self._dtype) for found in between.found())
        return Router(weight, offset, **how)

    def experts(self, domains: Sequence[int]) -> dict[str, Experts]:
        """Name of a linear -> its experts."""
        params = self.params
        scale = params.lora_alpha / params.lora_r
        columns = (2 + max(domains)) * params.lora_r
        linears = {}
        for name in linears_in(self.slots, self.params.layers, self.params.lora_targets):
            inputs, outputs = sizes_of(self.model.get_submodule(name))
            start, b = self._first_a(name, inputs), self._new(outputs, columns)
            linears[name] = Experts(start, b, slow=params.slow, scale=scale)
        if params.init == "centroid":
            for at, items in enumerate(self._groups(domains)):
                for name, centre in self._centres(items, list(linears)).items():
                    own = linears[name].b[:, at * params.lora_r : (at + 1) * params.lora_r]
                    unit = centre / centre.norm().clamp(min=torch.finfo(centre.dtype).tiny)
                    own.copy_(SMALL * params.lora_r**-0.5 * unit[:, None].expand_as(own))
        return linears

    @property
    def _wordings(self) -> list[list[Encoded]]:
        return self.datasets.items("forget")

    @property
    def _dtype(self) -> torch.dtype:
        return torch.promote_types(self.model.dtype, torch.float32)

    def _new(self, *shape: int) -> Tensor:
        return torch.zeros(*shape, dtype=self._dtype, device=self.model.device)

    def _asked(self, items: Sequence[Encoded]) -> Iterator[tuple[Inputs, Any]]:
        """What the model says of some items, batch by batch; `Inputs.items` number all wordings."""
        ordered = sorted(items, key=lambda item: len(item.ids))
        for start in range(0, len(ordered), BATCH):
            inputs = self.datasets.batch(ordered[start : start + BATCH])
            yield (
                inputs,
                self.model(
                    input_ids=inputs.input_ids,
                    attention_mask=inputs.attention_mask,
                    use_cache=False,
                    output_hidden_states=True,
                ),
            )

    def _split(self, points: dict[int, Tensor]) -> list[int]:
        if self.params.split == "subject":
            return by_subject(self.task.forget)
        firsts = [row[0].row for row in self._wordings]
        stacked = torch.stack([points[item] for item in firsts])
        return by_likeness(stacked, self.params.domains, self.task.seed)

    def _set_threshold(self, entropy: Tensor) -> None:
        """Take the threshold asked for, or one that leaves low tokens where it would leave none."""
        if not bool((entropy <= self.rules.threshold).any()):
            moved = float(entropy.quantile(1 - HIGH_SHARE))
            note(
                f"alter: the model is sure of no token of the forget rows. Instead of "
                f"{self.rules.threshold:g} the threshold is {moved:.3g}: above it are "
                f"{HIGH_SHARE:.0%} of them.",
                threshold=moved,
            )
            self.rules = replace(self.rules, threshold=moved)
        share = float((entropy > self.rules.threshold).double().mean())
        note(f"alter: {share:.0%} of the forget rows' tokens are of high entropy.", share=share)
        told = {"high_share": round(share, 4), "threshold": self.rules.threshold}
        self.task.record.update(told)

    def _tell(
        self, domains: Sequence[int], low: Mapping[int, str], keys: Mapping[int, str]
    ) -> None:
        """Put into the state which row is of which sub-domain, and which of its tokens are low."""
        table: dict[str, list[Any]] = {}
        for at, row in zip(domains, self._wordings, strict=True):
            table |= {keys[item.row]: [at, low[item.row]] for item in row}
        sizes = [0] * (max(domains) + 1)
        for at, marked in table.values():
            sizes[at] += marked.count(LOW)
        self.task.state.update({ROWS: table, SIZES: sizes})

    def _first_a(self, name: str, inputs: int) -> Tensor:
        """[r, inputs], uniform and as small as a linear layer's own start."""
        most, shape = inputs**-0.5, (self.params.lora_r, inputs)
        drawn = generator(self.task.seed, "alter", name).uniform(-most, most, shape)
        return torch.from_numpy(drawn).to(self.model.device, self._dtype)

    def _groups(self, domains: Sequence[int]) -> Iterator[list[Encoded]]:
        """Items of the retain rows, then of each sub-domain."""
        yield [row[0] for row in self.datasets.items("retain")] if self.task.retain else []
        for domain in range(max(domains) + 1):
            rows = zip(domains, self._wordings, strict=True)
            yield [row[0] for at, row in rows if at == domain]

    def _centres(self, items: Sequence[Encoded], names: Sequence[str]) -> dict[str, Tensor]:
        """Name of a linear -> the mean of what it gives on these rows, [outputs]."""
        sums: dict[str, Tensor] = {}
        count = 0
        for start in range(0, len(items), BATCH):
            inputs = self.datasets.batch(items[start : start + BATCH])
            real = inputs.attention_mask.bool()
            count += int(real.sum())
            with _collecting(self.model, names, real, sums):
                self.model(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask)
        return {name: (total / count).to(self._dtype) for name, total in sums.items()}


@contextmanager
def _collecting(
    model: nn.Module, names: Sequence[str], real: Tensor, sums: dict[str, Tensor]
) -> Iterator[None]:
    """Add up what some linears give at real positions."""
    with ExitStack() as stack:
        for name in names:

            def add(_: nn.Module, __: Any, output: Tensor, name: str = name) -> None:
                total = output[real].double().sum(0)
                sums[name] = sums[name] + total if name in sums else total

            handle = model.get_submodule(name).register_forward_hook(add)
            stack.callback(handle.remove)
        yield
