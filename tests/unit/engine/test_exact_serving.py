"""An ensemble in the forward pass: whatever asks it, and however, hears the mean of its voices."""

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.func import functional_call
from transformers import DynamicCache

from expunge.engine.exact.serving import A, B, Voices, attach
from expunge.engine.runtime import Part, twin
from expunge.lm.arch import Slots
from expunge.lm.generate import generate
from expunge.lm.prefixes import can_share, new_cache
from expunge.lm.scoring import masked_logits
from expunge.testing import tiny_model, tiny_tokenizer

FAMILIES = ("llama", "gemma3", "qwen3", "gpt2", "gpt_neox", "llama_tied")
RANK, SCALE, LENGTH, VOICES = 3, 0.7, 9, 3


def adapters(model: nn.Module, voices: int = VOICES) -> list[dict[str, Tensor]]:
    draw = torch.Generator().manual_seed(5)
    made = []
    for voice in range(voices):
        one = {}
        for number, name in enumerate(Slots(model).linears()):
            if number % 3 == voice:
                continue  # voices need not stand beside the same linears
            weight = model.get_submodule(name).weight
            out, into = weight.shape
            if model.config.model_type == "gpt2":
                out, into = into, out
            one[f"{name}.{A}"] = torch.randn(RANK, into, generator=draw) / into**0.5
            one[f"{name}.{B}"] = torch.randn(out, RANK, generator=draw)
        made.append(one)
    return made


def ids(rows: int = 4, length: int = LENGTH) -> Tensor:
    draw = torch.Generator().manual_seed(1)
    return torch.randint(4, 60, (rows, length), generator=draw)


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest) -> Any:
    return tiny_model(request.param, vocab=64)


def put_in(model: Any, mean: str = "probabilities", voices: int = VOICES) -> Voices:
    made = Voices(model, adapters(model, voices), SCALE, mean)
    made.put_in()
    return made


def alone(model: Any, one: dict[str, Tensor], **inputs: Any) -> Tensor:
    """What a voice says by itself, computed by `peft`."""
    other = copy.deepcopy(model)
    names = sorted({name.rpartition(".")[0] for name in one})
    config = LoraConfig(
        r=RANK, lora_alpha=SCALE * RANK, target_modules=names, task_type="CAUSAL_LM",
        fan_in_fan_out=model.config.model_type == "gpt2",
    )  # fmt: skip
    adapted = get_peft_model(other, config).eval()
    with torch.no_grad():
        for name in names:
            layer: Any = other.get_submodule(name)
            layer.lora_A["default"].weight.copy_(one[f"{name}.{A}"])
            layer.lora_B["default"].weight.copy_(one[f"{name}.{B}"])
        return adapted(**inputs, use_cache=False).logits


def mean(said: list[Tensor], how: str) -> Tensor:
    stacked = torch.stack(said)
    return stacked.mean(0) if how == "logits" else stacked.softmax(-1).mean(0).log()


@pytest.mark.parametrize("how", ["probabilities", "logits"])
@torch.no_grad()
def test_what_is_heard_is_the_mean_of_what_peft_computes(model: Any, how: str) -> None:
    expected = mean([alone(model, one, input_ids=ids()) for one in adapters(model)], how)
    plain = model(input_ids=ids()).logits
    put_in(model, how)
    heard = model(input_ids=ids()).logits
    torch.testing.assert_close(heard, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(heard, plain, atol=0.1)


@torch.no_grad()
def test_a_single_voice_is_peft_s_bit_for_bit(model: Any) -> None:
    (one,) = adapters(model, 1)
    expected = alone(model, one, input_ids=ids())
    put_in(model, voices=1)
    assert torch.equal(model(input_ids=ids()).logits, expected)


@torch.no_grad()
def test_no_voice_and_empty_adapters_add_nothing(model: Any) -> None:
    plain = model(input_ids=ids()).logits
    Voices(model, [], SCALE, "probabilities").put_in()
    assert torch.equal(model(input_ids=ids()).logits, plain)
    still = [{n: torch.zeros_like(t) if n.endswith(B) else t for n, t in a.items()}
             for a in adapters(model, 1)]  # fmt: skip
    Voices(model, still, SCALE, "probabilities").put_in()
    assert torch.equal(model(input_ids=ids()).logits, plain)


@torch.no_grad()
def test_read_piece_by_piece_it_says_what_it_says_at_once(model: Any) -> None:
    put_in(model)
    whole = model(input_ids=ids(), use_cache=False).logits
    for cache in (new_cache(model), DynamicCache()):
        said = [
            model(input_ids=part, past_key_values=cache, use_cache=True).logits
            for part in ids().split([4, 1, 1, 3], 1)
        ]
        torch.testing.assert_close(torch.cat(said, 1), whole, atol=1e-5, rtol=1e-4)
    assert can_share(model)


@torch.no_grad()
def test_a_cache_it_makes_itself_can_be_gone_on_with(model: Any) -> None:
    put_in(model)
    whole = model(input_ids=ids(), use_cache=False).logits
    first = model(input_ids=ids()[:, :5])
    rest = model(input_ids=ids()[:, 5:], past_key_values=first.past_key_values).logits
    torch.testing.assert_close(rest, whole[:, 5:], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_rows_of_a_batch_are_what_they_are_alone_on_either_side_of_padding(model: Any) -> None:
    put_in(model)
    lengths = [LENGTH, 4, 6, 5]
    single = [model(input_ids=ids()[i : i + 1, :n]).logits[0] for i, n in enumerate(lengths)]
    right = ids().clone()
    mask = torch.zeros_like(right)
    for row, length in enumerate(lengths):
        right[row, length:] = 0
        mask[row, :length] = 1
    padded = model(input_ids=right, attention_mask=mask).logits
    left = torch.stack([row.roll(LENGTH - n) for row, n in zip(right, lengths, strict=True)])
    moved = torch.stack([row.roll(LENGTH - n) for row, n in zip(mask, lengths, strict=True)])
    positions = (moved.cumsum(1) - 1).clamp(min=0)
    turned = model(input_ids=left, attention_mask=moved, position_ids=positions).logits
    for row, (length, said) in enumerate(zip(lengths, single, strict=True)):
        torch.testing.assert_close(padded[row, :length], said, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(turned[row, -length:], said, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_rows_picked_from_the_cache_keep_all_their_voices(model: Any) -> None:
    put_in(model)
    whole = model(input_ids=ids(), use_cache=False).logits
    cache = new_cache(model)
    model(input_ids=ids()[:, :6], past_key_values=cache, use_cache=True)
    chosen = torch.tensor([2, 0, 2])
    cache.batch_select_indices(chosen)
    rest = model(input_ids=ids()[chosen, 6:], past_key_values=cache, use_cache=True).logits
    torch.testing.assert_close(rest, whole[chosen, 6:], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_logits_at_some_positions_are_those_of_all(model: Any) -> None:
    put_in(model)
    whole = model(input_ids=ids()).logits
    keep = torch.zeros(4, LENGTH, dtype=torch.bool)
    keep[0, 3], keep[1, :2], keep[3, -1] = True, True, True
    found = masked_logits(model, ids(), torch.ones_like(ids()), keep)
    torch.testing.assert_close(found, whole[keep], atol=1e-5, rtol=1e-4)
    last = model(input_ids=ids(), logits_to_keep=1).logits
    torch.testing.assert_close(last, whole[:, -1:], atol=1e-5, rtol=1e-4)


def test_it_writes_what_it_says_token_by_token(model: Any) -> None:
    """Greedy writing in a batch with left padding, against whole passes without a cache."""
    tokenizer = tiny_tokenizer([" ".join(f"w{n}" for n in range(56))], kind="word", vocab=64)
    put_in(model)
    prompts = [ids()[0, :7].tolist(), ids()[1, :3].tolist(), ids()[2, :5].tolist()]
    written = generate(model, tokenizer, prompts, new_tokens=6)
    for prompt, (answer,) in zip(prompts, written, strict=True):
        text = list(prompt)
        for token in answer:
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([text]), use_cache=False).logits
            assert int(logits[0, -1].argmax()) == token
            text.append(token)
    drawn = generate(model, tokenizer, prompts, new_tokens=3, samples=2, temperature=1.0)
    assert [len(rows) for rows in drawn] == [2, 2, 2]


def test_copies_and_twins_speak_for_themselves(model: Any) -> None:
    put_in(model)
    heard = said(model)
    for made in (twin(model), copy.deepcopy(model)):
        assert torch.equal(said(made), heard)
    assert not torch.equal(said(twin(model, bare=True)), heard)
    double = copy.deepcopy(model)
    with torch.no_grad():
        for weight in double.parameters():
            weight.mul_(0.9)
    assert torch.equal(said(model), heard), "a copy that is changed changes no voice of the first"
    expected = copy.deepcopy(tiny_like(model))
    with torch.no_grad():
        for weight, new in zip(expected.parameters(), double.parameters(), strict=True):
            weight.copy_(new)
    put_in(expected)
    torch.testing.assert_close(said(double), said(expected), atol=1e-6, rtol=1e-6)


def test_weights_put_in_place_for_one_call_are_in_place_in_every_voice() -> None:
    """As the anchor of a method that is trained on top does it."""
    model = tiny_model("llama", vocab=64)
    other = {n: p.detach() * 1.1 for n, p in model.named_parameters()}
    expected = copy.deepcopy(model)
    with torch.no_grad():
        for name, weight in expected.named_parameters():
            weight.copy_(other[name])
    put_in(expected)
    put_in(model)
    with torch.no_grad():
        found = functional_call(model, other, (), {"input_ids": ids()}).logits
    torch.testing.assert_close(found, said(expected))


def test_gradients_reach_the_input_through_every_voice() -> None:
    """As attacks that search a prompt need them: the derivative of the mean."""
    model = tiny_model("llama", vocab=64).double()
    put_in(model)
    given = model.get_input_embeddings()(ids(1)).detach().requires_grad_()

    def loss(embeds: Tensor) -> Tensor:
        return model(inputs_embeds=embeds).logits[0, -1, 7]

    (gradient,) = torch.autograd.grad(loss(given), given)
    step = torch.zeros_like(given)
    step[0, 2, 5] = 1e-4
    with torch.no_grad():
        slope = (loss(given + step) - loss(given - step)) / 2e-4
    assert float(gradient[0, 2, 5]) == pytest.approx(float(slope), rel=1e-3)


@torch.no_grad()
def test_in_bfloat16_and_with_labels() -> None:
    model = tiny_model("llama", vocab=64)
    put_in(model)
    exact = said(model)
    half = tiny_model("llama", vocab=64, dtype=torch.bfloat16)
    put_in(half)
    heard = said(half)
    assert heard.dtype == torch.float32
    assert float((heard - exact).abs().mean()) < 0.05
    output = model(input_ids=ids(), labels=ids())
    logp = output.logits[:, :-1].log_softmax(-1).gather(-1, ids()[:, 1:, None])
    assert float(output.loss) == pytest.approx(float(-logp.mean()), rel=1e-5)


def test_adapters_of_another_model_are_refused_and_taken_out_they_are_gone() -> None:
    model = tiny_model("llama", vocab=64)
    plain = said(model)
    tensors = {f"{v}/{n}": t for v, one in enumerate(adapters(model)) for n, t in one.items()}
    told = {"mean": "probabilities", "scale": SCALE, "voices": [{}] * VOICES}
    part = Part(settings=told, tensors=tensors, moves=1)
    with attach(model, part):
        assert not torch.equal(said(model), plain)
    assert torch.equal(said(model), plain)
    with pytest.raises(ValueError, match="other sizes"):
        attach(tiny_model("llama", vocab=64, hidden=16), part)
    with pytest.raises(AttributeError):
        attach(tiny_model("gpt2", vocab=64), part)


@torch.no_grad()
def said(model: Any) -> Tensor:
    return model(input_ids=ids()).logits


def tiny_like(model: Any) -> Any:
    family = {"gemma3_text": "gemma3"}.get(model.config.model_type, model.config.model_type)
    tied = family == "llama" and model.config.tie_word_embeddings
    return tiny_model("llama_tied" if tied else family, vocab=64)
