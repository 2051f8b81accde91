"""What lies in a model folder, found out without loading it and without torch.

A folder is a model, an adapter over a base, or a change written by ``forget`` or ``guard``. It may
come from a stranger: nothing in it is trusted, and every problem is reported at once.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from expunge.core.canonical import digest
from expunge.core.errors import ExpungeError
from expunge.core.limits import TEMPLATE_BYTES
from expunge.lm.arch import LAYOUTS
from expunge.lm.headers import Entry, read_header, read_json, weight_files

CHANGE = "change.json"
CHANGE_FORMAT = "unlearning-change/1"
ADAPTER = "adapter_config.json"
CONFIG = "config.json"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
CHANGE_KINDS = ("checkpoint", "adapter", "guard")

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")
CODE_KEYS = ("auto_map", "custom_pipelines", "custom_generate")
CONFIGS = (
    CONFIG,
    "tokenizer_config.json",
    "generation_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    ADAPTER,
)
STACK = 8
"""Most changes one may find on top of another."""


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
    path: str | Path, *, messages: bool = False, adapter: bool = False, _depth: int = 0
) -> Folder:
    """Inspect a model folder; only configurations and weight headers are read.

    Args:
        path: The folder, or a hub id (which is fetched first).
        messages: Whether rows of chat messages are going to be used.
        adapter: Whether low-rank adapters are going to be trained on it.

    Returns:
        What was found, problems included; nothing is raised for them.
    """
    try:
        root = local_folder(path)
    except ExpungeError as error:
        return Folder(path=Path(path), kind="model", holds="model", problems=(error,))
    problems: list[ExpungeError] = list(_remote_code(root))
    manifest = _read(root / CHANGE, problems)
    problems += _wrong_manifest(manifest)
    holds = _holds(root, manifest)
    problems += _wrong_adapter(root)
    entries = _weights(root, holds, problems)
    base_path = _base_path(root, holds, manifest)
    base = None
    if base_path is not None and holds != "model":
        base = _inspect_base(base_path, _depth, problems)
    folder = Folder(
        path=root,
        kind="change" if manifest is not None else "adapter" if holds == "adapter" else "model",
        holds=holds,
        manifest=manifest,
        base=base_path,
        **(_facts(root, entries, problems) if base is None else _facts_of(base, root)),
    )
    if holds == "model":
        problems += _no_tokenizer(root)
    if messages and folder.chat_template is None:
        problems.append(_no_template(root))
    if adapter and holds == "model" and entries and not _has_linears(entries):
        problems.append(_no_targets(root))
    return replace(folder, problems=tuple(problems))


def local_folder(path: str | Path) -> Path:
    """The folder itself, or a local copy of what a hub id names.

    A name whose first part is a folder here is a path, and never looked up on the hub.

    Raises:
        ExpungeError: ``E-MODEL-001`` when there is neither.
    """
    root = Path(path)
    if root.is_dir():
        return root
    if not HUB_ID.fullmatch(str(path)) or root.parent.exists():
        raise _not_found(root)
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


def _read(file: Path, problems: list[ExpungeError]) -> dict[str, Any] | None:
    """A JSON object, or None when there is no such file or it is broken (then a problem)."""
    if not file.is_file():
        return None
    try:
        return read_json(file)
    except ExpungeError as error:
        problems.append(error)
        return None


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
        if not entries:
            problems.append(_no_weights(root))
    return entries


def _base_path(root: Path, holds: str, manifest: Mapping[str, Any] | None) -> Path | None:
    name: Any = None
    if manifest is not None:
        parent = manifest.get("parent")
        name = parent.get("path") if isinstance(parent, Mapping) else None
    elif holds == "adapter":
        name = (_read(root / ADAPTER, []) or {}).get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        return None
    beside = root / name
    return beside if beside.is_dir() else Path(name)


def _inspect_base(path: Path, depth: int, problems: list[ExpungeError]) -> Folder | None:
    if depth >= STACK:
        problems.append(
            ExpungeError(
                "E-MODEL-002",
                f"More than {STACK} changes on top of each other, or a circle of them.",
                "a change whose parents end at a model.",
                "Merge some of the changes first.",
            )
        )
        return None
    base = inspect_folder(path, _depth=depth + 1)
    problems += base.problems
    return base


def _facts(
    root: Path, entries: Mapping[str, Entry], problems: list[ExpungeError]
) -> dict[str, Any]:
    """The fields of `Folder` that describe a model, from its own files."""
    config = _read(root / CONFIG, problems)
    if config is None or not isinstance(config.get("model_type"), str):
        problems.append(_no_config(root))
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
    template = (_read(root / "tokenizer_config.json", problems) or {}).get("chat_template")
    if isinstance(template, list):
        named = {t.get("name"): t.get("template") for t in template if isinstance(t, Mapping)}
        template = named.get("default")
    return template if isinstance(template, str) else None


def _remote_code(root: Path) -> Iterator[ExpungeError]:
    for name in CONFIGS:
        ignored: list[ExpungeError] = []
        config = _read(root / name, ignored) or {}
        for key in CODE_KEYS:
            if config.get(key):
                yield _runs_code(f"{name} asks for code of its own ({key})")
        mapping = config.get("auto_mapping") if name == ADAPTER else None
        if isinstance(mapping, Mapping):
            library = str(mapping.get("parent_library", "transformers"))
            if library.split(".", maxsplit=1)[0] != "transformers":
                yield _runs_code(f"{name} asks to import {library[:100]!r}")
    if (root / "custom_generate").is_dir():
        yield _runs_code("the folder has a custom_generate program")


def _wrong_manifest(manifest: Mapping[str, Any] | None) -> Iterator[ExpungeError]:
    if manifest is None:
        return
    if manifest.get("format") != CHANGE_FORMAT or manifest.get("kind") not in CHANGE_KINDS:
        yield ExpungeError(
            "E-MODEL-002",
            f"{CHANGE} has format {manifest.get('format')!r}, kind {manifest.get('kind')!r}.",
            f"format {CHANGE_FORMAT!r} and one of the kinds {', '.join(CHANGE_KINDS)}.",
            "Use a version of expunge that knows this format.",
        )
    elif not isinstance(manifest.get("parent"), Mapping):
        yield ExpungeError(
            "E-MODEL-002",
            f"{CHANGE} names no parent.",
            'a field "parent" with path and digest.',
            "Write the change again with forget or guard.",
        )


def _wrong_adapter(root: Path) -> list[ExpungeError]:
    problems: list[ExpungeError] = []
    config = _read(root / ADAPTER, problems)
    if config is not None and config.get("peft_type") != "LORA":
        problems.append(
            ExpungeError(
                "E-MODEL-007",
                f"{ADAPTER} describes an adapter of the type {config.get('peft_type')!r}.",
                "a low-rank adapter (LORA), which can be merged into its base.",
                "Merge the adapter into its base with the library that made it.",
            )
        )
    return problems


def _no_tokenizer(root: Path) -> Iterator[ExpungeError]:
    if not any((root / name).is_file() for name in TOKENIZERS):
        yield ExpungeError(
            "E-MODEL-005",
            f"No tokenizer in {root}.",
            f"one of {', '.join(TOKENIZERS)}.",
            "Save the tokenizer beside the model.",
        )


def _has_linears(entries: Mapping[str, Entry]) -> bool:
    leaves = {leaf for layout in LAYOUTS for leaf in layout.leaves}
    return any(
        name.split(".")[-2:-1] and name.split(".")[-2] in leaves and len(entry.shape) == 2
        for name, entry in entries.items()
    )


def _not_found(root: Path) -> ExpungeError:
    return ExpungeError(
        "E-MODEL-001",
        f"There is no folder {root}.",
        "a folder with a model in Hugging Face format, or a hub id.",
        "Check the path.",
    )


def _no_config(root: Path) -> ExpungeError:
    return ExpungeError(
        "E-MODEL-002",
        f"{root} has no {CONFIG} that names a model type.",
        "a model in Hugging Face format, an adapter with its base, or a change folder.",
        "Give the folder that save_pretrained or expunge wrote.",
    )


def _no_weights(root: Path) -> ExpungeError:
    return ExpungeError(
        "E-MODEL-002",
        f"{root} has no weights.",
        "model.safetensors, its shards with their index, or adapter_model.safetensors.",
        "Download or save the model again.",
    )


def _no_template(root: Path) -> ExpungeError:
    return ExpungeError(
        "E-MODEL-006",
        f"The tokenizer in {root} has no chat template, but rows are chat messages.",
        "a chat template in tokenizer_config.json or chat_template.jinja.",
        "Give rows with prompt and completion, or add the template the model was trained with.",
    )


def _no_targets(root: Path) -> ExpungeError:
    return ExpungeError(
        "E-MODEL-008",
        f"No linear module in {root} has a name that adapters are put on.",
        f"a model of: {'; '.join(layout.families for layout in LAYOUTS)}.",
        "Leave out --adapter to change the weights themselves.",
    )


def _runs_code(why: str) -> ExpungeError:
    return ExpungeError(
        "E-MODEL-004",
        f"This folder wants to run code when opened: {why}.",
        "a model that the installed libraries can open by themselves.",
        "Use a copy without it, after reading what it does.",
    )
