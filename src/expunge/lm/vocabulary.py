"""Whether two model folders speak in the same tokens, read from their files alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from expunge.core.canonical import digest
from expunge.core.errors import ExpungeError
from expunge.lm.folder import Folder, inspect_folder
from expunge.lm.headers import read_json

TOKENIZER = "tokenizer.json"


def vocabulary(folder: Folder) -> str | None:
    """A hash of the tokens of a folder and their ids; None where the files do not tell."""
    tokens = _tokens(folder)
    return None if tokens is None else digest(sorted(tokens.items(), key=str))


def _tokens(folder: Folder) -> dict[str, Any] | None:
    """Token -> id; None where the files do not tell."""
    root = _where(folder)
    if root is None:
        return None
    try:
        told = read_json(root / TOKENIZER)
    except ExpungeError:
        return None
    tokens = _ids(told.get("model")) | {
        str(added.get("content")): added.get("id")
        for added in told.get("added_tokens") or ()
        if isinstance(added, dict)
    }
    return tokens or None


def is_part(one: Mapping[str, Any], two: Mapping[str, Any]) -> bool:
    """Whether one vocabulary (token -> id) is the other, or that with tokens added."""
    few, many = sorted((one, two), key=len)
    return all(token in many and many[token] == at for token, at in few.items())


def _where(folder: Folder) -> Path | None:
    """The folder itself, or the one it builds on."""
    if (folder.path / TOKENIZER).is_file():
        return folder.path
    return None if folder.base is None else _where(inspect_folder(folder.base))


def _ids(model: Any) -> dict[str, Any]:
    """Token -> id; a unigram model lists its tokens with their scores, in the order of the ids."""
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocab, dict):
        return dict(vocab)
    pairs = vocab if isinstance(vocab, list) else []
    return {str(pair[0]): at for at, pair in enumerate(pairs) if isinstance(pair, list) and pair}


def other_tokens(folder: Folder, other: Folder) -> ExpungeError | None:
    """``E-MODEL-011`` when two models cannot be compared token by token.

    One may have tokens that the other lacks (unlearning can add some), if all others are the same.
    """
    one, two = _tokens(folder), _tokens(other)
    if one is None or two is None:
        return None
    if is_part(one, two):
        return None
    return ExpungeError(
        "E-MODEL-011",
        f"{folder.path} and {other.path} have different vocabularies.",
        "models with the same tokenizer, since they are compared token by token.",
        "Compare models that were made from the same base model.",
    )
