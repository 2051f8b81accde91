"""What an ensemble is made of, and what a request to delete rows does to it.

The state lies in ``made/ensemble.json`` of a change, as plain JSON: which row stands where, which
sequences there are, and the hash of the file of every stage that is left of them.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from expunge.core.atomic import write_json
from expunge.core.canonical import digest
from expunge.core.errors import ExpungeError
from expunge.core.families import EnsembleParams
from expunge.engine.exact.partition import place
from expunge.engine.exact.sequences import Order
from expunge.engine.slots.sample import content_key
from expunge.requests.rows import Row

FILE = "ensemble.json"
FORMAT = "exact-ensemble/1"
FREE = ("base", "build", "mean", "dead")
"""Parameters that may differ from request to request: they are no part of the training."""


@dataclass(frozen=True, order=True, slots=True)
class Member:
    """A row of an ensemble.

    Attributes:
        key: Hash of all that is trained on of it, other wordings included.
        turn: Hash of its own prompt and reply, by which a request finds it.
        shard: Its shard.
        slice: Its slice of that.
    """

    key: str
    turn: str
    shard: int
    slice: int


@dataclass(frozen=True, slots=True)
class Chain:
    """A sequence of a shard, as far as it is left.

    Attributes:
        order: The slices of its stages; there may be fewer stages by now.
        files: Hash of the file of each stage that is left.
    """

    order: Order
    files: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """An ensemble as it is now.

    Attributes:
        method: Whose it is.
        version: Of that method's card.
        recipe: What decides the training: parameters and seed.
        salt: What rows are placed by.
        base: Hash of the weights of the base model.
        rate: Learning rate.
        passes: Of a stage over its rows.
        head: Whether every stage trains an adapter of the output head as well.
        slices: Slices of each shard.
        members: Its rows.
        shards: The sequences of each shard.
        lost: Shards that were trained anew from their first slice on.
    """

    method: str
    version: int
    recipe: Mapping[str, Any]
    salt: str
    base: str
    rate: float
    passes: int
    head: bool
    slices: int
    members: tuple[Member, ...]
    shards: tuple[tuple[Chain, ...], ...]
    lost: tuple[int, ...] = ()

    @cached_property
    def sizes(self) -> list[list[int]]:
        """Rows of each slice of each shard."""
        counts = [[0] * self.slices for _ in self.shards]
        for member in self.members:
            counts[member.shard][member.slice] += 1
        return counts

    def left(self, shard: int) -> list[int]:
        """Stages that are left of each sequence of a shard; 0 where no row stands behind them."""
        sizes = self.sizes[shard]
        return [
            len(chain.files) if any(sizes[i] for i in chain.order[: len(chain.files)]) else 0
            for chain in self.shards[shard]
        ]

    def behind(self, shard: int, order: Sequence[int]) -> list[Member]:
        """The rows of some slices of a shard, sorted by content."""
        chosen = set(order)
        return sorted(m for m in self.members if m.shard == shard and m.slice in chosen)

    def found(self, rows: Sequence[Row]) -> list[Member]:
        """Which of its rows are asked about; a row is known by its own prompt and reply."""
        asked = {turn_key(row) for row in rows}
        return [member for member in self.members if member.turn in asked]

    def without(self, gone: Collection[Member]) -> "Ensemble":
        """The ensemble after rows were taken out: every stage behind one of them is gone."""
        hit: dict[int, set[int]] = {}
        for member in gone:
            hit.setdefault(member.shard, set()).add(member.slice)
        shards = tuple(
            tuple(replace(c, files=c.files[: kept(c, hit.get(s, ()))]) for c in chains)
            for s, chains in enumerate(self.shards)
        )
        members = tuple(member for member in self.members if member not in gone)
        return replace(self, members=members, shards=shards)

    def write(self, folder: Path) -> None:
        """Write it into a folder."""
        write_json(folder / FILE, {"format": FORMAT, **asdict(self)}, indent=None)

    @classmethod
    def read(cls, folder: Path) -> "Ensemble":
        """The ensemble whose state lies in a folder.

        Raises:
            ExpungeError: ``E-MODEL-002`` when none does.
        """
        from expunge.lm.headers import read_json

        told = read_json(folder / FILE)
        try:
            if told.pop("format") != FORMAT:
                raise ValueError("another format")
            told["passes"] = int(told.get("passes") or told["recipe"]["epochs"])
            told.setdefault("head", False)
            told["members"] = tuple(Member(**member) for member in told["members"])
            told["lost"] = tuple(told["lost"])
            told["shards"] = tuple(
                tuple(Chain(tuple(c["order"]), tuple(c["files"])) for c in chains)
                for chains in told["shards"]
            )
            return cls(**told)
        except (KeyError, TypeError, ValueError) as error:
            raise ExpungeError(
                "E-MODEL-002",
                f"{folder / FILE} is no state of an ensemble: {str(error)[:200]}.",
                "the file as it was written with the change.",
                "Take the folder from a backup, or build the ensemble again.",
            ) from error


def kept(chain: Chain, hit: Collection[int]) -> int:
    """How many stages of a sequence are left when some slices are hit: those before the first."""
    first = (at for at, slice in enumerate(chain.order[: len(chain.files)]) if slice in hit)
    return next(first, len(chain.files))


def members_of(rows: Sequence[Row], salt: str, shards: int, slices: int) -> tuple[Member, ...]:
    """Rows put into their places, sorted by content."""
    keys = [content_key(row) for row in rows]
    placed = (
        Member(key, turn_key(row), *place(key, salt, shards, slices))
        for row, key in zip(rows, keys, strict=True)
    )
    return tuple(sorted(placed))


def turn_key(row: Row) -> str:
    """A hash of a row's own prompt and reply."""
    return content_key(replace(row, paraphrases=()))


def recipe_of(params: EnsembleParams, seed: int) -> dict[str, Any]:
    """What of a request decides the training, as plain JSON values."""
    told = {name: value for name, value in asdict(params).items() if name not in FREE}
    plain = {name: list(v) if isinstance(v, tuple) else v for name, v in told.items()}
    return {**plain, "seed": seed}


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What a request means for an ensemble.

    Attributes:
        gone: Its rows that are to be deleted.
        absent: How many rows to be forgotten are none of its rows.
        left: The ensemble without them.
        anew: Shards that are trained anew from what is left of their sequences.
        strange: How many rows to be kept are none of its rows.
        missing: Hashes of rows that training anew needs, and that were not given.
    """

    gone: tuple[Member, ...]
    absent: int
    left: Ensemble
    anew: tuple[int, ...]
    strange: int = 0
    missing: tuple[str, ...] = field(default=())


def asked_of(
    ensemble: Ensemble, forget: Sequence[Row], kept_rows: Sequence[Row], retrains: Any
) -> Asked:
    """What a request to forget rows means.

    Args:
        ensemble: As it is before.
        forget: Rows to be forgotten.
        kept_rows: Rows to be kept.
        retrains: As of `expunge.engine.exact.scheme.Scheme`.
    """
    gone = ensemble.found(forget)
    left = ensemble.without(set(gone))
    touched = sorted({member.shard for member in gone})
    anew = tuple(s for s in touched if retrains(left.left(s)))
    known, given = {m.key for m in ensemble.members}, {content_key(row) for row in kept_rows}
    needed = {member.key for member in left.members if member.shard in anew}
    turns = {member.turn for member in gone}
    return Asked(
        gone=tuple(gone),
        absent=sum(turn_key(row) not in turns for row in forget),
        left=left,
        anew=anew,
        strange=len(given - known),
        missing=tuple(sorted(needed - given)),
    )


def salt_of(params: EnsembleParams, seed: int) -> str:
    """What rows are placed by: as given, else from the seed."""
    return params.salt if params.salt is not None else digest(["salt", seed])
