"""Whether two model folders speak in the same tokens, read from their files alone."""

from pathlib import Path
from typing import Any

from expunge.core.canonical import digest
from expunge.core.errors import ExpungeError
from expunge.lm.folder import Folder, inspect_folder
from expunge.lm.headers import read_json

TOKENIZER = "tokenizer.json"


def vocabulary(folder: Folder) -> str | None:
    """A hash of the tokens of a folder and their ids; None where the files do not tell."""
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
    return digest(sorted(tokens.items(), key=str)) if tokens else None


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
    """``E-MODEL-011`` when two models cannot be compared token by token."""
    one, two = vocabulary(folder), vocabulary(other)
    if one is None or two is None or one == two:
        return None
    return ExpungeError(
        "E-MODEL-011",
        f"{folder.path} and {other.path} have different vocabularies.",
        "models with the same tokenizer, since they are compared token by token.",
        "Compare models that were made from the same base model.",
    )
