"""Replicas of benchmarks: the upstream format and its traps, with our own people and facts.

One file a benchmark, ``write(folder)``; everything runs on them where the real files are not there.
"""

from importlib import import_module
from pathlib import Path


def write(benchmark: str, folder: Path) -> None:
    """Write the replica of one benchmark.

    Args:
        benchmark: Its id.
        folder: Where to; made if missing.
    """
    import_module(f"{__name__}.{benchmark.replace('-', '_')}").write(folder)
