"""Hidden states of whole texts, from a masked language model or from a causal one itself.

A low-rank matrix may stand beside each query, key and value of the encoder, other ones from call
to call; its own weights never move. Texts come in as token ids of the model they are written for.
A masked language model reads them in its own tokens, as far as it has positions.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import PreTrainedModel

from expunge.core.errors import ExpungeError, raise_all
from expunge.lm.arch import Slots, is_linear
from expunge.lm.folder import Folder, inspect_folder
from expunge.lm.load import load_tokenizer, quiet
from expunge.lm.low_rank import LowRank
from expunge.lm.scoring import at_least_float32

SELF = "self"
"""Stands in the place of a folder for the causal model itself."""

Ids = Sequence[int]
Parts = Mapping[str, LowRank]
"""Name of a linear -> what stands beside it."""

LOOKING = frozenset(
    {
        "query", "key", "value", "query_proj", "key_proj", "value_proj", "q_proj", "k_proj",
        "v_proj", "q_lin", "k_lin", "v_lin", "q", "k", "v", "Wqkv", "qkv", "qkv_proj", "in_proj",
        "query_key_value",
    }
)  # fmt: skip
"""What the families of encoders call the linears that make queries, keys and values."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where an encoder comes from.

    Attributes:
        folder: Of a masked language model; `SELF` for the causal model itself.
        digest: Of its weights.
        words: Tokenizer of the texts that come in, as the tokenizers library writes it: a masked
            language model reads text, and a served model has only tokens.
    """

    folder: str = SELF
    digest: str = ""
    words: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What a text is masked with.

    Attributes:
        size: Number of tokens.
        specials: Ids that are no text.
        mask: Id of the mask; None where the model has none.
    """

    size: int
    specials: frozenset[int]
    mask: int | None


class TextEncoder:
    """Reads texts and gives the mean of their hidden states, layer by layer.

    Args:
        model: Gives ``hidden_states``; hooks are put into it for good.
        linears: Names of its queries, keys and values.
        translate: Token ids as they come in -> its own.
        source: Where it comes from.
        causal: Whether a position sees only what stands before it. The first position, whose
            states are unlike all others, is then left out of the means.
        positions: Longest text, in its own tokens; the rest is not read.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        linears: Sequence[str],
        translate: Callable[[Ids], Ids] = list,
        *,
        source: Source,
        causal: bool,
        positions: int,
    ) -> None:
        self.model: PreTrainedModel = cast(Any, model).eval()
        self.linears, self.source, self.causal = tuple(linears), source, causal
        self._translate, self._positions = translate, positions
        for name in linears:
            hook = _Beside(self, name)
            model.get_submodule(name).register_forward_hook(hook)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.model.device

    def linear(self, name: str) -> nn.Module:
        """One of its queries, keys and values."""
        found: nn.Module = self.model.get_submodule(name)
        return found

    def tokens(self, ids: Ids) -> list[int]:
        """A text in its own tokens."""
        return list(self._translate(ids))[: self._positions] or [0]

    def read(self, rows: Sequence[Ids], beside: Parts) -> tuple[Any, Tensor]:
        """Its outputs on some rows of its own tokens, and which positions are real [B, T].

        Args:
            rows: Token ids.
            beside: What stands beside its linears meanwhile.
        """
        width = max(len(row) for row in rows)
        ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=self.device)
        lengths = torch.tensor([len(row) for row in rows], device=self.device)
        real = torch.arange(width, device=self.device) < lengths[:, None]
        off = torch.autocast(self.device.type, enabled=False)
        named = {"use_cache": False} if self.causal else {}
        with off, _reading(self, beside):
            outputs = self.model(
                input_ids=ids, attention_mask=real.long(), output_hidden_states=True, **named
            )
        return outputs, real

    def means(self, outputs: Any, real: Tensor) -> Tensor:
        """[B, 1 + L, d], means over the real positions of a row, of what `read` gave."""
        counted = real.clone()
        if self.causal:
            counted[:, 0] &= real.sum(1) == 1
        weights = counted / counted.sum(1, keepdim=True)
        states = [at_least_float32(states) for states in outputs.hidden_states]
        return torch.stack([(weights.to(one)[..., None] * one).sum(1) for one in states], 1)

    @torch.no_grad()
    def vectors(self, texts: Sequence[Ids], beside: Parts, batch: int = 32) -> Tensor:
        """[n, L, d], the means of texts as they come in, without those of the embedding."""
        rows = [self.tokens(text) for text in texts]
        order = sorted(range(len(rows)), key=lambda at: len(rows[at]))
        found: dict[int, Tensor] = {}
        for start in range(0, len(order), batch):
            places = order[start : start + batch]
            means = self.means(*self.read([rows[at] for at in places], beside))[:, 1:]
            found |= dict(zip(places, means, strict=True))
        return torch.stack([found[at] for at in range(len(rows))])

    def __deepcopy__(self, memo: dict[int, Any]) -> "TextEncoder":
        if not self.causal:
            return self  # a model of its own, which nothing changes
        made = copy.copy(self)
        memo[id(self)] = made
        made.model = copy.deepcopy(self.model, memo)
        return made


_READING: ContextVar[tuple[TextEncoder, Parts] | None] = ContextVar("reading", default=None)
"""Who reads, with what beside its linears: of this thread, whatever others do."""


@contextmanager
def _reading(encoder: TextEncoder, beside: Parts) -> Iterator[None]:
    before = _READING.set((encoder, beside))
    try:
        yield
    finally:
        _READING.reset(before)


@dataclass(frozen=True, slots=True)
class _Beside:
    """After a linear ran: add what stands beside it."""

    encoder: TextEncoder
    name: str

    def __call__(self, _: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
        reader, beside = _READING.get() or (None, {})
        if reader is not self.encoder or self.name not in beside:
            return output
        said: Tensor = beside[self.name](given[0])
        return output + said.to(output.dtype)


def own_encoder(model: PreTrainedModel) -> TextEncoder:
    """A causal model as its own encoder.

    Args:
        model: One in modules of its own, since hooks are put into it.
    """
    slots = Slots(model)
    names = [name for layer in range(len(slots)) for name in slots.names(layer, "attention_in")]
    return TextEncoder(model, names, source=Source(), causal=True, positions=1 << 30)


def inspect_encoder(folder: str | Path) -> Folder:
    """Look at the folder of a masked language model; no weights are loaded.

    Raises:
        ExpungeError: All problems at once; ``E-MODEL-007`` for a model that is none.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES as KNOWN

    found = inspect_folder(folder, fetch=False)
    raise_all(found.problems)
    kind = found.config.get("model_type")
    named = [str(name) for name in found.config.get("architectures") or ()]
    if kind not in KNOWN or (named and not any("MaskedLM" in name for name in named)):
        raise ExpungeError(
            "E-MODEL-007",
            f"{folder} holds a model of type {kind!r} ({', '.join(named) or 'no architecture'}).",
            "a masked language model, such as BERT or RoBERTa.",
            "Name the folder of one, or let the model be its own encoder.",
        )
    return found


def load_encoder(source: Source, device: torch.device) -> tuple[TextEncoder, Vocabulary]:
    """Load a masked language model.

    Args:
        source: Where it lies.
        device: Where it is to compute.

    Raises:
        ExpungeError: As `inspect_encoder`; ``E-MODEL-009`` when the folder holds other weights,
            ``E-MODEL-005`` for a tokenizer without a mask, ``E-MODEL-008`` when none of its linears
            makes queries, keys or values.
    """
    from transformers import AutoModelForMaskedLM

    folder = inspect_encoder(source.folder)
    if folder.digest != source.digest:
        raise ExpungeError(
            "E-MODEL-009",
            f"The encoder in {source.folder} has the hash {folder.digest[:16]}.",
            f"{source.digest[:16]}, the encoder the detector was fitted with.",
            "Put that one back, or make the change again.",
        )

    factory: Any = AutoModelForMaskedLM
    with quiet():
        model = factory.from_pretrained(
            str(folder.path), dtype=torch.float32, use_safetensors=True, trust_remote_code=False,
            local_files_only=True,
        )  # fmt: skip
    tokenizer: Any = load_tokenizer(folder)
    if tokenizer.mask_token_id is None:
        raise ExpungeError(
            "E-MODEL-005",
            f"The tokenizer in {folder.path} has no mask token.",
            "the tokenizer a masked language model was trained with.",
            "Put it into the folder, or let the model be its own encoder.",
        )
    names = [
        name
        for name, module in model.named_modules()
        if is_linear(module) and name.rpartition(".")[2] in LOOKING
    ]
    if not names:
        raise ExpungeError(
            "E-MODEL-008",
            f"No linear in {folder.path} is named like a query, key or value.",
            f"one of {', '.join(sorted(LOOKING))}.",
            "Use an encoder of another family.",
        )
    first = 1 + int(getattr(model.config, "pad_token_id", None) or 0)
    longest = int(getattr(model.config, "max_position_embeddings", 1 << 30)) - first
    translate = _Translated(Tokenizer.from_str(source.words), tokenizer)
    model = model.to(device).requires_grad_(False)
    encoder = TextEncoder(model, names, translate, source=source, causal=False, positions=longest)
    known = frozenset(tokenizer.all_special_ids)
    return encoder, Vocabulary(len(tokenizer), known, int(tokenizer.mask_token_id))


class _Translated:
    """From the tokens of one vocabulary to those of another, by the text they stand for."""

    def __init__(self, words: Tokenizer, tokenizer: Any) -> None:
        self._words, self._tokenizer = words, tokenizer

    def __call__(self, ids: Ids) -> Ids:
        text = self._words.decode(list(ids), skip_special_tokens=True)
        found: list[int] = self._tokenizer(text, verbose=False)["input_ids"]
        return found or [int(self._tokenizer.mask_token_id)]

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Translated":
        return self
