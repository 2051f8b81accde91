"""The only door through which a model comes in.

Safetensors only, no code from the folder, hashes of changes checked. What a folder must not have is
refused before any library opens it.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from expunge.core.errors import ExpungeError, raise_all
from expunge.lm.digest import folder_digest
from expunge.lm.folder import Folder, inspect_folder
from expunge.lm.folder_problems import TOKENIZERS

DTYPES = {"F64": torch.float64, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A model that came through the door.

    Attributes:
        model: In evaluation mode; adapters are merged into its weights.
        tokenizer: Its tokenizer.
        path: The folder it came from.
        digest: Names the weights on disk (a run-time part is not in it).
        manifest: ``change.json`` when the folder is a change; its run-time part is attached by
            whoever serves or audits the model.
        stored_dtype: Precision of the weights on disk.
    """

    model: PreTrainedModel
    tokenizer: Tokenizer
    path: Path
    digest: str
    manifest: Mapping[str, Any] | None
    stored_dtype: torch.dtype


def load(
    path: str | Path, *, dtype: torch.dtype | None = None, device: str | None = None
) -> Loaded:
    """Load a causal language model with its tokenizer.

    Args:
        path: A folder (a model, an adapter, a change) or a hub id.
        dtype: Precision to compute in. Default: float32 on CPU, as stored elsewhere.
        device: Default: a CUDA device when there is one, else the CPU.

    Returns:
        The model in evaluation mode, with what is known about it.

    Raises:
        ExpungeError: Whatever `inspect_folder` finds, and ``E-MODEL-009`` when the weights of a
            change or of its parent are not those it was written with.
    """
    folder = inspect_folder(path)
    raise_all(folder.problems)
    verify(folder)
    stored = DTYPES.get(folder.dtype, torch.float32)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    wanted = dtype or (torch.float32 if device == "cpu" else stored)
    with quiet():
        model = _model(folder, wanted)
        tokenizer = _tokenizer(folder)
    _check_fit(model, tokenizer)
    return Loaded(
        model=model.to(torch.device(device)).eval(),  # type: ignore[arg-type]
        tokenizer=tokenizer,
        path=folder.path,
        digest=folder.digest,
        manifest=folder.manifest,
        stored_dtype=stored,
    )


def verify(folder: Folder) -> None:
    """Check that a change and its parent hold the weights the change was written with.

    The parent of a change that holds a whole model may be gone; what is there is checked.

    Raises:
        ExpungeError: ``E-MODEL-009``.
    """
    if folder.base is not None and folder.base.is_dir():
        base = inspect_folder(folder.base)
        verify(base)
        if folder.manifest is not None:
            _compare(folder.manifest, "parent", base.digest, base.path)
    if folder.manifest is not None and folder.holds != "none":
        _compare(folder.manifest, "result", folder_digest(folder.path), folder.path)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the libraries' progress bars and advice."""
    logger: Any = transformers.utils.logging
    level, bars = logger.get_verbosity(), logger.is_progress_bar_enabled()
    peft_logger = logging.getLogger("peft")
    peft_level = peft_logger.level
    logger.set_verbosity_error()
    logger.disable_progress_bar()
    peft_logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.set_verbosity(level)
        peft_logger.setLevel(peft_level)
        if bars:
            logger.enable_progress_bar()


def _model(folder: Folder, dtype: torch.dtype) -> PreTrainedModel:
    if folder.holds == "model":
        return _own_model(folder, dtype)
    base = _model(inspect_folder(_base(folder)), dtype)
    if folder.holds == "none":
        return base
    from peft import PeftModel

    adapted = PeftModel.from_pretrained(base, str(folder.path), local_files_only=True)
    merged: PreTrainedModel = adapted.merge_and_unload()
    return merged


def _own_model(folder: Folder, dtype: torch.dtype) -> PreTrainedModel:
    factory: Any = AutoModelForCausalLM
    model, info = factory.from_pretrained(
        str(folder.path),
        dtype=dtype,
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
        output_loading_info=True,
    )
    missing = sorted(info["missing_keys"]) + sorted(str(k) for k in info["mismatched_keys"])
    if missing:
        raise ExpungeError(
            "E-MODEL-002",
            f"{len(missing)} tensors are missing or of the wrong shape, first {missing[0]}.",
            "weights for every part of the model its configuration describes.",
            "Download or save the model again.",
        )
    loaded: PreTrainedModel = model
    return loaded


def load_tokenizer(folder: Folder) -> Tokenizer:
    """The tokenizer of an inspected folder, or of its base; loads no weights.

    Raises:
        ExpungeError: ``E-MODEL-005`` when it cannot be opened or gives no offsets.
    """
    with quiet():
        return _tokenizer(folder)


def _tokenizer(folder: Folder) -> Tokenizer:
    own = any((folder.path / name).is_file() for name in TOKENIZERS)
    if not own:
        return _tokenizer(inspect_folder(_base(folder)))
    try:
        tokenizer: Tokenizer = AutoTokenizer.from_pretrained(
            str(folder.path), trust_remote_code=False, local_files_only=True
        )
    except (ValueError, OSError, KeyError, TypeError, ImportError) as error:
        raise _bad_tokenizer(folder, str(error)[:200]) from error
    if not tokenizer.is_fast:
        raise _bad_tokenizer(folder, "it cannot say which characters a token stands for")
    return tokenizer


def _base(folder: Folder) -> Path:
    if folder.base is None:
        raise ExpungeError(
            "E-MODEL-002",
            f"{folder.path} does not say which model it belongs to.",
            "the path of a base model.",
            "Name the base in adapter_config.json or change.json.",
        )
    return folder.base


def _check_fit(model: PreTrainedModel, tokenizer: Tokenizer) -> None:
    embedding: Any = model.get_input_embeddings()
    rows = embedding.weight.shape[0]
    largest = max(tokenizer.get_vocab().values(), default=0)
    if largest >= rows:
        raise ExpungeError(
            "E-MODEL-011",
            f"The tokenizer has ids up to {largest}, the model {rows} embeddings.",
            "the tokenizer the model was trained with.",
            "Put the right tokenizer into the folder.",
        )


def _compare(manifest: Mapping[str, Any], which: str, found: str, path: Path) -> None:
    entry = manifest.get(which)
    expected = entry.get("digest") if isinstance(entry, Mapping) else None
    if found != expected:
        raise ExpungeError(
            "E-MODEL-009",
            f"The weights in {path} have the hash {found[:16]}.",
            f"{str(expected)[:16]}, the {which} of this change.",
            "Use the folders as they were written, or make the change again.",
        )


def _bad_tokenizer(folder: Folder, why: str) -> ExpungeError:
    return ExpungeError(
        "E-MODEL-005",
        f"The tokenizer in {folder.path} cannot be used: {why}.",
        "a fast tokenizer (tokenizer.json).",
        "Save the tokenizer again with a current version of transformers.",
    )
