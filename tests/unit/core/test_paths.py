"""Names stay inside their folder; a folder belongs to one run; locks die with their process."""

import fcntl
import os
import signal
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from expunge.core.errors import Exit, ExpungeError
from expunge.core.paths import free_disk, inside, locked

PIECES = ["..", ".", "/", "//", "\\", "\0", "C:", "a", "B", "link", "file", " ", "...", "~", "%2e"]
PIECES += ["\u2024", "\u2025", "\uff0e", "\uff0f", "\uff3c", "\ufe55", "\ud800", "\n", "x" * 256]
PIECES += ["loop", "up", "é", "\u202e", "\u200b", "CON"]
NAMES = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=8).map("".join)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with links that lead out, up, in a circle and to a place inside."""
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (tmp_path / "rootless").mkdir()
    (root / "link").symlink_to(tmp_path / "rootless")
    (root / "a" / "up").symlink_to("../..")
    (root / "loop").symlink_to("loop")
    (root / "within").symlink_to("a")
    return root


@settings(max_examples=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=NAMES)
def test_a_name_stays_inside_or_is_refused(root: Path, name: str) -> None:
    refused = None
    try:
        path = inside(root, name)
    except ExpungeError as error:
        refused = error
    if refused:
        assert (refused.code, refused.exit_code) == ("E-PATH-001", Exit.UNSAFE)
        assert str(refused).isprintable()
        return
    assert Path(os.path.realpath(root)) in path.parents
    assert os.path.realpath(path) == str(path)
    folded = unicodedata.normalize("NFKC", name)
    assert not {"..", ".", ""} & {part.strip(" .") for part in folded.split("/")}


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../rootless",
        "a/../../rootless",
        "/etc/passwd",
        "a//b",
        "a/",
        "a/.. ",
        "a/...",
        "C:/x",
        "c:x",
        "a\\..\\b",
        "\\\\host\\share",
        "a\0b",
        "a\nb",
        "\uff0e\uff0e/x",
        "\u2025/x",
        "a\uff0f..\uff0fb",
        "link/x",
        "link",
        "a/up/rootless",
        "x" * 256,
        "é" * 128,
        "a/" * 600 + "a",
        "\ud800",
    ],
)
def test_each_way_out_is_refused(root: Path, name: str) -> None:
    with pytest.raises(ExpungeError, match="E-PATH-001"):
        inside(root, name)


@pytest.mark.parametrize(
    "name", ["x", "a/b.json", ".hidden", "..x", "model-00001-of-00002.safetensors", "é/日本", "~"]
)
def test_an_honest_name_is_taken_as_it_is(root: Path, name: str) -> None:
    assert inside(root, name) == Path(os.path.realpath(root)) / name


def test_a_link_that_stays_inside_is_followed(root: Path) -> None:
    assert inside(root, "within/x") == Path(os.path.realpath(root)) / "a" / "x"


def test_a_root_that_is_a_link_or_not_there_yet_is_fine(root: Path) -> None:
    assert inside(root / "within", "x") == Path(os.path.realpath(root)) / "a" / "x"
    assert inside(root / "later", "x").parent.name == "later"
    assert inside("/", "etc") == Path(os.path.realpath("/etc"))


HOLDER = """
import sys, time
from expunge.core.paths import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_told_who_has_the_folder_and_a_killed_one_frees_it(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "run"
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        with pytest.raises(ExpungeError, match=f"E-USE-005.*process {child.pid}"), locked(folder):
            pytest.fail("two runs in one folder")
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate()
    with locked(folder):
        assert (folder / ".lock").read_text() == str(os.getpid())


def test_the_same_process_cannot_lock_twice_and_leaves_no_file(tmp_path: Path) -> None:
    with locked(tmp_path):
        with (
            pytest.raises(ExpungeError, match=f"E-USE-005.*process {os.getpid()}"),
            locked(tmp_path),
        ):
            pytest.fail("two runs in one folder")
        assert os.listdir(tmp_path) == [".lock"]
    assert os.listdir(tmp_path) == []
    with pytest.raises(KeyboardInterrupt), locked(tmp_path):
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_a_lock_file_of_a_stranger_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "outside")
    with pytest.raises(OSError, match="symbolic"), locked(tmp_path / "run"):
        pytest.fail("followed a link")
    assert (tmp_path / "outside").read_text() == "precious"


def test_a_lock_file_unlinked_between_opening_and_locking_is_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fcntl.flock
    calls: list[int] = []

    def flock(descriptor: int, operation: int) -> None:
        if not calls:
            (tmp_path / ".lock").unlink()  # the former holder leaves just now
        calls.append(operation)
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(tmp_path):
        assert calls == [fcntl.LOCK_EX | fcntl.LOCK_NB] * 2
        assert (tmp_path / ".lock").read_text() == str(os.getpid())


RIVAL = """
import os, sys
from expunge.core.errors import ExpungeError
from expunge.core.paths import locked
folder, marker = sys.argv[1:]
won = 0
while won < 150:
    try:
        with locked(folder):
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
            os.unlink(marker)
            won += 1
    except ExpungeError:
        pass
"""


def test_rivals_never_hold_the_folder_together(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RIVAL, str(tmp_path / "run"), str(tmp_path / "marker")]
    rivals = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    complaints = [rival.communicate(timeout=60)[1] for rival in rivals]
    assert [rival.returncode for rival in rivals] == [0, 0, 0], complaints


def test_free_disk_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    assert free_disk(tmp_path / "a" / "b") > 0
