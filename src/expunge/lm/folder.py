"""What lies in a model folder, found out without loading it and without torch.

A folder is a model, an adapter over a base, or a change written by ``forget`` or ``guard``. It may
come from a stranger: nothing in it is trusted, and every problem is reported at once.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from expunge.core.canonical import digest
from expunge.core.errors import ExpungeError
from expunge.core.limits import TEMPLATE_BYTES
from expunge.lm import folder_problems as check
from expunge.lm.folder_problems import ADAPTER, CHANGE, CONFIG, read_object
from expunge.lm.headers import Entry, read_header, weight_files

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """One folder, inspected.

    For an adapter or a guard, which have no model of their own, ``config`` and the facts after it
    are those of the base.

    Attributes:
        path: The folder.
        kind: What it is.
        holds: What its weights are: all of a model, an adapter, or none.
        config: The model's ``config.json``.
        manifest: ``change.json`` of a change.
        base: The folder this one builds on.
        problems: Everything that forbids using it.
        parameters: Number of parameters.
        bytes: Size of the weights.
        dtype: Type of most of them, as safetensors spells it.
        positions: Longest row in tokens, 0 when the model names none.
        chat_template: The template, when there is one.
        tensors: Names of the weights.
    """

    path: Path
    kind: Literal["model", "adapter", "change"]
    holds: Literal["model", "adapter", "none"]
    config: Mapping[str, Any] = field(default_factory=dict)
    manifest: Mapping[str, Any] | None = None
    base: Path | None = None
    problems: tuple[ExpungeError, ...] = ()
    parameters: int = 0
    bytes: int = 0
    dtype: str = ""
    positions: int = 0
    chat_template: str | None = None
    tensors: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Names the weights one gets by loading this folder; reads all of them."""
        from expunge.lm.digest import folder_digest

        if self.holds == "model" or self.base is None:
            return folder_digest(self.path)
        below = inspect_folder(self.base).digest
        return below if self.holds == "none" else digest([below, folder_digest(self.path)])


def inspect_folder(
    path: str | Path,
    *,
    messages: bool = False,
    adapter: bool = False,
    fetch: bool = True,
    _depth: int = 0,
) -> Folder:
    """Inspect a model folder; only configurations and weight headers are read.

    Args:
        path: The folder, or a hub id (which is fetched first).
        messages: Whether rows of chat messages are going to be used.
        adapter: Whether low-rank adapters are going to be trained on it.
        fetch: Whether it, and what it builds on, may be fetched from the hub.

    Returns:
        What was found, problems included; nothing is raised for them.
    """
    try:
        root = local_folder(path, fetch=fetch)
    except ExpungeError as error:
        return Folder(path=Path(path), kind="model", holds="model", problems=(error,))
    problems: list[ExpungeError] = list(check.remote_code(root))
    manifest = read_object(root / CHANGE, problems)
    problems += check.wrong_manifest(manifest)
    holds = _holds(root, manifest)
    problems += check.wrong_adapter(read_object(root / ADAPTER, problems))
    entries = _weights(root, holds, problems)
    base_path = _base_path(root, holds, manifest)
    base = None
    if base_path is not None and holds != "model":
        base = _inspect_base(base_path, _depth, problems, fetch)
    folder = Folder(
        path=root,
        kind="change" if manifest is not None else "adapter" if holds == "adapter" else "model",
        holds=holds,
        manifest=manifest,
        base=base_path,
        **(_facts(root, entries, problems) if base is None else _facts_of(base, root)),
    )
    if holds == "model":
        problems += check.no_tokenizer(root)
    if messages:
        problems += check.no_template(root, folder.chat_template)
    if adapter and holds == "model":
        problems += check.no_targets(root, entries)
    return replace(folder, problems=tuple(problems))


def local_folder(path: str | Path, *, fetch: bool = True) -> Path:
    """The folder itself, or a local copy of what a hub id names.

    A name whose first part is a folder here is a path, and never looked up on the hub.

    Raises:
        ExpungeError: ``E-MODEL-001`` when there is neither.
    """
    root = Path(path)
    if root.is_dir():
        return root
    if not fetch or not HUB_ID.fullmatch(str(path)) or root.parent.exists():
        raise check.not_found(root)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(path), allow_patterns=HUB_FILES))
    except Exception as error:
        raise ExpungeError(
            "E-MODEL-001",
            f"{path} is no folder, and fetching it from the hub failed: {str(error)[:300]}.",
            "a folder, or the id of a model this machine can reach.",
            "Check the spelling, the network and the access rights.",
        ) from error


def _holds(root: Path, manifest: Mapping[str, Any] | None) -> Literal["model", "adapter", "none"]:
    if manifest is not None and manifest.get("kind") == "guard":
        return "none"
    return "adapter" if (root / ADAPTER).is_file() else "model"


def _weights(root: Path, holds: str, problems: list[ExpungeError]) -> dict[str, Entry]:
    """Tensors of all weight files; what is wrong with them goes to ``problems``."""
    entries: dict[str, Entry] = {}
    if holds == "none":
        return entries
    try:
        for file in weight_files(root):
            entries.update(read_header(file))
    except ExpungeError as error:
        problems.append(error)
    else:
        problems += check.no_weights(root, entries)
    return entries


def _base_path(root: Path, holds: str, manifest: Mapping[str, Any] | None) -> Path | None:
    name: Any = None
    if manifest is not None:
        parent = manifest.get("parent")
        name = parent.get("path") if isinstance(parent, Mapping) else None
    elif holds == "adapter":
        name = (read_object(root / ADAPTER, []) or {}).get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        return None
    beside = root / name
    return beside if beside.is_dir() else Path(name)


def _inspect_base(
    path: Path, depth: int, problems: list[ExpungeError], fetch: bool
) -> Folder | None:
    if deep := list(check.too_deep(depth)):
        problems += deep
        return None
    base = inspect_folder(path, fetch=fetch, _depth=depth + 1)
    problems += base.problems
    return base


def _facts(
    root: Path, entries: Mapping[str, Entry], problems: list[ExpungeError]
) -> dict[str, Any]:
    """The fields of `Folder` that describe a model, from its own files."""
    config = read_object(root / CONFIG, problems)
    problems += check.no_config(root, config)
    config = config or {}
    text = config.get("text_config")
    text = text if isinstance(text, Mapping) else config
    sizes = (text.get(key) for key in ("max_position_embeddings", "n_positions", "n_ctx"))
    by_dtype: Counter[str] = Counter()
    for entry in entries.values():
        by_dtype[entry.dtype] += entry.bytes
    return {
        "config": config,
        "parameters": sum(entry.numel for entry in entries.values()),
        "bytes": sum(entry.bytes for entry in entries.values()),
        "dtype": max(by_dtype, key=by_dtype.__getitem__, default=""),
        "positions": next((size for size in sizes if type(size) is int), 0),
        "tensors": tuple(entries),
        "chat_template": _template(root, problems),
    }


def _facts_of(base: Folder, root: Path) -> dict[str, Any]:
    names = ("config", "parameters", "bytes", "dtype", "positions", "tensors")
    template = _template(root, []) or base.chat_template
    return {**{name: getattr(base, name) for name in names}, "chat_template": template}


def _template(root: Path, problems: list[ExpungeError]) -> str | None:
    file = root / "chat_template.jinja"
    if file.is_file() and file.stat().st_size <= TEMPLATE_BYTES:
        return file.read_text(encoding="utf-8", errors="replace")
    template = (read_object(root / "tokenizer_config.json", problems) or {}).get("chat_template")
    if isinstance(template, list):
        named = {t.get("name"): t.get("template") for t in template if isinstance(t, Mapping)}
        template = named.get("default")
    return template if isinstance(template, str) else None
