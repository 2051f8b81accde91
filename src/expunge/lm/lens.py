"""What a model would say if it stopped after some block.

Reference: "Interpreting GPT: the logit lens" (2020).
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from expunge.lm.arch import Slots


def lens(model: nn.Module, hidden: Tensor) -> Tensor:
    """Read hidden states out through the model's final norm and head.

    The head is the model's own forward with only the blocks left out, so soft caps and scales are
    those of the family. For the last block's output the result equals the model's logits; entries
    of ``output_hidden_states`` other than the last may be given too, the last one is normed
    already.

    Args:
        model: A causal language model.
        hidden: Block outputs, [B, T, d] or [N, d].

    Returns:
        Logits, [B, T, V] or [N, V].
    """
    rows = hidden if hidden.ndim == 3 else hidden[None]
    logits = head_logits(model, Slots(model).final_norm(rows))
    return logits if hidden.ndim == 3 else logits[0]


def head_logits(model: nn.Module, normed: Tensor) -> Tensor:
    """Logits of hidden states that went through the final norm already.

    Args:
        model: A causal language model.
        normed: [B, T, d].

    Returns:
        [B, T, V], with the family's caps and scales.
    """
    slots = Slots(model)
    body: Any = getattr(slots.model, str(slots.model.base_model_prefix))
    output = BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=normed)
    own = body.__dict__.get("forward")
    body.forward = lambda *_, **__: output
    try:
        ids = torch.zeros(normed.shape[:2], dtype=torch.long, device=normed.device)
        logits: Tensor = slots.model(input_ids=ids, use_cache=False).logits
    finally:
        if own is None:
            del body.forward
        else:
            body.forward = own
    return logits
