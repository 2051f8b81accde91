"""What reads the prompts of a request, and what of that is kept with the change."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from expunge.engine.runtime import twin
from expunge.engine.task import Task
from expunge.lm.encoders import (
    SELF,
    Source,
    TextEncoder,
    Vocabulary,
    inspect_encoder,
    load_encoder,
    own_encoder,
)
from expunge.methods.o3.detector import Detector

WORDS = "words"
"""Name of the tensor that holds the model's tokenizer, byte by byte."""


def asked_for(task: Task, folder: str) -> Source:
    """The source a request names."""
    if folder == SELF:
        return Source()
    tokenizer: Any = task.tokenizer
    return Source(folder, inspect_encoder(folder).digest, tokenizer.backend_tokenizer.to_str())


def opened(
    source: Source, model: PreTrainedModel, before: Sequence[Detector]
) -> tuple[TextEncoder, Vocabulary | None]:
    """The encoder of a source; that of an earlier request where it is the same.

    Args:
        source: Where it comes from.
        model: The model whose prompts it reads.
        before: Detectors that are there already.

    Returns:
        The encoder, and what masks its texts, unless it is the model itself.

    Raises:
        ExpungeError: As `load_encoder`.
    """
    known = next((one.encoder for one in before if one.encoder.source == source), None)
    if source.folder == SELF:
        return known or own_encoder(twin(model, bare=True)), None
    encoder, vocabulary = load_encoder(source, model.device)
    return known or encoder, vocabulary


def masking(task: Task) -> Vocabulary:
    """What masks texts of the model itself."""
    return Vocabulary(len(task.tokenizer), frozenset(task.tokenizer.all_special_ids), None)


def kept(source: Source) -> tuple[dict[str, str], dict[str, Tensor]]:
    """What a change keeps of a source: plain values, and tensors."""
    told = {"folder": source.folder, "digest": source.digest}
    if not source.words:
        return told, {}
    return told, {WORDS: torch.frombuffer(bytearray(source.words.encode()), dtype=torch.uint8)}


def read_source(told: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Source:
    """What `kept` gave."""
    words = tensors.get(WORDS)
    text = "" if words is None else bytes(words.cpu().numpy()).decode()
    return Source(str(told["folder"]), str(told["digest"]), text)
