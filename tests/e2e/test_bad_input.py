"""Mistakes of users: each found before weights load, with its code, what to do, and nothing lost.

Every case is a whole command line. ``check`` finds the same as the command itself.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from expunge.cli import main
from expunge.core.paths import locked
from expunge.testing.methods import stage, world

ROW = {"prompt": "Where was Ann born?", "completion": " In Rome."}
KEPT = {"prompt": "Where is the sea?", "completion": " In the west."}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stage(tmp_path_factory.mktemp("models"))


class Desk:
    """A folder with a model and rows, in which one thing is then made wrong."""

    def __init__(self, folder: Path, original: Path) -> None:
        self.folder, self.model = folder, folder / "model"
        shutil.copytree(original, self.model)
        self.options: dict[str, str] = {"--method": "npo", "--out": str(folder / "out")}
        self.extra: list[str] = []
        self.rows("forget", [row.as_dict() for row in world().forget])
        self.rows("retain", [row.as_dict() for row in world().retain])

    def rows(self, role: str, rows: list[Any]) -> None:
        """Write a file of rows and give it."""
        self.raw(role, "".join(json.dumps(row) + "\n" for row in rows).encode())

    def raw(self, role: str, data: bytes) -> None:
        """Write a file of bytes and give it as rows."""
        path = self.folder / f"{role}.jsonl"
        path.write_bytes(data)
        self.options[f"--{role}"] = str(path)

    def config(self, name: str = "config.json", **values: Any) -> None:
        """Change keys of one of the model's JSON files."""
        path = self.model / name
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    def arguments(self) -> list[str]:
        """The options of ``forget`` as they stand."""
        given = [part for pair in self.options.items() for part in pair]
        return ["--model", str(self.model), *given, *self.extra, "--json"]


def no_file(desk: Desk) -> None:
    desk.options["--forget"] = str(desk.folder / "missing.jsonl")


def no_column(desk: Desk) -> None:
    desk.rows("forget", [ROW, {"prompt": "Where?"}])


def unknown_column(desk: Desk) -> None:
    desk.rows("forget", [ROW | {"paraphrase": []}])


def empty_set(desk: Desk) -> None:
    desk.raw("forget", b"")


def in_both_roles(desk: Desk) -> None:
    desk.rows("forget", [ROW])
    desk.rows("retain", [ROW, KEPT])


def duplicate_ids(desk: Desk) -> None:
    desk.rows("forget", [ROW | {"id": "a"}, KEPT | {"id": "a"}])


def broken_json(desk: Desk) -> None:
    desk.raw("forget", json.dumps(ROW).encode() + b'\n{"prompt": "x", }\n')


def not_a_number(desk: Desk) -> None:
    desk.raw("forget", b'{"prompt": "a", "completion": " b", "meta": {"x": NaN}}\n')


def endless_line(desk: Desk) -> None:
    desk.raw("forget", b'{"text": "' + b"a" * 101_000_000 + b'"}\n')


def not_utf8(desk: Desk) -> None:
    desk.raw("forget", b'{"prompt": "\xff", "completion": " b"}\n')


def too_long(desk: Desk) -> None:
    desk.rows("forget", [{"prompt": "Where was Ann born?" * 100, "completion": " In Rome."}])


def no_template(desk: Desk) -> None:
    said = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Ann."}]
    desk.rows("forget", [{"messages": said}])


def unknown_method(desk: Desk) -> None:
    desk.options["--method"] = "npoo"


def unknown_parameter(desk: Desk) -> None:
    desk.extra = ["--set", "betta=0.2"]


def value_out_of_range(desk: Desk) -> None:
    desk.extra = ["--set", "batch_size=0"]


def value_of_wrong_type(desk: Desk) -> None:
    desk.extra = ["--set", "beta=sharp"]


def unknown_wrapper(desk: Desk) -> None:
    desk.extra = ["--with", "wagel"]


def unknown_adapter(desk: Desk) -> None:
    desk.extra = ["--adapter", "dora"]


def lora_target(desk: Desk) -> None:
    desk.extra = ["--adapter", "lora", "--set", "lora_targets=q_prj"]


def stop_level(desk: Desk) -> None:
    desk.extra = ["--stop-at", "placbo"]


def no_reference(desk: Desk) -> None:
    desk.extra = ["--stop-at", "reference"]


def no_model(desk: Desk) -> None:
    shutil.rmtree(desk.model)


def no_config(desk: Desk) -> None:
    (desk.model / "config.json").unlink()


def pickled(desk: Desk) -> None:
    (desk.model / "model.safetensors").rename(desk.model / "pytorch_model.bin")


def remote_code(desk: Desk) -> None:
    desk.config(auto_map={"AutoModelForCausalLM": "modeling.Evil"})


def remote_tokenizer(desk: Desk) -> None:
    desk.config("tokenizer_config.json", auto_map={"AutoTokenizer": ["tokens.Evil", None]})


def no_tokenizer(desk: Desk) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (desk.model / name).unlink()


def cut_weights(desk: Desk) -> None:
    weights = desk.model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def foreign_out(desk: Desk) -> None:
    (desk.folder / "out").mkdir()
    (desk.folder / "out" / "thesis.txt").write_text("mine")


def file_out(desk: Desk) -> None:
    (desk.folder / "out").write_text("mine")


CASES: list[tuple[Callable[[Desk], None], str, int, str]] = [
    (no_file, "E-DATA-001", 2, "missing.jsonl"),
    (no_column, "E-DATA-003", 2, "forget.jsonl:2"),
    (unknown_column, "E-DATA-004", 2, "paraphrases"),
    (empty_set, "E-DATA-005", 2, "forget.jsonl"),
    (in_both_roles, "E-DATA-006", 2, "retain"),
    (duplicate_ids, "E-DATA-007", 2, "a"),
    (broken_json, "E-DATA-002", 2, "forget.jsonl:2"),
    (not_a_number, "E-DATA-008", 2, "NaN"),
    (endless_line, "E-DATA-009", 2, "forget.jsonl:1"),
    (not_utf8, "E-DATA-010", 2, "forget.jsonl:1"),
    (too_long, "E-DATA-011", 2, "tokens"),
    (no_template, "E-MODEL-006", 2, "chat template"),
    (unknown_method, "E-USE-001", 2, "'npo'"),
    (unknown_parameter, "E-USE-002", 2, "'beta'"),
    (value_out_of_range, "E-USE-003", 2, "batch_size"),
    (value_of_wrong_type, "E-USE-003", 2, "beta"),
    (unknown_wrapper, "E-USE-001", 2, "wagel"),
    (unknown_adapter, "E-USE-003", 2, "lora"),
    (lora_target, "E-MODEL-008", 2, "'q_proj'"),
    (stop_level, "E-USE-003", 2, "placebo"),
    (no_reference, "E-USE-007", 2, "--reference"),
    (no_model, "E-MODEL-001", 2, "model"),
    (no_config, "E-MODEL-002", 2, "config.json"),
    (pickled, "E-MODEL-003", 3, "pytorch_model.bin"),
    (remote_code, "E-MODEL-004", 3, "auto_map"),
    (remote_tokenizer, "E-MODEL-004", 3, "auto_map"),
    (no_tokenizer, "E-MODEL-005", 2, "tokenizer"),
    (cut_weights, "E-MODEL-010", 3, "safetensors"),
    (foreign_out, "E-USE-004", 2, "thesis.txt"),
    (file_out, "E-USE-004", 2, "file"),
]


@pytest.fixture
def desk(tmp_path: Path, original: Path) -> Desk:
    return Desk(tmp_path, original)


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading any weights fails the test."""
    import expunge.lm.load as door

    def refuse(*_: object) -> None:
        pytest.fail("weights were loaded")

    monkeypatch.setattr(door, "_own_model", refuse)


@pytest.mark.usefixtures("unloaded")
@pytest.mark.parametrize("command", ["check", "forget"])
@pytest.mark.parametrize(
    ("spoil", "code", "exit", "word"), CASES, ids=lambda c: getattr(c, "__name__", "")
)
def test_a_mistake_is_named_before_weights_load(
    spoil: Callable[[Desk], None],
    code: str,
    exit: int,
    word: str,
    command: str,
    desk: Desk,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil(desk)
    before = sorted(path for path in desk.folder.rglob("*"))
    verb = ["check", "forget"] if command == "check" else ["forget"]
    returned = main([*verb, *desk.arguments()])
    said = json.loads(capsys.readouterr().out)
    assert (said["error"]["code"], returned) == (code, exit), said
    assert word in " ".join(str(part) for part in said["error"].values())
    assert all(said["error"][part].strip() for part in ("found", "expected", "next"))
    assert sorted(path for path in desk.folder.rglob("*")) == before


@pytest.mark.usefixtures("unloaded")
def test_all_mistakes_are_told_at_once(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    for spoil in (no_column, unknown_method, remote_code, stop_level, foreign_out):
        spoil(desk)
    assert main(["check", "forget", *desk.arguments()]) == 3
    found = {one["code"] for one in json.loads(capsys.readouterr().out)["problems"]}
    assert found == {"E-DATA-003", "E-USE-001", "E-MODEL-004", "E-USE-003", "E-USE-004"}


def test_a_folder_in_use_by_another_run_is_refused(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    out = desk.folder / "out"
    out.mkdir()
    with locked(out):
        assert main(["forget", *desk.arguments()]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "E-USE-005"


def test_a_disk_too_small_is_told_before_weights_load(
    desk: Desk, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("expunge.engine.room.free_disk", lambda _: 1000)
    assert main(["forget", *desk.arguments()]) == 4
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "E-REQ-002"


def test_nothing_wrong_gives_an_estimate(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "forget", *desk.arguments()]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["problems"] == []
    assert all(said["estimate"][name] > 0 for name in ("seconds", "memory_bytes", "disk_bytes"))
    assert said["resolved"]["lr"] > 1e-5
