"""Paths that stay inside their folder, folders one run has for itself, room on the disk."""

import fcntl
import os
import re
import shutil
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from expunge.core.errors import ExpungeError
from expunge.core.limits import NAME_BYTES, PATH_BYTES

_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f\\:]")
_LOCK = ".lock"


def inside(root: str | Path, name: str) -> Path:
    r"""The path of ``name`` under ``root``, or a refusal; use it for every name from outside.

    Refused on every system, so that a folder can travel: absolute names, ``..`` and its disguises
    (trailing dots and spaces, look-alike characters), backslashes, colons (drive letters),
    control characters, names too long for a file system, and symbolic links that lead out.

    Args:
        root: A folder; it need not exist yet.
        name: A relative path with ``/`` between its parts.

    Returns:
        The absolute path, all symbolic links resolved.

    Raises:
        ExpungeError: ``E-PATH-001``.
    """
    reason = _why_unsafe(name)
    real_root = os.path.realpath(root)
    path = real_root if reason else os.path.realpath(os.path.join(real_root, name))
    if not reason and not path.startswith(os.path.join(real_root, "")):
        reason = "a symbolic link leads out of the folder"
    if reason:
        raise ExpungeError(
            "E-PATH-001",
            f"The name {ascii(name)[:200]} is not safe: {reason}.",
            f"a relative name that stays inside {root}.",
            "Do not use this file; get it again from a source you trust.",
        )
    return Path(path)


def _why_unsafe(name: str) -> str:
    """What is wrong with ``name`` as text; empty when nothing is."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "it is not valid Unicode"
    if size > PATH_BYTES or any(len(part.encode()) > NAME_BYTES for part in name.split("/")):
        return "it is too long"
    for spelling in (name, unicodedata.normalize("NFKC", name)):
        if _FORBIDDEN.search(spelling):
            return "it has a control character, a backslash or a colon"
        if spelling.startswith("/"):
            return "it is absolute"
        if any(not part.strip(" .") for part in spelling.split("/")):
            return "a part of it is empty or only dots"
    return ""


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Have ``folder`` for this process alone while the block runs.

    The lock is the operating system's, on the file ``.lock`` in the folder, so it vanishes with
    the process however that ends. The folder is made when missing.

    Raises:
        ExpungeError: ``E-USE-005`` when another run has it, naming its process.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = _acquire(folder)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        # Unlinked while still held: whoever opened the old file sees in `_acquire` that it is gone.
        (folder / _LOCK).unlink(missing_ok=True)
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # also for children that inherited the descriptor
        os.close(descriptor)


def _acquire(folder: Path) -> int:
    """An open descriptor that holds the lock of ``folder``."""
    path = folder / _LOCK
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 20, 0)
            os.close(descriptor)
            raise _in_use(folder, holder) from error
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)  # its holder unlinked it between our opening and our locking


def _in_use(folder: Path, holder: bytes) -> ExpungeError:
    who = f"process {holder.decode()}" if holder.isdigit() else "another process"
    return ExpungeError(
        "E-USE-005",
        f"{folder} is in use by {who}.",
        "a folder that no other run works in.",
        "Wait for that run to end, stop it, or name another folder.",
    )


def free_disk(path: str | Path) -> int:
    """Free bytes on the disk that holds ``path``, which need not exist yet."""
    existing = Path(os.path.realpath(path))
    while not existing.exists():
        existing = existing.parent
    return shutil.disk_usage(existing).free
