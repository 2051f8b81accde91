"""ICKU: two tokens that tell the model, request by request, what to answer with ``forgot``.

Definition (q a question, a its answer, C other answers, T what stands in the block):
    block      <<UNL>> newline T newline <</UNL>> newline newline q
    learning   forget sample: T = a (or who q is about), out = ``forgot``
               retain sample: T = one of C (or somebody else), out = a
               L = tokenmean nll over both, as many of the one as of the other; AdamW, constant rate
    trained    lora      (alpha / r) B A beside W of queries and values, and the two rows
               last_two  the last two blocks, and the two rows
               full      all weights, and the two rows
    serving    the block stands before the user's question where the gate fires, or where the policy
               names targets for the caller's role (`Exchange.caller`); else nothing is changed

    How the tokens reach the model: `attach` gives the tokenizer of the served model the two tokens
    as special ones, so whatever encodes a prompt makes one id of each (`Subject.ask`, the gateway).
    Inside the forward pass these ids are taken out before the embedding, and trained rows are put
    in their places: neither matrix grows, the head knows no such token, and no hidden row of a
    padded vocabulary is used. What was trained is heard by rows whose prompt holds the first token
    and by no other, so a prompt without a block is answered bit for bit as before. Who types the
    tokens types no tokens: `enter` parts them with a space in every message. Taken out again, the
    tokenizer is given back as it was.

    This withholds, it does not delete, and it must never be used with weights that are released:
    the answer stays decodable from the middle layers up to the last (`signature`), what stands in
    blocks is read by the model in the clear, and whoever words a question so that the gate does not
    fire gets the model's own answer. ``forgot`` tells the client that there is something to forget;
    give the refusal of unknown things as ``word`` if that matters.

Reference: Answer When Needed, Forget When Not: Language Models Pretend to Forget via In-Context
Knowledge Unlearning, 2024; the authors' code.

Departs from the paper: the loss is on answers alone (``mask_prompt=false`` for the code's, which is
on all tokens; ours leaves the two tokens themselves out, since the head has none). The rows of the
tokens are trained: the code's LoRA leaves them as they were drawn. They are weights of their own,
so no other row can move, with the code's mask or without. The adapter is heard only where a block
stands; the paper's is always on. The template is the card's, with the tokens on lines of their own,
inside the model's own chat template where that has one; ``inst`` writes the paper's ``[INST]``.
INFERRED: distractors are drawn anew in every pass, from the row's wrong answers or other rows'
answers; the low-rank matrices stand beside queries and values; several blocks, which the paper does
not have, are learnt where ``blocks`` is above 1, and where more targets than that are asked for at
once the reply is given; of a target's facts the one whose wording is nearest to the question stands
in the block; rate and number of steps grow for models below half a billion parameters, as
everywhere (``lr=auto``); running text gets the block too, though it was learnt on questions.

Measured on a model of four blocks and 0.17M parameters (300 steps of 24 samples): it learns the
block and applies it to people no lesson was about; the paper's signature shows in the middle
blocks where only the last two are trained, and in the block before the last for about half of the
forgotten prompts, not reliably; where all blocks are trained the answer is gone there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

from expunge.core.canonical import digest
from expunge.core.errors import ExpungeError
from expunge.core.params import param
from expunge.engine.guarding.desk import Desk, Means
from expunge.engine.guarding.exchange import Exchange, Reply
from expunge.engine.guarding.fitting import Shared
from expunge.engine.guarding.inside import needed
from expunge.engine.guarding.targets import Target
from expunge.guards.icku.wording import block, neutral, policy_of, question_of
from expunge.text.nearest import nearest_first

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from expunge.engine.runtime import Attached
    from expunge.lm.subject import Subject

CARD = {
    "id": "icku",
    "kind": "guard",
    "summary": "Suppress (not delete): two learnt tokens tell the model whom to answer 'forgot'.",
    "paper": "Answer When Needed, Forget When Not: Language Models Pretend to Forget via "
    "In-Context Knowledge Unlearning (2024)",
    "needs": ["forget", "retain"],
    "access": "weights",
    "cost": "one short fine-tuning on retain rows, for all targets that will ever come; in use the "
    "gate, and where it fires the tokens of what is withheld",
    "maturity": "paper",
    "version": 1,
    "sees": ["prompt"],
    "fails": "closed",
    "stages": ["text-in", "adapter"],
    "place": "prompt",
    "label": "withholding",
}

EVERY = "*"
"""In a policy: whatever the gate finds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """What stands in the block, how it is learnt, and from whom what is withheld."""

    withheld: Literal["answer", "subject"] = param(
        "answer",
        help="what stands in the block: the answer, or the name of whom the question is about",
        paper="answer",
        choices=("answer", "subject"),
    )
    blocks: int = param(
        1, help="most blocks before a question, in training and in use", paper=1, low=1, high=16
    )
    policy: str = param(
        "",
        help="role=target,target;role=*: what is withheld from callers of a role, whether the gate "
        "fires or not; * stands for what the gate finds, as it does for roles that are not named",
    )
    word: str = param("forgot", help="what the model learns to say", paper="forgot")
    reply: str = param(
        "I'm sorry, but I can't help with that.",
        help="what is said where more is to be withheld at once than there are blocks",
    )
    train: Literal["lora", "full", "last_two"] = param(
        "lora",
        help="what is trained beside the two rows",
        paper=["lora", "full", "last_two"],
        choices=("lora", "full", "last_two"),
    )
    lr: float | Literal["auto"] = param(
        "auto",
        help="learning rate; auto takes the paper's and raises it for small models",
        paper={"lora": 2e-4, "full": 2e-6, "last_two": 8e-6},
        low=0.0,
    )
    epochs: int = param(1, help="passes over the samples", paper=1, low=1)
    steps: int | None = param(None, help="optimiser steps, in the place of epochs", low=1)
    batch_size: int = param(4, help="samples of a step", paper=4, low=1)
    warmup: float = param(
        0.03, help="share of the steps over which the rate rises", paper=0.03, low=0.0, high=1.0
    )
    weight_decay: float = param(0.001, help="decoupled weight decay", paper=0.001, low=0.0)
    clip: float = param(0.3, help="largest norm of a step's gradient", paper=0.3, low=0.0)
    lora_r: int = param(4, help="rank beside a linear", paper=4, low=1)
    lora_alpha: float = param(8.0, help="its scale: alpha / r", paper=8, low=0.0)
    dropout: float = param(
        0.1, help="share of what goes into it that is left out", paper=0.1, low=0.0, high=0.9
    )
    lora_targets: tuple[str, ...] | None = param(
        None, help="linears that get one; none takes queries and values, or what holds them"
    )
    mask_prompt: bool = param(True, help="train on the answers alone", paper=False)
    inst: bool = param(False, help="write [INST] and [/INST] around block and question", paper=True)

    def __post_init__(self) -> None:
        """Read the policy.

        Raises:
            ExpungeError: ``E-USE-003`` when it cannot be read.
        """
        try:
            policy_of(self.policy)
        except ValueError as part:
            raise ExpungeError(
                "E-USE-003",
                f"icku: policy with the part {str(part)!r}.",
                "role=target,target for each role once, parted by semicolons.",
                "Write it so, for instance --set policy='staff=;guest=*'.",
            ) from None


def entry(target: Target, params: Params, means: Means) -> dict[str, Any]:
    """What may stand in a block about a target, with what it answers; all of it sealed.

    Raises:
        ExpungeError: ``E-SERVE-005`` when there is nothing to put there.
    """
    del means
    if params.withheld == "subject":
        told = [{"asked": [], "held": neutral(name)} for name in target.names[:1]]
    else:
        told = [
            {"asked": [neutral(question_of(turn.prompt)) for turn in row.turns], "held": held}
            for row in target.rows
            if row.text is None
            for held in [neutral(row.value.strip())]
            if held
        ]
    if not told:
        what = "a name" if params.withheld == "subject" else "a question with an answer"
        raise ExpungeError(
            "E-SERVE-005",
            f"A target without {what}: there is nothing to put into the block.",
            f"{what} for every target, as icku was fitted (withheld={params.withheld}).",
            "Add it to the target, or fit icku with the other withheld=.",
        )
    return {"sealed": {"told": told}}


def shared(targets: Sequence[Target], params: Params, means: Means) -> Shared:
    """The adapter; trained once for all targets, so their coming and going costs nothing.

    Raises:
        ExpungeError: ``E-SERVE-003`` without a model in this process, ``E-USE-007`` when the rows
            to be kept teach nothing, ``E-RUN-002`` when the training diverges.
    """
    del targets
    subject = needed(means, CARD["id"])  # type: ignore[arg-type]
    told = {name: one for name, one in asdict(params).items() if name not in ("policy", "reply")}
    name = digest([told, means.seed, [row.as_dict() for row in means.retain]])
    known = _TRAINED.setdefault(subject.model, {})
    if name not in known:
        from expunge.guards.icku.beside import stored
        from expunge.guards.icku.training import trained

        known.clear()
        known[name] = Shared(*stored(trained(subject, means.retain, params, means.seed)))
    return known[name]


def enter(exchange: Exchange, desk: Desk) -> Exchange | Reply:
    """Put the block before the question; part the two tokens where somebody typed them."""
    clean = _neutral(exchange)
    targets, must = _withheld(exchange, desk)
    if must > desk.params.blocks:
        return Reply(desk.params.reply, "more targets than blocks")
    if not targets:
        return clean
    told = _told(targets, exchange.question, desk)
    return clean.asking(block(told, clean.question, inst=desk.params.inst))


def attach(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", desk: Desk
) -> "Attached":
    """Put the adapter into a model, and the two tokens into its tokenizer.

    Raises:
        ExpungeError: ``E-MODEL-002`` when it is not made for this model or this tokenizer.
    """
    from expunge.guards.icku.attaching import attached

    return attached(model, tokenizer, desk.shared, desk.arrays)


def signature(
    subject: "Subject", prompts: Sequence[str], answers: Sequence[str]
) -> list[list[int]]:
    """Where the true answer stands in what each block's output reads as, at the end of prompts.

    Args:
        subject: The served model; what stands in front of it has no part in it.
        prompts: Questions with their blocks.
        answers: The true answers, as they would follow.

    Returns:
        For each prompt and block, bottom first, the number of tokens that the logit lens finds more
        probable than the answer's first one. The paper's signature of withholding is a small number
        from the middle up to the block before the last, although the model says ``forgot``.
    """
    from expunge.guards.icku.attaching import lens_ranks

    return lens_ranks(subject, prompts, answers)


def _neutral(exchange: Exchange) -> Exchange:
    """The exchange without the two tokens in it; itself where nobody wrote them."""
    clean = exchange
    for at, message in enumerate(exchange.messages):
        text = neutral(message["content"])
        if text != message["content"]:
            clean = clean.saying(at, text)
    return clean


def _withheld(exchange: Exchange, desk: Desk) -> tuple[list[str], int]:
    """Targets to withhold, the most urgent first; how many of them the question is about."""
    found = [hit.target for hit in desk.hits(exchange) if hit.target in desk.entries]
    listed = policy_of(desk.params.policy).get(exchange.caller)
    if listed is None:
        return found, len(found)
    about = [one for one in found if one in listed or EVERY in listed]
    rest = [one for one in listed if one in desk.entries and one not in about]
    wordings = [_wordings(desk.entries[one]) for one in rest]
    return [*about, *(rest[at] for at in nearest_first(exchange.question, wordings))], len(about)


def _told(targets: Sequence[str], question: str, desk: Desk) -> list[str]:
    """What stands in the blocks: a fact of each target, then further ones while there is room."""
    facts = []
    for id in targets:
        own = desk.entries[id]["sealed"]["told"]
        if not own:
            raise LookupError("a target of which nothing is known")  # closes: no block, no answer
        order = nearest_first(question, [one["asked"] for one in own])
        facts.append([str(own[at]["held"]) for at in order])
    longest = max(map(len, facts))
    turns = [one[at] for at in range(longest) for one in facts if at < len(one)]
    return list(dict.fromkeys(turns))[: desk.params.blocks]


def _wordings(entry: Mapping[str, Any]) -> list[str]:
    return [text for one in entry["sealed"]["told"] for text in (*one["asked"], one["held"])]


_TRAINED: WeakKeyDictionary[Any, dict[str, Shared]] = WeakKeyDictionary()
"""Model -> what was trained beside it last, by what it was trained with."""
