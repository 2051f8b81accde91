"""Which process this is, of how many, and how they act as one.

The first process locks, writes, speaks and decides; all of them plan, train and measure.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from expunge.core.errors import ExpungeError
from expunge.core.processes import place

PATIENCE = timedelta(minutes=30)
"""How long a process waits for the others; covers the first one saving a large model."""


@dataclass(frozen=True, slots=True)
class World:
    """Which process this is, of how many.

    Every method is called by all processes, in the same order.

    Attributes:
        rank: Number of this process, from 0.
        size: How many there are.
        sharded: Whether each of them holds only shards of the weights (FSDP2). A forward pass then
            needs all of them, so all of them make the same ones.
    """

    rank: int = 0
    size: int = 1
    sharded: bool = False

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and decides."""
        return self.rank == 0

    def total(self, values: Tensor) -> Tensor:
        """The sum of ``values`` over all processes, in place.

        A sharded gradient (FSDP2) is the mean over the processes already.
        """
        if self.size > 1 and isinstance(values, DTensor):
            return values.mul_(self.size)
        if self.size > 1:
            with _reachable():
                dist.all_reduce(values)
        return values

    def agreed(self, value: Any) -> Any:
        """What the first process says; the others' value counts for nothing.

        Args:
            value: Plain JSON values; NaN and infinities pass.
        """
        if self.size == 1:
            return value
        said = torch.tensor(list(json.dumps(value).encode()), dtype=torch.uint8)
        length = torch.tensor([len(said)])
        with _reachable():
            dist.broadcast(length, src=0)
            heard = said if self.first else torch.empty(int(length), dtype=torch.uint8)
            dist.broadcast(heard, src=0)
        return json.loads(bytes(heard.tolist()))

    def wait(self) -> None:
        """Wait until every process is here."""
        self.total(torch.zeros(1))


@contextmanager
def joined() -> Iterator[World]:
    """Join the other processes of a ``torchrun`` or ``accelerate launch``; alone without one.

    Ends the group it has formed; a group that was there before stays.

    Raises:
        ExpungeError: ``E-RUN-006`` when another process cannot be reached (any more).
    """
    here = place()
    if dist.is_initialized():
        yield World(dist.get_rank(), dist.get_world_size(), sharding() == "fsdp")
    elif here.size == 1:
        yield World()
    else:
        backend = "gloo"
        if torch.cuda.is_available():
            torch.cuda.set_device(here.local % torch.cuda.device_count())
            backend = "cpu:gloo,cuda:nccl"
        with _reachable():
            dist.init_process_group(backend, timeout=PATIENCE)
        try:
            yield World(here.rank, here.size, sharding() == "fsdp")
        finally:
            dist.destroy_process_group()


def gathered(model: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """The whole weights of a model whose processes hold shards, on the first one's CPU.

    Args:
        model: Called by all processes.
        dtype: Precision of the floating-point weights returned.

    Returns:
        Name -> weight; empty on all processes but the first.
    """
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    found: dict[str, Any] = get_model_state_dict(model, options=options)
    return {n: t.to(dtype) if t.is_floating_point() else t for n, t in found.items()}


def sharding() -> str:
    """What the launcher asks to be sharded over the processes: ``fsdp``, ``deepspeed`` or ""."""
    for name in ("fsdp", "deepspeed"):
        if os.environ.get(f"ACCELERATE_USE_{name.upper()}", "").lower() in ("true", "1"):
            return name
    return ""


@contextmanager
def _reachable() -> Iterator[None]:
    """Says in words that another process is gone."""
    try:
        yield
    except RuntimeError as error:
        raise ExpungeError(
            "E-RUN-006",
            f"Another process of this run cannot be reached: {str(error).splitlines()[0][:200]}",
            "all processes working to the end.",
            "Read what the others said; then give the same command again, which resumes.",
        ) from error
