"""Erase and repair: reset neurons of the last block, then fine-tune on everything but the secrets.

Objective:
    erase     a share of the MLP neurons of the top k blocks is drawn anew from N(0, sigma^2):
              their rows of the input matrices and their columns of the output matrix; sigma is the
              spread the model's configuration begins with, biases begin at 0
    repair    L = alpha * tokenmean( nll ) over the tokens of forget and retain rows that are not
              sensitive, from the reset model

    Nothing pushes the sensitive tokens away: they are given as input and never predicted, so what
    the repair does not teach again stays gone. Sensitive are a forget row's ``spans``, else its
    ``answer`` and ``aliases`` wherever they stand, and what ``finder`` finds; a row with none of
    these is sensitive as a whole, its end included. All pieces of a marked word are.

    fraction=0 repairs without erasing.

Reference: Leverage Unlearning to Sanitize LLMs, 2025.

Departs from the paper:
    Only reviews of it were read. They agree on the random half, the last layer, the order, and
    that sensitive tokens are not predicted. INFERRED: a neuron is a unit of the MLP; how it is
    drawn anew; that words after a secret are learnt with the secret in front of them, unless
    ``replace`` puts a word such as [NAME] in its place. A step takes as many retain rows as forget
    rows, where the paper passes its corpus once or twice; secrets are looked for in the forget
    rows alone, unless ``finder`` or ``scope=corpus`` looks for them in the rest.

    The paper's setting is a preset, no recommendation: on tiny models it forgets little more than
    repair alone, which uses what the attention still knows; more blocks, a larger fraction and
    pick=attribution forget more. Weights are reset, so no adapter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from expunge.core.errors import ExpungeError
from expunge.core.families import GradientParams
from expunge.core.params import param
from expunge.core.rng import generator
from expunge.data.encode import collate
from expunge.engine.datasets import Datasets, wordings_of
from expunge.engine.flags import Marked, flagged, marked, occurrences, only, touching
from expunge.engine.made import made_once
from expunge.engine.mean import Mean, mean_of
from expunge.engine.step import Step
from expunge.engine.task import Paired, Task
from expunge.lm.arch import Slots
from expunge.lm.hooks import evaluating
from expunge.lm.load import load
from expunge.lm.neurons import attributions, units_of, weights_of_units
from expunge.lm.scoring import padding_id
from expunge.requests.personal import by_presidio
from expunge.requests.rows import Row, Turn
from expunge.requests.secrets import kinds_of

CARD = {
    "id": "sani",
    "kind": "gradient",
    "summary": "Resets neurons of the last block, then fine-tunes without the sensitive tokens.",
    "paper": "Leverage Unlearning to Sanitize LLMs (2025)",
    "needs": ["cleaned", "retain"],
    "access": "weights",
    "cost": "1 forward and backward over forget and retain rows per step; for pick=attribution 1 "
    "over the forget rows before",
    "maturity": "paper",
    "version": 1,
    "trains": "weights",
}

SENSITIVE = "sani.sensitive"
"""Name in the state: view -> the flags of its sensitive tokens."""

SIGMA = 0.02
"""Spread of new weights where a configuration names none."""

BATCH = 8
"""Rows of one backward pass."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(GradientParams):
    """The shared parameters, what is reset, and what counts as sensitive."""

    retain_term: str = param("nll", help="what the repair trains on", paper="nll", choices=("nll",))
    epochs: int | None = param(
        None, help="passes over the forget set; none leaves it to max_steps", paper=2, low=1
    )
    blocks: int = param(1, help="blocks that are reset, from the top (k)", paper=1, low=1)
    fraction: float = param(
        0.5, help="share of the neurons of each that is reset; 0: none", paper=0.5, low=0, high=1
    )
    pick: Literal["random", "attribution"] = param(
        "random",
        help="which neurons: any, or those with the most activation times gradient on the secrets",
        paper="random",
        choices=("random", "attribution"),
    )
    reset_to: Literal["init", "base"] = param(
        "init",
        help="new weights: drawn, or those of the model before it was fine-tuned",
        paper="init",
        choices=("init", "base"),
    )
    base: str | None = param(None, help="folder of that model, for reset_to=base")
    replace: str | None = param(
        None, help="stands in the text in place of a secret, such as [NAME]; none keeps the secret"
    )
    finder: Literal["none", "rules", "presidio"] = param(
        "none",
        help="finds personal data in forget and retain rows, beside what is marked",
        paper="a detector",
        choices=("none", "rules", "presidio"),
    )
    scope: Literal["rows", "corpus"] = param(
        "rows",
        help="where the secrets of forget rows are secret: there, or in retain rows too",
        paper="corpus",
        choices=("rows", "corpus"),
    )

    def __post_init__(self) -> None:
        """Refuse a reset to a model that is not named.

        Raises:
            ExpungeError: ``E-USE-007``.
        """
        if self.reset_to == "base" and self.base is None:
            raise ExpungeError(
                "E-USE-007",
                "reset_to=base without the base model.",
                "the folder of the model as it was before it was fine-tuned.",
                "Give --set base=FOLDER, or --set reset_to=init.",
            )


def prepare(task: Task, params: Params) -> None:
    """Mark the secrets and erase; a resumed run erases the same, then loads its checkpoint."""
    _refuse_adapters(task.model)
    personal = _personal([*task.forget, *task.retain], params.finder)
    plain = {row.id: marked(row, personal.get(row.id, ())) for row in task.forget}
    given = plain
    if params.replace is not None:
        given = {id: [one.replaced(params.replace) for one in own] for id, own in plain.items()}

    def cleaned(row: Row, wording: int, candidate: int) -> Turn:
        return given[row.id][wording].turn

    task.paired["cleaned"] = Paired(cleaned, count=1)
    task.state[SENSITIVE] = {
        "cleaned": [
            one.flags(task.encoder.encode(one.turn)) for own in given.values() for one in own
        ],
        "retain": _kept_secrets(task, params, plain, personal),
    }

    def chosen() -> list[dict[str, Any]]:
        return neurons(task, params, [one for own in plain.values() for one in own])

    erased = {one["block"]: one["neurons"] for one in made_once(task, "erased", chosen)}
    reset(task, params, erased)
    task.record["erased_neurons"] = sum(map(len, erased.values()))
    task.record["sensitive_tokens"] = sum(map(len, task.state[SENSITIVE]["cleaned"]))


def forget(step: Step, params: Params) -> None:
    """Nothing is pushed away."""


def retain(step: Step, params: Params) -> Mean | None:
    """Token-mean negative log-likelihood of all rows of the step, secrets left out."""
    tables = step.state.get(SENSITIVE, {})
    means = []
    for name in ("cleaned", "retain"):
        if name in step:
            view = getattr(step, name)
            means.append(mean_of(-view.token_logp[~flagged(view, tables.get(name, ()))]))
    return sum(means[1:], means[0]) if means else None


def neurons(task: Task, params: Params, secrets: Sequence[Marked]) -> list[dict[str, Any]]:
    """The neurons to reset: for each block (from the bottom) ``block`` and ``neurons``."""
    widths = units_of(task.model)
    if params.pick == "attribution":
        scores = _scores(task, secrets)
    else:
        draws = [generator(task.seed, "sani", "neurons", at) for at in range(len(widths))]
        scores = [torch.from_numpy(d.random(n)) for d, n in zip(draws, widths, strict=True)]
    top = sorted(Slots(task.model).index(-1 - depth) for depth in range(params.blocks))
    best = {at: scores[at].topk(round(params.fraction * widths[at])).indices for at in top}
    return [{"block": at, "neurons": sorted(units.tolist())} for at, units in best.items()]


@torch.no_grad()
def reset(task: Task, params: Params, erased: Mapping[int, Sequence[int]]) -> None:
    """Give neurons new weights, in place.

    Args:
        task: Its model is changed; its seed decides what is drawn.
        params: Whether they are drawn or those of the base model.
        erased: Block -> its neurons.
    """
    widths, is_drawn = units_of(task.model), params.reset_to == "init"
    base = None if is_drawn else _base(params, task.model)
    config: Any = task.model.config.get_text_config()
    sigma = float(getattr(config, "initializer_range", SIGMA))
    for block, units in erased.items():
        for name, owned in _weights(task.model, block, units, widths[block]).items():
            weight = task.model.get_parameter(name)
            if base is not None:
                new = base.get_parameter(name).to(weight.device)[owned]
            elif name.endswith(".bias"):
                new = torch.zeros(int(owned.sum()))
            else:
                draw = generator(task.seed, "sani", "weights", name)
                new = torch.from_numpy(draw.normal(0.0, sigma, int(owned.sum())))
            weight[owned] = new.to(weight)


def _weights(model: nn.Module, block: int, units: Sequence[int], width: int) -> dict[str, Tensor]:
    """Name -> bool tensor: what belongs to some neurons, biases of their inputs included."""
    chosen = torch.zeros(width, dtype=torch.bool)
    chosen[list(units)] = True
    found = dict(weights_of_units(model, block, chosen))
    for name in Slots(model).names(block, "mlp_in"):
        bias = getattr(model.get_submodule(name), "bias", None)
        if bias is not None:
            found[f"{name}.bias"] = chosen.to(bias.device).repeat(len(bias) // width)
    return found


def _scores(task: Task, secrets: Sequence[Marked]) -> list[Tensor]:
    """For each block [neurons], mean size of activation times gradient, where secrets are said."""
    encoded = [(one, task.encoder.encode(one.turn)) for one in secrets]
    items = [only(item, one.flags(item)) for one, item in encoded]
    sums: list[Tensor] = []
    with evaluating(task.model):
        for start in range(0, len(items), BATCH):
            batch = collate(items[start : start + BATCH], padding_id(task.tokenizer))
            found = [block.abs().sum(0) for block in attributions(task.model, batch)]
            sums = [a + b for a, b in zip(sums, found, strict=True)] if sums else found
    return [total / len(items) for total in sums]


def _personal(rows: Sequence[Row], finder: str) -> dict[str, list[str]]:
    """Row id -> the personal data in it."""
    if finder == "none":
        return {}
    found = {id: [one.value for one in details] for id, details in kinds_of(rows).items()}
    for row in rows if finder == "presidio" else ():
        found[row.id] += [one.value for one in by_presidio(wordings_of(row)[0].completion)]
    return found


def _kept_secrets(
    task: Task,
    params: Params,
    secrets: Mapping[str, Sequence[Marked]],
    personal: Mapping[str, Sequence[str]],
) -> list[list[int]]:
    """The flags of all retain items; none where nothing is looked for in them."""
    if params.finder == "none" and params.scope == "rows":
        return []
    listed: list[str] = []
    if params.scope == "corpus":
        listed = [secret for own in secrets.values() for one in own for secret in one.secrets]
    return [
        touching(item, occurrences(turn.completion, [*personal.get(row.id, ()), *listed]))
        for row, items in zip(task.retain, Datasets(task).items("retain"), strict=True)
        for turn, item in zip(wordings_of(row), items, strict=True)
    ]


def _base(params: Params, model: nn.Module) -> nn.Module:
    """The base model, on the processor; refused when its weights have other names or shapes."""
    base = load(str(params.base), device="cpu").model
    own, other = ({n: p.shape for n, p in one.named_parameters()} for one in (model, base))
    if own != other:
        raise ExpungeError(
            "E-USE-006",
            f"The base {params.base} has other weights than the model.",
            "the model that this one was fine-tuned from.",
            "Name that one in --set base.",
        )
    return base


def _refuse_adapters(model: nn.Module) -> None:
    """An adapter would be saved without the weights that were reset under it."""
    if any(".lora_" in name for name, _ in model.named_parameters()):
        raise ExpungeError(
            "E-USE-006",
            "--adapter with sani, which resets weights of the model itself.",
            "whole weights.",
            "Leave --adapter out; the change can be taken back all the same (expunge revert).",
        )
