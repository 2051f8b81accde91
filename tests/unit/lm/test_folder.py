import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from expunge.core.errors import ExpungeError
from expunge.lm.digest import folder_digest, model_digest
from expunge.lm.folder import inspect_folder
from expunge.lm.headers import read_header
from expunge.testing.tiny import tiny_model, tiny_tokenizer


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    tokenizer = tiny_tokenizer(["In Turin."], vocab=300)
    tiny_model("llama", vocab=len(tokenizer), positions=96).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "model"))


def edit(file: Path, **fields: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def codes(folder: Path, **options: bool) -> list[str]:
    return [problem.code for problem in inspect_folder(folder, **options).problems]


def test_a_sound_folder_is_described(folder: Path) -> None:
    found = inspect_folder(folder)
    assert found.problems == ()
    model = tiny_model("llama", vocab=found.config["vocab_size"])
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert found.bytes == 4 * found.parameters
    assert (found.dtype, found.positions, found.kind) == ("F32", 96, "model")
    assert (found.chat_template, found.base, found.holds) == (None, None, "model")
    assert found.digest == folder_digest(folder)


def test_inspecting_imports_no_torch(folder: Path) -> None:
    program = (
        "import sys, time; from expunge.lm.folder import inspect_folder; start = time.time();"
        f"assert not inspect_folder({str(folder)!r}, messages=False, adapter=True).problems;"
        "assert time.time() - start < 1; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_all_problems_come_at_once(folder: Path) -> None:
    edit(folder / "config.json", auto_map={"AutoModelForCausalLM": "evil.Model"})
    edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.T", None]})
    (folder / "tokenizer.json").unlink()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    expected = ["E-MODEL-004", "E-MODEL-004", "E-MODEL-003", "E-MODEL-005", "E-MODEL-006"]
    assert codes(folder, messages=True) == expected


def test_missing_things_are_named(folder: Path, tmp_path: Path) -> None:
    assert codes(tmp_path / "nowhere") == ["E-MODEL-001"]
    (tmp_path / "empty").mkdir()
    assert codes(tmp_path / "empty") == ["E-MODEL-002", "E-MODEL-002", "E-MODEL-005"]
    (folder / "config.json").write_text("{")
    assert set(codes(folder)) == {"E-MODEL-002"}


@pytest.mark.parametrize("content", ["[]", '{"model_type": 3}', "\xff", "[" * 100_000])
def test_a_broken_config_is_no_model(folder: Path, content: str) -> None:
    (folder / "config.json").write_bytes(content.encode("latin-1"))
    assert "E-MODEL-002" in codes(folder)


def test_a_template_is_found_in_either_place(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", chat_template="{{ messages }}")
    assert inspect_folder(folder, messages=True).chat_template == "{{ messages }}"
    (folder / "chat_template.jinja").write_text("{{ own }}")
    assert inspect_folder(folder, messages=True).chat_template == "{{ own }}"
    assert codes(folder, messages=True) == []


def test_adapters_need_linears_with_known_names(folder: Path, tmp_path: Path) -> None:
    assert codes(folder, adapter=True) == []
    write(folder / "model.safetensors", {"blocks.0.odd.weight": entry([2, 2], 0, 16)}, 16)
    assert codes(folder, adapter=True) == ["E-MODEL-008"]


@pytest.mark.parametrize(
    ("config", "library"),
    [("adapter_config.json", "os"), ("adapter_config.json", "evil.transformers")],
)
def test_an_adapter_may_not_import_a_library_of_its_choice(
    folder: Path, config: str, library: str
) -> None:
    mapping = {"base_model_class": "system", "parent_library": library}
    (folder / config).write_text(json.dumps({"auto_mapping": mapping}))
    assert "E-MODEL-004" in codes(folder)


def test_adapters_that_cannot_be_merged_are_refused(folder: Path) -> None:
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "PROMPT_TUNING"}))
    assert "E-MODEL-007" in codes(folder)


def index(folder: Path, *shards: str) -> None:
    table = {f"w{n}": shard for n, shard in enumerate(shards)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "a/../../b", ".."])
def test_an_index_that_leaves_the_folder_is_refused(folder: Path, name: str) -> None:
    index(folder, name)
    assert codes(folder) == ["E-PATH-001"]


def test_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").rename(tmp_path / "elsewhere")
    (folder / "model.safetensors").symlink_to(tmp_path / "elsewhere")
    assert codes(folder) == ["E-PATH-001"]


def test_the_store_of_a_hub_cache_is_part_of_the_folder(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "repo" / "blobs").mkdir(parents=True)
    (tmp_path / "repo" / "snapshots").mkdir()
    snapshot = folder.rename(tmp_path / "repo" / "snapshots" / "abc")
    blob = (snapshot / "model.safetensors").rename(tmp_path / "repo" / "blobs" / "123")
    (snapshot / "model.safetensors").symlink_to(os.path.relpath(blob, snapshot))
    assert codes(snapshot) == []


def test_a_missing_shard_and_a_broken_index_are_named(folder: Path) -> None:
    index(folder, "model.safetensors", "gone.safetensors")
    assert codes(folder) == ["E-MODEL-002"]
    (folder / "model.safetensors.index.json").write_text('{"weight_map": [1]}')
    assert codes(folder) == ["E-MODEL-002"]


def entry(shape: Any, start: Any, end: Any, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def write(file: Path, header: object, size: int) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + bytes(size))


HOSTILE: dict[str, tuple[object, int]] = {
    "overlap": ({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, 12),
    "gap": ({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}, 12),
    "beyond the end": ({"a": entry([4], 0, 16)}, 8),
    "bytes left over": ({"a": entry([1], 0, 4)}, 8),
    "shape too large": ({"a": entry([2**40, 2**40], 0, 4)}, 4),
    "negative shape": ({"a": entry([-1, -1], 0, 4)}, 4),
    "negative offset": ({"a": entry([1], -4, 0)}, 4),
    "shape of fractions": ({"a": entry([1.0], 0, 4)}, 4),
    "shape of truths": ({"a": entry([True], 0, 4)}, 4),
    "unknown type": ({"a": entry([1], 0, 4, "PICKLE")}, 4),
    "type is a list": ({"a": entry([1], 0, 4, ["F32"])}, 4),
    "a list": ([1, 2], 0),
    "tensor is text": ({"a": "F32"}, 0),
    "no JSON": (b"{", 0),
    "no text": (b"\xff\xfe", 0),
    "one name twice": (b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{}}', 0),
    "deep": (b"[" * 200_000, 0),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_headers_are_refused(tmp_path: Path, case: str) -> None:
    header, size = HOSTILE[case]
    write(tmp_path / "x.safetensors", header, size)
    with pytest.raises(ExpungeError) as caught:
        read_header(tmp_path / "x.safetensors")
    assert caught.value.code == "E-MODEL-010"


@pytest.mark.parametrize("length", [0, 5, 101_000_000, 2**63])
def test_lengths_that_cannot_be_are_refused(tmp_path: Path, length: int) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(struct.pack("<Q", length) if length else b"abc")
    with pytest.raises(ExpungeError):
        read_header(file)


def test_digest_on_disk_equals_digest_in_memory(family: str, tmp_path: Path) -> None:
    model = tiny_model(family)
    model.save_pretrained(tmp_path)
    is_renamed = family == "gpt_neox"  # lm_head is embed_out on disk
    assert (folder_digest(tmp_path) == model_digest(model)) != is_renamed


def test_digest_does_not_depend_on_the_files_but_on_every_bit(tmp_path: Path) -> None:
    model = tiny_model("llama", vocab=300)
    model.save_pretrained(tmp_path / "one")
    model.save_pretrained(tmp_path / "many", max_shard_size="40KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 2
    digest = folder_digest(tmp_path / "one")
    assert folder_digest(tmp_path / "many") == digest
    file = tmp_path / "one" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert folder_digest(tmp_path / "one") != digest


def test_digest_sees_names_types_and_shapes() -> None:
    from expunge.lm.digest import tensors_digest

    torch: Callable[..., Any] = pytest.importorskip("torch")
    zeros = torch.zeros  # type: ignore[attr-defined]
    states = [{"a": zeros(4)}, {"b": zeros(4)}, {"a": zeros(2, 2)}, {"a": zeros(4).int()}]
    assert len({tensors_digest(state) for state in states}) == 4


def test_a_circle_of_changes_ends(folder: Path) -> None:
    manifest = {
        "format": "unlearning-change/1",
        "kind": "guard",
        "parent": {"path": str(folder), "digest": "x"},
    }
    (folder / "change.json").write_text(json.dumps(manifest))
    assert "E-MODEL-002" in codes(folder)


def test_tokenizers_of_words_and_of_bytes_restore_the_text(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    text = "In Turin, not Malmo."
    for kind in ("bpe", "word"):
        made = tiny_tokenizer([text], kind=kind)  # type: ignore[arg-type]
        ids = made(text)["input_ids"]
        assert (made.pad_token_id, ids[0], made.eos_token_id) == (0, 1, 2)
        assert made.decode(ids, skip_special_tokens=True) == text
    assert len(tiny_tokenizer([text], kind="word")(text)["input_ids"]) == 1 + 6


def test_a_hub_id_is_fetched_and_then_a_folder_like_any_other(tmp_path, monkeypatch):
    tiny_model("llama").save_pretrained(tmp_path / "copy")
    asked = []

    def fetch(name, allow_patterns):
        asked.append((name, "*.safetensors" in allow_patterns, "*.bin" in allow_patterns))
        return str(tmp_path / "copy")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    monkeypatch.chdir(tmp_path)
    folder = inspect_folder("somebody/model")
    assert asked == [("somebody/model", True, False)]
    assert folder.path == tmp_path / "copy"
    assert folder.parameters > 0


def test_a_path_that_only_looks_like_a_hub_id_is_never_looked_up(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("asked"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    assert [p.code for p in inspect_folder("models/typo").problems] == ["E-MODEL-001"]
