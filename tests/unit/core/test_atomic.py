"""A file is old or new, never half, whatever fails and whenever."""

import builtins
import errno
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from expunge.core import atomic
from expunge.core.errors import ExpungeError

FAULTS = [
    OSError(errno.ENOSPC, "disk full"),
    OSError(errno.EIO, "broken disk"),
    OSError(errno.EINTR, "interrupted call"),
    KeyboardInterrupt(),
]


class Shim:
    """Stands for `os` and `open` inside the module and fails at the n-th call that counts.

    The fault comes before the call, or after it has had its effect.
    """

    counted = ("open", "chmod", "fsync", "replace")

    def __init__(self, fault: BaseException, at: int, after: bool) -> None:
        self.fault, self.at, self.after = fault, at, after
        self.calls = 0

    def point(self, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        self.calls += 1
        if self.calls == self.at and not self.after:
            raise self.fault
        result = call(*arguments, **options)
        if self.calls == self.at:
            if call is os.open:
                os.close(result)
            raise self.fault
        return result

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in self.counted:
            return real
        return lambda *arguments, **options: self.point(real, *arguments, **options)

    def open_file(self, *arguments: Any, **options: Any) -> Any:
        handle = self.point(builtins.open, *arguments, **options)
        shim = self

        class Handle:
            def __enter__(self) -> "Handle":
                return self

            def __exit__(self, *_: object) -> None:
                handle.close()

            def write(self, data: bytes) -> None:
                shim.point(handle.write, data[: len(data) // 2])
                shim.point(handle.write, data[len(data) // 2 :])

            def flush(self) -> None:
                shim.point(handle.flush)

        return Handle()


def every_fault(
    monkeypatch: pytest.MonkeyPatch, work: Callable[[], object], check: Callable[[], None]
) -> int:
    """Run ``work`` with each fault at each of its calls; ``check`` after each. Faults in all."""
    injected = 0
    for fault in FAULTS:
        for after in (False, True):
            at = 0
            while True:
                at += 1
                shim = Shim(fault, at, after)
                with monkeypatch.context() as patch:
                    patch.setattr(atomic, "os", shim)
                    patch.setattr(atomic, "open", shim.open_file, raising=False)
                    try:
                        work()
                    except (OSError, ExpungeError, KeyboardInterrupt):
                        injected += 1
                check()
                if shim.calls < at:
                    break
    return injected


def test_a_file_is_old_or_new_after_any_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old" * 1000)
    seen = set()

    def check() -> None:
        assert os.listdir(tmp_path) == ["file"]
        seen.add(target.read_bytes())
        assert seen <= {b"old" * 1000, b"new!" * 1000}
        target.write_bytes(b"old" * 1000)

    injected = every_fault(monkeypatch, lambda: atomic.write_bytes(target, b"new!" * 1000), check)
    assert len(seen) == 2
    # create, mode twice, open, two writes, flush, two fsyncs each with an open, replace
    assert injected == 12 * 2 * len(FAULTS)


def test_a_new_file_is_absent_or_whole_after_any_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "file"

    def check() -> None:
        assert os.listdir(tmp_path) in ([], ["file"])
        if target.exists():
            assert json.loads(target.read_bytes()) == {"a": [1, 2]}
            target.unlink()

    assert every_fault(monkeypatch, lambda: atomic.write_json(target, {"a": [1, 2]}), check)


def test_a_new_folder_is_absent_or_whole_after_any_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "run"

    def work() -> None:
        with atomic.new_folder(target) as folder:
            (folder / "deep").mkdir()
            (folder / "deep" / "a").write_text("1")
            (folder / "b").write_text("2")

    def check() -> None:
        assert os.listdir(tmp_path) in ([], ["run"])
        if target.exists():
            assert (target / "deep" / "a").read_text() == "1"
            assert (target / "b").read_text() == "2"
            (target / "deep" / "a").unlink()
            (target / "deep").rmdir()
            (target / "b").unlink()
            target.rmdir()

    assert every_fault(monkeypatch, work, check) > 8 * len(FAULTS)


@pytest.mark.parametrize("writer", [atomic.replacing, atomic.new_folder])
@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_block_that_fails_leaves_nothing(
    tmp_path: Path, writer: Callable[..., Any], failure: type[BaseException]
) -> None:
    with pytest.raises(failure), writer(tmp_path / "out"):
        raise failure
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_said_in_words(tmp_path: Path) -> None:
    with (
        pytest.raises(ExpungeError, match=r"E-REQ-002.*left as it was"),
        atomic.replacing(tmp_path / "out"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_the_mode_of_an_existing_file_is_kept_and_a_new_one_follows_the_umask(
    tmp_path: Path,
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("old")
    secret.chmod(0o600)
    with atomic.replacing(secret) as temporary:
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o600
        temporary.unlink()
        temporary.write_text("new")
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    umask = os.umask(0o027)
    try:
        atomic.write_text(tmp_path / "fresh", "x")
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "fresh").stat().st_mode) == 0o640


def test_a_symbolic_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "file").write_text("old")
    (tmp_path / "link").symlink_to("far/file")
    atomic.write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "far" / "file").read_text() == "new"
    assert os.listdir(tmp_path / "far") == ["file"]


def test_text_is_written_as_it_is(tmp_path: Path) -> None:
    atomic.write_text(tmp_path / "a" / "b" / "text", "é\r\n\n")
    assert (tmp_path / "a" / "b" / "text").read_bytes() == b"\xc3\xa9\r\n\n"


def test_json_is_for_people_and_has_no_nan(tmp_path: Path) -> None:
    atomic.write_json(tmp_path / "x.json", {"name": "Zoë", "n": [1]})
    text = (tmp_path / "x.json").read_text()
    assert text == '{\n  "name": "Zoë",\n  "n": [\n    1\n  ]\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        atomic.write_json(tmp_path / "x.json", float("nan"))
    assert (tmp_path / "x.json").read_text() == text


def test_a_name_of_full_length_can_be_written(tmp_path: Path) -> None:
    atomic.write_text(tmp_path / ("x" * 255), "long")
    assert (tmp_path / ("x" * 255)).read_text() == "long"


def test_an_occupied_folder_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "theirs").write_text("keep")
    (tmp_path / "file").write_text("keep")
    ran = False
    for name in ("run", "file"):
        with pytest.raises(ExpungeError, match="E-USE-004"), atomic.new_folder(tmp_path / name):
            ran = True
    assert not ran
    assert (tmp_path / "run" / "theirs").read_text() == (tmp_path / "file").read_text() == "keep"


def test_an_empty_folder_is_taken_and_one_filled_meanwhile_is_not(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with atomic.new_folder(tmp_path / "run") as folder:
        (folder / "ours").write_text("1")
    assert os.listdir(tmp_path / "run") == ["ours"]
    with pytest.raises(ExpungeError, match="E-USE-004"), atomic.new_folder(tmp_path / "late"):
        atomic.write_text(tmp_path / "late" / "theirs", "1")
    assert os.listdir(tmp_path / "late") == ["theirs"]
    assert sorted(os.listdir(tmp_path)) == ["late", "run"]


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    target = tmp_path / "file"
    versions = [b"a" * 300_000, b"b" * 200_000]
    target.write_bytes(versions[0])
    done = Event()

    def write() -> None:
        for turn in range(60):
            atomic.write_bytes(target, versions[turn % 2])
        done.set()

    writer = Thread(target=write)
    writer.start()
    reads = 0
    while not done.is_set():
        assert target.read_bytes() in versions
        reads += 1
    writer.join()
    assert reads
