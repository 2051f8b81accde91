"""A new file is there whole, or not at all, and never in the place of another."""

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from expunge.core import atomic
from expunge.core.errors import ExpungeError


def test_a_new_file_has_its_bytes_and_its_mode_and_nothing_is_left_beside_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "deep" / "key"
    atomic.create_bytes(path, b"secret", 0o600)
    assert path.read_bytes() == b"secret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == ["key"]
    assert path.stat().st_nlink == 1


@pytest.mark.parametrize("kind", ["file", "folder", "link", "dangling"])
def test_what_is_there_is_never_replaced(tmp_path: Path, kind: str) -> None:
    path, other = tmp_path / "key", tmp_path / "other"
    match kind:
        case "file":
            path.write_bytes(b"mine")
        case "folder":
            path.mkdir()
        case "link":
            other.write_bytes(b"mine")
            path.symlink_to(other)
        case "dangling":
            path.symlink_to(other)
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(FileExistsError):
        atomic.create_bytes(path, b"yours")
    assert sorted(os.listdir(tmp_path)) == before
    assert kind not in ("file", "link") or path.read_bytes() == b"mine"


@pytest.mark.parametrize("call", ["open", "close", "fsync", "link"])
@pytest.mark.parametrize(
    "fault", [OSError(errno.ENOSPC, "full"), OSError(errno.EIO, "broken"), KeyboardInterrupt()]
)
def test_whatever_fails_the_file_is_whole_or_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, fault: BaseException
) -> None:
    real, calls = getattr(os, call), 0
    for at in (1, 2):
        path, calls = tmp_path / f"key-{at}", 0

        def shim(*arguments: Any, at: int = at, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            result = real(*arguments, **options)
            if calls == at:
                if call == "open":
                    os.close(result)
                raise fault
            return result

        with monkeypatch.context() as patched:
            patched.setattr(atomic.os, call, shim)
            with suppress(OSError, KeyboardInterrupt, ExpungeError):
                atomic.create_bytes(path, b"secret")
        assert not path.exists() or path.read_bytes() == b"secret"
        assert not [name for name in os.listdir(tmp_path) if name.endswith(".tmp")]


def test_a_full_disk_is_told_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(atomic.os, "link", full)
    with pytest.raises(ExpungeError, match="E-REQ-002"):
        atomic.create_bytes(tmp_path / "key", b"secret")
