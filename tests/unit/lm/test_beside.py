"""Another model reading along, in step with a batch that shrinks while it writes."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from expunge.lm.beside import mixed
from expunge.lm.generate import generate
from expunge.lm.hooks import capture
from expunge.lm.prefixes import new_cache

PROMPTS = [[1, 7, 8, 9], [1, 20, 21], [1, 30, 31, 32, 33, 34], [1, 5, 40, 41], [1, 50]]


def written(model, tokenizer, prompts=PROMPTS, **more):
    return [ids for ids, *_ in generate(model, tokenizer, prompts, new_tokens=8, **more)]


def in_full(model, ids, layer):
    """States of one row, read at once and without stored keys and values."""
    with torch.no_grad(), capture(model, [layer]) as seen:
        model(torch.tensor([ids]))
    return seen[layer][0]


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "gpt_neox"])
def test_taking_the_others_states_at_the_last_block_writes_what_the_other_writes(
    loud, tokenizer, family
):
    one, other = (loud(family, vocab=320, layers=2, seed=seed) for seed in (0, 1))
    # Same norm and head, so that the output of the last block is all that differs.
    for name, weight in other.named_parameters():
        if ".layers." not in name and ".h." not in name:
            weight.data = one.get_parameter(name).data.clone()
    expected = written(other, tokenizer)
    assert expected != written(one, tokenizer)
    with mixed(one, other, -1, lambda own, others, first: others):
        assert written(one, tokenizer) == expected
        assert written(one, tokenizer, batch_size=1) == expected


def test_it_reads_every_token_once_also_when_rows_have_left_the_batch(loud, tokenizer):
    one, other = (loud("llama", vocab=320, layers=3, seed=seed) for seed in (0, 1))
    stops = {tokens[2] for tokens in written(one, tokenizer)[:3]}
    one.generation_config.eos_token_id = sorted(stops)
    seen = []
    with mixed(one, other, 1, lambda own, others, first: seen.append(others) or own):
        answers = written(one, tokenizer)
    assert len({len(answer) for answer in answers}) > 1
    assert seen[0].shape[0] > seen[-1].shape[0]
    longest = max(range(len(answers)), key=lambda at: len(answers[at]))
    states = in_full(other, PROMPTS[longest] + answers[longest], 1)
    last = len(PROMPTS[longest]) + len(seen) - 2
    assert any(torch.allclose(row[0], states[last], atol=1e-4) for row in seen[-1])


def test_the_opening_token_of_each_row_is_pointed_out(loud, tokenizer):
    one, other = (loud("llama", vocab=320, seed=seed) for seed in (0, 1))
    seen, _ = [], written(one, tokenizer, PROMPTS[:2])  # looks once at what the model stores
    with mixed(one, other, 0, lambda own, others, first: seen.append(first) or own):
        written(one, tokenizer, PROMPTS[:2])
    assert seen[0].sum(1).tolist() == [1, 1]
    assert seen[0].float().argmax(1).tolist() == [4 - len(prompt) for prompt in PROMPTS[:2]]
    assert not any(first.any() for first in seen[1:])


def test_a_model_beside_itself_reads_once_and_everything_is_left_as_it_was(loud, tokenizer):
    one = loud("llama", vocab=320)
    expected, calls = written(one, tokenizer), []
    handle = one.register_forward_hook(lambda *_: calls.append(1))
    written(one, tokenizer)
    alone = len(calls)
    with mixed(one, one, 0, lambda own, others, first: others):
        assert written(one, tokenizer) == expected
    assert len(calls) == 2 * alone
    handle.remove()
    assert not any(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in one.modules())
    assert not one.training


def test_a_model_under_an_adapter_reads_on_with_the_other(loud, tokenizer):
    one, other = (loud("llama", vocab=320, layers=2, seed=seed) for seed in (0, 1))
    for name in ("model.embed_tokens", "model.norm", "lm_head"):
        weight = one.get_submodule(name).weight.data.clone()
        other.get_submodule(name).weight.data = weight
    expected = written(other, tokenizer)
    adapted = get_peft_model(one, LoraConfig(r=2, target_modules=["down_proj"])).eval()
    with mixed(adapted, other, -1, lambda own, others, first: others):
        assert written(adapted, tokenizer) == expected


def test_without_a_mask_only_the_first_call_opens_a_row_and_the_other_reads_on(loud):
    one, other = (loud("llama", vocab=320, seed=seed) for seed in (0, 1))
    ids, opens, states = torch.tensor(PROMPTS[:1]), [], []

    def look(own, others, first):
        opens.append(first.expand(own.shape[:2]).tolist())
        states.append(others)
        return own

    with torch.no_grad(), mixed(one, other, 0, look):
        cache = new_cache(one)
        one(input_ids=ids[:, :2], past_key_values=cache, use_cache=True)
        one(input_ids=ids[:, 2:], past_key_values=cache, use_cache=True)
    assert opens == [[[True, False]], [[False, False]]]
    torch.testing.assert_close(states[-1][0], in_full(other, PROMPTS[0], 0)[2:])
