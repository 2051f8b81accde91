"""Exact unlearning: what stays never saw the rows that went.

| room | what it does |
| --- | --- |
| `retraining` | training anew from the base model; what every method of this kind records |
| `scheme` | how a method lays an ensemble out: shards, orders of slices, what a stage trains |
| `partition` | which shard and slice a row belongs to |
| `sequences` | orders of slices, so that many deletions are survived |
| `state` | what an ensemble is made of, and what a request does to it |
| `stages` | checkpoints on disk: each names its rows and the checkpoint it came from |
| `training` | one stage: adapters trained on the rows of some slices |
| `ledger` | the append-only log of deletions |
| `capacity` | how many deletions are left, and what one costs |
| `serving` | the run-time part: all shards speak, and their mean is heard |
| `knowing` | what each shard knows of its own rows, and what of it is heard |
| `making` | an ensemble built, or rows taken out of one |
| `planner`, `telling` | what the state of an ensemble amounts to, and what a change tells of it |
| `proof` | that no remaining parameter has met a deleted row |
| `asking` | what can be known to be wrong before weights load |
"""

from expunge.engine.exact.retraining import (
    ALIKE,
    SHINGLE,
    Alike,
    base_for,
    base_of,
    kept_rows,
    missing_rows,
    named_base,
    near_duplicates,
    record_of,
)

__all__ = [
    "ALIKE",
    "SHINGLE",
    "Alike",
    "base_for",
    "base_of",
    "kept_rows",
    "missing_rows",
    "named_base",
    "near_duplicates",
    "record_of",
]
