"""Settings that cannot work together, refused by name before weights load.

Nothing here is a matter of taste: each refusal stands where a run would otherwise end with other
numbers than asked for, and not say so.
"""

import os
from collections.abc import Iterator, Sequence
from types import ModuleType

from torch import Tensor

from expunge.core.errors import ExpungeError
from expunge.core.families import GradientParams
from expunge.engine.method import combines
from expunge.engine.part_files import entries_of
from expunge.engine.slots.mask import Mask
from expunge.engine.world import sharding
from expunge.lm.folder import Folder

PACKABLE = frozenset(
    {
        "gemma2",
        "gemma3",
        "gemma3_text",
        "gpt2",
        "gpt_neox",
        "llama",
        "mistral",
        "phi3",
        "qwen2",
        "qwen3",
    }
)
"""Values of ``model_type`` whose packed rows were measured not to see each other."""

LIVE = frozenset({"anchor-logits", "anchor-hidden", "anchor-attention"})
"""Needs for which full weights of the start are put into the model, forward by forward."""


def refused(
    modules: Sequence[ModuleType],
    params: GradientParams,
    *,
    needs: frozenset[str],
    adapter: str | None,
    folder: Folder,
) -> list[ExpungeError]:
    """What of a request cannot work.

    Args:
        modules: The method's module, then those of its wrappers.
        params: The method's parameters, resolved.
        needs: What the method needs, its retain term included.
        adapter: The adapter asked for, if any.
        folder: The model.

    Returns:
        ``E-USE-006`` for each combination, all of them, and what the method's own
        ``unfit(params, folder)`` finds.
    """
    is_combining = combines(modules[0], params) or any(hasattr(m, "combine") for m in modules[1:])
    return [
        *getattr(modules[0], "unfit", lambda *_: ())(params, folder),
        *_about_adapters(modules, params, adapter),
        *(_about_resets(modules) if adapter else ()),
        *_about_packing(params, folder),
        *_about_finishing(modules),
        *_about_shards(params, combines=is_combining, is_live=bool(needs & LIVE) and not adapter),
    ]


def refuse_split_masks(mask: Mask) -> None:
    """Refuse masks that go through a tensor where processes hold only shards of it.

    Whether a mask does is known only once the model is loaded.

    Raises:
        ExpungeError: ``E-USE-006``.
    """
    split = [name for name, allowed in mask.items() if isinstance(allowed, Tensor)]
    if sharding() and split:
        raise _together(
            f"The method moves single entries of {len(split)} tensors (first {split[0]}), and "
            f"{sharding()} gives each process only a piece of them.",
            "Use data parallelism (torchrun without sharding), or a method that moves whole "
            "tensors.",
        )


def about_edits(adapter: str | None) -> Iterator[ExpungeError]:
    """What cannot work with a method that changes the weights by itself."""
    if adapter:
        yield _together(
            f"--adapter {adapter} with a method that edits the weights themselves.",
            "Leave --adapter out; the change can be taken back all the same (expunge revert).",
        )
    if sharding() or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        yield _together(
            "Several processes with a method that edits the weights in one.",
            "Start it without torchrun.",
        )


def about_rewards(params: GradientParams, folder: Folder) -> Iterator[ExpungeError]:
    """What cannot work with a method that draws answers and learns from their rewards."""
    if sharding() or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        yield _together(
            "Several processes with a method that draws answers: nobody has measured that their "
            "draws and rewards add up.",
            "Start it without torchrun.",
        )
    if params.precision == "bf16-masters":
        yield _together(
            "precision=bf16-masters with a method that draws answers: its policy gradient is the "
            "library's, which has no masters.",
            "Use --set precision=bf16.",
        )
    if params.packing:
        yield _together(
            "packing with a method that draws answers: what it trains on is drawn, and padded.",
            "Leave packing out.",
        )
    if folder.manifest is not None and entries_of(folder.manifest):
        yield _together(
            f"{folder.path}, a model with a run-time part, with a method that draws answers: the "
            "reference it loads would be without that part.",
            "Take the model below it, or name another --method.",
        )


def _about_adapters(
    modules: Sequence[ModuleType], params: GradientParams, adapter: str | None
) -> Iterator[ExpungeError]:
    for module in modules:
        if adapter and not module.CARD.get("adapters", True):
            yield _together(
                f"--adapter {adapter} with {module.CARD['id']}, which moves single weights: the "
                "product of an adapter reaches whole rows and columns.",
                "Leave --adapter out.",
            )
    if params.base_bits is not None and not adapter:
        yield _together(
            f"base_bits={params.base_bits} without an adapter: weights held in so few bits cannot "
            "move.",
            "Add --adapter lora, or leave base_bits out.",
        )
    if params.precision == "bf16-masters" and adapter:
        yield _together(
            "precision=bf16-masters with an adapter: its weights are float32 in any case, and the "
            "others do not move.",
            "Use --set precision=bf16.",
        )


def _about_resets(modules: Sequence[ModuleType]) -> Iterator[ExpungeError]:
    for module in modules:
        if module.CARD.get("trains") == "weights":
            yield _together(
                f"--adapter with {module.CARD['id']}, which resets weights of the model itself.",
                "Leave --adapter out; the change can be taken back all the same (expunge revert).",
            )


def _about_packing(params: GradientParams, folder: Folder) -> Iterator[ExpungeError]:
    if not params.packing:
        return
    if params.kl_scope == "legacy_all":
        yield _together(
            "packing with kl_scope=legacy_all, which averages over padding: packed rows have none.",
            "Use --set kl_scope=all_nonpad, or leave packing out.",
        )
    family = folder.config.get("model_type")
    if family not in PACKABLE:
        yield _together(
            f"packing with a model of type {family}: nobody has measured that its rows stay apart "
            "when they stand end to end.",
            f"Leave packing out; it is exact for {', '.join(sorted(PACKABLE))}.",
        )


def _about_shards(
    params: GradientParams, *, combines: bool, is_live: bool
) -> Iterator[ExpungeError]:
    how = sharding()
    if how and params.precision == "bf16-masters":
        yield _together(
            f"precision=bf16-masters under {how}, which keeps masters of its own.",
            "Use --set precision=bf16.",
        )
    if how and params.base_bits is not None:
        yield _together(
            f"base_bits={params.base_bits} under {how}: codes of four bits are not split.",
            "Use data parallelism (torchrun without sharding), or leave base_bits out.",
        )
    if how == "fsdp" and is_live:
        yield _together(
            "fsdp with a method that compares with the original's distributions or hidden states "
            "while all weights move: the original's weights cannot be put into shards.",
            "Add --adapter lora, use retain_term=nll, or data parallelism (torchrun).",
        )
    if how == "deepspeed":
        yield from _about_deepspeed(params, combines=combines)


def _about_finishing(modules: Sequence[ModuleType]) -> Iterator[ExpungeError]:
    if sharding() and any(hasattr(module, "finish") for module in modules):
        yield _together(
            f"{sharding()} with a method that goes on from the trained weights: each process holds "
            "only shards of them.",
            "Use data parallelism (torchrun without sharding).",
        )


def _about_deepspeed(params: GradientParams, *, combines: bool) -> Iterator[ExpungeError]:
    """It makes its own step of each backward pass, and keeps the gradients (ZeRO 2 and 3)."""
    stage = int(os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2"))
    if combines and stage >= 2:
        yield _together(
            f"DeepSpeed ZeRO-{stage} with a method that combines the gradients of its terms: "
            "DeepSpeed keeps the gradients to itself.",
            "Use FSDP or data parallelism (torchrun), or a method that adds its terms.",
        )
    if params.accumulation > 1:
        yield _together(
            "DeepSpeed with accumulation: it would make an optimiser step of each part.",
            "Use --set accumulation=1 with more processes, or FSDP.",
        )


def _together(found: str, remedy: str) -> ExpungeError:
    return ExpungeError("E-USE-006", found, "options that go together.", remedy)
