"""Tiny random models of ten families and tiny tokenizers, built in memory in milliseconds."""

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")
"""Special tokens of `tiny_tokenizer`; their ids, 0 to 3, are those `tiny_model` is told."""

FAMILIES = (
    "llama",
    "llama_tied",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3",
    "phi3",
    "mistral",
    "gpt2",
    "gpt_neox",
)

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "[{{ message['role'] }}] {{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}"
)

WORD = r" ?\w+| ?[^\w\s]+|\s+"
"""A word or a run of punctuation with the space before it, so that joining restores the text."""


def tiny_model(
    family: str,
    *,
    vocab: int = 512,
    hidden: int = 32,
    layers: int = 2,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    positions: int = 512,
) -> PreTrainedModel:
    """Build a causal language model with random weights.

    Four attention heads (two of keys and values where the family groups them), dropout as in the
    family's own configuration (GPT-2: 0.1), sliding windows of 64 where the family has them.

    Args:
        family: One of `FAMILIES`.
        vocab: Size of the vocabulary.
        hidden: Width, a multiple of 8.
        layers: Number of blocks.
        seed: Seed of the weights; the global random state is left as it was.
        dtype: Type of the weights.
        positions: Longest row.

    Returns:
        The model, in evaluation mode.

    Raises:
        ValueError: When the family is unknown.
    """
    if family not in FAMILIES:
        raise ValueError(f"unknown family {family!r}, known are {', '.join(FAMILIES)}")
    config = _CONFIGS[family](vocab, hidden, layers, positions)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        make: Any = transformers.AutoModelForCausalLM
        model: Any = make.from_config(config)
    for parameter in model.parameters():  # not buffers: rounded rotary angles are another model
        parameter.data = parameter.data.to(dtype)
    built: PreTrainedModel = model.eval()
    return built


def tiny_tokenizer(
    texts: Iterable[str],
    kind: Literal["bpe", "word"] = "bpe",
    chat: bool = False,
    vocab: int = 512,
) -> PreTrainedTokenizerFast:
    """Train a tokenizer on a few texts.

    Every row begins with ``<bos>``. Decoding restores the text exactly (for ``word``: of known
    words).

    Args:
        texts: What to train on.
        kind: ``bpe`` works on bytes and knows every text; ``word`` gives each word one token.
        chat: Whether the tokenizer has a chat template.
        vocab: Largest vocabulary.

    Returns:
        The tokenizer, with the ids of padding, beginning and end at 0, 1, 2.
    """
    inner, trainer = _bpe(vocab) if kind == "bpe" else _word(vocab)
    inner.train_from_iterator(list(texts), trainer)
    inner.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", SPECIALS.index("<bos>"))]
    )
    pad, bos, eos, unknown = SPECIALS
    make: Any = PreTrainedTokenizerFast
    tokenizer: PreTrainedTokenizerFast = make(
        tokenizer_object=inner, pad_token=pad, bos_token=bos, eos_token=eos, unk_token=unknown
    )
    tokenizer.chat_template = CHAT_TEMPLATE if chat else None
    return tokenizer


def _bpe(vocab: int) -> tuple[Tokenizer, Any]:
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=list(SPECIALS),
        initial_alphabet=alphabet,
        show_progress=False,
    )
    return inner, trainer


def _word(vocab: int) -> tuple[Tokenizer, Any]:
    inner = Tokenizer(models.WordLevel(unk_token="<unk>"))  # noqa: S106
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(WORD), behavior="isolated")
    inner.decoder = decoders.Fuse()
    trainer = trainers.WordLevelTrainer(
        vocab_size=vocab, special_tokens=list(SPECIALS), show_progress=False
    )
    return inner, trainer


def _shape(vocab: int, hidden: int, layers: int, positions: int) -> dict[str, Any]:
    return {
        "vocab_size": vocab,
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "max_position_embeddings": positions,
        **_IDS,
    }


_IDS: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def _llama_like(
    config: type[PretrainedConfig], **more: Any
) -> Callable[[int, int, int, int], PretrainedConfig]:
    def build(vocab: int, hidden: int, layers: int, positions: int) -> PretrainedConfig:
        shape = _shape(vocab, hidden, layers, positions)
        return config(**shape, **{"num_key_value_heads": 2, "tie_word_embeddings": False, **more})

    return build


def _with_heads(
    config: type[PretrainedConfig], **more: Any
) -> Callable[[int, int, int, int], PretrainedConfig]:
    """As `_llama_like`, for families whose head width does not follow from the width."""

    def build(vocab: int, hidden: int, layers: int, positions: int) -> PretrainedConfig:
        narrow = _llama_like(config, head_dim=hidden // 4, **more)
        return narrow(vocab, hidden, layers, positions)

    return build


def _gpt2(vocab: int, hidden: int, layers: int, positions: int) -> PretrainedConfig:
    return transformers.GPT2Config(
        vocab_size=vocab,
        n_embd=hidden,
        n_layer=layers,
        n_head=4,
        n_positions=positions,
        **_IDS,
    )


def _gpt_neox(vocab: int, hidden: int, layers: int, positions: int) -> PretrainedConfig:
    return transformers.GPTNeoXConfig(**_shape(vocab, hidden, layers, positions))


_CONFIGS: dict[str, Callable[[int, int, int, int], PretrainedConfig]] = {
    "llama": _llama_like(transformers.LlamaConfig),
    "llama_tied": _llama_like(transformers.LlamaConfig, tie_word_embeddings=True),
    "qwen2": _llama_like(transformers.Qwen2Config),
    "qwen3": _with_heads(transformers.Qwen3Config),
    "gemma2": _with_heads(transformers.Gemma2Config, sliding_window=64, tie_word_embeddings=True),
    "gemma3": _with_heads(
        transformers.Gemma3TextConfig, sliding_window=64, tie_word_embeddings=True
    ),
    "phi3": _llama_like(transformers.Phi3Config),
    "mistral": _llama_like(transformers.MistralConfig, sliding_window=64),
    "gpt2": _gpt2,
    "gpt_neox": _gpt_neox,
}
