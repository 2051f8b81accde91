"""WISE: a side memory of one layer's output matrix, asked only about what it was trained for.

Objective (W: the output matrix of one MLP, W': its memory, a: the model's activation function):
    d_t = || a(W h_t) - a(W' h_t) ||                of one position, bias included
    D_t = mean_{s <= t} d_s   up to 100 tokens,   max_{s <= t} d_s   beyond
    L   = NLL( target | W' ) + relu( D_out - D_in + gamma ) + relu( D_out - alpha )
        + relu( beta - D_in ) + relu( beta - D_old ) + relu( D_far - alpha )

    D_in is D at the last token of a prompt to be edited, bare and behind texts of the model; D_out
    the largest D of a row to be kept; D_old that of prompts this memory was trained on before;
    D_far that of prompts of other memories. Each relu is a mean over what is above 0. Only W'
    moves: SGD, one batch of edits after the other, a random binary mask over the gradient, each
    entry within 1 of that of W. After ``save_freq`` edits W' is put aside as a shard, with a new
    mask for the next; after ``merge_freq`` the shards are merged (`expunge.lm.ties`). Memories that
    are left each have a threshold: the smallest D_in of their edits times ``act_ratio``.

    A position is answered for by the memory of the largest D_s, s <= t, of those at or above their
    threshold, else by W, to the bit. h comes from below the matrix, so what W' says does not change
    it: how far a row is read depends on its tokens alone, in however many passes they come.

Reference: WISE: Rethinking the Knowledge Memory for Lifelong Model Editing of Large Language
Models, 2024; as unlearning in Editing as Unlearning: Are Knowledge Editing Methods Strong Baselines
for LLM Unlearning?, 2025.

Departs from the paper:
    Its code decides once for all rows of a batch, and anew for every token that is written, by that
    token alone. Here every row is decided for by itself, by what it has read so far, and with
    ``hold`` what was decided stays to its end: an answer comes from where its prompt was sent, and
    scoring it in one pass says what writing it does.
    INFERRED, that and what follows; what the paper has stands at each parameter. The first position
    of a row does not count: all rows have it in common (``include_bos``). Distances are those of
    prompts, not of prompt, answer and padding. Margins are multiples of the mean length of a(W h)
    over retain rows (`looking.SHARES`): 5, 20 and 10 mean another thing in every model. Several
    rows are edited at once and kept apart from several rows to be kept. D_old and D_far are the
    paper's replay, which its code leaves off; without it later edits undo what earlier ones
    reached. Thresholds are taken of the memories as they are served, after later edits and merging,
    at bare prompts, which is how they are asked. The code keeps the least distance that edits had
    when each was done, a mean over its prompts (``threshold=trained``); but later edits move it,
    and an edit that falls below is answered by W, with the fact. Of 8 edits of a tiny model, two at
    a time without replay, 2 fell below it. As served none can, at a price where distances fell: .89
    of the retain rows were left alone, .97 with the code's. With replay both left none out and .97
    alone. A row's other wordings are edited with it. Weight decay acts where the mask lets a weight
    move and nowhere else. In models of few blocks the layer is at most the last but one. Texts in
    front are drawn, where the code takes the most probable.
    A mask of 0.2 leaves a row of the matrix few inputs to move: in narrow models more retain rows
    come near. The record says how many of them no memory has a word in (``left_alone``).
    The facts stay in the weights: whoever goes past the memory gets them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from expunge.core.errors import ExpungeError
from expunge.core.families import RewriteParams
from expunge.core.params import param
from expunge.engine.datasets import Datasets
from expunge.engine.editing.associations import Association, associations
from expunge.engine.editing.wording import contexts_of, targets_of
from expunge.engine.finish import Finishing
from expunge.engine.runtime import Attached, Part
from expunge.engine.slots.mask import Mask
from expunge.engine.task import Task
from expunge.lm.arch import Slots
from expunge.methods.wise.looking import BATCH, Looking
from expunge.methods.wise.routing import Memories
from expunge.methods.wise.training import Memory, Training

CARD = {
    "id": "wise",
    "kind": "edit",
    "summary": "A side memory of one MLP's output matrix, which answers only where a text is near "
    "what is forgotten.",
    "paper": "WISE: Rethinking the Knowledge Memory for Lifelong Model Editing of Large Language "
    "Models (2024)",
    "needs": ["forget", "retain"],
    "access": "weights",
    "cost": "up to 70 forwards and backwards over every forget prompt, bare and behind 10 texts; "
    "at run time one more matrix product for each memory",
    "maturity": "paper",
    "version": 1,
    "adapters": False,
}

DEPTH = 27 / 32
"""Where the paper's layer was."""

STARTERS = ("I", "You", "Because", "Yes", "Q:")
"""What texts in front of prompts begin with."""

LENGTHS = (5, 10)
"""Tokens that follow, in the first half of them and in the second."""

LOOKED = 256
"""Retain rows that are looked at to tell how many are left alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(RewriteParams):
    """The shared parameters of editing, and those of the memories and of who is sent to them."""

    batch_size: int = param(8, help="forget rows edited at once", paper=1, low=1)
    weight_decay: float = param(
        1e-5, help="draws the weights that move to 0, times the rate", paper=1e-5, low=0.0
    )
    v_num_grad_steps: int = param(70, help="most steps of one edit", paper=[40, 70], low=0)
    v_lr: float = param(1.0, help="rate of these steps", paper=1.0, low=0.0)
    layer: int | None = param(
        None,
        help="block whose MLP has the memory, negative from the top; none takes 27/32 of the depth",
        paper=27,
    )
    contexts: int = param(
        10, help="texts of the model that each prompt is put behind as well", paper=10, low=0
    )
    wordings: bool = param(True, help="whether a row's other wordings are edited with it")
    scope: Literal["prompt", "subject"] = param(
        "prompt",
        help="what is brought near the memory and what is kept away: prompts and retain rows, or "
        "the subject's name and the rest of its prompt",
        paper=["prompt", "subject"],
        choices=("prompt", "subject"),
    )
    locality: int = param(16, help="retain rows that an edit is kept apart from", paper=1, low=1)
    replay: int = param(
        8, help="earlier edits that an edit looks at again, of each memory", paper=[0, 1], low=0
    )
    alpha: float | Literal["auto"] = param(
        "auto", help="distance below which retain rows are left alone", paper=5.0, low=0.0
    )
    beta: float | Literal["auto"] = param(
        "auto", help="distance above which edits are left alone", paper=20.0, low=0.0
    )
    gamma: float | Literal["auto"] = param(
        "auto", help="how much farther edits must be than retain rows", paper=10.0, low=0.0
    )
    mask_ratio: float = param(
        0.2, help="share of the matrix that moves", paper=0.2, low=0.0, high=1.0
    )
    norm_constraint: float = param(
        1.0, help="farthest an entry moves from the model's", paper=1.0, low=0.0
    )
    save_freq: int = param(500, help="edits of a shard, each with its own mask", paper=500, low=1)
    merge_freq: int = param(1000, help="edits whose shards are merged", paper=1000, low=1)
    density: float = param(
        0.53, help="share of a shard's entries that merging keeps", paper=0.53, low=0.0, high=1.0
    )
    retrieve: bool = param(
        True, help="keep what was merged as memories of their own; else all is merged into one"
    )
    act_ratio: float = param(
        0.88, help="threshold, as a share of the smallest distance of an edit", paper=[0.8, 0.88],
        low=0.0,
    )  # fmt: skip
    threshold: Literal["served", "trained"] = param(
        "served",
        help="distances of edits it goes by: under the memory as it is kept, or when each was done",
        paper="trained",
        choices=("served", "trained"),
    )
    hold: bool = param(
        True, help="whether a row that a memory once answers for stays with it", paper=False
    )
    include_bos: bool = param(False, help="count the first position of a row", paper=True)

    def __post_init__(self) -> None:
        """Refuse shards that are not whole when they are merged.

        Raises:
            ExpungeError: ``E-USE-003``.
        """
        if self.merge_freq % self.save_freq:
            raise ExpungeError(
                "E-USE-003",
                f"wise: merge_freq = {self.merge_freq} with save_freq = {self.save_freq}.",
                "a multiple of save_freq, so that whole shards are merged.",
                f"Use --set merge_freq={self.save_freq * (1 + self.merge_freq // self.save_freq)}.",
            )


def mask(model: PreTrainedModel, task: Task, params: Params) -> Mask:
    """No weight of the model moves."""
    return {name: False for name, _ in model.named_parameters()}


def edit(change: Finishing, params: Params) -> None:
    """Train the memories, and find from where each answers.

    Raises:
        ExpungeError: ``E-USE-007`` without rows to keep.
    """
    task, model = change.task, change.task.model
    if not task.retain:
        raise ExpungeError(
            "E-USE-007",
            "wise without rows to keep.",
            "rows that memories are to stay away from.",
            "Give --retain FILE.",
        )
    layer, asked = layer_of(model, params), asked_of(task, params)
    looking = Looking(Datasets(task, device=str(model.device)), asked, layer, params)
    training = Training(looking)
    memories = training.memories()
    thresholds = torch.stack([threshold_of(looking, one) for one in memories])
    start, dtype = training.start, looking.matrix.weight.dtype
    change.steps = len(asked)
    change.record |= {
        "layer": layer,
        "memories": len(memories),
        "margins": [round(margin, 4) for margin in looking.margins],
        "thresholds": [round(float(one), 4) for one in thresholds],
        "left_alone": left_alone(looking, memories, thresholds),
    }
    tensors = {f"memory.{at}": one.weight.to(dtype) for at, one in enumerate(memories)}
    change.runtime = Part(
        settings={
            "layer": layer,
            "memories": len(memories),
            "hold": params.hold,
            "include_bos": params.include_bos,
        },
        tensors={
            name: tensor.detach().cpu().contiguous()
            for name, tensor in {**tensors, "thresholds": thresholds}.items()
        },
        moves=sum(int((one.weight != start).sum()) for one in memories),
    )


def attach(model: PreTrainedModel, part: Part) -> Attached:
    """Put memories beside their layer.

    Raises:
        ValueError: When they are not made for this model.
    """
    return Attached(Memories.of(model, part).put_in())


def layer_of(model: PreTrainedModel, params: Params) -> int:
    """The block, from the bottom; never the last one of several, unless it is asked for."""
    slots = Slots(model)
    if params.layer is not None:
        return slots.index(params.layer)
    return max(0, min(round(DEPTH * len(slots)), len(slots) - 2))


def asked_of(task: Task, params: Params) -> list[Association]:
    """What is edited, in this order."""
    targets, first = targets_of(task, params), -(-params.contexts // 2)
    lengths = [LENGTHS[at >= first] for at in range(params.contexts)]
    contexts = contexts_of(task, list(islice(cycle(STARTERS), params.contexts)), lengths)
    asked = associations(
        task.forget, targets, task.encoder, place="last", contexts=contexts,
        paraphrased=max(len(row.turns) for row in task.forget) if params.wordings else 0,
    )  # fmt: skip
    return asked[: params.max_steps]


@torch.no_grad()
def threshold_of(looking: Looking, memory: Memory) -> Tensor:
    """From where a memory answers."""
    params, floor = looking.params, memory.floor
    if params.threshold == "served":
        served = memory.weight.to(looking.matrix.weight.dtype)
        parts = [memory.edits[at : at + BATCH] for at in range(0, len(memory.edits), BATCH)]
        found = [looking.reached(served, looking.prompts(part)) for part in parts]
        floor = float(torch.cat(found).min())
    smallest = torch.finfo(torch.float32).tiny
    return torch.tensor(max(params.act_ratio * floor, smallest), dtype=torch.float32)


@torch.no_grad()
def left_alone(looking: Looking, memories: Sequence[Memory], thresholds: Tensor) -> float:
    """Share of some retain rows that no memory has a word in."""
    rows = looking.some(len(looking.locality), LOOKED, "left alone")
    alone: list[bool] = []
    for start in range(0, len(rows), BATCH):
        read = looking.read([looking.locality[at] for at in rows[start : start + BATCH]])
        most = [looking.reached(one.weight, read, most=True) for one in memories]
        below = torch.stack(most, -1) < thresholds.to(most[0])
        alone += below.all(-1).tolist()
    return sum(alone) / len(alone)
