"""Whether this machine has room for a run: memory it can give now, and disk below the output."""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from expunge.core.errors import ExpungeError
from expunge.core.paths import free_disk

MEMINFO = Path("/proc/meminfo")
GROUP = Path("/sys/fs/cgroup")

SMALLER = (
    "Use --adapter lora, a smaller --set batch_size with --set accumulation, or a larger machine."
)


def too_large(needs: Mapping[str, float], out: Path, smaller: str = SMALLER) -> list[ExpungeError]:
    """What a run needs and this machine has not.

    Disk that the output folder already takes counts as free: a run that is resumed or made again
    writes over it. Of the memory only what other programs leave counts, for a run that takes more
    is ended by the system, halfway.

    Args:
        needs: ``memory_bytes`` and ``disk_bytes`` at the peak.
        out: The output folder; it need not exist yet.
        smaller: What to do against too little memory.

    Returns:
        ``E-REQ-002`` for the disk, ``E-REQ-003`` for the memory, or nothing.
    """
    problems = []
    disk = free_disk(out) + _taken(out)
    if needs["disk_bytes"] > disk:
        problems.append(
            ExpungeError(
                "E-REQ-002",
                f"{disk / 1e9:.1f} GB are free where {out} lies.",
                f"{needs['disk_bytes'] / 1e9:.1f} GB for the result, its way back and checkpoints.",
                "Free some space, name another --out, or use --adapter lora.",
            )
        )
    memory = available_memory()
    if needs["memory_bytes"] > memory:
        problems.append(
            ExpungeError(
                "E-REQ-003",
                f"{memory / 1e9:.1f} GB of memory are available on this machine.",
                f"about {needs['memory_bytes'] / 1e9:.1f} GB.",
                smaller,
            )
        )
    return problems


def available_memory() -> int:
    """Bytes of memory a run can have: what others leave, within a container's bound.

    Where the run would be on an accelerator, that one's memory counts.
    """
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    known = [total, _available(), _left_in_group()]
    return min(value for value in known if value is not None)


def _available() -> int | None:
    """``MemAvailable`` of the kernel, where there is such a file."""
    try:
        lines = MEMINFO.read_text(encoding="ascii").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvail"))
    except (OSError, ValueError, StopIteration):
        return None


def _left_in_group() -> int | None:
    """What the control group of a container still allows, cached files not counted."""
    try:
        bound = int((GROUP / "memory.max").read_text(encoding="ascii"))
        used = int((GROUP / "memory.current").read_text(encoding="ascii"))
        statistics = (GROUP / "memory.stat").read_text(encoding="ascii").splitlines()
        cached = next(int(line.split()[1]) for line in statistics if line.startswith("file "))
    except (OSError, ValueError, StopIteration):
        return None
    return max(0, bound - used + cached)


def _taken(folder: Path) -> int:
    """Bytes of the files below a folder, which a run that works there may be deleting."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(root, name)).st_size
    return total
