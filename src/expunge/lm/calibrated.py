"""Rounding weights with an eye on what they are multiplied by: GPTQ and AWQ.

Both round the linears of the blocks from the first to the last, and look at what each of them reads
while those before it are rounded already. Linears that read the same states (query, key and value)
are rounded together.

References: GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers
(2022); AWQ: Activation-aware Weight Quantization for LLM Compression and Acceleration (2023).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from expunge.core.errors import ExpungeError
from expunge.data.encode import Batch, Encoded, by_length, collate
from expunge.lm.arch import Slots
from expunge.lm.compression import Rounding
from expunge.lm.hooks import evaluating, forward_through
from expunge.lm.quantise import dequantise, matrix, quantise
from expunge.lm.relearn import draw_rows
from expunge.lm.scoring import padding_id
from expunge.lm.subject import Scene, Subject
from expunge.requests.rows import Row

DAMPING = 0.01
"""What GPTQ adds to the diagonal, as a share of its mean."""

POWERS = tuple(step / 20 for step in range(21))
"""Powers of the mean input among which AWQ chooses."""

FAINTEST = 1e-4
"""Mean input of a channel, against that of all, below which AWQ takes it for this."""

PASSES = 34
"""Full passes that calibrating 16 blocks takes; a block is reached once for each of `ORDER`."""

ORDER = ("attention_in", "attention_out", "mlp_in", "mlp_out")
"""In which order a block's linears run."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What some linears read, over all tokens x of the calibration.

    Attributes:
        gram: [in, in], sum of x x^T, float64.
        size: [in], mean of ``|x|``, float64.
    """

    gram: Tensor
    size: Tensor


Method = Callable[[Tensor, Inputs], tuple[Tensor, Tensor]]
"""Weights [out, in] and what they read -> the rounded weights and their codes, [out, in] both."""


def gptq(weight: Tensor, inputs: Inputs, bits: int, group: int) -> tuple[Tensor, Tensor]:
    """Round column by column; what one loses, those after it make up for.

        H = 2 X X^T + lambda I,    w_k <- w_k - (w_j - q_j) [H^-1]_jk / [H^-1]_jj    for k > j

    with ``H^-1`` that of the columns from j on, read off the rows of its Cholesky factor. A group's
    step is that of its weights when its first column's turn comes.

    Args:
        weight: [out, in].
        inputs: What it reads.
        bits: Bits of a code.
        group: Input channels that share a step.

    Returns:
        The rounded weights and their codes int8, [out, in] both.
    """
    factor = inverse_factor(2 * inputs.gram)
    work, top = weight.to(factor, copy=True), 2 ** (bits - 1) - 1
    rounded, codes = torch.zeros_like(work), torch.zeros_like(work, dtype=torch.int8)
    for start in range(0, work.shape[1], group):
        end = min(start + group, work.shape[1])
        step = quantise(work[:, start:end], bits)[1][:, 0, 0]
        lost = torch.zeros_like(work[:, start:end])
        for at in range(start, end):
            code = (work[:, at] / step).round().clamp(-top, top)
            codes[:, at], rounded[:, at] = code, step * code
            lost[:, at - start] = (work[:, at] - rounded[:, at]) / factor[at, at]
            work[:, at:end] -= lost[:, at - start, None] * factor[at, at:end]
        work[:, end:] -= lost @ factor[start:end, end:]
    return rounded, codes


def awq(weight: Tensor, inputs: Inputs, bits: int, group: int) -> tuple[Tensor, Tensor]:
    """Round to nearest after stretching the input channels that matter most.

        s_c = mean|x_c|^a,    a = argmin over 0, .05 ... 1 of  || Q(W diag s) diag(s)^-1 X - W X ||

    Args:
        weight: [out, in].
        inputs: What it reads.
        bits: Bits of a code.
        group: Input channels that share a step.

    Returns:
        The rounded weights and their codes int8, [out, in] both.
    """
    width, precise = weight.shape[1], weight.to(inputs.gram)
    size = (inputs.size / inputs.size.mean().clamp(min=1e-30)).clamp(min=FAINTEST)

    def stretched(power: float) -> tuple[Tensor, Tensor]:
        codes, step = quantise(precise * size**power, bits, group)
        return dequantise(codes, step, width) / size**power, codes.flatten(1)[:, :width]

    candidates = map(stretched, POWERS)
    return min(candidates, key=lambda found: output_error(found[0] - precise, inputs))


def output_error(difference: Tensor, inputs: Inputs) -> float:
    """``||D X||^2``: how far a change D [out, in] of the weights moves what comes out."""
    precise = difference.to(inputs.gram)
    return float(((precise @ inputs.gram) * precise).sum())


def calibration(subject: Subject, scene: Scene, sequences: int) -> list[Encoded]:
    """Rows to be kept as a model reads them meanwhile, drawn once for a seed.

    Args:
        subject: Whose tokens they become.
        scene: The rows to be kept and the seed.
        sequences: Most rows; one the model has no positions for is left out.
    """
    chosen = draw_rows(scene.retain, sequences, scene.seed, "calibration")
    return [text for row in chosen if (text := _encoded(subject, row)) is not None]


def calibrated(method: Method, texts: Sequence[Encoded]) -> Rounding:
    """Round every linear of the blocks by a method that looks at what the linear reads.

    Args:
        method: The method.
        texts: What the model reads meanwhile.
    """

    def rounding(copy: Subject) -> Mapping[str, Tensor]:
        batches = [
            collate([texts[at] for at in places], padding_id(copy.tokenizer))
            for places in by_length([len(text.ids) for text in texts], copy.batch_size)
        ]
        with evaluating(copy.model):
            return _rounded(copy.model, batches, method)

    return rounding


def _rounded(model: nn.Module, batches: Sequence[Batch], method: Method) -> dict[str, Tensor]:
    slots = Slots(model)
    codes: dict[str, Tensor] = {}
    for layer in range(len(slots)):
        for names in (slots.names(layer, slot) for slot in ORDER):
            linears = [slots.model.get_submodule(name) for name in names]
            weights = [matrix(linear) for linear in linears]
            together, found = method(
                torch.cat(weights), inputs_of(model, layer, linears[0], batches)
            )
            heights = [len(weight) for weight in weights]
            for weight, rounded in zip(weights, torch.split(together, heights), strict=True):
                weight.copy_(rounded)
            codes |= dict(zip(names, torch.split(found, heights), strict=True))
    return codes


def inputs_of(model: nn.Module, layer: int, linear: nn.Module, batches: Sequence[Batch]) -> Inputs:
    """What a linear reads in some batches, padding left out.

    Args:
        model: The model.
        layer: Block the linear is in; the blocks above it do not run.
        linear: One of its linears.
        batches: Rows padded on the right.
    """
    seen: list[Tensor] = []
    handle = linear.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    device = next(model.parameters()).device
    width, tokens = matrix(linear).shape[1], 0
    size = torch.zeros(width, dtype=torch.float64, device=device)
    gram = torch.zeros(width, width, dtype=torch.float64, device=device)
    try:
        for batch in batches:
            forward_through(model, [layer], input_ids=batch.input_ids.to(device), use_cache=False)
            x = seen.pop()[batch.attention_mask.bool().to(device)].float()
            gram += x.T @ x
            size += x.abs().sum(0)
            tokens += len(x)
    finally:
        handle.remove()
    return Inputs(gram, size / tokens)


def _encoded(subject: Subject, row: Row) -> Encoded | None:
    """A row as it is trained on, or None where the model has too few positions for it."""
    try:
        return subject.encoder.encode(row.training)
    except ExpungeError as error:
        if error.code != "E-DATA-011":
            raise
        return None


def inverse_factor(hessian: Tensor) -> Tensor:
    """Upper triangular U with ``U^T U = (H + lambda I)^-1``."""
    damping = (DAMPING * hessian.diagonal().mean()).clamp(min=1e-12)
    damped = hessian + damping * torch.eye(len(hessian)).to(hessian)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    factor: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor
