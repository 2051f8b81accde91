from collections.abc import Callable

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel

from expunge.data.encode import Batch, Encoded, collate
from expunge.lm.scoring import packed_logp

Make = Callable[..., PreTrainedModel]


def ragged(seed: int = 0) -> list[Encoded]:
    generator = torch.Generator().manual_seed(seed)
    items = []
    for row, (length, answer) in enumerate([(9, 3), (17, 16), (5, 1), (12, 6)]):
        ids = torch.randint(3, 60, (length,), generator=generator).tolist()
        labels = [-100] * (length - answer) + ids[length - answer :]
        items.append(Encoded(ids, labels, [(0, 0)] * answer, row))
    return items


def slow(model: PreTrainedModel, item: Encoded) -> torch.Tensor:
    """Token log-probabilities of one row alone, from all its logits."""
    logits = model(torch.tensor([item.ids])).logits[0].double()
    logp = logits.log_softmax(-1)
    return torch.stack([logp[t - 1, label] for t, label in enumerate(item.labels) if label != -100])


@pytest.mark.parametrize("side", ["right", "left"])
def test_packed_scores_equal_full_logits_of_each_row_alone(
    family: str, side: str, loud: Make
) -> None:
    # Padding on the left makes Gemma 2 give NaN in float64: its eager attention fills the mask
    # with the least float64 and takes the softmax in float32, where that is minus infinity.
    dtype = torch.float32 if (family, side) == ("gemma2", "left") else torch.float64
    model, items = loud(family, vocab=64, dtype=dtype), ragged()
    batch = collate(items, 0, side)  # type: ignore[arg-type]
    packed = packed_logp(model, batch)
    expected = torch.cat([slow(model, item) for item in items])
    assert expected.std() > 0.1
    tolerance = 1e-6 if dtype == torch.float64 else 1e-4
    torch.testing.assert_close(packed.logp.double(), expected, atol=tolerance, rtol=tolerance)
    assert packed.row.tolist() == [0] * 3 + [1] * 16 + [2] + [3] * 6


def test_hits_are_the_most_probable_tokens(loud: Make) -> None:
    model, items = loud("llama", vocab=64), ragged()
    best = model(torch.tensor([items[0].ids])).logits[0].argmax(-1).tolist()
    ids = [*items[0].ids[:6], best[5], 5]
    item = Encoded(ids, [-100] * 6 + ids[6:], [], 0)
    packed = packed_logp(model, collate([item], 0), with_logits=True)
    assert packed.hit[0]
    assert packed.logits is not None
    assert packed.logits.shape == (2, 64)
    assert packed.hit.tolist() == (packed.logits.argmax(-1) == torch.tensor(ids[6:])).tolist()


def test_scores_are_float32_for_half_precision_models(loud: Make) -> None:
    packed = packed_logp(loud("llama", vocab=64, dtype=torch.bfloat16), collate(ragged(), 0))
    assert packed.logp.dtype == torch.float32


def test_a_batch_with_nothing_supervised_scores_nothing(loud: Make) -> None:
    ids = torch.randint(3, 60, (2, 5))
    batch = Batch(ids, torch.ones_like(ids), torch.full_like(ids, -100), torch.arange(2))
    assert packed_logp(loud("gpt2", vocab=64), batch).logp.shape == (0,)


def test_scores_go_through_an_adapter(loud: Make) -> None:
    model = loud("llama", vocab=64)
    batch = collate(ragged(), 0)
    before = packed_logp(model, batch).logp.detach()
    adapted = get_peft_model(model, LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
    changed = packed_logp(adapted, batch)
    assert (changed.logp - before).abs().max() > 1e-3
    with adapted.disable_adapter():
        torch.testing.assert_close(packed_logp(adapted, batch).logp, before)
