"""Files that are old or new, never half: the only writing door of the house.

What is written goes to a temporary neighbour, is forced to the disk, and takes the target's
place in one step. Whatever interrupts it, Ctrl-C included, the target is untouched or complete
and the temporary neighbour is gone.
"""

import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_IMODE
from typing import Any

from expunge.core.errors import ExpungeError


def write_bytes(path: str | Path, data: bytes) -> None:
    """Replace the file ``path`` by one that holds ``data``.

    Raises:
        ExpungeError: ``E-REQ-002`` when the disk is full.
    """
    with replacing(path) as temporary, open(temporary, "wb") as handle:
        handle.write(data)
        handle.flush()


def write_text(path: str | Path, text: str) -> None:
    """Replace the file ``path`` by ``text`` in UTF-8, line ends as they are."""
    write_bytes(path, text.encode())


def write_json(path: str | Path, obj: Any, indent: int | None = 2) -> None:
    """Replace the file ``path`` by the JSON of ``obj``, for people to read.

    Raises:
        ValueError: For NaN and infinities, which JSON does not have.
    """
    write_text(path, json.dumps(obj, indent=indent, ensure_ascii=False, allow_nan=False) + "\n")


def create_bytes(path: str | Path, data: bytes, mode: int = 0o666) -> None:
    """Make the new file ``path`` with ``data``; what is there already is never replaced.

    The file has its mode from its first byte on, so that a secret is at no time open to others.

    Args:
        path: Where nothing is yet; missing parent folders are made.
        data: What it is to hold.
        mode: Permissions, from which the process's umask is taken.

    Raises:
        FileExistsError: When something is there, a dangling symbolic link included.
        ExpungeError: ``E-REQ-002`` when the disk is full.
    """
    target = Path(os.path.realpath(Path(path).parent), Path(path).name)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _neighbour(target)
    with _words_for_a_full_disk(target):
        try:
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))
            with open(temporary, "wb") as handle:
                handle.write(data)
                handle.flush()
            _sync(temporary)
            os.link(temporary, target)  # fails where a rename would replace
        finally:
            temporary.unlink(missing_ok=True)
        _sync(target.parent)


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary file to write to; it takes the place of ``path`` when the block succeeds.

    A symbolic link is followed, so the link stays and the file it points to is replaced. The
    permissions of an existing target are kept. Missing parent folders are made.

    Yields:
        An empty file in the folder of the target.

    Raises:
        ExpungeError: ``E-REQ-002`` when the disk is full.
    """
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _neighbour(target)
    with _words_for_a_full_disk(target):
        try:
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            _keep_mode(target, temporary)
            yield temporary
            _keep_mode(target, temporary)  # the block may have put another file there
            _sync(temporary)
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync(target.parent)


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """A temporary folder to fill; it becomes ``path`` when the block succeeds.

    Yields:
        An empty folder beside ``path``.

    Raises:
        ExpungeError: ``E-USE-004`` when ``path`` exists and is not an empty folder, before the
            block runs; ``E-REQ-002`` when the disk is full.
    """
    target = Path(os.path.realpath(path))
    _refuse_occupied(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _neighbour(target)
    with _words_for_a_full_disk(target):
        try:
            temporary.mkdir()
            yield temporary
            _sync_tree(temporary)
            _refuse_occupied(target)
            os.replace(temporary, target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        _sync(target.parent)


def _neighbour(target: Path) -> Path:
    """A hidden name beside ``target`` that nobody uses; short, whatever the target's name."""
    return target.with_name(f".expunge-{secrets.token_hex(8)}.tmp")


def _keep_mode(target: Path, temporary: Path) -> None:
    with suppress(FileNotFoundError):
        os.chmod(temporary, S_IMODE(os.stat(target).st_mode))


def _sync(path: Path) -> None:
    """Force a file, or the list of names of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_tree(folder: Path) -> None:
    for parent, _, names in os.walk(folder):
        for name in names:
            _sync(Path(parent, name))
        _sync(Path(parent))


def _refuse_occupied(target: Path) -> None:
    if not os.path.lexists(target) or (target.is_dir() and not any(target.iterdir())):
        return
    raise ExpungeError(
        "E-USE-004",
        f"{target} exists already and is not an empty folder.",
        "an output folder that is new or empty.",
        "Name another folder, or move this one away.",
    )


@contextmanager
def _words_for_a_full_disk(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ExpungeError(
            "E-REQ-002",
            f"The disk is full; {target} was left as it was.",
            "free space for what is written.",
            "Free some space, or name a folder on another disk, and run the command again.",
        ) from error
