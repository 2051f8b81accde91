"""What forbids using a model folder: every check, and its words.

A check yields problems and raises nothing, so that all of a folder are reported at once.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from expunge.core.errors import ExpungeError
from expunge.lm.arch import LAYOUTS
from expunge.lm.headers import Entry, read_json

CHANGE = "change.json"
CHANGE_FORMAT = "unlearning-change/1"
CHANGE_KINDS = ("checkpoint", "adapter", "guard")
ADAPTER = "adapter_config.json"
CONFIG = "config.json"
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


def read_object(file: Path, problems: list[ExpungeError]) -> dict[str, Any] | None:
    """A JSON object, or None when there is no such file or it is broken (then a problem)."""
    if not file.is_file():
        return None
    try:
        return read_json(file)
    except ExpungeError as error:
        problems.append(error)
        return None


def remote_code(root: Path) -> Iterator[ExpungeError]:
    """``E-MODEL-004``: opening it would run code that came with it."""
    for name in CONFIGS:
        config = read_object(root / name, []) or {}
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


def _runs_code(why: str) -> ExpungeError:
    return ExpungeError(
        "E-MODEL-004",
        f"This folder wants to run code when opened: {why}.",
        "a model that the installed libraries can open by themselves.",
        "Use a copy without it, after reading what it does.",
    )


def not_found(root: Path) -> ExpungeError:
    """``E-MODEL-001``: neither a folder nor a name that could be one's on the hub."""
    return ExpungeError(
        "E-MODEL-001",
        f"There is no folder {root}.",
        "a folder with a model in Hugging Face format, or a hub id.",
        "Check the path.",
    )


def wrong_manifest(manifest: Mapping[str, Any] | None) -> Iterator[ExpungeError]:
    """``E-MODEL-002``: a change of another format or kind, or without a parent."""
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


def too_deep(depth: int) -> Iterator[ExpungeError]:
    """``E-MODEL-002``: below ``depth`` changes there is still no model."""
    if depth >= STACK:
        yield ExpungeError(
            "E-MODEL-002",
            f"More than {STACK} changes on top of each other, or a circle of them.",
            "a change whose parents end at a model.",
            "Merge some of the changes first.",
        )


def no_config(root: Path, config: Mapping[str, Any] | None) -> Iterator[ExpungeError]:
    """``E-MODEL-002``: nothing says what kind of model it is."""
    if config is None or not isinstance(config.get("model_type"), str):
        yield ExpungeError(
            "E-MODEL-002",
            f"{root} has no {CONFIG} that names a model type.",
            "a model in Hugging Face format, an adapter with its base, or a change folder.",
            "Give the folder that save_pretrained or expunge wrote.",
        )


def no_weights(root: Path, entries: Mapping[str, Entry]) -> Iterator[ExpungeError]:
    """``E-MODEL-002``: its weight files hold no tensor, or there is none."""
    if not entries:
        yield ExpungeError(
            "E-MODEL-002",
            f"{root} has no weights.",
            "model.safetensors, its shards with their index, or adapter_model.safetensors.",
            "Download or save the model again.",
        )


def no_tokenizer(root: Path) -> Iterator[ExpungeError]:
    """``E-MODEL-005``: no file of a tokenizer."""
    if not any((root / name).is_file() for name in TOKENIZERS):
        yield ExpungeError(
            "E-MODEL-005",
            f"No tokenizer in {root}.",
            f"one of {', '.join(TOKENIZERS)}.",
            "Save the tokenizer beside the model.",
        )


def no_template(root: Path, template: str | None) -> Iterator[ExpungeError]:
    """``E-MODEL-006``: rows are chat messages, and nothing says how they are written."""
    if template is None:
        yield ExpungeError(
            "E-MODEL-006",
            f"The tokenizer in {root} has no chat template, but rows are chat messages.",
            "a chat template in tokenizer_config.json or chat_template.jinja.",
            "Give rows with prompt and completion, or add the template the model was trained with.",
        )


def wrong_adapter(config: Mapping[str, Any] | None) -> Iterator[ExpungeError]:
    """``E-MODEL-007``: an adapter that is not low-rank."""
    if config is not None and config.get("peft_type") != "LORA":
        yield ExpungeError(
            "E-MODEL-007",
            f"{ADAPTER} describes an adapter of the type {config.get('peft_type')!r}.",
            "a low-rank adapter (LORA), which can be merged into its base.",
            "Merge the adapter into its base with the library that made it.",
        )


def no_targets(root: Path, entries: Mapping[str, Entry]) -> Iterator[ExpungeError]:
    """``E-MODEL-008``: weights, but none that an adapter could be put on."""
    if entries and not _has_linears(entries):
        yield ExpungeError(
            "E-MODEL-008",
            f"No linear module in {root} has a name that adapters are put on.",
            f"a model of: {'; '.join(layout.families for layout in LAYOUTS)}.",
            "Leave out --adapter to change the weights themselves.",
        )


def _has_linears(entries: Mapping[str, Entry]) -> bool:
    leaves = {leaf for layout in LAYOUTS for leaf in layout.leaves}
    return any(
        name.split(".")[-2:-1] and name.split(".")[-2] in leaves and len(entry.shape) == 2
        for name, entry in entries.items()
    )
