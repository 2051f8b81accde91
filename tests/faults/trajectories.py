"""Short float64 trainings whose weights must not depend on how a step is cut.

Run by ``torchrun`` it trains the same as one of two processes, and writes what it saw.
"""

import json
import sys
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from expunge.core.errors import ExpungeError
from expunge.core.registry import methods
from expunge.data.jsonl import read_rows
from expunge.engine.datasets import Datasets
from expunge.engine.gradient import StepGradient
from expunge.engine.mean import Mean, mean_of
from expunge.engine.method import GradientMethod
from expunge.engine.run import forget
from expunge.engine.slots.combine import SHARED
from expunge.engine.sources import Frozen
from expunge.engine.step import Step
from expunge.engine.task import Task
from expunge.engine.world import World, gathered, joined
from expunge.lm.arch import Slots
from expunge.lm.load import load
from expunge.lm.subject import Subject

RUN = {"max_steps": 40, "lr": 1e-4}
STEPS = 4
LR = 1e-3


def weighted_forget(step: Step, _: Any) -> Mean:
    """Rows count by how likely they still are: the denominator depends on the model."""
    return mean_of(step.forget.logp_mean, weights=step.forget.logp_mean.detach().exp())


MODEL_DEPENDENT = SimpleNamespace(
    CARD={"id": "weighted", "needs": ["forget", "retain"], "exact": "two-pass"},
    forget=weighted_forget,
)

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "npo with nll": ("npo", {"retain_term": "nll"}),
    "npo by a combiner": ("npo", {"retain_term": "nll"}),
    "kl-min": ("kl-min", {}),
    "simnpo": ("simnpo", {}),
    "pdu": ("pdu", {"warmup_epochs": 0, "epsilon": 0.1}),
    "weights from the model": ("weighted", {}),
    "blur": ("blur", {"retain_weight": 5.0}),
    "npo-sam": ("npo-sam", {"rho": 0.1}),
    "npo-irm": ("npo-irm", {"irm_weight": 3.0, "auxiliary_batch": 9}),
    "ofmu": ("ofmu", {"hvp": "finite", "beta": 0.0, "inner_steps": 1, "inner_rate": 1e-4}),
}
LOOKS_AGAIN = ("npo-sam", "npo-irm", "ofmu")
SHARDED = [
    (case, size, parts)
    for case in CASES
    for size, parts in ((8, 1), (2, 4))
    if parts > 1 or case not in LOOKS_AGAIN
]
"""Rows of a part and parts of a step; what runs the model again is cut in parts only."""

SIZES = (7, 8)


def assembled(case: str, batch_size: int, accumulation: int) -> GradientMethod:
    """The method of a case, for a step of ``batch_size * accumulation`` rows of each role."""
    id, given = CASES[case]
    known = id != "weighted"
    overrides = {**given, "batch_size": batch_size, "accumulation": accumulation}
    params = methods.params(id if known else "grad-diff", overrides)
    module = methods.load(id) if known else cast(ModuleType, MODEL_DEPENDENT)
    method = GradientMethod.assemble(module, params)
    return replace(method, combine=SHARED["sum"]) if case == "npo by a combiner" else method


def prepared(folder: Path, method: GradientMethod, world: World | None = None) -> Task:
    """The tiny model in float64 and its rows."""
    loaded = load(folder / "original", dtype=torch.float64, device="cpu")
    subject = Subject(loaded.model, loaded.tokenizer)
    roles = {role: read_rows(folder / f"{role}.jsonl", role) for role in ("forget", "retain")}
    task = Task(
        model=subject.model, tokenizer=subject.tokenizer, encoder=subject.encoder, roles=roles,
        world=world,
    )  # fmt: skip
    if method.prepare is not None:
        method.prepare(task, method.params)
    return task


def trained(
    folder: Path,
    case: str,
    batch_size: int,
    accumulation: int,
    *,
    world: World | None = None,
    shard: Callable[[torch.nn.Module], None] = lambda model: None,
) -> tuple[dict[str, Tensor], list[Mapping[str, float]]]:
    """Weights after `STEPS` steps of AdamW, and the values of the terms on the way."""
    method = assembled(case, batch_size, accumulation)
    task = prepared(folder, method, world)
    model = task.model
    anchor = Frozen(deepcopy(model))
    shard(model)
    sampler = method.sample(task, method.params)
    gradient = StepGradient(
        method, task, Datasets(task), sampler, lambda _: anchor, steps=STEPS, world=world
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.1)
    values = []
    for step in range(STEPS):
        values.append(gradient(model, step, torch.Tensor.backward))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if method.on_epoch is not None and (step + 1) % sampler.steps_per_epoch == 0:
            method.on_epoch(task.state, method.params)
    return {name: p.detach() for name, p in model.named_parameters()}, values


def in_shards(folder: Path, out: Path, world: World) -> None:
    """The same trainings on a model that both processes hold shards of."""
    from safetensors.torch import save_file

    mesh = init_device_mesh("cpu", (world.size,))

    def shard(model: torch.nn.Module) -> None:
        for block in Slots(model).blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)

    sharded = replace(world, sharded=True)
    for case, batch_size, accumulation in SHARDED:
        weights, _ = trained(folder, case, batch_size, accumulation, world=sharded, shard=shard)
        whole = {name: cast(DTensor, w).full_tensor() for name, w in weights.items()}
        save_file(whole, out / f"{case} {batch_size}x{accumulation} shards.safetensors")


def refusal(folder: Path, world: World) -> str:
    """What is said to shares that do not fit shards."""
    try:
        trained(folder, "npo with nll", 1, 7, world=replace(world, sharded=True))
    except ExpungeError as error:
        return error.code
    return ""


def saved(folder: Path, out: Path, world: World) -> None:
    """A sharded model, gathered and saved as a run does it."""
    model = prepared(folder, assembled("simnpo", 8, 1)).model
    fully_shard(model, mesh=init_device_mesh("cpu", (world.size,)))
    weights = gathered(model, torch.float32)
    assert bool(weights) == world.first
    if world.first:
        model.save_pretrained(out / "gathered", state_dict=weights)


def drawn(folder: Path, world: World) -> list[dict[str, list[int]]]:
    """Which rows this process takes in each step."""
    method = assembled("npo with nll", 7, 1)
    task = prepared(folder, method)
    sampler = method.sample(task, method.params)
    shares = (sampler.draw(step).share(world.rank, world.size) for step in range(STEPS))
    return [{role: list(rows) for role, rows in share.rows.items()} for share in shares]


def work(folder: Path, out: Path) -> None:
    """One process's part: every case and size, cut in two ways; what it drew; what it was told."""
    from safetensors.torch import save_file

    with joined() as world:
        assert world.size == 2
        for case in CASES:
            for size in SIZES:
                for batch_size, accumulation in ((size, 1), (1, size)):
                    weights, values = trained(folder, case, batch_size, accumulation, world=world)
                    name = f"{case} {batch_size}x{accumulation} {world.rank}"
                    tensors = {k: v.contiguous().clone() for k, v in weights.items()}
                    save_file(tensors, out / f"{name}.safetensors")
                    (out / f"{name}.json").write_text(json.dumps(values))
        in_shards(folder, out, world)
        saved(folder, out, world)
        forget(
            folder / "original", folder / "forget.jsonl", folder / "retain.jsonl",
            params=RUN, stop_at="none", out=out / "run",
        )  # fmt: skip
        told = world.agreed({"from": world.rank, "nan": float("nan")})
        report = {"size": world.size, "drawn": drawn(folder, world), "told": told}
        report["refusal"] = refusal(folder, world)
        (out / f"{world.rank}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    work(Path(sys.argv[1]), Path(sys.argv[2]))
