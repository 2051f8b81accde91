"""Forward passes in pieces: what every model with something put into it must do alike."""

from typing import Any

import torch
from torch import Tensor, nn

from expunge.lm.prefixes import new_cache
from expunge.testing.expect import expect

PADS = 2
"""Positions of padding before each row."""

NEAR = 1e-4
"""Relative and absolute."""


def check_cached(model: nn.Module, ids: Tensor, whole: Tensor) -> None:
    """Check that rows written token by token are those read at once, also when one of them leaves.

    Rows stand behind padding, in one batch with a cache. All but their last two tokens are read
    together, as prompts, then the two one by one; after that one row leaves the batch, the others
    change places and their last token is read again.

    Args:
        model: A model with a run-time part, a guard or an adapter in it.
        ids: [B, T], three rows at least.
        whole: [B, 2, V], the logits at the last two of the first T - 1 positions, of rows read at
            once.

    Raises:
        AssertionError: When something differs.
    """
    rows, length = ids.shape
    total, prompt = length + PADS, length + PADS - 2
    padded = torch.cat([torch.zeros(rows, PADS, dtype=torch.long), ids], 1)
    mask = (torch.arange(total) >= PADS).long().expand(rows, total)
    place = (mask.cumsum(1) - 1).clamp(min=0)
    cache: Any = new_cache(model)
    said: list[Tensor] = []
    for start, end in ((0, prompt), (prompt, prompt + 1), (prompt + 1, total)):
        with torch.no_grad():
            outputs = model(
                input_ids=padded[:, start:end],
                attention_mask=mask[:, :end],
                position_ids=place[:, start:end],
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
        said.append(outputs.logits[:, -1])
    torch.testing.assert_close(torch.stack(said[:2], 1), whole, rtol=NEAR, atol=NEAR)
    stay = torch.tensor([rows - 1, 0])
    cache.batch_select_indices(stay)
    for layer in cache.layers:
        layer.crop(-1)
    with torch.no_grad():
        again = model(
            input_ids=padded[stay, total - 1 :],
            attention_mask=mask[stay],
            position_ids=place[stay, total - 1 :],
            past_key_values=cache,
            use_cache=True,
        ).logits[:, -1]
    torch.testing.assert_close(again, said[2][stay], rtol=NEAR, atol=NEAR)
    expect(not torch.equal(said[0], said[1]), "all tokens are answered alike")
