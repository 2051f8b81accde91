"""Parameters that the methods of one family share; a method's ``Params`` adds and restates.

GradientParams    every method
SteeringParams    those that push the hidden states of one block
RewriteParams     those that lead prompts to something else that is said
EditParams        of these, those that write it into an MLP by its keys and values
NullSpaceParams   of these, those that leave the keys of other text alone
EnsembleParams    those that train an ensemble that rows can be taken out of
CoderParams       those that read a block through a sparse autoencoder
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
    v_weight_decay: float | Literal["auto"] = param(
        "auto",
        help="weight of the length of what is added to a value; auto: 0.5, or 0.01 where targets "
        "are not reached so",
        paper=0.5,
        low=0.0,
    )
    clamp_norm_factor: float | Literal["auto"] = param(
        "auto",
        help="longest addition to a value, in lengths of the value; auto: 0.75, or 1.5 where "
        "targets are not reached so",
        paper=[0.75, 4],
        low=0.0,
    )
    kl_factor: float = param(
        0.0625, help="weight of what else is said of the subject", paper=0.0625, low=0.0
    )
    corpus: str | None = param(
        None,
        help="file of rows the second moment of keys is taken over; none takes retain rows",
        paper="100000 articles",
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class NullSpaceParams(EditParams):
    """Parameters of edits that are written where no key of other text points."""

    nullspace: Literal["energy", "absolute"] = param(
        "energy",
        help="which directions are null: those that hold a share of all energy, or those whose "
        "energy is below a number",
        paper="absolute",
        choices=("energy", "absolute"),
    )
    threshold: float = param(
        1e-3, help="that share, or that number (nullspace_threshold)", paper=2e-2, low=0.0
    )
    l2: float | Literal["auto"] = param(
        "auto",
        help="weight of the length of the change (L2); auto: 10, or for small models a hundredth "
        "of the squared length of their keys",
        paper=10,
        low=0.0,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class ReinforcementParams(GradientParams):
    """Parameters of methods that draw answers and learn from their rewards (GRPO).

    Of the parameters of gradient methods those of the terms mean nothing here: what is to be kept
    is kept by rewards. A step answers ``batch_size * accumulation`` prompts.
    """

    retain_term: str = param(
        "none", help="nothing is trained on: what is kept is kept by rewards", choices=("none",)
    )
    batch_size: int = param(8, help="prompts of each part of a step", paper=32, low=1)
    num_generations: int = param(
        8, help="answers drawn to each prompt, judged against one another", paper=8, low=2
    )
    temperature: float = param(1.0, help="of the draws", paper=1, low=0.01)
    new_tokens: int | Literal["auto"] = param(
        "auto",
        help="longest answer drawn, in tokens; auto takes twice the longest given answer, at "
        "least 24 and at most half of the model's positions",
        paper=1024,
        low=1,
    )
    prompt_tokens: int = param(
        512, help="longest prompt, in tokens; of a longer one the end is kept", paper=512, low=8
    )
    beta: float = param(
        0.01,
        help="weight of the divergence from the model as it was before the draws (KL, k3)",
        paper=0.01,
        low=0.0,
    )
    epsilon: float = param(0.2, help="how far a ratio may fall before it is clipped", low=0.0)
    epsilon_high: float | None = param(
        None, help="how far it may rise; none takes epsilon", low=0.0
    )
    dual_clip: float | None = param(
        None, help="largest ratio that counts against a bad answer (delta); none has no bound"
    )
    loss: Literal["dapo", "bnpo", "grpo", "dr_grpo"] = param(
        "dapo",
        help="over what tokens are averaged: all of a step, of a part, of an answer, or a constant",
        choices=("dapo", "bnpo", "grpo", "dr_grpo"),
    )
    steer: Literal["auto", "always", "never"] = param(
        "always",
        help="train on refusals first; auto does where nine groups in ten would be rewarded alike",
        choices=("auto", "always", "never"),
    )
    steer_epochs: int = param(3, help="passes over the refusals", paper=3, low=1)
    steer_batch_size: int = param(8, help="refusals of a step", paper=8, low=1)
    steer_lr: float | Literal["auto"] = param(
        "auto",
        help="rate of that; auto begins by size and doubles it, up to eight times, until "
        "steer_until is reached",
        paper=4e-7,
        low=0.0,
    )
    steer_until: float = param(
        0.25, help="share of drawn answers that refuse at which it ends", low=0.0, high=1.0
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class EnsembleParams(GradientParams):
    """Parameters of methods that train adapters of a frozen base on shards of the rows."""

    base: str | None = param(
        None, help="folder of the model before it saw any of the rows; an ensemble's own is known"
    )
    retain_term: str = param("nll", help="what is trained on", paper="nll", choices=("nll",))
    shards: int = param(5, help="parts of the rows, each with adapters of its own (m)", low=1)
    slices: int | None = param(
        None, help="parts of each shard, trained on one after another (L); none takes 6", low=1
    )
    build: Literal["without", "with"] = param(
        "without",
        help="a new ensemble never meets the forget rows, or is built with them and then rid of "
        "them, to compare costs",
        choices=("without", "with"),
    )
    mean: Literal["probabilities", "logits"] = param(
        "probabilities",
        help="what of the shards is averaged",
        paper="probabilities",
        choices=("probabilities", "logits"),
    )
    salt: str | None = param(
        None, help="word that decides where rows are placed; none takes one from the seed"
    )
    lr: float | Literal["auto"] = param(
        "auto", help="learning rate; auto picks it by the size of the model", paper=2e-5, low=0.0
    )
    epochs: int | None = param(
        None,
        help="passes of a stage over its rows; none makes 3, and more the smaller the model is "
        "below 0.5B parameters: 14 at 1M",
        paper=3,
        low=1,
    )
    max_steps: int | None = param(
        None, help="most optimiser steps of a stage; none leaves it to epochs", low=1
    )
    batch_size: int = param(16, help="rows of each part of a step", low=1)
    weight_decay: float = param(0.001, help="decoupled weight decay", paper=0.001, low=0.0)
    lora_r: int = param(32, help="rank of the adapters", paper=32, low=1)
    lora_alpha: float = param(64.0, help="scale of the adapters, 2 r", paper=64, low=0.0)
    rslora: bool = param(True, help="scale by alpha / sqrt(r) instead of alpha / r", paper=True)
    head: Literal["auto", "always", "never"] = param(
        "auto",
        help="an adapter of the output head as well; auto: below 0.5B parameters, where the head "
        "may tell words apart that the base was trained on, and no others",
        paper="never",
        choices=("auto", "always", "never"),
    )
    dropout: float = param(
        0.05, help="dropout in front of adapters that are trained", paper=0.05, low=0.0, high=0.9
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class CoderParams(GradientParams):
    """Parameters of methods that read a block through a sparse autoencoder."""

    lr: float | Literal["auto"] = param(
        "auto", help="learning rate; auto picks it by size", paper=5e-5, low=0.0
    )
    batch_size: int = param(16, help="forget rows of each part of a step", paper=4, low=1)
    layer: int | None = param(
        None, help="block that is read (l), negative from the top; none settles it"
    )
    sae: str | None = param(
        None,
        help="file or folder of a trained autoencoder of that block (SAELens, Gemma Scope, "
        "sparsify, two linear layers); none trains one on forget and retain rows",
        paper="Gemma Scope",
    )
    expansion: int = param(2, help="trained: latents for each channel of the block", low=1)
    sae_k: int = param(8, help="trained: latents of a state, at most", low=1)
    sae_steps: int = param(1500, help="trained: optimiser steps of the autoencoder", low=1)
    sae_rows: int = param(2000, help="rows of each role it is trained on, at most", low=1)


FAMILIES = {
    family.__name__: family
    for family in (
        GradientParams,
        SteeringParams,
        RewriteParams,
        EditParams,
        NullSpaceParams,
        ReinforcementParams,
        EnsembleParams,
        CoderParams,
    )
}
"""What the ``Params`` of a method may inherit from."""
