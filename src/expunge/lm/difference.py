"""What a model says less what a helper says that knows only what is to be held back.

Definition (z_f, z_h: logits of the model and of the helper; V tokens; w < 0; rho in [0, 1]):
    S  = { v : log p_f(v) >= min( max_v log p_f(v) + log rho, log p_f of rank max(1, int(rho V)) ) }
    z  = z_f + w log p_h        in S
       = max_v z_f - 1000       elsewhere;          rho = 0: S is everything

One function for what is scored and for what is written: nothing depends on a constant in z_h, nor
on whether somebody normalised z_f before. Temperature and cuts come after it.

Reference: Reversing the Forget-Retain Objectives: An Efficient LLM Unlearning Framework from Logit
Difference, 2024.
"""

import math

import torch
from torch import Tensor

from expunge.lm.near_top import near_top
from expunge.lm.scoring import at_least_float32

OUT = 1000.0
"""How far below the likeliest token those stand that are out, in nats."""


def difference(own: Tensor, said: Tensor, weight: float, top: float) -> Tensor:
    """Take what the helper says away from what the model says: z.

    Args:
        own: [..., V], logits of the model; they stay as they are.
        said: [..., V], logits of the helper; they stay as they are. Where it gives a token no
            probability at all (a row of the vocabulary that stands for nothing), the model's own
            logit counts.
        weight: w.
        top: rho.

    Returns:
        [..., V], new ones, at least float32.
    """
    own, said = at_least_float32(own), at_least_float32(said).log_softmax(-1)
    found = own + weight * said.where(said != -torch.inf, 0.0)
    if top == 0:
        return found
    kept = near_top(own, int(top * own.shape[-1]), math.log(top))
    return torch.where(kept, found, own.amax(-1, keepdim=True) - OUT)


def of_rows(own: Tensor, said: Tensor, fires: Tensor, weight: float, top: float) -> Tensor:
    """Take it away in the rows that fire, and leave the others as they are.

    The shape in which servers that batch requests hand logits over: a row may be one of several of
    a request, and rows may stand in any order.

    Args:
        own: [rows, V], logits of the model.
        said: [rows, V], logits of the helper at the same positions; or [fired, V], of those alone
            that fire.
        fires: [rows] bool.
        weight: w.
        top: rho.

    Returns:
        [rows, V] of the type of ``own``; ``own`` itself where nothing fires.
    """
    if not bool(fires.any()):
        return own
    heard = said if len(said) != len(own) else said[fires]
    mixed = own.clone()
    mixed[fires] = difference(own[fires], heard, weight, top).to(own.dtype)
    return mixed
