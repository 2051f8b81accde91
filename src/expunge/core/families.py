"""Parameters that the methods of one family share; a method's ``Params`` adds and restates.

GradientParams    every method
SteeringParams    those that push the hidden states of one block
RewriteParams     those that lead prompts to something else that is said
EditParams        of these, those that write it into an MLP by its keys and values
"""

from dataclasses import dataclass
from typing import Literal

from expunge.core.params import param


@dataclass(frozen=True, kw_only=True, slots=True)
class GradientParams:
    """Parameters every gradient method has; its ``Params`` adds its own and restates defaults."""

    forget_weight: float = param(1.0, help="weight of the forget term (gamma)", low=0.0)
    retain_weight: float = param(1.0, help="weight of the retain term (alpha)", low=0.0)
    retain_term: str = param(
        "nll", help="what keeps the retain rows in place", choices=("none", "nll", "kl", "mse")
    )
    kl_scope: Literal["answer", "all_nonpad", "legacy_all"] = param(
        "all_nonpad",
        help="positions the kl term averages over",
        paper="legacy_all",
        choices=("answer", "all_nonpad", "legacy_all"),
    )
    lr: float | Literal["auto"] = param(
        "auto", help="learning rate; auto picks it by the size of the model", paper=1e-5, low=0.0
    )
    epochs: int | None = param(
        None, help="passes over the forget set; none leaves it to max_steps", paper=10, low=1
    )
    max_steps: int | None = param(
        None, help="most optimiser steps; none leaves it to epochs", low=1
    )
    batch_size: int = param(16, help="forget rows of each part of a step", paper=32, low=1)
    accumulation: int = param(1, help="parts an optimiser step is made of", low=1)
    warmup: int | Literal["auto"] = param(
        "auto", help="optimiser steps over which the rate rises", paper="one epoch", low=0
    )
    schedule: Literal["linear", "cosine", "constant"] = param(
        "linear",
        help="how the rate goes after the warm-up: to 0 by a line or a cosine, or not at all",
        paper="linear",
        choices=("linear", "cosine", "constant"),
    )
    weight_decay: float = param(0.0, help="decoupled weight decay", paper=0.01, low=0.0)
    mse_layer: int | None = param(
        None, help="block whose output retain_term=mse compares; none takes the middle one"
    )
    precision: Literal["auto", "float32", "bf16", "bf16-masters"] = param(
        "auto",
        help="bf16 computes in bfloat16 over float32 weights (auto: on an accelerator); "
        "bf16-masters also holds bfloat16 weights, with float32 masters in the optimiser",
        paper="bf16",
        choices=("auto", "float32", "bf16", "bf16-masters"),
    )
    packing: bool = param(False, help="rows end to end in one line instead of padded")
    checkpointing: bool = param(
        False, help="keep block inputs only and compute activations again in the backward pass"
    )
    base_bits: Literal[4] | None = param(
        None, help="hold the frozen weights under an adapter in this many bits"
    )
    layers: tuple[int, ...] | None = param(
        None, help="blocks that may move, negative from the top; none means all"
    )
    lora_r: int = param(8, help="rank of the adapter, when one is asked for", paper=8, low=1)
    lora_alpha: float = param(32.0, help="scale of the adapter: alpha / r", paper=32, low=0.0)
    lora_targets: tuple[str, ...] | None = param(
        None, help="modules that get an adapter; none means every linear layer of the blocks"
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class SteeringParams(GradientParams):
    """Parameters of methods that push the activations of forget rows at one block."""

    retain_term: str = param(
        "mse",
        help="what keeps the rest; mse compares the steered block, unless mse_layer is given",
        paper="mse",
        choices=("none", "nll", "kl", "mse"),
    )
    lr: float | Literal["auto"] = param(
        "auto", help="learning rate; auto picks it by size", paper=5e-5, low=0.0
    )
    batch_size: int = param(16, help="forget rows of each part of a step", paper=4, low=1)
    layer: int | None = param(
        None,
        help="steered block (l), negative from the top; none takes the one at 7/32 of the depth",
        paper=7,
    )
    positions: Literal["all", "answer"] = param(
        "all",
        help="which positions of forget rows are pushed: all, or those that predict the answer",
        paper="all",
        choices=("all", "answer"),
    )
    include_bos: bool = param(False, help="push the first position of a row as well", paper=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class RewriteParams(GradientParams):
    """Parameters of methods that find values by which prompts lead to something else.

    Of the parameters of gradient methods only those of rows and precision mean something here.
    """

    retain_term: str = param("none", help="nothing is trained", choices=("none",))
    max_steps: int | None = param(None, help="most edits; none edits every forget row", low=1)
    target: Literal["refusal", "self", "wrong", "text"] = param(
        "refusal",
        help="what is to be said: a refusal of the pool, one the model writes itself, the row's "
        "own wrong answer, or one given text",
        paper="self",
        choices=("refusal", "self", "wrong", "text"),
    )
    text: str = param("I don't know.", help="target=text: what is to be said")
    styles: int = param(3, help="target=refusal: how many of the pool are used", paper=3, low=1)
    v_num_grad_steps: int = param(25, help="most steps to find a value", paper=[20, 25], low=0)
    v_lr: float = param(0.5, help="rate of these steps", paper=[0.5, 0.1], low=0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class EditParams(RewriteParams):
    """Parameters of locate-and-edit methods."""

    layers: tuple[int, ...] | None = param(
        None,
        help="blocks that are edited, or looked at where one is looked for, negative from the "
        "top; none settles them by where values are found most easily",
        paper=[4, 5, 6, 7, 8],
    )
    merge: int = param(
        1, help="prompts with one target that share an edit (query merging)", paper=[10, 20], low=1
    )
    contexts: int = param(
        5, help="texts of the model that each prompt is put behind as well", paper=[5, 20], low=0
    )
    fact_token: Literal["auto", "subject_last", "last"] = param(
        "auto",
        help="where a prompt is edited: at the last token of the subject, at the last one before "
        "the answer, or where values are found more easily",
        paper="subject_last",
        choices=("auto", "subject_last", "last"),
    )
    v_weight_decay: float = param(
        0.5, help="weight of the length of what is added to a value", paper=0.5, low=0.0
    )
    clamp_norm_factor: float = param(
        0.75, help="longest addition to a value, in lengths of the value", paper=[0.75, 4], low=0.0
    )
    kl_factor: float = param(
        0.0625, help="weight of what else is said of the subject", paper=0.0625, low=0.0
    )
    corpus: str | None = param(
        None,
        help="file of rows the second moment of keys is taken over; none takes retain rows",
        paper="100000 articles",
    )


FAMILIES = {
    family.__name__: family
    for family in (GradientParams, SteeringParams, RewriteParams, EditParams)
}
"""What the ``Params`` of a method may inherit from."""
