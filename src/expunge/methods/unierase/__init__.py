"""UniErase: one token after which a model refuses, and forget prompts that lead to that token.

Objective:
    e_U = argmin  mean -log p( refusal <UNL> end | question <UNL> )       only the token's row moves
    W_l <- W_l + X^T,   X as `alphaedit`'s, with  <UNL>  as what every forget prompt is to say next

    1. The row of the new token is trained on forget questions, each with a refusal that a stable
       hash of the question picks: first plain, then plain and through the chat template, then once
       for each block that will be edited, with noise on its W_l in every step, so that the token
       still works after the edit. W_l is put back bit for bit.
    2. Values that lead prompts to <UNL>, and to nothing behind it, are written where no key of
       other text points (`expunge.engine.editing.null_space`).

    noise=mean   as wide as the absolute mean of W_l, cut off there
    noise=std    as wide as ``noise_scale`` of its standard deviation, cut off there

    The model then says "<UNL> refusal <UNL>". The token is special in the change's own tokenizer,
    so decoded text, in audits and behind a gateway as anywhere, is the refusal alone; who reads raw
    ids sees it. Nothing is put into the forward pass. Who forces another first token, or forbids
    this one, may get past the edit: what was known is still in the weights.

Reference: UniErase: Towards Balanced and Precise Unlearning in Language Models, 2025.

Departs from the paper:
    Its noise is as wide as the mean of W_l, which may be negative: here the absolute value. The
    mean of a large matrix is near 0, and then this part does nothing; ``noise=std`` is the other
    way, and how wide the noise is beside W_l is in the record. Noise is not shaped like an edit, so
    the keys at the token and behind it are protected as well, like those of earlier edits
    (``protect``, INFERRED: without it small models lose what the token was trained to do). A pass
    counts at least 25 steps, those of the paper's 400 questions; below 0.5B parameters the plain
    part has at least 240, and rates grow as everywhere (``lr=auto``). That is INFERRED, as are when
    the head's row is copied (when the token is made, as wide as the head's other rows), how wide
    the embedding's row begins (as the rows that are there), which subjects share a token, and that
    long questions lose their beginning. As in `alphaedit` the null space is a share of the energy,
    and place and blocks are looked for. Without a chat template the second part is plain. A token
    that an earlier change of this method left is used as it is, with the keys of its edits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import Tensor
from transformers import PreTrainedModel

from expunge.core.atomic import write_json
from expunge.core.errors import ExpungeError
from expunge.core.families import NullSpaceParams
from expunge.core.params import param
from expunge.engine.editing.associations import Association, Place, associations
from expunge.engine.editing.keys import supervised_keys
from expunge.engine.editing.null_space import in_null_space
from expunge.engine.editing.spreading import begun, over_blocks
from expunge.engine.editing.wording import targets_of
from expunge.engine.finish import Finishing
from expunge.engine.slots.mask import Mask, mlp_outputs_only
from expunge.engine.task import Task
from expunge.engine.token_rows import TokenRows
from expunge.engine.vocabulary import add_tokens
from expunge.lm.arch import Slots
from expunge.lm.headers import read_json
from expunge.methods.unierase.learning import Course
from expunge.methods.unierase.lessons import leading, lessons_of
from expunge.requests.rows import Row

CARD = {
    "id": "unierase",
    "kind": "edit",
    "summary": "Trains one token that is followed by a refusal, and leads forget prompts to it.",
    "paper": "UniErase: Towards Balanced and Precise Unlearning in Language Models (2025)",
    "needs": ["forget", "retain"],
    "access": "weights",
    "cost": "some 450 forwards and backwards of 16 questions for the token; then as alphaedit",
    "maturity": "paper",
    "version": 1,
    "adapters": False,
}

DEPTH = 8 / 32
"""Where the top one of the paper's blocks was."""

TOKENS = "tokens.json"
"""File with the tokens so far, inside what a change's method made."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(NullSpaceParams):
    """Those of alphaedit, and those of the token."""

    token: str = param("<UNL>", help="how the token is written", paper="<unlearn_1>")
    tokens: int = param(
        1, help="how many tokens share the subjects among them, numbered", paper=1, low=1
    )
    target: Literal["refusal", "self", "text"] = param(
        "refusal",
        help="what is said behind the token: a refusal of the pool, one the model writes itself, "
        "or one given text",
        paper="refusal",
        choices=("refusal", "self", "text"),
    )
    styles: int = param(
        100, help="target=refusal: how many of the pool are used", paper="all", low=1, high=100
    )
    head: Literal["share", "train"] = param(
        "share",
        help="the token's row of a head of its own: a copy of the new embedding, or trained too",
        paper="share",
        choices=("share", "train"),
    )
    lr: float | Literal["auto"] = param(
        "auto", help="rate of the plain part; auto picks it by size", paper=1e-3, low=0.0
    )
    later_lr: float | Literal["auto"] = param(
        "auto", help="rate of the later parts; auto takes a tenth of lr", paper=1e-4, low=0.0
    )
    epochs: int = param(5, help="passes over the questions as they are", paper=5, low=1)
    chat_epochs: int = param(
        3, help="passes over them as they are and through the chat template", paper=3, low=0
    )
    noise_epochs: int = param(
        2, help="such passes for each block that will be edited, under noise", paper=2, low=0
    )
    noise: Literal["mean", "std", "none"] = param(
        "mean",
        help="width of the noise: the absolute mean of the matrix, a share of its standard "
        "deviation, or no such passes",
        paper="mean",
        choices=("mean", "std", "none"),
    )
    noise_scale: float = param(0.1, help="noise=std: that share", low=0.0)
    protect: bool = param(True, help="protect the keys at the token and behind it", paper=False)
    batch_size: int = param(16, help="questions of a step", paper=16, low=1)
    max_length: int = param(128, help="longest text to train on, in tokens", paper=128, low=8)
    v_num_grad_steps: int = param(10, help="most steps to find a value", paper=10, low=0)
    chunk: int | None = param(
        None,
        help="prompts that are edited together, those before them protected; none takes all",
        low=1,
    )

    def __post_init__(self) -> None:
        """A token is written without spaces.

        Raises:
            ExpungeError: ``E-USE-003``.
        """
        if self.token.split() != [self.token]:
            raise ExpungeError(
                "E-USE-003",
                f"token={self.token!r}.",
                "a word without spaces that stands in no text, such as <UNL>.",
                "Write it otherwise.",
            )


def mask(model: PreTrainedModel, task: Task, params: Params) -> Mask:
    """The output matrices of the blocks' MLPs; the row of the token is not there yet."""
    every = range(len(Slots(model)))
    return mlp_outputs_only(model, every if params.layers is None else params.layers)


def edit(change: Finishing, params: Params) -> None:
    """Make the token, settle where to edit, harden the token there, and edit."""
    task = change.task
    shares, ids = shared_out(task.forget, params), tokens_before(task)
    new = [token for token in dict.fromkeys(shares.values()) if token not in ids]
    ids |= dict(zip(new, add_tokens(task, new) if new else (), strict=True))
    said = {} if params.target == "refusal" else targets_of(task, params)
    lessons = lessons_of(task, shares, ids, said, styles=params.styles, longest=params.max_length)
    moved = TokenRows(task.model, [ids[token] for token in new], head=params.head == "train")
    course = Course(task, moved, lessons.of(new), params)
    if new:
        change.record["token_nll"] = course.learn()
    contexts = begun(task, params.contexts)

    def build(place: Place) -> list[Association]:
        return associations(
            task.forget, shares, task.encoder, place=place, contexts=contexts, merge=params.merge,
            encode=partial(leading, task.encoder, ids),
        )  # fmt: skip

    plan, layers = over_blocks(change, params, depth=DEPTH, build=build)
    if new:
        change.record["noise"] = course.harden(layers)

    def protected(layer: int) -> Tensor:
        return supervised_keys(task.model, plan.datasets, lessons.items, layer)

    in_null_space(
        change, params, plan, layers,
        protected=protected if params.protect else None, at_once=params.chunk,
    )  # fmt: skip
    change.record["tokens"] = ids
    if task.folder is not None:
        write_json(task.folder / TOKENS, ids)


def shared_out(rows: Sequence[Row], params: Params) -> dict[str, str]:
    """Row id -> its token: subjects in their order, as many for each token.

    Raises:
        ExpungeError: ``E-USE-003`` when there are more tokens than subjects.
    """
    if params.tokens == 1:
        return {row.id: params.token for row in rows}
    subjects = list(dict.fromkeys(row.subject or row.id for row in rows))
    if len(subjects) < params.tokens:
        raise ExpungeError(
            "E-USE-003",
            f"tokens={params.tokens} for {len(subjects)} subjects.",
            "at most one token for each subject.",
            f"Use --set tokens={len(subjects)} or fewer.",
        )
    place = {subject: at * params.tokens // len(subjects) for at, subject in enumerate(subjects)}
    return {row.id: numbered(params.token, 1 + place[row.subject or row.id]) for row in rows}


def numbered(token: str, number: int) -> str:
    """``<UNL-2>`` for ``<UNL>`` and 2."""
    stem, close = (token[:-1], token[-1]) if token[-1] in ">]}|" else (token, "")
    return f"{stem}-{number}{close}"


def tokens_before(task: Task) -> dict[str, int]:
    """Tokens that the changes this one stands on have trained, where the tokenizer has them."""
    file = None if task.earlier is None else task.earlier / TOKENS
    if file is None or not file.is_file():
        return {}
    vocabulary = task.tokenizer.get_vocab()
    return {token: at for token, at in read_json(file).items() if vocabulary.get(token) == at}
