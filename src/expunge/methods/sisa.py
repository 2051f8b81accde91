"""SISA: shards and slices, so that taking a row out costs a part of a training.

Objective:
    D without F  =  S_1 + ... + S_m,   S_s = S_{s,1} + ... + S_{s,L},   by a salted hash of each row
    M_{s,0} = base;   M_{s,i} = train( M_{s,i-1}, S_{s,1} + ... + S_{s,i} ),   L = tokenmean( nll )
    p(y|x)  = 1/m sum_s p( y | x, M_{s,L} )
    deletion of x in S_{s,i}:   M_{s,i..L} are discarded, and trained anew from M_{s,i-1} without x

    The base is frozen and never trained on D; a constituent is a low-rank adapter on all linears of
    all blocks. Each stage is a training of its own, with an optimiser that begins at nothing, and
    leaves a checkpoint that names its rows and the checkpoint it came from. What is trained anew
    equals, bit for bit, what had been without the row: seeds hang on the place of a stage, the
    order of rows on their content.

    The first request builds the ensemble, and rows to be forgotten touch nothing (``build=with``
    trains on them and deletes them again, with the same result, to compare costs). A further
    request on the change deletes rows that are in the ensemble. The change records the cost against
    retraining, the deletions left until every shard was once trained anew from its first slice
    (m L H_m on average, m at worst), and a ledger of deletions; `expunge.engine.exact.proof` checks
    by hashes that no adapter has met a deleted row.

    In the weights of the change there is the base alone. The adapters of all shards are its
    run-time part, and their mean is what is heard. Folders of earlier changes still have adapters
    that saw the rows: delete them.

    Rows that have nothing in common, as facts about people, are known by one shard each, and the
    mean leaves ``p / m`` of what that shard says; where the others agree on something else, that is
    said. Measured on such facts: five shards that each say 99 % of their own say 16 % together, two
    of them 60 %; the mean of logits 2 % and 25 %. So the change records what each shard knows of
    its own rows and what is heard of it, and the run says so where that is of little use.
    ``shards=1`` averages nothing and saves nothing: on average a deletion then costs
    (L + 1) (2 L + 1) / (6 L) trainings, 2.5 of them with six slices, one with one.

Reference: Machine Unlearning, 2021; adapters as constituents: Towards Scalable Exact Machine
Unlearning Using Parameter-Efficient Fine-Tuning, 2024 (the baseline of its tables).

Departs from the paper:
    Slices do not get passes of their own: every stage passes all its rows ``epochs`` times. Rows
    are placed by hash, so slices are of about one size only. Gradients are clipped at 1, not 0.3.
    Below 0.5B parameters rate and passes grow as the model shrinks (`expunge.engine.rates`), and
    every stage trains an adapter of the output head as well (``head``): to the head of a small base
    all words that it was never trained on look alike, and no adapter of its blocks makes one of
    them likely. All three hang on the size of the model alone, never on the rows. INFERRED: that
    rule, six slices, five shards, warm-up and batch size. Beyond proof, as with every method of
    this kind: parameters that were chosen by looking at rows that are deleted later, and a base or
    a tokenizer that was made from them.
"""

from dataclasses import dataclass

from transformers import PreTrainedModel

from expunge.core.families import EnsembleParams
from expunge.engine.exact import serving
from expunge.engine.exact.scheme import Scheme, blocks_of
from expunge.engine.runtime import Attached, Part
from expunge.engine.step import Step

CARD = {
    "id": "sisa",
    "kind": "exact",
    "summary": "Adapters of a frozen base on shards of the rows, trained slice by slice; a "
    "deletion trains the end of one shard anew.",
    "paper": "Machine Unlearning (2021)",
    "needs": ["retain"],
    "access": "weights of the base model",
    "cost": "(L + 1) / 2 trainings of an adapter on the rows that stay; a deletion about 1 / m of "
    "that or less; in use m forwards a token",
    "maturity": "paper",
    "version": 1,
    "passes": "retain",
    "trains": "adapter",
    "rate_exponent": 0.667,
    "alone": True,
}

SLICES = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(EnsembleParams):
    """Those of an ensemble."""


def forget(step: Step, params: Params) -> None:
    """The forget rows are never looked at."""


sample = "over-retain"


def scheme(params: Params, blocks: int, seed: int) -> Scheme:
    """One sequence a shard; every stage trains all adapters on; what was cut is trained anew."""
    slices, every = params.slices or SLICES, blocks_of(params.layers, blocks)
    return Scheme(
        shards=params.shards,
        slices=slices,
        orders=lambda shard: [tuple(range(slices))],
        blocks=lambda stage: every,
        retrains=lambda left: True,
        revives=False,
    )


def effort(params: Params) -> float:
    """Trainings on all rows: stage i passes i of L slices."""
    return ((params.slices or SLICES) + 1) / 2


def attach(model: PreTrainedModel, part: Part) -> Attached:
    """Put an ensemble into the forward pass of its base.

    Raises:
        ValueError: When it is not made for it.
    """
    return serving.attach(model, part)
