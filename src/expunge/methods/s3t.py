"""S3T: slices trained into blocks of their own, so that a deletion switches adapters off.

Objective:
    a sequence is an order of the slices of a shard; stage i of it (i = 0 is the first)
        trains the adapters of group i: blocks N-1-ig ... N-1-(ig+g-1), from the top down,
        on the slices 0 .. i of the sequence,   L = tokenmean( nll ),
        with the groups of all stages before it frozen and active
    deletion in the slice at position j:   groups j .. L-1 of the sequence are switched off
    p(y|x) = 1/m sum_s p( y | x, longest prefix left of shard s )

    The base is frozen and never trained on D. What was trained at or after a slice has met it, so a
    deletion cuts a suffix and never takes a group out of the middle; what is left is, bit for bit,
    the model as it stood before the slice came in, and nothing is trained. A shard has B sequences:
    it falls back to the one with the longest prefix, and is trained anew (``dead=drop``: left out)
    once all are dead, that is, once the first slice of each of them was hit. Which orders survive
    most: ``cyclic`` for equal chances of the slices, ``matching`` or ``sampling`` for known ones
    (`expunge.engine.exact.sequences`).

    The change records the deletions left until all shards are dead (m L H_{m min(B, L)} on average,
    m min(B, L) at worst), what the next one costs, and a ledger; `expunge.engine.exact.proof`
    checks by hashes that no adapter has met a deleted row. In the weights of the change there is
    the base alone; the adapters are its run-time part. Folders of earlier changes still have
    adapters that saw the rows: delete them.

    Rows that have nothing in common are known by one shard each, and the mean may not let it be
    heard (`expunge.methods.sisa` has numbers); the change records both, and the run says so where
    that is of little use. ``shards=1`` averages nothing; deletions still cost nothing while a
    sequence is left.

Reference: Towards Scalable Exact Machine Unlearning Using Parameter-Efficient Fine-Tuning, 2024.

Departs from the paper:
    Its script trains all blocks whose name contains that of a block of the group, so ``layers.3``
    stands for ``layers.30`` as well; here names are whole. Gradients are clipped at 1, not 0.3.
    ``slices=none`` takes six or as many as there are blocks, ``group=none`` shares all blocks out
    evenly. Below 0.5B parameters rate and passes grow as the model shrinks, and every stage trains
    an adapter of the output head as well (``head``), which goes on from that of the stage before;
    a deletion goes back to the one that was saved before the slice came in. INFERRED: that, three
    sequences by default; of a matching that has more sequences than are asked for, those of highest
    score; of a cycle, a permutation drawn for each shard; that groups of earlier stages run without
    dropout; warm-up and batch size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import factorial
from typing import Literal

from transformers import PreTrainedModel

from expunge.core.errors import ExpungeError
from expunge.core.families import EnsembleParams
from expunge.core.params import param
from expunge.core.rng import derive, generator
from expunge.engine.exact import serving
from expunge.engine.exact.scheme import Scheme, blocks_of
from expunge.engine.exact.sequences import Order, cyclic, matching, sampling, score
from expunge.engine.runtime import Attached, Part
from expunge.engine.step import Step

CARD = {
    "id": "s3t",
    "kind": "exact",
    "summary": "Adapters of a frozen base, trained slice by slice from the top block down; a "
    "deletion switches off those that met the row.",
    "paper": "Towards Scalable Exact Machine Unlearning Using Parameter-Efficient Fine-Tuning "
    "(2024)",
    "needs": ["retain"],
    "access": "weights of the base model",
    "cost": "B (L + 1) / 2 trainings of an adapter on the rows that stay; a deletion nothing, or "
    "those of one shard; in use m forwards a token",
    "maturity": "paper",
    "version": 1,
    "passes": "retain",
    "trains": "adapter",
    "rate_exponent": 0.667,
    "alone": True,
}

SLICES, SEQUENCES = 6, 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(EnsembleParams):
    """Those of an ensemble, and those of its sequences."""

    group: int | None = param(
        None, help="blocks that a slice owns (g); none shares all out evenly", paper=4, low=1
    )
    sequences: int | None = param(
        None, help="orders of the slices that are trained (B); none takes 3, if there are", low=1
    )
    selection: Literal["cyclic", "matching", "sampling"] = param(
        "cyclic",
        help="how orders are chosen: for equal chances of the slices, or for known ones",
        paper="cyclic",
        choices=("cyclic", "matching", "sampling"),
    )
    chances: tuple[float, ...] | None = param(
        None,
        help="for each slice of a shard how likely its next deletion hits it (p)",
        low=0.0,
        high=1.0,
    )
    exponent: int = param(
        100, help="selection=matching: how much slices that are seldom hit count (t)", low=1
    )
    dead: Literal["retrain", "drop"] = param(
        "retrain",
        help="a shard without a sequence is trained anew, or left out",
        paper="retrain",
        choices=("retrain", "drop"),
    )


def forget(step: Step, params: Params) -> None:
    """The forget rows are never looked at."""


sample = "over-retain"


def scheme(params: Params, blocks: int, seed: int) -> Scheme:
    """Several sequences a shard, each stage a group of blocks; a dead shard is trained anew.

    Raises:
        ExpungeError: ``E-USE-003`` where slices, groups, sequences or chances do not fit.
    """
    chosen = blocks_of(params.layers, blocks)[::-1]  # from the top
    slices = params.slices or min(SLICES, len(chosen))
    size = params.group or max(1, len(chosen) // slices)
    if slices * size > len(chosen):
        raise _unfit(
            f"slices={slices} with groups of {size} blocks, and {len(chosen)} blocks.",
            "a group of blocks for every slice.",
            "Lower --set slices or --set group.",
        )
    return Scheme(
        shards=params.shards,
        slices=slices,
        orders=orders(params, slices, seed),
        blocks=lambda stage: chosen[stage * size : (stage + 1) * size],
        retrains=lambda left: params.dead == "retrain" and not any(left),
        revives=True,
        chances=params.chances,
    )


def orders(params: Params, slices: int, seed: int) -> Callable[[int], Sequence[Order]]:
    """Shard -> its sequences.

    Raises:
        ExpungeError: ``E-USE-003`` where there are not so many, or chances do not fit.
    """
    most = slices if params.selection == "matching" else factorial(slices)
    count = params.sequences or min(SEQUENCES, most)
    if count > most:
        raise _unfit(
            f"sequences={count} with slices={slices} and selection={params.selection}.",
            f"at most {most} sequences.",
            "Lower --set sequences or raise --set slices.",
        )
    if params.selection == "cyclic":
        return lambda shard: cyclic(_permutation(slices, seed, shard), count)
    chances = params.chances or ()
    if len(chances) != slices or sum(chances) > 1 + 1e-9:
        raise _unfit(
            f"selection={params.selection} with chances={chances or 'none'}.",
            f"{slices} chances, one for each slice, that sum to 1 at most.",
            "Give --set chances=p1,p2,...",
        )
    if params.selection == "sampling":
        return lambda shard: sampling(chances, count, derive(seed, "shard", shard))
    best = sorted(
        matching(chances, params.exponent),
        key=lambda order: -score([chances[slice] for slice in order], params.exponent),
    )
    return lambda shard: best[:count]


def effort(params: Params) -> float:
    """Trainings on all rows: stage i of a sequence passes i of L slices."""
    return (params.sequences or SEQUENCES) * ((params.slices or SLICES) + 1) / 2


def attach(model: PreTrainedModel, part: Part) -> Attached:
    """Put an ensemble into the forward pass of its base.

    Raises:
        ValueError: When it is not made for it.
    """
    return serving.attach(model, part)


def _permutation(slices: int, seed: int, shard: int) -> list[int]:
    draw = generator(seed, "permutation", shard)
    return [int(slice) for slice in draw.permutation(slices)]


def _unfit(found: str, expected: str, remedy: str) -> ExpungeError:
    return ExpungeError("E-USE-003", f"s3t: {found}", expected, remedy)
